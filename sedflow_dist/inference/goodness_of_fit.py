"""Goodness of fit: chi-square of posterior draws in, a p-value for each galaxy out."""

from __future__ import annotations

import numpy as np
import scipy
from jaxtyping import Float, Int
from torch import Tensor


def columns(
    chi2: Float[Tensor, "galaxy draw"], n_bands: Int[Tensor, " galaxy"], weight: Float[Tensor, "galaxy draw"]
) -> dict[str, Float[np.ndarray, " galaxy"]]:
    """Return how well weighted draws fit, by column of a catalog."""
    p_value = posterior_predictive(chi2.numpy(), n_bands.numpy(), weight.numpy())
    return {"p_value": p_value, "chi2": chi2.amin(-1).numpy()}


def posterior_predictive(
    chi2: Float[np.ndarray, "galaxy draw"],
    n_bands: Int[np.ndarray, " galaxy"],
    weight: Float[np.ndarray, "galaxy draw"] | None,
) -> Float[np.ndarray, " galaxy"]:
    """Return the probability that data simulated from the posterior fit worse than the measured ones.

    The mean over draws of P(chi2 with ``n_bands`` degrees of freedom > the draw's chi2). Near zero: no draw of the
    model explains the data. Source: Gelman, Meng & Stern 1996 (Statistica Sinica 6, 733).
    """
    tail = scipy.stats.chi2.sf(chi2, n_bands[:, None])
    return tail.mean(1) if weight is None else (tail * weight).sum(1)
