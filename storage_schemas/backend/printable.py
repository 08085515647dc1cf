"""Text that others wrote (names of files and columns, values, errors of libraries) as a terminal may show it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

#: Categories of Unicode that a terminal obeys instead of showing them, or that turn or hide what is beside them: controls,
#: formats (directions, zero widths), halves of characters, and ends of lines and paragraphs.
_OBEYED = ("Cc", "Cf", "Cs", "Zl", "Zp")
_LONGEST = 200
_MOST = 30


def printable(text: object, keep: str = "") -> str:
    r"""Return a text with what a terminal would obey written as an escape; characters of ``keep`` stay.

    >>> printable("flux\x1b[2J\u202e")
    'flux\\x1b[2J\\u202e'
    """
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(
        c
        if c in keep or unicodedata.category(c) not in _OBEYED
        else c.encode("unicode_escape", "surrogatepass").decode()
        for c in plain
    )


def shortened(text: object) -> str:
    """Return a text as one printable piece of a message, cut where it is long."""
    plain = printable(str(text)[: 2 * _LONGEST])
    return plain if len(plain) <= _LONGEST else f"{plain[:_LONGEST]}..."


def listed(names: Iterable[object]) -> str:
    """Return names for a message, the first ones of many."""
    parts = list(names)
    more = f" and {len(parts) - _MOST:,} more" if len(parts) > _MOST else ""
    return ", ".join(map(shortened, parts[:_MOST])) + more
