"""The training set: noiseless shapes of simulated galaxies, filled chunk by chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from storage_schemas.backend.arrays import ArraySpec
from storage_schemas.backend.chunked import ChunkedStore
from storage_schemas.backend.location import Location

KIND = "training_set"
ARRAYS = (
    ArraySpec("phi", ("galaxy", "shape"), "float32", "1", "shape coordinates in probit space"),
    ArraySpec("per_mass", ("galaxy", "band"), "float32", "nanomaggy", "flux of one solar mass formed"),
    ArraySpec("redshift", ("galaxy",), "float32", "1", "redshift"),
)
NAMES = tuple(spec.name for spec in ARRAYS)


def create(
    location: Location, n_galaxies: int, rows_per_chunk: int, coordinates: Sequence[str], labels: Sequence[str],
    settings: Mapping[str, Any],
) -> ChunkedStore:  # fmt: skip
    """Create or reopen a training set; ``settings`` are everything its content depends on."""
    sizes = {"galaxy": n_galaxies, "shape": len(coordinates), "band": len(labels)}
    return ChunkedStore.create(
        location, KIND, ARRAYS, sizes, rows_per_chunk, settings, {"shape": coordinates, "band": labels}
    )


def open(location: Location, mode: Literal["r", "r+"] = "r") -> ChunkedStore:  # noqa: A001
    """Open a training set."""
    return ChunkedStore(location, KIND, mode)
