"""Simulated galaxies of one solar mass: draws from the prior in, noiseless fluxes out; row i is the same whoever draws it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sedflow_dist import keyed_random
from sedflow_dist.parameters import COORDINATES, Prior, probit
from sedflow_dist.sps.forward_model import ForwardModel


@dataclass(frozen=True)
class Shapes:
    """Simulated galaxies of one solar mass: ``phi`` (galaxy, 10) in probit space, ``per_mass`` fluxes (galaxy, band)
    [nanomaggies], ``redshift`` (galaxy,)."""

    phi: Float[Tensor, "galaxy shape"]
    per_mass: Float[Tensor, "galaxy band"]
    redshift: Float[Tensor, " galaxy"]


def draw_parameters(
    prior: Prior, redshift: tuple[float, float], seed: int, stream: str, first: int, n: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw galaxies ``first`` to ``first + n`` of a stream: row i is the same whoever draws it.

    Returns:
        shapes in probit space (galaxy, 10), parameters with one solar mass (galaxy, 12), redshifts (galaxy,)
    """
    u = torch.as_tensor(keyed_random.uniforms(seed, stream, first, n, len(COORDINATES) + 1)).float()
    u = u.clamp(2.0**-24, 1 - 2.0**-24)
    theta = prior.from_unit(u[:, : len(COORDINATES)])
    theta[:, 0] = 0.0  # one solar mass
    lo, hi = redshift
    z = (lo + (hi - lo) * u[:, -1]).clamp(min=1e-4)
    return probit(u[:, 1 : len(COORDINATES)]), theta, z


def draw_shapes(
    model: ForwardModel, prior: Prior, redshift: tuple[float, float], seed: int, stream: str, first: int, n: int
) -> Shapes:
    """Simulate galaxies ``first`` to ``first + n`` of a stream: row i is the same whoever computes it."""
    phi, theta, z = draw_parameters(prior, redshift, seed, stream, first, n)
    return Shapes(phi, model.fluxes(theta, z), z)
