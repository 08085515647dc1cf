"""plan and status: what a run will do and what it takes, and what is done of it, read from its stores alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dask.utils import format_bytes, parse_bytes

from cluster.settings import DaskSettings
from jobs.columns import INFERRED
from jobs.config.run_file import RunFile
from jobs.config.sections import Inference, Ingest
from jobs.containers.formats import count
from jobs.ingest import inputs
from sedflow_dist.flow import features
from sedflow_dist.flow.model_spec import dimensions
from sedflow_dist.inference.summary import COLUMNS, QUANTILES
from sedflow_dist.inference.working_set import MEMORY
from sedflow_dist.parameters import ParameterSpace
from sedflow_dist.sps import derived, unmodelled
from storage_schemas import model as model_store
from storage_schemas import photometry, training_set
from storage_schemas.backend.location import Location
from storage_schemas.catalog import schema as catalog

# Measured on two cores of an AMD EPYC (benchmarks/RESULTS.md); hours are good to a factor of two.
_INGESTED_PER_CORE = 50_000.0
_SIMULATED_PER_CORE = {"table": 60_000.0, "fsps": 50.0}
_TRAINED_MFLOP_PER_SECOND_CORE = 30_000.0
_WEIGHED_DRAWS_PER_CORE = 45_000.0
_PLAIN_DRAWS_PER_CORE = 400_000.0
_ROUTED_SHARE, _ROUTED_SECONDS = 0.005, 12.0  # rows of real galaxies that need MCMC, and what one takes of a core

# Bytes of a worker.
_PYTHON = 600_000_000  # with all libraries
_MODEL = 400_000_000  # a flow, and the galaxy model's tables
_CHOSEN_BAND = 100_000_000  # tables of a band that columns are chosen in
_PER_DRAW = 8_000  # of one galaxy, with everything that is computed of it
_CHAINS = 600_000_000  # 32 galaxies side by side
_COPIES = 6  # of a block of rows: as it is read, as it is worked on, and as it is written

# Requests to an object store.
#: Requests of a shard for the digests of what it reads, and for identifiers.
_CHECKED = 18
_OPEN = 10  # to open a store: its metadata
_PER_COMMIT = 30


@dataclass(frozen=True)
class Stage:
    """A job of a run: chunks in all and missing, rows, and what it takes: bytes read and written, requests to the object
    store, bytes of memory a worker, and hours."""

    name: str
    location: Location
    chunks: int
    missing: int
    rows: int
    read: float
    written: float
    requests: int
    memory: int
    hours: float


def plan(run: RunFile, rows: int | None = None) -> Iterator[Stage]:
    """Yield the stages of a run with what is missing of each; with ``rows``, as if the input had so many and nothing were
    there."""
    ingested = _ingest(run, rows)
    yield from (ingested, _simulate(run), _train(run))
    out = run.store("catalog")
    published = not rows and out.exists() and bool(catalog.repository(out).list_tags())
    yield _infer(run, ingested.rows, published)


def refuse_what_cannot_fit(run: RunFile) -> None:
    """Check that Dask's workers have the memory that the run's settings ask for.

    Raises:
        ValueError: they have not; says what is needed, what there is, and which setting would fit.
    """
    refuse_ingest(len(run.survey_definition.bands), run.ingest, run.engines.dask)
    refuse_infer(run.model.space, run.survey_definition.labels, run.inference, run.engines.dask)


def refuse_ingest(n_bands: int, settings: Ingest, dask: DaskSettings) -> None:
    """The same for the workers of `ingest` alone: with too little they are ended and started again, for ever."""
    allowed, row = parse_bytes(dask.memory_limit), _photometry_row(n_bands) * _COPIES
    needed = _PYTHON + row * settings.rows_per_piece
    if needed > allowed:
        _refuse("ingest", needed, allowed, "ingest.rows_per_piece", settings.rows_per_piece, (allowed - _PYTHON) // row)


def refuse_infer(space: ParameterSpace, labels: Sequence[str], settings: Inference, dask: DaskSettings) -> None:
    """The same for the workers of `infer` alone, of a survey or model with bands of these labels."""
    allowed, needed = parse_bytes(dask.memory_limit), inference_memory(space, labels, settings)
    row = _catalog_row(space, labels, settings) * _COPIES
    if needed > allowed:
        rest = needed - row * settings.rows_per_shard
        if rest < allowed:
            _refuse(
                "infer", needed, allowed, "inference.rows_per_shard", settings.rows_per_shard, (allowed - rest) // row
            )
        fixed = needed - _PER_DRAW * _most_draws(settings)
        most = (allowed - fixed) // _PER_DRAW // max(_most_draws(settings) // settings.n_draws, 1)
        _refuse("infer", needed, allowed, "inference.n_draws", settings.n_draws, most)


def _refuse(stage: str, needed: int, allowed: int, setting: str, value: int, fits: int) -> None:
    what_fits = f"what fits is at most {fits:,}" if fits > 0 else "nothing fits: give workers more"
    raise ValueError(
        f"{stage} would take {format_bytes(needed)} of memory a worker and engines.dask.memory_limit is "
        f"{format_bytes(allowed)}; of {setting}, now {value:,}, {what_fits}"
    )


def inference_memory(space: ParameterSpace, labels: Sequence[str], settings: Inference) -> int:
    """Return the most bytes that a worker of `infer` holds: they follow from the settings, not from the number of rows."""
    chains = _CHAINS if settings.certificate and settings.routing.share else 0
    draws = max(2 * MEMORY, _PER_DRAW * _most_draws(settings))
    models = _MODEL + _CHOSEN_BAND * (len(settings.predict) + (settings.selection.band is not None))
    return _PYTHON + models + draws + chains + _COPIES * settings.rows_per_shard * _catalog_row(space, labels, settings)


def _most_draws(settings: Inference) -> int:
    return settings.n_draws * (settings.routing.more_draws if settings.certificate else 1)


def _photometry_row(n_bands: int) -> int:
    return 9 * n_bands + 60


def _catalog_row(space: ParameterSpace, labels: Sequence[str], settings: Inference) -> int:
    n_columns = len(derived.columns(space, labels, settings.certificate)) + len(settings.quantities(labels))
    sizes = {"param": n_columns, "quantile": len(QUANTILES), "draw": settings.keep_draws,
             "coordinate": len(space.coordinates), "band": len(labels)}  # fmt: skip
    return sum(column.row_bytes(sizes) for column in COLUMNS) + _photometry_row(len(labels))


def _ingest(run: RunFile, rows: int | None) -> Stage:
    location, row = run.store("photometry"), _photometry_row(len(run.survey_definition.bands))
    try:
        store = None if rows else photometry.open(location)
    except FileNotFoundError:
        store = None
    if store:
        rows, chunks, missing = store.n_rows, store.n_chunks, len(store.missing())
    else:
        rows = rows or sum(map(count, inputs.expand(run.input, run.location, run.storage.access)))
        chunks = missing = math.ceil(rows / run.inference.rows_per_shard)
    part, n_arrays = missing / max(chunks, 1), len(photometry.ARRAYS) + 2
    pieces = math.ceil(rows / run.ingest.rows_per_piece)
    requests = part * (pieces * (_OPEN + 3 * n_arrays) + chunks * n_arrays)
    memory = _PYTHON + _COPIES * row * min(run.ingest.rows_per_piece, rows)
    hours = part * rows / (_INGESTED_PER_CORE * run.engines.dask.workers) / 3600
    return Stage(
        "ingest",
        location,
        chunks,
        missing,
        rows,
        part * rows * row,
        2 * part * rows * row,
        int(requests),
        memory,
        hours,
    )


def _simulate(run: RunFile) -> Stage:
    location, n = run.store("training"), run.simulation.n_galaxies
    try:
        store = training_set.open(location)
        chunks, missing = store.n_chunks, len(store.missing())
    except FileNotFoundError:
        chunks = missing = math.ceil(n / run.simulation.rows_per_chunk)
    part = missing / max(chunks, 1)
    written = part * n * 4.0 * (len(run.model.space.coordinates) + len(run.survey_definition.bands))
    hours = part * n / (_SIMULATED_PER_CORE[run.simulation.engine] * run.engines.ray.actors) / 3600
    return Stage(
        "simulate", location, chunks, missing, n, 0.0, written, _OPEN + missing * (len(training_set.NAMES) + 1),
        _PYTHON + _MODEL, hours,
    )  # fmt: skip


def _train(run: RunFile) -> Stage:
    location, n_bands = run.store("model"), len(run.survey_definition.bands)
    part = 0 if model_store.is_finished(location) else 1
    amplitude = run.flow.amplitude
    n_features = features.size(run.flow.encoders, n_bands)
    weights = run.flow.spec().n_weights(dimensions(amplitude, run.model.space), n_features)
    presentations = run.training.steps * run.training.batch
    cores = run.training.workers * run.training.threads
    hours = part * 6e-6 * weights * presentations / (_TRAINED_MFLOP_PER_SECOND_CORE * cores) / 3600
    seen = run.simulation.n_galaxies * 4 * (len(run.model.space.coordinates) + n_bands)
    checkpoints = run.training.steps // run.training.validate_every
    return Stage(
        "train", location, 1, part, presentations, part * seen, part * 4.0 * weights * (1 + 3 * checkpoints),
        part * (_OPEN + 10 * checkpoints), _PYTHON + _MODEL + 3 * seen, hours,
    )  # fmt: skip


def _infer(run: RunFile, n: int, published: bool) -> Stage:
    settings, labels, space = run.inference, run.survey_definition.labels, run.model.space
    chunks = math.ceil(n / settings.rows_per_shard)
    missing = 0 if published else chunks
    part = missing / max(chunks, 1)
    draws = _WEIGHED_DRAWS_PER_CORE if settings.certificate else _PLAIN_DRAWS_PER_CORE
    seconds = settings.n_draws / draws
    if settings.certificate:
        seconds += min(_ROUTED_SHARE, settings.routing.share) * _ROUTED_SECONDS
    read = len(photometry.ARRAYS) + 2
    requests = missing * (_OPEN + read + len(catalog.arrays(INFERRED, {})) + _CHECKED)
    requests += math.ceil(missing / settings.commit_every) * _PER_COMMIT
    return Stage(
        "infer", run.store("catalog"), chunks, missing, n, part * n * _photometry_row(len(labels)),
        part * n * _catalog_row(space, labels, settings), requests, inference_memory(space, labels, settings),
        part * n * seconds / run.engines.dask.workers / 3600,
    )  # fmt: skip


def lines(stages: Iterator[Stage]) -> Iterator[str]:
    """Yield a table of stages, line by line."""
    yield (f"{'stage':<9} {'chunks':>9} {'missing':>9} {'rows':>15} {'read':>11} {'written':>11} {'requests':>13} "
           f"{'a worker':>11} {'hours':>9}  store")  # fmt: skip
    for stage in stages:
        yield (f"{stage.name:<9} {stage.chunks:>9,} {stage.missing:>9,} {stage.rows:>15,} {format_bytes(int(stage.read)):>11} "
               f"{format_bytes(int(stage.written)):>11} {stage.requests:>13,} {format_bytes(stage.memory):>11} "
               f"{stage.hours:>9,.2f}  {stage.location}")  # fmt: skip


def left_out(run: RunFile) -> list[str]:
    """Return what the galaxy model lacks of the light that the run's bands see at its redshifts, a line each."""
    gas = ("nebular",) if run.ssp.source == "fsps" and run.ssp.fsps_settings().nebula is not None else ()
    return unmodelled.warnings(run.survey_definition.bands, run.model.redshift, (*run.model.components, *gas))
