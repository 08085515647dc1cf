"""A run of a join: the rows of one piece of the joined table, sorted by what is searched for: a key, or a position.

Of each column it holds the values as the container has them, which of them are missing, and, where they are numbers, these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from storage_schemas.backend.arrays import ArraySpec
from storage_schemas.backend.chunked import ChunkedStore
from storage_schemas.backend.location import Location

KIND = "joined_run"
_ROWS_PER_CHUNK = 32_768
_ABOUT = {
    "key": ("1", "hash of the identifiers, or HEALPix pixel of order 29, nested; sorted"),
    "row": ("1", "row in the joined file"), "ra": ("deg", "right ascension (ICRS)"), "dec": ("deg", "declination (ICRS)"),
}  # fmt: skip


def create(location: Location, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> ChunkedStore:
    """Create or reopen a run with arrays (row,) of these names and dtypes."""
    specs = [_spec(name, values) for name, values in arrays.items()]
    n_rows = len(next(iter(arrays.values())))
    return ChunkedStore.create(location, KIND, specs, {"row": n_rows}, _ROWS_PER_CHUNK, {}, {}, attributes)


def _spec(name: str, values: np.ndarray) -> ArraySpec:
    dtype = "str" if values.dtype.kind == "T" else values.dtype.name
    unit, meaning = _ABOUT.get(name, ("", "of the joined table"))
    return ArraySpec(name, ("row",), dtype, unit, meaning, {"str": "", "bool": False}.get(dtype, 0))


def open(location: Location, mode: Literal["r", "r+"] = "r") -> ChunkedStore:  # noqa: A001
    """Open a run."""
    return ChunkedStore(location, KIND, mode)
