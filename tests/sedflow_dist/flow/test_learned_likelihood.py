"""The learned likelihood: the Gaussian one until it has learnt, a density of what is measured, and files that are its own."""

import json
import math

import pytest
import torch

from sedflow_dist.flow import likelihood_training, maf
from sedflow_dist.flow.features import COLOURS, Features
from sedflow_dist.flow.learned_likelihood import LearnedLikelihood, LikelihoodSpec
from sedflow_dist.flow.likelihood_training import LikelihoodSettings
from sedflow_dist.flow.maf_residuals import ResidualFlow, ResidualSettings
from sedflow_dist.simulation.imperfections import Imperfections


def disturbed(flow, size=0.3):
    """The flow with weights as after some training."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in flow.parameters():
            weight.add_(size * torch.randn(weight.shape, generator=generator))
    return flow


@pytest.fixture(scope="module")
def learned(mocks):
    """A likelihood of some model, not of the Gaussian any more."""
    spec = LikelihoodSpec(
        model="0" * 16, labels=tuple("ugriz"), flow=ResidualSettings(transforms=3, hidden=8), share=0.05,
        imperfections=Imperfections(),
    )  # fmt: skip
    return LearnedLikelihood(spec, disturbed(spec.build_flow(seed=1)), Features.fit(COLOURS, mocks.photometry))


# -- the flow of residuals --------------------------------------------------------------------------------------------


def test_a_flow_that_has_learnt_nothing_is_the_gaussian_to_the_last_bit():
    flow = ResidualFlow(5, 3, ResidualSettings(transforms=4, hidden=16), seed=2)
    residual, context = 20 * torch.randn(500, 5), torch.randn(500, 3)
    residual[::3, 1] = torch.nan
    assert torch.equal(flow.log_ratio(residual, context), torch.zeros(500))


def test_it_is_the_density_of_the_posteriors_architecture():
    flow = disturbed(ResidualFlow(5, 3, ResidualSettings(transforms=4, hidden=16), seed=2))
    residual, context = torch.randn(300, 5), torch.randn(300, 3)
    expected = maf.log_prob(maf.blocks(flow), residual, context)
    torch.testing.assert_close(flow(residual, context), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_what_is_measured_has_a_density_of_its_own(missing):
    """It integrates to one over the two measured bands, whichever is missing, to the error of the grid."""
    flow = disturbed(ResidualFlow(3, 2, ResidualSettings(transforms=3, hidden=8), seed=2), 0.1)
    axis = torch.linspace(-9, 9, 181)
    grid = torch.cartesian_prod(axis, axis)
    residual = torch.full((len(grid), 3), torch.nan)
    residual[:, [band for band in range(3) if band != missing]] = grid
    with torch.no_grad():
        total = flow(residual, torch.tensor([[0.4, -1.0]]).expand(len(grid), 2)).exp().sum() * 0.1**2
    assert float(total) == pytest.approx(1, abs=2e-3)


# -- the likelihood ---------------------------------------------------------------------------------------------------


def test_a_galaxys_numbers_do_not_depend_on_who_stands_beside_it(learned, mocks):
    data = mocks.photometry[:8]
    model = data.flux.unsqueeze(1) * (1 + 0.05 * torch.randn(8, 30, 5))
    together = learned.log_ratio(model, data)
    assert float(together.std()) > 0.01
    for i in range(8):
        assert torch.equal(learned.log_ratio(model[i : i + 1], data[i])[0], together[i])


def test_it_is_a_mixture_of_the_clean_and_the_imperfect(learned):
    ratio = torch.tensor([-800.0, -2.0, 0.0, 0.9, 1.1, 50.0, 900.0])
    found = learned._mixed(ratio).double()
    expected = torch.log(0.95 + 0.05 * ratio[:-1].double().exp())
    torch.testing.assert_close(found[:-1], expected, rtol=1e-5, atol=1e-7)
    assert float(found[-1]) == pytest.approx(900 + math.log(0.05), rel=1e-6)
    assert float(found[2]) == 0


def test_the_same_settings_give_the_same_likelihood(flow):
    settings = LikelihoodSettings(transforms=1, hidden=4, n_galaxies=1000, steps=3, batch=64, warm_up=1)
    one, other = (likelihood_training.train(flow, settings, seed=5) for _ in range(2))
    assert one.to_bytes() == other.to_bytes()
    assert one.spec.model == flow.id


# -- as files ---------------------------------------------------------------------------------------------------------


def test_a_likelihood_comes_back_from_its_bytes(learned):
    back = LearnedLikelihood.from_bytes(*learned.to_bytes())
    assert back.id == learned.id and back.spec == learned.spec
    residual, context = torch.randn(50, 5), torch.randn(50, len(learned.features.mean))
    assert torch.equal(back.network.log_ratio(residual, context), learned.network.log_ratio(residual, context))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 1.5}, "share"), ({"format": 9}, "has format 9"), ({"labels": ["u"]}, "has shape"),
        ({"flow": {"transforms": 100, "hidden": 4096}}, "bytes, of"), ({"features": ["nothing"]}, "features"),
        ({"flow": {"transforms": 1, "hidden": 8}}, "missing or not in it"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused_with_what_was_found(learned, change, message):
    weights, spec = learned.to_bytes()
    with pytest.raises(ValueError, match=message):
        LearnedLikelihood.from_bytes(weights, json.dumps({**json.loads(spec), **change}).encode())
