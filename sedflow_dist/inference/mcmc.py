"""MCMC: the exact posterior of galaxies' shapes in probit space, sampled by ensembles of walkers side by side, or nested.

The set-up is SEDflow's (Hahn & Melchior 2022, section 4.2): zeus (Karamanis, Beutler & Peacock 2021, arXiv 2105.03468), 30
walkers, 10,000 steps. Samplers are libraries; ours is the likelihood, one batch for all galaxies that are being sampled, and
in it the amplitude is integrated out: with it as a coordinate, chains are four times as long before they converge. A chain
is cut into segments, each of which depends on the seed and on the end of the one before only.
"""

from __future__ import annotations

import importlib
import logging
import math
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sedflow_dist import keyed_random
from sedflow_dist.inference import amplitude, redshift_error
from sedflow_dist.inference.amplitude import AmplitudeFit
from sedflow_dist.inference.lockstep import Ask
from sedflow_dist.parameters import probit, unit
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.sps.fixed_redshift import RedshiftModel

ENSEMBLES = ("zeus", "emcee")
_POINTS = 8  # a galaxy's points are cut into rows of as many: products of rows of other lengths would round otherwise
_LEAST = -1e6  # log-weight below the largest: finite, so that any draw can be a walker where too few have weight
_LOG_2PI = math.log(2 * math.pi)


