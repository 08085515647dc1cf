"""Libraries that an SSP table can carry beside its stars: emission of gas and of dust, and all light in cells of energy.

In: arrays on the table's pixels. Out: dataclasses of arrays, which stores and trained models keep by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
from jaxtyping import Float

#: Light at shorter wavelengths [A] ionises hydrogen.
LYMAN_LIMIT_A = 911.76
#: Ends of pieces [A] on each of which a screen's transmission is one polynomial of ln(lambda): at the Lyman limit, at both ends
#: of dust's bump and of Calzetti's two formulas, and where curves bend. Dust that absorbs 1e-6 to all of the light then
#: absorbs the same energy to 1e-4 (tests/sedflow_dist/sps/test_dust_emission.py).
_PIECES_A = (
    90.0, 150.0, 250.0, 360.0, 500.0, 680.0, LYMAN_LIMIT_A, 1250.0, 1700.0, 2050.0, 2350.0, 2900.0, 4200.0, 6300.0, 10_500.0,
    30_986.274, 4e5,
)  # fmt: skip
_NODES = 6


@dataclass(frozen=True)
class NebularLibrary:
    """Lines and continuum of gas around young stars, per solar mass formed.

    Attributes:
        age: of the stars, increasing [Gyr]; linear interpolation in log(age) between them, none beyond the last
        log_u: log10 of the ionisation parameter, increasing
        spectra: photon-weighted pixel means, (log_u, metallicity, age, pixel) [Lsun/A per Msun formed]; the gas has the
            stars' metallicity
        energy: the same light in cells of energy, (log_u, metallicity, age, cell) [Lsun per Msun formed], or None
    """

    what: ClassVar[str] = "gas"
    age: Float[np.ndarray, " age"]
    log_u: Float[np.ndarray, " log_u"]
    spectra: Float[np.ndarray, "log_u metallicity age pixel"]
    energy: Float[np.ndarray, "log_u metallicity age cell"] | None = None


@dataclass(frozen=True)
class DustLibrary:
    """Spectra of dust heated by starlight, each for a luminosity of one (Draine & Li 2007).

    Attributes:
        u_min: lowest intensity of starlight, of the solar neighbourhood's, increasing
        q_pah: percentage of dust's mass in PAHs, increasing
        power: luminosity per hydrogen atom, (kind, q_pah, u_min), in any unit: how kinds and neighbours mix
        spectra: (kind, q_pah, u_min, pixel) [1/A]; the first kind is dust heated by u_min alone, the second by a power law
            of intensities from u_min to 10^6
    """

    what: ClassVar[str] = "dust"
    u_min: Float[np.ndarray, " u_min"]
    q_pah: Float[np.ndarray, " q_pah"]
    power: Float[np.ndarray, "2 q_pah u_min"]
    spectra: Float[np.ndarray, "2 q_pah u_min pixel"]


@dataclass(frozen=True)
class Bolometric:
    """All light of simple stellar populations, in cells at some wavelengths: a screen takes its share of each.

    Attributes:
        wavelength: of the cells [A]
        width: what a luminosity density that is smooth between the cells is multiplied with and summed [A]
        spectra: (metallicity, age, cell) [Lsun per Msun formed]; a cell can be negative, sums are not
    """

    what: ClassVar[str] = "all light"
    wavelength: Float[np.ndarray, " cell"]
    width: Float[np.ndarray, " cell"]
    spectra: Float[np.ndarray, "metallicity age cell"]


def nodes_of_energy(
    edges: Float[np.ndarray, " edge"],
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"], Float[np.ndarray, "pixel cell"]]:
    """Return wavelengths [A] and widths [A] of cells, and what a spectrum [1/A] is multiplied with to be shared between them.

    The transmission of a screen is interpolated in ln(lambda) by the polynomial through Chebyshev nodes of each piece, so
    the transmitted energy is a sum over nodes of transmission(node) times what the spectrum alone gives.
    """
    unit = np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)[::-1]
    wavelengths, shares = [], []
    for lo, hi in pairwise(_PIECES_A):
        # A pixel in which a piece ends is shared: gas absorbs the one at the Lyman limit up to there.
        left, right = np.clip(edges[:-1], lo, hi), np.clip(edges[1:], lo, hi)
        centre, width = 0.5 * (np.log(left) + np.log(right)), right - left
        x = 0.5 * np.log(lo * hi) + 0.5 * np.log(hi / lo) * unit
        wavelengths.append(np.exp(x))
        for j in range(_NODES):
            cardinal = np.prod([(centre - x[k]) / (x[j] - x[k]) for k in range(_NODES) if k != j], axis=0)
            shares.append(cardinal * width)
    table = np.stack(shares, axis=1)
    return np.concatenate(wavelengths), table.sum(0), table
