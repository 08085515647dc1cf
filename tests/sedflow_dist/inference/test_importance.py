"""Importance weights: evidence, effective fraction and Pareto smoothing against ArviZ and closed forms."""

import math

import arviz
import numpy as np
import pytest
import torch
from scipy import stats

from sedflow_dist.inference import importance

RNG = np.random.default_rng(6)


def quantiles(n):
    """Midpoints of (0, 1) in a random order."""
    return RNG.permutation((np.arange(n) + 0.5) / n)


def certify(*log_weight):
    return importance.certify(torch.as_tensor(np.array(log_weight)))


# -- Pareto smoothing -------------------------------------------------------------------------------------------------

TAILS = {
    "bounded": lambda n: np.log(RNG.uniform(size=n)),
    "normal, narrow": lambda n: 0.1 * RNG.standard_normal(n),
    "normal, wide": lambda n: 3 * RNG.standard_normal(n),
    "power 0.5": lambda n: -0.5 * np.log(RNG.uniform(size=n)),
    "power 0.9": lambda n: -0.9 * np.log(RNG.uniform(size=n)),
    "power 3": lambda n: -3 * np.log(RNG.uniform(size=n)),
}


@pytest.mark.parametrize("n", [25, 103, 1000, 2048])  # 103: a fifth of the draws is no whole number
@pytest.mark.parametrize("name", TAILS)
def test_smoothing_is_arvizs(name, n):
    """To 1e-10, rounding of float64: it is the same algorithm."""
    log_weight = np.stack([TAILS[name](n) for _ in range(20)])
    expected, k = arviz.psislw(log_weight)
    smoothed, found = importance.pareto_smooth(torch.softmax(torch.as_tensor(log_weight), -1))
    np.testing.assert_allclose(found, k, rtol=0, atol=1e-10)
    np.testing.assert_allclose(smoothed, np.exp(expected), rtol=0, atol=1e-10)
    assert np.abs(np.exp(expected) - torch.softmax(torch.as_tensor(log_weight), -1).numpy()).max() > 1e-6


@pytest.mark.parametrize("a", [-0.7, -0.3, 0.2, 0.5, 0.7, 1.0, 1.5])
def test_k_is_the_shape_of_the_tail(a):
    """Weights (1/u^a - 1) / a have a Pareto tail of shape a, bounded where a < 0.

    Theirs are its quantiles, without noise: 0.03 is for the fit's own bias.
    """
    _, k = importance.pareto_smooth(torch.as_tensor((quantiles(100_000) ** -a - 1) / a).unsqueeze(0))
    assert float(k) == pytest.approx(a, abs=0.03)


@pytest.mark.parametrize("name", TAILS)
@pytest.mark.parametrize("n", [25, 400])
def test_smoothed_weights_add_up_keep_their_order_and_none_outgrows_the_largest(name, n):
    """Largest against smallest, which smoothing leaves alone: 1e-9 is rounding."""
    raw = torch.softmax(torch.as_tensor(np.stack([TAILS[name](n) for _ in range(200)])), -1)
    smoothed, _ = importance.pareto_smooth(raw)
    torch.testing.assert_close(smoothed.sum(-1), torch.ones(200, dtype=torch.float64), rtol=1e-12, atol=0)
    assert bool((smoothed.gather(-1, raw.argsort(-1)).diff(dim=-1) >= -1e-15).all())
    contrast, before = (w.amax(-1) / w.gather(-1, raw.argmin(-1, keepdim=True)).squeeze(-1) for w in (smoothed, raw))
    assert bool((contrast <= before * (1 + 1e-9)).all())
    if name.startswith("power"):
        assert bool((contrast < 0.999 * before).any())  # and it does smooth


# -- evidence and effective fraction ----------------------------------------------------------------------------------


def gaussian(x, mean, std, log_z):
    """Log-weights for draws ``x`` of N(mean, std), of a target e^log_z N(0, 1)."""
    return log_z + stats.norm.logpdf(x) - stats.norm.logpdf(x, mean, std)


def gaussian_fraction(mean, std):
    """E[w]^2 / E[w^2]: the integral of N(0, 1)^2 / N(mean, std) is a Gaussian's."""
    return math.sqrt(2 * std**2 - 1) / std**2 * math.exp(-(mean**2) / (2 * std**2 - 1))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.0, 1.5), (0.5, 1.2), (-1.0, 2.0)])
def test_fraction_and_evidence_of_gaussian_proposals(mean, std):
    """Draws are quantiles of the proposal, so without Monte-Carlo noise: 1e-4 of ln Z, 1e-3 of fraction and error."""
    n = 20_000
    found = certify(gaussian(stats.norm.ppf(quantiles(n), mean, std), mean, std, -37.0))
    fraction = gaussian_fraction(mean, std)
    assert float(found.log_evidence) == pytest.approx(-37.0, abs=1e-4)
    assert float(found.effective_fraction) == pytest.approx(fraction, rel=1e-3)
    assert float(found.log_evidence_error) == pytest.approx(math.sqrt((1 / fraction - 1) / n), rel=1e-3, abs=1e-8)


def test_the_error_is_the_scatter_of_the_evidence():
    """2,000 sets of random draws know a standard deviation to 1.6 %: 6 % is four times that."""
    x = stats.norm.rvs(0.5, 1.3, size=(2000, 500), random_state=3)
    found = certify(*gaussian(x, 0.5, 1.3, 4.0))
    scatter = float(found.log_evidence.std())
    assert float(found.log_evidence_error.mean()) == pytest.approx(scatter, rel=0.06)
    assert float(found.log_evidence.mean()) == pytest.approx(4.0, abs=4 * scatter / math.sqrt(2000) + scatter**2)


