"""Fluxes of real galaxies in bands that the flow was not shown: predicted by the posterior, and measured.

In: photometry with some bands left out, and the same with them. Out: coverage of the predictive intervals and offsets, which
need no truth. The predictive distribution of a measured flux is that of the posterior's weighted draws, each with the Gaussian
of the measured error: its cumulative distribution at the measured flux is uniform if model and posterior are right (Gelman et
al. 2013, Bayesian Data Analysis, chapter 6).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from sedflow_dist.inference import importance
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.photometry.photometry import Photometry

_LEAST_PROBABILITY = 1e-12  # of a detection: where none was likelier, a rank says nothing
_HALVINGS = 20


@dataclass(frozen=True)
class Predictions:
    """What the posteriors of some galaxies predict.

    Attributes:
        flux: of draws in all bands of the model [nanomaggies]
        weight: of draws; adds up to one for each galaxy. Those of importance where they serve, alike elsewhere
        served: where they serve
        effective_fraction, pareto_k, log_evidence: see `importance.Certificate`
        chi2: of the best draw, in the bands that were shown
    """

    flux: Float[np.ndarray, "galaxy draw band"]
    weight: Float[np.ndarray, "galaxy draw"]
    served: Bool[np.ndarray, " galaxy"]
    effective_fraction: Float[np.ndarray, " galaxy"]
    pareto_k: Float[np.ndarray, " galaxy"]
    log_evidence: Float[np.ndarray, " galaxy"]
    chi2: Float[np.ndarray, " galaxy"]

    @classmethod
    def concatenate(cls, parts: list[Predictions]) -> Predictions:
        """Return those of several blocks of galaxies, one after the other."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


@dataclass(frozen=True)
class Agreement:
    """How predictions and measurements of a band agree.

    Attributes:
        galaxies: that were measured in it
        within_68, within_95: shares inside the central 68.27 and 95.45 % of the predictive distribution
        offset: median of measured minus predicted magnitude, of galaxies with positive fluxes [mag]
        scatter: 1.48 times the median absolute deviation from it [mag]
        error: median measured error [mag]
    """

    galaxies: int
    within_68: float
    within_95: float
    offset: float
    scatter: float
    error: float


def predict(posterior: Posterior, photometry: Photometry, rows: Int[np.ndarray, " galaxy"]) -> Predictions:
    """Infer galaxies, ``rows`` of their catalog, and return their draws' fluxes in all bands of the model."""
    parts = []
    for start in range(0, len(photometry), posterior.batch):
        at = np.arange(start, min(start + posterior.batch, len(photometry)))
        found = posterior.predict(photometry[at], rows[at], posterior.n_draws)
        certificate, served = found.certificate, posterior.serves(found.certificate)
        weight = torch.where(served.unsqueeze(-1), certificate.weight, 1 / posterior.n_draws)
        worth = (certificate.effective_fraction, certificate.pareto_k, certificate.log_evidence)
        columns = (found.flux, weight, served, *worth, found.chi2.amin(-1))
        parts.append(Predictions(*(column.numpy() for column in columns)))
    return Predictions.concatenate(parts)


def ranks(
    predictions: Predictions, measured: Photometry, band: int, limit: Float[np.ndarray, " galaxy"] | None = None
) -> Float[np.ndarray, " galaxy"]:
    """Return the predictive cumulative distribution of a band at the measured fluxes: uniform if all is right.

    Exact in the noise: its Gaussian is summed over draws and not drawn. NaN where the band is not measured.

    Args:
        limit: where a sample has only what was detected: the least flux that each galaxy's band would have been detected with
            [nanomaggies]. Distributions are then conditional on a measured flux above it, and galaxies below it are NaN
    """
    flux = measured.flux[:, band].double().numpy()
    found = _cumulative(predictions, measured, band, flux)
    if limit is None:
        return found
    below = _cumulative(predictions, measured, band, limit)
    return np.where(flux > limit, (found - below) / np.maximum(1 - below, _LEAST_PROBABILITY), np.nan)


def quantile(
    predictions: Predictions,
    measured: Photometry,
    band: int,
    probability: float | Float[np.ndarray, " galaxy"],
    limit: Float[np.ndarray, " galaxy"] | None = None,
) -> Float[np.ndarray, " galaxy"]:
    """Return the flux [nanomaggies] at which `ranks` is ``probability``, by bisection to 1e-6 of the range of the predictions.

    With ``probability`` drawn uniformly, that is a flux as the survey would measure it (and, above ``limit``, detect it) if the
    model were right.
    """
    flux, sigma = predictions.flux[:, :, band].astype(float), measured.sigma[:, band].double().numpy()
    low, high = flux.min(1) - 8 * sigma, flux.max(1) + 8 * sigma
    wanted = np.broadcast_to(np.asarray(probability, float), low.shape)
    if limit is not None:
        below = _cumulative(predictions, measured, band, limit)
        wanted, low, high = below + wanted * (1 - below), np.maximum(low, limit), np.maximum(high, limit)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        under = _cumulative(predictions, measured, band, middle) < wanted
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    return np.where(measured.mask[:, band].numpy(), (low + high) / 2, np.nan)


def _cumulative(
    predictions: Predictions, measured: Photometry, band: int, at: Float[np.ndarray, " galaxy"]
) -> Float[np.ndarray, " galaxy"]:
    """The cumulative distribution of a band's flux with its measured error, at one flux a galaxy; NaN: not measured."""
    sigma, known = measured.sigma[:, band].double().numpy(), measured.mask[:, band].numpy()
    z = (at[known, None] - predictions.flux[known, :, band]) / sigma[known, None]
    found = np.full(len(at), np.nan)
    found[known] = (predictions.weight[known] * torch.special.ndtr(torch.as_tensor(z)).numpy()).sum(1)
    return found


def agreement(
    predictions: Predictions, measured: Photometry, band: int, limit: Float[np.ndarray, " galaxy"] | None = None
) -> Agreement:
    """Compare a band's predictions with what was measured; ``limit``: of galaxies that were detected, see `ranks`.

    With a limit the predicted magnitude is the median of what would have been detected.
    """
    rank = ranks(predictions, measured, band, limit)
    known = np.isfinite(rank)
    flux, sigma = measured.flux[:, band].double().numpy(), measured.sigma[:, band].double().numpy()
    if limit is None:
        drawn, weight = torch.as_tensor(predictions.flux[..., band : band + 1]), torch.as_tensor(predictions.weight)
        middle = importance.quantiles(drawn, weight.float(), (0.5,))[:, 0, 0].double().numpy()
    else:
        middle = quantile(predictions, measured, band, 0.5, limit)
    bright = known & (flux > 0) & (middle > 0)
    difference = -2.5 * np.log10(flux[bright] / middle[bright])
    offset = float(np.median(difference))
    return Agreement(
        galaxies=int(known.sum()),
        within_68=float(np.mean(np.abs(rank[known] - 0.5) < 0.6827 / 2)),
        within_95=float(np.mean(np.abs(rank[known] - 0.5) < 0.9545 / 2)),
        offset=offset,
        scatter=float(1.4826 * np.median(np.abs(difference - offset))),
        error=float(np.median(2.5 / np.log(10) * sigma[bright] / flux[bright])),
    )
