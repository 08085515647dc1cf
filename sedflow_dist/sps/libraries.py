"""Libraries that an SSP table can carry beside its stars: emission of gas, of dust and of a torus, all light in cells of energy.

In: arrays on the table's pixels. Out: dataclasses of arrays, which stores and trained models keep by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

#: Light at shorter wavelengths [A] ionises hydrogen.
LYMAN_LIMIT_A = 911.76
#: Ends of pieces [A] on each of which a screen's transmission is one polynomial of ln(lambda): at the Lyman limit, where Calzetti's
#: two formulas end, around dust's bump and its silicates, and otherwise such that the largest errors of the pieces add up to the
#: least that as many can leave. Dust that absorbs 1e-6 to all of the light then absorbs the same energy to half of 1e-4
#: (tests/sedflow_dist/sps/test_dust_emission.py).
_PIECES_A = (
    90.0, 210.0, 305.0, 440.0, 630.0, LYMAN_LIMIT_A, 1970.0, 2310.0, 3500.0, 6300.0, 10_000.0, 23_000.0, 30_986.274, 83_000.0,
    120_000.0, 208_000.0, 4e5,
)  # fmt: skip
_NODES = 6
#: Percentages of PAHs and lowest intensities of starlight of Draine & Li's dust of the Milky Way (R_V = 3.1): one sequence. That
#: of the Magellanic Clouds has grains of other sizes.
Q_PAH = (0.47, 1.12, 1.77, 2.50, 3.19, 3.90, 4.58)
U_MIN = (
    0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.8, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 8.0, 12.0, 15.0, 20.0, 25.0,
)  # fmt: skip


@dataclass(frozen=True)
class NebularLibrary:
    """Lines and continuum of gas around young stars, per solar mass formed.

    Attributes:
        age: of the stars, increasing [Gyr]; linear interpolation in log(age) between them, none beyond the last
        log_u: log10 of the ionisation parameter, increasing
        spectra: photon-weighted pixel means, (log_u, metallicity, age, pixel) [Lsun/A per Msun formed]; the gas has the
            stars' metallicity
        energy: the same light in cells of energy, (log_u, metallicity, age, cell) [Lsun per Msun formed], or None
        stars: the light that such gas leaves of the stars in it, (metallicity, age, pixel) [Lsun/A per Msun formed]: all stars
            of these ages have gas around them, in a birth cloud or not, and these are the table's own first ages. None: stars
            in birth clouds have gas, and it takes all of their Lyman continuum
        stars_energy: that light in cells of energy, or None
    """

    what: ClassVar[str] = "gas"
    age: Float[np.ndarray, " age"]
    log_u: Float[np.ndarray, " log_u"]
    spectra: Float[np.ndarray, "log_u metallicity age pixel"]
    energy: Float[np.ndarray, "log_u metallicity age cell"] | None = None
    stars: Float[np.ndarray, "metallicity age pixel"] | None = None
    stars_energy: Float[np.ndarray, "metallicity age cell"] | None = None

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Values of parameters, by name, between which the library can be interpolated."""
        return {"log_u": _ends(self.log_u)}

    @property
    def columns(self) -> Float[np.ndarray, "log_u metallicity age column"]:
        """Spectra and, where they are there, the cells of energy after them."""
        return beside(self.spectra, self.energy)

    def over(self, pixels: Callable[[np.ndarray], np.ndarray]) -> NebularLibrary:
        """Return the same over some of its pixels."""
        return replace(self, spectra=pixels(self.spectra), stars=None if self.stars is None else pixels(self.stars))

    def with_energy(self, shares: Float[np.ndarray, "pixel cell"] | None) -> NebularLibrary:
        """Return the same with all light in cells of energy (see `nodes_of_energy`), or without."""
        if shares is None:
            return replace(self, energy=None, stars_energy=None)
        stars = None if self.stars is None else (self.stars @ shares).astype(np.float32)
        return replace(self, energy=(self.spectra @ shares).astype(np.float32), stars_energy=stars)


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

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Values of parameters, by name, between which the library can be interpolated."""
        return {"u_min": _ends(self.u_min), "q_pah": _ends(self.q_pah)}

    def over(self, pixels: Callable[[np.ndarray], np.ndarray]) -> DustLibrary:
        """Return the same over some of its pixels."""
        return replace(self, spectra=pixels(self.spectra))


@dataclass(frozen=True)
class TorusLibrary:
    """Spectra of the dusty torus around an active nucleus, each for a luminosity of one (Nenkova et al. 2008).

    Attributes:
        tau: optical depth of one of its clouds at 5500 A, increasing
        spectra: (tau, pixel) [1/A]; most of a torus' light can lie redward of the pixels
        luminosity: of the stars, bolometric, which the torus' is given as a fraction of, (metallicity, age) [Lsun per Msun formed]
    """

    what: ClassVar[str] = "an active nucleus' torus"
    tau: Float[np.ndarray, " tau"]
    spectra: Float[np.ndarray, "tau pixel"]
    luminosity: Float[np.ndarray, "metallicity age"]

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Values of parameters, by name, between which the library can be interpolated."""
        return {"tau_agn": _ends(self.tau)}

    def over(self, pixels: Callable[[np.ndarray], np.ndarray]) -> TorusLibrary:
        """Return the same over some of its pixels."""
        return replace(self, spectra=pixels(self.spectra))


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


def beside(
    pixels: Float[np.ndarray, "*batch pixel"], cells: Float[np.ndarray, "*batch cell"] | None
) -> Float[np.ndarray, "*batch column"]:
    """Return light on pixels and, where it is there, the same in cells of energy after it."""
    return pixels if cells is None else np.concatenate([pixels, cells], -1)


def hat(nodes: Float[np.ndarray, " node"], value: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch node"]:
    """Return weights of linear interpolation between a library's nodes, of the outermost beyond them."""
    x = torch.as_tensor(nodes, dtype=value.dtype)
    below = ((value.unsqueeze(-1) - x[:-1]) / (x[1:] - x[:-1])).clamp_(0, 1)
    one = value.new_ones(*value.shape, 1)  # also where a fixed value is the library's only one
    return torch.cat([one, below], -1) - torch.cat([below, torch.zeros_like(one)], -1)


def _ends(nodes: Float[np.ndarray, " node"]) -> tuple[float, float]:
    return float(nodes[0]), float(nodes[-1])
