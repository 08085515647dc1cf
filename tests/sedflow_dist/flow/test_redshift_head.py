"""The redshift head: a density of ln(1 + z), stored with its model, that learns what the photometry says of the redshift."""

import json

import numpy as np
import pytest
import torch

from sedflow_dist.flow import head_training
from sedflow_dist.flow.head_training import HeadSettings
from sedflow_dist.flow.redshift_head import HeadSpec
from sedflow_dist.flow.trained_model import TrainedModel

SETTINGS = HeadSettings(hidden=(64, 64), n_galaxies=20_000, steps=200, batch=512, learning_rate=0.003, warm_up=20)


@pytest.fixture(scope="module")
def headed(flow):
    return head_training.train(flow, SETTINGS, seed=2)


def test_its_density_adds_up_to_one_and_is_flat_in_bins():
    spec = HeadSpec(hidden=(8,), width=0.02)
    network = spec.network((0.1, 0.5), 5, seed=3)
    widths = network.edges.diff()
    assert float(network.edges[0]) == pytest.approx(np.log(1.1)) and float(network.edges[-1]) == pytest.approx(
        np.log(1.5)
    )
    assert widths.max() - widths.min() < 1e-6 and abs(float(widths[0]) - 0.02) < 0.001
    x = torch.randn(7, spec.n_features(5), generator=torch.Generator().manual_seed(1))
    middles = (network.edges[:-1] + 0.5 * widths).expand(7, -1)
    each = torch.stack([network(middles[:, [i]], x) for i in range(len(widths))], 1).exp()
    torch.testing.assert_close((each * widths).sum(1), torch.ones(7), rtol=1e-5, atol=0)
    torch.testing.assert_close(network(network.edges[2:3].expand(7, 1) + 1e-4, x).exp(), each[:, 2], rtol=1e-5, atol=0)


def test_it_learns_and_the_same_settings_give_the_same_weights(headed, flow):
    """The range of redshifts alone has a log-density of -ln(ln(1 + z_max))."""
    history = headed.head.spec.training["history"]
    assert headed.head.spec.training["best"] > -np.log(np.log1p(flow.spec.redshift[1])) + 0.1
    assert history[-1]["validation"] > history[0]["validation"]
    few = SETTINGS.model_copy(update={"steps": 3, "n_galaxies": 2000})
    assert head_training.train(flow, few, 2).id == head_training.train(flow, few, 2).id
    assert head_training.train(flow, few, 3).id != head_training.train(flow, few, 2).id


def test_it_sees_no_redshift(headed, mocks):
    photometry = mocks.photometry[:20]
    hidden = type(photometry)(**{**vars(photometry), "redshift": torch.full_like(photometry.redshift, torch.nan)})
    assert torch.equal(headed.head.log_bins(hidden), headed.head.log_bins(photometry))


def test_a_model_with_a_head_is_stored_whole(headed, flow, mocks):
    weights, spec = headed.to_bytes()
    read = TrainedModel.from_bytes(weights, spec)
    assert read.id == headed.id != flow.id
    assert torch.equal(read.head.log_bins(mocks.photometry), headed.head.log_bins(mocks.photometry))
    assert flow.head is None and "head" not in json.loads(flow.to_bytes()[1])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hidden": [10**6, 10**6]}, "needs .* bytes or more"),
        ({"hidden": [64]}, "weights do not fit"),
        ({"width": 1e-9}, "head.width"),
        ({"features": ["nonsense"]}, "no encoder is called 'nonsense'"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(headed, change, says):
    weights, spec = headed.to_bytes()
    told = json.loads(spec)
    told["head"].update(change)
    with pytest.raises(ValueError, match=says):
        TrainedModel.from_bytes(weights, json.dumps(told).encode())
