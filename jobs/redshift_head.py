"""The redshift head of a run's model: a trained model in, the same model with a head out. On this machine, minutes."""

from __future__ import annotations

import torch

from jobs.telemetry.progress import Clock, bar, say
from sedflow_dist.flow import head_training
from sedflow_dist.flow.head_training import HeadSettings
from sedflow_dist.flow.trained_model import TrainedModel


def add(model: TrainedModel, settings: HeadSettings, seed: int, threads: int) -> TrainedModel:
    """Train a head for a model, as part of `train`."""
    torch.set_num_threads(threads)
    clock = Clock()
    with bar("train", settings.steps, "steps") as progress:
        made = head_training.train(model, settings, seed, progress.update)
    best = made.spec.head.training["best"] if made.spec.head else None
    say("train", f"redshift head: validation log-density {best:.3f} of ln(1 + z) after {settings.steps:,} steps, "
        f"{clock.seconds:.0f} s")  # fmt: skip
    return made
