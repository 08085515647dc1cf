"""Mock galaxies that no training saw: a trained flow in, their photometry, their truth and the density at it out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from sedflow_dist import keyed_random
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.flow.training import target
from sedflow_dist.inference.posterior import log_likelihood
from sedflow_dist.simulation.mocks import Mocks, MockSurvey
from sedflow_dist.simulation.shapes import draw_shapes

Pattern = tuple[bool, ...]  # which bands are measured


def mock_galaxies(flow: TrainedModel, n: int, seed: int, patterns: Sequence[Pattern] = ()) -> Mocks:
    """Simulate and observe galaxies that no training saw, as the survey selects them: with all bands, then each pattern."""
    survey, parts = MockSurvey(flow.noise, flow.prior.log_mstar, 0.0), []
    for i, pattern in enumerate([(True,) * len(flow.spec.bands), *patterns]):
        stream = ("validate", i) if i else ("validate",)
        shapes = draw_shapes(
            flow.redshift_model.model, flow.prior, flow.spec.redshift, seed, "validate", 30 * n * i, 30 * n
        )
        mocks = survey.observe(shapes, n, torch.Generator().manual_seed(keyed_random.torch_seed(seed, *stream)))
        mask = mocks.mask & torch.tensor(pattern)
        parts.append(replace(mocks, flux=mocks.flux * mask, sigma=mocks.sigma * mask, mask=mask))
    return Mocks(**{name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])})


def unit_truth(flow: TrainedModel, mocks: Mocks) -> torch.Tensor:
    """True coordinates of mock galaxies in the unit cube: (galaxy, coordinate)."""
    lo, hi = flow.prior.log_mstar
    return torch.cat([((mocks.log_mstar - lo) / (hi - lo)).unsqueeze(1), torch.special.ndtr(mocks.phi)], dim=1)


def truth(flow: TrainedModel, mocks: Mocks) -> torch.Tensor:
    """True parameters of mock galaxies: (galaxy, param)."""
    return flow.prior.from_unit(unit_truth(flow, mocks))


def flow_log_prob(flow: TrainedModel, mocks: Mocks) -> torch.Tensor:
    """ln q(truth | data) over the flow's own dimensions: (galaxy,)."""
    x = flow.features(mocks.flux, mocks.sigma, mocks.mask, mocks.redshift)
    with torch.no_grad():
        return flow.network.log_prob(target(mocks, flow.spec.amplitude, flow.prior), x)


def joint_log_prob(flow: TrainedModel, mocks: Mocks) -> np.ndarray:
    """ln q(truth | data) over all eleven coordinates in probit space; with an exact amplitude its own density counts."""
    log_q = flow_log_prob(flow, mocks)
    if flow.spec.amplitude == "exact":
        log_q = log_q + amplitude_log_prob(flow, mocks)
    return log_q.numpy()


def amplitude_log_prob(flow: TrainedModel, mocks: Mocks) -> torch.Tensor:
    """ln p(true amplitude | true shape, data) in probit space, exact: of ``flow``, its galaxy model and prior count only."""
    likelihood, evidence = log_likelihood(flow, mocks, truth(flow, mocks))
    phi_a = target(mocks, "learnt", flow.prior)[:, 0]
    return likelihood - evidence - 0.5 * phi_a**2 - 0.5 * math.log(2 * math.pi)
