"""mcmc: galaxies in, chains of their exact posteriors out. Ray actors sample blocks of galaxies side by side.

Every segment of a galaxy's chain is a checkpoint: it depends on the settings and on the segment before, so what a killed
actor leaves is gone on with by another, and the chain is the same bit by bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from cluster import ray_engine
from cluster.settings import RaySettings
from jobs.config.run_file import fingerprint
from jobs.config.sections import MCMC
from jobs.observed import observed
from jobs.on_worker import load_on_worker
from jobs.serving import check
from jobs.telemetry import events
from jobs.telemetry.progress import Clock, bar, say
from sedflow_dist import curves, keyed_random
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference import cascade, lockstep, mcmc
from sedflow_dist.inference.mcmc import Segment, State, Target
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.parameters import probit, to_16_bits
from sedflow_dist.photometry.flags import REASONS, Flag, names
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.simulation.mocks import Mocks
from sedflow_dist.validation.mock_galaxies import mock_galaxies
from storage_schemas import chains, photometry
from storage_schemas import model as model_store
from storage_schemas.backend.arrays import array
from storage_schemas.backend.chunked import ChunkedStore
from storage_schemas.backend.lease import hold
from storage_schemas.backend.location import Location

#: Galaxies that an actor samples side by side: more cost memory and save little.
BLOCK = 32


@dataclass(frozen=True)
class Galaxies:
    """Galaxies to be sampled: their photometry, and ``row`` (galaxy,), by which their chains are keyed and known."""

    photometry: Photometry
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, galaxies: slice | list[int]) -> Galaxies:
        """Return some of them."""
        return Galaxies(self.photometry[galaxies], self.row[galaxies])


@events.job("mcmc")
def sample(
    data: Galaxies, model: Location, out: Location, settings: MCMC, seed: int, ray: RaySettings
) -> tuple[ChunkedStore, ChunkedStore]:
    """Fill what is missing of the chains of galaxies; return segments and summary.

    Args:
        model: its galaxy model and prior make the posterior; the flow has a part in it only where walkers start at its draws
    """
    flow = TrainedModel.from_bytes(*model_store.read(model))
    described = {
        **settings.model_dump(), "seed": seed, "prior": flow.space.to_dict(), "ssp": flow.ssp_table.checksum,
        "birth_cloud_age": flow.spec.birth_cloud_age, "galaxies": digest(data), "bands": curves.names(flow.spec.bands),
        **({"model": flow.id} if settings.start == "flow" else {}),
    }  # fmt: skip
    with hold(out, "chains"):
        segments, summary = chains.create(
            out, len(data), settings.segments, settings.kept_steps, settings.walkers, flow.space.coordinates, described
        )
        missing = summary.missing()
        clock, steps = Clock(), settings.steps * len(missing)
        size = max(min(BLOCK, math.ceil(len(missing) / ray.actors)), 1)
        blocks = [tuple(missing[start : start + size]) for start in range(0, len(missing), size)]
        with ray_engine.session(ray), bar("mcmc", steps, "steps") as progress:
            counter = ray_engine.counter()
            with ray_engine.watch(counter, progress.update):
                arguments = (data, model, flow.id, settings, seed, out, counter)
                blame = ray_engine.Blame(ray.tries, _one_by_one, partial(_give_up, summary, data))
                ray_engine.map_actors(Sampler, arguments, "sample", blocks, ray, lambda _: None, blame)
        found = summary.read_rows(slice(0, summary.n_rows), ("rhat", "effective_draws", "flags"))
        failed = found["flags"] != 0
        if failed.any():
            say("mcmc", f"rows {data.row[failed].tolist()} kill every worker and have no chain (flag FAILED)")
        if not failed.all():
            say("mcmc", f"{len(missing):,} galaxies in {clock.seconds:.0f} s ({settings.sampler}, {settings.walkers} x "
                f"{settings.steps:,}); worst R-hat {found['rhat'][~failed].max():.3f}, fewest effective draws "
                f"{found['effective_draws'][~failed].min():,.0f}: {out}")  # fmt: skip
    return segments, summary


def _one_by_one(block: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [(galaxy,) for galaxy in block]


def _give_up(summary: ChunkedStore, data: Galaxies, block: tuple[int, ...]) -> None:
    """Write that a galaxy has no chain."""
    (galaxy,) = block
    values = {
        **{name: np.full(array(summary.group, name).shape[1], np.nan) for name in ("autocorrelation_time", "rhat")},
        **dict.fromkeys(("effective_draws", "log_evidence", "log_evidence_error"), np.nan),
        "row": data.row[galaxy], "evaluations": 0, "flags": int(Flag.FAILED),
    }  # fmt: skip
    summary.write(galaxy, {name: np.asarray(value)[None] for name, value in values.items()})


def rows_of(store: Location, rows: np.ndarray, model: Location) -> Galaxies:
    """Read rows of a photometry store for a model.

    Raises:
        ValueError: the bands are not the model's, or a row does not exist or has no posterior; says which and why.
    """
    opened, flow = photometry.open(store), TrainedModel.from_bytes(*model_store.read(model))
    check(opened, flow, model)
    if len(rows) and not 0 <= rows.min() <= rows.max() < opened.n_rows:
        raise ValueError(f"rows {rows.min()} to {rows.max()} asked for; {store} has rows 0 to {opened.n_rows - 1}")
    data = photometry.pick(opened, rows, photometry.data(photometry.has_redshift_errors(opened)))
    for row, flag, z in zip(rows, data["flags"], data["redshift"], strict=True):
        if reasons := int(flag) & int(REASONS):
            raise ValueError(f"row {row} of {store} has no posterior: {', '.join(names(reasons))}")
        if z > flow.reach:
            raise ValueError(f"row {row} of {store} has redshift {z:g}; the model's spectra serve to {flow.reach:g}")
    return Galaxies(observed(data), rows)


def mocks(flow: TrainedModel, n: int, seed: int) -> Galaxies:
    """Return simulated galaxies: those that `validate` checks the flow on."""
    return of_mocks(mock_galaxies(flow, n, seed))


def of_mocks(galaxies: Mocks) -> Galaxies:
    """Return mock galaxies to be sampled; rows count from 0."""
    return Galaxies(galaxies.photometry, np.arange(len(galaxies)))


class Sampler:
    """An actor that samples blocks of galaxies; see `sample`."""

    def __init__(
        self, data: Galaxies, model: Location, model_id: str, settings: MCMC, seed: int, out: Location, counter: Any
    ) -> None:
        self.flow = load_on_worker(model, model_id)
        self.posterior = Posterior(self.flow, seed)  # its draws are where walkers may start
        self.data, self.settings, self.seed, self.counter = data, settings, seed, counter
        self.segments, self.summary = chains.open(out, "r+")

    def sample(self, block: tuple[int, ...]) -> int:
        """Finish the chains of the galaxies of a block; return how many there are."""
        target = Target(self.flow.redshift_model, self.data.photometry[list(block)])
        missing = set(self.segments.missing())
        lockstep.run([self._task(target, place, galaxy, missing) for place, galaxy in enumerate(block)], target)
        for galaxy in block:
            self._summarise(galaxy)
        return len(block)

    def _task(self, target: Target, place: int, galaxy: int, missing: set[int]) -> Callable[[lockstep.Ask], None]:
        """Return the task of a galaxy, the ``place``-th of the target's: it writes the segments that are missing."""
        settings, first = self.settings, galaxy * self.settings.segments
        row = int(self.data.row[galaxy])

        def work(ask: lockstep.Ask) -> None:
            for number in range(settings.segments):
                if first + number not in missing:
                    continue
                seed = keyed_random.torch_seed(self.seed, "mcmc", row, number)
                if settings.sampler == "nautilus":
                    part = mcmc.nested(ask, len(self.flow.space.shapes), settings.kept_steps, settings.walkers, seed)
                else:
                    start = self._end(first + number - 1) if number else self._start(target, place, galaxy, row)
                    part = mcmc.segment(settings.sampler, ask, start, settings.checkpoint_steps, settings.thin, seed)
                self.segments.write(first + number, self._arrays(target, place, row, number, part))
                self.counter.add.remote(settings.checkpoint_steps)

        return work

    def _start(self, target: Target, place: int, galaxy: int, row: int) -> State:
        walkers = self.settings.walkers
        if self.settings.start == "prior":
            return State(target.start(place, walkers, self.seed, row))
        return State(cascade.start(self.posterior, target, self.data.photometry[galaxy], place, row, walkers))

    def _end(self, chunk: int) -> State:
        """Read where a segment ended."""
        found = self.segments.read(chunk, ["position", "scale", "tune"])
        return State(found["position"][0], float(found["scale"][0]), bool(found["tune"][0]))

    def _arrays(self, target: Target, place: int, row: int, number: int, part: Segment) -> dict[str, np.ndarray]:
        """Return what is stored of a segment; the amplitude of each kept draw is drawn here, exactly."""
        n_draws = part.phi.shape[0] * part.phi.shape[1]
        uniform = keyed_random.uniforms(self.seed, f"mcmc/amplitude/{number}", row * n_draws, n_draws, 1)
        whole = target.whole(place, part.phi, uniform).view(*part.phi.shape[:2], -1)
        values = {
            "chain": to_16_bits(whole), "log_prob": part.log_prob,
            "position": part.end.position, "scale": part.end.scale, "tune": part.end.tune,
            "log_evidence": part.log_evidence, "log_evidence_error": part.log_evidence_error,
            "evaluations": part.evaluations,
        }  # fmt: skip
        return {name: np.asarray(value)[None] for name, value in values.items()}

    def _summarise(self, galaxy: int) -> None:
        settings = self.settings
        u = torch.as_tensor(draws_of(self.segments, galaxy, settings))
        phi = probit(self.flow.space.split(u)[1]).numpy()
        if settings.sampler == "nautilus":  # its draws are independent
            time, rhat = np.ones(phi.shape[-1]), np.ones(phi.shape[-1])
        else:
            time, rhat = mcmc.autocorrelation_time(phi), mcmc.split_rhat(phi)
        names = ("log_evidence", "log_evidence_error", "evaluations")
        first = galaxy * settings.segments
        parts = [self.segments.read(first + n, names) for n in range(settings.segments)]
        values = {
            "row": self.data.row[galaxy], "flags": 0, "autocorrelation_time": settings.thin * time, "rhat": rhat,
            "effective_draws": phi.shape[0] * phi.shape[1] / time.max(),
            "evaluations": sum(int(part["evaluations"][0]) for part in parts),
            **{name: parts[0][name][0] for name in names[:2]},
        }  # fmt: skip
        self.summary.write(galaxy, {name: np.asarray(value)[None] for name, value in values.items()})


def draws_of(segments: ChunkedStore, galaxy: int, settings: MCMC) -> np.ndarray:
    """Return the kept steps of a galaxy after the burn-in as the prior's unit cube, (step, walker, coordinate)."""
    return chains.draws(segments, galaxy, settings.segments, settings.burn_in // settings.thin)


def digest(data: Galaxies) -> str:
    """Return what a store of chains knows its galaxies by."""
    arrays = data.photometry.arrays()
    return fingerprint({**{name: arrays[name].tolist() for name in photometry.OBSERVED}, "row": data.row.tolist()})
