"""Calibration checks: what is uniform passes, what is biased or overconfident is caught."""

import numpy as np
import pytest
from scipy import stats

from sedflow_dist.inference.goodness_of_fit import posterior_predictive
from sedflow_dist.validation.coverage import (
    band_half_width,
    by_group,
    c2st,
    check,
    expected_coverage,
    histogram_band,
    pp_curve,
    prior_predictive,
    quantile_bins,
    tarp,
)

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


# -- ranks ------------------------------------------------------------------------------------------------------------


def cube(shift=0.0, width=1.0, n=400, draws=300, dim=4, seed=0):
    """Draws and truths in the unit cube: truths from N(0, 1), draws from N(shift, width^2), both through Phi."""
    rng = np.random.default_rng(seed)
    z = shift + width * rng.standard_normal((n, draws, dim))
    return stats.norm.cdf(z), stats.norm.cdf(rng.standard_normal((n, dim))), z


def gaussian_log_q(z):
    return -0.5 * (z**2).sum(-1)


def test_coverage_of_a_right_posterior_is_uniform():
    """Both ranks at the level of the 99 % band: one of a hundred seeds may fall out, and this one does not."""
    draws, truth, z = cube()
    found = check(tarp(draws, None, truth, seed=1)[:, None])
    assert found.inside.all()
    assert found.pooled > 0.01
    assert check(
        expected_coverage(gaussian_log_q(z), None, gaussian_log_q(stats.norm.ppf(truth)))[:, None]
    ).inside.all()


@pytest.mark.parametrize("width", [0.6, 1.5])
def test_coverage_catches_wrong_widths(width):
    """Widths off by half are several 99 % bands (0.08 for 400 galaxies) away."""
    draws, truth, z = cube(width=width)
    assert not check(tarp(draws, None, truth, seed=1)[:, None]).inside.any()
    log_q = expected_coverage(gaussian_log_q(z / width), None, gaussian_log_q(stats.norm.ppf(truth) / width))
    assert not check(log_q[:, None]).inside.any()


def test_a_shift_shared_by_all_galaxies_shows_in_the_coverage_more_than_in_tarp():
    """Random points lie on either side of it: 400 galaxies do not show half a sigma to TARP, 4,000 show a whole one."""
    draws, truth, z = cube(shift=0.5)
    level = expected_coverage(gaussian_log_q(z - 0.5), None, gaussian_log_q(stats.norm.ppf(truth) - 0.5))
    assert not check(level[:, None]).inside.any()
    assert check(tarp(draws, None, truth, seed=1)[:, None]).inside.all()
    draws, truth, _ = cube(shift=1.0, n=4000, draws=100)
    assert not check(tarp(draws, None, truth, seed=1)[:, None]).inside.any()


def test_overconfidence_leaves_truths_outside_of_the_densest_regions():
    """Half of the truths would be a median level of 0.5; a posterior too narrow by 0.6 puts it near 1."""
    _, truth, z = cube(width=0.6)
    level = expected_coverage(gaussian_log_q(z), None, gaussian_log_q(stats.norm.ppf(truth)))
    assert np.median(level) > 0.85


def test_ranks_by_hand():
    """A reference in the cube is never as far as 9; weights count instead of draws."""
    draws = np.array([[[0.5], [0.5], [9.0], [9.0]]])
    truth = np.array([[3.0]])
    weight = np.array([[0.1, 0.2, 0.3, 0.4]])
    assert tarp(draws, None, truth, seed=0).tolist() == [0.5]
    assert tarp(draws, weight, truth, seed=0) == pytest.approx([0.3])
    log_q = np.array([[1.0, 2.0, 3.0, 4.0]])
    assert expected_coverage(log_q, None, np.array([2.5])).tolist() == [0.5]
    assert expected_coverage(log_q, weight, np.array([2.5])) == pytest.approx([0.7])
    assert expected_coverage(log_q, None, np.array([9.0])).tolist() == [0.0]


def test_the_same_seed_draws_the_same_references():
    draws, truth, _ = cube(n=20)
    assert np.array_equal(tarp(draws, None, truth, 3), tarp(draws, None, truth, 3))
    assert not np.array_equal(tarp(draws, None, truth, 3), tarp(draws, None, truth, 4))


