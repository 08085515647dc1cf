"""Checkpoints: what a killed worker left half written is not taken for a result."""

import json

import pytest
import tiny
import torch
from safetensors.torch import save

from jobs.train import _STATE, _TENSORS, _latest


def checkpoint(location, name, step, state=None, tensors=None):
    location.put(f"{name}/{_STATE}", json.dumps({"step": step}).encode() if state is None else state)
    if tensors != b"":
        location.put(f"{name}/{_TENSORS}", save({"x": torch.tensor([step])}) if tensors is None else tensors)


def test_the_last_whole_checkpoint_is_the_result(tmp_path):
    location = tiny.location(tmp_path)
    checkpoint(location, "a", 10)
    checkpoint(location, "b", 20)
    checkpoint(location, "cut state", 20, state=b'{"step": 2')
    checkpoint(location, "no tensors", 20, tensors=b"")
    checkpoint(location, "cut tensors", 20, tensors=save({"x": torch.tensor([1])})[:-3])
    tensors, state = _latest(location)
    assert state["step"] == tensors["x"].item() == 20


@pytest.mark.parametrize("damage", [{"state": b"{"}, {"tensors": b""}, {"tensors": b"nothing"}])
def test_without_a_whole_last_checkpoint_there_is_no_result(tmp_path, damage):
    location = tiny.location(tmp_path)
    if "tensors" in damage:
        checkpoint(location, "a", 10)  # older: the training did not end there
    checkpoint(location, "b", 20, **damage)
    with pytest.raises(RuntimeError, match="without a whole checkpoint"):
        _latest(location)
