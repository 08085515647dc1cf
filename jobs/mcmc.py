"""mcmc: galaxies in, chains of their exact posteriors out. Ray actors sample blocks of galaxies side by side.

Every segment of a galaxy's chain is a checkpoint: it depends on the settings and on the segment before, so what a killed
actor leaves is gone on with by another, and the chain is the same bit by bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from cluster import ray_engine
from cluster.settings import RaySettings
from jobs.config.run_file import MCMC, fingerprint
from jobs.infer import check, load_on_worker
from jobs.telemetry import events
from jobs.telemetry.progress import Clock, bar, say
from sedflow_dist import keyed_random
from sedflow_dist.flow.trained_model import Flow
from sedflow_dist.inference import cascade, lockstep, mcmc
from sedflow_dist.inference.mcmc import Segment, State, Target
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.parameters import COORDINATES, probit, to_16_bits
from sedflow_dist.photometry.flags import REASONS, Flag, names
from sedflow_dist.simulation.mocks import Mocks
from sedflow_dist.validation.mock_galaxies import mock_galaxies
from storage_schemas import chains, photometry
from storage_schemas import model as model_store
from storage_schemas.backend.chunked import ChunkedStore
from storage_schemas.backend.lease import hold
from storage_schemas.backend.location import Location

#: Galaxies that an actor samples side by side: more cost memory and save little.
BLOCK = 32
Data = dict[str, np.ndarray]


@events.job("mcmc")
def sample(
    data: Data, model: Location, out: Location, settings: MCMC, seed: int, ray: RaySettings
) -> tuple[ChunkedStore, ChunkedStore]:
    """Fill what is missing of the chains of galaxies; return segments and summary.

    Args:
        data: ``flux``, ``sigma``, ``mask`` (galaxy, band) [nanomaggies], ``redshift``, ``row`` (galaxy,)
        model: its galaxy model and prior make the posterior; the flow has a part in it only where walkers start at its draws
    """
    flow = Flow.from_bytes(*model_store.read(model))
    described = {
        **settings.model_dump(), "seed": seed, "prior": flow.prior.to_dict(), "ssp": flow.ssp.checksum,
        "birth_cloud_age": flow.spec.birth_cloud_age, "galaxies": digest(data),
        **({"model": flow.id} if settings.start == "flow" else {}),
    }  # fmt: skip
    with hold(out, "chains"):
        segments, summary = chains.create(
            out, len(data["row"]), settings.segments, settings.kept_steps, settings.walkers, COORDINATES, described
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
            say("mcmc", f"rows {data['row'][failed].tolist()} kill every worker and have no chain (flag FAILED)")
        if not failed.all():
            say("mcmc", f"{len(missing):,} galaxies in {clock.seconds:.0f} s ({settings.sampler}, {settings.walkers} x "
                f"{settings.steps:,}); worst R-hat {found['rhat'][~failed].max():.3f}, fewest effective draws "
                f"{found['effective_draws'][~failed].min():,.0f}: {out}")  # fmt: skip
    return segments, summary


def _one_by_one(block: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [(galaxy,) for galaxy in block]


def _give_up(summary: ChunkedStore, data: Data, block: tuple[int, ...]) -> None:
    """Write that a galaxy has no chain."""
    (galaxy,) = block
    values = {
        **{name: np.full(len(COORDINATES) - 1, np.nan) for name in ("autocorrelation_time", "rhat")},
        **dict.fromkeys(("effective_draws", "log_evidence", "log_evidence_error"), np.nan),
        "row": data["row"][galaxy], "evaluations": 0, "flags": int(Flag.FAILED),
    }  # fmt: skip
    summary.write(galaxy, {name: np.asarray(value)[None] for name, value in values.items()})


def rows_of(store: Location, rows: np.ndarray, model: Location) -> Data:
    """Read rows of a photometry store for a model.

    Raises:
        ValueError: the bands are not the model's, or a row does not exist or has no posterior; says which and why.
    """
    opened, flow = photometry.open(store), Flow.from_bytes(*model_store.read(model))
    check(opened, flow, model)
    if len(rows) and not 0 <= rows.min() <= rows.max() < opened.n_rows:
        raise ValueError(f"rows {rows.min()} to {rows.max()} asked for; {store} has rows 0 to {opened.n_rows - 1}")
    data = photometry.pick(opened, rows, photometry.DATA)
    flags = data.pop("flags")
    for row, flag, z in zip(rows, flags, data["redshift"], strict=True):
        if reasons := int(flag) & int(REASONS):
            raise ValueError(f"row {row} of {store} has no posterior: {', '.join(names(reasons))}")
        if z > flow.reach:
            raise ValueError(f"row {row} of {store} has redshift {z:g}; the model's spectra serve to {flow.reach:g}")
    return {**data, "row": rows}


def mocks(flow: Flow, n: int, seed: int) -> Data:
    """Return simulated galaxies as data: those that `validate` checks the flow on."""
    return as_data(mock_galaxies(flow, n, seed))


def as_data(galaxies: Mocks) -> Data:
    """Return mock galaxies as data; rows count from 0."""
    data = {name: getattr(galaxies, name).numpy() for name in ("flux", "sigma", "mask", "redshift")}
    return {**data, "row": np.arange(len(galaxies.phi))}


class Sampler:
    """An actor that samples blocks of galaxies; see `sample`."""

    def __init__(
        self, data: Data, model: Location, model_id: str, settings: MCMC, seed: int, out: Location, counter: Any
    ) -> None:
        self.flow = load_on_worker(model, model_id)
        self.posterior = Posterior(self.flow, seed)  # its draws are where walkers may start
        self.data, self.settings, self.seed, self.counter = data, settings, seed, counter
        self.segments, self.summary = chains.open(out, "r+")

    def sample(self, block: tuple[int, ...]) -> int:
        """Finish the chains of the galaxies of a block; return how many there are."""
        target = Target(self.flow.prior, self.flow.redshift_model, *self._tensors(list(block)))
        missing = set(self.segments.missing())
        lockstep.run([self._task(target, place, galaxy, missing) for place, galaxy in enumerate(block)], target)
        for galaxy in block:
            self._summarise(galaxy)
        return len(block)

    def _task(self, target: Target, place: int, galaxy: int, missing: set[int]) -> Callable[[lockstep.Ask], None]:
        """Return the task of a galaxy, the ``place``-th of the target's: it writes the segments that are missing."""
        settings, first = self.settings, galaxy * self.settings.segments
        row = int(self.data["row"][galaxy])

        def work(ask: lockstep.Ask) -> None:
            for number in range(settings.segments):
                if first + number not in missing:
                    continue
                seed = keyed_random.torch_seed(self.seed, "mcmc", row, number)
                if settings.sampler == "nautilus":
                    part = mcmc.nested(ask, settings.kept_steps, settings.walkers, seed)
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
        return State(cascade.start(self.posterior, target, self._tensors([galaxy]), place, row, walkers))

    def _tensors(self, galaxies: list[int]) -> cascade.Data:
        flux, sigma, mask, redshift = (torch.as_tensor(self.data[name][galaxies]) for name in photometry.DATA[:4])
        return flux, sigma, mask, redshift

    def _end(self, chunk: int) -> State:
        """Read where a segment ended."""
        found = self.segments.read(chunk, ["position", "scale", "tune"])
        return State(found["position"][0], float(found["scale"][0]), bool(found["tune"][0]))

    def _arrays(self, target: Target, place: int, row: int, number: int, part: Segment) -> Data:
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
        phi = probit(torch.as_tensor(draws_of(self.segments, galaxy, settings)[..., 1:])).numpy()
        if settings.sampler == "nautilus":  # its draws are independent
            time, rhat = np.ones(phi.shape[-1]), np.ones(phi.shape[-1])
        else:
            time, rhat = mcmc.autocorrelation_time(phi), mcmc.split_rhat(phi)
        names = ("log_evidence", "log_evidence_error", "evaluations")
        first = galaxy * settings.segments
        parts = [self.segments.read(first + n, names) for n in range(settings.segments)]
        values = {
            "row": self.data["row"][galaxy], "flags": 0, "autocorrelation_time": settings.thin * time, "rhat": rhat,
            "effective_draws": phi.shape[0] * phi.shape[1] / time.max(),
            "evaluations": sum(int(part["evaluations"][0]) for part in parts),
            **{name: parts[0][name][0] for name in names[:2]},
        }  # fmt: skip
        self.summary.write(galaxy, {name: np.asarray(value)[None] for name, value in values.items()})


def draws_of(segments: ChunkedStore, galaxy: int, settings: MCMC) -> np.ndarray:
    """Return the kept steps of a galaxy after the burn-in as the prior's unit cube, (step, walker, coordinate)."""
    return chains.draws(segments, galaxy, settings.segments, settings.burn_in // settings.thin)


def digest(data: Data) -> str:
    """Return what a store of chains knows its galaxies by."""
    return fingerprint({name: values.tolist() for name, values in data.items()})
