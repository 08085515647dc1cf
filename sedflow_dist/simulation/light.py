"""How bright, and of which colours, galaxies of the galaxy model are: bands in, ranges of magnitudes and colours out.

For a look at photometry whose units, zero points or columns may be wrong: such errors make galaxies that no model makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from sedflow_dist import keyed_random, magnitudes
from sedflow_dist.sps.components import Composition
from sedflow_dist.sps.filters import Band, Named, reach
from sedflow_dist.sps.galaxy_model import GalaxyModel
from sedflow_dist.sps.ssp import SSPTable

_DRAWS, _REDSHIFTS = 256, 8
_NEAREST, _FARTHEST = 0.003, 6.0
_ENDS = (0.01, 0.99)  # of the draws' light: the rest are dust and bursts that no sample's median shows
_MARGIN = 1.02  # of the ends of what is asked of the table, which bands must stay within
#: Rest wavelengths [A] at which stars and the dust before them say how bright galaxies are: before, hydrogen absorbs; after, dust
#: shines.
_STARLIGHT_A = (900.0, 56_000.0)


@dataclass(frozen=True)
class ModelRange:
    """What galaxies of the prior look like at some redshifts, from the faintest and bluest to the brightest and reddest.

    Attributes:
        redshift: (redshift,), increasing
        bright, faint: magnitudes of the most and least massive galaxies, (redshift, band); NaN of a band beyond the SSP table
        blue, red: colours of neighbouring bands, (redshift, colour)
    """

    redshift: Float[np.ndarray, " redshift"]
    bright: Float[np.ndarray, "redshift band"]
    faint: Float[np.ndarray, "redshift band"]
    blue: Float[np.ndarray, "redshift colour"]
    red: Float[np.ndarray, "redshift colour"]

    def at(self, redshift: np.ndarray) -> np.ndarray:
        """Return the nearest of the redshifts, as an index, (galaxy,); -1 where none is near."""
        z = np.nan_to_num(redshift, nan=-1.0)
        inside = (z > 0) & (z <= 1.1 * self.redshift[-1])
        nearest = np.abs(np.log1p(np.maximum(z, 0))[:, None] - np.log1p(self.redshift)).argmin(1)
        return np.where(inside, nearest, -1)


def model_range(ssp: SSPTable, bands: Sequence[Named], band_sets: Sequence[Sequence[int]] = ()) -> ModelRange:
    """Return the range of the galaxy model's prior in some bands, as far as the SSP table reaches.

    ``band_sets``: see `magnitudes.neighbours`.
    """
    ends = [Band.load(band).range for band in bands]
    first, last = _MARGIN * max(ssp.edges[0], _STARLIGHT_A[0]), min(ssp.edges[-1], _STARLIGHT_A[1])
    there = [i for i, (low, high) in enumerate(ends) if low > first and high * _MARGIN < last]
    farthest = min(_FARTHEST, reach([bands[i] for i in there], np.array([first, last]))) if there else _FARTHEST
    redshift = np.expm1(np.linspace(np.log1p(_NEAREST), np.log1p(max(farthest, 2 * _NEAREST)), _REDSHIFTS))
    light = np.full((_REDSHIFTS, _DRAWS, len(bands)), np.nan)
    space = Composition.of().space
    if there:
        model = GalaxyModel(ssp, [bands[i] for i in there], float(redshift[-1]) * 1.001)
        u = torch.as_tensor(keyed_random.uniforms(1, "range", 0, _DRAWS, len(space.coordinates))).float()
        theta = space.from_unit(u)
        space.values(theta)[space.amplitude.name].zero_()
        z = torch.as_tensor(redshift).float().repeat_interleave(_DRAWS)
        flux = model.fluxes(theta.repeat(_REDSHIFTS, 1), z).double().numpy()
        with np.errstate(divide="ignore"):
            light[..., there] = magnitudes.magnitude(flux).reshape(_REDSHIFTS, _DRAWS, len(there))
    light[~np.isfinite(light)] = np.nan
    left, right = map(list, zip(*magnitudes.neighbours(len(bands), band_sets), strict=True))
    low, high = space.amplitude.prior.range
    (bright, faint), (blue, red) = (
        np.quantile(values, _ENDS, axis=1) for values in (light, light[..., left] - light[..., right])
    )
    return ModelRange(redshift, bright - 2.5 * high, faint - 2.5 * low, blue, red)
