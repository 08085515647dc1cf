"""How many scrambled Sobol base points give quantiles as good as 10,000 independent draws, for a trained flow.

Argument: the model of a run (default demo/model). Errors are root mean squares over simulated galaxies, parameters and
replicas, in units of the posterior's standard deviation, against 2^18 Sobol points; plain draws, without importance weights.
"""

from __future__ import annotations

import sys

import torch
from common import report

from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.parameters import probit
from sedflow_dist.validation.mock_galaxies import mock_galaxies
from storage_schemas import model as model_store
from storage_schemas.backend.location import Location

LEVELS = torch.tensor([0.025, 0.16, 0.5, 0.84, 0.975])
GALAXIES, REPLICAS = 8, 10


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "demo/model"
    flow = TrainedModel.from_bytes(*model_store.read(Location.parse(url)))
    generator = torch.Generator().manual_seed(1)
    mocks = mock_galaxies(flow, GALAXIES, 1)
    x = flow.features(mocks.photometry)

    def quantiles(points: torch.Tensor) -> torch.Tensor:
        inside = points.clamp(2.0**-24, 1 - 2.0**-24).float()
        phi, _ = flow.network.sample_with_log_prob(probit(inside).expand(GALAXIES, -1, -1).contiguous(), x)
        width.append(phi.std(1))
        return torch.stack([torch.quantile(phi, level, dim=1) for level in LEVELS])

    def sobol(n: int, seed: int) -> torch.Tensor:
        engine = torch.quasirandom.SobolEngine(flow.dimensions, scramble=True, seed=seed)
        return engine.draw(n, dtype=torch.float64)

    width: list[torch.Tensor] = []
    truth = quantiles(sobol(2**18, 999))
    sigma = width[0]

    def error(points: list[torch.Tensor]) -> torch.Tensor:
        errors = torch.stack([(quantiles(p) - truth) / sigma for p in points])
        return errors.square().mean((0, 2, 3)).sqrt()

    independent = [
        torch.rand(10_000, flow.dimensions, generator=generator, dtype=torch.float64) for _ in range(REPLICAS)
    ]
    rows = {"10,000 independent": error(independent)}
    for n in (256, 512, 1024, 2048, 4096, 8192):
        rows[f"{n:,} Sobol"] = error([sobol(n, seed) for seed in range(REPLICAS)])
    report("draws", "error of the 2.5, 16, 50, 84, 97.5 % quantiles [sigma]")
    for name, errors in rows.items():
        report(name, "  ".join(f"{e:.4f}" for e in errors.tolist()))


if __name__ == "__main__":
    main()
