"""Bands that disagree with the others: galaxies in; of each measured band how probable it is, given all others, out.

A band is left out and predicted from the rest. The row's own draws serve, weighed by the likelihood of the other bands (importance
sampling of the leave-one-out posterior: Gelfand et al. 1992; Vehtari et al. 2017, arXiv 1507.04544), the amplitude integrated out
and drawn anew without the band. A band that does disagree has drawn them to where the others would not go; the weights say so
(effective draws, Pareto k), and draws of the flow that was not shown the band take their place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt32
from torch import Tensor

from sedflow_dist.inference import importance
from sedflow_dist.inference.draws import Proposal
from sedflow_dist.inference.importance import LARGEST_K
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.inference.summary import Summary
from sedflow_dist.photometry.flags import MINIMUM_BANDS, Flag
from sedflow_dist.photometry.photometry import Photometry

#: Share of galaxies flagged all the same, if model and noise are right and the weights leave draws enough.
FALSE_ALARMS = 0.01


@dataclass(frozen=True)
class Tension:
    """What the other bands of some galaxies say of each; NaN where a band is not measured or cannot be predicted.

    Attributes:
        p: posterior-predictive probability of a flux as far from what the others predict, on either side
        log_predictive: ln of the predictive density at the flux, which is ln of the evidence with the band less that without
            it [ln nanomaggies^-1]
    """

    p: Float[np.ndarray, "galaxy band"]
    log_predictive: Float[np.ndarray, "galaxy band"]

    @classmethod
    def unknown(cls, n: int, n_bands: int) -> Tension:
        """Return that of ``n`` galaxies of which nothing is known."""
        return cls(*np.full((2, n, n_bands), np.nan))

    def __getitem__(self, rows: np.ndarray) -> Tension:
        """Return some galaxies."""
        return Tension(self.p[rows], self.log_predictive[rows])

    def found(self) -> Bool[np.ndarray, " galaxy"]:
        """Return whether one of a galaxy's bands disagrees: the smallest p of n below 1 - (1 - `FALSE_ALARMS`)^(1 / n) (Sidak)."""
        n = np.isfinite(self.p).sum(1)
        limit = -np.expm1(np.log1p(-FALSE_ALARMS) / np.maximum(n, 1))
        return np.where(np.isfinite(self.p), self.p, 1.0).min(1) < limit

    def worst(self, photometry: Photometry) -> Bool[np.ndarray, "galaxy band"]:
        """Return which band of each galaxy it is that spoils: the one whose absence the data speak for most.

        A spoilt band may have any flux, all alike in the logarithm; the odds that it is this one are then the evidence of the
        others over that flux. Between bands that all are far in the tail, where probabilities are 0, this still can tell.
        """
        scale = torch.maximum(photometry.flux.abs(), photometry.sigma).numpy().clip(1e-30)
        density = np.where(np.isfinite(self.log_predictive), self.log_predictive + np.log(scale), np.inf)
        return (np.arange(density.shape[1]) == density.argmin(1)[:, None]) & np.isfinite(density)


@dataclass(frozen=True)
class Judged:
    """What is said of the bands of a block, and which of them its answers do not use."""

    tension: Tension
    left_out: Bool[np.ndarray, "galaxy band"]

    def tell(self, summary: Summary, answered: Int[np.ndarray, " row"]) -> None:
        """Put it into the summary of the block, of the rows that have an answer."""
        summary.band_p[answered] = self.tension.p[answered]
        summary.band_log_predictive[answered] = self.tension.log_predictive[answered]
        summary.left_out[answered] = self.left_out[answered]
        summary.flags[answered[self.tension.found()[answered]]] |= np.uint32(int(Flag.BAND_IN_TENSION))


@dataclass(frozen=True)
class _Predicted:
    """What draws say of a band left out of each context: as in `Tension`, ln of the others' evidence, whether weights serve."""

    p: Float[Tensor, " context"]
    log_evidence: Float[Tensor, " context"]
    serves: Bool[Tensor, " context"]

    def put(self, which: Int[Tensor, " some"], other: _Predicted) -> None:
        """Take over what is said of some contexts."""
        self.p[which], self.log_evidence[which], self.serves[which] = other.p, other.log_evidence, other.serves


