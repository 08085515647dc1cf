"""SSP tables and their libraries from what FSPS computes and from the files that it reads: samples in, pixels out.

`FSPSParts` is what one process can say of one metallicity, on FSPS's own wavelengths; `table` puts those of all metallicities
together, so it does not matter which process made which. Source: FSPS 4: add_nebular.f90, add_dust.f90, agn_dust.f90 and
sps_setup.f90.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from sedflow_dist.sps.fsps_engine import FSPS, SPEED_OF_LIGHT, Nebula
from sedflow_dist.sps.fsps_home import GRID_SHAPE
from sedflow_dist.sps.libraries import Q_PAH, U_MIN, DustLibrary, NebularLibrary, TorusLibrary
from sedflow_dist.sps.ssp import PIXEL, SSPTable, pixel_edges, pixel_means

#: FSPS's nodes of log U, and the age [Gyr] of the oldest stars around which it has gas.
LOG_U = (-4.0, -3.5, -3.0, -2.5, -2.0, -1.5, -1.0)
GAS_AGE_GYR = 0.02
#: FSPS lets the gas take all light at its samples up to here [A].
_LYMAN_SAMPLES_A = 912.0
#: The dust's files, one a percentage of PAHs, with two columns a lowest intensity.
_DUST = "dust/dustem/DL07_MW3.1_{}0.dat"
_TORUS = "dust/Nenkova08_y010_torusg_n10_q2.0.dat"
_N_TAU = 9
#: Of all that FSPS tabulates.
SIZES = dict(zip(("metallicity", "age", "wavelength"), GRID_SHAPE, strict=True)) | {
    "log_u": len(LOG_U), "gas_age": 47, "kind": 2, "q_pah": len(Q_PAH), "u_min": len(U_MIN), "tau": _N_TAU,
}  # fmt: skip
_TINY = 1e-30  # FSPS adds it before it takes the logarithm of a torus' spectrum


def gas_ages(age: Float[np.ndarray, " age"]) -> Float[np.ndarray, " gas_age"]:
    """Return those of FSPS's ages [Gyr] at which it has gas around the stars."""
    return age[age <= GAS_AGE_GYR]


def gas(
    fsps: FSPS, metallicity: float, spectra: Float[np.ndarray, "age wavelength"]
) -> Float[np.ndarray, "log_u gas_age wavelength"]:
    """Return the light of gas [Lsun/A per Msun formed] around the stars of a metallicity, which the gas shares.

    Args:
        spectra: of these stars without gas, as `FSPS.ssp_grid` gives them

    Raises:
        RuntimeError: FSPS has gas where it is not expected, or light that is neither the stars' nor gas
    """
    n = len(gas_ages(fsps.age))
    left, found = stars_in_gas(fsps.wavelength, spectra[:n]), []
    for log_u in LOG_U:
        both, _ = fsps.ssp_grid(metallicity, Nebula(log_u))
        light = both[:n] - left
        if not np.array_equal(both[n:], spectra[n:]) or (light < -1e-9 * both[:n]).any():
            raise RuntimeError(
                f"FSPS has other light at metallicity {metallicity:g} and log U = {log_u:g} than that of gas around stars younger "
                f"than {GAS_AGE_GYR * 1e3:g} Myr and of stars: this is another FSPS than the one that this program knows"
            )
        found.append(np.maximum(light, 0))
    return np.stack(found)


def stars_in_gas(wavelength: Float[np.ndarray, " wavelength"], spectra: np.ndarray) -> np.ndarray:
    """Return what gas leaves of the light of stars in it, (..., wavelength)."""
    return np.where(wavelength <= _LYMAN_SAMPLES_A, 0.0, spectra)


def dust_spectra(
    home: str | Path, wavelength: Float[np.ndarray, " wavelength"]
) -> Float[np.ndarray, "2 q_pah u_min wavelength"]:
    """Return the dust's emission as FSPS has it on its own wavelengths [A], per dust mass and frequency, in any unit.

    Kinds: dust heated by u_min alone, and by a power law of intensities from u_min to 10^6.
    """
    found = np.zeros((len(Q_PAH), 2 * len(U_MIN), len(wavelength)))
    first = np.searchsorted(wavelength, 1e4, side="right") - 1  # FSPS begins at its sample before one micron
    for i in range(len(Q_PAH)):
        table = _numbers(Path(home) / _DUST.format(i), 2).reshape(-1, 1 + 2 * len(U_MIN))
        found[i, :, first:] = _linear(wavelength[first:], table[:, 0] * 1e4, table[:, 1:].T)
    return np.moveaxis(found.reshape(len(Q_PAH), len(U_MIN), 2, -1), 2, 0)


def torus_spectra(
    home: str | Path, wavelength: Float[np.ndarray, " wavelength"]
) -> tuple[Float[np.ndarray, " tau"], Float[np.ndarray, "tau wavelength"]]:
    """Return optical depths, and the torus' spectra per luminosity [1/Hz] as FSPS has them on its own wavelengths [A]."""
    numbers = _numbers(Path(home) / _TORUS, 3)
    tau, table = numbers[:_N_TAU], numbers[_N_TAU:].reshape(-1, 1 + _N_TAU)
    found = np.zeros((len(tau), len(wavelength)))
    first, last = (np.searchsorted(wavelength, end, side="right") for end in table[[0, -1], 0])
    inside = slice(max(first - 1, 0), last)
    log = _linear(np.log10(wavelength[inside]), np.log10(table[:, 0]), np.log10(table[:, 1:].T + _TINY))
    found[:, inside] = np.maximum(10.0**log - _TINY, 0)
    return tau, found


