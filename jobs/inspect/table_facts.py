"""What a table is, from a sample of its rows: rows, columns, types, units, what is missing, codes for "no value".

A file is never read whole: some hundred rows are looked at in several places, so that a table of any size takes seconds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jobs.containers import addresses
from jobs.containers.formats import Catalog, joined, missing, open_catalog, tables_of
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import shortened

_PLACES, _ROWS = 8, 512
#: Columns read at once, entries of a vector whose values are looked at, and entries a row of columns read at once: they bound
#: the memory.
_COLUMNS, _ENTRIES, _MOST_ENTRIES = 64, 64, 4096
#: How numbers look that stand for no value: nines, and what programs put in their place.
_CODE = re.compile(
    r"-?9{2,}(\.9+)?|-9|-1|-?1e\+?(20|30|31|32|33|34|35|36|37|38|99|300)|-1\.6375e\+?30|-?(32767|32768|2147483647|2147483648)"
)
_FEW_TEXTS = 8
_FEWEST = 3  # times that a code occurs among floats, which do not repeat by chance


@dataclass(frozen=True)
class Column:
    """A column as the sample shows it.

    Attributes:
        kind: numpy's name of the type, ``text``, or why the column is not read
        width: entries of a vector; 0: a column of single values
        unit: as the file states it
        values: the sampled values, float64, (row,) or (row, entry), NaN where missing or a sentinel; None of text and of
            what is not read
        missing: fraction of the sampled values that are null, masked or blank; NaN counts in `nan`
        sentinels: numbers that stand for no value, and the fraction of the values that each is
        texts: of text its different values, where these are few; else one of them
        different: how many different values the sample has, in the column's own type
    """

    name: str
    kind: str
    width: int = 0
    unit: str | None = None
    values: np.ndarray | None = None
    missing: float = 0.0
    nan: float = 0.0
    sentinels: tuple[tuple[float, float], ...] = ()
    texts: tuple[str, ...] = ()
    different: int = 0

    @property
    def is_number(self) -> bool:
        """Whether it holds numbers that were looked at."""
        return self.values is not None

    def of(self, entry: int | None) -> np.ndarray:
        """Return the finite sampled values of it, or of one entry of a vector; (value,)."""
        if self.values is None:
            return np.zeros(0)
        values = self.values if entry is None or self.values.ndim == 1 else self.values[:, entry]
        return values[np.isfinite(values)]


@dataclass(frozen=True)
class Facts:
    """A table of a file: where it is, what it is called there, its rows, how many were looked at and from where, its columns."""

    location: Location
    name: str
    n_rows: int
    sampled: tuple[slice, ...]
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(column.name for column in self.columns)

    @property
    def n_sampled(self) -> int:
        """Rows that were looked at."""
        return sum(rows.stop - rows.start for rows in self.sampled)

    def column(self, name: str) -> Column:
        """Return a column by its name."""
        return self.columns[self.names.index(name)]


def tables(location: Location) -> list[Facts]:
    """Look at every table of a file.

    Raises:
        FileNotFoundError, ValueError: no such file; none of the formats, or broken. Says what was found.
    """
    found, file = [], addresses.split(location)[0]
    for table in tables_of(location):
        where = addresses.with_table(file, table.name or None)
        with open_catalog(where) as catalog:
            found.append(look(catalog, where, table.name))
    return found


def look(catalog: Catalog, location: Location, name: str = "") -> Facts:
    """Return what a sample of an open catalog's rows shows."""
    starts = catalog.places(_PLACES)
    stops = [*starts[1:], catalog.n_rows] if starts else []
    sampled = tuple(slice(a, min(a + _ROWS, b)) for a, b in zip(starts, stops, strict=True))
    columns: dict[str, Column] = {}
    readable = [column for column in catalog.names if column not in catalog.unreadable]
    for at in range(0, len(readable), _COLUMNS):
        for column, values in _sample(catalog, readable[at : at + _COLUMNS], sampled).items():
            found = Column(column, values) if isinstance(values, str) else _described(column, values)
            columns[column] = found
    for column, why in catalog.unreadable.items():
        columns[column] = Column(column, why)
    return Facts(
        location, name, catalog.n_rows, sampled,
        tuple(replace(columns[column], unit=catalog.units.get(column)) for column in catalog.names),
    )  # fmt: skip


