"""Calibration checks: what is uniform passes, what is biased or overconfident is caught."""

import numpy as np
import pytest
from scipy import stats

from sedflow_dist.calibration import band_half_width, check, histogram_band, pp_curve

N, M = 1000, 6


def gaussian_ranks(shift=0.0, width=1.0, seed=0, n=N):
    """Ranks of true values of N(0, 1) in posteriors N(shift, width^2) around the data's own: 1 is calibrated."""
    truth = np.random.default_rng(seed).standard_normal((n, M))
    return stats.norm.cdf((truth - shift) / width)


def test_uniform_ranks_pass():
    found = check(gaussian_ranks())
    assert found.pooled > 0.01
    assert found.inside.all()
    assert found.p_values.shape == (M,)
    assert (found.p_values > 1e-3).all()


def test_uniform_ranks_pass_as_often_as_the_level_says():
    """The 99 % band holds 99 % of calibrated curves (the grid of the curve makes that a little more)."""
    inside = np.mean([check(gaussian_ranks(seed=s, n=200)).inside for s in range(100)])
    assert 0.975 < inside <= 1


@pytest.mark.parametrize(("name", "ranks"), [
    ("biased", gaussian_ranks(shift=0.3)), ("overconfident", gaussian_ranks(width=0.75)),
    ("underconfident", gaussian_ranks(width=1.35)),
])  # fmt: skip
def test_wrong_posteriors_are_caught(name, ranks):
    found = check(ranks)
    assert found.pooled < 1e-6
    assert (found.p_values < 1e-3).all()
    assert not found.inside.any()


def test_one_wrong_parameter_is_the_one_named():
    ranks = gaussian_ranks()
    ranks[:, 2] = ranks[:, 2] ** 1.5
    found = check(ranks)
    assert found.inside.tolist() == [True, True, False, True, True, True]
    assert found.p_values.argmin() == 2


def test_opposite_biases_do_not_cancel_in_the_parameters():
    """They do in the pooled test, which is why parameters are tested too."""
    ranks = np.concatenate([gaussian_ranks(shift=0.2)[:, :3], gaussian_ranks(shift=-0.2)[:, 3:]], axis=1)
    assert not check(ranks).inside.any()


def test_the_curve_is_the_empirical_distribution():
    ranks = np.array([[0.1, 0.5], [0.2, 0.5], [0.9, 0.5]])
    grid, curve = pp_curve(ranks)
    assert grid[0] == 0
    assert grid[-1] == 1
    assert curve.shape == (201, 2)
    at = lambda p: curve[np.argmin(np.abs(grid - p))].tolist()  # noqa: E731
    assert at(0.0) == [0, 0]
    assert at(0.5) == pytest.approx([2 / 3, 1])
    assert at(0.45) == pytest.approx([2 / 3, 0])
    assert at(1.0) == [1, 1]


@pytest.mark.parametrize("n", [10, 100, 1000])
@pytest.mark.parametrize("level", [0.95, 0.99])
def test_the_band_is_the_kolmogorov_smirnov_one(n, level):
    """A curve that just touches the band has the p-value 1 - level."""
    half = band_half_width(n, level)
    assert stats.kstwo.sf(half, n) == pytest.approx(1 - level, rel=1e-6)
    ranks = (np.arange(n) + 1) / n - half  # the empirical distribution runs ahead by exactly half, where it can
    ranks = np.clip(ranks, 0, 1)
    assert stats.kstest(ranks, "uniform", method="exact").pvalue == pytest.approx(1 - level, rel=1e-3)
    assert half < band_half_width(n // 2, level)


def test_histogram_bins_keep_to_their_band():
    lo, hi = histogram_band(2000, 20)
    assert lo < 100 < hi
    assert stats.binom.cdf(hi, 2000, 1 / 20) - stats.binom.cdf(lo - 1, 2000, 1 / 20) >= 0.99
    assert stats.binom.cdf(hi - 1, 2000, 1 / 20) - stats.binom.cdf(lo, 2000, 1 / 20) < 0.995
    counts = np.histogram(gaussian_ranks(n=2000)[:, 0], 20, (0, 1))[0]
    assert ((counts >= lo) & (counts <= hi)).sum() >= 18
