"""Simulated galaxies of one solar mass: draws from the prior in, noiseless fluxes out; row i is the same whoever draws it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sedflow_dist import keyed_random
from sedflow_dist.parameters import ParameterSpace, probit
from sedflow_dist.sps.galaxy_model import GalaxyModel


@dataclass(frozen=True)
class Shapes:
    """Simulated galaxies of one solar mass: ``phi`` in probit space, ``per_mass`` fluxes [nanomaggies], ``redshift``."""

    phi: Float[Tensor, "galaxy shape"]
    per_mass: Float[Tensor, "galaxy band"]
    redshift: Float[Tensor, " galaxy"]

    def to(self, device: torch.device | str) -> Shapes:
        """Return the same on a device."""
        return Shapes(self.phi.to(device), self.per_mass.to(device), self.redshift.to(device))


def draw_parameters(
    space: ParameterSpace, redshift: tuple[float, float], seed: int, stream: str, first: int, n: int
) -> tuple[Float[Tensor, "galaxy shape"], Float[Tensor, "galaxy param"], Float[Tensor, " galaxy"]]:
    """Draw galaxies ``first`` to ``first + n`` of a stream: row i is the same whoever draws it.

    Returns:
        shapes in probit space, parameters with one solar mass, redshifts
    """
    n_coordinates = len(space.coordinates)
    u = torch.as_tensor(keyed_random.uniforms(seed, stream, first, n, n_coordinates + 1)).float()
    u = u.clamp(2.0**-24, 1 - 2.0**-24)
    cube, uniform = u[:, :n_coordinates], u[:, n_coordinates]
    theta = space.from_unit(cube)
    space.values(theta)[space.amplitude.name].zero_()  # one solar mass
    lo, hi = redshift
    return probit(space.split(cube)[1]), theta, (lo + (hi - lo) * uniform).clamp(min=1e-4)


def draw_shapes(
    model: GalaxyModel, redshift: tuple[float, float], seed: int, stream: str, first: int, n: int
) -> Shapes:
    """Simulate galaxies ``first`` to ``first + n`` of a stream: row i is the same whoever computes it."""
    phi, theta, z = draw_parameters(model.space, redshift, seed, stream, first, n)
    return Shapes(phi, model.fluxes(theta, z), z)
