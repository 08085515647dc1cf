"""The Gaussian likelihood of fluxes: model and data in, log-likelihood and chi^2 of every draw out."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sedflow_dist.photometry.photometry import Photometry


def gaussian(
    model: Float[Tensor, "galaxy draw band"],
    photometry: Photometry,
    inverse_sigma: Float[Tensor, "galaxy one_or_draw band"] | None = None,
) -> tuple[Float[Tensor, "galaxy draw"], Float[Tensor, "galaxy draw"]]:
    """Return ln p(flux | model), constants included, and chi^2; all in nanomaggies, masked bands do not count.

    ``inverse_sigma``: of another noise than that stated, 0 in bands that are masked.
    """
    inverse = photometry.inverse_sigma.unsqueeze(1) if inverse_sigma is None else inverse_sigma
    residual = (model - photometry.flux.unsqueeze(1)) * inverse
    chi2 = (residual**2).sum(-1)
    return _log_norm(photometry, inverse) - 0.5 * chi2, chi2


def log_norm(photometry: Photometry) -> Float[Tensor, " galaxy"]:
    """Return ln of the Gaussian's constants."""
    return _log_norm(photometry, photometry.inverse_sigma.unsqueeze(1)).squeeze(1)


def _log_norm(photometry: Photometry, inverse: Float[Tensor, "galaxy draw band"]) -> Float[Tensor, "galaxy draw"]:
    factors = torch.where(photometry.mask.unsqueeze(1), inverse, 1.0)
    return factors.log().sum(-1) - 0.5 * math.log(2 * math.pi) * photometry.n_bands.unsqueeze(1)
