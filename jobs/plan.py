"""plan and status: what a run will do, and what is done of it, read from its stores alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from jobs import inputs
from jobs.formats import count
from jobs.runfile import RunFile
from sedflow_dist.posterior import QUANTILES, columns
from sedflow_dist.prior import COORDINATES
from storage_schemas import catalog, photometry, training_set
from storage_schemas import model as model_store
from storage_schemas.storage import Location

# Measured on two cores of an AMD EPYC (benchmarks/RESULTS.md); a plan is good to a factor of two.
_SIMULATED_PER_CORE = {"table": 60_000.0, "fsps": 50.0}
_TRAINED_MFLOP_PER_SECOND_CORE = 30_000.0
_DRAWS_PER_CORE = 45_000.0


@dataclass(frozen=True)
class Stage:
    """A job of a run: chunks in all and missing, rows, bytes it will write, hours it will take."""

    name: str
    location: Location
    chunks: int
    missing: int
    rows: int
    gigabytes: float
    hours: float


def plan(run: RunFile) -> Iterator[Stage]:
    """Yield the stages of a run with what is missing of each."""
    location = run.store("photometry")
    try:
        store = photometry.open(location)
        rows, chunks, missing = store.n_rows, store.n_chunks, len(store.missing())
    except FileNotFoundError:
        rows = sum(map(count, inputs.expand(run.input, run.location)))
        chunks = missing = math.ceil(rows / run.inference.rows_per_shard)
    n_bands = len(run.survey_definition.bands)
    yield Stage("ingest", location, chunks, missing, rows, rows * (9 * n_bands + 24) / 1e9, rows / 1e5 / 3600)

    n = run.simulation.n_galaxies
    location = run.store("training")
    try:
        training = training_set.open(location)
        chunks, missing = training.n_chunks, len(training.missing())
    except FileNotFoundError:
        chunks = missing = math.ceil(n / run.simulation.rows_per_chunk)
    hours = n * missing / max(chunks, 1) / (_SIMULATED_PER_CORE[run.simulation.engine] * run.engines.ray.actors) / 3600
    yield Stage("simulate", location, chunks, missing, n, 4 * n * (len(COORDINATES) + n_bands) / 1e9, hours)

    location = run.store("model")
    done = model_store.is_finished(location)
    _, transforms, hidden = run.flow.resolved()
    weights = transforms * (2 * hidden**2 + hidden * (2 * len(COORDINATES) + 3 * n_bands + 30))
    presentations = run.training.steps * run.training.batch
    cores = run.training.workers * run.training.threads
    hours = 6e-6 * weights * presentations / (_TRAINED_MFLOP_PER_SECOND_CORE * cores) / 3600
    yield Stage("train", location, 1, 0 if done else 1, presentations, 4 * weights / 1e9, 0.0 if done else hours)

    location = run.store("catalog")
    chunks = missing = math.ceil(rows / run.inference.rows_per_shard)
    if location.exists():
        missing = 0 if catalog.repository(location).list_tags() else missing
    n_columns = len(columns(run.survey_definition.labels, run.inference.certificate))
    size = 4 * n_columns * (len(QUANTILES) + 2) + 9 * n_bands + 80 + 2 * len(COORDINATES) * run.inference.keep_draws
    hours = rows * run.inference.n_draws / (_DRAWS_PER_CORE * run.engines.dask.workers) / 3600
    yield Stage("infer", location, chunks, missing, rows, rows * size / 1e9, hours if missing else 0.0)
