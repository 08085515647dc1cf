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

from sedflow_dist.flags import MINIMUM_BANDS, Flag

_PER_NANOMAGGY = {"nanomaggy": 1.0, "nJy": 3631.0, "maggy": 1e-9}
_MAG = 0.4 * np.log(10)


class Survey(BaseModel):
    """A survey's photometry. Lists run over the bands; a column of vectors is addressed as ``NAME[i]``.

    Corrections, in this order: extinction, AB offset, calibration floor and model error (both added to the uncertainty
    in quadrature).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    bands: tuple[str, ...] = Field(description="speclite names")
    labels: tuple[str, ...] = Field(description="short names, as in the column f_u")
    flux: tuple[str, ...] = Field(description="flux columns")
    error: tuple[str, ...] = Field(description="uncertainty columns")
    error_kind: Literal["ivar", "sigma"] = "ivar"
    unit: Literal["nanomaggy", "nJy", "maggy"] = "nanomaggy"
    extinction: tuple[str, ...] | None = Field(None, description="Galactic extinction columns; None: already corrected")
    extinction_kind: Literal["magnitude", "transmission"] = "magnitude"
    ab_offset: tuple[float, ...] | None = Field(None, description="added to magnitudes to make them AB [mag]")
    floor: tuple[float, ...] | None = Field(None, description="calibration error added in quadrature [mag]")
    model_error: float | tuple[float, ...] = Field(
        0.025, description="error of the stellar models themselves, fraction of the flux; one number or one a band"
    )
    redshift: str = "Z"
    ra: str | None = "RA"
    dec: str | None = "DEC"
    ids: tuple[str, ...] = Field((), description="identifying columns, passed through under their own names")
    selection_band: str = Field("r", description="label of the band in which the survey selects")
    colour_limits: tuple[float, float] = Field((-0.5, 3.0), description="neighbouring colours beyond are absurd [mag]")

    @model_validator(mode="after")
    def _check(self) -> Survey:
        n = len(self.bands)
        for field in ("labels", "flux", "error", "extinction", "ab_offset", "floor"):
            values = getattr(self, field)
            if values is not None and len(values) != n:
                raise ValueError(f"survey {self.name}: {field} has {len(values)} entries for {n} bands")
        if isinstance(self.model_error, tuple) and len(self.model_error) != n:
            raise ValueError(f"survey {self.name}: model_error has {len(self.model_error)} entries for {n} bands")
        if not np.all(np.asarray(self.model_error) >= 0):
            raise ValueError(f"survey {self.name}: model_error {self.model_error} is negative")
        if self.selection_band not in self.labels:
            raise ValueError(f"survey {self.name}: selection_band {self.selection_band!r} is not one of {self.labels}")
        if n < MINIMUM_BANDS:
            raise ValueError(f"survey {self.name}: {n} bands; at least {MINIMUM_BANDS} are needed")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that a catalog must have (``NAME[i]`` counts as ``NAME``), in order, each once."""
        names = [*self.flux, *self.error, *(self.extinction or ()), self.redshift, *self.ids]
        return tuple(dict.fromkeys(name.split("[")[0] for name in names))


@dataclass(frozen=True)
class Photometry:
    """Calibrated photometry: ``flux``, ``sigma`` [nanomaggies] and ``mask`` (band usable) of shape (galaxy, band)."""

    flux: np.ndarray
    sigma: np.ndarray
    mask: np.ndarray
    redshift: np.ndarray
    flags: np.ndarray


def calibrate(
    survey: Survey, flux: np.ndarray, error: np.ndarray, extinction: np.ndarray | None, redshift: np.ndarray
) -> Photometry:
    """Turn raw columns of shape (galaxy, band) into calibrated photometry; bad values are masked and flagged.

    Unusable entries come back as flux 0 and sigma 0 with mask False, so that no NaN travels further.
    """
    flux, error = np.asarray(flux, np.float64), np.asarray(error, np.float64)
    flags = np.zeros(len(flux), np.uint32)

    def flag(bit: Flag, where: np.ndarray) -> None:
        flags[where] |= np.uint32(int(bit))

    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        sigma = 1 / np.sqrt(error) if survey.error_kind == "ivar" else error
        factor = np.full(flux.shape, 1 / _PER_NANOMAGGY[survey.unit])
        if extinction is not None:
            magnitude = survey.extinction_kind == "magnitude"
            factor = factor * (np.exp(_MAG * extinction) if magnitude else 1 / np.asarray(extinction, np.float64))
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
    mask = good_flux & good_error
    flag(Flag.BAD_FLUX, (~good_flux).any(1))
    flag(Flag.BAD_ERROR, (~good_error).any(1))
    flag(Flag.BAND_MISSING, (~mask).any(1))
    flag(Flag.TOO_FEW_BANDS, mask.sum(1) < MINIMUM_BANDS)
    flag(Flag.NEGATIVE_FLUX, (mask & (flux <= 0)).any(1))
    flux, sigma = np.where(mask, flux, 0.0), np.where(mask, sigma, 0.0)
    flag(Flag.ABSURD_COLOUR, _absurd(flux, mask, survey.colour_limits))
    good_redshift = np.isfinite(redshift) & (redshift > 0)
    flag(Flag.BAD_REDSHIFT, ~good_redshift)
    redshift = np.where(good_redshift, redshift, np.nan)
    return Photometry(flux.astype(np.float32), sigma.astype(np.float32), mask, redshift.astype(np.float32), flags)


def healpix(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Return the HEALPix pixels of order 29, nested, of positions [deg]; -1 where there is none."""
    good = np.isfinite(ra) & (np.abs(dec) <= 90)
    pixels = np.full(len(ra), -1, np.int64)
    pixels[good] = cdshealpix.nested.lonlat_to_healpix(Longitude(ra[good], "deg"), Latitude(dec[good], "deg"), 29)
    return pixels


def _absurd(flux: np.ndarray, mask: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Rows in which a colour of neighbouring bands with positive fluxes lies outside the limits."""
    positive = mask & (flux > 0)
    magnitude = np.where(positive, -2.5 * np.log10(np.where(positive, flux, 1.0)), np.nan)
    colour = magnitude[:, :-1] - magnitude[:, 1:]
    return np.any((colour < limits[0]) | (colour > limits[1]), axis=1)


_SDSS_BANDS = tuple(f"sdss2010-{b}" for b in "ugriz")

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
    )
}  # fmt: skip


def get(survey: str | Survey) -> Survey:
    """Return the survey of that name."""
    if isinstance(survey, Survey):
        return survey
    if survey not in SURVEYS:
        raise ValueError(f"no survey named {survey!r}; known are {', '.join(SURVEYS)}; a run file may declare another")
    return SURVEYS[survey]
