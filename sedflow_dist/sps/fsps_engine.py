"""FSPS itself, one per process: a metallicity in, its SSPs out; or a galaxy's parameters in, its spectrum out.

Spectra are in Lsun/A on FSPS's own wavelengths [A]; ages in Gyr; a metallicity is a mass fraction. FSPS is a Fortran
program with global state that ends its process where something is wrong, with exit status 0, and that extrapolates or
goes on with NaN where it should not: everything is checked before it is asked.

Source: FSPS 4 (Conroy, Gunn & White 2009; Conroy & Gunn 2010) through python-fsps 0.5.0.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from jaxtyping import Float

from sedflow_dist.sps import cosmology, histories
from sedflow_dist.sps.components import Composition
from sedflow_dist.sps.filters import AB_FLUX, Band
from sedflow_dist.sps.fsps_home import check_home
from sedflow_dist.sps.galaxy_model import check
from sedflow_dist.sps.stars import BIRTH_CLOUD_AGE_GYR

#: The solar metallicity with which PROVABGS turns a mass fraction into FSPS's logzsol.
PROVABGS_Z_SOLAR = 0.019
#: The speed of light inside FSPS [A/s]. `get_spectrum(peraa=True)` of python-fsps has 3e18 instead: 0.07 % more light.
SPEED_OF_LIGHT = 2.9979e18
#: What FSPS is asked for: PROVABGS's parameters, whatever other components a galaxy model can have.
SPACE = Composition.of().space
#: FSPS's numbers of initial mass functions.
IMFS = {"Salpeter": 0, "Chabrier": 1, "Kroupa": 2}
_YOUNGEST_CLOUDS_GYR = 10**-3.4  # FSPS stops at dust_tesc <= 5.5, in log10(yr)


@dataclass(frozen=True)
class Nebula:
    """Emission of the gas around young stars (Byler et al. 2017), as FSPS tabulates it.

    Attributes:
        log_u: log10 of the ionisation parameter; -4 to -1
        log_z_gas: log10(Z/Zsun) of the gas, -2 to 0.2; None: that of the stars. With a number, an SSP table reproduces
            FSPS exactly; with None it is exact at its metallicities and linear between them, which FSPS is not
    """

    log_u: float = -2.0
    log_z_gas: float | None = None

    def __post_init__(self) -> None:
        if not -4 <= self.log_u <= -1:
            raise ValueError(f"log_u = {self.log_u} is outside [-4, -1], where FSPS tabulates nebulae")
        if self.log_z_gas is not None and not -2 <= self.log_z_gas <= 0.2:
            raise ValueError(f"log_z_gas = {self.log_z_gas} is outside [-2, 0.2], where FSPS tabulates nebulae")


@dataclass(frozen=True)
class FSPSSettings:
    """What can be chosen; fixed are dust_type=4 and no emission by dust. The defaults are PROVABGS's.

    Attributes:
        z_solar: mass fraction that is FSPS's logzsol = 0. FSPS knows [Z/H] only. PROVABGS feeds it log10(Z / 0.019), so
            with 0.019 the same gamma1 and gamma2 ask for the same [Z/H] as there. MIST in FSPS 4 has Zsun = 0.0185
            (0.0142 in FSPS 3, which PROVABGS ran on): with 0.0185 metallicities are the isochrones' own mass fractions,
            0.012 dex lower for the same stars
        birth_cloud_age: stars younger than this lie in birth clouds [Gyr]. FSPS tells the *nodes* of its age grid apart
            (every 0.05 dex) and interpolates between them: a star of 10.07 Myr is mostly in its cloud
        nebula: emission of gas; None: none
        imf: Salpeter (1955), Chabrier (2003) or Kroupa (2001), from 0.08 to 120 Msun
    """

    z_solar: float = PROVABGS_Z_SOLAR
    birth_cloud_age: float = BIRTH_CLOUD_AGE_GYR
    nebula: Nebula | None = None
    imf: str = "Chabrier"

    def __post_init__(self) -> None:
        if self.imf not in IMFS:
            raise ValueError(f"imf = {self.imf!r} is none of {', '.join(IMFS)}")
        if not 0.01 <= self.z_solar <= 0.03:
            raise ValueError(f"z_solar = {self.z_solar} is outside [0.01, 0.03]; it is a mass fraction")
        if not _YOUNGEST_CLOUDS_GYR <= self.birth_cloud_age <= 13:
            raise ValueError(
                f"birth_cloud_age = {self.birth_cloud_age} Gyr is outside [{_YOUNGEST_CLOUDS_GYR:.1g}, 13]"
            )


PROVABGS = FSPSSettings()
#: provabgs: metallicities mean what they mean there; mist: they are the isochrones' own mass fractions.
PRESETS = {"provabgs": PROVABGS, "mist": FSPSSettings(z_solar=0.0185)}


class FSPS:
    """The FSPS of this process.

    Args:
        settings: what every spectrum is computed with
        home: SPS_HOME; the environment's if None
        log: file that says what FSPS is working on and takes what it prints meanwhile, for who finds the process dead

    Raises:
        RuntimeError: this process has its FSPS already: two would silently mix their states
        ValueError: SPS_HOME is not fit for use; with the remedy
    """

    def __init__(
        self, settings: FSPSSettings = PROVABGS, home: str | None = None, log: str | Path | None = None
    ) -> None:
        path = os.environ.get("SPS_HOME") if home is None else str(home)
        problems = check_home(path)
        if path is None or problems:
            raise ValueError("\n".join(problems))
        os.environ["SPS_HOME"] = path  # read by `import fsps` and by the Fortran
        import fsps
        from fsps._fsps import driver

        if driver.is_setup:
            raise RuntimeError("this process has an FSPS already, and its state is global: use another process")
        _keep_freed_memory()
        self.settings, self.home = settings, path
        self._log = None if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        with self._working_on(f"setting up on {path}"):
            self._population = fsps.StellarPopulation(
                zcontinuous=1, imf_type=IMFS[settings.imf], sfh=0, dust_type=4, add_dust_emission=False,
                dust_tesc=round(float(np.log10(settings.birth_cloud_age)) + 9, 6),
            )  # fmt: skip
        self._log_z = np.log10(self._population.zlegend / self._population.solar_metallicity)
        self._libraries = [name.decode().strip() for name in self._population.libraries]
        self.wavelength: Float[np.ndarray, " wavelength"] = self._population.wavelengths
        self._to_per_angstrom = SPEED_OF_LIGHT / self.wavelength**2
        #: ages of FSPS's SSPs [Gyr]
        self.age: Float[np.ndarray, " age"] = 10.0 ** (self._population.ssp_ages - 9)
        #: their metallicities (mass fraction)
        self.metallicity: Float[np.ndarray, " metallicity"] = settings.z_solar * 10.0**self._log_z

    def __reduce__(self) -> NoReturn:
        raise TypeError("FSPS cannot be pickled: its state is in Fortran; make one in the other process")

    @property
    def provenance(self) -> dict[str, Any]:
        """What the spectra are made with, in plain values."""
        nebula = self.settings.nebula
        return {
            "code": "FSPS", "carried_by": f"python-fsps {importlib.metadata.version('fsps')}",
            "isochrones": self._libraries[0], "stellar_library": self._libraries[1], "imf": self.settings.imf,
            "z_solar": self.settings.z_solar, "z_solar_of_isochrones": round(self._population.solar_metallicity, 6),
            "nebular_emission": False if nebula is None else asdict(nebula),
            "surviving": "stars and remnants", "birth_cloud_rule": "node",
        }  # fmt: skip

    # -- simple stellar populations ---------------------------------------------------------------------------------

    def ssp_grid(
        self, metallicity: float, nebula: Nebula | None = None
    ) -> tuple[Float[np.ndarray, "age wavelength"], Float[np.ndarray, " age"]]:
        """Return spectra [Lsun/A] and surviving masses, per Msun formed, at all of `age`.

        The same in every process, whatever was asked before. Surviving mass includes remnants. ``nebula``: in the place of the
        settings'.
        """
        with self._working_on(f"SSPs of metallicity {metallicity:g}" + (f" with {nebula}" if nebula else "")):
            spectra = self._luminosity(0.0, self._log_metallicity(metallicity), 0.0, 0.0, 0.0, nebula=nebula)
            surviving = np.array(self._population.stellar_mass)
        good = np.isfinite(spectra).all(1) & (spectra > 0).all(1) & (surviving > 0) & (surviving < 1.01)
        if not good.all():
            raise RuntimeError(
                f"FSPS gives an SSP of age {self.age[np.argmin(good)]:g} Gyr and metallicity {metallicity:g} that is "
                f"not finite and positive: data in {self.home} are bad"
            )
        return spectra, surviving

    def ssp_luminosity(self, metallicity: float) -> Float[np.ndarray, " age"]:
        """Return bolometric luminosities [Lsun per Msun formed] at all of `age`: the isochrones', as FSPS has them."""
        with self._working_on(f"luminosities of metallicity {metallicity:g}"):
            self._luminosity(0.0, self._log_metallicity(metallicity), 0.0, 0.0, 0.0)
            return np.asarray(10.0 ** np.array(self._population.log_lbol))

    def ssp_spectrum(
        self, age: float, metallicity: float, tau_bc: float = 0.0, tau_ism: float = 0.0, n_dust: float = 0.0
    ) -> Float[np.ndarray, " wavelength"]:
        """Return the spectrum [Lsun/A per Msun formed] of one age [Gyr] behind dust."""
        asked = {"age": age, "tau_bc": tau_bc, "tau_ism": tau_ism, "n_dust": n_dust}
        ranges = {"age": (0.0, self.age[-1]), "n_dust": (-10.0, 10.0)}
        for name, value in asked.items():
            lo, hi = ranges.get(name, (0.0, np.inf))
            if not (lo <= value <= hi and np.isfinite(value)):
                raise ValueError(f"{name} = {value:g} is outside [{lo:g}, {hi:g}]")
        with self._working_on(f"an SSP of metallicity {metallicity:g} and {asked}"):
            # FSPS takes an age of 0 for a question about all ages; its youngest SSP holds below its first node.
            log_z = self._log_metallicity(metallicity)
            return self._luminosity(max(age, self.age[0]), log_z, tau_bc, tau_ism, n_dust)

    def _log_metallicity(self, metallicity: float) -> float:
        """log10(Z/Zsun), exactly FSPS's own at its nodes."""
        lo, hi = self.metallicity[0], self.metallicity[-1]
        if not lo * (1 - 1e-9) <= metallicity <= hi * (1 + 1e-9):
            raise ValueError(
                f"metallicity = {metallicity:g} is outside [{lo:.3g}, {hi:.3g}] (mass fraction, z_solar = "
                f"{self.settings.z_solar:g}); FSPS would extrapolate"
            )
        log_z = np.log10(metallicity / self.settings.z_solar)
        nearest = self._log_z[np.argmin(np.abs(self._log_z - log_z))]
        return float(nearest if abs(nearest - log_z) < 1e-9 else log_z)

    def _luminosity(
        self, age: float, log_z: float, tau_bc: float, tau_ism: float, n_dust: float, *, nebula: Nebula | None = None
    ) -> Float[np.ndarray, "*age wavelength"]:
        """[Lsun/A]; converted with FSPS's own speed of light, so that the luminosity of a spectrum is FSPS's."""
        parameters = self._population.params
        parameters["logzsol"] = log_z
        parameters["dust1"], parameters["dust2"], parameters["dust_index"] = tau_bc, tau_ism, n_dust
        nebula = nebula or self.settings.nebula
        parameters["add_neb_emission"] = nebula is not None
        if nebula is not None:
            parameters["gas_logu"] = nebula.log_u
            parameters["gas_logz"] = log_z if nebula.log_z_gas is None else nebula.log_z_gas
        _, per_hertz = self._population.get_spectrum(tage=float(age), peraa=False)
        return per_hertz * self._to_per_angstrom

    # -- galaxies ---------------------------------------------------------------------------------------------------

    def galaxy_spectrum(
        self, theta: Float[np.ndarray, " param"], redshift: float, row: int = 0
    ) -> tuple[Float[np.ndarray, " wavelength"], Float[np.ndarray, " wavelength"]]:
        """Return wavelengths [A] and the rest-frame luminosity [Lsun/A] of a galaxy: one FSPS call a population.

        Args:
            theta: the twelve parameters of PROVABGS's composition (`SPACE`)
            redshift: which sets the age of the Universe
            row: what error messages call this galaxy
        """
        theta = np.asarray(theta, dtype=np.float64)
        _check(theta, redshift, row)
        theta_of = dict(zip(SPACE.names, (float(v) for v in theta), strict=True))
        dust = [theta_of[name] for name in ("tau_bc", "tau_ism", "n_dust")]
        total = np.zeros_like(self.wavelength)
        with self._working_on(f"row {row}: {theta_of} at redshift {redshift}"):
            for mass, age, metallicity in zip(*populations(theta, redshift), strict=True):
                log_z = self._log_metallicity(float(np.clip(metallicity, self.metallicity[0], self.metallicity[-1])))
                total += mass * self._luminosity(max(age, self.age[0]), log_z, *dust)
        return self.wavelength, total * 10 ** theta_of["log_mstar"]

    @contextmanager
    def _working_on(self, what: str) -> Iterator[None]:
        """Name the work in the log, and lead there what Fortran prints meanwhile; a STOP leaves both behind."""
        if self._log is None:
            yield
            return
        os.ftruncate(self._log, 0)
        os.pwrite(self._log, f"{what}\n".encode(), 0)
        os.lseek(self._log, 0, os.SEEK_END)
        saved = os.dup(1), os.dup(2)
        try:
            os.dup2(self._log, 1)
            os.dup2(self._log, 2)
            yield
        finally:
            for stream, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, stream)
                os.close(copy)


