"""Star-formation and metallicity histories: basis functions of lookback time.

In: lookback times [Gyr]. Out: SFH basis values [1/Gyr], their exact cumulative integrals, metallicity basis values.
Source: PROVABGS (Hahn et al. 2022, arXiv 2202.01809, section 4.1); the knots reproduce its published non-negative
matrix factorisation tables to 1.1 % of each peak.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator

# fmt: off
_SFH_KNOTS = (
    ((0.067, 0.344, 1.174, 1.451, 2.281, 3.111, 3.388, 4.772, 5.602, 6.156, 7.539, 8.37, 9.477, 11.414, 13.628),
     (0.2451, 0.2499, 0.2569, 0.2481, 0.2206, 0.1736, 0.1574, 0.0664, 0.0223, 0.0021, 0.0, 0.0147, 0.0212, 0.0008, 0.0)),
    ((0.067, 0.897, 1.174, 1.451, 2.281, 3.111, 5.602, 5.879, 6.432, 7.263, 7.816, 8.37, 9.477, 10.03, 13.628),
     (0.0, 0.0001, 0.0062, 0.0168, 0.0528, 0.1046, 0.2201, 0.2189, 0.1975, 0.1447, 0.1043, 0.0591, 0.0083, 0.0003,
      0.0001)),
    ((0.067, 4.495, 5.049, 6.156, 6.986, 7.263, 7.539, 8.37, 9.2, 9.753, 10.307, 11.414, 11.967, 12.244, 13.628),
     (0.0006, 0.0002, 0.0183, 0.087, 0.1679, 0.1943, 0.223, 0.2662, 0.2459, 0.1957, 0.1302, 0.0276, 0.0044, 0.0, 0.0)),
    ((0.067, 3.388, 4.772, 5.602, 7.539, 8.923, 9.2, 10.307, 11.137, 12.244, 12.521, 12.798, 13.074, 13.351, 13.628),
     (0.0, 0.0, 0.0046, 0.0, 0.0018, 0.1084, 0.1416, 0.2899, 0.3267, 0.188, 0.1299, 0.0781, 0.0326, 0.0052, 0.0)),
)
_METALLICITY_KNOTS = (
    ((0.067, 0.344, 1.174, 1.727, 2.835, 4.218, 4.495, 4.772, 5.602, 6.156, 8.37, 9.477, 10.307, 10.584, 13.628),
     (5.4577, 5.4173, 5.2287, 4.9115, 4.1407, 3.0952, 2.8885, 2.679, 2.1166, 1.7506, 0.6249, 0.247, 0.0369, 0.0001,
      0.0)),
    ((0.067, 1.174, 1.451, 1.727, 3.942, 4.772, 5.879, 6.986, 8.093, 8.923, 10.307, 11.967, 12.798, 13.074, 13.628),
     (0.0, 0.0048, 0.1705, 0.3599, 1.9238, 2.4167, 2.8376, 2.9948, 2.8597, 2.5782, 1.8414, 0.5198, 0.0716, 0.0162,
      0.0)),
)
# fmt: on

N_SFH, N_METALLICITY = len(_SFH_KNOTS), len(_METALLICITY_KNOTS)

#: Fixed edges of the lookback-time bins [Gyr]: 0, then 10^(6.05 + 0.1 k) yr, k = 0..40. The last bin ends at t_age(z).
BIN_EDGES_GYR = np.concatenate([[0.0], 10.0 ** (6.05 + 0.1 * np.arange(41) - 9.0)])

_LONGEST_GYR = 14.0  # beyond the age of the Universe at z = 0 (13.80 Gyr, Planck13)


@cache
def _curves() -> tuple[tuple[PchipInterpolator, ...], tuple[PchipInterpolator, ...]]:
    def interpolate(knots: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]) -> tuple[PchipInterpolator, ...]:
        return tuple(PchipInterpolator(t, v, extrapolate=True) for t, v in knots)

    return interpolate(_SFH_KNOTS), interpolate(_METALLICITY_KNOTS)


def sfh_basis(t_lookback: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch 4"]:
    """Return the four SFH basis functions [1/Gyr] at lookback times [Gyr]."""
    return np.stack([np.maximum(curve(t_lookback), 0.0) for curve in _curves()[0]], axis=-1)


def metallicity_basis(t_lookback: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch 2"]:
    """Return the two metallicity-history basis functions at lookback times [Gyr]."""
    return np.stack([np.maximum(curve(t_lookback), 0.0) for curve in _curves()[1]], axis=-1)


@cache
def _cumulative_nodes() -> tuple[Float[np.ndarray, " node"], Float[np.ndarray, "node 4"]]:
    """Nodes [Gyr] between which every basis function is one cubic, and the integrals from 0 to each node."""
    nodes = [np.linspace(0.0, _LONGEST_GYR, 57), BIN_EDGES_GYR]
    for curve in _curves()[0]:
        nodes += [curve.x, curve.roots(extrapolate=True)]
    t = np.unique(np.concatenate(nodes))
    t = t[(t >= 0.0) & (t <= _LONGEST_GYR)]
    pieces = _integrate(t[:-1], t[1:])
    return t, np.concatenate([np.zeros((1, N_SFH)), np.cumsum(pieces, axis=0)])


def _integrate(start: Float[np.ndarray, "*batch"], stop: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch 4"]:
    """Integrate the SFH basis over intervals that hold no knot and no root: three Gauss points are exact for cubics."""
    x, w = np.polynomial.legendre.leggauss(3)
    half = 0.5 * (stop - start)
    points = 0.5 * (stop + start)[..., None] + half[..., None] * x
    return half[..., None] * np.einsum("...qi,q->...i", sfh_basis(points), w)


def sfh_cumulative(t_lookback: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch 4"]:
    """Return the integral of each SFH basis function from 0 to ``t_lookback`` [Gyr], exact.

    >>> bool(abs(sfh_cumulative(13.6) - sfh_cumulative(0.067) - 1).max() < 2e-3)   # one unit of mass each
    True
    """
    t = np.asarray(t_lookback, dtype=np.float64)
    if np.any((t < 0) | (t > _LONGEST_GYR)):
        raise ValueError(f"lookback times must lie in [0, {_LONGEST_GYR}] Gyr; found {t.min():g} to {t.max():g}")
    nodes, values = _cumulative_nodes()
    left = np.clip(np.searchsorted(nodes, t, side="right") - 1, 0, len(nodes) - 2)
    return values[left] + _integrate(nodes[left], t)
