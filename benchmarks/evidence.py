"""Evidence: the flow's, nested sampling's, and that of importance sampling from another proposal, of the same galaxies.

The third draws half from the flow and half from a wide Student t around the posterior, so that it has no part of the
posterior to miss that either has. Arguments: chains of ``sedflow mcmc mocks:10 --sampler nautilus``, a model.
"""

from __future__ import annotations

import math
import sys

import numpy as np
import torch
from scipy import stats

from jobs import mcmc as job
from jobs.config import shipped
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference.mcmc import Target
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.parameters import probit
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.sps.components import Composition
from storage_schemas import chains, model
from storage_schemas.backend.arrays import array
from storage_schemas.backend.location import Location

SPACE = Composition.of().space

SEED, DRAWS, MIXED, BLOCK, WIDER, FREEDOM = 1, 20_000, 100_000, 5_000, 1.5, 5


def mixed(flow: TrainedModel, data: Photometry, phi: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Return ln evidence and its error; ``phi`` and ``weight`` are draws that say where the posterior is."""
    shape = WIDER * np.cov(phi.T, aweights=weight) + 1e-6 * np.eye(len(SPACE.shapes))
    wide = stats.multivariate_t(np.average(phi, axis=0, weights=weight), shape, FREEDOM, seed=SEED)
    x = flow.features(data)
    base = torch.randn(1, MIXED, len(SPACE.shapes), generator=torch.Generator().manual_seed(SEED))
    points = np.concatenate([flow.network.sample_with_log_prob(base, x)[0][0].numpy(), wide.rvs(MIXED)])
    target, blocks = Target(flow.redshift_model, data), np.split(points, 2 * MIXED // BLOCK)
    with torch.no_grad():
        log_q = torch.cat([flow.network.log_prob(torch.as_tensor(b).float(), x.expand(BLOCK, -1)) for b in blocks])
    log_p = np.concatenate([target([0], [block])[0] for block in blocks])
    log_weight = log_p - (np.logaddexp(log_q.double().numpy(), wide.logpdf(points)) - math.log(2))
    weights = np.exp(log_weight - log_weight.max())
    return math.log(weights.mean()) + log_weight.max(), weights.std() / weights.mean() / math.sqrt(len(weights))


def main() -> None:
    torch.set_num_threads(1)
    flow = TrainedModel.from_bytes(*model.read(shipped.model(sys.argv[2] if len(sys.argv) > 2 else "sdss")))
    _, summary = chains.open(Location.parse(sys.argv[1]))
    nested = [np.asarray(array(summary.group, name)[:]) for name in ("log_evidence", "log_evidence_error")]
    data = job.mocks(flow, len(nested[0]), SEED)
    posterior = Posterior(flow, SEED, DRAWS)
    print("galaxy   flow             nested sampling  two proposals    flow - two proposals, in errors")
    for i in range(len(nested[0])):
        one = data.photometry[i]
        draws = posterior.draw(one, np.array([i]), DRAWS)
        own = float(draws.log_evidence), float(draws.log_evidence_error)
        other = mixed(flow, one, probit(draws.unit[0, :, 1:]).clamp(-6, 6).double().numpy(), draws.weight[0].numpy())
        pairs = [own, (nested[0][i], nested[1][i]), other]
        print(f"{i:>6}  ", *(f"{value:8.4f} ± {error:.4f}" for value, error in pairs),
              f" {(own[0] - other[0]) / math.hypot(own[1], other[1]):.1f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
