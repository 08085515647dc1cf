"""A flow on disk: the same bytes back, an id that means what it says, and hostile bytes refused with a ValueError."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from provabgs import SPACE
from safetensors.torch import load, save

from sedflow_dist.flow.features import MAGNITUDES
from sedflow_dist.flow.model_spec import ModelSpec, dimensions
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference.posterior import Posterior

BIAS = "network.net._transform._transforms.0.autoregressive_net.initial_layer.bias"
#: What a flow stores besides its network.
OWN = ("features.mean", "features.std", "noise.magnitude", "noise.mean", "noise.scatter", "colour_range",
       "novelty.weight", "novelty.mean", "novelty.covariance", "novelty.limit")  # fmt: skip


@pytest.fixture(scope="module")
def stored(flow):
    return flow.to_bytes()


@pytest.fixture(scope="module")
def loaded(stored):
    return TrainedModel.from_bytes(*stored)


def maf(**settings):
    """The flow of the specification, some settings changed."""
    return {"flow": {"family": "maf", "settings": {"transforms": 3, "hidden": 32, **settings}}}


def changed_spec(stored, **values):
    return json.dumps({**json.loads(stored[1]), **values}).encode()


# -- round trip -------------------------------------------------------------------------------------------------------


def test_bytes_and_id_survive(flow, loaded, stored):
    assert loaded.to_bytes() == stored == flow.to_bytes()
    assert loaded.id == flow.id
    assert len(flow.id) == 16


def test_the_loaded_flow_gives_the_same_answers(flow, loaded, mocks):
    first, second = (Posterior(f, seed=1).draw(mocks.photometry[:3], np.arange(3), 64) for f in (flow, loaded))
    assert torch.equal(first.values, second.values)
    assert torch.equal(first.weight, second.weight)
    assert loaded.noise.selection == flow.noise.selection
    assert loaded.space == flow.space == SPACE
    assert loaded.ssp_table.checksum == flow.ssp_table.checksum
    assert torch.equal(loaded.colour_range, flow.colour_range)


def test_a_flow_that_learnt_the_amplitude_survives(learnt_flow):
    back = TrainedModel.from_bytes(*learnt_flow.to_bytes())
    assert back.to_bytes() == learnt_flow.to_bytes()
    assert back.dimensions == dimensions("learnt", SPACE) == 11
    assert back.features.names == MAGNITUDES
    assert dimensions("exact", SPACE) == 10


@pytest.mark.parametrize("name", [*OWN, "ssp.spectra", BIAS])
def test_the_id_depends_on_every_tensor(flow, stored, name):
    tensors = load(stored[0])
    tensors[name].view(-1)[0] += 1e-3
    assert TrainedModel.from_bytes(save(tensors), stored[1]).id != flow.id


def test_the_id_depends_on_the_specification(flow, stored):
    assert TrainedModel.from_bytes(stored[0], changed_spec(stored, birth_cloud_age=0.1)).id != flow.id


def test_the_specification_is_readable_json(stored, flow, sdss_bands):
    spec = json.loads(stored[1])
    assert tuple(spec["bands"]) == sdss_bands
    assert spec["format"] == 2
    assert ModelSpec.model_validate(spec) == flow.spec


# -- hostile bytes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, 0.5, -1])
def test_truncated_weights_are_refused(stored, keep):
    end = int(keep * len(stored[0])) if isinstance(keep, float) else keep
    with pytest.raises(ValueError, match="not a safetensors file"):
        TrainedModel.from_bytes(stored[0][:end], stored[1])


@given(st.binary(max_size=200))
def test_random_weights_are_refused(stored, data):
    with pytest.raises(ValueError):
        TrainedModel.from_bytes(data, stored[1])


@given(st.binary(max_size=200) | st.text(max_size=50).map(str.encode) | st.just(b"{}") | st.just(b"null"))
def test_random_specifications_are_refused(stored, data):
    with pytest.raises(ValueError, match="not the specification of a flow"):
        TrainedModel.from_bytes(stored[0], data)


@pytest.mark.parametrize("keep", [1, 50, 0.5, -1])
def test_truncated_specifications_are_refused(stored, keep):
    end = int(keep * len(stored[1])) if isinstance(keep, float) else keep
    with pytest.raises(ValueError, match="not the specification of a flow"):
        TrainedModel.from_bytes(stored[0], stored[1][:end])


@given(st.data())
def test_damaged_headers_are_refused_or_harmless(stored, data):
    """The header of safetensors with some bytes replaced: a ValueError, or a flow (a changed letter of the padding)."""
    weights = bytearray(stored[0])
    header = 8 + int.from_bytes(weights[:8], "little")
    for position in data.draw(st.lists(st.integers(0, header - 1), min_size=1, max_size=3)):
        weights[position] = data.draw(st.integers(0, 255))
    try:
        TrainedModel.from_bytes(bytes(weights), stored[1])
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize("name", ["features.mean", "noise.mean", "novelty.limit", "colour_range", "ssp.spectra"])
@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
def test_the_bits_of_floats_are_not_read_as_integers(stored, name, kind):
    """A header that says so is damaged; features of a mean of a billion would be an answer."""
    tensors = load(stored[0])
    tensors[name] = tensors[name].view(kind) if kind.itemsize == tensors[name].itemsize else tensors[name].to(kind)
    with pytest.raises(ValueError, match=rf"{name} is of type torch.int"):
        TrainedModel.from_bytes(save(tensors), stored[1])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": 1}, "format 1; this version reads format 2"),
        (maf(transforms=2), "weights do not fit the specification"),
        (maf(hidden=31), "weights do not fit the specification"),
        ({"amplitude": "learnt"}, "weights do not fit the specification"),
        ({"bands": ["sdss2010-u", "sdss2010-g", "sdss2010-r"], "labels": ["u", "g", "r"]}, "weights do not fit"),
        ({"amplitude": "both"}, "amplitude"),
        ({"surprise": 1}, "surprise"),
        (maf(transforms=-1), "transforms"),
        (maf(hidden=0), "hidden"),
        (maf(hidden=10_000_000), "hidden"),
        (maf(hidden=4096, transforms=100), r"needs 13,503,700,800 bytes or more"),  # before it is built
        (maf(units=3), "units"),
        ({"flow": {"family": "spline", "settings": {}}}, "no family of flows is called 'spline'; there are maf"),
        ({"flow": {"settings": {}}}, "family"),
        ({"features": ["colours", "spectrum"]}, "no encoder is called 'spectrum'; there are colours, "),
        ({"features": ["colours"]}, r"features.mean has shape|context_layer"),
        ({"features": []}, "one encoder or more"),
        ({"features": ["redshift", "redshift"]}, "each once"),
        ({"labels": ["u", "g"]}, "labels"),
        ({"selection_band": 7}, "selection_band"),
        ({"prior": {"mass": [1.0, 2.0]}}, "prior"),
        ({"redshift": [0.2, 0.1]}, "redshift"),
    ],
)
def test_specifications_that_do_not_fit_are_refused(stored, changed, message):
    with pytest.raises(ValueError, match=message):
        TrainedModel.from_bytes(stored[0], changed_spec(stored, **changed))


@pytest.mark.parametrize("name", [*OWN, "ssp.age", "ssp.spectra"])
@pytest.mark.parametrize("damage", ["missing", "another shape"])
def test_weights_that_lack_something_are_refused(stored, name, damage):
    tensors = load(stored[0])
    if damage == "missing":
        del tensors[name]
    else:
        tensors[name] = torch.cat([tensors[name], tensors[name]], dim=-1)
    with pytest.raises(ValueError, match=name if damage == "missing" else "weights do not fit|SSP"):
        TrainedModel.from_bytes(save(tensors), stored[1])


def test_weights_that_are_not_numbers_are_refused(stored):
    for name in ("features.mean", BIAS):
        tensors = load(stored[0])
        tensors[name].view(-1)[0] = float("nan")
        with pytest.raises(ValueError, match=name):
            TrainedModel.from_bytes(save(tensors), stored[1])


@pytest.mark.parametrize(("name", "message"), [("weight", "not positive"), ("covariance", "not positive definite")])
def test_a_mixture_that_is_none_is_refused(stored, name, message):
    tensors = load(stored[0])
    tensors[f"novelty.{name}"].view(-1)[0] = -1
    with pytest.raises(ValueError, match=message):
        TrainedModel.from_bytes(save(tensors), stored[1])


# -- in sbi -----------------------------------------------------------------------------------------------------------


def test_sbi_samples_the_flow(flow, mocks):
    """sbi's own posterior over probit space: samples as our sampler's, in distribution, and the same density."""
    x = flow.features(mocks.photometry[:1])
    posterior = flow.to_sbi()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        samples = posterior.sample((2000,), x=x, show_progress_bars=False)
    assert samples.shape == (2000, flow.dimensions)
    base = torch.randn(1, 2000, flow.dimensions, generator=torch.Generator().manual_seed(1))
    ours, _ = flow.network.sample_with_log_prob(base, x)
    spread = ours[0].std(0)
    assert float(((samples.mean(0) - ours[0].mean(0)) / spread).abs().max()) < 0.15
    assert torch.allclose(samples.std(0), spread, rtol=0.1)
    log_prob = posterior.log_prob(samples[:50], x=x, norm_posterior=False)
    with torch.no_grad():
        expected = flow.network.log_prob(samples[:50], x.expand(50, -1))
    torch.testing.assert_close(log_prob, expected, atol=1e-3, rtol=1e-4)
