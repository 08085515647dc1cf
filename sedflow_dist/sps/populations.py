"""Stellar populations of galaxies: parameters and redshift in, masses, ages and metallicities of 43 populations out.

Populations 0-40 are the fixed bins of lookback time, 41 is the bin that the age of the Universe cuts, 42 is the burst.
Source: PROVABGS (Hahn et al. 2022, arXiv 2202.01809, section 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sedflow_dist.parameters import Values
from sedflow_dist.sps import cosmology, histories

N_FIXED = len(histories.BIN_EDGES_GYR) - 1
CUT, BURST, N_POPULATIONS = N_FIXED, N_FIXED + 1, N_FIXED + 2

FIXED_AGES_GYR = 0.5 * (histories.BIN_EDGES_GYR[1:] + histories.BIN_EDGES_GYR[:-1])

_T_MAX_GYR, _N_TABLE = 14.0, 8193


@dataclass(frozen=True)
class Epoch:
    """What depends on the redshift alone: cosmic age, cut bin, factors of flux."""

    redshift: Float[Tensor, "*batch"]
    t_age: Float[Tensor, "*batch"]  # age of the Universe [Gyr]
    cut_index: Int[
        Tensor, "*batch"
    ]  # the fixed bin that t_age cuts (N_FIXED: none; the cut bin lies beyond the fixed ones)
    cut_age: Float[Tensor, "*batch"]  # age of the stars in the cut bin [Gyr]
    flux_factor: Float[Tensor, "*batch"]  # Lsun/A to 1e9 erg/s/cm2/A at the observer


@dataclass(frozen=True)
class Populations:
    """Simple stellar populations of galaxies, per unit of formed mass.

    ``age`` [Gyr] of the cut bin and of the burst only; the others have `FIXED_AGES_GYR`.
    """

    mass: Float[Tensor, "*batch population"]
    metallicity: Float[Tensor, "*batch population"]
    age: Float[Tensor, "*batch 2"]


@lru_cache(16)
def _cosmology_table(z_max: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Redshifts, and the age [Gyr] and comoving distance [Mpc] there: 4,097 integrals, a second's work that models share."""
    z = np.linspace(0.0, z_max, 4097)
    return z, np.asarray(cosmology.age_gyr(z)), np.asarray(cosmology.comoving_distance_mpc(z))


class PopulationModel:
    """Turn parameters into populations; metallicities are clipped to ``metallicity_range`` (mass fractions)."""

    def __init__(
        self, z_max: float, metallicity_range: tuple[float, float], dtype: torch.dtype = torch.float32
    ) -> None:
        self._metallicity_range = metallicity_range
        time = np.linspace(0.0, _T_MAX_GYR, _N_TABLE)
        tensor = lambda x: torch.as_tensor(np.asarray(x), dtype=dtype)  # noqa: E731
        self._metallicity_table = tensor(histories.metallicity_basis(time))
        self._cumulative_table = tensor(histories.sfh_cumulative(time))
        cumulative = histories.sfh_cumulative(histories.BIN_EDGES_GYR)
        self._bin_mass = tensor(np.diff(cumulative, axis=0).T)  # (basis, bin)
        self._edge_cumulative = tensor(cumulative)  # (edge, basis)
        self._fixed_metallicity = tensor(histories.metallicity_basis(FIXED_AGES_GYR).T)  # (basis, bin)
        self._z_grid, self._age_grid, self._distance_grid = _cosmology_table(z_max)
        self.dtype = dtype

    def epoch(self, redshift: Float[Tensor, " galaxy"]) -> Epoch:
        """Look up what depends on the redshift alone (float64 inside: a distance must not lose digits)."""
        z = redshift.detach().cpu().numpy().astype(np.float64)
        t_age = np.interp(z, self._z_grid, self._age_grid)
        distance = np.interp(z, self._z_grid, self._distance_grid)
        edges = histories.BIN_EDGES_GYR
        cut = np.searchsorted(edges, t_age, side="left") - 1
        tensor = lambda x: torch.as_tensor(x, dtype=self.dtype)  # noqa: E731
        return Epoch(
            redshift=tensor(z), t_age=tensor(t_age), cut_index=torch.as_tensor(cut),
            cut_age=tensor(0.5 * (edges[cut] + t_age)), flux_factor=tensor(cosmology.flux_factor(z, distance)),
        )  # fmt: skip

    def __call__(self, values: Values, epoch: Epoch) -> Populations:
        """Return the populations of galaxies with parameters (...); ``epoch``'s fields broadcast against their batch."""
        beta, gamma = values["beta"], values["gamma"]
        t_burst, f_burst = self._burst(values, epoch)
        total = self._formed(beta, epoch.t_age)
        smooth = ((1 - f_burst) / total).unsqueeze(-1)

        mass = beta.new_empty(*beta.shape[:-1], N_POPULATIONS)
        fixed = mass[..., :N_FIXED]
        fixed.copy_(beta @ self._bin_mass).mul_(smooth)
        if bool((epoch.cut_index < N_FIXED).any()):
            fixed.mul_(torch.arange(N_FIXED) < epoch.cut_index.unsqueeze(-1))
        before_cut = (beta * self._edge_cumulative[epoch.cut_index]).sum(-1)
        mass[..., CUT] = (total - before_cut).clamp(min=0.0) * smooth.squeeze(-1)
        mass[..., BURST] = f_burst

        metallicity = torch.empty_like(mass)
        metallicity[..., :N_FIXED] = gamma @ self._fixed_metallicity
        age = torch.stack([epoch.cut_age.expand_as(t_burst), t_burst], dim=-1)
        for i in (0, 1):
            basis = self._interpolate(self._metallicity_table, age[..., i])
            metallicity[..., CUT + i] = (gamma * basis).sum(-1)
        return Populations(mass, metallicity.clamp_(*self._metallicity_range), age)

    def mass_formed_within(self, values: Values, epoch: Epoch, window_gyr: float) -> Float[Tensor, "*batch"]:
        """Return the fraction of the mass that formed in the last ``window_gyr``, burst included."""
        beta = values["beta"]
        t_burst, f_burst = self._burst(values, epoch)
        smooth = self._formed(beta, epoch.t_age.clamp(max=window_gyr)) / self._formed(beta, epoch.t_age)
        return (1 - f_burst) * smooth + torch.where(t_burst < window_gyr, f_burst, 0.0)

    def _burst(self, values: Values, epoch: Epoch) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Lookback time [Gyr] of the burst, and its fraction of the mass: none before the Universe began."""
        t_burst = values["t_burst"]
        return t_burst, torch.where(t_burst < epoch.t_age, values["f_burst"], 0.0)

    def _formed(self, beta: Float[Tensor, "*#batch basis"], t_lookback: Float[Tensor, "*#batch"]) -> Tensor:
        """Integral of the smooth history from now back to ``t_lookback`` [Gyr], before it is normalised."""
        return (beta * self._interpolate(self._cumulative_table, t_lookback)).sum(-1)

    def _interpolate(
        self, table: Float[Tensor, "time basis"], t: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch basis"]:
        """Linear interpolation in a table on a uniform grid of lookback time (spacing 1.7 Myr: 1e-6 of a basis' peak)."""
        position = (t * ((_N_TABLE - 1) / _T_MAX_GYR)).clamp(0, _N_TABLE - 1.001)
        left = position.long()
        return torch.lerp(table[left], table[left + 1], (position - left).unsqueeze(-1))
