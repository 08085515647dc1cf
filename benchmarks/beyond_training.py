"""The model desi beyond its training: redshifts to 1, r to 21.5, three bands alone; who answers, and are ranks uniform?

Arguments: galaxies a cell (120), a folder for its arrays (none). Mock galaxies of the model's own prior and noise, selected at
r 20.2 to 21.5 (it was trained to 20.2) and inferred by the default cascade, each cell a shard. Ranks of the true mass are among
256 kept draws a row.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import scipy
import torch
from common import report

from sedflow_dist import TrainedModel, load_model
from sedflow_dist.inference.cascade import Router
from sedflow_dist.inference.settings import InferenceSettings
from sedflow_dist.inference.summary import Method, Summary
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.simulation.mocks import Mocks
from sedflow_dist.validation.mock_galaxies import mock_galaxies

SEED, N_KEPT, N_GALAXIES = 1, 256, 120
FAINTER = (20.2, 21.5)  # observed r [mag]
REDSHIFTS = ((0.0, 0.6), (0.6, 0.8), (0.8, 1.0))
THREE = (("g", "r", "z"), ("r", "z", "w1"), ("r", "w1", "w2"))
#: Flags that say that an answer need not be the exact posterior.
UNSURE = Flag.LOW_EFFECTIVE_FRACTION | Flag.NOT_CONVERGED | Flag.FAILED


def ranks(summary: Summary, mocks: Mocks, model: TrainedModel) -> np.ndarray:
    """Return ranks of the true mass among the kept draws, (galaxy,)."""
    low, high = model.space.amplitude.prior.range
    true = (mocks.log_mstar.numpy() - low) / (high - low)
    return (summary.draws[:, :, 0] < true[:, None] * 2**16).mean(1)


def cell(model: TrainedModel, redshift: tuple[float, float], three: bool, n: int) -> dict[str, np.ndarray]:
    """Infer ``n`` galaxies of a bin of redshift and print what came out."""
    labels = model.spec.labels
    patterns = [tuple(label in bands for label in labels) for bands in THREE] if three else []
    each = n // len(patterns) if three else n
    mocks = mock_galaxies(model, each, SEED, patterns, redshift, FAINTER)
    mocks = mocks[each if three else 0 :]  # type: ignore[misc]
    start, router = time.process_time(), Router.of(model, SEED, InferenceSettings(keep_draws=N_KEPT))
    summary = router.summarise(mocks.photometry, np.zeros(len(mocks), np.uint32), 0)
    seconds = time.process_time() - start
    name = f"z {redshift[0]} to {redshift[1]}, {'three bands' if three else 'all bands'}"
    found = {
        "rank": ranks(summary, mocks, model),
        "true": mocks.log_mstar.numpy(),
        "z": mocks.photometry.redshift.numpy(),
    }
    kept = ("method", "flags", "effective_fraction", "effective_draws", "pareto_k", "rhat", "n_bands", "p_value")
    found |= {key: getattr(summary, key) for key in kept} | {"median": summary.quantiles[:, 0, 2]}
    tell(name, found)
    report(f"{name}: CPU seconds a galaxy", f"{seconds / len(mocks):.2f}")
    return found


def tell(name: str, found: dict[str, np.ndarray]) -> None:
    """Print who answered a cell, how well, and whether ranks are uniform."""
    method, flags = found["method"], found["flags"]
    unsure, answered = (flags & int(UNSURE)) != 0, method != Method.NONE
    shares = [f"{np.mean((method == m) & ~unsure):.3f} {m.name}" for m in Method]
    report(f"{name}: answered, not flagged as unsure, by", ", ".join(shares))
    report(f"{name}: answered and unsure; none", f"{np.mean(answered & unsure):.3f}; {np.mean(~answered):.3f}")
    counts = {flag.name: int(np.sum((flags & int(flag)) != 0)) for flag in Flag}
    report(f"{name}: flags", ", ".join(f"{n} {flag}" for flag, n in counts.items() if n))
    k = found["pareto_k"]
    sure = answered & ~unsure
    for part, rows in {
        "sure": sure, "of weights": sure & (method <= Method.MORE_DRAWS), "of chains": sure & (method > Method.MORE_DRAWS),
        "sure, weights, k > 0.7": sure & (method <= Method.MORE_DRAWS) & (k > 0.7),
        "sure, weights, < 100 draws": sure & (method <= Method.MORE_DRAWS) & (found["effective_draws"] < 100),
        "unsure": answered & unsure,
    }.items():  # fmt: skip
        if rows.sum() > 4:
            test = scipy.stats.kstest(found["rank"][rows], "uniform")
            mean = (found["rank"][rows].mean() - 0.5) * np.sqrt(12 * rows.sum())
            report(
                f"{name}: ranks, {part}",
                f"n {rows.sum()}, KS {test.statistic:.3f}, p {test.pvalue:.3f}, mean {mean:+.2f} sigma",
            )
    report(
        f"{name}: effective fraction, median; 5 %",
        "{:.4f}; {:.5f}".format(*np.nanquantile(found["effective_fraction"], (0.5, 0.05))),
    )


def main() -> None:
    torch.set_num_threads(1)
    model, n = load_model("desi"), int(sys.argv[1]) if len(sys.argv) > 1 else N_GALAXIES
    cells = []
    for redshift in REDSHIFTS:
        for three in (False, True):
            cells.append(cell(model, redshift, three, n))
            if len(sys.argv) > 2:
                np.savez(f"{sys.argv[2]}/{redshift[0]}-{three}.npz", **cells[-1])
    tell("all cells", {key: np.concatenate([part[key] for part in cells]) for key in cells[0]})


if __name__ == "__main__":
    main()
