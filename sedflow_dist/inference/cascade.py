"""Answer every row: flow, more draws of it, a short MCMC from its draws, a long one; each where the one before does not serve.

The certificate decides (`weights.Certificate`), also for rows outside the training data: where their weights serve, they
are the exact posterior's whatever the flow has seen. Costs are bounded: see `Routing`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from sedflow_dist import keyed_random
from sedflow_dist.inference import importance, likelihood, lockstep, mcmc
from sedflow_dist.inference.mcmc import State, Target
from sedflow_dist.inference.posterior import Method, Posterior, Summary
from sedflow_dist.photometry.flags import Flag

_THIN = 10
_CONVERGED = 1.1  # split R-hat
_BATCH = 32  # chains side by side
_ANEW = ~np.uint32(int(Flag.FAILED | Flag.LOW_EFFECTIVE_FRACTION | Flag.PRIOR_EDGE))  # flags that an answer sets anew
Data = tuple[Tensor, Tensor, Tensor, Tensor]  # flux, sigma, mask, redshift


class Routing(BaseModel):
    """Where rows go that the flow's draws do not answer well enough, and what they may cost."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    effective_draws: int = Field(100, ge=1, description="fewest effective draws of an answer; below, the row goes on")
    more_draws: int = Field(8, ge=1, description="first step: as many times the draws; 1: skip it")
    walkers: int = Field(32, ge=22, description="even; of the MCMC (emcee, differential evolution)")
    short_steps: int = Field(1500, ge=60, description="second step: steps from the flow's draws, a third discarded")
    long_steps: int = Field(10_500, ge=60, description="last step: as many again until it converges, up to these")
    share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="largest share of a shard's rows for MCMC, the worst first; others keep the flow's draws",
    )

    @model_validator(mode="after")
    def _check(self) -> Routing:
        if self.walkers % 2:
            raise ValueError(f"walkers: {self.walkers} is odd; ensembles are halved")
        if self.short_steps % _THIN:
            raise ValueError(f"short_steps: {self.short_steps} is not a multiple of {_THIN}")
        if self.long_steps % self.short_steps:
            raise ValueError(f"long_steps: {self.long_steps} is not a multiple of short_steps = {self.short_steps}")
        return self


@dataclass(frozen=True)
class _Chain:
    """A galaxy's chain: ``phi`` (step, walker, shape) after its burn-in, R-hat, effective draws, and whether it was short."""

    phi: np.ndarray
    rhat: float
    effective_draws: float
    method: Method