def last_words(log: str | Path) -> str:
    """Return what an FSPS that died was working on and what it said, from its ``log``."""
    path = Path(log)
    text = path.read_text(errors="replace") if path.exists() else ""
    work, *said = [line.strip() for line in text.splitlines() if line.strip()] or ["nothing yet"]
    return f"FSPS died on {work}; it said: {' / '.join(said) or 'nothing'}"


def populations(
    theta: Float[np.ndarray, " param"], redshift: float
) -> tuple[Float[np.ndarray, " population"], Float[np.ndarray, " population"], Float[np.ndarray, " population"]]:
    """Return masses (per Msun formed), ages [Gyr] and metallicities of those of a galaxy's populations that have mass.

    In float64 and without tables; `populations.PopulationModel` is the batched version.
    """
    values = SPACE.values(theta)
    beta, gamma, f_burst, t_burst = (values[name] for name in ("beta", "gamma", "f_burst", "t_burst"))
    t_age = float(cosmology.age_gyr(np.asarray(redshift)))
    edges = np.append([t for t in histories.BIN_EDGES_GYR if t < t_age], t_age)
    formed = histories.sfh_cumulative(edges) @ beta
    mass, age = np.diff(formed) / formed[-1], 0.5 * (edges[1:] + edges[:-1])
    if t_burst < t_age:
        mass, age = np.append((1 - f_burst) * mass, f_burst), np.append(age, t_burst)
    lit = mass > 0
    return mass[lit], age[lit], histories.metallicity_basis(age[lit]) @ gamma


