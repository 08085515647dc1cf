"""HDF5: a group of arrays of one length, or a compound array, is a table; pandas' and astropy's too. Read by rows.

In: a file and the path of a group or array in it. Links to other files are not followed, and nothing that is pickled is undone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import h5py
import numpy as np

from jobs.containers import astropy_meta, conventions, exact, pandas_hdf5, units
from jobs.containers.addresses import GZIP, Entry, addresses, choose, with_table
from jobs.containers.exact import Exact
from jobs.containers.formats import (
    FEW_ROWS,
    MOST_CHUNK_BYTES,
    MOST_TEXT_BYTES,
    MOST_VALUE_BYTES,
    TWICE,
    Catalog,
    TableInfo,
    each_of,
    open_file,
    wrong_type,
)
from jobs.containers.pandas_hdf5 import Column, as_text
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import printable, shortened

_MOST_GROUPS = 10_000
_MOST_META_BYTES = 8 << 20
_RATIO = 1032  # bytes that one stored byte can stand for, at most
_META = ".__table_column_meta__"
_MOST_CATEGORIES_BYTES = 64 << 20


class Hdf5(Catalog):
    """A table of an HDF5 file: that of a path or number (from 1), or the only one."""

    holds_several = True

    def __init__(self, location: Location, table: str | None = None) -> None:
        super().__init__(with_table(location, table))
        self._file = open_file(location)
        self._h5 = _opened(location, self._file)
        found = list(_tables(self._h5))
        try:
            chosen = found[choose([_entry(one, i) for i, one in enumerate(found, 1)], table, self.title)]
            self._table(chosen)
        except (OSError, RuntimeError, KeyError) as error:
            raise ValueError(f"{self.title} is a damaged HDF5 file: {shortened(error)}") from error

    @classmethod
    def tables(cls, location: Location) -> list[TableInfo]:
        """Return all tables of a file."""
        with open_file(location) as file, _opened(location, file) as h5:
            names = addresses([_entry(one, i) for i, one in enumerate(_tables(h5), 1)])
        return each_of(cls, location, names)

    def close(self) -> None:
        """Let go of the file."""
        self._h5.close()
        super().close()

    def _table(self, node: Any) -> None:
        """Take the columns of a group or compound array."""
        columns = _columns(node)
        lengths = Counter(column.n_rows for column in columns)
        self.n_rows = max(lengths, key=lambda n: (lengths[n], n), default=0)
        self._columns = {column.name: column for column in columns}
        self._masks: dict[str, str] = {}
        stated: dict[str, str] = {}
        if (text := _meta(node)) is not None:
            stated, self._masks = astropy_meta.read(text, self.title, _META)
        hidden = set(self._masks.values())
        self.names = tuple(name for name in self._columns if name not in hidden)
        twice = Counter(column.name for column in columns)
        for name, column in self._columns.items():
            about = {key: as_text(value) for key, value in column.attributes.items()}
            self.units[name], disagree = units.agreed([*units.said(about), stated.get(name, "")])
            if twice[name] > 1:
                self.unreadable[name] = TWICE
            elif reason := self._reason(column) or conventions.reason(about) or disagree:
                self.unreadable[name] = reason
        stored = [min(column.stored * _RATIO // max(column.row_bytes, 1), self.n_rows) for column in columns]
        if self.n_rows > FEW_ROWS and max(stored, default=0) < self.n_rows // 2:
            raise ValueError(
                f"{self.title} announces {self.n_rows:,} rows, and what is stored holds at most {max(stored, default=0):,}"
            )

    def _reason(self, column: Column) -> str | None:
        """Why a column is not read, without a look at its values."""
        if column.reason:
            return column.reason
        if column.n_rows != self.n_rows:
            return f"has {column.n_rows:,} rows, and most of its table {self.n_rows:,}"
        if (listed := column.categories) is not None:
            if listed.n_rows * listed.row_bytes > _MOST_CATEGORIES_BYTES:
                return f"has categories that take more than {_MOST_CATEGORIES_BYTES:,} bytes"
            if reason := listed.reason or _wrong_type(listed):
                return reason
        return _wrong_type(column)

    def _read(self, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        def decode(column: Column, first: int, last: int) -> np.ndarray:
            return conventions.decoded(column.name, self._raw(column, first, last), _said(column), self.title, first)

        return {name: self._values(name, start, stop, decode) for name in names}

    def _exact(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Exact]:
        def decode(column: Column, first: int, last: int) -> np.ndarray:
            raw = self._raw(column, first, last)
            with exact.naming(self.title, column.name):
                return conventions.exactly(raw, _said(column), first)

        found = {}
        for name in names:
            values = self._values(name, start, stop, decode)
            with exact.naming(self.title, name):
                found[name] = exact.from_numpy(values, start)
        return found

    def _values(self, name: str, start: int, stop: int, decode: Callable[[Column, int, int], np.ndarray]) -> np.ndarray:
        """Rows of a column, decoded, or of the categories that they name; those that are missing are masked, or None."""
        column = self._columns[name]
        if (listed := column.categories) is None:
            values = decode(column, start, stop)
        else:
            values = _chosen(
                self._raw(column, start, stop),
                decode(listed, 0, listed.n_rows),
                f"{self.title}: column {shortened(name)}",
            )
        mask = self._masks.get(name)
        if mask not in self._columns:
            return values
        return np.ma.masked_where(astropy_meta.over(self._raw(self._columns[mask], start, stop), values), values)

    def _raw(self, column: Column, start: int, stop: int) -> np.ndarray:
        """Rows of a column as they are stored, in this machine's order of bytes."""
        try:
            values = column.read(start, stop)
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise ValueError(
                f"{self.title}: rows {start} to {stop - 1} of column {shortened(column.name)} cannot be read: {shortened(error)}"
            ) from error
        if values.dtype.kind == "O" and (longest := max(map(len, values.flat), default=0)) > MOST_TEXT_BYTES:
            raise ValueError(
                f"{self.title}: column {shortened(column.name)} holds a text of {longest:,} bytes; at most {MOST_TEXT_BYTES:,} "
                "are read"
            )
        return values.astype(values.dtype.newbyteorder("="), copy=False) if values.dtype.kind in "iuf" else values


