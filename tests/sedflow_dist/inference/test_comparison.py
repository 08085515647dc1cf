"""Evidences compared: draws have the evidence of the posterior's, what was not learnt shows nothing, a planted line is found."""

import dataclasses

import numpy as np
import pytest
import torch

from sedflow_dist.flow import likelihood_training
from sedflow_dist.flow.features import COLOURS, Features
from sedflow_dist.flow.learned_likelihood import LearnedLikelihood, LikelihoodSpec
from sedflow_dist.flow.likelihood_training import LikelihoodSettings
from sedflow_dist.flow.maf_residuals import ResidualSettings
from sedflow_dist.inference import comparison as compared
from sedflow_dist.inference import importance
from sedflow_dist.inference.comparison import Comparison
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.simulation.imperfections import Imperfections

ROWS = np.arange(60)


@pytest.fixture(scope="module")
def untrained(flow, mocks):
    """A likelihood of the small flow that has learnt nothing."""
    spec = LikelihoodSpec(
        model=flow.id, labels=flow.spec.labels, flow=ResidualSettings(transforms=3, hidden=8), share=0.05,
        imperfections=Imperfections(),
    )  # fmt: skip
    return LearnedLikelihood(spec, spec.build_flow(seed=1), Features.fit(COLOURS, mocks.photometry))


@pytest.fixture(scope="module")
def learned(flow):
    """A likelihood that has learnt a little of strong lines."""
    settings = LikelihoodSettings(
        imperfections=Imperfections(line=(0.3, 0.6)), transforms=2, hidden=24, n_galaxies=5000, steps=200, batch=512,
        learning_rate=0.01, warm_up=20,
    )  # fmt: skip
    return likelihood_training.train(flow, settings, seed=1)


@pytest.fixture(scope="module")
def posterior(flow):
    return Posterior(flow, 1, 512)


def test_the_draws_with_and_without_each_band_have_the_posteriors_evidence(posterior, untrained, mocks):
    """Two estimates of one number, from other proposals: within 5 of their standard errors, and 0.5 at most."""
    own = posterior.draw(mocks.photometry[:16], ROWS[:16], 512)
    comparison, checked = Comparison(posterior, untrained), 0
    for i in range(16):
        _, log_weight = comparison.draw(mocks.photometry[i], ROWS[i : i + 1])
        again = importance.certify(log_weight)
        error = float(own.log_evidence_error[i].hypot(again.log_evidence_error[0]))
        if error < 0.3:
            assert abs(float(again.log_evidence[0] - own.log_evidence[i])) < 5 * error
            checked += 1
    assert checked >= 5


def test_the_draws_of_a_flow_that_learnt_the_amplitude_have_its_evidence(learnt_flow, untrained, mocks, monkeypatch):
    """Of data that say little, so that a flow which is hardly trained has draws where the posterior is."""
    monkeypatch.setattr(compared, "MOST_DRAWS", 4096)
    posterior = Posterior(learnt_flow, 1, 4096)
    data = dataclasses.replace(mocks.photometry, sigma=100 * mocks.photometry.sigma)
    spec = untrained.spec.model_copy(update={"model": learnt_flow.id})
    comparison = Comparison(posterior, LearnedLikelihood(spec, untrained.network, untrained.features))
    own = posterior.draw(data[:4], ROWS[:4], 4096)
    for i in range(4):
        again = importance.certify(comparison.draw(data[i], ROWS[i : i + 1])[1])
        error = float(own.log_evidence_error[i].hypot(again.log_evidence_error[0]))
        assert error < 0.5
        assert abs(float(again.log_evidence[0] - own.log_evidence[i])) < 5 * error


def test_evidences_do_not_differ_where_nothing_was_learnt(posterior, untrained, mocks):
    value, error = Comparison(posterior, untrained)(mocks.photometry[:6], ROWS[:6])
    assert value.tolist() == error.tolist() == [0] * 6


def test_clean_galaxies_show_nothing_and_a_planted_line_is_found(posterior, learned, mocks):
    """As mock galaxies are clean, no more than one in c of them has evidences that differ by a factor c (Markov)."""
    data, comparison = mocks.photometry[:60], Comparison(posterior, learned)
    clean = np.exp(comparison(data, ROWS)[0])
    assert clean.min() > 1 - learned.spec.share - 1e-6
    assert abs(np.median(clean) - 1) <= learned.spec.share
    for factor in (1.2, 3, 20):
        assert (clean >= factor).mean() <= 1 / factor
    line = 1 + 0.6 * torch.nn.functional.one_hot(data.mask.float().argmax(1), 5)
    found = np.exp(comparison(dataclasses.replace(data, flux=data.flux * line), ROWS)[0])
    assert (found > np.quantile(clean, 0.95)).mean() > 0.3
    assert (found > 20).mean() > 0.2


def test_a_galaxys_numbers_are_its_rows_in_any_company(posterior, learned, mocks):
    comparison = Comparison(posterior, learned)
    together = comparison(mocks.photometry[:4], ROWS[:4])
    alone = comparison(mocks.photometry[2], ROWS[2:3])
    assert (together[0][2], together[1][2]) == (alone[0][0], alone[1][0])


def test_a_likelihood_of_another_model_is_refused(posterior, untrained):
    spec = untrained.spec.model_copy(update={"model": "0" * 16})
    with pytest.raises(ValueError, match=f"trained for model {'0' * 16}, and this one is {posterior.flow.id}"):
        Comparison(posterior, LearnedLikelihood(spec, untrained.network, untrained.features))
