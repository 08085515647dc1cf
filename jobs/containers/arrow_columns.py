"""Arrow columns in, numpy arrays (row,) or (row, entry) out; values that are not there are masked, text is of objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.containers.exact import is_text
from jobs.containers.formats import MOST_TEXT_BYTES


def to_numpy(column: Any) -> np.ndarray:
    """Return an Arrow column (Array or ChunkedArray) as numpy.

    A vector that is null, or empty, is missing in all its entries.

    Raises:
        ValueError: vectors of different lengths, a type that is no column of numbers or text, a text that is too long. The
            message is to follow the column's name.
    """
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(column, pa.ChunkedArray):  # what does not fit in one array
        column = pa.concat_arrays(column.chunks)
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    kind = column.type
    if pa.types.is_dictionary(kind):
        _check_text(column.dictionary)
        return to_numpy(column.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return to_numpy(pc.run_end_decode(column))
    if is_vector(kind):
        return _vectors(column)
    if pa.types.is_null(kind):
        return np.ma.masked_all(len(column), np.float64)
    if is_text(kind):
        _check_text(column)
        return column.cast(pa.large_string()).to_numpy(zero_copy_only=False)  # None where it is null
    if pa.types.is_decimal(kind):
        return column.to_numpy(zero_copy_only=False)
    if pa.types.is_nested(kind) or pa.types.is_temporal(kind):
        raise ValueError(f"is of type {str(kind)[:200]}: only numbers, text and vectors of numbers are read")
    if not column.null_count:
        return column.to_numpy(zero_copy_only=False)
    filled = column.fill_null(pa.scalar(False if pa.types.is_boolean(kind) else 0).cast(kind))
    return np.ma.masked_array(filled.to_numpy(zero_copy_only=False), pc.is_null(column).to_numpy(zero_copy_only=False))


def is_vector(kind: pa.DataType) -> bool:
    """Whether values of a type are lists."""
    lists = (
        pa.types.is_list, pa.types.is_fixed_size_list, pa.types.is_large_list, pa.types.is_list_view,
        pa.types.is_large_list_view,
    )  # fmt: skip
    return any(is_list(kind) for is_list in lists)


def _vectors(column: Any) -> np.ndarray:
    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    there = pc.is_valid(column).to_numpy(zero_copy_only=False) & (lengths > 0)
    widths = np.unique(lengths[there])
    if len(widths) > 1:
        rows = [int(np.flatnonzero(there & (lengths == width))[0]) for width in widths[:2]]
        raise ValueError(
            f"has vectors of different lengths, {widths[0]} entries in row {rows[0]} and {widths[1]} in row {rows[1]} of those "
            "that were read"
        )
    width = int(widths[0]) if len(widths) else 0
    inner = to_numpy(column.filter(pa.array(there)).flatten())
    if inner.ndim > 1:
        raise ValueError("has vectors of vectors")
    values = np.ma.masked_all((len(column), width), inner.dtype)
    values[there] = inner.reshape(int(there.sum()), width)
    return values if np.ma.is_masked(values) or not width else values.data


def _check_text(values: Any) -> None:
    if (
        is_text(values.type)
        and len(values)
        and (longest := pc.max(pc.binary_length(values)).as_py() or 0) > MOST_TEXT_BYTES
    ):
        raise ValueError(f"holds a text of {longest:,} bytes; at most {MOST_TEXT_BYTES:,} are read")