# -- degenerate weights -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-1e5, 0.0, 1e4])
def test_equal_weights_are_certified_as_perfect(value):
    found = certify([value] * 300)
    np.testing.assert_allclose(found.weight, 1 / 300, rtol=1e-9)
    assert float(found.effective_fraction) == pytest.approx(1.0, rel=1e-9)
    assert float(found.log_evidence) == pytest.approx(value, rel=1e-12, abs=1e-12)
    assert float(found.log_evidence_error) < 1e-6
    assert float(found.pareto_k) == math.inf


@pytest.mark.parametrize("nothing", [-math.inf, math.nan])
def test_one_draw_that_has_all_the_weight(nothing):
    found = certify(np.where(np.arange(300) == 17, 2.0, nothing))
    assert found.weight.nonzero().tolist() == [[0, 17]] and float(found.weight.sum()) == 1
    assert float(found.effective_fraction) == pytest.approx(1 / 300, rel=1e-12)
    assert float(found.log_evidence) == pytest.approx(2 - math.log(300), rel=1e-12)
    assert float(found.log_evidence_error) == pytest.approx(math.sqrt(299 / 300), rel=1e-12)
    assert float(found.pareto_k) == math.inf


def test_draws_that_do_not_count_count_as_none():
    """Without weight they are still draws: a NaN is a -inf, and half of them halve fraction and evidence."""
    good = gaussian(stats.norm.ppf(quantiles(1000), 0.5, 1.3), 0.5, 1.3, 0.0)
    alone = certify(good)
    for nothing in (-math.inf, math.nan):
        found = certify(np.concatenate([good, np.full(1000, nothing)]))
        assert float(found.effective_fraction) == pytest.approx(float(alone.effective_fraction) / 2, rel=1e-12)
        assert float(found.log_evidence) == pytest.approx(float(alone.log_evidence) - math.log(2), abs=1e-12)
        assert bool((found.weight[0, 1000:] == 0).all()) and math.isfinite(float(found.pareto_k))


def test_no_draw_that_counts():
    found = certify(np.full(300, math.nan), np.full(300, -math.inf))
    assert bool((found.weight == 0).all()) and found.effective_fraction.tolist() == [0, 0]
    assert found.log_evidence.tolist() == [-math.inf] * 2 and found.log_evidence_error.tolist() == [math.inf] * 2
    assert found.pareto_k.tolist() == [math.inf] * 2


@pytest.mark.parametrize("n", [1, 2, 8, 20])
def test_few_draws_are_not_smoothed(n):
    """Their tail has four draws at most."""
    log_weight = 2 * RNG.standard_normal(n)
    found = certify(log_weight)
    np.testing.assert_allclose(found.weight[0], np.exp(log_weight) / np.exp(log_weight).sum(), rtol=1e-12)
    assert float(found.pareto_k) == math.inf and 1 / n <= float(found.effective_fraction) * (1 + 1e-12) <= 1 + 1e-9


def test_rows_of_all_kinds_beside_each_other_are_those_alone():
    rows = np.stack([TAILS["power 0.9"](400), np.zeros(400), np.full(400, math.nan), np.r_[np.zeros(1), [-math.inf] * 399],
                     TAILS["bounded"](400)])  # fmt: skip
    together = certify(*rows)
    for i, row in enumerate(rows):
        for name, value in vars(certify(row)).items():
            torch.testing.assert_close(
                getattr(together, name)[i], value[0], rtol=1e-12, atol=0, equal_nan=False, msg=name
            )


def test_evidences_of_two_likelihoods_are_compared_by_the_draws_of_one():
    """Data x ~ N(theta, 1) or N(theta, 2^2), theta ~ N(0, 1): both evidences are known. Within 4 stated standard errors."""
    generator = torch.Generator().manual_seed(4)
    x = torch.tensor([0.3, 4.0]).unsqueeze(1)
    theta = 0.5 * x + 0.8 * torch.randn(2, 20_000, generator=generator)
    normal = torch.distributions.Normal
    weight = normal(theta, 1).log_prob(x) + normal(0.0, 1.0).log_prob(theta) - normal(0.5 * x, 0.8).log_prob(theta)
    ratio = normal(theta, 2).log_prob(x) - normal(theta, 1).log_prob(x)
    value, error = importance.log_bayes_factor(weight, ratio)
    expected = (normal(0.0, 5**0.5).log_prob(x) - normal(0.0, 2**0.5).log_prob(x))[:, 0]
    assert ((value - expected).abs() < 4 * error).all() and (error < 0.05).all()


def test_draws_that_do_not_count_say_nothing_of_another_likelihood():
    weight = torch.tensor([[0.0, 0.0, -math.inf, math.nan]])
    value, error = importance.log_bayes_factor(weight, torch.tensor([[1.0, 1.0, 700.0, math.nan]]))
    assert float(value) == pytest.approx(1) and float(error) == 0


def test_weights_for_sums_over_galaxies_are_not_smoothed():
    """Smoothing pulls the largest weights in: what depends on them, summed over galaxies, would be off by more than its error."""
    log_weight = torch.randn(400, 256, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    plain, smooth = (importance.certify(log_weight, smooth) for smooth in (False, True))
    torch.testing.assert_close(plain.weight, torch.softmax(log_weight, -1))
    assert torch.equal(plain.effective_fraction, smooth.effective_fraction) and torch.equal(
        plain.pareto_k, smooth.pareto_k
    )
    assert not torch.equal(plain.weight, smooth.weight)
