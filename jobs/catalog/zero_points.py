"""zeropoints: a run's catalog in, offsets of the survey's bands with errors out: a table on standard output, and JSON.

Each iteration streams the catalog once: a Dask task replays a shard's draws with its photometry corrected for the offsets found so
far, and returns sums of a few hundred bytes. Nothing is applied: the offsets go into the survey's definition by hand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import xarray as xr
from distributed import Client

from cluster import dask_engine
from jobs.config.run_file import RunFile
from jobs.export.whole import Destination, whole_file
from jobs.observed import names_of, observed
from jobs.telemetry import events
from jobs.telemetry.progress import Clock, bar, say
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference import zero_points as science
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.inference.zero_points import Assumptions, NormalEquation, Solution
from storage_schemas.backend.arrays import as_json
from storage_schemas.backend.chunked import Chunks
from storage_schemas.backend.location import Location
from storage_schemas.catalog import releases, schema

_CONVERGED = 5e-4  # mag, in any band between two iterations


@events.job("zeropoints")
def zero_points(
    run: RunFile, out: Destination, assumptions: Assumptions, n_draws: int = 512, most_rows: int | None = None,
    iterations: int = 10,
) -> dict[str, Any]:  # fmt: skip
    """Solve for the offsets of a run's survey, print them, write them to ``out`` as JSON and return what that holds.

    Args:
        most_rows: of the catalog, evenly spread, are looked at; None: all
        iterations: at most; fewer where offsets no longer move

    Raises:
        ValueError: the catalog was made with another definition of the survey, has no certificate, or too few rows serve.
    """
    where = run.store("catalog")
    repo = schema.repository(where)
    release = releases.name_of(repo, repo.lookup_branch(schema.MAIN))
    catalog = schema.open_catalog(where)
    labels = tuple(map(str, catalog["band"].values))
    applied = _applied(run, catalog, len(labels))
    if assumptions.fixed not in (science.MEAN, *labels):
        raise ValueError(f"fixed: {assumptions.fixed!r} is none of {', '.join((science.MEAN, *labels))}")
    n_rows, clock, offset = catalog.sizes["galaxy"], Clock(), np.zeros(len(labels))
    task = {
        "source": where, "run_id": catalog.attrs["run_id"], "n_draws": n_draws, "assumptions": assumptions,
        "stride": max(math.ceil(n_rows / most_rows), 1) if most_rows else 1,
    }  # fmt: skip
    with dask_engine.client(run.engines.dask) as client:
        for number in range(1, iterations + 1):
            total = _streamed(client, run, catalog, offset=offset, **task)
            solution = science.solve(total, offset, labels, assumptions)
            moved = float(np.nanmax(np.abs(solution.offset - offset)))
            offset = np.nan_to_num(solution.offset)
            say("zeropoints", f"iteration {number}: {total.rows:,} rows, offsets moved by up to {moved:.4f} mag")
            if moved < _CONVERGED:
                break
    if moved >= _CONVERGED:
        say("zeropoints", f"not converged after {number} iterations: ask for more with --iterations")
    found = _report(labels, applied, solution, total, assumptions) | {
        "catalog": str(where), "release": release, "model": catalog.attrs["run"]["model"], "draws": n_draws,
        "iterations": number, "converged": moved < _CONVERGED,
    }  # fmt: skip
    with whole_file(out) as file:
        file.write(json.dumps(found, indent=1).encode() + b"\n")
    say("zeropoints", f"{clock.seconds:.0f} s: {out}")
    return found


def _streamed(client: Client, run: RunFile, catalog: xr.Dataset, **task: Any) -> NormalEquation:
    """The normal equation of all shards; their sums are added in their order, not in that in which they come."""
    shards, parts = Chunks(catalog.sizes["galaxy"], catalog.attrs["rows_per_shard"]), dict[int, NormalEquation]()
    with bar("zeropoints", len(range(0, catalog.sizes["galaxy"], task["stride"])), "galaxies") as progress:

        def done(result: tuple[int, int, NormalEquation]) -> None:
            shard, looked_at, part = result
            parts[shard] = part
            progress.update(looked_at)

        dask_engine.map_tasks(client, sums, range(len(shards)), done, run.engines.dask.retries, **task)
    return sum((parts[shard] for shard in sorted(parts)), NormalEquation.zero(catalog.sizes["band"]))


def _applied(run: RunFile, catalog: xr.Dataset, n_bands: int) -> np.ndarray:
    """The offsets that the catalog's photometry was calibrated with, (band,) [mag].

    Raises:
        ValueError: the run file's survey is not the catalog's, or its rows have no certificate.
    """
    made = catalog.attrs["run"]
    if not made["certificate"]:
        raise ValueError(f"{run.store('catalog')} was made without the certificate: its draws have no weights")
    stored = made["photometry"].get("survey", {})
    wanted = as_json(run.ingest.named(run.survey_definition).model_dump(mode="json"))
    if differing := sorted(key for key in wanted if wanted[key] != stored.get(key)):
        raise ValueError(
            f"survey: {', '.join(differing)} of the run file differ from what {run.store('catalog')} was made with, and offsets "
            "would be told of another definition: bring the catalog up to date (sedflow reprocess), or undo the change"
        )
    return np.array(stored["ab_offset"] or [0.0] * n_bands)


def sums(
    shard: int, source: Location, run_id: str, n_draws: int, stride: int, offset: np.ndarray, assumptions: Assumptions
) -> tuple[int, int, NormalEquation]:
    """Return the shard, its rows that were looked at, and their normal equation."""
    catalog, posterior = _on_worker(source, run_id, n_draws)
    shards = Chunks(catalog.sizes["galaxy"], catalog.attrs["rows_per_shard"])
    rows = np.arange(shards.rows(shard).start, shards.rows(shard).stop)
    rows = rows[rows % stride == 0]
    part = catalog[[*names_of(catalog), "flags"]].isel(galaxy=rows).load()
    found = science.equation(posterior, observed(part), part["flags"].values, rows, offset, assumptions)
    return shard, len(rows), found


@lru_cache(1)
def _on_worker(source: Location, run_id: str, n_draws: int) -> tuple[xr.Dataset, Posterior]:
    """The catalog and what infers its rows, once on a worker.

    Raises:
        ValueError: the catalog shows another release than when the job started.
    """
    torch.set_num_threads(1)
    catalog = schema.open_catalog(source)
    if catalog.attrs["run_id"] != run_id:
        raise ValueError(f"{source} shows another release than when this began: run it again")
    flow = TrainedModel.from_bytes(*schema.model_bytes(catalog))
    return catalog, Posterior(flow, catalog.attrs["run"]["seed"], n_draws)


def _report(
    labels: Sequence[str], applied: np.ndarray, solution: Solution, total: NormalEquation, assumptions: Assumptions
) -> dict[str, Any]:
    """Print offsets, and the line for the survey's definition; return them."""
    print(f"{'band':<8}{'offset [mag]':>14}{'error':>9}{'rows':>10}")
    for label, offset, error, rows in zip(labels, solution.offset, solution.error, total.in_band, strict=True):
        print(f"{label:<8}{offset:>+14.4f}{error:>9.4f}{rows:>10,}")
    print(f"{total.rows:,} rows used; left out: {science.described(total.left_out)}")
    print(f"held at zero: {'the mean of all bands' if assumptions.fixed == science.MEAN else assumptions.fixed}, "
          "since the mass of every galaxy is free")  # fmt: skip
    if len(solution.held):
        print(f"errors contain {assumptions.prior:g} mag along each of these, which another population would mimic:")
    for direction, scatter in zip(solution.held, solution.scatter, strict=True):
        mixture = " ".join(f"{part:+.2f} {label}" for label, part in zip(labels, direction, strict=True))
        print(f"held at zero: {mixture}, in which single galaxies scatter by {scatter:.2g} mag")
    ab_offset = [round(float(x), 4) for x in applied + np.nan_to_num(solution.offset)]
    print(f"for the survey's definition, if you agree (added to {applied.tolist()}):\n  ab_offset: {ab_offset}")

    def plain(values: np.ndarray) -> dict[str, float | None]:
        return {label: None if np.isnan(x) else float(x) for label, x in zip(labels, values, strict=True)}

    return {
        "offset_mag": plain(solution.offset), "error_mag": plain(solution.error),
        "statistical_error_mag": plain(solution.statistical),
        "rows": dict(zip(labels, total.in_band.tolist(), strict=True)), "rows_used": total.rows,
        "left_out": {reason: total.left_out[reason] for reason in science.LEFT_OUT}, "assumptions": vars(assumptions),
        "held": [
            {"direction": direction.tolist(), "scatter_mag": scatter if math.isfinite(scatter) else None}
            for direction, scatter in zip(solution.held, solution.scatter.tolist(), strict=True)
        ],
        "applied_ab_offset": applied.tolist(), "ab_offset": ab_offset,
    }  # fmt: skip
