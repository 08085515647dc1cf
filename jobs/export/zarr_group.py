"""Rows to a plain Zarr group, which xarray opens through s3fs: an array a column, a block of rows a chunk.

The catalog itself is an Icechunk repository, of which only Icechunk reads releases; this is one of them for every other reader.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.api import asynchronous
from zarr.codecs import ZstdCodec

from jobs.export.rows import BLOCK, Column, Rows, null_of, with_null
from jobs.export.units import unit_of
from jobs.export.whole import Destination, whole_folder

_METADATA = "zarr.json"
_DIMENSION = "galaxy"


def write(rows: Rows, out: Destination) -> None:
    """Write a Zarr group (format 3, consolidated metadata) into the folder ``out``, or below it in a bucket.

    Missing identifiers are what the attribute ``null_value`` says (readers make floats of integers with a ``_FillValue``, which
    would not be exact); missing text is empty.

    Raises:
        ValueError: ``out`` exists; an identifier is the number of missing ones.
    """
    # An export that is told to end ends with its loop, which waits for the threads that write: Zarr's own loop would go on
    # writing, and make the folder anew when it has been taken away.
    with whole_folder(out, last=(_METADATA,)) as folder:
        asyncio.run(_write(rows, folder))


async def _write(rows: Rows, folder: Path) -> None:
    group = await asynchronous.create_group(store=str(folder), zarr_format=3, attributes=dict(rows.metadata))
    arrays = {column.name: await _array(group, column, rows.n_rows) for column in rows.columns}
    start = 0
    for block in rows.blocks():
        stop = start + len(next(iter(block.values())))
        for column in rows.columns if stop > start else ():
            await arrays[column.name].setitem(slice(start, stop), _plain(column, block[column.name]))
        start = stop
    await asynchronous.consolidate_metadata(str(folder))


async def _array(group: zarr.AsyncGroup, column: Column, n_rows: int) -> zarr.AsyncArray[Any]:
    about = {"units": str(unit_of(column) or ""), "long_name": column.description, "ucd": column.ucd}
    attributes: dict[str, Any] = {key: text for key, text in about.items() if text}
    dtype: Any = "str" if column.is_text else np.dtype(column.dtype)
    if column.identifier is not None and not column.is_text:
        attributes["null_value"] = null_of(dtype)
    return await group.create_array(
        column.name, shape=(n_rows,), dtype=dtype, chunks=(max(min(BLOCK, n_rows), 1),), compressors=[ZstdCodec(level=3)],
        fill_value="" if column.is_text else np.nan if dtype.kind == "f" else np.zeros((), dtype)[()],
        dimension_names=(_DIMENSION,), attributes=attributes,
    )  # fmt: skip


def _plain(column: Column, values: np.ndarray) -> np.ndarray:
    if column.is_text:
        return np.ma.filled(values, "").astype(np.dtypes.StringDType())
    return values if column.identifier is None else with_null(column.name, values, "Zarr")
