"""Training a flow: stored shapes in, fresh mock observations every step, weights out.

Noiseless shapes are the expensive part and are simulated once; amplitude, noise and missing bands are drawn anew at every
step, so no galaxy is seen twice. Everything random is keyed by (seed, step, worker), so a run that was interrupted goes on
bit by bit as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sedflow_dist import keyed_random
from sedflow_dist.flow.captured_step import CapturedStep
from sedflow_dist.flow.features import Features
from sedflow_dist.parameters import ParameterSpace, probit
from sedflow_dist.simulation.mocks import Mocks, MockSurvey
from sedflow_dist.simulation.shapes import Shapes

#: Of a training of minutes.
_VALIDATIONS = 10


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
    rate: float | Tensor,
    bfloat16: bool,
) -> Float[Tensor, ""]:
    """Take one step of Adam at this learning rate, its gradient no longer than 5; return the batch's log-probability."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    with torch.autocast(phi.device.type, torch.bfloat16, enabled=bfloat16):
        loss = -flow(phi, x).mean()
    loss.backward()
    nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
    optimizer.step()
    return -loss.detach()


def optimizer(flow: nn.Module) -> torch.optim.Adam:
    """Adam, one operation for all weights; on a GPU as `CapturedStep` needs it."""
    weights = list(flow.parameters())
    return torch.optim.Adam(weights, fused=True, capturable=any(weight.is_cuda for weight in weights))


def use_bfloat16(precision: Literal["auto", "float32", "bfloat16"], device: str = "cpu") -> bool:
    """Whether the step's matrix products run in bfloat16: a third faster where the processor multiplies it natively.

    A GPU waits for the next operation longer than it multiplies, and casts are operations: there auto is float32.
    """
    if precision == "auto":
        return device == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
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


@runtime_checkable
class Examples(Protocol):
    """What a flow is trained on: targets and features of mock observations of shapes; ``names`` key what is random."""

    def draw(
        self, shapes: Shapes, n: int, *names: object
    ) -> tuple[Float[Tensor, "row dimension"], Float[Tensor, "row feature"]]:
        """Return ``n`` targets and features, or about as many."""


