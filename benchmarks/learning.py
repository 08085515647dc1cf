"""Learning curves: held-out log-probability against seconds, ours, sbi's `train()` and other flows, on the demo's simulations.

    python benchmarks/learning.py demo sbi --out sbi.json              # sbi's train() on 200,000 simulations
    python benchmarks/learning.py demo ours --seconds 240 --out a.json # our training on the same ones
    python benchmarks/learning.py demo ours --transforms 15 --hidden 500 --batch 256 --rate 1e-3 --out b.json
    python benchmarks/learning.py --plot curves.png sbi.json a.json

``demo`` is the folder that `make demo` filled. Run rivals at the same time, a core each (`taskset -c 0`, `taskset -c 1`,
OMP_NUM_THREADS=1): the machine's other work then disturbs both alike. Validation is not counted in anyone's seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from jobs import train
from jobs.config.run_file import RunFile
from sedflow_dist.flow import maf, training
from sedflow_dist.flow.conditional_flow import build
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.simulation.mocks import Mocks
from sedflow_dist.simulation.shapes import Shapes
from sedflow_dist.validation.mock_galaxies import amplitude_log_prob
from storage_schemas import model

SIMULATIONS, VALIDATION = 200_000, 16_384


class Data:
    """The first simulations of the demo, and 16,384 mock galaxies made of others, as a flow of ``amplitude`` sees them."""

    def __init__(self, root: str, amplitude: Literal["exact", "learnt"] = "exact") -> None:
        run = self.run = RunFile.load(
            "demo", root=root, training={}, flow={"preset": "paper"} if amplitude == "learnt" else {}
        )
        self.amplitude, self.prior = amplitude, run.model.make_prior()
        shapes, held_out = train.load_shapes(run)
        self.shapes = Shapes(*(values[:SIMULATIONS] for values in vars(shapes).values()))
        self.survey = train.mock_survey(run, train.fit_noise(run))
        self.features = train.make_features(run, self.survey, shapes)
        self.mocks = self.survey.observe(held_out, VALIDATION, torch.Generator().manual_seed(0))
        self.validation = self._see(self.mocks)

    def observe(self, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return targets and features of ``n`` mock galaxies."""
        return self._see(self.survey.observe(self.shapes, n, torch.Generator().manual_seed(seed)))

    def _see(self, mocks: Mocks) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.features(mocks.photometry)
        return training.target(mocks, self.amplitude, self.prior), features

    def score(self, estimator: Callable[..., torch.Tensor]) -> float:
        """Return the mean log-probability of the validation galaxies."""
        with torch.no_grad():
            parts = [estimator(*part) for part in zip(*(v.split(2048) for v in self.validation), strict=True)]
        return float(torch.cat(parts).mean())

    def exact_amplitude(self) -> float:
        """Return the mean ln p(amplitude | shape, data) of the validation galaxies, in probit space: no flow enters.

        Added to a shape flow's log-probability, it gives that of all eleven coordinates, as the paper's flow learns them.
        """
        flow = TrainedModel.from_bytes(*model.read(self.run.store("model")))  # for its galaxy model
        parts = [amplitude_log_prob(flow, self.mocks[start : start + 512]) for start in range(0, VALIDATION, 512)]
        return float(torch.cat(parts).mean())


class Curve(list[dict[str, Any]]):
    """Points of a learning curve; its clock stands still while a point is measured."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.idle, self.start = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return time.perf_counter() - self.start - self.idle

    def add(self, data: Data, estimator: Callable[..., torch.Tensor], **more: Any) -> None:
        """Measure a point."""
        seconds, begin = self.seconds, time.perf_counter()
        self.append({"seconds": round(seconds, 1), "log_prob": data.score(estimator), **more})
        print(self.name, self[-1], flush=True)
        self.idle += time.perf_counter() - begin


def sbi(data: Data, settings: argparse.Namespace) -> Curve:
    """sbi's own training with its own settings, one noisy observation of each simulation, as its users have."""
    from sbi.inference import NPE

    class Recorded(NPE):
        def _converged(self, epoch: int, stop_after_epochs: int) -> bool:
            if epoch:
                curve.add(data, _log_prob(self._neural_net), epoch=epoch, own=-self._val_loss)
            return super()._converged(epoch, stop_after_epochs)

    phi, x = data.observe(SIMULATIONS, 1)
    dimensions, features = phi.shape[1], x.shape[1]
    prior = torch.distributions.MultivariateNormal(torch.zeros(dimensions), torch.eye(dimensions))
    inference = Recorded(
        prior,
        density_estimator=lambda *_: maf.build(dimensions, features, settings.transforms, settings.hidden, seed=1),
        show_progress_bars=False,
    ).append_simulations(phi, x)
    curve = Curve("sbi")
    net = inference.train()
    curve.add(data, _log_prob(net), end=True)
    return curve


def _log_prob(net: torch.nn.Module) -> Callable[..., torch.Tensor]:
    """The log-probability of sbi's network, in our arithmetic."""
    return lambda phi, x: maf.log_prob(maf.blocks(net), phi, x)


def ours(data: Data, settings: argparse.Namespace) -> Curve:
    """Our training."""
    phi, x = data.observe(64, 1)
    size = {"transforms": settings.transforms, "hidden": settings.hidden}
    estimator = build("maf", size, phi.shape[1], x.shape[1], seed=1)
    return fit(data, estimator, settings.seconds, settings.batch, settings.rate, settings.every)


def fit(
    data: Data,
    estimator: torch.nn.Module,
    seconds: float,
    batch: int,
    rate: float,
    every: float,
    precision: Literal["auto", "float32"] = "auto",
) -> Curve:
    """Our loop: a new observation of the simulations at every step, learning rate down to zero at the end of the time."""
    optimizer = training.optimizer(estimator)
    bfloat16 = training.use_bfloat16(precision)
    curve = Curve("ours")
    step, next_point = 0, every
    while (done := curve.seconds / seconds) < 1:
        # The schedule runs on time: its steps are thousandths of the budget.
        now = training.learning_rate(int(1000 * done), 1000, rate, 20)
        training.step(estimator, optimizer, *data.observe(batch, 1000 + step), now, bfloat16)
        step += 1
        if curve.seconds > next_point:
            curve.add(data, estimator, step=step)
            next_point += every
    curve.add(data, estimator, step=step, end=True)
    return curve


def plot(out: str, files: list[str]) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), constrained_layout=True)
    for file in files:
        points = json.loads(Path(file).read_text())
        axes.plot([p["seconds"] for p in points], [p["log_prob"] for p in points], label=Path(file).stem)
    axes.set(xscale="log", xlabel="seconds, one core", ylabel="held-out log-probability", ylim=(-12, None))
    axes.legend()
    figure.savefig(out, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", help="root of the demo and who: ours or sbi; with --plot: curves")
    parser.add_argument("--transforms", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rate", type=float, default=8e-3)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--every", type=float, default=10, help="seconds between points")
    parser.add_argument("--amplitude", default="exact", choices=("exact", "learnt"), help="learnt: eleven dimensions")
    parser.add_argument("--out", default="curve.json")
    parser.add_argument("--plot")
    settings = parser.parse_args()
    if settings.plot:
        plot(settings.plot, settings.what)
        return
    root, who = settings.what
    data = Data(root, amplitude=settings.amplitude)
    if settings.amplitude == "exact":
        print(f"ln p(amplitude | shape, data), exact: {data.exact_amplitude():.3f}", flush=True)
    curve = {"ours": ours, "sbi": sbi}[who](data, settings)
    Path(settings.out).write_text(json.dumps(curve))


if __name__ == "__main__":
    main()
