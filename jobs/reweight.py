"""reweight: a posterior catalog and a new prior in, one table out: the same draws, summarised under the new prior.

Draws are replayed with their importance weights (not resampled: duplicates would pass for draws), a block of rows at a time,
so memory holds one block's draws and the table. Rows with too few effective draws are NaN with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from astropy.table import Table

from jobs import export
from jobs.draws import check_rows, engine, observed
from jobs.progress import bar, say
from sedflow_dist import weights
from sedflow_dist.posterior import QUANTILES, Method
from sedflow_dist.reweight import LEAST_EFFECTIVE_DRAWS, NewPrior
from sedflow_dist.reweight import reweight as new_weights
from sedflow_dist.routing import Router
from storage_schemas.catalog import open_catalog
from storage_schemas.storage import Location

_ROWS_PER_READ = 1024


def reweight(
    source: Location, out: Path, priors: Sequence[str], rows: Sequence[int] | None, n_draws: int | None, ref: str
) -> tuple[int, int]:
    """Write rows of a catalog under a new prior to ``out``; return the numbers of rows and of those without an answer.

    Args:
        priors: new densities as `reweight.Density.parse` reads them
        rows: all answered ones if None
        n_draws: as many as the catalog's if None

    Raises:
        ValueError: a prior, a row or the ending of ``out`` is not what it can be; says what is allowed.
    """
    export.check_ending(out)
    catalog = open_catalog(source, ref)
    if rows is None:
        rows = np.flatnonzero(catalog["method"].values != Method.NONE).tolist()
    check_rows(catalog, rows)
    if not catalog.attrs["run"]["certificate"]:
        raise ValueError(
            f"{source} was made without the certificate: its draws have no weights that a prior could change"
        )
    if not rows:
        raise ValueError(f"no row of {source} has an answer")
    router, at = engine(catalog), np.asarray(rows)
    posterior = router.posterior
    redshift = catalog["redshift"].isel(galaxy=at).values
    prior = NewPrior.build(priors, posterior.flow, (float(redshift.min()), float(redshift.max())), posterior.seed)
    for density in prior.densities:
        say("reweight", density.describe())
    n_draws = n_draws or posterior.n_draws
    least = max(posterior.min_effective_fraction, LEAST_EFFECTIVE_DRAWS / n_draws)
    if least > 0.5:
        raise ValueError(
            f"{n_draws} draws a row are too few: {LEAST_EFFECTIVE_DRAWS:.0f} of them have to count; ask for more with -n"
        )
    parts = []
    with bar("reweight", len(rows), "galaxies") as progress:
        for part in _answers(catalog, router, prior, at, n_draws, least):
            parts.append(part)
            progress.update(len(part["weighted"]))
    table = _table(catalog, at, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, least)
    table.meta["PRIOR"] = "; ".join(density.text for density in prior.densities)
    export.write(table, out)
    return len(table), int(np.sum(table["reason"] != ""))


def _answers(
    catalog: xr.Dataset, router: Router, prior: NewPrior, rows: np.ndarray, n_draws: int, least: float
) -> Iterator[dict[str, np.ndarray]]:
    """Summaries of a few rows at a time."""
    posterior = router.posterior
    size = max(
        posterior.batch * posterior.n_draws // n_draws, 1
    )  # galaxies whose draws fit into the posterior's memory
    for first in range(0, len(rows), _ROWS_PER_READ):
        block = rows[first : first + _ROWS_PER_READ]
        flux, sigma, mask, redshift = map(torch.as_tensor, observed(catalog, block))
        methods = catalog["method"].isel(galaxy=block).values
        for start in range(0, len(block), size):
            at = slice(start, start + size)
            data = (flux[at], sigma[at], mask[at], redshift[at])
            values, old = router.weighted(*data, block[at], methods[at], n_draws)
            weight, fraction = new_weights(values, old, prior, redshift[at])
            answered = (fraction >= least).numpy()
            quantiles, mean, std = (
                np.where(answered.reshape(-1, *[1] * (x.ndim - 1)), x.numpy(), np.nan).astype(np.float32)
                for x in weights.summarise(values, weight, QUANTILES)
            )
            yield {
                "quantiles": quantiles, "mean": mean, "std": std, "effective_fraction": fraction.float().numpy(),
                "weighted": methods[at] != Method.FLOW,
            }  # fmt: skip


def _table(catalog: xr.Dataset, rows: np.ndarray, answer: dict[str, np.ndarray], least: float) -> Table:
    """The table of answers: row, identifiers, summaries, how good they are, and why there is none."""
    table = Table()
    export.add(table, "row", rows, description="row in the catalog")
    for name in catalog.attrs["ids"]:
        export.add(table, name, catalog[name].isel(galaxy=rows).values)
    export.add_summary(table, catalog, answer["quantiles"], answer["mean"], answer["std"])
    fraction = answer["effective_fraction"]
    reason = [f"effective fraction {x:.2g} is below {least:.2g}" if not x >= least else "" for x in fraction]
    export.add(table, "effective_fraction", fraction, description="effective fraction of the draws under the new prior")
    export.add(table, "weighted", answer["weighted"], description="draws of the exact posterior: weighted, or MCMC")
    export.add(table, "flags", catalog["flags"].isel(galaxy=rows).values, description="the catalog's flags")
    export.add(table, "reason", np.array(reason), description="why there is no answer")
    table.meta["MODEL"] = catalog.attrs["run"]["model"]
    return table
