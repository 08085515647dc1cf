"""The fallback cascade: flow, more draws of it, a short MCMC from them, a long one; each where the one before does not serve.

The certificate decides (`importance.Certificate`), also for rows outside the training data: where their weights serve, they
are the exact posterior's whatever the flow has seen. Costs are bounded: see `Routing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int, Integer, UInt32
from torch import Tensor

from sedflow_dist import keyed_random
from sedflow_dist.flow.learned_likelihood import LearnedLikelihood
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference import goodness_of_fit, importance, likelihood, lockstep, mcmc
from sedflow_dist.inference.comparison import Comparison
from sedflow_dist.inference.described import at_edge, describe
from sedflow_dist.inference.draws import Draws
from sedflow_dist.inference.mcmc import State, Target
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.inference.reweight import NewPrior
from sedflow_dist.inference.settings import THIN, InferenceSettings, Routing
from sedflow_dist.inference.summary import Answer, Method, Summary, latest
from sedflow_dist.inference.tension import BandTension
from sedflow_dist.photometry.flags import Flag, bits
from sedflow_dist.photometry.photometry import Photometry

_CONVERGED = 1.1  # split R-hat
_BATCH = 32  # chains side by side

#: Told of chains that grow: how many galaxies of a block get one, steps done, and the most there can be.
Told = Callable[[int, int, int], None]


@dataclass(frozen=True)
class _Chain:
    """A galaxy's chain: ``phi`` after its burn-in, R-hat, effective draws, and whether it was short."""

    phi: Float[np.ndarray, "step walker shape"]
    rhat: float
    effective_draws: float
    method: Method


