"""Mock galaxies that no training saw: a trained flow in, their photometry, their truth and the density at it out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sedflow_dist import keyed_random
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.flow.training import target
from sedflow_dist.inference import amplitude, likelihood
from sedflow_dist.parameters import probit
from sedflow_dist.simulation.mocks import Mocks
from sedflow_dist.simulation.shapes import draw_shapes

Pattern = tuple[bool, ...]  # which bands are measured


def mock_galaxies(
    flow: TrainedModel,
    n: int,
    seed: int,
    patterns: Sequence[Pattern] = (),
    redshift: tuple[float, float] | None = None,
    selection: tuple[float, float] | None = None,
) -> Mocks:
    """Simulate and observe galaxies that no training saw, as the survey selects them: with all bands, then each pattern.

    Where the survey has footprints, all bands are those of one of them, and a pattern is all that is measured.

    Args:
        redshift: range of redshifts, as far as the model's `reach`; None: as trained
        selection: brightest and faintest observed magnitude in the band of selection; None: as trained
    """
    survey, parts = flow.survey(), []
    if selection:
        survey = replace(survey, noise=flow.noise.selecting(selection))
    redshift = redshift or flow.spec.redshift
    every_band = replace(survey, band_sets=())
    for i, pattern in enumerate([(True,) * len(flow.spec.bands), *patterns]):
        stream = ("validate", i) if i else ("validate",)
        shapes = draw_shapes(flow.redshift_model.model, redshift, seed, "validate", 30 * n * i, 30 * n)
        observer = every_band if i else survey
        mocks = observer.observe(shapes, n, torch.Generator().manual_seed(keyed_random.torch_seed(seed, *stream)))
        parts.append(replace(mocks, photometry=mocks.photometry.with_bands(torch.tensor(pattern))))
    return Mocks.concatenate(parts)


def unit_truth(flow: TrainedModel, mocks: Mocks) -> Float[Tensor, "galaxy coordinate"]:
    """True coordinates of mock galaxies in the unit cube."""
    amplitude = flow.space.amplitude.prior.to_unit(mocks.log_mstar)
    return flow.space.join(amplitude, torch.special.ndtr(mocks.phi))


def truth(flow: TrainedModel, mocks: Mocks) -> Float[Tensor, "galaxy param"]:
    """True parameters of mock galaxies."""
    return flow.space.from_unit(unit_truth(flow, mocks))


def flow_log_prob(flow: TrainedModel, mocks: Mocks) -> Float[Tensor, " galaxy"]:
    """ln q(truth | data) over the flow's own dimensions."""
    x = flow.features(mocks.photometry)
    with torch.no_grad():
        return flow.network.log_prob(target(mocks, flow.spec.amplitude, flow.space), x)


def joint_log_prob(flow: TrainedModel, mocks: Mocks) -> Float[np.ndarray, " galaxy"]:
    """ln q(truth | data) over all eleven coordinates in probit space; with an exact amplitude its own density counts."""
    log_q = flow_log_prob(flow, mocks)
    if flow.spec.amplitude == "exact":
        log_q = log_q + amplitude_log_prob(flow, mocks)
    return log_q.numpy()


def amplitude_log_prob(flow: TrainedModel, mocks: Mocks) -> Float[Tensor, " galaxy"]:
    """ln p(true amplitude | true shape, data) in probit space, exact: of ``flow``, its galaxy model and prior count only."""
    full, evidence = log_likelihood(flow, mocks, truth(flow, mocks))
    phi_a = probit(flow.space.amplitude.prior.to_unit(mocks.log_mstar))
    return full - evidence - 0.5 * phi_a**2 - 0.5 * math.log(2 * math.pi)


def log_likelihood(
    flow: TrainedModel, mocks: Mocks, theta: Float[Tensor, "galaxy param"]
) -> tuple[Float[Tensor, " galaxy"], Float[Tensor, " galaxy"]]:
    """Return ln p(data | theta) of galaxies, and ln of it with the amplitude integrated out under its prior."""
    theta, space = theta.unsqueeze(1), flow.space
    per_mass = flow.redshift_model(theta, mocks.photometry.redshift).flux
    full, _ = likelihood.gaussian(per_mass * space.scale(theta), mocks.photometry)
    uniform = per_mass.new_full(theta.shape[:2], 0.5)  # draws no amplitude that matters
    fit = amplitude.fit(per_mass, mocks.photometry, uniform, space.amplitude.prior.range)
    return full[:, 0], fit.log_evidence[:, 0]
