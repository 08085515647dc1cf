"""The stellar mass function of Leja et al. 2020 as a prior: on the mass at a redshift, and, with the volume, on the redshift.

In: log10 of the surviving mass [Msun] and redshifts. Out: ln of densities per dex, per Mpc^3, per unit of redshift.

Source: Leja et al. 2020 (ApJ 893, 111), the continuity model, its table 3 and appendix B; as a prior together with the volume,
Wang et al. 2023 (Prospector-beta). Masses are surviving ones, under a Chabrier (2003) IMF; the volume is Planck13's, as all
distances here, where theirs is WMAP9's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from pydantic import Field
from scipy import integrate, special

from sedflow_dist.inference.relation import Numbers, Relation
from sedflow_dist.sps.cosmology import comoving_volume_mpc3

#: Redshifts at which the parameters are given; between them they are quadratic in redshift, beyond them constant.
ANCHORS = (0.2, 1.6, 3.0)
_LOG_PHI = ((-2.44, -3.08, -4.14), (-2.89, -3.29, -3.51))  # log10 of phi [Mpc^-3 dex^-1] of both Schechter functions
_LOG_M = (10.79, 10.88, 10.84)  # log10 of M* [Msun], shared
_ALPHA = (-0.28, -1.48)
_LN_10 = math.log(10)


def at_redshift(values: tuple[float, float, float], z: Numbers) -> Numbers:
    """Return a parameter at redshifts: the quadratic through its values at the `ANCHORS`, held at their ends."""
    return np.polyval(np.polyfit(ANCHORS, values, 2), np.clip(z, ANCHORS[0], ANCHORS[-1]))


class Leja2020(Relation):
    """p(log M | z): the double Schechter function per dex above ``min``, normalised at each redshift."""

    column: ClassVar[str] = "log_mstar_surviving"

    min: float = Field(7.0, ge=4, le=12, description="log10 of the least surviving mass [Msun]")

    def log_phi(self, log_mass: Numbers, z: Numbers) -> Numbers:
        """Return ln of the number of galaxies per Mpc^3 and dex, at any mass; shapes broadcast."""
        x = _LN_10 * (log_mass - at_redshift(_LOG_M, z))  # ln(M / M*)
        first, second = (
            _LN_10 * at_redshift(log_phi, z) + (alpha + 1) * x for log_phi, alpha in zip(_LOG_PHI, _ALPHA, strict=True)
        )
        return math.log(_LN_10) + np.logaddexp(np.asarray(first), np.asarray(second)) - np.exp(np.minimum(x, 700.0))

    def number(self, z: Numbers) -> Numbers:
        """Return the number of galaxies per Mpc^3 more massive than ``min``: incomplete gamma functions."""
        least = 10 ** (self.min - at_redshift(_LOG_M, z))
        parts = zip(_LOG_PHI, _ALPHA, strict=True)
        return sum(10 ** at_redshift(log_phi, z) * _upper_gamma(alpha + 1, least) for log_phi, alpha in parts)

    def log_pdf(
        self,
        x: Float[np.ndarray, "galaxy draw"],
        given: Mapping[str, Float[np.ndarray, "galaxy draw"]],
        redshift: Float[np.ndarray, "galaxy 1"],
        lo: Float[np.ndarray, "galaxy 1"],
        hi: Float[np.ndarray, "galaxy 1"],
    ) -> Float[np.ndarray, "galaxy draw"]:
        """Return ln p(log M | z) per dex; zero below ``min``. What a model's own range cuts off is not made up for."""
        return np.where(x >= self.min, self.log_phi(x, redshift) - np.log(self.number(redshift)), -np.inf)

    def describe(self) -> str:
        """Return source and settings, in words."""
        return (
            f"mass function of Leja et al. 2020, surviving masses above 10^{self.min:g} Msun, its parameters held at those of "
            f"z = {ANCHORS[0]:g} and {ANCHORS[-1]:g} beyond"
        )


class NumberDensity:
    """p(z) of galaxies more massive than a limit, n(> min, z) dV/dz normalised from ``low`` to ``high``; also p(z, log M).

    For redshifts that are inferred: at a known one the volume is a constant factor of all draws.
    """

    def __init__(self, mass: Leja2020, low: float, high: float) -> None:
        if not 0 <= low < high:
            raise ValueError(f"redshifts from {low:g} to {high:g}: expected 0 <= low < high")
        self.mass, self.low, self.high = mass, low, high
        inside = [z for z in ANCHORS if low < z < high]  # where the parameters have a kink
        number, _ = integrate.quad(
            lambda z: float(self._per_redshift(np.asarray(z))), low, high, points=inside, limit=200, epsrel=1e-9
        )
        self._log_number = math.log(number)

    def _per_redshift(self, z: Numbers) -> Numbers:
        return self.mass.number(z) * comoving_volume_mpc3(z)

    def log_pdf(self, z: Numbers) -> Numbers:
        """Return ln p(z) per unit of redshift; -inf outside the range."""
        inside = (z >= self.low) & (z <= self.high) & (z > 0)
        density = self._per_redshift(np.where(inside, z, 0.5 * (self.low + self.high)))
        return np.where(inside, np.log(density) - self._log_number, -np.inf)

    def describe(self) -> str:
        """Return what it is, in words."""
        return f"volume times the {self.mass.describe()}"

    def log_joint(self, log_mass: Numbers, z: Numbers) -> Numbers:
        """Return ln p(z, log M), per unit of redshift and dex: what the weights of draws at many redshifts need."""
        at_z = self.mass.log_phi(log_mass, z) - np.log(self.mass.number(z))
        return np.where(log_mass >= self.mass.min, self.log_pdf(z) + at_z, -np.inf)


def _upper_gamma(a: float, x: Numbers) -> Numbers:
    """Return the upper incomplete gamma function of any a but 0, -1, ...: scipy has a > 0; by its recurrence in a."""
    if a > 0:
        return special.gammaincc(a, x) * special.gamma(a)
    return (_upper_gamma(a + 1, x) - x**a * np.exp(-x)) / a
