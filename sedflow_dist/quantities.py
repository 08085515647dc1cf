"""Quantities of a galaxy, each declared once: name, unit, meaning, LaTeX and UCD; of parameters also prior, domain and role.

Run-file keys, store schema, plots and pages derive from these declarations. A block is what shares a prior: one parameter, a
vector of alike ones, or weights that sum to one. Source of the Dirichlet map: Betancourt 2013 (arXiv 1010.3436).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import scipy
import torch
from jaxtyping import Float
from torch import Tensor

from sedflow_dist import priors
from sedflow_dist.priors import Prior

Role = Literal["amplitude", "shape", "redshift", "nuisance"]


@dataclass(frozen=True)
class Quantity:
    """Anything that a catalog has a column for: its name, unit (astropy's, "1": none), meaning, LaTeX and UCD (IVOA)."""

    name: str
    unit: str
    meaning: str
    latex: str
    ucd: str = "stat.fit.param"


@dataclass(frozen=True)
class Parameter(Quantity):
    """One parameter.

    Attributes:
        prior: its prior
        domain: least and greatest value that means anything to the galaxy model, whatever the prior
        role: amplitude (the flux is proportional to 10 to its power), shape (of the spectrum), redshift or nuisance
    """

    prior: Prior = field(kw_only=True)
    domain: tuple[float, float] = (-math.inf, math.inf)
    role: Role = "shape"

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """The parameters that the block holds."""
        return (self,)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of its coordinates in the unit cube."""
        return (self.name,)

    def from_unit(self, u: Float[Tensor, "*batch coordinate"], theta: Float[Tensor, "*batch param"]) -> None:
        """Fill ``theta``, this block's parameters, from ``u``, its coordinates."""
        for i in range(u.shape[-1]):
            theta[..., i] = self.prior.from_unit(u[..., i])

    def to_unit(self, theta: Float[Tensor, "*batch param"], u: Float[Tensor, "*batch coordinate"]) -> None:
        """Fill ``u``, this block's coordinates, from ``theta``, its parameters."""
        for i in range(u.shape[-1]):
            u[..., i] = self.prior.to_unit(theta[..., i])

    def log_prob(self, theta: Float[Tensor, "*batch param"]) -> Float[Tensor, "*batch"]:
        """Return ln of the prior's density."""
        found = self.prior.distribution.logpdf(theta.double().numpy())
        return torch.as_tensor(np.asarray(found)).sum(-1)

    def marginal(self) -> tuple[tuple[float, float], Any]:
        """Return the range of one parameter's prior and its density (`scipy.stats`)."""
        return self.prior.range, self.prior.distribution

    def source(self, name: str) -> str:
        """Return the independent part of the prior that decides the parameter ``name``."""
        return name

    def with_prior(self, wanted: Sequence[float] | dict[str, Any]) -> Parameter:
        """Return the same with another prior, as a run file has it."""
        prior = priors.replaced(self.prior, wanted)
        if self.role == "amplitude" and prior.kind != "uniform":
            raise ValueError(f"the prior of an amplitude is uniform in its logarithm, not {prior.kind}")
        lo, hi = prior.range
        if lo < self.domain[0] or hi > self.domain[1]:
            raise ValueError(
                f"the prior {lo:g} to {hi:g} leaves what {self.name} can be: {self.domain[0]:g} to {self.domain[1]:g}"
            )
        return replace(self, prior=prior)


@dataclass(frozen=True)
class Vector(Parameter):
    """Some independent parameters of one prior, ``NAME1`` to ``NAMEn``; ``{i}`` in meaning and LaTeX stands for the number."""

    size: int = 2

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """The parameters that the block holds."""
        return _numbered(self, self.size)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of its coordinates in the unit cube."""
        return tuple(quantity.name for quantity in self.quantities)


@dataclass(frozen=True)
class Simplex(Quantity):
    """``size`` weights ``NAME1`` to ``NAMEn`` that sum to one, under a flat Dirichlet; one coordinate less than weights.

    ``stick``: beginning of the names of its coordinates, the stick-breaking fractions.
    """

    size: int = 2
    stick: str = "stick"
    role: Role = "shape"

    @property
    def domain(self) -> tuple[float, float]:
        """Least and greatest value of a weight."""
        return 0.0, 1.0

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """The parameters that the block holds."""
        return _numbered(self, self.size)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of its coordinates in the unit cube."""
        return tuple(f"{self.stick}{i}" for i in range(1, self.size))

    @property
    def _powers(self) -> list[float]:
        return [1 / (self.size - 1 - i) for i in range(self.size - 1)]  # z_i = u_i^(1/(n-i))

    def from_unit(self, u: Float[Tensor, "*batch coordinate"], theta: Float[Tensor, "*batch param"]) -> None:
        """Fill ``theta``, this block's parameters, from ``u``, its coordinates."""
        rest = torch.ones_like(u.select(-1, 0))
        for i, power in enumerate(self._powers):
            z = u[..., i] ** power
            theta[..., i] = rest * (1 - z)
            rest = rest * z
        theta[..., self.size - 1] = rest

    def to_unit(self, theta: Float[Tensor, "*batch param"], u: Float[Tensor, "*batch coordinate"]) -> None:
        """Fill ``u``, this block's coordinates, from ``theta``, its parameters."""
        tail = theta.flip(-1).cumsum(-1).flip(-1)  # weight_i + ... + weight_n
        for i, power in enumerate(self._powers):
            u[..., i] = (tail[..., i + 1] / tail[..., i].clamp(min=1e-30)) ** (1 / power)

    def log_prob(self, theta: Float[Tensor, "*batch param"]) -> Float[Tensor, "*batch"]:
        """Return ln of the prior's density on the simplex, with respect to all weights but one."""
        inside = (theta >= 0).all(-1) & ((theta.sum(-1) - 1).abs() < 1e-3)
        density = torch.full(theta.shape[:-1], math.lgamma(self.size), dtype=torch.float64)
        return torch.where(inside, density, -math.inf)

    def marginal(self) -> tuple[tuple[float, float], Any]:
        """Return the range of one weight's prior and its density (`scipy.stats`)."""
        return (0.0, 1.0), scipy.stats.beta(1, self.size - 1)

    def source(self, name: str) -> str:
        """Return the independent part of the prior that decides a weight: all of them together."""
        return self.name

    def with_prior(self, wanted: Sequence[float] | dict[str, Any]) -> Simplex:
        """A simplex has the flat Dirichlet and nothing to set."""
        raise ValueError(f"{self.name} has a flat Dirichlet prior, which cannot be changed")


Block = Parameter | Simplex


def _numbered(block: Quantity, size: int) -> tuple[Quantity, ...]:
    return tuple(
        Quantity(
            f"{block.name}{i}", block.unit, block.meaning.format(i=i), block.latex.replace("{i}", str(i)), block.ucd
        )
        for i in range(1, size + 1)
    )


def described(quantities: Sequence[Quantity]) -> tuple[tuple[str, ...], ...]:
    """Return names, units, meanings and UCDs of quantities, as a store takes them."""
    return tuple(zip(*((q.name, q.unit, q.meaning, q.ucd) for q in quantities), strict=True))
