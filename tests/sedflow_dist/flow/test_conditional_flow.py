"""Families of flows: one contract for each, and a toy family and a toy encoder that go through a whole model from here."""

import math

import numpy as np
import pytest
import torch
from provabgs import SPACE
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from sedflow_dist.flow import conditional_flow, features, training
from sedflow_dist.flow.conditional_flow import ConditionalFlow, build
from sedflow_dist.flow.features import COLOURS, Encoder
from sedflow_dist.flow.model_spec import FlowSpec
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.simulation.mocks import MockSurvey


class AffineSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    spread: float = Field(gt=0, description="of a new flow's draws")


class ConditionalAffine(ConditionalFlow):
    """A Gaussian whose mean is linear in the context, with one width a dimension."""

    Settings = AffineSettings

    def __init__(self, dimensions, features, settings, seed):
        super().__init__(dimensions, features, settings, seed)
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(0.01 * torch.randn(dimensions, features, generator=generator))
        self.log_width = nn.Parameter(torch.full((dimensions,), math.log(settings.spread)))

    def log_prob(self, phi, context):
        base = (phi - context @ self.weight.T) / self.log_width.exp()
        return -0.5 * (base**2).sum(-1) - 0.5 * self.dimensions * math.log(2 * math.pi) - self.log_width.sum()

    @torch.no_grad()
    def sample_with_log_prob(self, base, context):
        phi = (context @ self.weight.T).unsqueeze(1) + base * self.log_width.exp()
        log_base = -0.5 * (base**2).sum(-1) - 0.5 * self.dimensions * math.log(2 * math.pi)
        return phi, log_base - self.log_width.sum()

    def memory(self, n_rows):
        return 8 * n_rows * (self.dimensions + 1)

    @classmethod
    def n_weights(cls, dimensions, features, settings):
        return dimensions * (features + 1)


class NumberOfBands(Encoder):
    """Share of the bands that were measured, in one column."""

    def size(self, n_bands):
        return 1

    def columns(self, photometry):
        return photometry.mask.to(photometry.flux.dtype).mean(1, keepdim=True)

    def present(self, mask):
        return torch.ones_like(mask[:, :1])


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    """A family and an encoder of this file, known while its tests run."""
    monkeypatch.setattr(conditional_flow, "_families", dict(conditional_flow._families))
    monkeypatch.setattr(features, "_encoders", dict(features._encoders))
    conditional_flow.register("affine")(ConditionalAffine)
    features.register(NumberOfBands("number_of_bands"))


SETTINGS = {
    "maf": {"transforms": 2, "hidden": 16}, "embedded maf": {"transforms": 2, "hidden": 16, "embedding": (12, 3)},
    "affine": {"spread": 0.7},
}  # fmt: skip


def new(kind, seed):
    """A flow of four dimensions and five features; the kind's last word is its family."""
    return build(kind.split()[-1], SETTINGS[kind], 4, 5, seed)


@pytest.fixture(params=SETTINGS)
def kind(request):
    return request.param


@pytest.fixture
def made(kind):
    """A flow of each family after some steps of training, context (6, feature) and base points (6, 40, dimension)."""
    flow = new(kind, seed=1)
    adam = training.optimizer(flow)
    for i in range(30):
        generator = torch.Generator().manual_seed(i)
        x = torch.randn(128, 5, generator=generator)
        training.step(flow, adam, 0.5 * torch.randn(128, 4, generator=generator) + x[:, :4], x, 1e-2, False)
    generator = torch.Generator().manual_seed(99)
    return flow, torch.randn(6, 5, generator=generator), torch.randn(6, 40, 4, generator=generator)


# -- the contract -----------------------------------------------------------------------------------------------------


def test_draws_have_the_density_that_they_are_said_to_have(made):
    flow, x, base = made
    phi, log_q = flow.sample_with_log_prob(base, x)
    assert phi.shape == base.shape and log_q.shape == base.shape[:2]
    with torch.no_grad():
        again = flow.log_prob(phi.flatten(0, 1), x.repeat_interleave(40, 0)).view(log_q.shape)
    torch.testing.assert_close(log_q, again, atol=1e-3, rtol=1e-4)


