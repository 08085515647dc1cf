"""The prior: exact maps between parameters, the unit cube and probit space.

The twelve parameters of a galaxy have eleven degrees of freedom (the SFH weights sum to one). Every prior is a monotone
map of a uniform, so the unit cube u in (0,1)^11 carries it exactly, and phi = Phi^-1(u) makes it N(0, I). The first
coordinate is the amplitude (log_mstar); the other ten describe the shape of the spectrum.

Source: SEDflow (Hahn & Melchior 2022, table 1); Dirichlet map: Betancourt 2013 (arXiv 1010.3436).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

PARAMETERS = (
    "log_mstar", "beta1", "beta2", "beta3", "beta4", "f_burst", "t_burst", "gamma1", "gamma2", "tau_bc", "tau_ism",
    "n_dust",
)  # fmt: skip
#: Coordinates of the unit cube; `stick1..3` are the stick-breaking fractions of the Dirichlet.
COORDINATES = ("log_mstar", "stick1", "stick2", "stick3", *PARAMETERS[5:])
N_SHAPE = len(COORDINATES) - 1

DESCRIPTIONS = {
    "log_mstar": ("log10(Msun)", "stellar mass formed"),
    **{f"beta{i}": ("1", f"weight of SFH basis function {i}") for i in (1, 2, 3, 4)},
    "f_burst": ("1", "fraction of the mass formed in one burst"),
    "t_burst": ("Gyr", "lookback time of the burst"),
    "gamma1": ("1", "weight of metallicity-history basis function 1"),
    "gamma2": ("1", "weight of metallicity-history basis function 2"),
    "tau_bc": ("1", "birth-cloud optical depth at 5500 A"),
    "tau_ism": ("1", "diffuse optical depth at 5500 A"),
    "n_dust": ("1", "slope offset of the diffuse attenuation curve"),
}

_TINY = 2.0**-24
_DIRICHLET_POWERS = (1 / 3, 1 / 2, 1.0)  # z_i = u_i^(1/(4-i))


@dataclass(frozen=True)
class Prior:
    """Ranges of the priors (SEDflow, table 1); the betas follow a flat Dirichlet, gammas are log-uniform."""

    log_mstar: tuple[float, float] = (7.0, 12.5)
    f_burst: tuple[float, float] = (0.0, 1.0)
    t_burst: tuple[float, float] = (0.01, 13.27)
    gamma: tuple[float, float] = (4.5e-5, 1.5e-2)
    tau_bc: tuple[float, float] = (0.0, 3.0)
    tau_ism: tuple[float, float] = (0.0, 3.0)
    n_dust: tuple[float, float] = (-2.0, 1.0)

    def _uniform_ranges(self) -> list[tuple[int, int, tuple[float, float], bool]]:
        """(coordinate, parameter, range, is logarithmic) of every coordinate that is not a stick."""
        spec = [("log_mstar", self.log_mstar, False), ("f_burst", self.f_burst, False),
                ("t_burst", self.t_burst, False), ("gamma1", self.gamma, True), ("gamma2", self.gamma, True),
                ("tau_bc", self.tau_bc, False), ("tau_ism", self.tau_ism, False), ("n_dust", self.n_dust, False)]  # fmt: skip
        return [(COORDINATES.index(n), PARAMETERS.index(n), r, log) for n, r, log in spec]

    def from_unit(self, u: Float[Tensor, "*batch coordinate"]) -> Float[Tensor, "*batch param"]:
        """Map the unit cube (coordinate = 11) to parameters (param = 12). The result lies inside the prior, always.

        >>> Prior().from_unit(torch.full((11,), 0.5))[0].item()
        9.75
        """
        theta = u.new_empty(*u.shape[:-1], len(PARAMETERS))
        for coordinate, parameter, (lo, hi), logarithmic in self._uniform_ranges():
            x = u[..., coordinate]
            value = lo * torch.exp(x * math.log(hi / lo)) if logarithmic else lo + (hi - lo) * x
            theta[..., parameter] = value.clamp(lo, hi)
        rest = torch.ones_like(u[..., 0])
        for i, power in enumerate(_DIRICHLET_POWERS):
            z = u[..., 1 + i] ** power
            theta[..., 1 + i] = rest * (1 - z)
            rest = rest * z
        theta[..., 4] = rest
        return theta

    def to_unit(self, theta: Float[Tensor, "*batch param"]) -> Float[Tensor, "*batch coordinate"]:
        """Map parameters to the unit cube: the inverse of `from_unit`."""
        u = theta.new_empty(*theta.shape[:-1], len(COORDINATES))
        for coordinate, parameter, (lo, hi), logarithmic in self._uniform_ranges():
            x = theta[..., parameter]
            u[..., coordinate] = torch.log(x / lo) / math.log(hi / lo) if logarithmic else (x - lo) / (hi - lo)
        betas = theta[..., 1:5]
        tail = betas.flip(-1).cumsum(-1).flip(-1)  # beta_i + ... + beta_4
        for i, power in enumerate(_DIRICHLET_POWERS):
            u[..., 1 + i] = (tail[..., i + 1] / tail[..., i].clamp(min=1e-30)) ** (1 / power)
        return u.clamp(0.0, 1.0)

    def to_dict(self) -> dict[str, list[float]]:
        """Return the ranges as plain numbers, for a model's specification."""
        return {name: list(values) for name, values in asdict(self).items()}

    @classmethod
    def from_dict(cls, spec: dict[str, list[float]]) -> Prior:
        """Build a prior from `to_dict`'s result."""
        return cls(**{name: (float(lo), float(hi)) for name, (lo, hi) in spec.items()})


def probit(u: Tensor) -> Tensor:
    """Map the unit cube to probit space; u is kept half a float32 step from 0 and 1, so the result is finite."""
    return torch.special.ndtri(u.clamp(_TINY, 1 - _TINY))


def unit(phi: Tensor) -> Tensor:
    """Map probit space to the unit cube, strictly inside it."""
    return torch.special.ndtr(phi).clamp(_TINY, 1 - _TINY)


def to_16_bits(u: Float[Tensor, "*batch coordinate"]) -> np.ndarray:
    """Return the unit cube as 16-bit integers, u times 2^16: how draws are stored; read as (integer + 1/2) / 2^16."""
    return np.floor(u.numpy() * 2.0**16).clip(0, 2**16 - 1).astype(np.uint16)
