"""Proposals that learn from weights, where posteriors are Gaussians in base space and everything is known."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import MultivariateNormal

from sedflow_dist.inference import adaptation, importance
from sedflow_dist.inference.adaptation import ROUND, Adaptation

DIMENSIONS, GALAXIES = 10, 200


@pytest.mark.parametrize("n_draws", [0, 1, ROUND - 1, ROUND, ROUND + 1, 2048, 16384, 20000])
def test_rounds_cover_all_draws_once(n_draws):
    rounds = adaptation.rounds(n_draws)
    assert [i for part in rounds for i in range(n_draws)[part]] == list(range(n_draws))
    assert all(part.stop - part.start <= max(ROUND, part.start) for part in rounds)


@pytest.fixture(scope="module")
def posterior():
    """Gaussians that are off by what trained flows are: a third of a standard deviation, scales by a tenth."""
    generator = torch.Generator().manual_seed(1)
    mean = 0.3 * torch.randn(GALAXIES, DIMENSIONS, generator=generator)
    scale = (0.1 * torch.randn(GALAXIES, DIMENSIONS, generator=generator)).exp()
    return MultivariateNormal(mean, scale_tril=torch.diag_embed(scale))


def log_weight(posterior, base):
    """ln of posterior over flow: the evidence is 1."""
    flow = MultivariateNormal(torch.zeros(DIMENSIONS), torch.eye(DIMENSIONS))
    return posterior.log_prob(base.transpose(0, 1)).T - flow.log_prob(base)


def drawn(posterior, n_draws, seed=2):
    """Go through all rounds; return base points and certificate."""
    generator, proposals, base, weights = torch.Generator().manual_seed(seed), Adaptation(GALAXIES, DIMENSIONS), [], []
    for part in adaptation.rounds(n_draws):
        base.append(proposals.move(torch.randn(GALAXIES, part.stop - part.start, DIMENSIONS, generator=generator)))
        weights.append(log_weight(posterior, base[-1]))
        proposals.learn(weights[-1])
    return torch.cat(base, 1), importance.certify(torch.cat(weights, 1) - proposals.log_mixture)


def test_the_first_round_is_the_flows(posterior):
    base, certificate = drawn(posterior, ROUND)
    own = torch.randn(GALAXIES, ROUND, DIMENSIONS, generator=torch.Generator().manual_seed(2))
    assert torch.equal(base, own)
    assert torch.equal(certificate.weight, importance.certify(log_weight(posterior, own)).weight)


def test_more_draws_are_effective(posterior):
    """Half of the flow's own; N(m, C) itself would have all."""
    own = importance.certify(log_weight(posterior, torch.randn(GALAXIES, 2048, DIMENSIONS)))
    assert own.effective_fraction.median() < 0.4
    assert drawn(posterior, 2048)[1].effective_fraction.median() > 0.65


def test_evidence_and_mean_have_the_errors_that_are_stated(posterior):
    """Pulls are N(0, 1); the means of 200 of each may be off by four of their errors, plus a third for what adapting leaves."""
    base, certificate = drawn(posterior, 2048)
    pull = (certificate.log_evidence / certificate.log_evidence_error).numpy()
    assert abs(pull.mean()) < 0.33 + 4 / math.sqrt(GALAXIES)
    assert 0.7 < pull.std() < 1.3
    found = (certificate.weight.unsqueeze(-1) * base).sum(1)
    effective = 2048 * certificate.effective_fraction.unsqueeze(-1)
    pull = ((found - posterior.mean) / posterior.stddev * effective.sqrt()).numpy().ravel()
    assert abs(pull.mean()) < 4 / math.sqrt(len(pull))
    assert pull.std() < 1.2


def test_the_mixture_is_that_of_its_proposals(posterior):
    """Against densities that SciPy computes, of moments that NumPy does."""
    generator, proposals = torch.Generator().manual_seed(3), Adaptation(GALAXIES, DIMENSIONS)
    first = proposals.move(torch.randn(GALAXIES, ROUND, DIMENSIONS, generator=generator))
    proposals.learn(log_weight(posterior, first))
    later = proposals.move(torch.randn(GALAXIES, ROUND, DIMENSIONS, generator=generator))
    half = slice(0, ROUND // 2)
    teacher = first[0, ROUND // 2 :].double().numpy()  # the first half learns from the second
    weight = torch.softmax(log_weight(posterior, first)[0, ROUND // 2 :].double(), 0).numpy()
    effective = 1 / (weight**2).sum()
    mean = effective / (effective + 10) * weight @ teacher
    covariance = np.cov(teacher.T, aweights=weight, ddof=0)
    worth = effective / (effective + 200)
    learnt = stats.multivariate_normal(mean, worth * covariance + (1 - worth) * np.eye(DIMENSIONS))
    flow = stats.multivariate_normal(np.zeros(DIMENSIONS))
    points = torch.cat([first[0, half], later[0, half]]).double().numpy()
    known = np.log(0.5 + 0.5 * np.exp(learnt.logpdf(points) - flow.logpdf(points)))
    found = proposals.log_mixture[0].numpy()
    np.testing.assert_allclose(np.r_[found[half], found[ROUND : ROUND + ROUND // 2]], known, atol=1e-5)


def test_a_half_does_not_learn_from_itself(posterior):
    def second_round(change):
        generator, proposals = torch.Generator().manual_seed(4), Adaptation(GALAXIES, DIMENSIONS)
        first = log_weight(posterior, proposals.move(torch.randn(GALAXIES, ROUND, DIMENSIONS, generator=generator)))
        first[:, 0] += change  # a draw of the first half
        proposals.learn(first)
        return proposals.move(torch.randn(GALAXIES, ROUND, DIMENSIONS, generator=generator)).tensor_split(2, 1)

    (one, other), (changed, moved) = second_round(0.0), second_round(3.0)
    assert torch.equal(one, changed)
    assert not torch.equal(other, moved)


@pytest.mark.parametrize("nothing", [-math.inf, math.nan])
def test_without_weights_proposals_stay_the_flows(nothing):
    proposals, normal = Adaptation(2, 3), torch.randn(2, 5, 3)
    for _ in range(2):
        base = proposals.move(normal)
        proposals.learn(torch.full((2, 5), nothing))
    torch.testing.assert_close(base, normal)
    torch.testing.assert_close(proposals.log_mixture, torch.zeros(2, 10, dtype=torch.float64))


def test_a_galaxy_does_not_see_those_beside_it(posterior):
    few = MultivariateNormal(posterior.mean[:3], scale_tril=posterior.scale_tril[:3])
    results = []
    for target, n in ((posterior, GALAXIES), (few, 3)):
        generator, proposals = torch.Generator().manual_seed(5), Adaptation(n, DIMENSIONS)
        for _ in range(3):
            normal = torch.randn(GALAXIES, 65, DIMENSIONS, generator=generator)[:n]
            base = proposals.move(normal)
            proposals.learn(log_weight(target, base))
        results.append(base[:3])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)