def test_a_density_integrates_to_one(made):
    """Weighed against a wide normal: the mean of q / p over draws of p."""
    flow, x, _ = made
    wide = torch.distributions.Normal(x[0, :4], 1.5)
    points = x[0, :4] + 1.5 * torch.randn(200_000, 4, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        ratio = (flow.log_prob(points, x[:1].expand(len(points), -1)) - wide.log_prob(points).sum(1)).double().exp()
    assert float(ratio.mean()) == pytest.approx(1, abs=5 * float(ratio.std()) / math.sqrt(len(points)))


def test_every_parameter_is_trained(made):
    flow, x, base = made
    flow.zero_grad()
    flow(base[:, 0], x).mean().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in flow.parameters())
    assert any(bool((p.grad != 0).any()) for p in flow.parameters())


def test_a_galaxys_draws_do_not_depend_on_others(made):
    flow, x, base = made
    together, alone = flow.sample_with_log_prob(base, x)[0], flow.sample_with_log_prob(base[2:3], x[2:3])[0]
    torch.testing.assert_close(together[2:3], alone, atol=1e-5, rtol=1e-4)


def test_the_state_is_all_there_is(kind, made):
    flow, x, base = made
    other = new(kind, seed=7)
    assert not torch.equal(other.sample_with_log_prob(base, x)[0], flow.sample_with_log_prob(base, x)[0])
    other.load_state_dict(flow.state_dict())
    for one, two in zip(other.sample_with_log_prob(base, x), flow.sample_with_log_prob(base, x), strict=True):
        assert torch.equal(one, two)
    assert sum(p.numel() for p in flow.parameters()) == flow.n_weights(
        4, 5, flow.Settings.model_validate(SETTINGS[kind])
    )
    assert flow.memory(2000) > flow.memory(200) > 0


def test_draws_follow_weights_that_change_after_the_first_draw(made):
    """Whatever a family prepares for its draws is made anew: by hand, by an optimizer and by a loaded state."""
    flow, x, base = made
    before = flow.sample_with_log_prob(base, x)[0]
    state = {name: value.clone() for name, value in flow.state_dict().items()}
    training.step(flow, training.optimizer(flow), base[:, 0], x, 0.05, False)
    stepped = flow.sample_with_log_prob(base, x)[0]
    assert not torch.equal(before, stepped)
    flow.eval()
    assert torch.equal(stepped, flow.sample_with_log_prob(base, x)[0])
    training.step(flow.train(), training.optimizer(flow), base[:, 0], x, 0.05, False)
    again = flow.eval().sample_with_log_prob(base, x)[0]
    assert not torch.equal(stepped, again)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.01)
    assert not torch.equal(again, flow.sample_with_log_prob(base, x)[0])
    flow.load_state_dict(state)
    assert torch.equal(before, flow.sample_with_log_prob(base, x)[0])


# -- names ------------------------------------------------------------------------------------------------------------


def test_a_name_belongs_to_one_family_and_one_encoder():
    with pytest.raises(ValueError, match="'maf' exists already"):
        conditional_flow.register("maf")(ConditionalAffine)
    with pytest.raises(ValueError, match="'redshift' exists already"):
        features.register(NumberOfBands("redshift"))
    assert conditional_flow.names() == ("affine", "maf")


def test_what_does_not_exist_is_named_with_what_does():
    with pytest.raises(ValueError, match="no family of flows is called 'spline'; there are affine, maf"):
        build("spline", {}, 4, 5, seed=1)
    with pytest.raises(ValueError, match="no encoder is called 'spectrum'; there are colours, "):
        features.encoders(("colours", "spectrum"))


@pytest.mark.parametrize("settings", [{}, {"spread": -1.0}, {"spread": 1.0, "hidden": 3}])
def test_settings_that_a_family_does_not_have_are_refused(settings):
    with pytest.raises(ValueError, match=r"spread|hidden"):
        FlowSpec(family="affine", settings=settings)


# -- a toy family and a toy encoder, through a whole model --------------------------------------------------------------


@pytest.fixture
def toy_model(flow, noise, shapes):
    """A model of the toy family on features with a toy encoder among them, trained as any other."""
    survey, names = (
        MockSurvey(noise, SPACE.amplitude.prior.range, drop_out=0.2),
        (*COLOURS[:2], "number_of_bands", "redshift"),
    )
    standardised = training.fit_features(survey, shapes, names, seed=3)
    kind = FlowSpec(family="affine", settings={"spread": 1.0})
    network = kind.build(flow.dimensions, len(standardised.mean), seed=3)
    adam = training.optimizer(network)
    for i in range(200):
        mocks = survey.observe(shapes, 256, torch.Generator().manual_seed(i))
        x = standardised(mocks.photometry)
        training.step(network, adam, mocks.phi, x, training.learning_rate(i, 200, 2e-2, 10), False)
    spec = flow.spec.model_copy(update={"flow": kind, "features": names})
    return TrainedModel(spec, network, standardised, noise, flow.colour_range, flow.novelty, flow.ssp_table)


