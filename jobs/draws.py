"""draws: rows of a catalog in, their full posterior samples out, replayed: the same numbers every time, anywhere.

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
    n_rows = catalog.sizes["galaxy"]
    for row in rows:
        if not 0 <= row < n_rows:
            raise ValueError(f"row {row} does not exist; the catalog has rows 0 to {n_rows - 1}")
    at = np.asarray(rows)
    part = {name: catalog[name].isel(galaxy=at).values for name in ("flux", "sigma", "mask", "redshift", "flags")}
    for row, flags in zip(rows, part["flags"], strict=True):
        if flags & int(REASONS):
            raise ValueError(f"row {row} has no posterior: {', '.join(names(int(flags)))}")
    run = catalog.attrs["run"]
    posterior = Posterior(
        Flow.from_bytes(*model_bytes(catalog)), run["seed"], run["n_draws"], run["min_effective_fraction"]
    )
    draws = posterior.draws(part["flux"], part["sigma"], part["mask"], part["redshift"], at, n_draws)
    return draws, posterior.columns
