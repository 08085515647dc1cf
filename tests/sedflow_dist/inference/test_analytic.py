"""Every check against a posterior that is known: x = A theta + noise, theta ~ N(0, I), all Gaussian.

A flow of ours is trained on it; then the same flow is shifted by half a standard deviation, or made narrower by 0.6, and
each check has to notice. Seeds are fixed; a tolerance is what the statistic of a right posterior keeps to with 99 %
(bands) or to 4 to 5 standard deviations (means), plus what so short a training leaves, where that is said.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from sedflow_dist.flow import training
from sedflow_dist.flow.conditional_flow import build
from sedflow_dist.parameters import unit
from sedflow_dist.validation.coverage import c2st, check, expected_coverage, tarp

DIM, DATA, NOISE = 3, 4, 0.7
GALAXIES, DRAWS = 1500, 600
A = torch.tensor([[1.0, 0.3, 0.0], [0.2, 0.8, -0.4], [-0.5, 0.1, 0.9], [0.3, -0.6, 0.5]])
COVARIANCE = torch.linalg.inv(torch.eye(DIM) + A.T @ A / NOISE**2)  # of the posterior, the same for all x
SIGMA = COVARIANCE.diagonal().sqrt()
DATA_COVARIANCE = A @ A.T + NOISE**2 * torch.eye(DATA)
#: (shift [posterior standard deviations], width): what is done to the trained flow.
RIGHT, BIASED, NARROW = (0.0, 1.0), (0.5, 1.0), (0.0, 0.6)
WRONG = pytest.mark.parametrize("change", [BIASED, NARROW], ids=["biased", "overconfident"])


def gaussian(x, mean, covariance):
    return torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)


def simulate(n, seed):
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(n, DIM, generator=generator)
    return theta, theta @ A.T + NOISE * torch.randn(n, DATA, generator=generator)


def posterior_mean(x):
    return x @ A @ COVARIANCE / NOISE**2


@pytest.fixture(scope="module")
def flow():
    """A small flow after 600 steps, each on new simulations."""
    flow = build("maf", {"transforms": 2, "hidden": 32}, DIM, DATA, seed=1)
    adam, steps = training.optimizer(flow), 600
    for i in range(steps):
        theta, x = simulate(512, seed=1000 + i)
        training.step(flow, adam, theta, x, training.learning_rate(i, steps, 1e-2, 20), bfloat16=False)
    return flow


@dataclass
class Answer:
    """Draws of the trained flow, moved by ``change``, for galaxies with known truth; all that the checks take."""

    theta: torch.Tensor
    x: torch.Tensor
    draws: torch.Tensor
    log_q: torch.Tensor
    log_q_truth: torch.Tensor
    weight: torch.Tensor
    log_weight: torch.Tensor

    @property
    def effective_fraction(self):
        return 1 / (self.weight**2).sum(-1) / DRAWS

    def rank(self, weighted=False):
        below = (self.draws < self.theta.unsqueeze(1)).double()
        return ((below * self.weight.unsqueeze(-1)).sum(1) if weighted else below.mean(1)).numpy()

    def tarp(self, weighted=False):
        weight = self.weight.numpy() if weighted else None
        return tarp(unit(self.draws).numpy(), weight, unit(self.theta).numpy(), seed=4)[:, None]

    def hpd(self, weighted=False):
        weight = self.weight.numpy() if weighted else None
        return expected_coverage(self.log_q.numpy(), weight, self.log_q_truth.numpy())[:, None]


@pytest.fixture(scope="module")
def answer(flow):
    """Answer the same galaxies with the flow, shifted and scaled about the exact mean: its density is known too."""
    theta, x = simulate(GALAXIES, seed=1)
    base = torch.randn(GALAXIES, DRAWS, DIM, generator=torch.Generator().manual_seed(2))
    draws, log_q = flow.sample_with_log_prob(base, x)
    mean = posterior_mean(x)

    def make(change):
        shift, width = change[0] * SIGMA, change[1]
        moved = mean.unsqueeze(1) + width * (draws - mean.unsqueeze(1)) + shift
        back = (theta - shift - mean) / width + mean
        log_density = log_q - DIM * math.log(width)
        with torch.no_grad():
            log_q_truth = flow.log_prob(back, x) - DIM * math.log(width)
        likelihood = gaussian(x.unsqueeze(1), moved @ A.T, NOISE**2 * torch.eye(DATA))
        log_weight = likelihood + gaussian(moved, torch.zeros(DIM), torch.eye(DIM)) - log_density
        weight = torch.softmax(log_weight.double(), -1)
        return Answer(theta, x, moved, log_density, log_q_truth, weight, log_weight.double())

    return {change: make(change) for change in (RIGHT, BIASED, NARROW)}


# -- the flow takes the known values ----------------------------------------------------------------------------------


def test_the_flow_reaches_the_exact_log_probability(flow):
    """The difference of the means is the Kullback-Leibler divergence: 0 at best; 0.01 is left by so short a training."""
    theta, x = simulate(20_000, seed=3)
    with torch.no_grad():
        lost = gaussian(theta, posterior_mean(x), COVARIANCE) - flow.log_prob(theta, x)
    noise = 5 * float(lost.std()) / math.sqrt(len(x))
    assert -noise < float(lost.mean()) < 0.01 + noise


def test_simulation_based_calibration_passes(answer):
    found = check(answer[RIGHT].rank())
    assert found.inside.all()
    assert found.pooled > 0.01


@pytest.mark.parametrize("weighted", [False, True])
def test_joint_coverage_passes(answer, weighted):
    for ranks in (answer[RIGHT].tarp(weighted), answer[RIGHT].hpd(weighted)):
        found = check(ranks)
        assert found.inside.all()
        assert found.pooled > 0.01


def score(answer):
    """C2ST of two galaxies' draws against as many exact ones, both about the exact means."""
    draws = (answer.draws - posterior_mean(answer.x).unsqueeze(1))[:2].flatten(0, 1)
    exact = (
        torch.randn(len(draws), DIM, generator=torch.Generator().manual_seed(7)) @ torch.linalg.cholesky(COVARIANCE).T
    )
    return c2st(exact.numpy(), draws.numpy(), seed=1)


