"""Densities of inferred redshifts: weighted draws in, p(z) in bins out, which may have several peaks.

Draws of a galaxy share some tens of redshifts. Each is smeared by a Gaussian in ln(1 + z), half as wide as the rule of Silverman
(1986, section 3.4) for the width of a peak: points spread as evenly as ours are scatter less than chance has them, and a wider one
would flatten peaks.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped
from scipy.special import ndtr

#: Share of the probability whose shortest interval says how wide peaks are, and a Gaussian's, in standard deviations.
_SHARE, _OF_GAUSSIAN = 0.25, 0.6373
_SMOOTHING = 0.5
#: Of peaks: bins of redshift, how near the mode, and what is a peak of its own.
_BINS, _NEAR, _LEAST = 256, 0.06, 0.05


def around(points: Float[np.ndarray, " point"]) -> Float[np.ndarray, " edge"]:
    """Return the edges of bins about points of a grid, from its first to its last: halfway between two of them."""
    return np.concatenate([points[:1], (points[:-1] + points[1:]) / 2, points[-1:]])


def in_bins(
    redshift: Float[np.ndarray, "galaxy draw"],
    edges: Float[np.ndarray, " edge"],
    weight: Float[np.ndarray, "galaxy draw"] | None = None,
) -> Float[np.ndarray, "galaxy bin"]:
    """Return p(z) in bins of redshift between ``edges``, which holds all: what lies beyond them counts within.

    ``weight``: None: all draws alike. NaN for galaxies without draws or weights.
    """
    x, found = np.log1p(edges), np.full((len(redshift), len(edges) - 1), np.nan)
    for row, z, w in zip(found, redshift, np.ones_like(redshift) if weight is None else weight, strict=True):
        if np.isfinite(z).all() and w.sum() > 0:
            row[:] = _one(np.log1p(z.astype(float)), w / w.sum(), x)
    return found / np.diff(edges)


def peaks(
    redshift: Float[np.ndarray, "galaxy draw"],
    weight: Float[np.ndarray, "galaxy draw"],
    between: tuple[float, float],
) -> dict[str, Shaped[np.ndarray, " galaxy"]]:
    """Return where densities peak, by column of a catalog; ``between``: the least and the greatest redshift of the bins.

    ``redshift_odds`` is the probability within 0.06 (1 + z) of the mode, beyond which redshifts count as outliers;
    ``redshift_peaks`` the number of stretches that hold 5 % of it or more, each above a twentieth of the greatest density.
    """
    edges = np.linspace(*between, _BINS + 1)
    found = in_bins(redshift, edges, weight)
    answered, share = np.isfinite(found).all(1), np.nan_to_num(found) * np.diff(edges)
    middle = 0.5 * (edges[1:] + edges[:-1])
    mode = np.where(answered, middle[share.argmax(1)], np.nan)
    mode = np.where(np.ptp(redshift, axis=1) == 0, redshift[:, 0], mode)  # of rows whose redshift is known
    near = np.abs(middle - mode[:, None]) <= _NEAR * (1 + mode[:, None])
    odds = np.where(answered, (share * near).sum(1), np.nan)
    high = share > _LEAST * share.max(1, keepdims=True)
    begins = high & ~np.pad(high, ((0, 0), (1, 0)))[:, :-1]
    number, stretch = np.zeros(len(share), np.uint8), begins.cumsum(1)
    for i in range(1, int(stretch.max(initial=0)) + 1):
        number += (share * (high & (stretch == i))).sum(1) >= _LEAST
    return {
        "redshift_mode": mode.astype(np.float32), "redshift_odds": odds.astype(np.float32), "redshift_peaks": number,
    }  # fmt: skip


def _one(x: np.ndarray, weight: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Probability of each bin, of one galaxy's draws."""
    least = np.diff(edges).min() / 10  # narrower than a bin is as good as none
    place, at = np.unique(np.clip(x, edges[0] + least, edges[-1] - least), return_inverse=True)
    share = np.bincount(at, weight)
    width = _width(place, share)
    beyond = np.clip((edges[:, None] - place) / max(width, least), -40, 40)
    below = ndtr(beyond) @ share
    return np.diff(below).clip(min=0) / max(below[-1] - below[0], 1e-300)  # no less than nothing by rounding


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