@dataclass(frozen=True)
class Batches:
    """Mock observations as the flow sees them, made on the device where survey, features and shapes are.

    Attributes:
        survey, features: what makes observations, and what the flow is conditioned on
        amplitude, space: what is learnt: see `target`
        seed: with the names of a batch, the key of everything random in it
    """

    survey: MockSurvey
    features: Features
    amplitude: Literal["exact", "learnt"]
    space: ParameterSpace
    seed: int

    def draw(
        self, shapes: Shapes, n: int, *names: object
    ) -> tuple[Float[Tensor, "row dimension"], Float[Tensor, "row feature"]]:
        """Return ``n`` targets and features."""
        generator = torch.Generator(shapes.phi.device).manual_seed(keyed_random.torch_seed(self.seed, *names))
        seen = self.survey.observe(shapes, n, generator)
        return target(seen, self.amplitude, self.space), self.features(seen.photometry)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a worker trains.

    Attributes:
        steps, batch: at most, and mock galaxies of each
        peak, warm_up: see `learning_rate`
        validate_every, validation_galaxies: steps between validations, and how many held-out galaxies each looks at
        patience: it stops after as many validations without a better one
        bfloat16: see `use_bfloat16`
        at_once: steps whose examples are drawn at once: on a GPU many, which it draws in the time of one
    """

    steps: int
    batch: int
    peak: float
    warm_up: int
    validate_every: int
    validation_galaxies: int
    patience: int
    bfloat16: bool
    at_once: int = 1

    @classmethod
    def short(cls, steps: int, batch: int, peak: float, warm_up: int, validation_galaxies: int) -> Schedule:
        """Return that of a training of minutes: all its steps, in float32, with ten validations."""
        every = max(steps // _VALIDATIONS, 1)
        return cls(steps, batch, peak, warm_up, every, validation_galaxies, patience=steps, bfloat16=False)


@dataclass
class Trainer:
    """One worker's training, from where ``progress`` stands to its end.

    Attributes:
        flow, optimizer: what is trained, on the device of the batches
        parallel: the same flow behind what averages gradients over workers; alone, the flow itself
        best: the flow's state at its best validation so far
        rank: of this worker: its batches are its own
    """

    flow: nn.Module
    optimizer: torch.optim.Adam
    parallel: nn.Module
    batches: Examples
    schedule: Schedule
    progress: Progress
    best: dict[str, Tensor]
    rank: int = 0
    _drawn: tuple[int, Tensor, Tensor] | None = field(default=None, init=False, repr=False)
    _captured: CapturedStep | None = field(default=None, init=False, repr=False)

    def run(self, shapes: Shapes, held_out: Shapes, stepped: Callable[[], None], validated: Callable[[], None]) -> None:
        """Train on shapes, judge on others held out; call ``stepped`` after each step, ``validated`` after each validation."""
        plan, progress = self.schedule, self.progress
        validation = self.batches.draw(held_out, plan.validation_galaxies, "validation")
        total, count = torch.zeros((), dtype=torch.float64, device=validation[0].device), 0
        while progress.step < plan.steps and progress.stale < plan.patience:
            rate = learning_rate(progress.step, plan.steps, plan.peak, plan.warm_up)
            total += self._step(*self._batch(shapes), rate)
            count += 1
            progress.step += 1
            stepped()
            if progress.step % plan.validate_every == 0 or progress.step == plan.steps:
                with torch.no_grad():
                    score = self.flow(*validation).mean().item()
                if progress.record(score, total.item() / count):
                    self.best = copy(self.flow)
                count = 0
                total.zero_()
                validated()

    def _batch(self, shapes: Shapes) -> tuple[Float[Tensor, "row dimension"], Float[Tensor, "row feature"]]:
        """Return the examples of the step that is next."""
        batch = self.schedule.batch
        number, place = divmod(self.progress.step, self.schedule.at_once)
        if self._drawn is None or self._drawn[0] != number:
            examples = self.batches.draw(shapes, batch * self.schedule.at_once, "train", number, self.rank)
            self._drawn = number, *examples
        if self.schedule.at_once == 1:
            return self._drawn[1:]
        rows = slice(place * batch, (place + 1) * batch)
        return self._drawn[1][rows], self._drawn[2][rows]

    def _step(
        self, phi: Float[Tensor, "row dimension"], x: Float[Tensor, "row feature"], rate: float
    ) -> Float[Tensor, ""]:
        """Take a step: on a GPU that trains alone and in float32, and for batches of the first one's size, a captured one."""
        if phi.is_cuda and self.parallel is self.flow and not self.schedule.bfloat16:
            if self._captured is None:
                self._captured = CapturedStep(step, self.flow, self.optimizer, phi, x)
            if self._captured.fits(phi):
                return self._captured(phi, x, rate)
        return step(self.parallel, self.optimizer, phi, x, rate, self.schedule.bfloat16)


def train_here(
    network: nn.Module,
    examples: Examples,
    shapes: tuple[Shapes, Shapes],
    schedule: Schedule,
    told: Callable[[int], None],
) -> dict[str, Any]:
    """Train a network in this process, without checkpoints, leave its best weights in it, and return how it went.

    ``shapes``: to train on, and to judge by; ``told`` hears of steps done.
    """
    progress = Progress()
    trainer = Trainer(network, optimizer(network), network, examples, schedule, progress, copy(network))
    trainer.run(*shapes, stepped=lambda: told(1), validated=lambda: None)
    network.load_state_dict(trainer.best)
    return {"best": progress.best, "history": progress.history}


def copy(flow: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a flow's state."""
    return {name: value.clone() for name, value in flow.state_dict().items()}


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
