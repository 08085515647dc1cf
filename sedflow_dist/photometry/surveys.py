"""Surveys: which columns hold what, and how raw columns become fluxes and uncertainties in nanomaggies.

In: columns of a catalog. Out: fluxes, uncertainties, a mask of usable bands and flags. Each survey is one declaration;
a run file may declare its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cdshealpix.nested
import numpy as np
from astropy.coordinates import Latitude, Longitude
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sedflow_dist import magnitudes
from sedflow_dist.photometry.cuts import Cut
from sedflow_dist.photometry.flags import MINIMUM_BANDS, Flag, bits, of_photometry
from sedflow_dist.photometry.photometry import Photometry

_PER_NANOMAGGY = {"nanomaggy": 1.0, "nJy": magnitudes.JANSKY_PER_MAGGY, "maggy": 1e-9}
_MAG = 0.4 * np.log(10)
#: Extinctions that a galaxy may have [mag]: maps scatter about zero by a hundredth, and behind 20 mag, in the plane of the
#: Galaxy, is nothing to be seen. What lies outside is a code for "not known", such as -9, 50 or 99, or another quantity.
_EXTINCTIONS = (-0.01, 20.0)
_R_V = 3.1
_ONE_A_BAND = ("labels", "flux", "error", "extinction", "extinction_per_ebv", "band_flags", "ab_offset", "floor")


class Survey(BaseModel):
    """A survey's photometry. Lists run over the bands; a column of vectors is addressed as ``NAME[i]``.

    Corrections, in this order: extinction, AB offset, calibration floor and model error (both added to the uncertainty
    in quadrature).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="of the survey, in stores and messages")
    bands: tuple[str, ...] = Field(description="speclite names")
    labels: tuple[str, ...] = Field(description="short names, as in the column f_u")
    flux: tuple[str, ...] = Field(description="flux columns")
    error: tuple[str, ...] = Field(description="uncertainty columns")
    error_kind: Literal["ivar", "sigma"] = Field(
        "ivar", description="what uncertainty columns hold: inverse variances or standard deviations"
    )
    unit: Literal["nanomaggy", "nJy", "maggy"] = Field(
        "nanomaggy", description="unit of fluxes and uncertainties; columns that state another are converted to it"
    )
    units: dict[str, str] = Field(
        default_factory=dict,
        description="units of columns, as astropy writes them, instead of those that a file states",
    )
    extinction: tuple[str, ...] | None = Field(None, description="Galactic extinction columns; None: already corrected")
    extinction_kind: Literal["magnitude", "transmission", "ebv"] = Field(
        "magnitude", description="what extinction columns hold: A [mag], the fraction transmitted, or E(B-V) [mag]"
    )
    extinction_per_ebv: tuple[float, ...] | None = Field(None, description="A / E(B-V) of each band, for the kind ebv")
    no_data: float | None = Field(None, description="value of an uncertainty column that says: not observed")
    band_flags: tuple[str, ...] | None = Field(
        None, description="columns that are true, or not 0, where a band is unusable"
    )
    cuts: dict[str, Cut] = Field(default_factory=dict, description="quality cuts by name")
    ab_offset: tuple[float, ...] | None = Field(None, description="added to magnitudes to make them AB [mag]")
    floor: tuple[float, ...] | None = Field(None, description="calibration error added in quadrature [mag]")
    model_error: float | tuple[float, ...] = Field(
        0.025, description="error of the stellar models themselves, fraction of the flux; one number or one a band"
    )
    redshift: str | None = Field("Z", description="redshift column; None: the survey has none, a run file names one")
    ra: str | None = Field("RA", description="right ascension column [deg]; None: no positions")
    dec: str | None = Field("DEC", description="declination column [deg]")
    ids: tuple[str, ...] = Field((), description="identifying columns, integers or text, passed through as they are")
    selection_band: str = Field("r", description="label of the band in which the survey selects")
    colour_limits: tuple[float, float] = Field((-0.5, 3.0), description="neighbouring colours beyond are absurd [mag]")

    @model_validator(mode="after")
    def _check(self) -> Survey:
        n = len(self.bands)
        for field in _ONE_A_BAND:
            values = getattr(self, field)
            if values is not None and len(values) != n:
                raise ValueError(f"survey {self.name}: {field} has {len(values)} entries for {n} bands")
        if isinstance(self.model_error, tuple) and len(self.model_error) != n:
            raise ValueError(f"survey {self.name}: model_error has {len(self.model_error)} entries for {n} bands")
        if not np.all(np.asarray(self.model_error) >= 0):
            raise ValueError(f"survey {self.name}: model_error {self.model_error} is negative")
        if self.selection_band not in self.labels:
            raise ValueError(f"survey {self.name}: selection_band {self.selection_band!r} is not one of {self.labels}")
        if (self.extinction_kind == "ebv") != (self.extinction_per_ebv is not None):
            raise ValueError(f"survey {self.name}: extinction_per_ebv belongs to extinction_kind ebv, and only to it")
        for field in ("labels", "ids"):
            values = getattr(self, field)
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"survey {self.name}: {field} has {twice[0]!r} twice")
        for field, low in (("ab_offset", -np.inf), ("floor", 0), ("extinction_per_ebv", 0)):
            values = np.asarray(getattr(self, field) or 0.0)
            if not np.all(np.isfinite(values) & (values >= low)):
                raise ValueError(f"survey {self.name}: {field} {getattr(self, field)} is not finite, or negative")
        columns = {name.lower() for name in self.expected_units}
        if unused := [name for name in self.units if not {name.lower(), f"{name.lower()}[0]"} & columns]:
            raise ValueError(
                f"survey {self.name}: units name {', '.join(unused)}, whose numbers the survey does not take"
            )
        if n < MINIMUM_BANDS:
            raise ValueError(f"survey {self.name}: {n} bands; at least {MINIMUM_BANDS} are needed")
        return self

    @property
    def required(self) -> tuple[str, ...]:
        """Columns that a catalog must have, as they are addressed, in order, each once."""
        names = [*self.flux, *self.error, *(self.extinction or ()), *(self.band_flags or ()), self.redshift, *self.ids]
        names += [cut.column for cut in self.cuts.values()]
        return tuple(dict.fromkeys(name for name in names if name))

    @property
    def measured(self) -> tuple[str, ...]:
        """The same, without identifiers that are nothing else: columns of numbers."""
        others = self.model_copy(update={"ids": ()}).required
        return tuple(name for name in self.required if name in others)

    @property
    def expected_units(self) -> dict[str, str]:
        """Units in which numbers are taken, as astropy writes them, by column as it is addressed; "": a pure number."""
        error = f"{self.unit}-2" if self.error_kind == "ivar" else self.unit
        extinction = "" if self.extinction_kind == "transmission" else "mag"
        kinds: list[tuple[tuple[str | None, ...], str]] = [
            (self.flux, self.unit), (self.error, error), (self.extinction or (), extinction), ((self.redshift,), ""),
            ((self.ra, self.dec), "deg"),
        ]  # fmt: skip
        return {name: unit for names, unit in kinds for name in names if name}

    @property
    def columns(self) -> tuple[str, ...]:
        """The same, but ``NAME[i]`` counts as ``NAME``."""
        return tuple(dict.fromkeys(name.split("[")[0] for name in self.required))


