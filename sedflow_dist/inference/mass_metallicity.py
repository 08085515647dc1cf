"""The mass-metallicity relation of Gallazzi et al. 2005 as a prior on metallicity, given the surviving mass.

In: log10 of metallicities (mass fractions) and of surviving masses [Msun]. Out: ln of the density per dex of metallicity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import scipy
from jaxtyping import Float
from pydantic import Field, model_validator

from sedflow_dist.inference.relation import Numbers, Relation

#: Gallazzi et al. 2005 (MNRAS 362, 41), table 2, as Prospector carries it: log10 of the stellar mass [Msun] (0.04 less than
#: printed: for a Chabrier IMF); of log10(Z / Zsun) the median, the 16 and the 84 % quantile.
TABLE = np.array([
    (8.87, -0.60, -1.11, -0.00), (9.07, -0.61, -1.07, -0.00), (9.27, -0.65, -1.10, -0.05), (9.47, -0.61, -1.03, -0.01),
    (9.68, -0.52, -0.97, 0.05), (9.87, -0.41, -0.90, 0.09), (10.07, -0.23, -0.80, 0.14), (10.27, -0.11, -0.65, 0.17),
    (10.47, -0.01, -0.41, 0.20), (10.68, 0.04, -0.24, 0.22), (10.87, 0.07, -0.14, 0.24), (11.07, 0.10, -0.09, 0.25),
    (11.27, 0.12, -0.06, 0.26), (11.47, 0.13, -0.04, 0.28), (11.68, 0.14, -0.03, 0.29), (11.87, 0.15, -0.03, 0.30),
])  # fmt: skip


class Gallazzi2005(Relation):
    """p(log Z | log M): normal about the relation's median, cut to a range and normalised there.

    Its sigma is half the distance of the 16 and 84 % quantiles, times ``widen``: Leja et al. 2019 (ApJ 876, 3) double it.
    Beyond the table the relation is that of the nearest mass. The relation's metallicities are weighted by light; here it
    is a prior on the one weighted by mass.
    """

    column: ClassVar[str] = "log_z_mw"
    given: ClassVar[tuple[str, ...]] = ("log_mstar_surviving",)

    widen: float = Field(1.0, gt=0, le=10, description="factor of the relation's scatter; 2: Leja et al. 2019")
    z_solar: float = Field(0.02, gt=0, lt=0.1, description="mass fraction that the relation calls solar")
    low: float = Field(-1.98, description="least log10(Z / Zsun)")
    high: float = Field(0.19, description="largest log10(Z / Zsun)")

    @model_validator(mode="after")
    def _check(self) -> Gallazzi2005:
        if not self.low < self.high:
            raise ValueError(f"low = {self.low:g} is not below high = {self.high:g}")
        return self

    def relation(self, log_mass: Numbers) -> tuple[Numbers, Numbers]:
        """Return mean and sigma of log10 Z (mass fraction) of the normal, before it is cut, at log10 of masses [Msun]."""
        mass, median, low, high = TABLE.T
        sigma = 0.5 * self.widen * (np.interp(log_mass, mass, high) - np.interp(log_mass, mass, low))
        return math.log10(self.z_solar) + np.interp(log_mass, mass, median), sigma

    def log_pdf(
        self,
        x: Float[np.ndarray, "galaxy draw"],
        given: Mapping[str, Float[np.ndarray, "galaxy draw"]],
        redshift: Float[np.ndarray, "galaxy 1"],
        lo: Float[np.ndarray, "galaxy 1"],
        hi: Float[np.ndarray, "galaxy 1"],
    ) -> Float[np.ndarray, "galaxy draw"]:
        """Return ln p(log Z | log M) per dex, normalised over what both the relation's range and the model's have."""
        mean, sigma = self.relation(given["log_mstar_surviving"])
        solar = math.log10(self.z_solar)
        lo, hi = np.maximum(lo, self.low + solar), np.minimum(hi, self.high + solar)
        density = scipy.stats.truncnorm.logpdf(x, (lo - mean) / sigma, (hi - mean) / sigma, mean, sigma)
        return np.where(lo < hi, density, -np.inf)  # an empty range has no density

    def describe(self) -> str:
        """Return source and settings, in words."""
        return (
            f"mass-metallicity relation of Gallazzi et al. 2005 on the mass-weighted metallicity, scatter times {self.widen:g}, "
            f"log10(Z/Zsun) from {self.low:g} to {self.high:g} with Zsun = {self.z_solar:g}"
        )
