"""run: a run file in, all its stores filled out. What is there already is not made again."""

from __future__ import annotations

from typing import Any

from cluster import ray_engine
from jobs.build_ssp import build_for
from jobs.infer import infer
from jobs.ingest import ingest
from jobs.runfile import RunFile
from jobs.simulate import simulate
from jobs.train import train
from jobs.validate import validate


def run_all(run: RunFile) -> dict[str, Any]:
    """Run every stage; return what `infer` counted."""
    build_for(run)
    ingest(
        run.input,
        run.survey_definition,
        run.store("photometry"),
        run.inference.rows_per_shard,
        run.ingest,
        run.engines.dask,
    )
    with ray_engine.session(run.engines.ray):
        simulate(run)
        train(run)
    validate(run)
    return infer(
        run.store("photometry"), run.store("model"), run.store("catalog"), run.inference, run.seed, run.engines.dask
    )