class BandTension:
    """Predicts every band of galaxies from the others.

    Under the model's own prior, whatever target prior an answer has.

    Args:
        posterior: whose flow, seed and number of draws serve
        effective_draws: fewest that a prediction rests on
        leaves_out: whether bands in tension are to be left out
    """

    def __init__(self, posterior: Posterior, effective_draws: int, leaves_out: bool = False) -> None:
        self.posterior, self.effective_draws, self.leaves_out = posterior, effective_draws, leaves_out

    def judge(self, photometry: Photometry, flags: UInt32[np.ndarray, " galaxy"], row: int) -> Judged:
        """Look for bands in tension in a block that starts at catalog row ``row``, of galaxies that can be inferred."""
        found, out = Tension.unknown(*photometry.flux.shape), np.zeros(photometry.flux.shape, bool)
        flags = self.posterior.flag(photometry, flags)
        at = np.flatnonzero(self.posterior.open(photometry, flags))
        judged = self(photometry[at], at + row)
        found.p[at], found.log_predictive[at] = judged.p, judged.log_predictive
        if self.leaves_out:
            out[at] = self.spoilt(photometry[at], at + row, found[at])
        return Judged(found, out)

    def spoilt(
        self, photometry: Photometry, rows: Int[np.ndarray, " galaxy"], found: Tension
    ) -> Bool[np.ndarray, "galaxy band"]:
        """Return the bands without which the others agree: the worst one, then the worst of the rest, while enough are left."""
        out = np.zeros(photometry.flux.shape, bool)
        at = np.flatnonzero(found.found())
        found = found[at]
        while len(at):
            kept = photometry[at].with_bands(~torch.as_tensor(out[at]))
            out[at] |= found.worst(kept)
            found = self(kept.with_bands(~torch.as_tensor(out[at])), rows[at])
            at, found = at[found.found()], found[found.found()]
        return out

    @torch.no_grad()
    def __call__(self, photometry: Photometry, rows: Int[np.ndarray, " galaxy"]) -> Tension:
        """Predict bands; ``rows`` of the catalog key the draws. Galaxy by galaxy: no matter who stands beside it."""
        found = Tension.unknown(*photometry.flux.shape)
        for i in range(len(photometry)):
            one = photometry[i]
            if int(one.n_bands) > MINIMUM_BANDS and bool(one.has_exact_redshift):
                self._of_one(one, rows[i : i + 1], found.p[i], found.log_predictive[i])
        return found

    def _of_one(self, one: Photometry, row: Int[np.ndarray, " 1"], p: np.ndarray, log_predictive: np.ndarray) -> None:
        """Fill in what the bands of a galaxy are; what cannot be told stays as it is."""
        bands = one.mask[0].nonzero()[:, 0]
        without = _without_each(one, bands)
        draws = self._propose(one, row)
        whole = importance.certify(self.posterior.weigh(*draws, one).log_weight)
        log_evidence, found = whole.log_evidence, self._predict(*draws, one, without, bands)
        # Draws that miss part of a posterior find too little evidence: the most that any finds is then the nearest.
        trusted = bool(self._enough(whole) & (whole.pareto_k <= LARGEST_K))
        left = (~found.serves).nonzero()[:, 0]
        for start in range(0, len(left), self.posterior.batch):
            part = left[start : start + self.posterior.batch]
            draws = self._propose(without[part], row)
            found.put(part, self._predict(*draws, one, without[part], bands[part], shown=False))
            if not trusted:
                weighed = self.posterior.weigh(*draws, Photometry.concatenate([one] * len(part)))
                again = importance.certify(weighed.log_weight).log_evidence
                log_evidence = torch.maximum(log_evidence, again.max())
        told = found.serves
        p[bands[told]] = found.p[told]
        log_predictive[bands[told]] = (log_evidence - found.log_evidence)[told]

    def _propose(
        self, contexts: Photometry, row: Int[np.ndarray, " 1"]
    ) -> tuple[Proposal, Float[Tensor, "context draw band"]]:
        """Draw shapes given each context, from the same base points; return them and their fluxes per solar mass."""
        proposal = self.posterior.propose(contexts, np.repeat(row, len(contexts)), self.posterior.n_draws)
        model = self.posterior.flow.redshift_model
        return proposal, model.flux(proposal.theta, model.at(contexts.redshift))

    def _predict(
        self,
        proposal: Proposal,
        per_mass: Float[Tensor, "#context draw band"],
        one: Photometry,
        without: Photometry,
        bands: Int[Tensor, " context"],
        shown: bool = True,
    ) -> _Predicted:
        """Predict the band that each context is without; the noise of its flux is summed over, not drawn.

        Draws that were ``shown`` the band may lie elsewhere altogether: their weights' tail must be in order, too.
        """
        weighed = self.posterior.weigh(proposal, per_mass, without)
        certificate = importance.certify(weighed.log_weight)
        model = per_mass * 10 ** weighed.log_mstar.unsqueeze(-1)
        residual = (one.flux[0, bands, None] - model[torch.arange(len(bands)), :, bands]) * one.inverse_sigma[
            0, bands, None
        ]
        below, above = ((certificate.weight * torch.special.ndtr(sign * residual.double())).sum(-1) for sign in (1, -1))
        p = (2 * torch.minimum(below, above)).clamp(max=1)
        serves = self._enough(certificate)
        if shown:
            serves &= certificate.pareto_k <= LARGEST_K
        return _Predicted(p, certificate.log_evidence, serves)

    def _enough(self, certificate: importance.Certificate) -> Bool[Tensor, " context"]:
        """Whether weights are worth as many draws as a prediction needs."""
        return certificate.effective_fraction * certificate.weight.shape[1] >= self.effective_draws


def _without_each(one: Photometry, bands: Int[Tensor, " context"]) -> Photometry:
    """Return a galaxy without each of some bands: one block."""
    every = torch.arange(one.flux.shape[1])
    return Photometry.concatenate([one.with_bands(every != band) for band in bands])
