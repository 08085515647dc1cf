"""From one worker to two: simulate, infer and MCMC as a user runs them, start and end included, on local storage.

Arguments: a folder, and which of simulate, infer, mcmc (none: all).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from common import report

from cluster.settings import DaskSettings, RaySettings
from jobs import mcmc
from jobs.config import run_file, shipped
from jobs.config.run_file import RunFile
from jobs.config.sections import MCMC, Inference
from jobs.infer import infer
from jobs.ingest.job import ingest
from jobs.simulate.job import simulate
from jobs.simulate.ssp import build_for
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference.settings import Routing
from storage_schemas import model as model_store
from storage_schemas.backend.location import Location

MODEL, SEED = "sdss", 1
SIMULATED, CHAINS = 8_000_000, 64
ANSWERS = Inference(n_draws=512, rows_per_shard=512, routing=Routing(share=0))
CHAIN = MCMC(sampler="emcee")  # 30 walkers, 10,000 steps


def simulation(root: Path) -> Callable[[int], object]:
    """The demo's simulations, more of them."""
    run = RunFile.load("demo", root=str(root))
    build_for(run)
    run = run.model_copy(update={"simulation": run.simulation.model_copy(update={"n_galaxies": SIMULATED})})

    def work(workers: int) -> object:
        there = {"root": str(root / f"simulated{workers}"), "ssp": run.ssp.model_copy(update={"source": f"{root}/ssp"})}
        engines = run.engines.model_copy(update={"ray": RaySettings(actors=workers)})
        return simulate(run.model_copy(update={**there, "engines": engines}))

    return work


def inference(root: Path) -> Callable[[int], object]:
    """10,000 real galaxies, rows that need chains left unanswered."""
    source = Location.parse(root / "photometry")
    ingest("kcorrect-sample", run_file.survey("sdss"), source, ANSWERS.rows_per_shard)
    return lambda workers: infer(
        source,
        shipped.model(MODEL),
        Location.parse(root / f"catalog{workers}"),
        ANSWERS,
        SEED,
        DaskSettings(workers=workers),
    )


def chains(root: Path) -> Callable[[int], object]:
    """Simulated galaxies of the model that comes along, by emcee."""
    where = shipped.model(MODEL)
    data = mcmc.mocks(TrainedModel.from_bytes(*model_store.read(where)), CHAINS, SEED)
    return lambda workers: mcmc.sample(
        data, where, Location.parse(root / f"chains{workers}"), CHAIN, SEED, RaySettings(actors=workers)
    )


def main() -> None:
    root, wanted = Path(sys.argv[1]), sys.argv[2:] or ["simulate", "infer", "mcmc"]
    for name, prepare in (("simulate", simulation), ("infer", inference), ("mcmc", chains)):
        if name not in wanted:
            continue
        work, seconds = prepare(root), {}
        for workers in (2, 1):
            start = time.perf_counter()
            work(workers)
            seconds[workers] = time.perf_counter() - start
        report(
            f"{name}, one worker and two",
            f"{seconds[1]:.1f} s, {seconds[2]:.1f} s: {seconds[1] / seconds[2]:.2f} times",
        )


if __name__ == "__main__":
    main()
