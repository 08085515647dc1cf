"""Training a flow: stored shapes in, fresh mock observations every step, weights out.

Noiseless shapes are the expensive part and are simulated once; amplitude, noise and missing bands are drawn anew at every
step, so no galaxy is seen twice. Everything random is keyed by (seed, step, worker), so a run that was interrupted goes on
bit by bit as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sedflow_dist import keyed_random
from sedflow_dist.flow.features import Features
from sedflow_dist.parameters import ParameterSpace, probit
from sedflow_dist.simulation.mocks import Mocks, MockSurvey
from sedflow_dist.simulation.shapes import Shapes


def target(
    mocks: Mocks, amplitude: Literal["exact", "learnt"], space: ParameterSpace
) -> Float[Tensor, "galaxy dimension"]:
    """Return what the flow learns: the shapes' coordinates, or with the amplitude's among them."""
    if amplitude == "exact":
        return mocks.phi
    return space.join(probit(space.amplitude.prior.to_unit(mocks.log_mstar)), mocks.phi)


def fit_features(survey: MockSurvey, shapes: Shapes, names: Sequence[str], seed: int) -> Features:
    """Standardise the features of these encoders on 20,000 mock galaxies."""
    generator = torch.Generator().manual_seed(keyed_random.torch_seed(seed, "features"))
    mocks = survey.observe(shapes, 20_000, generator)
    return Features.fit(names, mocks.photometry)


def learning_rate(step: int, steps: int, peak: float, warm_up: int) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return 0.5 * peak * (1 + math.cos(math.pi * (step - warm_up) / max(steps - warm_up, 1)))


def step(
    flow: nn.Module,
    optimizer: torch.optim.Optimizer,
    phi: Float[Tensor, "row dimension"],
    x: Float[Tensor, "row feature"],
    rate: float,
    bfloat16: bool,
) -> float:
    """Take one step of Adam at this learning rate, its gradient no longer than 5; return the batch's log-probability."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    with torch.autocast(phi.device.type, torch.bfloat16, enabled=bfloat16):
        loss = -flow(phi, x).mean()
    loss.backward()
    nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
    optimizer.step()
    return -loss.item()


def optimizer(flow: nn.Module) -> torch.optim.Adam:
    """Adam, one operation for all weights."""
    return torch.optim.Adam(flow.parameters(), fused=True)


def use_bfloat16(precision: Literal["auto", "float32", "bfloat16"]) -> bool:
    """Whether the step's matrix products run in bfloat16: a third faster where the processor multiplies it natively."""
    if precision == "auto":
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return precision == "bfloat16"


@dataclass
class Progress:
    """Where a training stands; goes into every checkpoint."""

    step: int = 0
    best: float = -math.inf
    stale: int = 0  # validations since the best
    history: list[dict[str, float]] | None = None

    def record(self, log_prob: float, train_log_prob: float) -> bool:
        """Note a validation; return whether it is the best so far."""
        self.history = [*(self.history or []), {"step": self.step, "train": train_log_prob, "validation": log_prob}]
        better = log_prob > self.best
        self.best, self.stale = (log_prob, 0) if better else (self.best, self.stale + 1)
        return better


def optimizer_tensors(flow: nn.Module, optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    """Return Adam's moments by parameter name, for a checkpoint without pickle."""
    tensors = {}
    for name, parameter in flow.named_parameters():
        for moment, value in optimizer.state.get(parameter, {}).items():
            tensors[f"adam.{moment}.{name}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return tensors


def restore_optimizer(flow: nn.Module, optimizer: torch.optim.Adam, tensors: dict[str, Any]) -> None:
    """Put Adam's moments back."""
    for name, parameter in flow.named_parameters():
        state = {
            m: tensors[f"adam.{m}.{name}"].to(parameter.device, copy=True) for m in ("step", "exp_avg", "exp_avg_sq")
        }
        optimizer.state[parameter] = state
