"""Checkpoints: all that a model needs of its training, and what a killed worker left half written is no result."""

import json

import pytest
import tiny
import torch

from jobs import train
from jobs.checkpoint import STATE, TENSORS, Checkpoint, latest
from sedflow_dist.flow.training import Progress, optimizer, optimizer_tensors
from storage_schemas import model as model_store


@pytest.fixture(scope="module")
def checkpoint(flow):
    """A checkpoint of the small flow after 20 steps."""
    network = flow.spec.build_flow(seed=2)
    adam = optimizer(network)
    network.log_prob(torch.zeros(2, flow.dimensions), torch.zeros(2, flow.spec.n_features)).mean().backward()
    adam.step()
    progress = Progress(20, -12.5, 1, [{"step": 10, "train": -14.0, "validation": -13.0}])
    best, moments = flow.network.state_dict(), optimizer_tensors(network, adam)
    return Checkpoint(progress, flow.noise, flow.features, network.state_dict(), best, moments)


def put(location, name, checkpoint, step, state=None, tensors=None):
    progress = Progress(**{**vars(checkpoint.progress), "step": step})
    whole = Checkpoint(progress, *list(vars(checkpoint).values())[1:]).to_bytes()
    location.put(f"{name}/{STATE}", whole[1] if state is None else state)
    if tensors != b"":
        location.put(f"{name}/{TENSORS}", whole[0] if tensors is None else tensors)


def test_a_checkpoint_has_noise_and_features_besides_weights(checkpoint, tmp_path):
    checkpoint.write(tmp_path)
    back = Checkpoint.read(tmp_path)
    assert back.progress == checkpoint.progress
    assert back.features.names == checkpoint.features.names
    assert (back.noise.selection_band, back.noise.selection) == (
        checkpoint.noise.selection_band,
        checkpoint.noise.selection,
    )
    states = [
        (c.noise.state_dict(), c.features.state_dict(), c.current, c.best, c.optimizer) for c in (checkpoint, back)
    ]
    for one, other in zip(*states, strict=True):
        assert one.keys() == other.keys() and one
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("lost", ["noise", "features"])
def test_a_checkpoint_without_noise_or_features_is_refused(checkpoint, lost):
    """Rather than that weights go on with others: such were written before they travelled with the weights."""
    from safetensors.torch import load, save

    tensors, state = checkpoint.to_bytes()
    left = {name: value for name, value in load(tensors).items() if not name.startswith(lost)}
    with pytest.raises(ValueError, match="of another version of this package"):
        Checkpoint.from_bytes(save(left), state)


def test_the_last_whole_checkpoint_is_the_result(checkpoint, tmp_path):
    location = tiny.location(tmp_path)
    put(location, "a", checkpoint, 10)
    put(location, "b", checkpoint, 20)
    put(location, "cut state", checkpoint, 20, state=b'{"progress": {"step": 2')
    put(location, "no tensors", checkpoint, 20, tensors=b"")
    put(location, "cut tensors", checkpoint, 20, tensors=checkpoint.to_bytes()[0][:-3])
    assert latest(location).progress.step == 20


@pytest.mark.parametrize("damage", [{"state": b"{"}, {"state": b"{}"}, {"tensors": b""}, {"tensors": b"nothing"}])
def test_without_a_whole_last_checkpoint_there_is_no_result(checkpoint, tmp_path, damage):
    location = tiny.location(tmp_path)
    if "tensors" in damage:
        put(location, "a", checkpoint, 10)  # older: the training did not end there
    put(location, "b", checkpoint, 20, **damage)
    with pytest.raises(RuntimeError, match="without a whole checkpoint"):
        latest(location)


def test_the_state_is_readable_json(checkpoint):
    state = json.loads(checkpoint.to_bytes()[1])
    assert state["progress"]["step"] == 20
    assert state["features"] == list(checkpoint.features.names)


def test_settings_that_are_not_in_use_leave_no_trace(tmp_path):
    """A model that was trained before they existed is still the run's, and one trained now has the same bytes."""
    plain = tiny.settings(tmp_path, tmp_path / "a.fits")
    assert not {"depth", "instruments", "start"} & set(train._training(plain, None))
    assert "features" not in train._used(plain.flow, "features")
    used = tiny.settings(tmp_path, tmp_path / "a.fits", training={"depth": {"u": 22.0}, "instruments": [["g", "r"]]})
    assert train._training(used, None)["depth"] == {"u": 22.0}
    assert train._training(used, None)["instruments"] == [["g", "r"]]


def starting(tmp_path, other, sections):
    """A run whose training starts from the small flow."""
    where = tiny.location(tmp_path) / "other"
    model_store.write(where, *other.to_bytes())
    content = {"flow": other.spec.flow.settings, "training": {"start": where.url}, **sections}
    return tiny.settings(tmp_path, tmp_path / "a.fits", **content)


def test_a_training_starts_from_the_weights_of_another_model(flow, tmp_path):
    """Whose redshifts may differ; the model says which it was."""
    run = starting(tmp_path, flow, {"model": {"redshift": [0, 0.1]}})
    start = train.starting_model(run)
    weights = start.network.state_dict()
    known, new = train.new_flow(run, start.features, weights), train.new_flow(run, start.features)
    assert all(torch.equal(known.state_dict()[name], value) for name, value in weights.items())
    assert any(not torch.equal(a, b) for a, b in zip(known.parameters(), new.parameters(), strict=True))
    assert train._training(run, start)["start"] == start.id == flow.id
    assert train.starting_model(tiny.settings(tmp_path, tmp_path / "a.fits")) is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"flow": {"transforms": 3, "hidden": 24}}, "has flow .*'hidden': 32.*, this run .*'hidden': 24"),
        (
            {"flow": {"transforms": 3, "hidden": 32, "features": ["log_colours", "measured", "redshift"]}},
            "has features .*'colours'.*, this run .*'log_colours'",
        ),
        ({"model": {"components": ["stars", "birth_cloud", "kriek_conroy", "nebular"]}}, "has components"),
        ({"model": {"prior": {"tau_ism": [0.0, 2.0]}}}, "has prior .*'tau_ism'"),
        ({"survey": "desi-legacy"}, "has bands .*sdss2010-u.*, this run .*decam"),
    ],
)
def test_weights_that_mean_something_else_are_no_start(flow, tmp_path, changed, said):
    with pytest.raises(ValueError, match=f"training.start: the model .* {said}"):
        train.starting_model(starting(tmp_path, flow, changed))
