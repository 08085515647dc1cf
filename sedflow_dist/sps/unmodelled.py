"""What the galaxy model leaves out: bands and redshifts in, sentences on the light that these see and the model lacks out.

The model is stars and the dust that dims them (docs/model.md). What else shines or absorbs is told by the rest-frame
wavelengths that a band covers, whatever its name.

Sources: IGM below Lyman alpha, Inoue et al. 2014; the 3.3 micron feature and hot dust, Draine & Li 2007; AGN in WISE's bands,
Stern et al. 2012; lines in broad bands, Stark et al. 2013.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sedflow_dist.sps.filters import Band, Named

#: A band is where its response is a tenth of its largest, or more.
_EDGE = 0.1
#: Rest-frame wavelengths [A].
LYMAN_ALPHA, O_III, H_ALPHA, PAH = 1216.0, 5007.0, 6563.0, 32_900.0
#: A band's mean wavelength in the rest frame beyond which dust outshines stars: of any galaxy, and of an active nucleus.
HOT_DUST, AGN_DUST = 39_000.0, 22_000.0
#: Below, lines stay within the error that the survey gives its stellar models.
_LINES_FROM = 0.3


@dataclass(frozen=True)
class Effect:
    """Light that is not in the model: what it is, what answers suffer, and the redshifts at which a band sees it, which
    follow from its ends and its mean wavelength [A]."""

    name: str
    consequence: str
    redshifts: Callable[[float, float, float], tuple[float, float]]
    nebular: bool = False


def _line(wavelength: float) -> Callable[[float, float, float], tuple[float, float]]:
    return lambda blue, red, mean: (max(blue / wavelength - 1, _LINES_FROM), red / wavelength - 1)


_OF_LINES = "10 to 30 % of the flux in starbursts, more than model_error covers: too young, too little dust"
EFFECTS = (
    Effect(
        "absorption by the intergalactic medium (below Lyman alpha)", "model fluxes are too bright, and so too much dust",
        lambda blue, red, mean: (blue / LYMAN_ALPHA - 1, math.inf),
    ),
    Effect("emission lines of gas: [O III] 5007", _OF_LINES, _line(O_III), nebular=True),
    Effect("emission lines of gas: H alpha", _OF_LINES, _line(H_ALPHA), nebular=True),
    Effect(
        "emission of dust: the 3.3 micron feature of PAHs", "masses of star-forming galaxies are too high",
        lambda blue, red, mean: (blue / PAH - 1, red / PAH - 1),
    ),
    Effect(
        "emission of dust: hot dust", "masses are too high, and fits bad, unless the band is left out",
        lambda blue, red, mean: (-math.inf, mean / HOT_DUST - 1),
    ),
    Effect(
        "an active nucleus (hot dust around it)", "masses of galaxies with one are too high",
        lambda blue, red, mean: (-math.inf, mean / AGN_DUST - 1),
    ),
)  # fmt: skip


def warnings(bands: Sequence[Named], redshift: tuple[float, float], nebular: bool = False) -> list[str]:
    """Return a sentence on each effect that bands (speclite names or curves) see somewhere in a range of redshifts.

    Args:
        nebular: the SSP table has the emission of gas

    >>> for line in warnings(["sdss2010-u", "wise2010-W2"], (0.0, 0.2)):
    ...     print(line.partition(";")[0])
    emission of dust: hot dust: wise2010-W2 below z = 0.19
    an active nucleus (hot dust around it): wise2010-W2 at all redshifts
    """
    found = []
    loaded = [Band.load(band) for band in bands]
    for effect in EFFECTS:
        seen = [
            f"{band.name} {_words(where, redshift)}" for band in loaded if (where := _where(effect, band, redshift))
        ]
        if seen and not (nebular and effect.nebular):
            found.append(f"{effect.name}: {', '.join(seen)}; {effect.consequence}")
    return found


def _where(effect: Effect, band: Band, redshift: tuple[float, float]) -> tuple[float, float] | None:
    """The part of the range in which a band sees an effect."""
    used = band.wavelength[np.flatnonzero(band.response >= _EDGE * band.response.max())]
    low, high = effect.redshifts(used[0], used[-1], band.effective_wavelength)
    low, high = max(low, redshift[0]), min(high, redshift[1])
    return (low, high) if low < high else None


def _words(where: tuple[float, float], redshift: tuple[float, float]) -> str:
    from_start, to_end = where[0] == redshift[0], where[1] == redshift[1]
    if from_start:
        return "at all redshifts" if to_end else f"below z = {where[1]:.2f}"
    return f"above z = {where[0]:.2f}" if to_end else f"at z = {where[0]:.2f} to {where[1]:.2f}"
