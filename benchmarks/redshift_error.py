"""Redshifts with errors: mean and width of the mass against a joint inference by brute force, and against the distance alone.

Argument: a model's location (desi). Mock galaxies of the model; brute force: each at 33 exact redshifts across four standard
errors, 1,024 draws at each, weighed by the Gaussian of the redshift and the evidence there. By distance alone: the posterior at
the observed redshift, widened by 2 sigma / (z ln 10).
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import torch
from common import report

from sedflow_dist import TrainedModel, load_model
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.validation.mock_galaxies import mock_galaxies

SEED, N_DRAWS, N_GRID, EACH = 1, 2048, 33, 1024
GALAXIES = 6
ERRORS = (0.005, 0.05, 0.2)  # of the redshift


def moments(mass: torch.Tensor, weight: torch.Tensor) -> np.ndarray:
    """Return mean and width."""
    mean = (weight * mass).sum() / weight.sum()
    return np.array([float(mean), float(((weight * (mass - mean) ** 2).sum() / weight.sum()).sqrt())])


def with_error(one: Photometry, error: float) -> Photometry:
    """Return a galaxy whose redshift has an error, a fraction of it."""
    return replace(one, redshift_sigma=error * one.redshift)


def brute_force(model: TrainedModel, one: Photometry, row: int, error: float) -> np.ndarray:
    """Return mean and width of the log mass by a grid of exact redshifts."""
    t = torch.linspace(-3, 3, N_GRID)  # the tails hold a thousandth of the variance
    grid = replace(one[[0] * N_GRID], redshift=one.redshift * (1 + error * t), redshift_sigma=torch.zeros(N_GRID))
    posterior = Posterior(model, SEED + 1, EACH)
    draws = posterior.draw(grid, np.arange(N_GRID) + 1000 * row, EACH)
    at = posterior.columns.index("log_mstar")
    log_part = draws.log_evidence - 0.5 * t.double() ** 2
    weight = (log_part - log_part.max()).exp().unsqueeze(1) * draws.weight
    return moments(draws.values[..., at].double(), weight)


def main() -> None:
    torch.set_num_threads(1)
    model = load_model(sys.argv[1] if len(sys.argv) > 1 else "desi")
    posterior, galaxies = Posterior(model, SEED, N_DRAWS), mock_galaxies(model, 200, SEED).photometry
    keep = galaxies.redshift * 1.9 < model.reach
    galaxies = galaxies[keep][np.arange(GALAXIES)]
    at = posterior.columns.index("log_mstar")
    for error in ERRORS:
        found, force, plain, fraction, exact = [], [], [], [], []
        for i in range(GALAXIES):
            one, row = galaxies[i], np.array([i])
            known = posterior.draw(one, row, N_DRAWS)
            draws = posterior.draw(with_error(one, max(error, 0.005001)), row, N_DRAWS)
            found.append(moments(draws.values[0, :, at].double(), draws.weight[0]))
            force.append(brute_force(model, one, i, error))
            mean, width = moments(known.values[0, :, at].double(), known.weight[0])
            plain.append((mean, math.hypot(width, 2 * error / math.log(10))))
            exact.append(width)
            fraction.append((float(draws.effective_fraction), float(known.effective_fraction)))
        (mean, width), (rough_mean, rough) = ((np.array(x) - force).T for x in (found, plain))
        true = np.array(force)[:, 1]
        report(
            f"error {error:.1%}: width at one redshift; by brute force",
            f"{np.median(exact):.4f}; {np.median(true):.4f} dex",
        )
        report(
            "mean of ours less brute force, in widths: median, largest",
            f"{np.median(mean / true):+.3f}, {np.abs(mean / true).max():.3f}",
        )
        report(
            "width over brute force's less 1: median, largest",
            f"{np.median(width / true):+.3f}, {np.abs(width / true).max():.3f}",
        )
        report(
            "of the distance alone: mean, width, medians",
            f"{np.median(rough_mean / true):+.3f}, {np.median(rough / true):+.3f}",
        )
        report("and largest", f"{np.abs(rough_mean / true).max():.3f}, {np.abs(rough / true).max():.3f}")
        report("left out altogether: width, median", f"{np.median(np.array(exact) / true) - 1:+.3f}")
        ours, theirs = np.median(fraction, 0)
        report("effective fraction: ours; at one redshift", f"{ours:.3f}; {theirs:.3f}")


if __name__ == "__main__":
    main()