def test_a_toy_family_is_trained_stored_and_infers(toy_model, mocks):
    weights, spec = toy_model.to_bytes()
    loaded = TrainedModel.from_bytes(weights, spec)
    assert loaded.to_bytes() == (weights, spec) and loaded.id == toy_model.id
    assert isinstance(loaded.network, ConditionalAffine)
    assert loaded.spec.features[2] == "number_of_bands" and len(loaded.features.mean) == 12
    x = loaded.features(mocks.photometry)
    prior = -0.5 * (mocks.phi**2).sum(1).mean() - 5 * math.log(2 * math.pi)
    with torch.no_grad():
        assert float(loaded.network.log_prob(mocks.phi, x).mean() - prior) > 0.5  # it has learnt something
    one, two = (
        Posterior(m, seed=1, n_draws=256).draw(mocks.photometry[:20], np.arange(20), 256) for m in (toy_model, loaded)
    )
    assert torch.equal(one.values, two.values) and torch.equal(one.weight, two.weight)
    found = Posterior(loaded, seed=1, n_draws=256).summarise(mocks.photometry[:20], np.zeros(20, np.uint32), 0)
    assert np.isfinite(found.quantiles).all() and (found.effective_fraction > 0).all()
    lo, hi = loaded.space.block_of("log_mstar").prior.range
    assert ((found.quantiles[:, 0] >= lo) & (found.quantiles[:, 0] <= hi)).all()


def test_a_model_of_a_family_without_a_form_in_sbi_says_so(toy_model):
    with pytest.raises(ValueError, match="ConditionalAffine has no form that sbi knows"):
        toy_model.to_sbi()


def test_a_model_of_a_family_that_is_not_there_says_which_are(toy_model, monkeypatch):
    stored = toy_model.to_bytes()
    monkeypatch.setattr(conditional_flow, "_families", {"maf": conditional_flow.family("maf")})
    with pytest.raises(ValueError, match="no family of flows is called 'affine'; there are maf"):
        TrainedModel.from_bytes(*stored)


# -- devices ----------------------------------------------------------------------------------------------------------


def test_no_tensor_of_a_model_stays_behind_when_it_moves(flow):
    """To the device "meta", which holds shapes alone: on any machine, a tensor that is no buffer would be found out."""
    model = TrainedModel.from_bytes(*flow.to_bytes())
    assert model.redshift_model is model.redshift_model
    names = set(model.state_dict())
    moved = model.to("meta")
    stays = [n for n, t in (*moved.named_parameters(), *moved.named_buffers()) if t.device.type != "meta"]
    assert not stays
    assert set(moved.state_dict()) == names and {n.split(".")[0] for n in names} == {
        "network", "features", "noise", "novelty", "ssp", "colour_range",
    }  # fmt: skip
    assert not {"redshift_model", "ssp_table"} & set(vars(moved))  # those of the other device are forgotten


def plain_tensors(module):
    """Tensors that our modules have as plain attributes, which do not move (nflows' have, of no use after they are built)."""
    ours = [m for m in module.modules() if not type(m).__module__.startswith(("nflows", "sbi", "torch"))]
    assert len(ours) >= 6
    return [
        (type(m).__name__, name) for m in ours for name, value in vars(m).items() if isinstance(value, torch.Tensor)
    ]


def test_no_tensor_is_an_attribute_that_does_not_move(flow, toy_model):
    assert not plain_tensors(flow) and not plain_tensors(toy_model)


def test_what_is_made_on_the_way_is_made_on_the_device_of_the_data(flow, mocks):
    """Whatever forgets its device is made on another one here, and does not fit: tensors get theirs from the data."""
    seen = mocks.photometry[:50]
    base = torch.randn(50, 8, flow.dimensions)

    def work():
        x = flow.features(seen)
        phi, log_q = flow.network.sample_with_log_prob(base, x)
        return (
            x, phi, log_q, flow.network.log_prob(phi[:, 0], x).detach(), *flow.noise.moments(seen.flux),
            flow.noise.outside(seen), flow.novelty.beyond(seen), flow.features.fit(COLOURS, seen).std,
        )  # fmt: skip

    expected = work()
    with torch.device("meta"):
        found = work()
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_a_model_is_loaded_to_a_device(flow):
    moved = TrainedModel.from_bytes(*flow.to_bytes(), device="meta")
    assert moved.colour_range.device.type == moved.ssp.spectra.device.type == "meta"
