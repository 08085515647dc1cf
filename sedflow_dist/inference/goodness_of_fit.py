"""Goodness of fit: chi-square of posterior draws in, a p-value for each galaxy out."""

from __future__ import annotations

import numpy as np
import scipy
from jaxtyping import Float, Int


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
