"""The Gaussian likelihood of fluxes: model and data in, log-likelihood and chi^2 of every draw out."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sedflow_dist.photometry.photometry import Photometry


def gaussian(
    model: Float[Tensor, "galaxy draw band"], photometry: Photometry
) -> tuple[Float[Tensor, "galaxy draw"], Float[Tensor, "galaxy draw"]]:
    """Return ln p(flux | model), constants included, and chi^2; all in nanomaggies, masked bands do not count."""
    residual = (model - photometry.flux.unsqueeze(1)) * photometry.inverse_sigma.unsqueeze(1)
    chi2 = (residual**2).sum(-1)
    return log_norm(photometry).unsqueeze(-1) - 0.5 * chi2, chi2


def of_sigma(
    model: Float[Tensor, "galaxy draw band"], photometry: Photometry, sigma: Float[Tensor, "galaxy draw band"]
) -> Float[Tensor, "galaxy draw"]:
    """Return ln p(flux | model) with another noise than that stated, of each draw."""
    pull = (model - photometry.flux.unsqueeze(1)) / sigma
    terms = -0.5 * pull**2 - sigma.log() - 0.5 * math.log(2 * math.pi)
    return torch.where(photometry.mask.unsqueeze(1), terms, 0.0).sum(-1)


def log_norm(photometry: Photometry) -> Float[Tensor, " galaxy"]:
    """Return ln of the Gaussian's constants."""
    factors = torch.where(photometry.mask, photometry.inverse_sigma, 1.0)
    return factors.log().sum(-1) - 0.5 * math.log(2 * math.pi) * photometry.n_bands
