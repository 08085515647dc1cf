"""A training's checkpoint: weights, with the noise and the features that they are trained with, and how far it has come.

Tensors (safetensors) and JSON, never a pickle. A model is put together from its last checkpoint alone: noise and features
made again, of photometry that may have changed meanwhile, would not be those that the weights know.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sedflow_dist.flow.features import Features
from sedflow_dist.flow.on_disk import part_of
from sedflow_dist.flow.training import Progress
from sedflow_dist.photometry.noise import NoiseModel
from storage_schemas.backend.location import Location

TENSORS, STATE = "state.safetensors", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint.

    Attributes:
        progress: where the training stands
        noise, features: through which it sees mock galaxies
        current, best: the flow's state now and at its best validation
        optimizer: Adam's moments, as `training.optimizer_tensors` names them
    """

    progress: Progress
    noise: NoiseModel
    features: Features
    current: dict[str, Tensor]
    best: dict[str, Tensor]
    optimizer: dict[str, Tensor]

    def to_bytes(self) -> tuple[bytes, bytes]:
        """Return tensors and state."""
        parts = {
            "current": self.current, "best": self.best, "optimizer": self.optimizer,
            "noise": self.noise.state_dict(), "features": self.features.state_dict(),
        }  # fmt: skip
        tensors = {
            f"{part}.{name}": value.cpu().contiguous()
            for part, values in parts.items()
            for name, value in values.items()
        }
        state = {
            "progress": vars(self.progress), "features": self.features.names,
            "selection_band": self.noise.selection_band, "selection": self.noise.selection,
            "shallower": self.noise.shallower,
        }  # fmt: skip
        return save(tensors), json.dumps(state).encode()

    @classmethod
    def from_bytes(cls, tensors: bytes, state: bytes) -> Checkpoint:
        """Read a checkpoint.

        Raises:
            ValueError, SafetensorError: it is not whole, or of another version; says what is missing.
        """
        content, values = json.loads(state), load(tensors)
        current, best, moments = (part_of(values, name) for name in ("current", "best", "optimizer"))
        try:
            noise = NoiseModel(**part_of(values, "noise"), selection_band=content["selection_band"],
                               selection=tuple(content["selection"]), shallower=content["shallower"])  # fmt: skip
            features = Features(content["features"], **part_of(values, "features"))
            progress = Progress(**content["progress"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"the checkpoint is of another version of this package: {error}") from error
        return cls(progress, noise, features, current, best, moments)

    def write(self, folder: Path) -> None:
        """Write it to a folder."""
        for name, data in zip((TENSORS, STATE), self.to_bytes(), strict=True):
            (folder / name).write_bytes(data)

    @classmethod
    def read(cls, folder: Path) -> Checkpoint:
        """Read it from a folder."""
        return cls.from_bytes((folder / TENSORS).read_bytes(), (folder / STATE).read_bytes())


def latest(location: Location) -> Checkpoint:
    """Read the last checkpoint of a finished training; a worker killed as it wrote one may have left parts of it beside.

    Raises:
        RuntimeError: there is none that is whole.
    """
    states: dict[str, bytes] = {}
    steps: dict[str, int] = {}
    for name in location.list():
        if name.endswith(STATE):
            data = location.get(name)
            with suppress(ValueError, KeyError, TypeError):
                steps[name], states[name] = json.loads(data)["progress"]["step"], data
    last = max(steps.values(), default=0)
    for name, step in steps.items():
        if step == last:
            with suppress(FileNotFoundError, SafetensorError):
                return Checkpoint.from_bytes(location.get(name.removesuffix(STATE) + TENSORS), states[name])
    raise RuntimeError(f"training ended without a whole checkpoint in {location}")
