"""Write the pages that follow from the code: docs/run-file.md and docs/flags.md. A test compares them with the code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from jobs.runfile import RunFile
from sedflow_dist import flags
from sedflow_dist.surveys import Survey


def run_file_page() -> str:
    """Return a table of every key of a run file."""
    lines = ["# The run file", "", "YAML; unknown keys are refused. Generated from the code by `docs/generate.py`."]
    sections: list[tuple[str, type[BaseModel]]] = [("Top level", RunFile)]
    for name, field in RunFile.model_fields.items():
        if isinstance(field.default, BaseModel):
            sections.append((name, type(field.default)))
            sections += [
                (f"{name}.{inner}", type(value.default))
                for inner, value in type(field.default).model_fields.items()
                if isinstance(value.default, BaseModel)
            ]
    sections.append(("survey, where it is declared in the run file", Survey))
    for title, model in sections:
        lines += ["", f"## {title}", "", "| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        for key, field in model.model_fields.items():
            if isinstance(field.default, BaseModel):
                lines.append(f"| `{key}` | section | | see below |")
                continue
            kind = str(field.annotation if not isinstance(field.annotation, type) else field.annotation.__name__)
            kind = kind.replace("typing.", "").replace("|", "or").replace("sedflow_dist.surveys.", "")
            lines.append(f"| `{key}` | {kind} | {_default(field)} | {field.description or ''} |")
    return "\n".join(lines) + "\n"


def flags_page() -> str:
    """Return the table of flags."""
    lines = ["# Flags", "", "Bits of a row's `flags`. Generated from the code by `docs/generate.py`.", ""]
    lines += ["| bit | name | meaning |", "| --- | --- | --- |"]
    lines += [f"| {int(flag)} | {flag.name} | {flags.DESCRIPTIONS[flag]} |" for flag in flags.Flag]
    return "\n".join(lines) + "\n"


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.default if field.default_factory is None else field.default_factory()
    return f"`{value!r}`"


PAGES = {"run-file.md": run_file_page, "flags.md": flags_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (Path(__file__).parent / name).write_text(page())
