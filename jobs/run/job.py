"""run: a run file in, all its stores filled out. What is there already is not made again."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from cluster import ray_engine
from jobs.config.run_file import RunFile
from jobs.ingest.job import ingest_of
from jobs.likelihood import learn_likelihood
from jobs.run.plan import refuse_what_cannot_fit
from jobs.run.reprocess import infer_of, writing
from jobs.simulate.job import simulate
from jobs.simulate.ssp import build_for
from jobs.telemetry import events
from jobs.train import train
from jobs.validate.job import validate
from storage_schemas import model


@events.job("run")
def run_all(run: RunFile) -> dict[str, Any]:
    """Run every stage; return what `infer` counted."""
    refuse_what_cannot_fit(run)
    with writing(run) as (of_photometry, of_catalog):
        build_for(run)
        ingest_of(run, of_photometry)
        with ray_engine.session(run.engines.ray) if not model.is_finished(run.store("model")) else nullcontext():
            simulate(run)
            train(run)
        if run.inference.learned_likelihood:
            learn_likelihood(run)
        validate(run)
        return infer_of(run, of_catalog)
