"""What pydantic finds wrong with settings, in words for whoever wrote them: keys, what is allowed, what was found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

#: What pydantic puts among the keys of a place: the kinds that a value may be of, and steps of its own.
_INSIDE = re.compile(
    r"str|int|float|bool|none|nullable|declared|Survey|Curve|(tuple|list|dict|set|literal|function-\w+|constrained-\w+|is-instance|"
    r"lax-or-strict|json-or-python|union|tagged-union|definitions)(\[.*\])?",
    re.DOTALL,
)
_OWN = {
    "model_type": "a section of keys is expected", "model_attributes_type": "a section of keys is expected",
    "missing": "is needed", "dict_type": "a section of keys is expected",
}  # fmt: skip


def problems(error: ValidationError, within: str = "") -> str:
    """Say in a line a key which keys are wrong, what is allowed and what was found; ``within`` stands before each.

    Of a value that may be of several kinds, the complaints are those of the kind that it comes nearest to.
    """
    found: dict[str, dict[str, str]] = {}
    for one in error.errors():
        place = ".".join(str(part) for part in one["loc"] if not (isinstance(part, str) and _INSIDE.fullmatch(part)))
        said = _OWN.get(one["type"], one["msg"].removeprefix("Value error, "))
        found.setdefault(place, {}).setdefault(said, _found(one))
    lines = []
    for place, messages in found.items():
        deeper = any(other.startswith(f"{place}.") for other in found) if place else False
        if not deeper:
            tail = next((text for text in messages.values() if text), "")
            lines.append(f"  {within}{place}: {', or '.join(messages)}{tail}")
    return "\n".join(lines)


def _found(error: Mapping[str, Any]) -> str:
    """What an invalid key holds; an unknown key's value, or what could be or hold a secret, is not repeated."""
    value = error["input"]
    known = error["type"] not in ("extra_forbidden", "missing") and isinstance(value, str | int | float | None)
    if isinstance(value, str) and ({"@", "=", "?"} & set(value) or re.search(r"[A-Za-z0-9/+]{20,}", value)):
        return ""
    return f" (found {value!r:.100})" if known else ""
