"""Zero points of a survey: photometry and a flow's weighted draws in, offsets of its bands with errors out.

With fluxes x = f exp(delta) + noise (f the model's, C the noise's covariance), the galaxies of a survey share delta. Each has
draws with importance weights, made with its photometry corrected for the delta of the last iteration, and they say of it

    d ln p(x | delta) / d delta = E[s],  s = f C^-1 (x - f)      (Fisher's identity)
    - d^2 ln p / d delta^2 = E[f C^-1 f] - Cov[s]                (Louis 1982, JRSS B 44, 226, eq. 3.2)

with expectations over its posterior: what parameters can mimic is taken off by Cov[s]. Sums over galaxies are one normal equation;
solving it is a step of Newton's method. Memory does not depend on the number of galaxies.

Where the population counts, so does its selection. The survey selects on what it observes, so that P, the share of all
galaxies that it selects, depends on delta, and what they say is sum_i ln p(x_i | delta) - N ln P(delta) (Loredo 2004, arXiv
astro-ph/0409387).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float, Int, UInt32

from sedflow_dist import magnitudes
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference import goodness_of_fit
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.magnitudes import POGSON
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.simulation.shapes import draw_shapes

#: Flags that say nothing against a row's photometry, or that are judged anew.
_HARMLESS = int(Flag.BAND_MISSING | Flag.NEGATIVE_FLUX | Flag.NO_ID | Flag.LOW_EFFECTIVE_FRACTION)
#: Fewer say next to nothing; more asked for would leave out galaxies of unusual colours, and with them a part of the population.
_LEAST_EFFECTIVE_DRAWS = 10.0
_SHAPES = 4096  # of the prior, of which selection selects a share: they tell its slope to 2 %
_LARGEST_STEP = 0.1  # mag in any band: the normal equation is linear, and weights are not
MEAN = "mean"
#: Why a row is left out, in the order in which that is looked for.
LEFT_OUT = {
    "redshift": "without a spectroscopic redshift that the model serves",
    "flagged": "flagged",
    "weights": "whose importance weights do not serve",
    "misfit": "that the model does not explain",
}


@dataclass(frozen=True)
class Assumptions:
    """What is assumed of the offsets and of the galaxies.

    Attributes:
        fixed: the band whose offset is 0, or ``mean``: the mean of all. The mass of every galaxy is free, so an offset that all
            bands share is none that data could tell
        prior: standard deviation of the offsets before any data [mag], of each direction that is solved for
        population: ``prior``: the galaxies are distributed as the model's prior has it, as mocks are; their mean colours then
            count. ``unknown``: directions in which one galaxy scatters by more than ``scatter`` are not solved for, since
            there a wrong zero point and another population are the same
        scatter: of single galaxies about the model in a direction [mag]
        least_p_value: rows below, by their goodness of fit, are left out
    """

    fixed: str = MEAN
    prior: float = 0.1
    population: Literal["unknown", "prior"] = "unknown"
    scatter: float = 0.1
    least_p_value: float = 0.001


@dataclass(frozen=True)
class NormalEquation:
    """Sums over galaxies: ``score``, observed ``information``, outer products of scores; rows used, also in each band, and
    those left out by reason."""

    rows: int
    in_band: Int[np.ndarray, " band"]
    score: Float[np.ndarray, " band"]
    information: Float[np.ndarray, "band band"]
    outer: Float[np.ndarray, "band band"]
    left_out: Counter[str]

    @classmethod
    def zero(cls, n_bands: int) -> NormalEquation:
        """Return that of no galaxy."""
        square = np.zeros((n_bands, n_bands))
        return cls(0, np.zeros(n_bands, int), np.zeros(n_bands), square, square, Counter())

    def __add__(self, other: NormalEquation) -> NormalEquation:
        return NormalEquation(
            self.rows + other.rows, self.in_band + other.in_band, self.score + other.score,
            self.information + other.information, self.outer + other.outer, self.left_out + other.left_out,
        )  # fmt: skip


@dataclass(frozen=True)
class Solution:
    """Offsets [mag], to be added to magnitudes (as a survey's ``ab_offset``), and their standard errors; NaN: not measured.

    ``error``: with the prior's width along directions that were not solved for; ``statistical``: without. ``held``: those
    directions, each of unit length, and ``scatter``: how much single galaxies scatter in each [mag]; infinite where they say
    nothing.
    """

    offset: Float[np.ndarray, " band"]
    error: Float[np.ndarray, " band"]
    statistical: Float[np.ndarray, " band"]
    held: Float[np.ndarray, "direction band"]
    scatter: Float[np.ndarray, " direction"]


def corrected(photometry: Photometry, offset: Float[np.ndarray, " band"]) -> Photometry:
    """Return photometry whose magnitudes have ``offset`` [mag] added."""
    factor = torch.as_tensor(magnitudes.flux(np.nan_to_num(offset)) / magnitudes.flux(0.0)).to(photometry.flux)
    return replace(photometry, flux=photometry.flux * factor, sigma=photometry.sigma * factor)


def equation(
    posterior: Posterior,
    photometry: Photometry,
    flags: UInt32[np.ndarray, " galaxy"],
    rows: Int[np.ndarray, " galaxy"],
    offset: Float[np.ndarray, " band"],
    assumptions: Assumptions,
) -> NormalEquation:
    """Return what galaxies say of the offsets that are left after ``offset`` [mag].

    Args:
        flags: the galaxies' in their catalog
        rows: in their catalog, which key the draws
    """
    total, data = NormalEquation.zero(len(offset)), corrected(photometry, offset)
    slope = np.zeros(len(offset))
    if assumptions.population == "prior":
        slope[posterior.flow.noise.selection_band] = _of_selection(posterior.flow)
    spectroscopic = photometry.has_exact_redshift.numpy() & posterior.open(photometry, flags & ~np.uint32(_HARMLESS))
    plain = (flags & ~np.uint32(_HARMLESS)) == 0
    total.left_out["redshift"] += int((~spectroscopic).sum())
    total.left_out["flagged"] += int((spectroscopic & ~plain).sum())
    places = np.flatnonzero(spectroscopic & plain)
    for start in range(0, len(places), posterior.batch):
        at = places[start : start + posterior.batch]
        total = total + _of_batch(posterior, data[at], rows[at], slope, assumptions)
    return total


def _of_batch(
    posterior: Posterior,
    photometry: Photometry,
    rows: Int[np.ndarray, " galaxy"],
    slope: Float[np.ndarray, " band"],
    assumptions: Assumptions,
) -> NormalEquation:
    """The sums over galaxies whose weights serve and whose photometry the model explains; ``slope``: d ln P / d delta."""
    as_trained = assumptions.population == "prior"
    found = posterior.predict(photometry, rows, posterior.n_draws, smooth=False, as_trained=as_trained)
    certificate, weight = found.certificate, found.certificate.weight
    serves = (certificate.effective_fraction * posterior.n_draws >= _LEAST_EFFECTIVE_DRAWS).numpy()
    serves &= np.isfinite(certificate.log_evidence.numpy())
    p_value = goodness_of_fit.posterior_predictive(found.chi2.numpy(), photometry.n_bands.numpy(), weight.numpy())
    fits = p_value >= assumptions.least_p_value
    use = torch.as_tensor(serves & fits)
    left = Counter({"weights": int((~serves).sum()), "misfit": int((serves & ~fits).sum())})
    one, model, inverse, w = photometry[use], found.flux[use], found.inverse_sigma[use], weight[use].double()
    signal, data = (model * inverse).double(), (one.flux.unsqueeze(1) * inverse).double()
    score, curvature = signal * (data - signal), signal**2
    if (
        as_trained
    ):  # the noise is known of each true flux, in the units that a wrong zero point scales: x = (f + noise) exp(delta)
        score = torch.where(one.mask.unsqueeze(1), data * (data - signal) - 1, 0.0)
        curvature = data * (2 * data - signal)
    mean = torch.einsum("gd,gdb->gb", w, score)
    deviation = (score - mean.unsqueeze(1)) * w.sqrt().unsqueeze(-1)
    mean = mean - torch.as_tensor(slope) * one.mask
    information = torch.einsum("gd,gdb->b", w, curvature).diag() - torch.einsum("gda,gdb->ab", deviation, deviation)
    return NormalEquation(
        int(use.sum()), one.mask.sum(0).numpy(), mean.sum(0).numpy(), information.numpy(),
        (mean.T @ mean).numpy(), left,
    )  # fmt: skip


def _of_selection(flow: TrainedModel) -> float:
    """d ln P / d delta of the band in which the training's survey selects, of galaxies of the prior."""
    shapes = draw_shapes(flow.redshift_model.model, flow.spec.redshift, 0, "selection", 0, _SHAPES)
    return flow.survey().selection_slope(shapes)


def solve(
    found: NormalEquation, offset: Float[np.ndarray, " band"], labels: Sequence[str], assumptions: Assumptions
) -> Solution:
    """Return the offsets that a normal equation at ``offset`` [mag] asks for, none further than a step from those.

    Errors are those of the "sandwich", information^-1 outer information^-1, right also where the model is not (Huber 1967).

    Raises:
        ValueError: no galaxy, or one band only, has a say; or the band that is to be fixed is not measured.
    """
    seen, fixed = found.in_band > 0, assumptions.fixed
    if seen.sum() < 2 or (fixed != MEAN and not seen[labels.index(fixed)]):
        bands = ", ".join(label for label, there in zip(labels, seen, strict=True) if there) or "no band"
        raise ValueError(
            f"zero points need galaxies with two bands or more, the fixed one ({fixed}) among them; {found.rows:,} rows could "
            f"be used, with {bands}; left out: {described(found.left_out)}"
        )
    square = np.ix_(seen, seen)
    information, outer = found.information[square], found.outer[square]
    delta, n_seen = np.nan_to_num(offset[seen]) / POGSON, int(seen.sum())
    delta -= delta.mean()
    basis = scipy.linalg.null_space(np.ones((1, n_seen)))  # an offset of all bands is the masses'
    value, vector = np.linalg.eigh(basis.T @ information @ basis)
    scatter = np.full(len(value), np.inf)
    scatter[value > 0] = POGSON * np.sqrt(found.rows / value[value > 0])
    kept = scatter < (assumptions.scatter if assumptions.population == "unknown" else np.inf)
    directions = basis @ vector[:, kept]
    prior = (POGSON / assumptions.prior) ** 2 * np.eye(int(kept.sum()))
    gain = directions @ np.linalg.inv(directions.T @ information @ directions + prior)
    step = gain @ directions.T @ (found.score[seen] + information @ delta) - delta
    delta += step * min(1.0, _LARGEST_STEP / max(POGSON * np.abs(step).max(), 1e-30))
    covariance = gain @ (directions.T @ outer @ directions + prior) @ gain.T
    held, scatter = basis @ vector[:, ~kept], scatter[~kept]
    unknown = (assumptions.prior / POGSON) ** 2 * held @ held.T
    if fixed != MEAN:
        shift = np.eye(len(delta)) - (np.array(labels)[seen] == fixed)  # takes the fixed band's offset from all
        delta, covariance, unknown = shift @ delta, shift @ covariance @ shift.T, shift @ unknown @ shift.T

    def filled(values: Float[np.ndarray, "*_direction seen"]) -> Float[np.ndarray, "*_direction band"]:
        everywhere = np.full((*values.shape[:-1], len(seen)), np.nan)
        everywhere[..., seen] = values
        return everywhere

    error, statistical = (POGSON * np.sqrt(np.diag(c).clip(min=0.0)) for c in (covariance + unknown, covariance))
    return Solution(filled(POGSON * delta), filled(error), filled(statistical), np.nan_to_num(filled(held.T)), scatter)


def described(left_out: Counter[str]) -> str:
    """Return how many rows were left out, by reason, in words."""
    return ", ".join(f"{left_out[reason]:,} {LEFT_OUT[reason]}" for reason in LEFT_OUT)
