"""Columns of HDF5 files, and where pandas puts those of a frame: in blocks of one type, their names beside them."""

from __future__ import annotations

import pickletools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

_MOST_NAMES_BYTES = 1 << 20
_TEXTS = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")


@dataclass(frozen=True)
class Column:
    """A column: an array, or a ``member`` of a compound one, or one ``entry`` of either; ``null`` is a text that is none."""

    name: str
    dataset: Any
    member: str | None = None
    entry: int | None = None
    null: str | None = None
    reason: str | None = None

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What the file says of the column; of an array that holds several, nothing is said of one."""
        return dict(self.dataset.attrs) if self.member is None and self.entry is None else {}

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
        return _of_table(group["table"])
    if kind != "frame":
        raise ValueError(f"{group.name} is pandas' {kind}; only frames are read")
    found = [Column("index", group["axis1"])] if group["axis1"].dtype.kind in "iufS" else []
    for i in range(int(group.attrs["nblocks"])):
        names, values = group[f"block{i}_items"], group[f"block{i}_values"]
        reason = "is pickled: reading it could run any code, so it is not read" if values.dtype.kind == "O" else None
        for entry, name in enumerate(np.ravel(names[...])):
            found.append(Column(as_text(name), values, entry=entry, reason=reason))
    order = [as_text(name) for name in np.ravel(group["axis0"][...])]
    return sorted(found, key=lambda column: order.index(column.name) if column.name in order else -1)


def _of_table(table: Any) -> list[Column]:
    found = []
    for block in table.dtype.names:
        kind, null = table.attrs.get(f"{block}_kind"), table.attrs.get(f"{block}_nan_rep")
        null = None if null is None else as_text(null)
        names = [block] if kind is None or not table.dtype[block].shape else _names(kind)
        entries: list[int | None] = list(range(len(names))) if table.dtype[block].shape else [None]
        found += [Column(name, table, block, entry, null) for name, entry in zip(names, entries, strict=True)]
    return found


def _names(pickled: Any) -> list[str]:
    """The names in a pickled list of them, which is looked at and not undone."""
    raw = pickled if isinstance(pickled, bytes) else bytes(pickled)
    if len(raw) > _MOST_NAMES_BYTES:
        raise ValueError(f"the names of a block take {len(raw):,} bytes; at most {_MOST_NAMES_BYTES:,} are read")
    return [str(argument) for code, argument, _ in pickletools.genops(raw) if code.name in _TEXTS]


def as_text(value: Any) -> str:
    """Return what an attribute or a value of text says; HDF5 has it as bytes, or as an array of one entry."""
    value = value.ravel()[0] if isinstance(value, np.ndarray) and value.size == 1 else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