def _sample(catalog: Catalog, names: Sequence[str], places: Sequence[slice]) -> dict[str, np.ndarray | str]:
    """Sampled values of columns; of one that cannot be read, why."""
    try:
        first = catalog.read(0, min(1, catalog.n_rows), names)
        if len(names) > 1 and sum(values[:1].size for values in first.values()) > _MOST_ENTRIES:
            half = len(names) // 2
            return _sample(catalog, names[:half], places) | _sample(catalog, names[half:], places)
        parts = [_read(catalog, names, rows) for rows in places]
    except ValueError as error:
        if len(names) == 1:
            return {names[0]: shortened(str(error).removeprefix(f"{catalog.title}: "))}
        found: dict[str, np.ndarray | str] = {}
        for name in names:
            found |= _sample(catalog, [name], places)
        return found
    if not parts:
        return {name: np.zeros(0) for name in names}
    widths = {name: max(part[name].shape[1] for part in parts) for name in names if parts[0][name].ndim > 1}
    wide = {name: [p for part in parts if (p := part[name]).shape[1] == width] for name, width in widths.items()}
    return {name: joined(wide.get(name) or [part[name] for part in parts]) for name in names}


def _read(catalog: Catalog, names: Sequence[str], rows: slice) -> dict[str, np.ndarray]:
    """Some rows, of vectors only the first entries."""
    found = catalog.read(rows.start, rows.stop, names)
    return {name: values[:, :_ENTRIES].copy() if values.ndim == 2 else values for name, values in found.items()}


def _described(name: str, values: np.ndarray) -> Column:
    """What sampled values show of a column."""
    absent, plain = missing(values), np.ma.getdata(values)
    width = plain.shape[1] if plain.ndim > 1 else 0
    if plain.dtype.kind not in "biuf":
        found = [_plain(x) for x in plain[~absent].flat]
        text = [x for x in found if x]
        different = sorted(set(text))
        lost = (int(absent.sum()) + len(found) - len(text)) / max(plain.size, 1)
        texts = tuple(map(shortened, different if len(different) <= _FEW_TEXTS else text[:1]))
        return Column(name, "text", width, missing=lost, texts=texts, different=len(different))
    numbers = plain.astype(np.float64)
    numbers[absent] = np.nan
    sentinels = {} if plain.dtype.kind == "b" else _sentinels(plain[~absent])
    codes = np.isin(plain, np.array(list(sentinels), plain.dtype)) & ~absent
    nan = float(np.mean(np.isnan(plain) & ~absent)) if plain.dtype.kind == "f" and plain.size else 0.0
    return Column(
        name, plain.dtype.name, width, values=np.where(codes, np.nan, numbers), missing=float(absent.mean()) if plain.size else 0,
        nan=nan, sentinels=tuple((_as_written(v), n / plain.size) for v, n in sorted(sentinels.items())),
        different=len(np.unique(plain[~absent & ~codes])),
    )  # fmt: skip


def _plain(value: object) -> str:
    """Text without the blanks around it, also of bytes."""
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip(" \0")


def _as_written(value: Any) -> float:
    """A number as it was meant: 99.99 of a float32 that is 99.98999786."""
    return (
        float(np.format_float_positional(value, unique=True, trim="-"))
        if isinstance(value, np.floating)
        else float(value)
    )


def _sentinels(values: np.ndarray) -> dict[np.generic, int]:
    """Values that look like codes, compared in the column's own type, and how often each occurs.

    Among floats a code repeats, as values do not; or it lies far beyond all others. Among integers it does both.
    """
    finite = values[np.isfinite(values)].ravel()
    unique, counts = np.unique(finite, return_counts=True)
    found: dict[np.generic, int] = {}
    while (code := next((i for i in range(len(unique)) if _is_code(unique, counts, i)), None)) is not None:
        found[unique[code]] = int(counts[code])
        unique, counts = np.delete(unique, code), np.delete(counts, code)
    return found


def _is_code(unique: np.ndarray, counts: np.ndarray, i: int) -> bool:
    value = unique[i]
    if value.dtype.kind == "f":
        large = abs(float(value)) >= 1e15
        text = f"{float(value):.6g}" if large else np.format_float_positional(value, unique=True, trim="-")
    else:
        text = str(value)
    if not _CODE.fullmatch(text):
        return False
    others = np.delete(unique, i).astype(np.float64)
    spread = float(np.ptp(np.quantile(others, (0.05, 0.95)))) if len(others) else 0.0
    gap = float(np.abs(others - float(value)).min()) if len(others) else 0.0
    outside = not len(others) or not others.min() < float(value) < others.max()
    often = bool(counts[i] >= _FEWEST)
    if text in ("-1", "-9"):  # of a quantity that is not negative otherwise
        return often and outside and bool(len(others)) and float(others.min()) >= 0 and _is_rare(counts, i)
    if value.dtype.kind != "f":
        return outside and gap > spread and bool(counts[i] > 1)
    return often or (outside and gap > spread)


def _is_rare(counts: np.ndarray, i: int) -> bool:
    """Whether a value that repeats is alone in that: among small integers each does."""
    return bool(np.median(counts) < counts[i])
