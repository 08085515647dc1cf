"""simulate: an SSP table and a prior in, a training set of noiseless shapes out. Ray actors fill its chunks."""

from __future__ import annotations

import torch

from cluster import ray_engine
from jobs.config.run_file import RunFile
from jobs.simulate import fsps_direct
from jobs.simulate.ssp import build_for, load
from jobs.telemetry import events
from jobs.telemetry.events import Chunk
from jobs.telemetry.progress import Clock, bar, say
from sedflow_dist import curves
from sedflow_dist.simulation.shapes import draw_shapes
from sedflow_dist.sps.galaxy_model import GalaxyModel
from storage_schemas import training_set
from storage_schemas.backend.chunked import ChunkedStore
from storage_schemas.backend.lease import Lease, hold
from storage_schemas.backend.location import Location
from storage_schemas.backend.ours import require_free


def galaxy_model(run: RunFile) -> GalaxyModel:
    """The galaxy model of a run."""
    table, model = load(run.store("ssp")), run.model
    bands, composition = run.survey_definition.bands, model.composition()
    return GalaxyModel(table, bands, model.redshift[1], composition, model.birth_cloud_age)


class Simulator:
    """An actor: owns a galaxy model, fills chunks of a training set."""

    def __init__(self, run: RunFile) -> None:
        torch.set_num_threads(1)
        self.run = run
        self.model = galaxy_model(run)
        self.store = training_set.open(run.store("training"), "r+")

    def fill(self, chunk: int) -> Chunk:
        """Simulate and write one chunk."""
        clock = Clock()
        rows = self.store.rows(chunk)
        shapes = draw_shapes(
            self.model, self.run.model.redshift, self.run.seed, "simulate", rows.start, rows.stop - rows.start
        )  # fmt: skip
        arrays = {name: getattr(shapes, name).numpy() for name in training_set.NAMES}
        self.store.write(chunk, arrays)
        return Chunk.of(chunk, arrays, clock.seconds)


def create(run: RunFile) -> ChunkedStore:
    """Create or reopen the run's training set."""
    table = build_for(run)
    survey = run.survey_definition
    settings = {
        "seed": run.seed, "bands": curves.names(survey.bands), "ssp": table.checksum, **run.model.model_dump(mode="json"),
    }  # fmt: skip
    if run.simulation.engine == "fsps":
        settings["engine"] = "fsps"
    return training_set.create(
        run.store("training"), run.simulation.n_galaxies, run.simulation.rows_per_chunk, run.model.space.shapes,
        survey.labels, settings,
    )  # fmt: skip


@events.job("simulate")
def simulate(run: RunFile) -> Location:
    """Fill what is missing of the run's training set; return its location.

    Raises:
        RuntimeError: another process fills it.
    """
    where = run.store("training")
    require_free(where, training_set.KIND)
    with hold(where, "training set") as lease:
        return _simulate(run, lease)


def _simulate(run: RunFile, lease: Lease) -> Location:
    store = create(run)
    missing = store.missing()
    if not missing:
        say("simulate", f"{store.n_rows:,} galaxies are there already: {store.location}")
        return store.location
    clock = Clock()
    done = store.n_rows - store.chunks.count(missing)
    with ray_engine.session(run.engines.ray), bar("simulate", store.n_rows, "galaxies", done) as progress:
        lease.check()
        if run.simulation.engine == "fsps":
            fsps_direct.fill(run, store, missing, progress.update)
        else:
            ray_engine.map_actors(Simulator, (run,), "fill", missing, run.engines.ray, progress.wrote)
    rate = (store.n_rows - done) / clock.seconds
    say("simulate", f"{store.n_rows - done:,} galaxies in {clock.seconds:.0f} s ({rate:,.0f}/s): {store.location}")
    return store.location
