"""Evidences compared: galaxies and a learned likelihood in, ln of its evidence over the Gaussian likelihood's out.

Data that one band spoils lie far from the posterior that all bands make together, so that its draws miss what another
likelihood would make of them. Draws therefore come from the flow with all bands and, in equal parts, without each of them in turn,
and are weighed with the density of that mixture (balance heuristic; Veach & Guibas 1995; Owen & Zhou 2000). Both evidences
are means over the same draws.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sedflow_dist.flow.learned_likelihood import LearnedLikelihood
from sedflow_dist.inference import amplitude, importance, likelihood
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.parameters import probit, unit
from sedflow_dist.photometry.flags import MINIMUM_BANDS
from sedflow_dist.photometry.photometry import Photometry

#: Draws of a galaxy at most: their density is asked of the flow once more for each band, and a ratio needs no more of them.
MOST_DRAWS = 512


class Comparison:
    """Compares evidences of galaxies.

    Args:
        posterior: whose flow, seed and number of draws (up to `MOST_DRAWS`) serve
        learned: the learned likelihood

    Raises:
        ValueError: the learned likelihood was trained for another model.
    """

    def __init__(self, posterior: Posterior, learned: LearnedLikelihood) -> None:
        learned.check(posterior.flow.id)
        self.posterior, self.learned = posterior, learned

    def __call__(
        self, photometry: Photometry, rows: Int[np.ndarray, " galaxy"]
    ) -> tuple[Float[np.ndarray, " galaxy"], Float[np.ndarray, " galaxy"]]:
        """Return ln of the ratio of evidences, and its standard error; ``rows`` of the catalog key the draws.

        Galaxy by galaxy: the numbers do not depend on who stands beside it. NaN where the redshift is uncertain.
        """
        value, error = np.full((2, len(photometry)), np.nan)
        for i in np.flatnonzero(photometry.has_exact_redshift.numpy()).tolist():
            one = photometry[i]
            flux, log_weight = self.draw(one, rows[i : i + 1])
            ratio = self.learned.log_ratio(flux, one)
            value[i], error[i] = (float(x) for x in importance.log_bayes_factor(log_weight, ratio))
        return value, error

    @torch.no_grad()
    def draw(
        self, photometry: Photometry, row: Int[np.ndarray, " 1"]
    ) -> tuple[Float[Tensor, "1 draw band"], Float[Tensor, "1 draw"]]:
        """Draw for one galaxy; return model fluxes, and ln of (Gaussian likelihood x prior / density of the proposal)."""
        posterior, flow, space = self.posterior, self.posterior.flow, self.posterior.flow.space
        contexts, n_shape = _with_and_without_each_band(photometry), self.posterior.flow.dimensions
        k = len(contexts)
        each = max(min(posterior.n_draws, MOST_DRAWS) // k, 1)
        base = posterior.base_points(row, each * k)[0].unflatten(0, (each, k)).transpose(0, 1)
        x = flow.features(contexts)
        phi, _ = flow.network.sample_with_log_prob(probit(base[..., :n_shape]).contiguous(), x)
        phi = phi.flatten(0, 1)
        # The density of every draw in every context: (context, draw).
        log_q = flow.network.log_prob(phi.repeat(k, 1), x.repeat_interleave(each * k, 0)).unflatten(0, (k, -1))
        exact = flow.spec.amplitude == "exact"
        theta = space.from_unit(space.join_any(unit(phi)) if exact else unit(phi)).unsqueeze(0)
        flux = flow.redshift_model.flux(theta, flow.redshift_model.at(photometry.redshift))
        if exact:
            uniform = base[..., n_shape].flatten().expand(k, -1)
            fit = amplitude.fit(flux.expand(k, -1, -1), contexts, uniform, space.amplitude.prior.range)
            drawn = fit.log_mstar.unflatten(1, (k, each))[range(k), range(k)]  # each draw's in its own context
            flux = flux * 10 ** drawn.flatten().unsqueeze(-1)
            # The amplitude's own density, but for its prior: a context's likelihood over the mean of it.
            log_q = log_q + likelihood.gaussian(flux.expand(k, -1, -1), contexts)[0] - fit.log_evidence
        else:
            flux = flux * space.scale(theta)
        log_prior = -0.5 * (phi**2).sum(-1) - 0.5 * n_shape * math.log(2 * math.pi)
        mixture = torch.logsumexp(log_q, 0) - math.log(k)
        return flux, likelihood.gaussian(flux, photometry)[0] + log_prior - mixture


def _with_and_without_each_band(photometry: Photometry) -> Photometry:
    """Return a galaxy as it is, and without each of its bands where enough are left for the flow: one block."""
    measured, contexts = photometry.mask[0], [photometry]
    if int(measured.sum()) > MINIMUM_BANDS:
        bands = torch.arange(len(measured))
        contexts += [photometry.with_bands(bands != band) for band in bands[measured]]
    return Photometry.concatenate(contexts)