class Router:
    """Answers blocks of galaxies as `Posterior.summarise` does, and goes on where that does not serve."""

    def __init__(self, posterior: Posterior, routing: Routing) -> None:
        self.posterior, self.routing = posterior, routing

    def summarise(
        self, flux: np.ndarray, sigma: np.ndarray, mask: np.ndarray, redshift: np.ndarray, flags: np.ndarray, row: int
    ) -> Summary:
        """Answer galaxies of a block that starts at catalog row ``row``; arrays as in `surveys.Photometry`."""
        summary = self.posterior.summarise(flux, sigma, mask, redshift, flags, row)
        if not self.posterior.certificate:
            return summary
        data = _tensors(flux, sigma, mask, redshift)
        if self.routing.more_draws > 1:
            for i in np.flatnonzero(self._poor(summary, redshift)).tolist():
                self._more(summary, data, i, row + i)
        worst = sorted(np.flatnonzero(self._poor(summary, redshift)),
                       key=lambda i: np.nan_to_num(summary.effective_fraction[i], nan=-1.0))  # fmt: skip
        chosen = np.sort(np.array(worst[: int(self.routing.share * len(flux))], np.intp))
        for start in range(0, len(chosen), _BATCH):
            self._mcmc(summary, data, chosen[start : start + _BATCH].tolist(), row)
        return summary

    def draws(
        self, flux: np.ndarray, sigma: np.ndarray, mask: np.ndarray, redshift: np.ndarray, rows: np.ndarray,
        methods: np.ndarray, n_draws: int,
    ) -> np.ndarray:  # fmt: skip
        """Replay posterior draws of catalog rows: equally weighted, shape (galaxy, draw, column), the same every time.

        Each row by the method that answered it; weighted draws are resampled (systematic resampling).
        """
        data, out, threads = _tensors(flux, sigma, mask, redshift), [], torch.get_num_threads()
        torch.set_num_threads(1)  # a product split over threads rounds otherwise
        try:
            for i in range(len(rows)):
                at = slice(i, i + 1)
                values, weight = self.weighted(*_take(data, at), rows[at], methods[at], n_draws)
                out.append(values[0][self.posterior.resample(weight, rows[at], n_draws)[0]].numpy())
        finally:
            torch.set_num_threads(threads)
        return np.stack(out)

    def weighted(
        self, flux: Tensor, sigma: Tensor, mask: Tensor, redshift: Tensor, rows: np.ndarray, methods: np.ndarray, n: int
    ) -> tuple[Float[Tensor, "galaxy draw column"], Float[Tensor, "galaxy draw"]]:
        """Return draws of catalog rows and the weights that go with them, each row by the method that answered it."""
        posterior, data = self.posterior, (flux, sigma, mask, redshift)
        values = flux.new_empty(len(rows), n, len(posterior.columns))
        weight = torch.full((len(rows), n), 1 / n, dtype=torch.float64)
        plain = methods <= Method.WEIGHTED
        if plain.any():
            found = posterior.draw(*_take(data, plain), rows[plain], n)
            values[plain] = found.values
            weighted = torch.as_tensor(methods[plain] == Method.WEIGHTED).unsqueeze(-1)
            weight[plain] = torch.where(weighted, found.weight, weight[plain])
        for i in np.flatnonzero(~plain):
            one, row = _take(data, slice(i, i + 1)), rows[i : i + 1]
            if methods[i] == Method.MORE_DRAWS:
                found = posterior.draw(*one, row, n * self.routing.more_draws)
                all_values, own_weight = found.values, found.weight
            else:
                (chain,) = self._chains(one, row)
                _, all_values, _ = self._evaluate(chain, *one, int(row[0]))
                own_weight = torch.ones(all_values.shape[:2])
            values[i] = all_values[0][posterior.resample(own_weight, row, n)[0]]
        return values, weight

    # -- parts --------------------------------------------------------------------------------------------------------

    def _poor(self, summary: Summary, redshift: np.ndarray) -> np.ndarray:
        """Rows that the flow answers, or failed on, and not well enough."""
        more = np.where(summary.method == Method.MORE_DRAWS, self.routing.more_draws, 1)
        number = np.nan_to_num(summary.effective_fraction) * self.posterior.n_draws * more
        low = (number < self.routing.effective_draws) | (summary.pareto_k > importance.LARGEST_K)
        return low & self.posterior.open(summary.flags & ~np.uint32(int(Flag.FAILED)), redshift)

    def _more(self, summary: Summary, data: Data, i: int, row: int) -> None:
        """Answer a row with more draws of the flow, where they are worth more and their weights serve."""
        at, rows = np.array([i]), np.array([row])
        found = self.posterior.draw(
            *_take(data, slice(i, i + 1)), rows, self.posterior.n_draws * self.routing.more_draws
        )
        effective = float(found.effective_fraction) * found.weight.shape[1]
        before = np.nan_to_num(summary.effective_fraction[i]) * self.posterior.n_draws
        if effective > before and self.posterior.serves(found)[0]:
            summary.flags[i] &= _ANEW
            self.posterior.fill(summary, at, found, rows)
            summary.method[i] = Method.MORE_DRAWS

    def _mcmc(self, summary: Summary, data: Data, chosen: list[int], row: int) -> None:
        """Answer rows of a block by chains, side by side."""
        part = _take(data, chosen)
        rows = np.array(chosen) + row
        for place, (i, chain) in enumerate(zip(chosen, self._chains(part, rows), strict=True)):
            u, values, chi2 = self._evaluate(chain, *_take(part, slice(place, place + 1)), int(rows[place]))
            at, ok = np.array([i]), torch.isfinite(torch.cat([values, chi2.unsqueeze(-1)], -1)).all(-1).all(-1).numpy()
            weight = torch.full(values.shape[:2], 1 / values.shape[1], dtype=torch.float64)
            if not ok[0]:
                continue
            summary.flags[i] &= _ANEW
            summary.flags[i] |= np.uint32(int(Flag.NOT_CONVERGED) if chain.rhat > _CONVERGED else 0)
            n_bands = part[2][place : place + 1].sum(-1)
            self.posterior.describe(summary, at, ok, u, values, weight, rows[place : place + 1])
            self.posterior.judge(summary, at, ok, chi2, n_bands, weight)
            summary.rhat[i], summary.effective_draws[i] = chain.rhat, chain.effective_draws
            summary.method[i] = chain.method

    def _chains(self, data: Data, rows: np.ndarray) -> list[_Chain]:
        """Sample galaxies; each chain depends on its own galaxy and row alone."""
        target = Target(self.posterior.flow.prior, self.posterior.flow.redshift_model, *data)

        def task(place: int) -> Callable[[lockstep.Ask], _Chain]:
            return lambda ask: self._sample(ask, target, _take(data, slice(place, place + 1)), place, int(rows[place]))

        return lockstep.run([task(place) for place in range(len(rows))], target)

    def _sample(self, ask: lockstep.Ask, target: Target, data: Data, place: int, row: int) -> _Chain:
        """Let a galaxy's chain grow until it has converged or is as long as is allowed."""
        routing, seed = self.routing, self.posterior.seed
        state = State(start(self.posterior, target, data, place, row, routing.walkers))
        parts: list[np.ndarray] = []
        for number in range(routing.long_steps // routing.short_steps):
            part = mcmc.segment(
                "emcee", ask, state, routing.short_steps, _THIN, keyed_random.torch_seed(seed, "route", row, number)
            )
            state = part.end
            parts.append(part.phi)
            hopeless = part.log_prob.max() <= torch.finfo(torch.float32).min
            whole = np.concatenate(parts)
            phi = whole[len(whole) // 3 :]
            rhat = float(mcmc.split_rhat(phi).max())
            effective = phi.shape[0] * phi.shape[1] / float(mcmc.autocorrelation_time(phi).max())
            if hopeless or (rhat < _CONVERGED and effective >= routing.effective_draws):
                break
        return _Chain(phi, rhat, effective, Method.SHORT_MCMC if len(parts) == 1 else Method.MCMC)

    def _evaluate(
        self, chain: _Chain, flux: Tensor, sigma: Tensor, mask: Tensor, redshift: Tensor, row: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return a chain's draws with exact amplitudes: the unit cube, columns, and chi^2, each (1, draw, ...)."""
        posterior, model = self.posterior, self.posterior.flow.redshift_model
        prior, n_draws = posterior.flow.prior, chain.phi.shape[0] * chain.phi.shape[1]
        uniform = keyed_random.uniforms(posterior.seed, f"route/{row}", 0, n_draws, 1)
        u = Target(prior, model, flux, sigma, mask, redshift).whole(0, chain.phi, uniform)
        theta = prior.from_unit(u)
        photometry = model(theta, redshift)
        _, chi2 = likelihood.gaussian(photometry.flux * 10 ** theta[..., :1], flux, sigma, mask)
        return u, posterior.values(theta, photometry), chi2


def start(
    posterior: Posterior, target: Target, data: Data, place: int, row: int, n_walkers: int
) -> Float[np.ndarray, "walker shape"]:
    """Return walkers from the flow's weighted draws of a galaxy, or from the prior where the flow has none.

    Args:
        target, place: of the galaxy, the ``place``-th of the target's; ``data`` are its own
    """
    found = posterior.draw(*data, np.array([row]), posterior.n_draws)
    if not bool(torch.isfinite(found.log_evidence).all() & torch.isfinite(found.unit).all()):
        return target.start(place, n_walkers, posterior.seed, row)
    return mcmc.choose(found.unit[0, :, 1:], found.weight[0].log(), n_walkers, posterior.seed, row)


def _tensors(flux: np.ndarray, sigma: np.ndarray, mask: np.ndarray, redshift: np.ndarray) -> Data:
    flux, sigma, mask, redshift = (np.ascontiguousarray(x) for x in (flux, sigma, mask, redshift))
    return torch.as_tensor(flux), torch.as_tensor(sigma), torch.as_tensor(mask), torch.as_tensor(redshift)


def _take(data: Data, index: slice | np.ndarray | list[int]) -> Data:
    """Some galaxies of the data."""
    flux, sigma, mask, redshift = data
    return flux[index], sigma[index], mask[index], redshift[index]
