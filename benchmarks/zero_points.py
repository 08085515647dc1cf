"""Zero points: offsets injected into 10,000 mock galaxies of the model that comes along, and what is found of them.

python benchmarks/zero_points.py [rows] [seed of the mocks] [injected: one step from there, in place of steps from zero]
"""

import sys

import numpy as np
import torch

from jobs.telemetry.progress import Clock
from sedflow_dist import load_model
from sedflow_dist.inference import zero_points
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.inference.zero_points import Assumptions
from sedflow_dist.validation.mock_galaxies import mock_galaxies

INJECTED = np.array([0.05, -0.03, 0.01, 0.02, -0.04])  # mag
DRAWS = 256


def found(posterior, photometry, assumptions, start):
    """Solve until nothing moves by 0.5 mmag; once only, where it starts at what is to be found."""
    offset, flags, rows = start, np.zeros(len(photometry), np.uint32), np.arange(len(photometry))
    while True:
        equation = zero_points.equation(posterior, photometry, flags, rows, offset, assumptions)
        solution = zero_points.solve(equation, offset, posterior.flow.spec.labels, assumptions)
        moved, offset = np.abs(solution.offset - offset).max(), solution.offset
        if moved < 5e-4 or start.any():
            return solution, equation


def main(n: int, seed: int, start: np.ndarray) -> None:
    torch.set_num_threads(1)
    flow = load_model("sdss")
    right = mock_galaxies(flow, n, seed).photometry
    photometry = zero_points.corrected(right, -INJECTED)
    posterior = Posterior(flow, seed=7, n_draws=DRAWS)
    for population in ("prior", "unknown"):
        clock = Clock()
        solution, equation = found(posterior, photometry, Assumptions(population=population), start)
        wanted = INJECTED - INJECTED.mean()
        wanted = wanted - (wanted @ solution.held.T) @ solution.held
        print(
            f"population {population}: {equation.rows:,} rows ({zero_points.described(equation.left_out)}), {clock.seconds:.0f} s"
        )
        for name, values in (
            ("injected", wanted), ("found", solution.offset), ("error", solution.statistical), ("off by", solution.offset - wanted),
        ):  # fmt: skip
            print(f"  {name:<9}" + "".join(f"{value:+9.4f}" for value in values), flush=True)
        print(f"  held {solution.held.round(2).tolist()}, scatter {solution.scatter.round(3).tolist()}", flush=True)


if __name__ == "__main__":
    said = dict(zip(("n", "seed", "start"), sys.argv[1:], strict=False))
    main(
        int(said.get("n", 10_000)),
        int(said.get("seed", 5)),
        INJECTED - INJECTED.mean() if "start" in said else np.zeros(5),
    )
