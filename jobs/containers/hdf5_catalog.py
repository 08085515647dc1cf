"""HDF5: a group of arrays of one length, or a compound array, is a table; pandas' and astropy's too. Read by rows.

In: a file and the path of a group or array in it. Links to other files are not followed, and nothing that is pickled is undone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import numpy as np

from jobs.containers import astropy_meta, conventions, exact, pandas_hdf5
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
)
from jobs.containers.pandas_hdf5 import Column, as_text
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import printable, shortened

_MOST_GROUPS = 10_000
_MOST_META_BYTES = 8 << 20
_RATIO = 1032  # bytes that one stored byte can stand for, at most
_META = ".__table_column_meta__"
_UNITS = ("units", "unit", "Units", "Unit", "UNIT", "UNITS")


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
            units = [as_text(column.attributes[key]).strip() for key in _UNITS if key in column.attributes]
            self.units[name] = next((unit for unit in (*units, stated.get(name, "")) if unit), None)
            if twice[name] > 1:
                self.unreadable[name] = TWICE
            elif reason := self._reason(column):
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
        dataset, dtype = column.dataset, column.dtype
        if dataset.external or dataset.is_virtual:
            return "is stored in other files, which are not read"
        if len(column.entry_shape) > 1:
            return f"has {'x'.join(map(str, column.entry_shape))} values a row; only numbers, text and vectors are read"
        if dtype.kind == "O" and h5py.check_string_dtype(dtype) is None:
            return "has vectors of different lengths, or holds references or objects, which are not read"
        if dtype.kind not in "biufSO":
            return "holds complex numbers" if dtype.kind == "c" else f"is of type {dtype}, which is not read"
        chunk = dtype.itemsize * int(np.prod(dataset.chunks or (1,), dtype=object))
        most = MOST_TEXT_BYTES if dtype.kind == "S" else MOST_VALUE_BYTES
        if column.row_bytes > most or chunk > MOST_CHUNK_BYTES:
            allowed = f"{most:,} and {MOST_CHUNK_BYTES:,}"
            return f"takes {column.row_bytes:,} bytes a row and {chunk:,} a chunk; at most {allowed} are read"
        return None

    def _read(self, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        found = {}
        for name in names:
            column, raw = self._columns[name], self._raw(name, start, stop)
            if raw.dtype.kind in "SO":
                found[name] = _objects(raw, column.null)
            else:
                packed = {key: column.attributes[key] for key in conventions.ATTRIBUTES if key in column.attributes}
                found[name] = conventions.decoded(name, raw, _plain(packed), self.title) if packed else raw
            if (mask := self._mask(name, start, stop)) is not None:
                found[name] = np.ma.masked_where(astropy_meta.over(mask, found[name]), found[name])
        return found

    def _exact(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Exact]:
        found = {}
        for name in names:
            column = self._columns[name]
            with exact.naming(self.title, name):
                if packed := [key for key in ("scale_factor", "add_offset") if key in column.attributes]:
                    raise ValueError(f"integers packed with {' and '.join(packed)}, which stand for other numbers")
                raw = self._raw(name, start, stop)
                values = _objects(raw, column.null) if raw.dtype.kind in "SO" else raw
                about = _plain({key: column.attributes[key] for key in conventions.NULLS if key in column.attributes})
                nulls = [null for value in about.values() for null in np.ravel(np.array(value, object))]
                if (mask := self._mask(name, start, stop)) is not None:
                    values = np.ma.masked_array(values, astropy_meta.over(mask, values))
                found[name] = exact.from_numpy(values, nulls)
        return found

    def _mask(self, name: str, start: int, stop: int) -> np.ndarray | None:
        mask = self._masks.get(name)
        return self._raw(mask, start, stop) if mask in self._columns else None

    def _raw(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows of a column as they are stored, in this machine's order of bytes."""
        try:
            values = self._columns[name].read(start, stop)
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise ValueError(
                f"{self.title}: rows {start} to {stop - 1} of column {shortened(name)} cannot be read: {shortened(error)}"
            ) from error
        if values.dtype.kind == "O" and (longest := max(map(len, values.flat), default=0)) > MOST_TEXT_BYTES:
            raise ValueError(
                f"{self.title}: column {shortened(name)} holds a text of {longest:,} bytes; at most {MOST_TEXT_BYTES:,} are read"
            )
        return values.astype(values.dtype.newbyteorder("="), copy=False) if values.dtype.kind in "iuf" else values


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


def _objects(raw: np.ndarray, null: str | None) -> np.ndarray:
    """Text of a fixed or of no fixed length as objects; None where it is the word by which pandas says that there is none."""
    found = np.array([as_text(value) for value in raw.flat], dtype=object).reshape(raw.shape)
    if null is not None:
        found[found == null] = None
    return found


def _plain(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes as numbers: HDF5 has them as arrays of one entry."""
    return {key: value.ravel()[0] if getattr(value, "size", 2) == 1 else value for key, value in attributes.items()}
