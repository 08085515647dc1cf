"""Rows to a plain Zarr group, which xarray opens through s3fs: an array a column, a block of rows a chunk.

The catalog itself is an Icechunk repository, of which only Icechunk reads releases; this is one of them for every other reader.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from jobs.export.rows import BLOCK, Column, Rows
from jobs.export.units import unit_of
from jobs.export.whole import Destination, whole_folder

_METADATA = "zarr.json"
_DIMENSION = "galaxy"


def write(rows: Rows, out: Destination) -> None:
    """Write a Zarr group (format 3, consolidated metadata) into the folder ``out``, or below it in a bucket.

    Missing identifiers are what the attribute ``null_value`` says (readers make floats of integers with a ``_FillValue``, which
    would not be exact); missing text is empty.

    Raises:
        ValueError: ``out`` exists.
    """
    with whole_folder(out, last=(_METADATA,)) as folder:
        group = zarr.create_group(str(folder), zarr_format=3, attributes=dict(rows.metadata))
        arrays = {column.name: _array(group, column, rows.n_rows) for column in rows.columns}
        start = 0
        for block in rows.blocks():
            length = len(next(iter(block.values())))
            for name, values in block.items():
                if length:
                    arrays[name][start : start + length] = _filled(values, arrays[name])
            start += length
        zarr.consolidate_metadata(group.store)


def _array(group: zarr.Group, column: Column, n_rows: int) -> zarr.Array[Any]:
    about = {"units": str(unit_of(column) or ""), "long_name": column.description, "ucd": column.ucd}
    attributes: dict[str, Any] = {key: text for key, text in about.items() if text}
    dtype: Any = "str" if column.is_text else np.dtype(column.dtype)
    if column.identifier is not None and not column.is_text:
        attributes["null_value"] = _null(dtype)
    return group.create_array(
        column.name, shape=(n_rows,), dtype=dtype, chunks=(max(min(BLOCK, n_rows), 1),), compressors=[ZstdCodec(level=3)],
        fill_value="" if column.is_text else np.nan if dtype.kind == "f" else np.zeros((), dtype)[()],
        dimension_names=(_DIMENSION,), attributes=attributes,
    )  # fmt: skip


def _null(dtype: np.dtype[Any]) -> int:
    """The number that stands for a missing identifier, as in FITS: -2^63, or 2^64 - 1 where none is negative."""
    about = np.iinfo(dtype)
    return int(about.max if dtype.kind == "u" else about.min)


def _filled(values: np.ndarray, array: zarr.Array[Any]) -> np.ndarray:
    if array.dtype.kind == "T" or values.dtype.kind in "OTU":
        return np.ma.filled(values, "").astype(np.dtypes.StringDType())
    return np.ma.filled(values, _null(values.dtype)) if np.ma.isMaskedArray(values) else values
