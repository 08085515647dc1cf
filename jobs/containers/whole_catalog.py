"""Catalogs that are read whole, into numpy arrays that may be masked: what formats without parts have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import NoneType

import numpy as np

from jobs.containers import exact
from jobs.containers.addresses import with_table
from jobs.containers.exact import Exact
from jobs.containers.formats import MOST_TEXT_BYTES, MOST_VALUE_BYTES, TWICE, Catalog, wrong_type
from storage_schemas.backend.location import Location


class Whole(Catalog):
    """A table in memory, of which `_fill` is told the columns."""

    def __init__(self, location: Location, table: str | None = None) -> None:
        super().__init__(with_table(location, table))
        self._columns: dict[str, np.ndarray] = {}

    def _fill(self, columns: Sequence[tuple[str, np.ndarray]], units: Mapping[str, str | None]) -> None:
        """Take columns (row,) or (row, entry) by their names, and the units that are stated."""
        for name, values in columns:
            if name in self._columns:
                self.unreadable[name] = TWICE
            elif reason := _reason(values):
                self.unreadable[name] = reason
            self._columns[name] = values
        self.names = tuple(self._columns)
        self.n_rows = len(columns[0][1]) if columns else 0
        self.units.update({name: units.get(name) for name in self.names})

    def _read(self, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        found = {}
        for name in names:
            with exact.naming(self.title, name):
                found[name] = _plain(self._columns[name][start:stop], start)
        return found

    def _exact(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Exact]:
        found = {}
        for name in names:
            with exact.naming(self.title, name):
                found[name] = exact.from_numpy(self._columns[name][start:stop], start)
        return found


def _reason(values: np.ndarray) -> str | None:
    """Why a column is not read."""
    plain = np.ma.getdata(values)
    kind = plain.dtype.kind
    if plain.ndim not in (1, 2):
        return f"has {'x'.join(map(str, plain.shape[1:]))} values a row; only numbers, text and vectors of numbers are read"
    if kind == "O":
        there = plain[~np.ma.getmaskarray(values)] if plain.ndim == 1 else plain.ravel()
        odd = next((value for value in there if not isinstance(value, str | NoneType)), None)
        if odd is not None:
            return f"holds values of the type {type(odd).__name__}, which are not read (a column of variable length?)"
        longest = max((len(value) for value in there if value is not None), default=0)
        return (
            f"holds a text of {longest:,} characters; at most {MOST_TEXT_BYTES:,} are read"
            if longest > MOST_TEXT_BYTES
            else None
        )
    if kind not in "biufSU":
        return wrong_type(plain.dtype)
    most = MOST_TEXT_BYTES * (4 if kind == "U" else 1) if kind in "SU" else MOST_VALUE_BYTES
    size = plain.dtype.itemsize * int(np.prod(plain.shape[1:], dtype=object))
    return f"takes {size:,} bytes a row; at most {most:,} are read" if size > most else None


def _plain(values: np.ndarray, start: int) -> np.ndarray:
    """Values as `Catalog.read` returns them: text is of objects, and None where it is missing."""
    absent, plain = np.ma.getmaskarray(values), np.ma.getdata(values)
    if plain.dtype.kind in "SUO":
        return exact.texts(values, start)
    if plain.dtype.kind in "iuf":
        plain = plain.astype(plain.dtype.newbyteorder("="), copy=False)
    return np.ma.masked_array(plain, absent) if absent.any() else plain
