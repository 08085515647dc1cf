"""What a store looks like: arrays with dimensions, dtypes and units, and how they are created.

Every store of ours is a Zarr v3 group whose attribute ``sedflow_kind`` says which kind it is; it is written last, so a
store that was being created when its job died is created anew.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer

VERSION = 1
#: The attribute of a group in which a store is being made: its kind.
MAKING = "sedflow_making"
#: More is no store of ours, and is not read: rows, chunks and bytes of arrays.
MOST_ROWS, _MOST_CHUNKS, _LARGEST_CHUNK, _LARGEST_WHOLE = 1 << 40, 1 << 26, 4 << 30, 16 << 30


@dataclass(frozen=True)
class ArraySpec:
    """One array: name, dimensions, dtype, unit, meaning, UCD (IVOA); ``fill`` stands where nothing was written."""

    name: str
    dims: tuple[str, ...]
    dtype: str
    units: str = "1"
    long_name: str = ""
    fill: Any = 0
    ucd: str = ""

    def create(self, group: zarr.Group, sizes: Mapping[str, int], rows: int | None, read: int | None = None) -> None:
        """Create the array in ``group``: ``rows`` along the first dimension are one object.

        Without ``rows`` the array is one object. It is read in equal parts of at most ``read`` bytes, where that divides it.
        """
        shape = tuple(sizes[d] for d in self.dims)
        outer = (min(rows, shape[0]) if rows else shape[0], *shape[1:])
        chunks = outer
        shards = None
        part, row_bytes = outer[0], _itemsize(self.dtype) * math.prod(shape[1:])
        while read and part * row_bytes > read and part % 2 == 0:
            part //= 2
        if part < outer[0]:
            chunks, shards = (part, *shape[1:]), outer
        group.create_array(
            self.name, shape=shape, dtype=self.dtype, chunks=tuple(max(c, 1) for c in chunks), shards=shards,
            fill_value=np.nan if self.dtype.startswith("float") and self.fill == 0 else self.fill,
            compressors=[ZstdCodec(level=0), Crc32cCodec()], serializer="auto" if self.dtype == "str" else BytesCodec(),
            dimension_names=self.dims, attributes=self.about, overwrite=True,
        )  # fmt: skip

    @property
    def about(self) -> dict[str, Any]:
        """The array's attributes: unit, meaning and, where it has one, UCD."""
        return {"units": self.units, "long_name": self.long_name, **({"ucd": self.ucd} if self.ucd else {})}


def _itemsize(dtype: str) -> int:
    return 16 if dtype == "str" else np.dtype(dtype).itemsize  # text: a guess


def array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """Return an array of a group.

    Raises:
        ValueError: it is not there, or its sizes are absurd: reading it would take all memory there is.
    """
    try:
        found = cast("zarr.Array[Any]", group[name])
    except KeyError:
        raise ValueError(f"{group.store_path} lacks the array {name}: it is damaged, or no store of ours") from None
    refuse_absurd(found)
    return found


def refuse_absurd(values: zarr.Array[Any]) -> None:
    """Raise ValueError where what an array says of itself is more than any of ours has; nothing of it is read."""
    chunk = math.prod(values.chunks) * max(values.dtype.itemsize, 1)
    rows = values.shape[0] if values.shape else 1
    n_chunks = math.prod(-(-size // max(part, 1)) for size, part in zip(values.shape, values.chunks, strict=True))
    if rows > MOST_ROWS or n_chunks > _MOST_CHUNKS or chunk > _LARGEST_CHUNK:
        raise ValueError(
            f"{values.store_path} says that it has shape {values.shape} in chunks of {values.chunks}; at most {MOST_ROWS:,} "
            f"rows, {_MOST_CHUNKS:,} chunks and {_LARGEST_CHUNK:,} bytes a chunk are read"
        )


def whole(group: zarr.Group, name: str) -> np.ndarray:
    """Read all of an array that is small in every store of ours.

    Raises:
        ValueError: it says that it is not; not read.
    """
    values = array(group, name)
    if values.nbytes > _LARGEST_WHOLE:
        raise ValueError(
            f"{values.store_path} says that it has {values.nbytes:,} bytes; at most {_LARGEST_WHOLE:,} are read"
        )
    return np.asarray(values[...])


def all_arrays(group: zarr.Group) -> dict[str, zarr.Array[Any]]:
    """Return the arrays of a group and of the groups in it, by their paths, such as ``flux`` and ``ids/objectId``."""
    return {path: value for path, value in group.members(max_depth=1) if isinstance(value, zarr.Array)}


def dimensions(values: zarr.Array[Any]) -> tuple[str, ...]:
    """Return the names of an array's dimensions."""
    return cast("Any", values.metadata).dimension_names


def write_coordinate(
    group: zarr.Group, name: str, values: Sequence[Any] | np.ndarray, long_name: str = "", separator: str = "/",
    **attributes: Any,
) -> None:  # fmt: skip
    """Write a coordinate array: its only dimension bears its own name; its object is named ``c``, ``separator``, ``0``."""
    data = np.asarray(values)
    if data.dtype.kind in "US":
        data = data.astype(np.dtypes.StringDType())
    array = group.create_array(
        name, shape=data.shape, dtype="str" if data.dtype.kind == "T" else data.dtype, chunks=data.shape,
        compressors=[ZstdCodec(level=0), Crc32cCodec()], dimension_names=(name,),
        attributes={"long_name": long_name, **attributes}, overwrite=True, config={"write_empty_chunks": True},
        chunk_key_encoding={"name": "default", "separator": separator},
    )  # fmt: skip
    array[:] = data


def objects_of(create: Callable[[zarr.Group], None]) -> dict[str, bytes]:
    """Return the objects that ``create`` writes into a group, by their names, for who decides when each is stored."""
    made: dict[str, Buffer] = {}
    create(zarr.create_group(MemoryStore(made), zarr_format=3))
    return {name: value.to_bytes() for name, value in made.items()}


def as_json(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as they come back from a store: tuples as lists, keys as text."""
    return json.loads(json.dumps(dict(attributes)))


def seal(group: zarr.Group, kind: str, attributes: Mapping[str, Any]) -> None:
    """Write the attributes that make a group a store of ours."""
    there = {name: value for name, value in group.attrs.items() if name != MAKING}
    group.attrs.put(as_json({**there, **attributes, "sedflow_kind": kind, "sedflow_version": VERSION}))


def check_version(found: Any, what: str) -> None:
    """Raise ValueError, naming both versions, unless a store was written in the format that this version reads."""
    if type(found) is not int or found != VERSION:
        age = "a newer sedflow-dist wrote it: use that" if type(found) is int and found > VERSION else "make it anew"
        raise ValueError(f"{what} has format version {found!r}; this sedflow-dist reads version {VERSION}: {age}")
