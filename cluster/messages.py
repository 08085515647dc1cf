"""What pydantic finds wrong with settings, in words for whoever wrote them: keys, what is allowed, what was found."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

#: What pydantic puts among the keys of a place: the kinds that a value may be of, and steps of its own.
_INSIDE = re.compile(
    r"str|int|float|bool|none|nullable|declared|Survey|Curve|(tuple|list|dict|set|literal|function-\w+|constrained-\w+|is-instance|"
    r"lax-or-strict|json-or-python|union|tagged-union|definitions)(\[.*\])?",
    re.DOTALL,
)
_OWN = {
    "model_type": "a section of keys is expected", "model_attributes_type": "a section of keys is expected",
    "missing": "is needed", "dict_type": "a section of keys is expected", "extra_forbidden": "no such key",
}  # fmt: skip


def problems(error: ValidationError, within: str = "", model: type[BaseModel] | None = None) -> str:
    """Say in a line a key which keys are wrong, what is allowed and what was found; ``within`` stands before each.

    ``model`` is what was read: of an unknown key it says which there are.

    Of a value that may be of several kinds, the complaints are those of the kind that it comes nearest to.
    """
    found: dict[str, dict[str, str]] = {}
    for one in error.errors():
        parts = [part for part in one["loc"] if not (isinstance(part, str) and _INSIDE.fullmatch(part))]
        if one["type"] == "missing" and parts and isinstance(parts[-1], int):  # of a list that is too short
            found[".".join(map(str, parts[:-1]))] = {f"{parts[-1] + 1} values are expected": ""}
            continue
        found.setdefault(".".join(map(str, parts)), {}).setdefault(_said(one, model), _found(one))
    lines = []
    for place, messages in found.items():
        deeper = any(other.startswith(f"{place}.") for other in found) if place else False
        if not deeper:
            tail = next((text for text in messages.values() if text), "")
            where = f"{within}{place}".rstrip(".")
            lines.append(f"  {where}{': ' if where else ''}{', or '.join(messages)}{tail}")
    return "\n".join(lines)


def _said(error: Mapping[str, Any], model: type[BaseModel] | None) -> str:
    """What is allowed, where ``model`` reads the whole."""
    value = error["input"]
    if error["type"] in ("tuple_type", "list_type"):
        return f"a list is expected, as [{value}]" if _found(error) else "a list is expected, as [a, b]"
    if error["type"] == "too_long":
        return f"{error['ctx']['max_length']} values are expected"
    if error["type"] == "extra_forbidden" and (keys := _keys(model, error["loc"][:-1])):
        near = difflib.get_close_matches(str(error["loc"][-1]), keys)
        return f"no such key; {'near it are' if near else 'keys are'} {', '.join(near or keys)}"
    return _OWN.get(error["type"], error["msg"].removeprefix("Value error, "))


def _keys(model: type[BaseModel] | None, place: Sequence[str | int]) -> list[str]:
    """The keys that a section at a place in ``model`` may have; of a list's or a mapping's entry, those of an entry."""
    kinds = [model] if model else []
    for part in place:
        fields = [kind.model_fields[str(part)].annotation for kind in kinds if part in kind.model_fields]
        kinds = [inner for annotation in fields for inner in _models(annotation)] if fields else kinds
    return [name for kind in kinds for name in kind.model_fields]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _found(error: Mapping[str, Any]) -> str:
    """What an invalid key holds; an unknown key's value, or what could be or hold a secret, is not repeated."""
    value = error["input"]
    known = error["type"] not in ("extra_forbidden", "missing") and isinstance(value, str | int | float | None)
    if isinstance(value, str) and ({"@", "=", "?"} & set(value) or re.search(r"[A-Za-z0-9/+]{20,}", value)):
        return ""
    return f" (found {value!r:.100})" if known else ""