def test_a_classifier_cannot_tell_the_draws_from_exact_ones(answer):
    """The accuracy of guessing on 2,400 draws has a standard deviation of 0.010; 4 are allowed."""
    assert score(answer[RIGHT]) == pytest.approx(0.5, abs=0.04)


def test_the_weighted_evidence_is_the_analytic_one(answer):
    """ln Z of independent draws errs by sqrt((1 / effective fraction - 1) / draws): 1,500 such errors stay within five,
    and their mean square is 1 within five times sqrt(2 / 1500)."""
    found = answer[RIGHT]
    log_z = torch.logsumexp(found.log_weight, -1) - math.log(DRAWS)
    error = ((1 / found.effective_fraction - 1) / DRAWS).sqrt()
    z = (log_z - gaussian(found.x, torch.zeros(DATA), DATA_COVARIANCE)) / error
    assert z.abs().max() < 5
    assert float((z**2).mean()) == pytest.approx(1, abs=5 * math.sqrt(2 / GALAXIES))


def test_the_effective_fraction_is_near_one(answer):
    """1 / (1 + variance of the weights), about 1 - 2 KL: a divergence of 0.01 leaves 0.98. Rare data are learnt less."""
    fraction = answer[RIGHT].effective_fraction
    assert fraction.median() > 0.97
    assert fraction.quantile(0.01) > 0.8


def moments(found):
    """Weighted means and standard deviations in errors of as many independent draws, (galaxy, dimension)."""
    weight = found.weight.unsqueeze(-1)
    mean = (weight * found.draws).sum(1)
    std = (weight * (found.draws - mean.unsqueeze(1)) ** 2).sum(1).sqrt()
    n = (DRAWS * found.effective_fraction).unsqueeze(-1)
    return (mean - posterior_mean(found.x)) / SIGMA * n.sqrt(), (std / SIGMA - 1) * (2 * n).sqrt()


def test_weighted_means_and_widths_are_the_analytic_ones(answer):
    """4,500 normal numbers stay within five; widths of the few galaxies with uneven weights err a little more."""
    mean, std = moments(answer[RIGHT])
    assert mean.abs().max() < 5
    assert std.abs().max() < 5


# -- and what is wrong is caught --------------------------------------------------------------------------------------


@WRONG
def test_simulation_based_calibration_catches(answer, change):
    """All three curves leave the 99 % band, which is 0.04 wide; p < 1e-6 is out of any chance."""
    found = check(answer[change].rank())
    assert not found.inside.any()
    assert found.pooled < 1e-6


@WRONG
@pytest.mark.parametrize("name", ["tarp", "hpd"])
def test_joint_coverage_catches(answer, change, name):
    """The curve leaves the 99 % band. TARP sees the shared shift least (see `tarp`, p = 0.001): hence 1,500 galaxies."""
    assert not check(getattr(answer[change], name)()).inside.any()


@WRONG
def test_a_classifier_catches(answer, change):
    """Beyond eight standard deviations (0.010) of guessing."""
    assert score(answer[change]) > 0.59


@WRONG
def test_the_effective_fraction_catches(answer, change):
    """Half a standard deviation in three dimensions leaves exp(-d^2) <= 0.6 of the draws, d the Mahalanobis distance."""
    assert answer[change].effective_fraction.median() < 0.6
    assert answer[change].effective_fraction.median() < 0.65 * answer[RIGHT].effective_fraction.median()


def test_weights_repair_the_bias(answer):
    """What the plain draws fail, the weighted ones pass: ranks, joint coverage, and means."""
    found = answer[BIASED]
    for ranks in (found.rank(True), found.tarp(True), found.hpd(True)):
        assert check(ranks).inside.all()
    assert moments(found)[0].abs().max() < 6  # the few draws of large weight make it a little wider than normal


def test_the_shift_is_as_far_as_the_tests_say():
    """exp(-d^2) of the shift by half a standard deviation in every dimension."""
    shift = 0.5 * SIGMA
    assert float(torch.exp(-shift @ torch.linalg.inv(COVARIANCE) @ shift)) < 0.6


def test_the_exact_posterior_is_the_one_of_bayes_theorem():
    """likelihood x prior = evidence x posterior, at any point: the reference itself is right."""
    theta, x = simulate(50, seed=8)
    left = gaussian(x, theta @ A.T, NOISE**2 * torch.eye(DATA)) + gaussian(theta, torch.zeros(DIM), torch.eye(DIM))
    right = gaussian(x, torch.zeros(DATA), DATA_COVARIANCE) + gaussian(theta, posterior_mean(x), COVARIANCE)
    assert np.allclose(left, right, atol=1e-4)
