"""What the flow is conditioned on: fluxes, uncertainties, mask and redshift in, standardised features out.

Asinh magnitudes (Lupton et al. 1999, astro-ph/9903081) are defined for negative fluxes; a band that was not measured
is zero with its mask bit off. In ``colours`` mode fluxes are divided by the galaxy's own mean flux, so brightness is no
feature: the amplitude is drawn exactly elsewhere. ``magnitudes`` keeps it, as SEDflow does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sedflow_dist.photometry.photometry import Photometry

_SOFTENING = 0.01  # of the mean flux; below it an asinh magnitude turns linear
_ABSOLUTE_SOFTENING = 0.1  # nanomaggies (25 mag), in `magnitudes` mode


def size(n_bands: int) -> int:
    """Return the number of features: asinh magnitude, uncertainty and mask of each band, and the redshift."""
    return 3 * n_bands + 1


def raw(photometry: Photometry, mode: Literal["colours", "magnitudes"]) -> Float[Tensor, "galaxy feature"]:
    """Return features before standardisation; in ``colours`` mode they do not change when a galaxy is rescaled."""
    keep = photometry.mask.to(photometry.flux.dtype)
    flux, sigma = photometry.flux * keep, torch.where(photometry.mask, photometry.sigma, 1.0)
    if mode == "colours":
        n = keep.sum(1, keepdim=True).clamp(min=1)
        mean = torch.maximum(flux.sum(1, keepdim=True), (sigma * keep).sum(1, keepdim=True)) / n
        scale, softening = mean.clamp(min=1e-30), _SOFTENING
    else:
        scale, softening = torch.ones_like(flux[:, :1]), _ABSOLUTE_SOFTENING
    magnitude = torch.asinh(flux / (2 * softening * scale))
    noise = torch.log(sigma / scale).clamp(-8, 8)
    return torch.cat([magnitude * keep, noise * keep, keep, photometry.redshift.unsqueeze(1)], dim=1)


@dataclass(frozen=True)
class Features:
    """Features standardised with ``mean`` and ``std``, shape (feature,), of the training data."""

    mode: Literal["colours", "magnitudes"]
    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, rows: Float[Tensor, "galaxy feature"], mode: Literal["colours", "magnitudes"]) -> Features:
        """Standardise on raw features of training data, counting measured bands only."""
        n_bands = (rows.shape[1] - 1) // 3
        keep = rows[:, 2 * n_bands : 3 * n_bands]
        weight = torch.cat([keep, keep, torch.ones_like(rows[:, 2 * n_bands :])], dim=1).double()
        total = weight.sum(0).clamp(min=1)
        mean = (rows * weight).sum(0) / total
        std = (((rows - mean) ** 2 * weight).sum(0) / total).sqrt().clamp(min=1e-3)
        mean[2 * n_bands : 3 * n_bands], std[2 * n_bands : 3 * n_bands] = 0.5, 0.5
        return cls(mode, mean.float(), std.float())

    def __call__(self, photometry: Photometry) -> Float[Tensor, "galaxy feature"]:
        """Return standardised features; those of unmeasured bands are zero."""
        n_bands = photometry.flux.shape[1]
        rows = (raw(photometry, self.mode) - self.mean) / self.std
        keep = photometry.mask.to(rows.dtype)
        rows[:, : 2 * n_bands] *= torch.cat([keep, keep], dim=1)
        return rows
