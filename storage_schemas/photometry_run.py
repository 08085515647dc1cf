"""A run of ingest: the calibrated rows of one piece of an input file, sorted, from which the photometry store is merged.

Beside the rows, it holds what duplicates are found by: a key of each row (of its identifiers, or else of its position and
fluxes), sorted, with the row's place in the run and in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from storage_schemas import photometry
from storage_schemas.backend.arrays import ArraySpec
from storage_schemas.backend.chunked import ChunkedStore
from storage_schemas.backend.location import Location

KIND = "photometry_run"
_KEYS = (
    ArraySpec("key", ("galaxy",), "uint64", "1", "hash of what tells rows apart, sorted"),
    ArraySpec("key_place", ("galaxy",), "int64", "1", "place in this run of the row with that key"),
    ArraySpec("key_row", ("galaxy",), "int64", "1", "its row in the input file"),
)
_ROWS_PER_CHUNK = 32_768


def create(
    location: Location, n_rows: int, labels: Sequence[str], ids: Mapping[str, str], settings: Mapping[str, Any],
    counts: Mapping[str, int], agreed: Mapping[str, str], redshift_errors: bool = False,
) -> ChunkedStore:  # fmt: skip
    """Create or reopen a run; ``counts`` are its numbers of rows with each flag, ``agreed`` what all runs must say."""
    sizes = {"galaxy": n_rows, "band": len(labels), "identifier": len(ids)}
    rows = [spec for spec in photometry.observations(redshift_errors) if spec.name != "input_file"]
    arrays = (*rows, *_KEYS, *photometry.identifiers(ids))
    about = {"counts": dict(counts), "agreed": dict(agreed)}
    return ChunkedStore.create(location, KIND, arrays, sizes, _ROWS_PER_CHUNK, settings, {"band": labels}, about)


def open(location: Location, mode: Literal["r", "r+"] = "r") -> ChunkedStore:  # noqa: A001
    """Open a run."""
    return ChunkedStore(location, KIND, mode)