@dataclass(frozen=True)
class Calibrated:
    """Calibrated photometry of a block of galaxies and its flags, uint32, (galaxy,)."""

    photometry: Photometry
    flags: np.ndarray


def calibrate(
    survey: Survey, flux: np.ndarray, error: np.ndarray, extinction: np.ndarray | None, redshift: np.ndarray,
    unusable: np.ndarray | None = None,
) -> Calibrated:  # fmt: skip
    """Turn raw columns of shape (galaxy, band) into calibrated photometry; bad values are masked and flagged.

    Unusable entries come back as flux 0 and sigma 0 with mask False, so that no NaN travels further. A band that was not
    observed, or that the survey itself calls unusable, is missing and nothing worse; one in which nothing was detected is a
    measurement, whatever its sign.
    """
    flux, error = np.asarray(flux, np.float64), np.asarray(error, np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        sigma = 1 / np.sqrt(error) if survey.error_kind == "ivar" else error
        factor = np.full(flux.shape, 1 / _PER_NANOMAGGY[survey.unit])
        if extinction is not None:
            extinction = np.asarray(extinction, np.float64)
            possible = _possible(survey, extinction)
            if survey.extinction_kind == "transmission":
                factor = factor / extinction
            else:
                factor = factor * np.exp(_MAG * extinction * np.asarray(survey.extinction_per_ebv or 1.0))
            factor = np.where(possible, factor, np.nan)
        if survey.ab_offset is not None:
            factor = factor * np.exp(-_MAG * np.asarray(survey.ab_offset))
        flux, sigma = flux * factor, sigma * factor
        floor = _MAG * np.asarray(survey.floor or 0.0)
        fraction2 = np.asarray(survey.model_error) ** 2 + floor**2
        sigma = np.sqrt(sigma**2 + fraction2 * flux**2)
    with np.errstate(over="ignore"):
        single = flux.astype(np.float32), sigma.astype(np.float32), np.asarray(redshift, np.float64).astype(np.float32)
    flux, sigma, redshift = (x.astype(np.float64) for x in single)  # what float32 cannot hold is no measurement
    good_flux = np.isfinite(flux) & (np.isfinite(factor) & (factor > 0))
    good_error = np.isfinite(sigma) & (sigma > 0) & np.isfinite(error) & (error > 0)
    absent = np.zeros(flux.shape, bool) if unusable is None else np.asarray(unusable, bool)
    if survey.no_data is not None:
        absent = absent | (error == survey.no_data) | (np.isnan(error) & np.isnan(survey.no_data))
    mask = good_flux & good_error & ~absent
    flux, sigma = np.where(mask, flux, 0.0), np.where(mask, sigma, 0.0)
    found = {
        **of_photometry(flux, mask, redshift),
        Flag.BAD_FLUX: (~good_flux & ~absent).any(1),
        Flag.BAD_ERROR: (~good_error & ~absent).any(1),
        Flag.ABSURD_COLOUR: _absurd(flux, mask, survey.colour_limits),
    }
    if extinction is not None:
        found[Flag.BAD_EXTINCTION] = (~possible & ~absent).any(1)
    redshift = np.where(found[Flag.BAD_REDSHIFT], np.nan, redshift)
    return Calibrated(Photometry.of(flux, sigma, redshift, mask), bits(len(flux), found))


def _possible(survey: Survey, extinction: np.ndarray) -> np.ndarray:
    """Whether the extinction of each band (galaxy, band) is one that a galaxy may have; of E(B-V), that in V too."""
    extinctions = [extinction]
    if survey.extinction_kind == "transmission":
        extinctions = [-np.log(extinction) / _MAG]
    elif survey.extinction_per_ebv is not None:
        extinctions = [_R_V * extinction, extinction * np.asarray(survey.extinction_per_ebv)]
    low, high = _EXTINCTIONS
    return np.all([(low <= found) & (found <= high) for found in extinctions], axis=0)


def healpix(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Return the HEALPix pixels of order 29, nested, of positions [deg]; -1 where there is none."""
    good = np.isfinite(ra) & (np.abs(dec) <= 90)
    pixels = np.full(len(ra), -1, np.int64)
    pixels[good] = cdshealpix.nested.lonlat_to_healpix(Longitude(ra[good], "deg"), Latitude(dec[good], "deg"), 29)
    return pixels


def _absurd(flux: np.ndarray, mask: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Rows in which a colour of neighbouring bands with positive fluxes lies outside the limits."""
    colour, known = magnitudes.colours(flux, mask)
    return np.any(known & ((colour < limits[0]) | (colour > limits[1])), axis=1)


_SDSS_BANDS = tuple(f"sdss2010-{b}" for b in "ugriz")

_LEGACY = ("g", "r", "z", "w1", "w2")

SURVEYS = {
    survey.name: survey
    for survey in (
        Survey(
            name="sdss", bands=_SDSS_BANDS, labels=tuple("ugriz"),
            flux=tuple(f"MODELFLUX[{i}]" for i in range(5)), error=tuple(f"MODELFLUX_IVAR[{i}]" for i in range(5)),
            extinction=tuple(f"EXTINCTION[{i}]" for i in range(5)),
            ab_offset=(-0.036, 0.012, 0.010, 0.028, 0.040), floor=(0.05, 0.02, 0.02, 0.02, 0.03),
        ),
        Survey(
            name="nsa", bands=_SDSS_BANDS, labels=tuple("ugriz"),
            flux=tuple(f"NMGY[{i}]" for i in range(2, 7)), error=tuple(f"NMGY_IVAR[{i}]" for i in range(2, 7)),
            ids=("NSAID",),
        ),
        # DR9 and DR10 (legacysurvey.org/dr10/catalogs, .../bitmasks): AB nanomaggies, WISE's too. The redshift is DESI's.
        Survey(
            name="desi-legacy", bands=(*(f"decamDR1-{b}" for b in "grz"), "wise2010-W1", "wise2010-W2"), labels=_LEGACY,
            flux=tuple(f"flux_{b}" for b in _LEGACY), error=tuple(f"flux_ivar_{b}" for b in _LEGACY), no_data=0.0,
            extinction=tuple(f"mw_transmission_{b}" for b in _LEGACY), extinction_kind="transmission",
            ids=("release", "brickid", "objid"), ra="ra", dec="dec", colour_limits=(-2.0, 6.0),
            cuts={
                "bright_star": Cut(column="maskbits", bits=1 << 1), "saturated_or_bad": Cut(column="maskbits", bits=7 << 5),
                "fit_bailed_out": Cut(column="maskbits", bits=1 << 10), "cluster": Cut(column="maskbits", bits=1 << 13),
            },
        ),
        # Object table of DP1. Its ebv is that of Schlegel et al. 1998; A / E(B-V) for it: Schlafly & Finkbeiner 2011, table 6,
        # R_V = 3.1.
        Survey(
            name="rubin", bands=tuple(f"lsst2016-{b}" for b in "ugrizy"), labels=tuple("ugrizy"), unit="nJy",
            flux=tuple(f"{b}_cModelFlux" for b in "ugrizy"), error=tuple(f"{b}_cModelFluxErr" for b in "ugrizy"),
            error_kind="sigma", band_flags=tuple(f"{b}_cModel_flag" for b in "ugrizy"),
            extinction=("ebv",) * 6, extinction_kind="ebv", extinction_per_ebv=(4.145, 3.237, 2.273, 1.684, 1.323, 1.088),
            redshift=None, ids=("objectId",), ra="coord_ra", dec="coord_dec", selection_band="i",
            colour_limits=(-1.0, 6.0),
        ),
    )
}  # fmt: skip


def get(survey: str | Survey) -> Survey:
    """Return the survey of that name."""
    if isinstance(survey, Survey):
        return survey
    if survey not in SURVEYS:
        raise ValueError(f"no survey named {survey!r}; known are {', '.join(SURVEYS)}; a run file may declare another")
    return SURVEYS[survey]
