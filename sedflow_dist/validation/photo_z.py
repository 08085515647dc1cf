"""How good inferred redshifts are: draws and true redshifts in, the figures by which photometric redshifts are judged out.

With e = (z - z_true) / (1 + z_true): sigma_IQR = (q75 - q25) / 1.349, bias the median, outliers beyond max(0.06, 3 sigma_IQR) and
beyond 0.15 (DESC: Schmidt et al. 2020, arXiv 2001.03621, section 5); the probability integral transform (PIT) tested against
uniform; the conditional density loss (Izbicki & Lee 2017), the mean of integral p(z)^2 dz - 2 p(z_true).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from jaxtyping import Bool, Float

_OUTLIER, FAR = 0.06, 0.15


@dataclass(frozen=True)
class PointFigures:
    """Figures of point estimates; ``outliers``: share beyond max(0.06, 3 sigma_IQR); ``far``: beyond 0.15."""

    sigma_iqr: float
    bias: float
    outliers: float
    far: float

    @classmethod
    def of(cls, redshift: Float[np.ndarray, " galaxy"], truth: Float[np.ndarray, " galaxy"]) -> PointFigures:
        """Judge point estimates by true redshifts."""
        e = (redshift - truth) / (1 + truth)
        low, middle, high = np.quantile(e, (0.25, 0.5, 0.75))
        sigma = (high - low) / 1.349
        beyond = np.mean(np.abs(e) > max(_OUTLIER, 3 * sigma))
        return cls(float(sigma), float(middle), float(beyond), float(np.mean(np.abs(e) > FAR)))


def pit(
    redshift: Float[np.ndarray, "galaxy draw"],
    weight: Float[np.ndarray, "galaxy draw"],
    truth: Float[np.ndarray, " galaxy"],
) -> Float[np.ndarray, " galaxy"]:
    """Return the probability below the true redshift, draws that equal it by half; ``weight`` adds up to one."""
    below, equal = redshift < truth[:, None], redshift == truth[:, None]
    return (weight * (below + 0.5 * equal)).sum(1)


def pit_distance(values: Float[np.ndarray, " galaxy"]) -> float:
    """Return the Kolmogorov-Smirnov distance of PIT values from uniform."""
    return float(scipy.stats.kstest(values, "uniform").statistic)


def density(
    redshift: Float[np.ndarray, "galaxy draw"],
    weight: Float[np.ndarray, "galaxy draw"],
    edges: Float[np.ndarray, " edge"],
) -> Float[np.ndarray, "galaxy bin"]:
    """Return p(z) of weighted draws in bins; draws beyond them count in the outermost."""
    n = len(edges) - 1
    at = np.clip(np.searchsorted(edges, redshift, side="right") - 1, 0, n - 1)
    flat = np.bincount((at + n * np.arange(len(at))[:, None]).ravel(), weight.ravel(), n * len(at))
    return flat.reshape(len(at), n) / np.diff(edges)


def cde_terms(
    density: Float[np.ndarray, "galaxy bin"], edges: Float[np.ndarray, " edge"], truth: Float[np.ndarray, " galaxy"]
) -> Float[np.ndarray, " galaxy"]:
    """Return what each galaxy adds to the conditional density loss, of densities in bins: its mean is the loss."""
    at = np.clip(np.searchsorted(edges, truth, side="right") - 1, 0, len(edges) - 2)
    squared = (density**2 * np.diff(edges)).sum(1)
    return squared - 2 * np.take_along_axis(density, at[:, None], 1)[:, 0]


def cde_loss(
    density: Float[np.ndarray, "galaxy bin"], edges: Float[np.ndarray, " edge"], truth: Float[np.ndarray, " galaxy"]
) -> float:
    """Return the conditional density loss of densities in bins: the lower the better."""
    return float(np.mean(cde_terms(density, edges, truth)))


@dataclass(frozen=True)
class Judged:
    """Galaxies whose true redshifts are known: point estimates, and of each the PIT and its part of the CDE loss.

    ``stacked``: the mean of their densities in bins between ``edges``.
    """

    redshift: Float[np.ndarray, " galaxy"]
    truth: Float[np.ndarray, " galaxy"]
    pit: Float[np.ndarray, " galaxy"]
    cde: Float[np.ndarray, " galaxy"]
    edges: Float[np.ndarray, " edge"]
    stacked: Float[np.ndarray, " bin"]

    @classmethod
    def of(
        cls,
        redshift: Float[np.ndarray, " galaxy"],
        density: Float[np.ndarray, "galaxy bin"],
        edges: Float[np.ndarray, " edge"],
        truth: Float[np.ndarray, " galaxy"],
    ) -> Judged:
        """Judge densities in bins and the point estimates that go with them."""
        below = np.concatenate([np.zeros((len(density), 1)), (density * np.diff(edges)).cumsum(1)], 1)
        pit = np.array([np.interp(z, edges, row) for z, row in zip(truth, below, strict=True)])
        return cls(redshift, truth, pit, cde_terms(density, edges, truth), edges, density.mean(0))

    @classmethod
    def joined(cls, parts: Sequence[Judged]) -> Judged:
        """Return the galaxies of several blocks together."""
        redshift, truth, pit, cde = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("redshift", "truth", "pit", "cde")
        )
        stacked = np.average([part.stacked for part in parts], axis=0, weights=[len(part.truth) for part in parts])
        return cls(redshift, truth, pit, cde, parts[0].edges, stacked)

    def figures(self, kept: Bool[np.ndarray, " galaxy"] | slice = slice(None)) -> dict[str, float]:
        """Return the figures of some galaxies by name: how many, those of points, the PIT's distance from uniform, CDE loss."""
        points = PointFigures.of(self.redshift[kept], self.truth[kept])
        of_densities = {"pit_ks": pit_distance(self.pit[kept]), "cde_loss": float(self.cde[kept].mean())}
        return {"n": len(self.truth[kept]), **vars(points), **of_densities}

    @property
    def number_distance(self) -> float:
        """The largest difference between cumulative distributions of redshifts: of the stacked densities, and of the truth."""
        stacked = np.cumsum(self.stacked * np.diff(self.edges))
        counted = np.searchsorted(np.sort(self.truth), self.edges[1:]) / len(self.truth)
        return float(np.abs(stacked - counted).max())
