"""Columns of HDF5 files, and where pandas puts those of a frame: in blocks of one type, their names beside them."""

from __future__ import annotations

import pickletools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import h5py
import numpy as np

from jobs.containers import exact
from storage_schemas.backend.printable import shortened

_MOST_NAMES_BYTES = 1 << 20
_TEXTS = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_KINDS = {"i": "integer", "u": "integer", "f": "float"}  # as pandas calls those of an index


@dataclass(frozen=True)
class Column:
    """A column: an array, or a ``member`` of a compound one, or one ``entry`` of either.

    ``said`` is what pandas says of it beside the array, by netCDF's names; its values are numbers of rows of ``categories``,
    where there are some.
    """

    name: str
    dataset: Any
    member: str | None = None
    entry: int | None = None
    said: Mapping[str, Any] = field(default_factory=dict)
    categories: Column | None = None
    reason: str | None = None

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What the file says of the column; of an array that holds several, nothing is said of one, except by PyTables."""
        about = self.dataset.attrs
        if self.entry is not None:
            return self.said
        if self.member is None:
            return {**about, **self.said}
        number = self.dataset.dtype.names.index(self.member)
        units = {key: about[f"FIELD_{number}_{key}"] for key in ("UNIT", "UNITS") if f"FIELD_{number}_{key}" in about}
        return {**units, **self.said}

    @property
    def _type(self) -> np.dtype[Any]:
        return self.dataset.dtype[self.member] if self.member else self.dataset.dtype

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of one value."""
        return self._type.base

    @property
    def entry_shape(self) -> tuple[int, ...]:
        """Of one row: () for a number."""
        shape = (*self.dataset.shape[1:], *self._type.shape)
        return shape[1:] if self.entry is not None else shape

    @property
    def n_rows(self) -> int:
        """Rows that the array has."""
        return int(self.dataset.shape[0])

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(self.dtype.itemsize * np.prod(self.entry_shape, dtype=object))

    @property
    def stored(self) -> int:
        """Bytes that the file holds of the array."""
        return int(self.dataset.id.get_storage_size())

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows, as they are stored."""
        if self.member is not None:
            values = self.dataset.fields(self.member)[start:stop]
            return np.asarray(values if self.entry is None else values[:, self.entry])
        return np.asarray(self.dataset[start:stop] if self.entry is None else self.dataset[start:stop, self.entry])


def columns(group: Any) -> list[Column]:
    """Return the columns of a frame of pandas, format fixed or table; the index is one, named ``index``.

    Raises:
        ValueError: it is no frame.
    """
    kind = as_text(group.attrs["pandas_type"])
    if kind == "frame_table":
        return _of_table(group)
    if kind != "frame":
        raise ValueError(f"{group.name} is pandas' {kind}; only frames are read")
    found = []
    if (index := group["axis1"]).dtype.kind in "iufS":
        said, reason = _meaning(index.dtype, _stated(index.attrs, "kind"), group)
        found.append(
            Column("index", index, said=said | _null(index.dtype, index.attrs.get("nan_rep", "nan")), reason=reason)
        )
    for i in range(int(group.attrs["nblocks"])):
        names, values = group[f"block{i}_items"], group[f"block{i}_values"]
        said, reason = _meaning(values.dtype, _stated(values.attrs, "value_type"), group)
        if values.dtype.kind == "O":
            reason = "is pickled: reading it could run any code, so it is not read"
        for entry, name in enumerate(np.ravel(names[...])):
            found.append(Column(as_text(name), values, entry=entry, said=said, reason=reason))
    order = [as_text(name) for name in np.ravel(group["axis0"][...])]
    return sorted(found, key=lambda column: order.index(column.name) if column.name in order else -1)


def _of_table(group: Any) -> list[Column]:
    """Columns of a frame, or of the series that categories are, in format table."""
    found, table = [], group["table"]
    for block in table.dtype.names:
        stored, about = table.dtype[block], table.attrs
        is_index = block == "index"
        said, reason = _meaning(stored.base, _stated(about, f"{block}_kind" if is_index else f"{block}_dtype"), group)
        if is_index:
            null = about.get("index_nan_rep", "nan")
        elif group.attrs.get("data_col_nan_rep", False):
            null = about.get(f"{block}_nan_rep")  # each column has its own; none where nothing is missing
        else:
            null = _stated(group.attrs, "nan_rep") or "nan"
        categories = None
        meta = _stated(about, f"{block}_meta")
        if meta == "category" or (is_index and f"meta/{block}/meta" in group):
            categories = _categories(group, block)
            reason = reason or (None if categories else "has categories that are not in the file")
        elif meta and not meta.startswith("str"):
            reason = reason or f"is of pandas' type {shortened(meta)}, which is not read"
        kind = about.get(f"{block}_kind")
        names = [block] if kind is None or not stored.shape else _names(kind)
        entries: list[int | None] = list(range(len(names))) if stored.shape else [None]
        about_text = said | _null(stored.base, null)
        found += [
            Column(name, table, block, entry, about_text, categories, reason)
            for name, entry in zip(names, entries, strict=True)
        ]
    return found


def _categories(group: Any, block: str) -> Column | None:
    """Where the values of a block of categories stand: as a series of pandas, beside the table."""
    path = f"meta/{block}/meta"
    if path not in group or "table" not in group[path]:
        return None
    return next(
        (replace(one, name=f"{block}'s categories") for one in _of_table(group[path]) if one.member != "index"), None
    )


def _stated(attributes: Mapping[str, Any], key: str) -> str | None:
    """What pandas states of a block; it has None as a pickled one."""
    text = as_text(attributes[key]) if key in attributes else ""
    return None if text in ("", "N.") else text


def _null(dtype: np.dtype[Any], null: Any) -> dict[str, Any]:
    """The word that stands where text is missing, in netCDF's terms; empty where there is none."""
    text = "" if null is None else as_text(null)
    return {"missing_value": text} if dtype.kind == "S" and text not in ("", "N.") else {}


