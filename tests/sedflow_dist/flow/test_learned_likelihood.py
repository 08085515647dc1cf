"""The learned likelihood: the Gaussian one until it has learnt, a density of what is measured, and what it finds."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from sedflow_dist.flow import likelihood_training, maf
from sedflow_dist.flow.features import COLOURS, Features
from sedflow_dist.flow.learned_likelihood import LearnedLikelihood, LikelihoodSpec
from sedflow_dist.flow.likelihood_training import LikelihoodSettings
from sedflow_dist.flow.maf_flow import MAFSettings
from sedflow_dist.flow.maf_residuals import ResidualFlow
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.simulation.imperfections import Imperfections

ROWS = np.arange(60)
COLUMNS = ("log_bayes_factor", "log_bayes_factor_error")


def disturbed(flow, size=0.3):
    """The flow with weights as after some training."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in flow.parameters():
            weight.add_(size * torch.randn(weight.shape, generator=generator))
    return flow


@pytest.fixture(scope="module")
def untrained(flow, mocks):
    """A likelihood of the small flow that has learnt nothing."""
    spec = LikelihoodSpec(
        model=flow.id, labels=flow.spec.labels, flow=MAFSettings(transforms=3, hidden=8), share=0.05,
        imperfections=Imperfections(),
    )  # fmt: skip
    return LearnedLikelihood(spec, spec.build_flow(seed=1), Features.fit(COLOURS, mocks.photometry))


@pytest.fixture(scope="module")
def learnt(flow):
    """A likelihood that has learnt a little of strong lines."""
    settings = LikelihoodSettings(
        imperfections=Imperfections(line=(0.3, 0.6)), transforms=2, hidden=24, n_galaxies=5000, steps=200, batch=512,
        learning_rate=0.01, warm_up=20,
    )  # fmt: skip
    return likelihood_training.train(flow, settings, seed=1)


def compared(flow, likelihood, photometry):
    return Posterior(flow, 1, 256, likelihood=likelihood).draw(photometry, ROWS[: len(photometry)], 256).compared


# -- the flow of residuals --------------------------------------------------------------------------------------------


def test_a_flow_that_has_learnt_nothing_is_the_gaussian_to_the_last_bit():
    flow = ResidualFlow(5, 3, MAFSettings(transforms=4, hidden=16), seed=2)
    residual, context = 20 * torch.randn(500, 5), torch.randn(500, 3)
    residual[::3, 1] = torch.nan
    assert torch.equal(flow.log_ratio(residual, context), torch.zeros(500))


def test_it_is_the_density_of_the_posteriors_architecture():
    flow = disturbed(ResidualFlow(5, 3, MAFSettings(transforms=4, hidden=16), seed=2))
    residual, context = torch.randn(300, 5), torch.randn(300, 3)
    expected = maf.log_prob(maf.blocks(flow), residual, context)
    torch.testing.assert_close(flow(residual, context), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_what_is_measured_has_a_density_of_its_own(missing):
    """It integrates to one over the two measured bands, whichever is missing, to the error of the grid."""
    flow = disturbed(ResidualFlow(3, 2, MAFSettings(transforms=3, hidden=8), seed=2), 0.1)
    axis = torch.linspace(-9, 9, 181)
    grid = torch.cartesian_prod(axis, axis)
    residual = torch.full((len(grid), 3), torch.nan)
    residual[:, [band for band in range(3) if band != missing]] = grid
    with torch.no_grad():
        total = flow(residual, torch.tensor([[0.4, -1.0]]).expand(len(grid), 2)).exp().sum() * 0.1**2
    assert float(total) == pytest.approx(1, abs=2e-3)


# -- evidences compared -----------------------------------------------------------------------------------------------


def test_evidences_do_not_differ_where_nothing_was_learnt(flow, untrained, mocks):
    found = compared(flow, untrained, mocks.photometry[:20])
    for name in COLUMNS:
        assert torch.equal(found[name], torch.zeros(20, dtype=torch.float64)), name


def test_draws_and_certificates_do_not_change_with_a_likelihood(flow, learnt, mocks):
    data = mocks.photometry[:20]
    with_one = Posterior(flow, 1, 256, likelihood=learnt).draw(data, ROWS[:20], 256)
    without = Posterior(flow, 1, 256).draw(data, ROWS[:20], 256)
    assert without.compared == {}
    for field in dataclasses.fields(without):
        if field.name != "compared":
            assert torch.equal(getattr(with_one, field.name), getattr(without, field.name)), field.name


def test_a_galaxys_numbers_do_not_depend_on_who_stands_beside_it(learnt, flow, mocks):
    data = mocks.photometry[:8]
    model = data.flux.unsqueeze(1) * (1 + 0.05 * torch.randn(8, 30, 5))
    together = learnt.log_ratio(model, data)
    for i in range(8):
        assert torch.equal(learnt.log_ratio(model[i : i + 1], data[i])[0], together[i])


def test_clean_galaxies_show_nothing_and_a_planted_line_is_found(flow, learnt, mocks):
    """As mock galaxies are clean, no more than one in c of them has evidences that differ by a factor c (Markov)."""
    data = mocks.photometry[:60]
    clean = compared(flow, learnt, data)["log_bayes_factor"].exp()
    assert float(clean.min()) > 1 - learnt.spec.share - 1e-6
    assert abs(float(clean.median()) - 1) <= learnt.spec.share
    for factor in (1.2, 3, 20):
        assert float((clean >= factor).float().mean()) <= 1 / factor
    band = data.mask.float().argmax(1)
    line = 1 + 0.6 * torch.nn.functional.one_hot(band, 5)
    found = compared(flow, learnt, dataclasses.replace(data, flux=data.flux * line))["log_bayes_factor"].exp()
    assert float((found > clean.quantile(0.95)).float().mean()) > 0.3
    assert float((found > 20).float().mean()) > 0.2


# -- as files ---------------------------------------------------------------------------------------------------------


def test_a_likelihood_comes_back_from_its_bytes(learnt):
    back = LearnedLikelihood.from_bytes(*learnt.to_bytes())
    assert back.id == learnt.id and back.spec == learnt.spec
    residual, context = torch.randn(50, 5), torch.randn(50, len(learnt.features.mean))
    assert torch.equal(back.network.log_ratio(residual, context), learnt.network.log_ratio(residual, context))


def test_the_same_settings_give_the_same_likelihood(flow):
    settings = LikelihoodSettings(transforms=1, hidden=4, n_galaxies=1000, steps=3, batch=64, warm_up=1)
    one, other = (likelihood_training.train(flow, settings, seed=5) for _ in range(2))
    assert one.to_bytes() == other.to_bytes()


def test_a_likelihood_of_another_model_is_refused(flow, untrained):
    spec = untrained.spec.model_copy(update={"model": "0" * 16})
    other = LearnedLikelihood(spec, untrained.network, untrained.features)
    with pytest.raises(ValueError, match=f"trained for model {'0' * 16}, and this one is {flow.id}"):
        Posterior(flow, 1, 64, likelihood=other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 1.5}, "share"), ({"format": 9}, "has format 9"), ({"labels": ["u"]}, "has shape"),
        ({"flow": {"transforms": 100, "hidden": 4096}}, "bytes, of"), ({"features": ["nothing"]}, "features"),
        ({"flow": {"transforms": 1, "hidden": 8}}, "missing or not in it"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused_with_what_was_found(untrained, change, message):
    weights, spec = untrained.to_bytes()
    with pytest.raises(ValueError, match=message):
        LearnedLikelihood.from_bytes(weights, json.dumps({**json.loads(spec), **change}).encode())
