"""BPZ's prior on redshift and type, given the magnitude: for redshifts that are inferred.

In: redshifts and I-band magnitudes. Out: ln of p(z | m), of one type or of all. At a known redshift it is the same factor for
all draws of a galaxy, and changes nothing.

Source: Benitez 2000 (ApJ 536, 571), equations 29 and 30 and table 1, fitted to the HDF-N; digits as BPZ's own code has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy

from sedflow_dist.inference.relation import Numbers

Type = Literal["E", "Sbc", "Im"]


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
