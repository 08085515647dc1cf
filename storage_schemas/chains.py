"""The chains of an MCMC: two stores, filled by anybody in any order.

``segments``: one chunk is one checkpoint of one galaxy, its galaxies one after the other. ``summary``: one row a galaxy,
written when its last segment is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from storage_schemas.backend.arrays import ArraySpec
from storage_schemas.backend.chunked import ChunkedStore
from storage_schemas.backend.location import Location

SEGMENTS = (
    ArraySpec("chain", ("segment", "step", "walker", "coordinate"), "uint16", "1", "prior quantile times 2^16"),
    ArraySpec("log_prob", ("segment", "step", "walker"), "float32", "1", "ln of likelihood times prior, shapes only"),
    ArraySpec("position", ("segment", "walker", "shape"), "float64", "1", "end of the segment in probit space"),
    ArraySpec("scale", ("segment",), "float64", "1", "length scale of zeus' moves at the end"),
    ArraySpec("tune", ("segment",), "bool", "1", "whether zeus still tunes it", False),
    ArraySpec("log_evidence", ("segment",), "float64", "1", "ln of the evidence; nested sampling only"),
    ArraySpec("log_evidence_error", ("segment",), "float64", "1", "standard error of ln of the evidence"),
    ArraySpec("evaluations", ("segment",), "int64", "1", "evaluations of the likelihood"),
)
SUMMARY = (
    ArraySpec("row", ("galaxy",), "int64", "1", "row of the galaxy in its catalog"),
    ArraySpec("autocorrelation_time", ("galaxy", "shape"), "float32", "1", "in steps"),
    ArraySpec("rhat", ("galaxy", "shape"), "float32", "1", "split R-hat over walkers"),
    ArraySpec("effective_draws", ("galaxy",), "float32", "1", "independent draws in the slowest coordinate"),
    ArraySpec("log_evidence", ("galaxy",), "float64", "1", "ln of the evidence; nested sampling only"),
    ArraySpec("log_evidence_error", ("galaxy",), "float64", "1", "standard error of ln of the evidence"),
    ArraySpec("evaluations", ("galaxy",), "int64", "1", "evaluations of the likelihood"),
    ArraySpec("flags", ("galaxy",), "uint32", "1", "FAILED: the galaxy killed every worker, and has no chain"),
)


def create(
    location: Location, n_galaxies: int, n_segments: int, steps: int, walkers: int, coordinates: Sequence[str],
    settings: Mapping[str, Any],
) -> tuple[ChunkedStore, ChunkedStore]:  # fmt: skip
    """Create or reopen segments (``steps`` kept steps each) and summary; ``settings`` are all that the chains depend on."""
    sizes = {
        "segment": n_galaxies * n_segments, "step": steps, "walker": walkers, "coordinate": len(coordinates),
        "shape": len(coordinates) - 1, "galaxy": n_galaxies,
    }  # fmt: skip
    names = {"coordinate": coordinates, "shape": coordinates[1:]}
    segments = ChunkedStore.create(location / "segments", "chain_segments", SEGMENTS, sizes, 1, settings, names)
    names = {"shape": coordinates[1:]}
    return segments, ChunkedStore.create(location / "summary", "chain_summary", SUMMARY, sizes, 1, settings, names)


def open(location: Location, mode: Literal["r", "r+"] = "r") -> tuple[ChunkedStore, ChunkedStore]:  # noqa: A001
    """Open segments and summary."""
    return (
        ChunkedStore(location / "segments", "chain_segments", mode),
        ChunkedStore(location / "summary", "chain_summary", mode),
    )


def draws(segments: ChunkedStore, galaxy: int, n_segments: int, burn_in: int) -> np.ndarray:
    """Return the kept steps of a galaxy after the first ``burn_in`` as the unit cube, (step, walker, coordinate)."""
    parts = [segments.read(galaxy * n_segments + s, ["chain"])["chain"][0] for s in range(n_segments)]
    return ((np.concatenate(parts)[burn_in:] + 0.5) * 2.0**-16).astype(np.float32)
