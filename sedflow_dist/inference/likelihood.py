"""The Gaussian likelihood of fluxes: model and data in, log-likelihood and chi^2 of every draw out."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def gaussian(
    model: Float[Tensor, "galaxy draw band"],
    flux: Float[Tensor, "galaxy band"],
    sigma: Float[Tensor, "galaxy band"],
    mask: Bool[Tensor, "galaxy band"],
) -> tuple[Float[Tensor, "galaxy draw"], Float[Tensor, "galaxy draw"]]:
    """Return ln p(flux | model), constants included, and chi^2; all in nanomaggies, masked bands do not count."""
    inverse_sigma = torch.where(mask, 1 / torch.where(mask, sigma, 1.0), 0.0)
    chi2 = (((model - flux.unsqueeze(1)) * inverse_sigma.unsqueeze(1)) ** 2).sum(-1)
    return log_norm(inverse_sigma, mask).unsqueeze(-1) - 0.5 * chi2, chi2


def log_norm(inverse_sigma: Float[Tensor, "galaxy band"], mask: Bool[Tensor, "galaxy band"]) -> Tensor:
    """Return ln of the Gaussian's constants, (galaxy,)."""
    return torch.where(mask, inverse_sigma, 1.0).log().sum(-1) - 0.5 * math.log(2 * math.pi) * mask.sum(-1)
