"""Pages of a report: sections in, a folder of HTML out, which opens from a file or from any object storage.

A page runs two scripts that lie beside it, Bokeh's and ``report.js``; data stand in the page as JSON, which no browser
executes. Its content security policy forbids everything else. Text that others wrote is shown as text: the template escapes
it, and what would turn or hide the text around it is written as an escape (`printable`).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.figure
from bokeh.util.paths import bokehjs_path
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from jobs.report import interactive, printed
from jobs.report.charts import Chart
from storage_schemas.backend.printable import printable

_HERE = Path(__file__).parent
_BESIDE = ("report.css", "report.js")
_BOKEH = "bokeh.min.js"
_FORMATS = ("png", "pdf")


class Number(str):
    """A number as it is shown."""


@dataclass(frozen=True)
class Table:
    """A table: ``rows`` of cells, which are text and `Number`."""

    head: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Section:
    """A part of a page: a text, a table, charts."""

    title: str
    text: str = ""
    table: Table | None = None
    charts: Sequence[Chart] = ()


@dataclass(frozen=True)
class Page:
    """One page: its file's name without ending, its title and its sections."""

    name: str
    title: str
    sections: list[Section] = field(default_factory=list)


def write(folder: Path, title: str, pages: Sequence[Page]) -> None:
    """Write pages, their charts as PNG, PDF and CSV, and what they run into a folder that exists."""
    for name in _BESIDE:
        shutil.copyfile(_HERE / "templates" / name, folder / name)
    shutil.copyfile(Path(bokehjs_path()) / "js" / _BOKEH, folder / _BOKEH)
    charts = [chart for page in pages for section in page.sections for chart in section.charts]
    for name in ("figures", "tables"):
        (folder / name).mkdir(exist_ok=True)
    for chart in charts:
        save(printed.figure(chart), folder / "figures" / chart.name)
        chart.table().to_csv(folder / "tables" / f"{chart.name}.csv", index=False, float_format="%.6g")
    template = _environment().get_template("page.html")
    for page in pages:
        text = template.render(title=title, page=page, pages=pages, item=interactive.item, is_number=_is_number)
        (folder / f"{page.name}.html").write_text(text, encoding="utf-8")


def one_file(title: str, png: str, sections: Sequence[Section]) -> str:
    """Return a page of a picture (PNG, base64) and tables that is one file, without any script."""
    style = Markup((_HERE / "templates" / "report.css").read_text())  # ours
    return (
        _environment()
        .get_template("galaxy.html")
        .render(title=title, png=png, sections=sections, style=style, is_number=_is_number)
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("jobs.report"), autoescape=True, undefined=StrictUndefined, finalize=_shown,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {}  # sorted, Bokeh's references would stand before what they refer to
    return environment


def save(figure: matplotlib.figure.Figure, path: Path) -> None:
    """Write a figure as PNG and PDF, ``path`` without its ending."""
    for ending in _FORMATS:
        figure.savefig(f"{path}.{ending}", dpi=110)
        figure.set_layout_engine("none")  # which keeps what the first drawing laid out


def _shown(value: Any) -> Any:
    """Return a value as it stands in a page, before it is escaped: what is markup already (JSON) stays."""
    return value if hasattr(value, "__html__") or not isinstance(value, str) else printable(value, keep="\n")


def _is_number(cell: object) -> bool:
    return isinstance(cell, Number)
