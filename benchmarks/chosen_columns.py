"""Rate of inference with and without each kind of chosen columns, galaxies/s of one core, in one run: docs/columns.md.

OMP_NUM_THREADS=1 python benchmarks/chosen_columns.py [galaxies] [draws]: the shipped model on mock galaxies of its own; blocks of
galaxies with each choice take turns, and processor time counts, so that what else the machine does falls on all alike.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import torch

from sedflow_dist import load_model
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.sps.chosen import Chosen
from sedflow_dist.validation.mock_galaxies import mock_galaxies

BLOCK = 10
PARTS: dict[str, dict[str, Any]] = {
    "predict, two bands": {"predict": ["decam2014-g", "decam2014-r"]},
    "rest_frame, g and r at 0.1, with K-corrections": {
        "rest_frame": {"bands": ["g", "r"], "redshift": 0.1, "observed": ["g", "r"]}
    },
    "selection": {"selection": {"band": "r", "magnitude": 20.175}},
    "star_formation_history, six bins": {"star_formation_history": [0, 0.03, 0.1, 0.3, 1, 3, 13.8]},
    "specific_rates": {"specific_rates": True},
    "colours, observed": {"colours": ["observed"]},
    "colours, unattenuated": {"colours": ["unattenuated"]},
}
PARTS["all of them"] = {key: value for part in PARTS.values() for key, value in part.items()}
PARTS["all of them"]["colours"] = ["observed", "unattenuated"]


def main(n_galaxies: int = 200, n_draws: int = 2048) -> None:
    """Print a table."""
    torch.set_num_threads(1)
    flow = load_model("sdss")
    photometry = mock_galaxies(flow, n_galaxies, 1).photometry
    choices = {"none": Chosen(), **{name: Chosen.model_validate(part) for name, part in PARTS.items()}}
    made = {name: Posterior(flow, 1, n_draws, chosen=chosen) for name, chosen in choices.items()}
    seconds = dict.fromkeys(made, 0.0)
    for start in range(-BLOCK, n_galaxies, BLOCK):  # the first block warms up
        rows = slice(max(start, 0), max(start, 0) + BLOCK)
        for name, posterior in made.items():
            begun = time.process_time()
            posterior.summarise(photometry[rows], np.zeros(len(photometry[rows]), np.uint32), rows.start)
            seconds[name] += (time.process_time() - begun) * (start >= 0)
    for name, posterior in made.items():
        more = len(posterior.columns) - len(made["none"].columns)
        print(f"{name}: {more} columns, {n_galaxies / seconds[name]:.1f} galaxies/s, "
              f"{seconds[name] / seconds['none']:.2f} times the time, batch {posterior.batch}")  # fmt: skip


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
