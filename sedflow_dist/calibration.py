"""Calibration checks: ranks of true parameters among posterior draws in, statistics out. Plain functions of arrays.

Sources: simulation-based calibration, Talts et al. 2018 (arXiv 1804.06788); p-p and pooled Kolmogorov-Smirnov test as in
SEDflow (Hahn & Melchior 2022, section 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Calibration:
    """Kolmogorov-Smirnov tests of ranks against uniform: ``pooled`` over all parameters and of each (param,).

    ``inside``: whether the p-p curve of a parameter stays inside the 99 % band, (param,).
    """

    pooled: float
    p_values: np.ndarray
    inside: np.ndarray


def check(ranks: np.ndarray, level: float = 0.99) -> Calibration:
    """Test ranks in [0, 1], shape (galaxy, param), for uniformity."""
    p_values = np.array([stats.kstest(column, "uniform").pvalue for column in ranks.T])
    grid, curve = pp_curve(ranks)
    deviation = np.abs(curve - grid[:, None]).max(axis=0)
    return Calibration(
        pooled=float(stats.kstest(ranks.ravel(), "uniform").pvalue),
        p_values=p_values,
        inside=deviation <= band_half_width(len(ranks), level),
    )


def pp_curve(ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities (grid,) and the fraction of galaxies with a rank below each (grid, param)."""
    grid = np.linspace(0, 1, 201)
    ordered = np.sort(ranks, axis=0)
    return grid, np.stack([np.searchsorted(column, grid, side="right") for column in ordered.T], axis=1) / len(ranks)


def band_half_width(n_galaxies: int, level: float = 0.99) -> float:
    """Half width of the band that the whole p-p curve of a calibrated posterior stays inside with this probability."""
    return float(stats.kstwo.ppf(level, n_galaxies))


def histogram_band(n_galaxies: int, bins: int, level: float = 0.99) -> tuple[float, float]:
    """Range of counts that one bin of a rank histogram keeps to with this probability (binomial)."""
    tail = (1 - level) / 2
    lo, hi = stats.binom.ppf([tail, 1 - tail], n_galaxies, 1 / bins)
    return float(lo), float(hi)