class Router:
    """Infers blocks of galaxies as `Posterior.summarise` does, and goes on where that does not serve.

    With a learned likelihood it compares evidences of all rows that have an answer, whatever method gave it. With
    ``tension`` it looks for bands that disagree with the others, and leaves them out where that is asked for.
    """

    def __init__(
        self,
        posterior: Posterior,
        routing: Routing,
        learned: LearnedLikelihood | None = None,
        tension: BandTension | None = None,
    ) -> None:
        self.posterior, self.routing, self.tension = posterior, routing, tension
        self.comparison = Comparison(posterior, learned) if learned else None

    @classmethod
    def of(
        cls, flow: TrainedModel, seed: int, settings: InferenceSettings, learned: LearnedLikelihood | None = None
    ) -> Router:
        """Return what infers, and replays, the rows of a catalog: of a flow, a seed and settings always the same."""
        posterior = Posterior(
            flow, seed, settings.n_draws, settings.min_effective_fraction, settings.keep_draws, settings.certificate,
            target=NewPrior.of(settings.prior, flow, seed), chosen=settings, peaks=settings.redshift_peaks,
        )  # fmt: skip
        routing, tension = settings.routing, None
        if settings.band_tension:
            tension = BandTension(posterior, routing.effective_draws, settings.leave_out is not None)
        return cls(posterior, routing, learned, tension)

    def summarise(
        self, photometry: Photometry, flags: UInt32[np.ndarray, " galaxy"], row: int, told: Told = lambda *_: None
    ) -> Summary:
        """Infer galaxies of a block that starts at catalog row ``row``; ``flags`` are theirs.

        A row whose flags say FAILED is not tried again. ``told`` hears of chains while they grow, many times a second.
        """
        posterior, judged = self.posterior, None
        if self.tension:
            judged = self.tension.judge(photometry, flags, row)
            photometry = photometry.with_bands(~torch.as_tensor(judged.left_out))
        flags = posterior.flag(photometry, flags)
        answers = posterior.infer(photometry, flags, row)
        if posterior.certificate:
            answers += self._more(photometry, flags, answers, row)
            answers += self._mcmc(photometry, flags, answers, row, told)
        summary = Summary.of(photometry, flags, answers, posterior.sizes)
        answered = np.flatnonzero(summary.method != Method.NONE)
        if judged:
            judged.tell(summary, answered)
        if self.comparison is None:
            return summary
        value, error = self.comparison(photometry[answered], answered + row)
        summary.log_bayes_factor[answered], summary.log_bayes_factor_error[answered] = value, error
        return summary

    def draws(
        self,
        photometry: Photometry,
        rows: Int[np.ndarray, " galaxy"],
        methods: Integer[np.ndarray, " galaxy"],
        n_draws: int,
        of: int | None = None,
    ) -> Float[np.ndarray, "galaxy draw column"]:
        """Replay posterior draws of catalog rows: equally weighted, the same every time.

        Each row by the method that answered it; weighted draws, ``of`` so many (as many as are asked for if None), are
        resampled (systematic resampling). ``photometry`` is what the answers used, without bands that were left out.
        """
        out, threads = [], torch.get_num_threads()
        torch.set_num_threads(1)  # a product split over threads rounds otherwise
        try:
            for i in range(len(rows)):
                at = slice(i, i + 1)
                values, weight = self.weighted(photometry[at], rows[at], methods[at], of or n_draws)
                out.append(values[0][self.posterior.resample(weight, rows[at], n_draws)[0]].numpy())
        finally:
            torch.set_num_threads(threads)
        return np.stack(out)

    def weighted(
        self,
        photometry: Photometry,
        rows: Int[np.ndarray, " galaxy"],
        methods: Integer[np.ndarray, " galaxy"],
        n: int,
    ) -> tuple[Float[Tensor, "galaxy draw column"], Float[Tensor, "galaxy draw"]]:
        """Return draws of catalog rows and the weights that go with them, each row by the method that answered it."""
        posterior = self.posterior
        values = photometry.flux.new_empty(len(rows), n, len(posterior.columns))
        weight = torch.full((len(rows), n), 1 / n, dtype=torch.float64)
        plain = methods <= Method.WEIGHTED
        if plain.any():
            found = posterior.draw(photometry[plain], rows[plain], n)
            values[plain] = found.values
            weighted = torch.as_tensor(methods[plain] == Method.WEIGHTED).unsqueeze(-1)
            weight[plain] = torch.where(weighted, found.weight, found.plain)
        for i in np.flatnonzero(~plain).tolist():
            one, row = photometry[i], rows[i : i + 1]
            if methods[i] == Method.MORE_DRAWS:
                known = n * posterior.draw(one, row, n).effective_fraction.nan_to_num().numpy()
                ((_, found),) = self._drawn_more(one, row, n, known)
                all_values, own_weight = found.values, found.weight
            else:
                (chain,) = self._chains(one, row)
                _, all_values, _ = self._evaluate(chain, one, int(row[0]))
                own_weight = posterior.prior_weight(all_values, one.redshift)
            values[i] = all_values[0][posterior.resample(own_weight, row, n)[0]]
        return values, weight

    # -- the steps of the cascade ---------------------------------------------------------------------------------------

    def _poor(
        self, photometry: Photometry, flags: UInt32[np.ndarray, " galaxy"], answers: Sequence[Answer]
    ) -> Int[np.ndarray, " row"]:
        """Return which galaxies the flow answers, or failed on, and not well enough: their places in the block."""
        method, fraction, effective, k = (
            latest(name, len(flags), answers)
            for name in ("method", "effective_fraction", "effective_draws", "pareto_k")
        )
        number = np.where(method >= Method.WEIGHTED, effective, np.nan_to_num(fraction) * self.posterior.n_draws)
        low = (number < self.routing.effective_draws) | (k > importance.LARGEST_K)
        galaxies = (flags & int(Flag.NOT_A_GALAXY)) == 0
        return np.flatnonzero(low & galaxies & self.posterior.open(photometry, flags))

    def _gives_way(self, photometry: Photometry) -> np.ndarray:
        """Return which rows galaxies go before, (galaxy,): at the redshifts of stars, or without a signal in any band."""
        snr = photometry.signal_to_noise.nan_to_num(nan=-np.inf).amax(-1).numpy()
        return (photometry.redshift.numpy() < self.routing.min_redshift) | (snr < self.routing.min_snr)

    def _more(
        self, photometry: Photometry, flags: UInt32[np.ndarray, " galaxy"], answers: Sequence[Answer], row: int
    ) -> list[Answer]:
        """Return answers of more draws of the flow, of rows where they are worth more and their weights serve."""
        posterior, found = self.posterior, []
        fraction = np.nan_to_num(latest("effective_fraction", len(flags), answers))
        poor = self._poor(photometry, flags, answers)
        known = fraction[poor] * posterior.n_draws
        for place, draws in self._drawn_more(photometry[poor], poor + row, posterior.n_draws, known):
            at = poor[place : place + 1]
            effective = float(draws.effective_fraction) * draws.weight.shape[1]
            if effective > fraction[at[0]] * posterior.n_draws and posterior.serves(draws)[0]:
                answer = posterior.answer(draws, at, at + row, flags[at])
                if answer.ok[0]:
                    columns = {**answer.columns, "method": np.array([Method.MORE_DRAWS])}
                    found.append(replace(answer, columns=columns))
        return found

    def _drawn_more(
        self,
        photometry: Photometry,
        rows: Int[np.ndarray, " galaxy"],
        n_draws: int,
        effective: Float[np.ndarray, " galaxy"],
    ) -> Iterator[tuple[int, Draws]]:
        """Yield the place of each galaxy with its draws: 2, 4, 8 times ``n_draws``, as many as its ``effective`` ones of these lead
        one to expect are enough, and twice as many while they are not.

        At the most that `Routing.more_draws` allows they are what there is. A galaxy's number of draws depends on its own alone.
        """
        routing, most = self.routing, self.routing.more_draws
        if most == 1:
            return
        lacking = routing.effective_draws / np.maximum(effective, routing.effective_draws / most)
        times = np.clip(2 ** np.ceil(np.log2(lacking)), 2, most).astype(int)
        while (times > 0).any():
            factor = int(times[times > 0].min())
            left, size = np.flatnonzero(times == factor), max(self.posterior.batch // factor, 1)
            for start in range(0, len(left), size):
                at = left[start : start + size]
                draws = self.posterior.draw(photometry[at], rows[at], n_draws * factor)
                found = draws.effective_fraction * draws.weight.shape[1]
                enough = (found >= routing.effective_draws) & (draws.pareto_k <= importance.LARGEST_K)
                done = (enough | (factor == most)).numpy()
                times[at] = np.where(done, 0, min(2 * factor, most))
                for i in np.flatnonzero(done).tolist():
                    yield int(at[i]), Draws.joined([draws], torch.tensor([i]))

    def _mcmc(
        self,
        photometry: Photometry,
        flags: UInt32[np.ndarray, " galaxy"],
        answers: Sequence[Answer],
        row: int,
        told: Told,
    ) -> list[Answer]:
        """Return answers of chains, of the worst rows, as many as may have one, side by side."""
        fraction, found = np.nan_to_num(latest("effective_fraction", len(flags), answers), nan=-1.0), []
        last = self._gives_way(photometry)
        poor = self._poor(photometry, flags, answers)
        poor = poor[photometry.has_exact_redshift.numpy()[poor]]  # a chain has one redshift
        worst = sorted(poor, key=lambda i: (last[i], fraction[i]))
        chosen = np.sort(np.array(worst[: int(self.routing.share * len(flags))], np.intp))
        points, most = 0, len(chosen) * self.routing.long_steps

        def heard(evaluated: int) -> None:
            nonlocal points
            points += evaluated
            told(len(chosen), min(points // self.routing.walkers, most), most)

        for start in range(0, len(chosen), _BATCH):
            at = chosen[start : start + _BATCH]
            part = photometry[at]
            for i, chain in enumerate(self._chains(part, at + row, heard)):
                answer = self._of_chain(chain, part[i], at[i : i + 1], row)
                if answer.ok[0]:
                    found.append(answer)
        return found

    def _of_chain(self, chain: _Chain, photometry: Photometry, at: Int[np.ndarray, " 1"], row: int) -> Answer:
        """Return what the chain of one galaxy says."""
        posterior = self.posterior
        u, values, chi2 = self._evaluate(chain, photometry, int(at[0]) + row)
        ok = torch.isfinite(torch.cat([values, chi2.unsqueeze(-1)], -1)).all(-1).all(-1).numpy()
        weight = posterior.prior_weight(values, photometry.redshift)
        left = posterior.left(weight, chain.effective_draws)
        said = {
            Flag.PRIOR_TOO_FAR: ok & (left == 0),
            Flag.NOT_CONVERGED: np.array([chain.rhat > _CONVERGED]),
            Flag.PRIOR_EDGE: at_edge(posterior.flow.space, u, weight),
        }
        columns = {
            **describe(posterior, u, values, photometry.redshift.unsqueeze(1), weight, at + row),
            **goodness_of_fit.columns(chi2, photometry.n_bands, weight),
            **{name: np.array([getattr(chain, name)]) for name in ("rhat", "method")},
            "effective_draws": left,
            **posterior.before_target(np.array([chain.effective_draws])),
        }
        return Answer(at, ok & (left != 0), bits(1, said), columns)

    # -- chains -----------------------------------------------------------------------------------------------------------

    def _chains(
        self, photometry: Photometry, rows: Int[np.ndarray, " galaxy"], heard: Callable[[int], None] = lambda _: None
    ) -> list[_Chain]:
        """Sample galaxies; each chain depends on its own galaxy and row alone. ``heard`` is given numbers of points."""
        target = Target(self.posterior.flow.redshift_model, photometry)

        def task(place: int) -> Callable[[lockstep.Ask], _Chain]:
            return lambda ask: self._sample(ask, target, photometry[place], place, int(rows[place]))

        def evaluate(numbers: list[int], points: list[np.ndarray]) -> list[np.ndarray]:
            values = target(numbers, points)
            heard(sum(map(len, points)))
            return values

        return lockstep.run([task(place) for place in range(len(rows))], evaluate)

    def _sample(self, ask: lockstep.Ask, target: Target, photometry: Photometry, place: int, row: int) -> _Chain:
        """Let a galaxy's chain grow until it has converged or is as long as is allowed."""
        routing, seed = self.routing, self.posterior.seed
        state = State(start(self.posterior, target, photometry, place, row, routing.walkers))
        parts: list[np.ndarray] = []
        for number in range(routing.long_steps // routing.short_steps):
            part = mcmc.segment(
                "emcee", ask, state, routing.short_steps, THIN, keyed_random.torch_seed(seed, "route", row, number)
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
        self, chain: _Chain, photometry: Photometry, row: int
    ) -> tuple[Float[Tensor, "1 draw coordinate"], Float[Tensor, "1 draw column"], Float[Tensor, "1 draw"]]:
        """Return a chain's draws with exact amplitudes: the unit cube, columns, and chi^2."""
        posterior, model = self.posterior, self.posterior.flow.redshift_model
        space, n_draws = posterior.flow.space, chain.phi.shape[0] * chain.phi.shape[1]
        uniform = keyed_random.uniforms(posterior.seed, f"route/{row}", 0, n_draws, 1)
        u = Target(model, photometry).whole(0, chain.phi, uniform)
        theta = space.from_unit(u)
        light = model(theta, photometry.redshift)
        _, chi2 = likelihood.gaussian(light.flux * space.scale(theta), photometry)
        return u, posterior.values(theta, light), chi2


def start(
    posterior: Posterior, target: Target, photometry: Photometry, place: int, row: int, n_walkers: int
) -> Float[np.ndarray, "walker shape"]:
    """Return walkers from the flow's weighted draws of a galaxy, or from the prior where the flow has none.

    Args:
        target, place: of the galaxy, the ``place``-th of the target's; ``photometry`` is its own
    """
    found = posterior.draw(photometry, np.array([row]), posterior.n_draws)
    if not bool(torch.isfinite(found.interim.log_evidence).all() & torch.isfinite(found.unit).all()):
        return target.start(place, n_walkers, posterior.seed, row)
    return mcmc.choose(
        posterior.flow.space.split(found.unit[0])[1], found.interim.weight[0].log(), n_walkers, posterior.seed, row
    )
