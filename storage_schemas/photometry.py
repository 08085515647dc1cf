"""The photometry store: one row per input row, in order, calibrated to nanomaggies, flagged, filled chunk by chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from storage_schemas.chunked import ChunkedStore
from storage_schemas.schema import ArraySpec
from storage_schemas.storage import Location

KIND = "photometry"
ARRAYS = (
    ArraySpec("flux", ("galaxy", "band"), "float32", "nanomaggy", "flux, corrected for extinction, AB; 0 where masked"),
    ArraySpec(
        "sigma", ("galaxy", "band"), "float32", "nanomaggy", "uncertainty with floor and model error; 0 where masked"
    ),
    ArraySpec("mask", ("galaxy", "band"), "bool", "1", "band was measured", False),
    ArraySpec("redshift", ("galaxy",), "float32", "1", "redshift"),
    ArraySpec("flags", ("galaxy",), "uint32", "1", "quality flags (bit mask)"),
    ArraySpec("ra", ("galaxy",), "float64", "deg", "right ascension (ICRS)"),
    ArraySpec("dec", ("galaxy",), "float64", "deg", "declination (ICRS)"),
    ArraySpec("healpix_29", ("galaxy",), "int64", "1", "HEALPix pixel of order 29, nested; -1: no position", -1),
    ArraySpec("input_file", ("galaxy",), "int32", "1", "which of the input files, counted from 0"),
    ArraySpec("input_row", ("galaxy",), "int64", "1", "row in that file, counted from 0"),
)
#: What inference reads, and what it only passes on.
DATA = ("flux", "sigma", "mask", "redshift", "flags")
PASSED = ("ra", "dec", "healpix_29", "input_file", "input_row")


def identifiers(ids: Mapping[str, str]) -> list[ArraySpec]:
    """Return the arrays of identifying columns (name -> dtype, int64 or str)."""
    return [ArraySpec(n, ("galaxy",), t, "", "identifier", "" if t == "str" else 0) for n, t in ids.items()]


def create(
    location: Location, n_galaxies: int, rows_per_chunk: int, labels: Sequence[str], ids: Mapping[str, str],
    settings: Mapping[str, Any],
) -> ChunkedStore:  # fmt: skip
    """Create or reopen a photometry store; ``ids`` are identifying columns and their dtypes (int64 or str)."""
    sizes = {"galaxy": n_galaxies, "band": len(labels)}
    return ChunkedStore.create(
        location,
        KIND,
        (*ARRAYS, *identifiers(ids)),
        sizes,
        rows_per_chunk,
        settings,
        {"band": labels},
        {"ids": list(ids)},
    )


def open(location: Location, mode: Literal["r", "r+"] = "r") -> ChunkedStore:  # noqa: A001
    """Open a photometry store."""
    return ChunkedStore(location, KIND, mode)


def sample(store: ChunkedStore, names: Sequence[str], n_rows: int) -> dict[str, np.ndarray]:
    """Return about ``n_rows`` rows of some arrays at most: whole chunks, evenly over the store; all where they are fewer."""
    number = min(max(n_rows // store.rows_per_chunk, 1), store.n_chunks)
    chunks = np.linspace(0, store.n_chunks - 1, number).round().astype(int).tolist()
    parts = [store.read(chunk, names) for chunk in chunks]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}