class Target:
    """ln of likelihood times prior of some galaxies at points of probit space, the shapes' coordinates.

    Raises:
        ValueError: a galaxy's redshift is unknown or uncertain; only what one redshift implies can be asked for.
    """

    def __init__(self, model: RedshiftModel, photometry: Photometry) -> None:
        redshift_error.refuse(photometry, "MCMC")
        self.model, self.space = model, model.model.space
        self._photometry, self._fixed = photometry, model.at(photometry.redshift)

    @torch.inference_mode()
    def __call__(
        self, galaxies: list[int], points: list[Float[np.ndarray, "_point shape"]]
    ) -> list[Float[np.ndarray, " _point"]]:
        """Return values for each galaxy's points; bit by bit the same whoever is asked for beside."""
        rows = [-(-len(p) // _POINTS) for p in points]
        n_shape = len(self.space.shapes)
        phi = torch.zeros(sum(rows), _POINTS, n_shape)
        parts = phi.split(rows)
        for part, p in zip(parts, points, strict=True):
            part.view(-1, n_shape)[: len(p)] = torch.as_tensor(p)
        log_l = self.fit(torch.tensor(galaxies).repeat_interleave(torch.tensor(rows)), unit(phi)).log_evidence
        value = (log_l - 0.5 * ((phi**2).sum(-1) + n_shape * _LOG_2PI)).nan_to_num(nan=-math.inf).double()
        return [v.flatten()[: len(p)].numpy() for v, p in zip(value.split(rows), points, strict=True)]

    def fit(
        self,
        galaxy: Int[Tensor, " row"],
        u: Float[Tensor, "row draw shape"],
        uniform: Float[Tensor, "row draw"] | None = None,
    ) -> AmplitudeFit:
        """Integrate the amplitude out, and draw it by ``uniform``, at points of each row's ``galaxy``."""
        per_mass = self.model.flux(self.space.from_unit(self.space.join_any(u)), self._fixed[galaxy])
        uniform = per_mass.new_full(per_mass.shape[:-1], 0.5) if uniform is None else uniform
        return amplitude.fit(per_mass, self._photometry[galaxy], uniform, self.space.amplitude.prior.range)

    def whole(
        self, galaxy: int, phi: Float[np.ndarray, "*chain shape"], uniform: Float[np.ndarray, "draw 1"]
    ) -> Float[Tensor, "1 draw coordinate"]:
        """Return a galaxy's chain as the unit cube, each draw with an exact amplitude drawn by its ``uniform``."""
        u = unit(torch.as_tensor(phi)).flatten(0, -2).unsqueeze(0)
        fit = self.fit(torch.tensor([galaxy]), u, torch.as_tensor(uniform.T).float())
        return self.space.join(self.space.amplitude.prior.to_unit(fit.log_mstar), u)

    def start(
        self, galaxy: int, n_walkers: int, seed: int, row: int, n_draws: int = 16_384
    ) -> Float[np.ndarray, "walker shape"]:
        """Return walkers from the prior, chosen by the likelihood, see `choose`: no flow is needed."""
        sobol = keyed_random.torch_seed(seed, "prior", row)
        engine = torch.quasirandom.SobolEngine(len(self.space.shapes), scramble=True, seed=sobol)
        u = engine.draw(n_draws).clamp(1e-6, 1 - 1e-6)
        return choose(u, self.fit(torch.tensor([galaxy]), u.unsqueeze(0)).log_evidence[0], n_walkers, seed, row)


def choose(
    u: Float[Tensor, "draw shape"], log_weight: Float[Tensor, " draw"], n_walkers: int, seed: int, row: int
) -> Float[np.ndarray, "walker shape"]:
    """Return different draws as walkers in probit space.

    Weights are tempered until ten draws a walker have some: walkers spread wider than the posterior, which is as it should
    be, for ensembles contract fast and expand slowly.
    """
    log_weight = log_weight.double().nan_to_num(nan=-math.inf)
    log_weight = (log_weight - log_weight.max()).nan_to_num(nan=0.0).clamp(min=_LEAST)  # all of them -inf: all alike
    weight = _tempered(log_weight, min(10 * n_walkers, len(u) / 2))
    generator = np.random.default_rng(keyed_random.key(seed, "walkers", row))
    return probit(u[generator.choice(len(u), n_walkers, replace=False, p=weight)]).double().numpy()


def _tempered(log_weight: Float[Tensor, " draw"], effective: float) -> Float[np.ndarray, " draw"]:
    """Return weights to the highest power, 1 at most, at which they are worth ``effective`` draws."""

    def at(power: float) -> Tensor:
        return torch.softmax(power * log_weight, -1)

    low, high = 0.0, 1.0
    for _ in range(30):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if 1 / float((at(middle) ** 2).sum()) > effective else (low, middle)
    return at(high if 1 / float((at(1.0) ** 2).sum()) > effective else low).numpy()


@dataclass(frozen=True)
class State:
    """Where an ensemble stands: ``position``, zeus's ``scale`` and whether it still tunes it."""

    position: Float[np.ndarray, "walker shape"]
    scale: float = 1.0
    tune: bool = True


@dataclass(frozen=True)
class Segment:
    """Part of a chain: ``phi``, thinned; ``log_prob``; where it ended.

    ``log_evidence`` and its standard error: nested sampling only.
    """

    phi: Float[np.ndarray, "step walker shape"]
    log_prob: Float[np.ndarray, "step walker"]
    end: State
    evaluations: int
    log_evidence: float = math.nan
    log_evidence_error: float = math.nan


def segment(sampler: str, ask: Ask, state: State, n_steps: int, thin: int, seed: int) -> Segment:
    """Take ``n_steps`` of an ensemble, of which every ``thin``-th is kept; ``seed`` sets both global generators.

    Args:
        sampler: one of `ENSEMBLES`; emcee (Foreman-Mackey et al. 2013) moves by differential evolution
    """
    if sampler not in ENSEMBLES:
        raise ValueError(f"no sampler {sampler!r}; ensembles are {', '.join(ENSEMBLES)}")
    library = _library(sampler)  # before the seeds are set: what it imports in turn may draw numbers
    evaluations = 0
    random.seed(seed)
    np.random.seed(seed % 2**32)

    # No shapes where a chain waits for its values: others go on meanwhile, and a check would mix up theirs with its own.
    def log_prob(points: np.ndarray) -> np.ndarray:
        nonlocal evaluations
        evaluations += len(points)
        return ask(points)

    run = _zeus if sampler == "zeus" else _emcee
    phi, values, end = run(library, log_prob, state, n_steps, thin)
    return Segment(phi.astype(np.float32), values.astype(np.float32), end, evaluations)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"{name} is not installed: pip install 'sedflow-dist[mcmc]', or choose sampler emcee"
        ) from error


def _zeus(zeus: Any, log_prob: Ask, state: State, n_steps: int, thin: int) -> tuple[np.ndarray, np.ndarray, State]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level  # zeus takes the root logger for its own
    try:
        sampler = zeus.EnsembleSampler(
            *state.position.shape, log_prob, vectorize=True, verbose=False, mu=state.scale, tune=state.tune
        )
    finally:  # before others run: each would take what the one before had put there for the original
        root.handlers[:], root.level = handlers, level
    sampler.run_mcmc(state.position, n_steps, thin=thin, progress=False)
    end = State(np.array(sampler.get_last_sample()), float(sampler.mu), bool(sampler.tune))
    return sampler.get_chain(), sampler.get_log_prob(), end


def _emcee(emcee: Any, log_prob: Ask, state: State, n_steps: int, thin: int) -> tuple[np.ndarray, np.ndarray, State]:
    # Some moves jump from mode to mode (ter Braak 2006). Not DESnookerMove: up to emcee 3.1.6 its acceptance is wrong, and
    # variances come out 17 % too small (github.com/dfm/emcee/pull/531).
    moves = [(emcee.moves.DEMove(), 0.8), (emcee.moves.DEMove(gamma0=1.0), 0.2)]
    sampler = emcee.EnsembleSampler(*state.position.shape, log_prob, moves=moves, vectorize=True)
    sampler.random_state = np.random.get_state()
    sampler.run_mcmc(state.position, n_steps // thin, thin_by=thin, skip_initial_state_check=True)
    return sampler.get_chain(), sampler.get_log_prob(), State(sampler.get_last_sample().coords)


def nested(ask: Ask, n_shape: int, n_steps: int, n_walkers: int, seed: int, n_live: int = 1000) -> Segment:
    """Sample by importance nested sampling (nautilus: Lange 2023, arXiv 2306.16923), which gives the evidence.

    ``ask`` gives likelihood times prior at points of ``n_shape`` coordinates; equally weighted draws fill a chain's shape.
    """
    nautilus = _library("nautilus")

    def log_likelihood(u: np.ndarray) -> np.ndarray:
        phi = probit(torch.as_tensor(u)).numpy()
        return ask(phi) + 0.5 * ((phi**2).sum(-1) + n_shape * _LOG_2PI)

    n_draws = n_steps * n_walkers
    sampler = nautilus.Sampler(lambda u: u, log_likelihood, n_shape, n_live=n_live, vectorized=True, seed=seed % 2**32)
    # Points of the exploration bias draws and evidence, which was 10 standard errors off; without them a shell may be
    # left with one point, which misses what evidence lies far out: two hundredths in ln Z on real posteriors.
    sampler.run(n_eff=n_draws, n_shell=n_live, discard_exploration=True)
    u, log_weight, log_l = sampler.posterior()
    cumulative = np.exp(log_weight - log_weight.max()).cumsum()
    pick = np.searchsorted(cumulative / cumulative[-1], (np.arange(n_draws) + 0.5) / n_draws).clip(max=len(u) - 1)
    pick = np.random.default_rng(seed).permutation(pick).reshape(n_steps, n_walkers)
    phi = probit(torch.as_tensor(u)).numpy()[pick]
    error = float(sampler.n_eff) ** -0.5
    log_prob = log_l[pick] - 0.5 * ((phi**2).sum(-1) + n_shape * _LOG_2PI)
    return Segment(
        phi.astype(np.float32), log_prob.astype(np.float32), State(phi[-1]), sampler.n_like, sampler.log_z, error
    )


# -- has it converged? -----------------------------------------------------------------------------------------------


def split_rhat(phi: Float[np.ndarray, "step walker shape"]) -> Float[np.ndarray, " shape"]:
    """Return the split R-hat of each coordinate, every walker a chain (Gelman et al. 2013, section 11.4)."""
    half = len(phi) // 2
    chains = np.concatenate([phi[:half], phi[half : 2 * half]], axis=1).astype(np.float64)
    within = chains.var(axis=0, ddof=1).mean(axis=0)
    between = half * chains.mean(axis=0).var(axis=0, ddof=1)
    return np.sqrt((half - 1) / half + between / (half * np.maximum(within, 1e-300)))


def autocorrelation_time(phi: Float[np.ndarray, "step walker shape"]) -> Float[np.ndarray, " shape"]:
    """Return the integrated autocorrelation time of each coordinate, in kept steps (Goodman & Weare 2010).

    Where a walker has not moved at all, that is the whole chain.
    """
    import emcee

    with np.errstate(invalid="ignore"):
        time = emcee.autocorr.integrated_time(phi.astype(np.float64), quiet=True, tol=0)
    return np.maximum(np.nan_to_num(time, nan=len(phi)), 1.0)