def _wrong_type(column: Column) -> str | None:
    """Why a column is not read, by how its values are stored."""
    dataset, dtype = column.dataset, column.dtype
    if dataset.external or dataset.is_virtual:
        return "is stored in other files, which are not read"
    if len(column.entry_shape) > 1:
        return f"has {'x'.join(map(str, column.entry_shape))} values a row; only numbers, text and vectors are read"
    if dtype.kind == "O" and h5py.check_string_dtype(dtype) is None:
        return "has vectors of different lengths, or holds references or objects, which are not read"
    if dtype.kind not in "biufSO":
        return wrong_type(dtype)
    if (names := h5py.check_enum_dtype(dtype)) is not None:
        return (
            f"is an enumeration ({shortened(names)}), of which neither the numbers nor the words are taken for values"
        )
    chunk = dtype.itemsize * int(np.prod(dataset.chunks or (1,), dtype=object))
    most = MOST_TEXT_BYTES if dtype.kind == "S" else MOST_VALUE_BYTES
    if column.row_bytes > most or chunk > MOST_CHUNK_BYTES:
        allowed = f"{most:,} and {MOST_CHUNK_BYTES:,}"
        return f"takes {column.row_bytes:,} bytes a row and {chunk:,} a chunk; at most {allowed} are read"
    return None


def _opened(location: Location, file: Any) -> Any:
    title = printable(location)
    if location.url.lower().endswith(GZIP):
        raise ValueError(f"{title}: gunzip it first: HDF5 is read by parts, from a file that is not gzipped")
    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise ValueError(f"{title} is not an HDF5 file: {shortened(error)}") from error


def _entry(node: Any, number: int) -> Entry:
    path = node.name.strip("/")
    return Entry((path, f"/{path}") if path else ("/",), number)


def _tables(group: Any) -> Iterator[Any]:
    """Groups and compound arrays that are tables, from the root; links to other places and files are passed by."""
    todo, seen = [group], 0
    while todo:
        node = todo.pop(0)
        if (seen := seen + 1) > _MOST_GROUPS:
            raise ValueError(f"{group.file.name} has more than {_MOST_GROUPS:,} groups")
        if "pandas_type" in node.attrs:
            yield node
            continue
        children = [node[name] for name in node if isinstance(node.get(name, getlink=True), h5py.HardLink)]
        arrays = [child for child in children if isinstance(child, h5py.Dataset)]
        if any(_is_column(array) for array in arrays):
            yield node
        yield from (array for array in arrays if array.dtype.names and array.ndim == 1)
        todo += [child for child in children if isinstance(child, h5py.Group) and not _inner(child)]


def _inner(group: Any) -> bool:
    """Whether a group is PyTables' own: indexes."""
    return group.name.rpartition("/")[2].startswith("_i_")


def _is_column(array: Any) -> bool:
    return array.dtype.names is None and array.ndim >= 1 and not array.name.endswith(_META)


def _columns(node: Any) -> list[Column]:
    if isinstance(node, h5py.Dataset):
        return [Column(name, node, member=name) for name in node.dtype.names]
    if "pandas_type" in node.attrs:
        return pandas_hdf5.columns(node)
    found = []
    for name in node:
        link = node.get(name, getlink=True)
        if isinstance(link, h5py.HardLink) and isinstance(node[name], h5py.Dataset) and _is_column(node[name]):
            found.append(Column(name, node[name]))
    return found


def _meta(node: Any) -> str | None:
    """What astropy wrote beside a compound array."""
    path = f"{node.name}{_META}"
    if not isinstance(node, h5py.Dataset) or path not in node.parent:
        return None
    lines = node.parent[path]
    if lines.dtype.kind != "S" or lines.nbytes > _MOST_META_BYTES:
        raise ValueError(f"{path} has {lines.nbytes:,} bytes, or is no text; at most {_MOST_META_BYTES:,} are read")
    return b"\n".join(np.ravel(lines[...]).tolist()).decode("utf-8", "replace")


def _chosen(codes: np.ndarray, categories: np.ndarray, title: str) -> np.ndarray:
    """The categories that rows have by their numbers; a row of none has a negative one."""
    if (most := codes.max(initial=-1)) >= len(categories):
        raise ValueError(f"{title} has category {most} of {len(categories)}: the file is damaged")
    absent = codes < 0
    values = categories[np.where(absent, 0, codes)] if len(categories) else np.zeros(codes.shape, categories.dtype)
    if categories.dtype.kind == "O":
        values[absent] = None
        return values
    return np.ma.masked_where(absent, values) if absent.any() else values


def _said(column: Column) -> dict[str, Any]:
    """What attributes say that a column's values are; HDF5 has numbers as arrays of one entry, and empty text as nothing."""
    about = {key: value for key, value in column.attributes.items() if key in conventions.ATTRIBUTES}
    return {
        key: value.ravel()[0] if getattr(value, "size", 2) == 1 else value
        for key, value in about.items()
        if not isinstance(value, h5py.Empty)
    }
