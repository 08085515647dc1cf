"""Posteriors of galaxies: photometry and a trained flow in, summaries, weights, evidence and flags out.

One call infers a block of galaxies. Every draw is weighed against the exact likelihood (importance sampling: Dax et al.
2023, arXiv 2210.05686), and every row carries the effective fraction of its weights. Row i gets the same draws, to float32
rounding, in any block and on any worker: base points are one scrambled Sobol set, shifted by numbers keyed to the row.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt32
from torch import Tensor

from sedflow_dist import keyed_random
from sedflow_dist.flow import support
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference import adaptation, amplitude, goodness_of_fit, importance, likelihood, redshift_error
from sedflow_dist.inference.base_points import BasePoints
from sedflow_dist.inference.described import at_edge, describe
from sedflow_dist.inference.draws import Candidates, Draws, Predicted, Proposal, Weighed, alike
from sedflow_dist.inference.importance import Certificate
from sedflow_dist.inference.reweight import LEAST_EFFECTIVE_DRAWS, NewPrior
from sedflow_dist.inference.settings import refuse_amplitude
from sedflow_dist.inference.summary import QUANTILES, Answer, Method, Summary
from sedflow_dist.inference.unknown_redshift import UnknownRedshifts
from sedflow_dist.inference.working_set import MEMORY, WorkingSet
from sedflow_dist.parameters import probit, unit
from sedflow_dist.photometry.flags import REASONS, Flag, bits
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.sps import derived
from sedflow_dist.sps.chosen import Chosen
from sedflow_dist.sps.drawn import DrawPhotometry
from sedflow_dist.sps.fixed_redshift import FixedRedshifts

_OF_WEIGHTS = ("effective_fraction", "log_evidence", "log_evidence_error", "pareto_k")


class Posterior:
    """Infer galaxies with a flow.

    Args:
        flow: the trained flow
        seed: with the row number, fixes every draw
        n_draws: base points per galaxy
        min_effective_fraction: rows below are summarised without weights and flagged
        n_keep: draws kept per galaxy
        certificate: False: quantiles of the flow's draws alone. Nothing is computed but the flow, nothing says how good an
            answer is, and there are parameters only
        memory: bytes that the draws of a batch of galaxies may take; a batch is one galaxy at least
        target: another prior than the model's, as a factor of the weights
        chosen: columns beside those that every catalog has
        peaks: whether to say where densities of redshifts peak, of models that infer them
    """

    def __init__(
        self,
        flow: TrainedModel,
        seed: int,
        n_draws: int = 2048,
        min_effective_fraction: float = 0.01,
        n_keep: int = 0,
        certificate: bool = True,
        memory: int = MEMORY,
        target: NewPrior | None = None,
        chosen: Chosen | None = None,
        peaks: bool = False,
    ) -> None:
        self.flow, self.seed, self.n_draws, self.target = flow, seed, n_draws, target
        self.min_effective_fraction, self.n_keep, self.certificate = min_effective_fraction, n_keep, certificate
        refuse_amplitude(certificate, flow.spec.amplitude)
        self.chosen = flow.chosen_columns(chosen) if chosen and certificate else None
        self.unknown = UnknownRedshifts(self) if flow.head and certificate else None
        self.peaks = peaks
        if peaks and self.unknown is None:
            why = "it has no redshift head" if certificate else "that takes the certificate"
            raise ValueError(f"redshift_peaks: this model infers no redshifts ({why})")
        self.quantities = flow.quantities(chosen or Chosen(), certificate)
        self.columns = tuple(quantity.name for quantity in self.quantities)
        self.base_points = BasePoints(seed, len(flow.space.coordinates))
        self._working_set = WorkingSet(flow, n_draws, len(self.columns), self.chosen, target)
        self._together = None if certificate else n_draws
        #: Galaxies whose draws fit into the memory all at once, and those that do as `infer` works on them.
        self.batch, self.abreast = (self._working_set.galaxies(memory, part) for part in (n_draws, self._together))

    def memory(self) -> int:
        """Return the most bytes that `summarise` needs beside its arguments and results."""
        return self._working_set.memory(self.abreast, self._together)

    @property
    def sizes(self) -> dict[str, int]:
        """Sizes of the dimensions that a summary has beside the galaxies."""
        return {"param": len(self.columns), "quantile": len(QUANTILES), "draw": self.n_keep,
                "coordinate": len(self.flow.space.coordinates), "band": len(self.flow.spec.bands)}  # fmt: skip

    def summarise(self, photometry: Photometry, flags: UInt32[np.ndarray, " galaxy"], row: int) -> Summary:
        """Infer galaxies of a block that starts at catalog row ``row`` by the flow alone; ``flags`` are theirs."""
        flags = self.flag(photometry, flags)
        return Summary.of(photometry, flags, self.infer(photometry, flags, row), self.sizes)

    def flag(self, photometry: Photometry, flags: UInt32[np.ndarray, " galaxy"]) -> UInt32[np.ndarray, " galaxy"]:
        """Return the flags of galaxies with those that say why, or why perhaps, the flow serves them not."""
        flow, spec = self.flow, self.flow.spec
        found = support.flags(spec.redshift, flow.noise, flow.colour_range, flow.novelty, photometry, spec.band_sets)
        return redshift_error.flagged(flags | found, photometry, flow.reach, self.unknown is not None)

    def open(self, photometry: Photometry, flags: UInt32[np.ndarray, " galaxy"]) -> Bool[np.ndarray, " galaxy"]:
        """Return which rows can be inferred: beyond the trained redshifts too, as far as the galaxy model goes."""
        given, reasons = photometry.redshift, int(REASONS & ~Flag.REDSHIFT_OUTSIDE_MODEL)
        known = (given > 0) & (given <= self.flow.reach)
        return ((flags & reasons) == 0) & (known | photometry.has_no_redshift & (self.unknown is not None)).numpy()

    def infer(self, photometry: Photometry, flags: UInt32[np.ndarray, " galaxy"], row: int) -> list[Answer]:
        """Return the flow's answers for the galaxies of a block that are `open`, a batch at a time."""
        places, answers = np.flatnonzero(self.open(photometry, flags)), []
        for start in range(0, len(places), self.abreast):
            at = places[start : start + self.abreast]
            if self.certificate:
                draws = self.draw(photometry[at], at + row, self.n_draws)
                answers.append(self.answer(draws, at, at + row, flags[at]))
            else:
                answers.append(self._plain(photometry[at], at, at + row))
        return answers

    # -- parts --------------------------------------------------------------------------------------------------------

    def draw(self, photometry: Photometry, rows: Int[np.ndarray, " galaxy"], n_draws: int) -> Draws:
        """Draw from the flow and weigh: rows are the galaxies' rows in their catalog, which key the base points.

        Where weights do not serve in spite of all that was learnt from them, all draws are the flow's own, whatever a target prior.
        """
        if not bool(photometry.has_exact_redshift.all()):
            return redshift_error.draw(self, photometry, rows, n_draws)
        base, n_bands = self.base_points(rows, n_draws), photometry.n_bands
        draws = Draws.certified(self.candidates(photometry, base), n_bands)
        poor = ~(self.serves(draws.interim) | draws.own.all(-1))
        if not bool(poor.any()):
            return draws
        alone = Draws.certified(self.candidates(photometry[poor], base[poor], learns=False), n_bands[poor])
        order = torch.arange(len(poor))
        order[poor] = torch.arange(len(poor), len(poor) + len(alone.weight))
        return Draws.joined([draws, alone], order)

    def candidates(
        self,
        photometry: Photometry,
        base: Float[Tensor, "galaxy draw coordinate"],
        learns: bool = True,
        at: FixedRedshifts | None = None,
    ) -> Candidates:
        """Draw from the flow, each galaxy at its redshift, and compute what weights and columns follow from.

        ``base``: points of the unit cube; if it ``learns``, those of later rounds are moved to where weights of earlier ones say;
        ``at``: what the redshifts decide, if it is known.
        """
        proposals, parts = adaptation.Adaptation(len(photometry), self.flow.dimensions) if learns else None, []
        x, at = self.flow.features(photometry), at or self.flow.redshift_model.at(photometry.redshift)
        for draws in adaptation.rounds(base.shape[1]):
            normal = probit(base[:, draws, : self.flow.dimensions])
            proposal = self._propose(base[:, draws], proposals.move(normal) if proposals else normal, x)
            light = self.flow.redshift_model.evaluate(proposal.theta, at)
            model, log_weight = self._weigh(proposal, light.flux, photometry)
            if proposals:
                proposals.learn(log_weight)
            values, chi2 = self.values(proposal.theta, light), likelihood.gaussian(model, photometry)[1]
            own = torch.full_like(chi2, draws.start == 0 or not learns, dtype=torch.bool)
            redshift = at.epoch.redshift.expand_as(chi2)
            parts.append(Candidates(proposal.unit, values, proposal.log_q, chi2, log_weight, own, redshift))
        found = Candidates.joined(parts)
        if proposals:
            found = replace(found, log_weight=found.log_weight - proposals.log_mixture)
        factor = self.target.log_factor(found.values, photometry.redshift) if self.target else None
        return replace(found, log_factor=factor)

    def predict(
        self, photometry: Photometry, rows: Int[np.ndarray, " galaxy"], n_draws: int, smooth: bool = True, as_trained: bool = False,
    ) -> Predicted:  # fmt: skip
        """Draw from the flow, and return what the galaxy model says of the bands instead of parameters and properties.

        ``as_trained``: the noise is that of the true fluxes, as of mocks, or stated, as in `draw`; ``smooth``: see `certify`.
        """
        redshift_error.refuse(photometry, "predicted fluxes")
        proposal, model = self.propose(photometry, rows, n_draws), self.flow.redshift_model
        flux, log_weight = self._weigh(proposal, model.flux(proposal.theta, model.at(photometry.redshift)), photometry)
        log_l, chi2 = likelihood.gaussian(flux, photometry)
        inverse = photometry.inverse_sigma.unsqueeze(1)
        if as_trained:
            inverse = self.flow.noise.inverse_sigma(flux, photometry)
            log_weight = log_weight - log_l + likelihood.gaussian(flux, photometry, inverse)[0]
        return Predicted(flux, inverse, chi2, importance.certify(log_weight, smooth))

    def propose(self, photometry: Photometry, rows: Int[np.ndarray, " galaxy"], n_draws: int) -> Proposal:
        """Draw from the flow, unweighed; an amplitude that is exact is still to be filled in."""
        base = self.base_points(rows, n_draws)
        return self._propose(base, probit(base[..., : self.flow.dimensions]), self.flow.features(photometry))

    def _propose(
        self,
        base: Float[Tensor, "galaxy draw coordinate"],
        normal: Float[Tensor, "galaxy draw dimension"],
        x: Float[Tensor, "galaxy feature"],
    ) -> Proposal:
        """Draw at base points ``normal``; ``base`` keeps the coordinate that an exact amplitude is drawn by."""
        flow, space = self.flow, self.flow.space
        phi, log_q = flow.network.sample_with_log_prob(normal, x)
        log_prior = -0.5 * (phi**2).sum(-1) - 0.5 * flow.dimensions * math.log(2 * math.pi)
        u = space.join_any(unit(phi)) if flow.spec.amplitude == "exact" else unit(phi)
        return Proposal(base, u, space.from_unit(u), log_prior, log_q)

    def _weigh(
        self, proposal: Proposal, per_mass: Float[Tensor, "galaxy draw band"], photometry: Photometry
    ) -> tuple[Float[Tensor, "galaxy draw band"], Float[Tensor, "galaxy draw"]]:
        """Fill the exact amplitude in; return model fluxes and ln of the weights of draws whose fluxes per mass are known."""
        space, weighed = self.flow.space, self.weigh(proposal, per_mass, photometry)
        if self.flow.spec.amplitude == "exact":
            space.values(proposal.theta)[space.amplitude.name].copy_(weighed.log_mstar)
            space.split(proposal.unit)[0].copy_(space.amplitude.prior.to_unit(weighed.log_mstar))
        return per_mass * space.scale(proposal.theta), weighed.log_weight

    def weigh(
        self, proposal: Proposal, per_mass: Float[Tensor, "#galaxy draw band"], photometry: Photometry
    ) -> Weighed:
        """Weigh draws whose fluxes per mass are known; the draws of one galaxy may be weighed by the data of several."""
        flow, space, n = self.flow, self.flow.space, len(photometry)
        if flow.spec.amplitude == "exact":
            uniform = proposal.base[..., flow.dimensions].expand(n, -1)
            fit = amplitude.fit(per_mass.expand(n, -1, -1), photometry, uniform, space.amplitude.prior.range)
            log_mstar, log_l = fit.log_mstar, fit.log_evidence
        else:
            log_mstar = space.values(proposal.theta)[space.amplitude.name].expand(n, -1)
            model = (per_mass * space.scale(proposal.theta)).expand(n, -1, -1)
            log_l, _ = likelihood.gaussian(model, photometry)
        return Weighed(log_l + proposal.log_prior - proposal.log_q, log_mstar)

    def prior_weight(
        self, values: Float[Tensor, "galaxy draw column"], redshift: Float[Tensor, " galaxy"]
    ) -> Float[Tensor, "galaxy draw"]:
        """Return what draws of the interim posterior count under the target prior: all alike without one; 0 if none fits."""
        every = torch.ones(values.shape[:2], dtype=torch.bool)
        return alike(every, self.target.log_factor(values, redshift) if self.target else None)

    def values(
        self, theta: Float[Tensor, "galaxy draw param"], light: DrawPhotometry
    ) -> Float[Tensor, "galaxy draw column"]:
        """Return parameters, derived properties and chosen columns of draws, as in `columns`; ``theta`` is that of ``light``."""
        if not self.certificate:
            return theta
        parts = [theta, derived.derive(self.flow.redshift_model.model, theta, light)]
        parts += [self.chosen(light)] if self.chosen else []
        parts += [light.drawn.epoch.redshift.expand_as(light.surviving).unsqueeze(-1)] if self.unknown else []
        return torch.cat(parts, -1)

    def answer(
        self,
        draws: Draws,
        at: Int[np.ndarray, " galaxy"],
        rows: Int[np.ndarray, " galaxy"],
        flags: UInt32[np.ndarray, " galaxy"],
    ) -> Answer:
        """Return what weighted draws of the flow say of the galaxies ``at`` of a block, which are ``rows`` of their catalog.

        ``flags`` say which are beyond the trained redshifts: there the flow is no answer by itself.
        """
        finite = (torch.isfinite(draws.interim.log_evidence) & torch.isfinite(draws.values).all(-1).all(-1)).numpy()
        serves, n = self.serves(draws), draws.weight.shape[1]
        good, left = serves.numpy(), self.left(draws.plain, n)
        near = good | (left != 0)
        ok = finite & near & (good | ((flags & int(Flag.REDSHIFT_OUTSIDE_MODEL)) == 0))
        weight = torch.where(serves.unsqueeze(-1), draws.weight, draws.plain)
        edge = at_edge(self.flow.space, draws.unit, weight)
        said = {Flag.FAILED: ~finite, Flag.LOW_EFFECTIVE_FRACTION: ok & ~good, Flag.PRIOR_EDGE: ok & edge,
                Flag.PRIOR_TOO_FAR: finite & ~near}  # fmt: skip
        columns = {
            **{name: getattr(draws, name).numpy() for name in _OF_WEIGHTS},
            **describe(self, draws.unit, draws.values, draws.redshift, weight, rows),
            **goodness_of_fit.columns(draws.chi2, draws.n_bands, weight),
            "effective_draws": np.where(good, n * draws.effective_fraction.numpy(), left),
            **self.before_target(
                np.where(good, n * draws.interim.effective_fraction.numpy(), draws.own.sum(-1).numpy())
            ),
            "method": np.where(good, Method.WEIGHTED, Method.FLOW),
        }
        return Answer(at, ok, bits(len(at), said), columns)

    def left(self, weight: Float[Tensor, "galaxy draw"], effective: float) -> Float[np.ndarray, " galaxy"]:
        """Return the effective draws that weights leave of ``effective`` ones; 0 if a target prior leaves too few."""
        fraction = (1 / (weight.shape[1] * (weight**2).sum(-1))).nan_to_num(posinf=0.0).numpy()
        least = 0.0 if self.target is None else LEAST_EFFECTIVE_DRAWS
        return np.where(effective * fraction >= least, effective * fraction, 0.0)

    def before_target(self, effective: Float[np.ndarray, " galaxy"]) -> dict[str, Float[np.ndarray, " galaxy"]]:
        """Return the column of effective draws before a target prior, where there is one."""
        return {"interim_effective_draws": effective} if self.target else {}

    def _plain(
        self, photometry: Photometry, at: Int[np.ndarray, " galaxy"], rows: Int[np.ndarray, " galaxy"]
    ) -> Answer:
        """Return what the flow's draws say, equally weighted."""
        flow = self.flow
        phi, _ = flow.network.sample_with_log_prob(
            probit(self.base_points(rows, self.n_draws)), flow.features(photometry)
        )
        u = unit(phi)
        theta = flow.space.from_unit(u)
        ok = torch.isfinite(theta).all(-1).all(-1).numpy()
        said = {Flag.FAILED: ~ok, Flag.PRIOR_EDGE: ok & at_edge(self.flow.space, u, None)}
        columns = {
            **describe(self, u, theta, photometry.redshift.unsqueeze(1), None, rows),
            "method": np.full(len(at), Method.FLOW),
        }
        return Answer(at, ok, bits(len(at), said), columns)

    def serves(self, draws: Draws | Certificate) -> Bool[Tensor, " galaxy"]:
        """Whether weights are worth as many draws as the least fraction of ``n_draws``, however many were drawn."""
        return draws.effective_fraction * draws.weight.shape[1] >= self.min_effective_fraction * self.n_draws

    def resample(
        self, weight: Float[Tensor, "galaxy draw"], rows: Int[np.ndarray, " galaxy"], n: int
    ) -> Int[np.ndarray, "galaxy n"]:
        """Return ``n`` draws a galaxy, as indices: systematic resampling with one keyed uniform a row."""
        start = np.concatenate([keyed_random.uniforms(self.seed, "resample", int(row), 1, 1) for row in rows])
        return importance.resample(weight, torch.as_tensor(start), n).numpy()