def table(
    wavelength: Float[np.ndarray, " wavelength"],
    age: Float[np.ndarray, " age"],
    metallicity: Sequence[float] | Float[np.ndarray, " metallicity"],
    grids: Sequence[tuple[Float[np.ndarray, "age wavelength"], Float[np.ndarray, " age"]]],
    provenance: dict[str, Any],
    pixel: float = PIXEL,
) -> SSPTable:
    """Put grids of `FSPS.ssp_grid`, one a metallicity, on logarithmic pixels.

    Each grid is averaged on its own, so it does not matter which process made it, nor in which order.

    Args:
        wavelength, age: of the grids, as `FSPS` has them [A], [Gyr]
        metallicity: mass fractions, increasing
        grids: (spectra, surviving masses) of each metallicity
        provenance: as `FSPS.provenance` gives it
        pixel: width in ln(lambda)
    """
    edges = pixel_edges(pixel)
    spectra = np.stack([pixel_means(wavelength, grid, edges).astype(np.float32) for grid, _ in grids])
    surviving = np.stack([mass for _, mass in grids]).astype(np.float32)
    facts = {**provenance, "pixel_ln_wavelength": pixel}
    return SSPTable(edges, np.asarray(age), np.asarray(metallicity, float), spectra, surviving, facts)


def with_gas(
    table: SSPTable,
    wavelength: Float[np.ndarray, " wavelength"],
    spectra: Sequence[np.ndarray],
    light: Sequence[np.ndarray],
) -> SSPTable:
    """Return a table with the library of gas: spectra of stars (age, wavelength) and `gas` of each metallicity."""
    age = gas_ages(table.age)
    stars = [_pixels(wavelength, stars_in_gas(wavelength, grid[: len(age)]), table) for grid in spectra]
    found = np.stack([_pixels(wavelength, one, table) for one in light], axis=1)
    return replace(table, nebular=NebularLibrary(age, np.array(LOG_U), found, stars=np.stack(stars)))


def with_dust(
    table: SSPTable,
    wavelength: Float[np.ndarray, " wavelength"],
    per_mass: Float[np.ndarray, "2 q_pah u_min wavelength"],
) -> SSPTable:
    """Return a table with the library of dust: `dust_spectra`."""
    power = _integral(wavelength, per_mass)
    spectra = _pixels(wavelength, per_mass / power[..., None] * SPEED_OF_LIGHT / wavelength**2, table)
    return replace(table, dust=DustLibrary(np.array(U_MIN), np.array(Q_PAH), power / power.max(), spectra))


def with_torus(
    table: SSPTable,
    wavelength: Float[np.ndarray, " wavelength"],
    tau: Float[np.ndarray, " tau"],
    per_hertz: Float[np.ndarray, "tau wavelength"],
    luminosity: Sequence[Float[np.ndarray, " age"]],
) -> SSPTable:
    """Return a table with the library of tori: `torus_spectra`, and `FSPS.ssp_luminosity` of each metallicity."""
    spectra = _pixels(wavelength, per_hertz * SPEED_OF_LIGHT / wavelength**2, table)
    return replace(table, torus=TorusLibrary(tau, spectra, np.stack(luminosity).astype(np.float32)))


def _pixels(wavelength: np.ndarray, spectra: np.ndarray, table: SSPTable) -> np.ndarray:
    return pixel_means(wavelength, spectra, table.edges).astype(np.float32)


def _integral(wavelength: np.ndarray, per_hertz: Float[np.ndarray, "*batch wavelength"]) -> Float[np.ndarray, "*batch"]:
    """Integrate over frequency as FSPS does."""
    return np.asarray(-np.trapezoid(per_hertz, SPEED_OF_LIGHT / wavelength))


def _numbers(path: Path, header: int) -> Float[np.ndarray, " number"]:
    """Return the numbers after a file's header lines, in Fortran's notation: ``3*0.`` is three of them.

    Raises:
        ValueError: something else is in it; names the file.
    """
    try:
        found: list[float] = []
        for token in path.read_text().split("\n", header)[header].split():
            times, star, value = token.rpartition("*")
            found += [float(value)] * (int(times) if star else 1)
        return np.array(found)
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path} is not what FSPS reads: {error}") from None


def _linear(x: np.ndarray, known: np.ndarray, values: Float[np.ndarray, "row known"]) -> Float[np.ndarray, "row x"]:
    """Interpolate rows linearly, and beyond the ends as well: FSPS does."""
    left = np.clip(np.searchsorted(known, x, side="right") - 1, 0, len(known) - 2)
    t = (x - known[left]) / (known[left + 1] - known[left])
    return values[:, left] * (1 - t) + values[:, left + 1] * t
