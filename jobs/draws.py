"""draws: rows of a catalog in, their posterior samples out, replayed: the same numbers every time, anywhere.

Everything needed stands in the catalog itself: photometry, model, seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from sedflow_dist.flags import REASONS, names
from sedflow_dist.flow import Flow
from sedflow_dist.posterior import Posterior
from storage_schemas.catalog import model_bytes


def replay(catalog: xr.Dataset, rows: Sequence[int], n_draws: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return equally weighted draws (row, draw, column) of catalog rows, and the columns' names.

    Raises:
        ValueError: a row does not exist or has no answer; says why.
    """
    check_rows(catalog, rows)
    posterior, at = engine(catalog), np.asarray(rows)
    return posterior.draws(*observed(catalog, at), at, n_draws), posterior.columns


def check_rows(catalog: xr.Dataset, rows: Sequence[int]) -> None:
    """Raise ValueError, saying why, if a row does not exist or has no answer."""
    n_rows = catalog.sizes["galaxy"]
    for row in rows:
        if not 0 <= row < n_rows:
            raise ValueError(f"row {row} does not exist; the catalog has rows 0 to {n_rows - 1}")
    for row, flags in zip(rows, catalog["flags"].isel(galaxy=np.asarray(rows)).values, strict=True):
        if flags & int(REASONS):
            raise ValueError(f"row {row} has no posterior: {', '.join(names(int(flags)))}")


def engine(catalog: xr.Dataset) -> Posterior:
    """Return what answered a catalog: its model, seed and settings."""
    run = catalog.attrs["run"]
    return Posterior(Flow.from_bytes(*model_bytes(catalog)), run["seed"], run["n_draws"], run["min_effective_fraction"])


def observed(catalog: xr.Dataset, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return flux, sigma and mask (row, band) and redshift (row,) of catalog rows."""
    part = catalog[["flux", "sigma", "mask", "redshift"]].isel(galaxy=rows)
    return part["flux"].values, part["sigma"].values, part["mask"].values, part["redshift"].values
