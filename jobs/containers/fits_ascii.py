"""ASCII tables of FITS, as VizieR writes them by default: where their columns stand in a row, and what the characters mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from storage_schemas.backend.printable import shortened

KEYS = ("TFORM", "TBCOL", "TNULL", "TSCAL", "TZERO")
_MOST_DECIMALS = 300  # of a float
_FORM = re.compile(r"\s*([AIFED])(\d{1,9})(?:\.(\d{1,9}))?\s*")


def place(keys: Mapping[str, Any], number: int, row_bytes: int, title: str) -> tuple[str, int, int]:
    """Return the kind of a column (A, I, F, E or D), and the place in a row and the number of its characters.

    Raises:
        ValueError: the header says nothing that can be.
    """
    form, start = _FORM.fullmatch(str(keys.get("TFORM", ""))), keys.get("TBCOL")
    if not form or not isinstance(start, int) or start < 1 or start - 1 + int(form[2]) > row_bytes:
        raise ValueError(
            f"{title}: TFORM{number} is {shortened(keys.get('TFORM'))!r} and TBCOL{number} {shortened(start)!r}, in rows of "
            f"{row_bytes:,} characters"
        )
    return form[1], start - 1, int(form[2])


def values(code: str, keys: Mapping[str, Any], stored: np.ndarray) -> np.ndarray:
    """Return the values of characters (row, character): text, int64 or float64; what is blank, or TNULL, is masked.

    By the standard, a number without a point has it before the last digits, as many as its format says: 12345 in F5.2 is 123.45.

    Raises:
        ValueError: they are no numbers, or text that is not ASCII. The message is to follow the column's name.
    """
    kind = {"A": np.str_, "I": np.int64}.get(code, np.float64)
    if not stored.size:
        return np.zeros(len(stored), kind)
    stored = np.ascontiguousarray(stored)
    raw = stored.view(f"S{stored.shape[1]}").ravel()
    try:
        text = np.strings.decode(raw, "ascii")
    except UnicodeDecodeError as error:
        raise ValueError("holds text that is not ASCII") from error
    plain = np.strings.strip(text)
    absent = (plain == "") | (plain == str(keys.get("TNULL", "")).strip())
    if code == "A":
        return _masked(np.strings.rstrip(text), absent)
    numbers = np.where(absent, "0", np.strings.replace(np.strings.upper(plain), "D", "E"))
    if (odd := np.strings.find(numbers, "_") >= 0).any():  # Python's 1_000, and nobody else's
        raise ValueError(f"holds what is no number: {shortened(numbers[odd][0])}")
    try:
        found: np.ndarray = numbers.astype(kind)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"holds what is no number: {shortened(error)}") from error
    absent |= found == _number(keys.get("TNULL"))
    form = _FORM.fullmatch(str(keys.get("TFORM", "")))
    if kind is np.float64 and form and (decimals := int(form[3] or 0)):
        pointless = np.strings.find(numbers, ".") < 0
        found = np.where(pointless, found / 10.0 ** min(decimals, _MOST_DECIMALS), found)
    scale, zero = keys.get("TSCAL", 1), keys.get("TZERO", 0)
    return _masked(found if (scale, zero) == (1, 0) else found * scale + zero, absent)


def _number(null: Any) -> float:
    """What is declared as missing where that is a number, which rows may write otherwise; NaN, which equals none, where not."""
    try:
        return float(null)
    except (TypeError, ValueError):
        return np.nan


def _masked(found: np.ndarray, absent: np.ndarray) -> np.ndarray:
    return np.ma.masked_array(found, absent) if absent.any() else found
