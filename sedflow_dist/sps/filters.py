"""Photometric bands on a grid of logarithmic pixels: from pixel-averaged spectra to AB fluxes at any redshift.

In: names of `speclite` filters or curves of one's own, the pixel edges [A] of an SSP table, the largest redshift. Out: weights W
such that the flux in band b is sum_k W[b, k](z) L[k] for photon-weighted pixel means L of the rest-frame spectrum.

Source: AB maggies as `speclite` defines them (photon-weighted; Hogg et al. 2002, astro-ph/0210394, equation 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import speclite.filters
from jaxtyping import Float, Int

from sedflow_dist.curves import Curve
from sedflow_dist.magnitudes import JANSKY_PER_MAGGY

if TYPE_CHECKING:
    from sedflow_dist.sps.components import Foreground

#: AB zero point as f_lambda lambda^2 [erg/s/cm2 A] (c in A/s; a jansky is 1e-23 erg/s/cm2/Hz).
AB_FLUX = JANSKY_PER_MAGGY * 1e-23 * 2.99792458e18
_SHIFTS_PER_PIXEL = 2
_BUMP_ENDS_A, _STEEP_BELOW_A = 2400.0, 1700.0
#: Where a band's response is below this share of its peak, and as far as that from its ends in ln(lambda), it leaks.
_LEAK, _SLOPE = 0.01, 0.1
#: Nodes of a part of a band, at least and per e-fold: redward of the bump, with the bump, with what lies blueward of it.
_OF_BULK = (4, 8), (6, 16), (9, 26)
_OF_LEAKS = (3, 6), (4, 9), (5, 14)
#: No band that ends before sees a galaxy: our own hydrogen is in the way. Its wavelengths are nanometres, or microns.
_SHORTEST_A = 912.0
#: Steps in ln(wavelength) between which 1 / wavelength is linear to 1e-6.
_FINE = 0.001

#: A band as surveys and models name it: speclite's name, or a curve.
Named = str | Curve


@dataclass(frozen=True)
class Band:
    """A filter response [dimensionless], linear between its samples in wavelength [A]."""

    name: str
    wavelength: Float[np.ndarray, " sample"]
    response: Float[np.ndarray, " sample"]

    @classmethod
    def load(cls, band: str | Curve) -> Band:
        """Load a band by its `speclite` name, for example ``sdss2010-r``, or from a curve.

        Raises:
            ValueError: speclite has no such band.
        """
        if not isinstance(band, str):
            return cls.of(band)
        try:
            if "." in band or "/" in band:  # speclite would read a file
                raise ValueError
            response = speclite.filters.load_filter(band)
        except ValueError as error:
            families = ", ".join(speclite.filters.filter_group_names)
            raise ValueError(
                f"no band named {band!r:.60}; speclite's families are {families}; a response curve is given by its path"
            ) from error
        return cls(band, np.asarray(response.wavelength, float), np.asarray(response.response, float))

    @classmethod
    def of(cls, curve: Curve) -> Band:
        """Make a band of a curve; what counts energy responds to photons by their energy, that is as 1 / wavelength."""
        lam, response = np.array(curve.wavelength), np.array(curve.response)
        if curve.detector == "energy":
            n = int(np.ceil(np.log(lam[-1] / lam[0]) / _FINE))
            fine = np.union1d(lam, np.geomspace(lam[0], lam[-1], n + 1)[1:-1])
            lam, response = fine, np.interp(fine, lam, response) * (lam[0] / fine)
        return cls(curve.name, lam, response)

    @property
    def range(self) -> tuple[float, float]:
        """First and last wavelength [A] with any response."""
        used = np.flatnonzero(self.response > 0)
        return self.wavelength[max(used[0] - 1, 0)], self.wavelength[min(used[-1] + 1, len(self.wavelength) - 1)]

    @property
    def effective_wavelength(self) -> float:
        """Photon-weighted mean wavelength [A]."""
        end = self.wavelength[-1:]
        return float(self.moment(end, 2)[0] / self.moment(end, 1)[0])

    @property
    def pivot(self) -> float:
        """Pivot wavelength [A]: the mean f_nu of any source is its mean f_lambda times its square over c."""
        end = self.wavelength[-1:]
        return float(np.sqrt(self.moment(end, 1)[0] / self.moment(end, -1)[0]))

    def moment(self, wavelength: Float[np.ndarray, "*batch"], power: int) -> Float[np.ndarray, "*batch"]:
        """Return the integral of R(lambda) lambda^power d lambda from the blue end to ``wavelength``: exact."""
        x, r = self.wavelength, self.response
        slope = np.diff(r) / np.diff(x)
        offset = r[:-1] - slope * x[:-1]

        def antiderivative(lam: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
            first = np.log(lam) if power == -1 else lam ** (power + 1) / (power + 1)
            return a * first + b * lam ** (power + 2) / (power + 2)

        full = antiderivative(x[1:], offset, slope) - antiderivative(x[:-1], offset, slope)
        total = np.concatenate([[0.0], np.cumsum(full)])
        lam = np.clip(wavelength, x[0], x[-1])
        i = np.clip(np.searchsorted(x, lam, side="right") - 1, 0, len(x) - 2)
        return total[i] + antiderivative(lam, offset[i], slope[i]) - antiderivative(x[i], offset[i], slope[i])

    def segments(self, stretch: float) -> list[Segment]:
        """Cut the band at the ends of its bulk, where it leaks only, and place nodes on each part.

        Four Chebyshev nodes in ln(lambda), and eight more per e-fold that the part spans; about twice as many where 1 + z up to
        ``stretch`` brings dust's bump at 2175 A into it, three times where it brings what lies blueward of the bump, where
        curves of dust steepen. Of what leaks, a thousandth of the light or so, three nodes and six per e-fold tell enough.
        """
        lo, hi = self.range
        bulk = self.wavelength[self.response > _LEAK * self.response.max()][[0, -1]]
        # A slope at the end of the bulk is no leak.
        inner = sorted({end for end in bulk if min(np.log(end / lo), np.log(hi / end)) > _SLOPE})
        return [
            Segment.of(start, end, stretch, leaks=not bulk[0] < np.sqrt(start * end) < bulk[1])
            for start, end in pairwise((lo, *inner, hi))
        ]


@dataclass(frozen=True)
class Segment:
    """A part of a band between two wavelengths [A], and the nodes [A] of a polynomial in ln(lambda) on it."""

    start: float
    end: float
    nodes: Float[np.ndarray, " node"]

    @classmethod
    def of(cls, start: float, end: float, stretch: float, leaks: bool) -> Segment:
        """Place Chebyshev nodes: see `Band.segments`."""
        bluest = start / stretch
        steepness = 0 if bluest >= _BUMP_ENDS_A else 1 if bluest >= _STEEP_BELOW_A else 2
        first, per_e_fold = (_OF_LEAKS if leaks else _OF_BULK)[steepness]
        lo, hi = np.log(start), np.log(end)
        n = first + int(np.ceil(per_e_fold * (hi - lo)))
        return cls(start, end, np.exp(0.5 * (lo + hi) - 0.5 * (hi - lo) * np.cos(np.pi * (np.arange(n) + 0.5) / n)))


def blue_shifted(band: Named, redshift: float) -> Named:
    """Return a band with all wavelengths divided by 1 + ``redshift``: what it sees of galaxies there, in their rest frame."""
    if redshift == 0:
        return band
    found = Band.load(band)
    return Curve(
        name=f"{found.name} blue-shifted by {1 + redshift:g}", wavelength=tuple((found.wavelength / (1 + redshift)).tolist()),
        response=tuple(found.response.tolist()),
    )  # fmt: skip


@dataclass(frozen=True)
class BandWeights:
    """Weights of the pixels of a spectrum at a ladder of redshifts equally spaced in ln(1+z).

    ``table``: multiply a spectrum [Lsun/A] with it to get maggies, up to the geometric factor
    1 / (4 pi d_L^2 (1+z)) and Lsun; ``step``: spacing of the ladder in ln(1+z).
    """

    bands: tuple[Band, ...]
    edges: Float[np.ndarray, " edge"]
    table: Float[np.ndarray, "shift band edge-1"]
    step: float

    @classmethod
    def build(
        cls,
        bands: Sequence[Named],
        edges: Float[np.ndarray, " edge"],
        z_max: float,
        foregrounds: Sequence[Foreground] = (),
    ) -> BandWeights:
        """Integrate each band over each pixel, exactly, at each redshift of the ladder (0 to ``z_max``).

        What ``foregrounds`` transmit of a pixel at a redshift is part of its weight.
        """
        pixel = np.log(edges[-1] / edges[0]) / (len(edges) - 1)
        step = pixel / _SHIFTS_PER_PIXEL
        n_shift = int(np.ceil(np.log1p(z_max) / step)) + 2
        observed = edges * np.exp(step * np.arange(n_shift))[:, None]
        loaded = tuple(map(Band.load, bands))
        rows = []
        for band in loaded:
            hi = band.range[1]
            zero_point = AB_FLUX * band.moment(np.array([hi]), -1)[0]
            rows.append(np.diff(band.moment(observed, 1), axis=1) / zero_point)
        table = np.stack(rows, axis=1)
        for foreground in foregrounds:
            table *= foreground.transmission(edges, np.expm1(step * np.arange(n_shift)))[:, None]
        return cls(loaded, edges, table, step)

    def with_smooth_factor(self, breaks: Sequence[float]) -> SmoothFactorWeights:
        """Weights for a spectrum times a factor that is smooth between rest wavelengths ``breaks`` [A], increasing.

        On each piece the factor is interpolated in ln(lambda) by the polynomial through Chebyshev nodes of the band, so the
        flux in a band is a sum over nodes of factor(node) times what the table gives of the spectrum alone.
        """
        centre = 0.5 * (np.log(self.edges[1:]) + np.log(self.edges[:-1]))
        observed = centre + self.step * np.arange(len(self.table))[:, None]
        piece_of_pixel = np.searchsorted(np.log(breaks), centre, side="right")
        stretch = float(np.exp(self.step * (len(self.table) - 1)))
        tables, nodes, pieces, band_index = [], [], [], []
        for i, band in enumerate(self.bands):
            segments = band.segments(stretch)
            of_pixel = np.searchsorted(np.log([segment.start for segment in segments[1:]]), observed, side="right")
            for number, segment in enumerate(segments):
                x, inside = np.log(segment.nodes), np.clip(observed, np.log(segment.start), np.log(segment.end))
                n = len(x)
                cardinal = [
                    np.prod([(inside - x[k]) / (x[j] - x[k]) for k in range(n) if k != j], axis=0) for j in range(n)
                ]
                for piece in range(len(breaks) + 1):
                    weights = np.where((of_pixel == number) & (piece_of_pixel == piece), self.table[:, i], 0.0)
                    if weights.any():
                        tables += [weights * c for c in cardinal]
                        nodes.append(segment.nodes)
                        pieces += [piece] * n
                        band_index += [i] * n
        arrays = np.concatenate(nodes), np.array(pieces), np.array(band_index)
        return SmoothFactorWeights(np.stack(tables, axis=1), *arrays)


@dataclass(frozen=True)
class SmoothFactorWeights:
    """Band weights per node of a smooth factor: ``table``, and what each node is.

    ``wavelength``: observed [A]; ``piece``: how many breaks lie below the piece that the node stands for; ``band``: its
    band's index.
    """

    table: Float[np.ndarray, "shift node pixel"]
    wavelength: Float[np.ndarray, " node"]
    piece: Int[np.ndarray, " node"]
    band: Int[np.ndarray, " node"]


def reach(bands: Sequence[Named], edges: Float[np.ndarray, " edge"]) -> float:
    """Return the redshift up to which pixels between ``edges`` [A] serve all the bands."""
    return float(min(Band.load(band).range[0] for band in bands) / edges[0] - 1)


def rest_range(bands: Sequence[Named], z_max: float, edges: Float[np.ndarray, " edge"]) -> tuple[float, float]:
    """Return the rest-frame wavelengths [A] that the bands see for redshifts from 0 to ``z_max``.

    Raises:
        ValueError: a band sees more than the pixels between ``edges`` [A]; names it.
    """
    ranges = [(band.name, *band.range) for band in map(Band.load, bands)]
    for given, (name, lo, hi) in zip(bands, ranges, strict=True):
        if edges[0] * (1 + z_max) > lo or edges[-1] < hi or hi < _SHORTEST_A:
            far = not isinstance(given, str) and (hi < _SHORTEST_A or lo > edges[-1])  # speclite's are in angstroms
            hint = " (are the band's wavelengths in angstroms?)" if far else ""
            raise ValueError(
                f"band {name} needs rest wavelengths {lo / (1 + z_max):.0f}-{hi:.0f} A for z = 0 to {z_max:g}; "
                f"the SSP table holds {edges[0]:.0f}-{edges[-1]:.0f} A{hint}"
            )
    return min(lo for _, lo, _ in ranges) / (1 + z_max), max(hi for _, _, hi in ranges)
