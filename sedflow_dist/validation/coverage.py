"""Calibration checks: draws and truths in, ranks out; ranks in, statistics out. Plain functions of arrays.

Whatever the check, the rank of a galaxy is uniform in [0, 1] if the posterior is right, so `check`, `pp_curve` and
`band_half_width` judge them all. ``weight`` (galaxy, draw) adds up to one for each galaxy; None: draws count alike.
docs/checks.md says which check answers which question.

Sources: simulation-based calibration, Talts et al. 2018 (arXiv 1804.06788); p-p and pooled Kolmogorov-Smirnov test as in
SEDflow (Hahn & Melchior 2022, section 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy
import torch
from jaxtyping import Bool, Float, Real, Shaped


@dataclass(frozen=True)
class Calibration:
    """Kolmogorov-Smirnov tests of ranks against uniform: ``pooled`` over all parameters and of each.

    ``inside``: whether the p-p curve of a parameter stays inside the 99 % band.
    """

    pooled: float
    p_values: Float[np.ndarray, " param"]
    inside: Bool[np.ndarray, " param"]


def check(ranks: Float[np.ndarray, "galaxy param"], level: float = 0.99) -> Calibration:
    """Test ranks in [0, 1] for uniformity."""
    p_values = np.array([scipy.stats.kstest(column, "uniform").pvalue for column in ranks.T])
    grid, curve = pp_curve(ranks)
    deviation = np.abs(curve - grid[:, None]).max(axis=0)
    return Calibration(
        pooled=float(scipy.stats.kstest(ranks.ravel(), "uniform").pvalue),
        p_values=p_values,
        inside=deviation <= band_half_width(len(ranks), level),
    )


def pp_curve(
    ranks: Float[np.ndarray, "galaxy param"],
) -> tuple[Float[np.ndarray, " grid"], Float[np.ndarray, "grid param"]]:
    """Return probabilities and the fraction of galaxies with a rank below each."""
    grid = np.linspace(0, 1, 201)
    ordered = np.sort(ranks, axis=0)
    return grid, np.stack([np.searchsorted(column, grid, side="right") for column in ordered.T], axis=1) / len(ranks)


def band_half_width(n_galaxies: int, level: float = 0.99) -> float:
    """Half width of the band that the whole p-p curve of a calibrated posterior stays inside with this probability."""
    return float(scipy.stats.kstwo.ppf(level, n_galaxies))


def histogram_band(n_galaxies: int, bins: int, level: float = 0.99) -> tuple[float, float]:
    """Range of counts that one bin of a rank histogram keeps to with this probability (binomial)."""
    tail = (1 - level) / 2
    lo, hi = scipy.stats.binom.ppf([tail, 1 - tail], n_galaxies, 1 / bins)
    return float(lo), float(hi)


def by_group(ranks: Float[np.ndarray, "galaxy param"], groups: Shaped[np.ndarray, " galaxy"]) -> dict[str, Calibration]:
    """`check` the ranks of each group; ``groups`` names the group of each galaxy."""
    return {str(name): check(ranks[groups == name]) for name in np.unique(groups)}


def quantile_bins(values: Real[np.ndarray, " galaxy"], bins: int) -> Shaped[np.ndarray, " galaxy"]:
    """Name the bin of each value by its edges, as in "5.1-8.9"; bins hold equal numbers of galaxies."""
    edges = np.quantile(values, np.linspace(0, 1, bins + 1))
    names = np.array([f"{lo:.3g}-{hi:.3g}" for lo, hi in pairwise(edges)])
    return names[np.searchsorted(edges[1:-1], values, side="right")]


# -- ranks ------------------------------------------------------------------------------------------------------------


def tarp(
    draws: Float[np.ndarray, "galaxy draw dimension"],
    weight: Float[np.ndarray, "galaxy draw"] | None,
    truth: Float[np.ndarray, "galaxy dimension"],
    seed: int,
) -> Float[np.ndarray, " galaxy"]:
    """Return the fraction of draws that are nearer to a random point than the truth is.

    Uniform if the posterior is right in all dimensions together. A shift that all galaxies share shows weakly: it brings
    draws nearer to some points and farther from others. Source: TARP, Lemos et al. 2023 (arXiv 2302.03026).

    Args:
        draws, truth: coordinates of the unit cube
        seed: of the reference points, one a galaxy, uniform in the cube
    """
    reference = np.random.default_rng(seed).random(truth.shape)
    distance = ((draws - reference[:, None]) ** 2).sum(-1)
    return _mean(distance < ((truth - reference) ** 2).sum(-1)[:, None], weight)


def expected_coverage(
    log_q: Float[np.ndarray, "galaxy draw"],
    weight: Float[np.ndarray, "galaxy draw"] | None,
    log_q_truth: Float[np.ndarray, " galaxy"],
) -> Float[np.ndarray, " galaxy"]:
    """Return the credible level of the highest-density region that the truth lies on the edge of.

    That is the fraction of draws whose log q exceeds the truth's.
    Source: Hermans et al. 2022 (arXiv 2110.06581).
    """
    return _mean(log_q > log_q_truth[:, None], weight)


# -- samples ----------------------------------------------------------------------------------------------------------


def c2st(a: Float[np.ndarray, "draw dimension"], b: Float[np.ndarray, "other dimension"], seed: int) -> float:
    """Return how often a classifier tells two samples apart: 0.5 if they are alike, 1 if disjoint.

    sbi's random forest with five-fold cross-validation, in the coordinates in which ``a`` has unit covariance. Weighted
    samples have to be resampled before. Source: Lopez-Paz & Oquab 2017 (arXiv 1610.06545).
    """
    from sbi.utils.metrics import c2st as score

    factor = np.linalg.cholesky(np.cov(a, rowvar=False))
    white = [scipy.linalg.solve_triangular(factor, (x - a.mean(0)).T, lower=True).T for x in (a, b)]
    return float(score(torch.as_tensor(white[0]), torch.as_tensor(white[1]), seed=seed, z_score=False))


# -- data -------------------------------------------------------------------------------------------------------------


def prior_predictive(
    training: Float[np.ndarray, "mock colour"], catalog: Float[np.ndarray, "galaxy colour"]
) -> Float[np.ndarray, " colour"]:
    """Return the Kolmogorov-Smirnov distance of each colour between two sets of galaxies.

    NaN: not measured. 0: the same distribution; 1: the catalog lies where no training galaxy does.
    """
    pairs = [(x[np.isfinite(x)], y[np.isfinite(y)]) for x, y in zip(training.T, catalog.T, strict=True)]
    return np.array([scipy.stats.ks_2samp(x, y).statistic if len(x) and len(y) else np.nan for x, y in pairs])


def _mean(
    values: Bool[np.ndarray, "galaxy draw"], weight: Float[np.ndarray, "galaxy draw"] | None
) -> Float[np.ndarray, " galaxy"]:
    """Mean over draws."""
    return values.mean(1) if weight is None else (values * weight).sum(1)
