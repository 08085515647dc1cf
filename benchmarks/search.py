"""Architectures: held-out log-probability after the same seconds on one core, and the cost of a draw, by Ray Tune.

    python benchmarks/search.py demo --seconds 90

Trials of every shape in `SHAPES` run side by side, a core each, on the first 200,000 simulations of the demo.
"""

from __future__ import annotations

import argparse
import time
import warnings

import torch
from learning import Data, fit
from torch import nn

from sedflow_dist.flow.conditional_flow import build

#: family, transforms, hidden units, batch, peak learning rate
SHAPES = [
    ("maf", 8, 128, 512, 8e-3),
    ("maf", 8, 128, 512, 1.6e-2),
    ("maf", 5, 128, 512, 8e-3),
    ("maf", 12, 96, 512, 8e-3),
    ("maf", 5, 256, 512, 6e-3),
    ("maf", 8, 64, 512, 1e-2),
    ("maf", 15, 64, 512, 8e-3),
    ("nsf", 5, 64, 512, 2e-3),
    ("nsf", 5, 64, 512, 5e-3),
    ("maf", 15, 500, 256, 1e-3),
]
_DRAWS = 2048


class Spline(nn.Module):
    """sbi's neural spline flow (coupling: a draw is one pass)."""

    def __init__(self, dimensions: int, features: int, transforms: int, hidden: int) -> None:
        super().__init__()
        from sbi.neural_nets import posterior_nn

        make = posterior_nn(
            "nsf", z_score_theta="none", z_score_x="none", hidden_features=hidden, num_transforms=transforms
        )
        self.net = make(torch.randn(8, dimensions), torch.randn(8, features))

    def forward(self, phi: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return log q(phi | x)."""
        return self.net.log_prob(phi[None], x)[0]


def trial(config: dict[str, object]) -> dict[str, float]:
    """Train one shape, and draw from it."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    warnings.simplefilter("ignore")
    family, transforms, hidden, batch, rate = config["shape"]
    data = Data(config["root"])
    phi, x = data.observe(64, 1)
    sizes, settings = (phi.shape[1], x.shape[1]), {"transforms": transforms, "hidden": hidden}
    estimator = build("maf", settings, *sizes, seed=1) if family == "maf" else Spline(*sizes, transforms, hidden)
    precision = "auto" if family == "maf" else "float32"  # splines search their bins, which bfloat16 rounds away
    curve = fit(data, estimator, config["seconds"], batch, rate, config["seconds"], precision)
    base, seconds = torch.randn(1, _DRAWS, phi.shape[1]), []
    estimator.eval()
    with torch.no_grad():
        for _ in range(4):
            start = time.perf_counter()
            if family == "maf":
                estimator.sample_with_log_prob(base, x[:1])
            else:
                estimator.net.sample((_DRAWS,), condition=x[:1])
            seconds.append(time.perf_counter() - start)
    return {"log_prob": curve[-1]["log_prob"], "steps": curve[-1]["step"], "us_per_draw": 1e6 * min(seconds) / _DRAWS}


def main() -> None:
    from ray import tune

    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("--seconds", type=float, default=90)
    settings = parser.parse_args()
    space = {"root": settings.root, "seconds": settings.seconds, "shape": tune.grid_search(SHAPES)}
    results = tune.Tuner(tune.with_resources(trial, {"cpu": 1}), param_space=space).fit()
    for result in sorted(results, key=lambda r: -r.metrics["log_prob"]):
        m = result.metrics
        print(*result.config["shape"], f"{m['log_prob']:.3f}", m["steps"], f"{m['us_per_draw']:.1f} us a draw")


if __name__ == "__main__":
    main()
