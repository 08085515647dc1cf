"""Inference: galaxies per second and core of a trained model, and where the time goes. Argument: a model's location."""

from __future__ import annotations

import sys

import numpy as np
import torch
from common import best_of, peak_memory_mb, report

from jobs.config import shipped
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.parameters import probit
from sedflow_dist.validation.mock_galaxies import mock_galaxies
from storage_schemas import model

GALAXIES, DRAWS = 64, 1024


def main() -> None:
    torch.set_num_threads(1)
    where = sys.argv[1] if len(sys.argv) > 1 else "sdss"
    flow = TrainedModel.from_bytes(*model.read(shipped.model(where)))
    posterior = Posterior(flow, 1, DRAWS)
    mocks = mock_galaxies(flow, GALAXIES, 1)
    seconds = best_of(3, lambda: posterior.summarise(mocks.photometry, np.zeros(GALAXIES, np.uint32), 0))
    base = probit(posterior.base_points(np.arange(GALAXIES), DRAWS)[..., : flow.dimensions])
    x = flow.features(mocks.photometry)
    sampling = best_of(3, lambda: flow.network.sample_with_log_prob(base, x))
    report(f"{DRAWS} draws a galaxy, weighed and summarised, one core", f"{GALAXIES / seconds:,.1f} galaxies/s")
    report("share of the draws themselves", f"{100 * sampling / seconds:.0f} %")
    report("certificate and summary over draws", f"{(seconds - sampling) / sampling:.2f}")
    report("peak memory", f"{peak_memory_mb():,.0f} MB")


if __name__ == "__main__":
    main()
