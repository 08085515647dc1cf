"""AB magnitudes of fluxes in nanomaggies, and colours of neighbouring bands; tensors or numpy arrays.

Source: Oke & Gunn 1983; a maggy is the flux density of magnitude 0, 3631 Jy.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

#: Of nanomaggies.
ZERO_POINT = 22.5
#: Flux density of magnitude 0.
JANSKY_PER_MAGGY = 3631.0
#: Relative error of a flux to error of a magnitude.
POGSON = 2.5 / np.log(10)

Array = TypeVar("Array", Tensor, np.ndarray)
Numbers = TypeVar("Numbers", float, Tensor, np.ndarray)


def magnitude(flux: Array) -> Array:
    """Return the AB magnitude of a flux [nanomaggies], which is positive."""
    return ZERO_POINT - 2.5 * _of(flux).log10(flux)


def flux(magnitude: Numbers) -> Numbers:
    """Return the flux [nanomaggies] of an AB magnitude."""
    return 10 ** (0.4 * (ZERO_POINT - magnitude))


def asinh_flux(magnitude: np.ndarray, softening: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the fluxes [nanomaggies] of asinh magnitudes, and how much they fall per magnitude: both exact.

    Args:
        softening: b of the band [maggies] (Lupton, Gunn & Szalay 1999, equation 3)
    """
    x = -magnitude / POGSON - np.log(softening)
    scale = 2e9 * softening
    return scale * np.sinh(x), scale * np.cosh(x) / POGSON


def neighbours(n_bands: int, band_sets: Sequence[Sequence[int]] = ()) -> tuple[tuple[int, int], ...]:
    """Return pairs of neighbouring bands, by number; of sets of bands (see `MockSurvey`), those of each set.

    >>> neighbours(5, [(0, 1, 4), (2, 3, 4)])
    ((0, 1), (1, 4), (2, 3), (3, 4))
    """
    return tuple(sorted({pair for bands in band_sets or [range(n_bands)] for pair in pairwise(bands)}))


def colours(flux: Array, mask: Array, band_sets: Sequence[Sequence[int]] = ()) -> tuple[Array, Array]:
    """Return colours of neighbouring bands [mag], (galaxy, colour), and whether both fluxes are measured and positive."""
    arrays = _of(flux)
    good = mask & (flux > 0)
    relative = -2.5 * arrays.log10(arrays.where(good, flux, 1.0))
    left, right = map(list, zip(*neighbours(flux.shape[1], band_sets), strict=True))
    return relative[:, left] - relative[:, right], good[:, left] & good[:, right]


def _of(array: Tensor | np.ndarray) -> Any:
    return torch if isinstance(array, Tensor) else np