def test_weights_count_as_resampled_draws():
    """Draws repeated as often as a weight of whole numbers says give the same ranks and p-values."""
    draws, truth, z = cube(shift=0.3, n=50, draws=40)
    times = np.random.default_rng(5).multinomial(200, np.full(40, 1 / 40), 50)
    weight = times / 200
    index = np.stack([np.repeat(np.arange(40), row) for row in times])
    repeated = np.take_along_axis(draws, index[..., None], 1)
    assert tarp(draws, weight, truth, 1) == pytest.approx(tarp(repeated, None, truth, 1))
    log_q, log_q_truth = gaussian_log_q(z), gaussian_log_q(stats.norm.ppf(truth))
    resampled = np.take_along_axis(log_q, index, 1)
    assert expected_coverage(log_q, weight, log_q_truth) == pytest.approx(
        expected_coverage(resampled, None, log_q_truth)
    )
    chi2, n_bands = -2 * log_q, np.full(50, 4)
    resampled = np.take_along_axis(chi2, index, 1)
    assert posterior_predictive(chi2, n_bands, weight) == pytest.approx(posterior_predictive(resampled, n_bands, None))


def test_importance_weights_repair_a_biased_posterior():
    """Ranks of draws from N(0.5, 1), weighed towards N(0, 1), stay inside the band that the plain ones leave."""
    draws, truth, z = cube(shift=0.5, draws=1000, dim=2)
    weight = np.exp(gaussian_log_q(z) - gaussian_log_q(z - 0.5))
    weight /= weight.sum(1, keepdims=True)
    log_q, log_q_truth = gaussian_log_q(z - 0.5), gaussian_log_q(stats.norm.ppf(truth) - 0.5)
    assert not check(expected_coverage(log_q, None, log_q_truth)[:, None]).inside.any()
    assert check(expected_coverage(log_q, weight, log_q_truth)[:, None]).inside.all()
    assert check(tarp(draws, weight, truth, 2)[:, None]).inside.all()


# -- groups -----------------------------------------------------------------------------------------------------------


def test_groups_are_checked_apart():
    ranks = np.concatenate([gaussian_ranks(n=300), gaussian_ranks(shift=0.5, n=300, seed=1)])
    groups = np.repeat(["good", "biased"], 300)
    found = by_group(ranks, groups)
    assert found.keys() == {"good", "biased"}
    assert found["good"].inside.all()
    assert not found["biased"].inside.any()
    assert found["good"].pooled == check(ranks[:300]).pooled


def test_quantile_bins_hold_equal_numbers_and_are_named_by_their_edges():
    names, counts = np.unique(quantile_bins(np.arange(101.0), 4), return_counts=True)
    assert sorted(names) == ["0-25", "25-50", "50-75", "75-100"]
    assert sorted(counts) == [25, 25, 25, 26]


# -- samples ----------------------------------------------------------------------------------------------------------


def test_c2st_is_half_for_like_samples_whatever_their_scales():
    """The accuracy of guessing on 1,000 draws has a standard deviation of 0.5 / sqrt(1000) = 0.016; four are allowed."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 500, 2)) @ np.array([[1e-3, 1.0], [0.0, 1e-2]]) + 7
    assert c2st(a, b, seed=1) == pytest.approx(0.5, abs=0.064)


def test_c2st_approaches_the_best_classifier_and_one():
    """Two sigma apart: no classifier is right more often than Phi(1) = 0.84, a forest a little less. 30 sigma: always."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 500, 2))
    assert 0.75 < c2st(a, b + np.array([2.0, 0.0]), seed=1) < 0.88
    assert c2st(a, b + 30, seed=1) > 0.99


# -- data -------------------------------------------------------------------------------------------------------------


def test_posterior_predictive_probability_is_the_chi_squared_one():
    chi2 = np.array([[5.0, 5.0], [0.0, 1e4]])
    found = posterior_predictive(chi2, np.array([5, 3]), None)
    assert found == pytest.approx([stats.chi2.sf(5, 5), 0.5])
    assert posterior_predictive(chi2, np.array([5, 3]), np.array([[0.5, 0.5], [0.0, 1.0]]))[1] == pytest.approx(0)


def test_posterior_predictive_of_the_true_model_is_uniform():
    """With the truth itself as the only draw; around it, it is narrower."""
    chi2 = np.random.default_rng(0).chisquare(5, (1000, 1))
    assert check(posterior_predictive(chi2, np.full(1000, 5), None)[:, None]).inside.all()


def test_prior_predictive_is_the_distance_of_each_colour():
    rng = np.random.default_rng(0)
    training, catalog = rng.standard_normal((2, 4000, 3))
    catalog[:, 1] += 1.0  # KS distance of two normals a sigma apart: 2 Phi(1/2) - 1 = 0.383
    catalog[:, 2] += 50.0
    catalog[::3, 0] = np.nan
    found = prior_predictive(training, catalog)
    assert found[0] < 0.04  # 99 % of like samples: 1.63 sqrt(1 / 4000 + 1 / 2667) = 0.041
    assert found[1] == pytest.approx(0.383, abs=0.03)
    assert found[2] == 1.0
    catalog[:, 0] = np.nan
    assert np.isnan(prior_predictive(training, catalog)[0])
