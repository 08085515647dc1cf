"""MCMC: seconds of one core for SEDflow's set-up, 30 walkers and 10,000 steps of zeus, galaxies side by side."""

from __future__ import annotations

import sys
import time

import torch
from common import report

from jobs.config import shipped
from jobs.mcmc import BLOCK
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference import lockstep, mcmc
from sedflow_dist.inference.mcmc import Segment, State, Target
from sedflow_dist.validation.mock_galaxies import mock_galaxies
from storage_schemas import model

WALKERS, STEPS, MEASURED = 30, 10_000, 200


def main() -> None:
    torch.set_num_threads(1)
    flow = TrainedModel.from_bytes(*model.read(shipped.model(sys.argv[1] if len(sys.argv) > 1 else "sdss")))
    mocks = mock_galaxies(flow, BLOCK, 1)
    target = Target(flow.redshift_model, mocks.photometry)
    for sampler in mcmc.ENSEMBLES:
        starts = [State(target.start(i, WALKERS, 1, i)) for i in range(BLOCK)]

        def task(start: State, sampler: str = sampler):
            return lambda ask: mcmc.segment(sampler, ask, start, MEASURED, 10, 1)

        begin = time.process_time()  # of this process: others may take their turns beside it
        found: list[Segment] = lockstep.run([task(start) for start in starts], target)
        seconds = (time.process_time() - begin) / BLOCK / MEASURED * STEPS
        evaluations = sum(part.evaluations for part in found) / BLOCK / MEASURED * STEPS
        report(
            f"{sampler}, {WALKERS} x {STEPS:,}, a galaxy, one core",
            f"{seconds:.1f} s, {evaluations / 1e6:.2f} M likelihoods",
        )


if __name__ == "__main__":
    main()
