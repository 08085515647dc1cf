"""reweight: a posterior catalog and a new prior in, one table out: the same draws, summarised under the new prior.

Draws are replayed with their importance weights (not resampled: duplicates would pass for draws), a block of rows at a time,
so memory holds one block's draws and the table. Rows with too few effective draws are NaN with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

from jobs import export
from jobs.catalog.draws import check_rows, engine
from jobs.export.rows import Column, Rows, id_columns, summary_columns
from jobs.export.whole import Destination
from jobs.observed import names_of, observed
from jobs.telemetry.progress import bar, say
from sedflow_dist.inference import importance
from sedflow_dist.inference.cascade import Router
from sedflow_dist.inference.reweight import LEAST_EFFECTIVE_DRAWS, NewPrior
from sedflow_dist.inference.reweight import reweight as new_weights
from sedflow_dist.inference.settings import TargetPrior
from sedflow_dist.inference.summary import QUANTILES, Method
from storage_schemas.backend.location import Location
from storage_schemas.catalog.schema import open_catalog
from storage_schemas.photometry import ID_MISSING

_ROWS_PER_READ = 1024


def reweight(
    source: Location,
    out: Destination,
    target: TargetPrior,
    rows: Sequence[int] | None,
    n_draws: int | None,
    ref: str,
) -> tuple[int, int]:
    """Write rows of a catalog under a new prior to ``out``; return the numbers of rows and of those without an answer.

    Args:
        target: the new prior, in place of the catalog's own target prior where it has one
        rows: all answered ones if None
        n_draws: as many as the catalog's if None

    Raises:
        ValueError: a prior, a row or the ending of ``out`` is not what it can be; says what is allowed.
    """
    export.check_ending(out, export.TABLES)
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
    router, at = engine(catalog, target=False), np.asarray(rows)
    posterior = router.posterior
    prior = NewPrior.build(target.densities, posterior.flow, posterior.seed, target.relative_to)
    for line in prior.describe():
        say("reweight", line)
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
    answer = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    export.write(_rows(catalog, at, answer, least, target), out)
    before, after = answer["interim_effective_draws"], answer["effective_draws"]
    say("reweight", f"effective draws a row, median: {np.median(before):,.0f} before, {np.median(after):,.0f} after; "
        f"a tenth of the rows keeps less than {np.quantile(after / before, 0.1):.2g} of them")  # fmt: skip
    return len(at), int(np.sum(~(answer["effective_fraction"] >= least)))


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
        part = catalog[[*names_of(catalog), "method"]].isel(galaxy=block).load()
        data, methods = observed(part), part["method"].values
        for start in range(0, len(block), size):
            at = slice(start, start + size)
            values, old = router.weighted(data[at], block[at], methods[at], n_draws)
            weight, fraction = new_weights(values, old, prior, data.redshift[at])
            answered = (fraction >= least).numpy()
            quantiles, mean, std = (
                np.where(answered.reshape(-1, *[1] * (x.ndim - 1)), x.numpy(), np.nan).astype(np.float32)
                for x in importance.summarise(values, weight, QUANTILES)
            )
            yield {
                "quantiles": quantiles, "mean": mean, "std": std, "effective_fraction": fraction.float().numpy(),
                "effective_draws": (n_draws * fraction).float().numpy(),
                "interim_effective_draws": (1 / (old**2).sum(-1)).float().numpy(),
                "weighted": methods[at] != Method.FLOW,
            }  # fmt: skip


def _rows(
    catalog: xr.Dataset, at: np.ndarray, answer: dict[str, np.ndarray], least: float, target: TargetPrior
) -> Rows:
    """The answers as rows of a table: row, identifiers, summaries, how good they are, and why there is none."""
    fraction = answer["effective_fraction"]
    reason = [f"effective fraction {x:.2g} is below {least:.2g}" if not x >= least else "" for x in fraction]
    ids, summaries = id_columns(catalog), summary_columns(catalog)
    arrays = [name for name in (*(column.array for column in ids), ID_MISSING) if name in catalog]
    identity = {name: catalog[name].isel(galaxy=at).values for name in arrays}
    about = {
        "row": (at, "row in the catalog"), **{column.name: (column.of(identity), "") for column in ids},
        **{column.name: (column.of(answer), "") for column in summaries},
        "effective_draws": (answer["effective_draws"], "effective draws under the new prior"),
        "interim_effective_draws": (answer["interim_effective_draws"], "effective draws under the interim prior"),
        "effective_fraction": (fraction, "effective fraction of the draws under the new prior"),
        "weighted": (answer["weighted"], "draws of the exact posterior: weighted, or MCMC"),
        "flags": (catalog["flags"].isel(galaxy=at).values, "the catalog's flags"),
        "reason": (np.array(reason, dtype=object), "why there is no answer"),
    }  # fmt: skip
    known = {column.name: column for column in (*ids, *summaries)}
    columns = [
        known.get(name) or Column(name, str if values.dtype.kind in "TOU" else values.dtype, description=description)
        for name, (values, description) in about.items()
    ]
    metadata = {
        "MODEL": str(catalog.attrs["run"]["model"]),
        "PRIOR": "; ".join(target.densities),
        "PRIORREL": target.relative_to,
    }
    return Rows.of_arrays(columns, {name: values for name, (values, _) in about.items()}, metadata)
