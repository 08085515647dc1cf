"""Mock observations that are deliberately imperfect: noiseless galaxies in, residuals that no Gaussian noise explains out.

Three kinds: noise with the tails of Student's t, light in one band that the model does not have, and another dust law.
Residuals are those of the true parameters, (data - model) / sigma: what a likelihood of the data given parameters is about.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Generator, Tensor

from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.simulation.mocks import Mocks
from sedflow_dist.simulation.shapes import Shapes, draw_parameters
from sedflow_dist.sps.components import Composition
from sedflow_dist.sps.galaxy_model import GalaxyModel


class Kind(IntEnum):
    """What is wrong with a mock galaxy."""

    TAILS = 0
    LINE = 1
    DUST = 2


class Imperfections(BaseModel):
    """What may be wrong with data or model; each kind in a third of the imperfect mock galaxies."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    degrees_of_freedom: int = Field(3, ge=1, description="of Student's t: noise in units of the uncertainty")
    line: tuple[float, float] = Field(
        (0.05, 0.4), description="light that one band has beyond the model's, as a fraction of its flux: range, uniform"
    )
    dust: str = Field("smc", description="screen that dims all stars in the place of the model's own, by its tau_ism")

    @model_validator(mode="after")
    def _check(self) -> Imperfections:
        if not -1 < self.line[0] < self.line[1]:
            raise ValueError(f"line: {list(self.line)} is no range of fractions above -1")
        return self


@dataclass(frozen=True)
class ImperfectGalaxies:
    """Galaxies of one solar mass: as the model has them, and ``other``, their fluxes behind another dust [nanomaggies]."""

    shapes: Shapes
    other: Float[Tensor, "galaxy band"]

    @classmethod
    def draw(
        cls, model: GalaxyModel, other: GalaxyModel, redshift: tuple[float, float], seed: int, stream: str, n: int
    ) -> ImperfectGalaxies:
        """Draw ``n`` galaxies from the prior; ``other`` is the model with the other dust: see `other_dust`."""
        phi, theta, z = draw_parameters(model.space, redshift, seed, stream, 0, n)
        values = model.space.values(theta)
        theirs = torch.stack([values[name] for name in other.space.names], -1)
        return cls(Shapes(phi, model.fluxes(theta, z), z), other.fluxes(theirs, z))

    def truth(self, mocks: Mocks) -> Photometry:
        """Return what the model says of mock observations of these galaxies: noiseless fluxes, with their uncertainties."""
        flux = self.shapes.per_mass[mocks.number] * 10 ** mocks.log_mstar.unsqueeze(1)
        return replace(mocks.photometry, flux=flux.where(mocks.photometry.mask, 0.0))

    def residuals(
        self, mocks: Mocks, kind: Int[Tensor, " galaxy"], settings: Imperfections, generator: Generator
    ) -> Float[Tensor, "galaxy band"]:
        """Return residuals (data - `truth`) / sigma of mock observations gone wrong, NaN where a band is not measured.

        Noise is drawn anew: of an observation, what the survey selected and its uncertainties count, not its fluxes.
        """
        truth, shape = self.truth(mocks), mocks.photometry.flux.shape
        noise = torch.randn(shape, generator=generator)
        squares = torch.randn(settings.degrees_of_freedom, *shape, generator=generator).square().mean(0)
        noise = torch.where((kind == Kind.TAILS).unsqueeze(1), noise / squares.sqrt(), noise)
        low, high = settings.line
        strength = low + (high - low) * torch.rand(len(mocks), 1, generator=generator)
        order = torch.rand(shape, generator=generator).where(truth.mask, -1.0)
        in_band = torch.nn.functional.one_hot(order.argmax(1), shape[1])  # any of those measured
        line = strength * in_band * truth.flux
        dust = (self.other - self.shapes.per_mass)[mocks.number] * 10 ** mocks.log_mstar.unsqueeze(1)
        extra = torch.where((kind == Kind.LINE).unsqueeze(1), line, 0.0)
        extra = torch.where((kind == Kind.DUST).unsqueeze(1), dust, extra)
        return (noise + extra * truth.inverse_sigma).where(truth.mask, torch.nan)


def other_dust(model: GalaxyModel, name: str) -> GalaxyModel:
    """Return a galaxy model with the screen ``name`` in the place of what dims all its stars.

    Raises:
        ValueError: the model has not one such screen, or the other one has parameters that the model has not; says which.
    """
    old, names = model.composition, model.composition.names
    dust = [screen.name for screen in old.screens if screen.covers == "all stars"]
    if len(dust) != 1:
        raise ValueError(
            f"another dust law than the model's needs one screen of all stars, not {', '.join(dust) or 'none'}"
        )
    composition = Composition.of([name if part == dust[0] else part for part in names])
    if unknown := set(composition.space.names) - set(model.space.names):
        raise ValueError(f"dust {name}: the model has no {', '.join(sorted(unknown))}")
    age, rule = model.stars.birth_cloud_age, model.stars.birth_cloud_rule
    return GalaxyModel(
        model.ssp, model.bands, model.z_max, composition, age, "star" if rule == "star" else "node", model.dtype
    )
