"""Priors of redshifts that are inferred: a table of somebody's own, and BPZ's, of redshift and type, given the magnitude.

In: redshifts, and I-band magnitudes. Out: ln of p(z), or p(z | m) of one type or of all. At a known redshift it is the same factor
for all draws of a galaxy, and changes nothing.

Source: Benitez 2000 (ApJ 536, 571), equations 29 and 30 and table 1, fitted to the HDF-N; digits as BPZ's own code has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sedflow_dist.inference.relation import Numbers

Type = Literal["E", "Sbc", "Im"]


class RedshiftTable(BaseModel):
    """p(z) in bins: how many galaxies there are, relative to each other, in each; none beyond."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    edges: tuple[float, ...] = Field(min_length=2, description="of the bins, increasing")
    number: tuple[float, ...] = Field(min_length=1, description="of galaxies in each bin, in any unit")

    @model_validator(mode="after")
    def _check(self) -> RedshiftTable:
        if len(self.edges) != len(self.number) + 1:
            raise ValueError(
                f"{len(self.number)} bins have {len(self.number) + 1} edges, and there are {len(self.edges)}"
            )
        if not (np.isfinite(self.edges).all() and (np.diff(self.edges) > 0).all() and self.edges[0] >= 0):
            raise ValueError("edges of bins of redshift are finite, 0 or more, and increase")
        if not (np.isfinite(self.number).all() and min(self.number) >= 0 and sum(self.number) > 0):
            raise ValueError("numbers of galaxies are finite and 0 or more, and not all are 0")
        return self

    def log_pdf(self, z: Numbers) -> Numbers:
        """Return ln p(z) per unit of redshift; -inf where there is no galaxy."""
        edges, number = np.asarray(self.edges), np.asarray(self.number)
        density = np.append(number / np.diff(edges) / number.sum(), 0.0)
        at = np.searchsorted(edges, z, side="right") - 1
        with np.errstate(divide="ignore"):
            return np.log(np.where((at >= 0) & (z < edges[-1]), density[np.clip(at, 0, len(number))], 0.0))

    def describe(self) -> str:
        """Return what it is, in words."""
        return f"a table of {len(self.number)} bins from {self.edges[0]:g} to {self.edges[-1]:g}"


@dataclass(frozen=True)
class TypePrior:
    """One type's p(z | T, m), proportional to z^alpha exp(-(z / z_m)^alpha) with z_m = z_0 + k_m (m - 20), and its share at
    m, fraction exp(-k_t (m - 20)); None: what the other types leave."""

    alpha: float
    z_0: float
    k_m: float
    fraction: float | None = None
    k_t: float | None = None


#: Ellipticals, spirals (Sbc and Scd), irregulars and starbursts.
TYPES: dict[Type, TypePrior] = {
    "E": TypePrior(2.465, 0.431, 0.0913, 0.35, 0.450),
    "Sbc": TypePrior(1.806, 0.390, 0.0636, 0.50, 0.147),
    "Im": TypePrior(0.906, 0.0626, 0.123),
}
#: Magnitude (F814W, AB) of the fit's bright end, below which the prior is that of this magnitude, and the faintest, likewise.
BRIGHT, FAINT = 20.0, 32.0


class Benitez2000:
    """p(z | m), with m the AB magnitude in the I band (HST's F814W, or i without a large error)."""

    def log_pdf(self, z: Numbers, magnitude: Numbers, of: Type | None = None) -> Numbers:
        """Return ln p(z | m, T) of one type, or ln p(z | m), its mean over types; shapes broadcast. A density over z > 0."""
        if of is not None:
            return self._distribution(TYPES[of], magnitude).logpdf(z)
        shares = self.fractions(magnitude)
        return scipy.special.logsumexp(
            [self.log_pdf(z, magnitude, name) + np.log(shares[name]) for name in TYPES], axis=0
        )

    def cdf(self, z: Numbers, magnitude: Numbers, of: Type | None = None) -> Numbers:
        """Return the probability of a redshift below ``z``."""
        if of is not None:
            return self._distribution(TYPES[of], magnitude).cdf(z)
        shares = self.fractions(magnitude)
        return sum(shares[name] * self.cdf(z, magnitude, name) for name in TYPES)

    def fractions(self, magnitude: Numbers) -> dict[Type, Numbers]:
        """Return p(T | m) of each type; they add up to one."""
        m = np.clip(magnitude, BRIGHT, FAINT) - BRIGHT
        found = {
            name: t.fraction * np.exp(-t.k_t * m)
            for name, t in TYPES.items()
            if t.fraction is not None and t.k_t is not None
        }
        return {name: found.get(name, 1 - sum(found.values())) for name in TYPES}

    @staticmethod
    def _distribution(kind: TypePrior, magnitude: Numbers) -> scipy.stats.rv_frozen:
        """The same as scipy has it: a generalised gamma distribution, x^(c a - 1) exp(-x^c) with c = alpha, c a - 1 = alpha."""
        z_m = kind.z_0 + kind.k_m * (np.clip(magnitude, BRIGHT, FAINT) - BRIGHT)
        return scipy.stats.gengamma(a=(kind.alpha + 1) / kind.alpha, c=kind.alpha, scale=z_m)