def band_fluxes(
    wavelength: Float[np.ndarray, " wavelength"],
    luminosity: Float[np.ndarray, " wavelength"],
    redshift: float,
    bands: Sequence[Band],
) -> Float[np.ndarray, " band"]:
    """Return fluxes [nanomaggies] of a rest-frame spectrum [Lsun/A], linear between its samples: exact."""
    z = np.asarray(redshift)
    factor = cosmology.flux_factor(z, cosmology.comoving_distance_mpc(z))
    observed, density = wavelength * (1 + redshift), luminosity * factor
    slope = np.diff(density) / np.diff(observed)
    offset = density[:-1] - slope * observed[:-1]
    fluxes = []
    for band in bands:
        photons = offset @ np.diff(band.moment(observed, 1)) + slope @ np.diff(band.moment(observed, 2))
        fluxes.append(photons / (AB_FLUX * band.moment(np.array([band.range[1]]), -1)[0]))
    return np.array(fluxes)


def _check(theta: Float[np.ndarray, " param"], redshift: float, row: int) -> None:
    try:
        check(SPACE, torch.as_tensor(theta)[None], torch.as_tensor([redshift], dtype=torch.float64), z_max=20.0)
    except ValueError as error:
        reason = str(error).removeprefix("row 0: ").removesuffix(" (1 of 1 rows are bad)")
        raise ValueError(f"row {row}: {reason}") from None


def _keep_freed_memory() -> None:
    """Have glibc keep freed memory: every call of FSPS frees megabytes and would spend most of its time on page faults.

    Other C libraries have no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_threshold = -1, -3
        mallopt(m_mmap_threshold, 32 << 20)
        mallopt(m_trim_threshold, 128 << 20)
