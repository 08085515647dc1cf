"""What draws say of galaxies, by column of a catalog: quantiles, moments, kept draws, peaks of the redshift; the prior's edges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from sedflow_dist.inference import importance, redshift_density
from sedflow_dist.inference.summary import QUANTILES
from sedflow_dist.parameters import ParameterSpace, to_16_bits

if TYPE_CHECKING:
    from sedflow_dist.inference.posterior import Posterior

_EDGE_SHARE, _EDGE_WIDTH = 0.05, 0.005


def describe(
    posterior: Posterior,
    u: Float[Tensor, "galaxy draw coordinate"],
    values: Float[Tensor, "galaxy draw column"],
    redshift: Float[Tensor, "galaxy one_or_draw"],
    weight: Float[Tensor, "galaxy draw"] | None,
    rows: Int[np.ndarray, " galaxy"],
) -> dict[str, Shaped[np.ndarray, "galaxy ..."]]:
    """Return what draws of a posterior say of galaxies, which are ``rows`` of their catalog; no weight: all alike."""
    quantiles, mean, std = importance.summarise(values, weight, QUANTILES)
    said = {"quantiles": quantiles.numpy(), "mean": mean.numpy(), "std": std.numpy()}
    weight = torch.ones(u.shape[:2]) if weight is None else weight
    redshift = redshift.expand(u.shape[:2])
    if posterior.peaks:
        said |= redshift_density.peaks(redshift.numpy(), weight.numpy(), (0.0, posterior.flow.reach))
    if posterior.n_keep:
        pick = torch.as_tensor(posterior.resample(weight, rows, posterior.n_keep))
        said["draws"] = to_16_bits(u.gather(1, pick.unsqueeze(-1).expand(-1, -1, u.shape[-1])))
        said["draw_redshift"] = redshift.gather(1, pick).numpy()
    return said


def at_edge(
    space: ParameterSpace, u: Float[Tensor, "galaxy draw coordinate"], weight: Float[Tensor, "galaxy draw"] | None
) -> Bool[np.ndarray, " galaxy"]:
    """Return whether an edge of the prior cuts the posterior of the mass."""
    mass = space.split(u)[0]
    beyond = (mass < _EDGE_WIDTH) | (mass > 1 - _EDGE_WIDTH)
    share = beyond.float().mean(-1) if weight is None else (weight * beyond).sum(-1)
    return (share > _EDGE_SHARE).numpy()
