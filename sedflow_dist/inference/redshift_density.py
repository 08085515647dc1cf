"""Densities of inferred redshifts: weighted draws in, p(z) in bins out, which may have several peaks.

Draws of a galaxy share some tens of redshifts. Each is smeared by a Gaussian in ln(1 + z), half as wide as the rule of Silverman
(1986, section 3.4) for the width of a peak: points spread as evenly as ours are scatter less than chance has them, and a wider one
would flatten peaks.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

#: Share of the probability whose shortest interval says how wide peaks are, and a Gaussian's, in standard deviations.
_SHARE, _OF_GAUSSIAN = 0.25, 0.6373
_SMOOTHING = 0.5


def in_bins(
    redshift: Float[np.ndarray, "galaxy draw"],
    weight: Float[np.ndarray, "galaxy draw"],
    edges: Float[np.ndarray, " edge"],
) -> Float[np.ndarray, "galaxy bin"]:
    """Return p(z) in bins of redshift between ``edges``, which holds all: what lies beyond them counts within.

    NaN for galaxies without weights.
    """
    x, found = np.log1p(edges), np.full((len(redshift), len(edges) - 1), np.nan)
    for row, z, w in zip(found, redshift, weight, strict=True):
        if np.isfinite(z).all() and w.sum() > 0:
            row[:] = _one(np.log1p(z.astype(float)), w / w.sum(), x)
    return found / np.diff(edges)


def _one(x: np.ndarray, weight: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Probability of each bin, of one galaxy's draws."""
    least = np.diff(edges).min() / 10  # narrower than a bin is as good as none
    place, at = np.unique(np.clip(x, edges[0] + least, edges[-1] - least), return_inverse=True)
    share = np.bincount(at, weight)
    width = _width(place, share)
    beyond = np.clip((edges[:, None] - place) / max(width, least), -40, 40)
    below = ndtr(beyond) @ share
    return np.diff(below) / max(below[-1] - below[0], 1e-300)


def _width(place: np.ndarray, share: np.ndarray) -> float:
    """Standard deviation of the Gaussian that points are smeared by."""
    if len(place) < 2:
        return 0.0
    # Each point's probability lies about it: its middle is where half of it is below.
    middle = np.cumsum(share) - 0.5 * share
    end = np.interp(middle + _SHARE, middle, place, right=np.inf)
    shortest = np.min(end - place)
    if not np.isfinite(shortest):
        shortest = place[-1] - place[0]
    independent = 1 / np.sum(share**2)
    return float(_SMOOTHING * shortest / _OF_GAUSSIAN * independent**-0.2)