def _meaning(dtype: np.dtype[Any], declared: str | None, group: Any) -> tuple[dict[str, Any], str | None]:
    """What else than its stored type pandas declares a block to be, in netCDF's terms; or why it is not read."""
    if dtype.kind == "S":
        encoding = _stated(group.attrs, "encoding") or "UTF-8"
        if encoding.upper().replace("-", "") not in ("UTF8", "ASCII"):
            return {}, f"is text in {shortened(encoding)}; only UTF-8 is read"
    if declared is None or declared == dtype.name or declared == _KINDS.get(dtype.kind):
        return {}, None
    if dtype.kind == "S" and declared.startswith(("str", "bytes")):
        return {}, None
    if declared == "bool" and dtype == np.uint8:
        return {"dtype": "bool"}, None
    if declared.startswith(("date", "time", "period")):
        return {}, f"is a time ({shortened(declared)}), which is not read"
    return {}, f"is stored as {dtype} and stands for pandas' {shortened(declared)}, which is not read"


def _names(pickled: Any) -> list[str]:
    """The names in a pickled list of them, which is looked at and not undone."""
    raw = pickled if isinstance(pickled, bytes) else bytes(pickled)
    if len(raw) > _MOST_NAMES_BYTES:
        raise ValueError(f"the names of a block take {len(raw):,} bytes; at most {_MOST_NAMES_BYTES:,} are read")
    return [str(argument) for code, argument, _ in pickletools.genops(raw) if code.name in _TEXTS]


def as_text(value: Any) -> str:
    """Return what an attribute or a name says; HDF5 has it as bytes, as an array of one entry, or as nothing."""
    value = value.ravel()[0] if isinstance(value, np.ndarray) and value.size == 1 else value
    return "" if isinstance(value, h5py.Empty) else exact.plain_text(value)
