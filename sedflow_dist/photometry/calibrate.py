"""Columns of a catalog in, calibrated fluxes and uncertainties in nanomaggies out, with a mask of usable bands and flags.

Magnitudes become fluxes exactly: 10^(-0.4 (m - 22.5)) nanomaggies, and 2 b sinh(-m / P - ln b) maggies for asinh magnitudes
(P = 2.5 / ln 10; Lupton, Gunn & Szalay 1999). Their errors are multiplied by the derivative there: for asinh magnitudes the
inverse of how they were made; for others an approximation, since an error that is symmetrical in magnitudes is not in flux:
at 0.1 mag the two sides differ by 10 %, and beyond 0.3 mag (S/N 3.6) no Gaussian in flux describes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sedflow_dist import magnitudes
from sedflow_dist.photometry import flux_units
from sedflow_dist.photometry.flags import Flag, bits, of_photometry
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.photometry.survey import Survey

_MAG = 0.4 * np.log(10)
#: Extinctions that a galaxy may have [mag]: maps scatter about zero by a hundredth, and behind 20 mag, in the plane of the
#: Galaxy, is nothing to be seen. What lies outside is a code for "not known", such as -9, 50 or 99, or another quantity.
_EXTINCTIONS = (-0.01, 20.0)
_R_V = 3.1
_LAST_PLACES = 3
#: AB magnitudes that a galaxy may have: Andromeda has 3.4, and at 40 no telescope sees one photon a year. What lies outside
#: is a code for "not known", such as -99, -9, 0, 50 or 99, that the survey does not declare.
_MAGNITUDES = (1.0, 40.0)


@dataclass(frozen=True)
class Codes:
    """Which entries (galaxy, band) hold a code instead of a value: of a band that was not observed, in which nothing was
    detected, or whose flux is an upper limit."""

    not_observed: np.ndarray
    not_detected: np.ndarray
    upper_limit: np.ndarray

    @classmethod
    def of(cls, survey: Survey, flux: Sequence[np.ndarray], error: Sequence[np.ndarray | None]) -> Codes:
        """Look for the survey's codes in columns as the catalog has them, (galaxy,) for each band; an error may be None."""
        none = np.zeros(len(flux[0]), bool)

        def found(columns: Sequence[np.ndarray | None], codes: Sequence[float]) -> np.ndarray:
            return np.stack([none if column is None else is_coded(column, codes) for column in columns], axis=1)

        absent = found(flux, survey.not_observed)
        if survey.no_data is not None:
            absent = absent | found(error, (survey.no_data,))
        return cls(absent, found(flux, survey.not_detected) & ~absent, found(error, survey.upper_limit) & ~absent)

    @property
    def limited(self) -> np.ndarray:
        """Entries that tell no more than how faint a galaxy is."""
        return self.not_detected | self.upper_limit


@dataclass(frozen=True)
class Calibrated:
    """Calibrated photometry of a block of galaxies, its flags, uint32, (galaxy,), and where it holds a limit (galaxy, band)."""

    photometry: Photometry
    flags: np.ndarray
    limited: np.ndarray


def calibrate(
    survey: Survey, flux: np.ndarray, error: np.ndarray, extinction: np.ndarray | None, redshift: np.ndarray,
    unusable: np.ndarray | None = None, codes: Codes | None = None, pivot: np.ndarray | None = None,
) -> Calibrated:  # fmt: skip
    """Turn raw columns of shape (galaxy, band) into calibrated photometry; bad values are masked and flagged.

    Unusable entries come back as flux 0 and sigma 0 with mask False, so that no NaN travels further. A band that was not
    observed, or that the survey itself calls unusable, is missing and nothing worse; one in which nothing was detected is a
    measurement, whatever its sign: with no more than a limit, of a flux of zero.

    Args:
        survey: its declaration; ``unusable`` says which bands a galaxy's footprint does not have
        flux, error: fluxes or magnitudes and their uncertainties in the survey's unit; errors of bands that have no column
            for them count for nothing
        codes: entries that hold no values; None: they are looked for in ``flux`` and ``error``
        pivot: pivot wavelengths of the bands [A], (band,), needed where the survey's unit is a flux per wavelength
    """
    flux, error = np.asarray(flux, np.float64), np.asarray(error, np.float64)
    if codes is None:
        columns = [None if name is None else column for name, column in zip(survey.errors, error.T, strict=True)]
        codes = Codes.of(survey, list(flux.T), columns)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        factor = np.broadcast_to(_nanomaggies(survey, pivot), flux.shape)
        flux, sigma, stated = _fluxes(survey, flux, error, codes)
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
        sigma = np.sqrt(sigma**2 + _fraction2(survey) * flux**2)
        if survey.max_snr is not None:
            sigma = np.maximum(sigma, np.abs(flux) / survey.max_snr)
    with np.errstate(over="ignore"):
        single = flux.astype(np.float32), sigma.astype(np.float32), np.asarray(redshift, np.float64).astype(np.float32)
    flux, sigma, redshift = (x.astype(np.float64) for x in single)  # what float32 cannot hold is no measurement
    good_flux = np.isfinite(flux) & (np.isfinite(factor) & (factor > 0))
    good_error = np.isfinite(sigma) & (sigma > 0) & stated
    absent = codes.not_observed if unusable is None else codes.not_observed | np.asarray(unusable, bool)
    mask = good_flux & good_error & ~absent
    flux, sigma = np.where(mask, flux, 0.0), np.where(mask, sigma, 0.0)
    found = {
        **of_photometry(flux, mask, redshift, survey.band_sets),
        Flag.BAD_FLUX: (~good_flux & ~absent).any(1),
        Flag.BAD_ERROR: (~good_error & ~absent).any(1),
        Flag.ABSURD_COLOUR: _absurd(survey, flux, mask),
    }
    if extinction is not None:
        found[Flag.BAD_EXTINCTION] = (~possible & ~absent).any(1)
    redshift = np.where(found[Flag.BAD_REDSHIFT], np.nan, redshift)
    return Calibrated(Photometry.of(flux, sigma, redshift, mask), bits(len(flux), found), codes.limited & mask)


def relative_errors(survey: Survey) -> np.ndarray:
    """Return the error that calibration and models have in each band (band,), a fraction of the flux."""
    return np.sqrt(_fraction2(survey))


def is_coded(values: np.ndarray, codes: Sequence[float]) -> np.ndarray:
    """Return which values (galaxy,) are one of the codes, as values of their own type have them: 99.99 also in float32, and of
    packed integers.

    The code NaN is also what a mask hides; no other is.
    """
    data, hidden = np.ma.getdata(values), np.ma.getmaskarray(values)
    found = np.zeros(data.shape, bool)
    for code in codes:
        if np.isnan(code):
            found |= hidden | np.isnan(data)
        else:
            found |= ~hidden & (_equal(data, code) if data.dtype.kind == "f" else data == code)
    return found


def _equal(values: np.ndarray, code: float) -> np.ndarray:
    """Which values (galaxy,) are a code, written as a decimal number, in their own type, or that of packed integers.

    -9999 times a scale of 0.01 is -99.99000000000001: scale, product and decimal are each rounded by half a unit in the last place
    at most, together to within `_LAST_PLACES` of them. The next packed value lies a whole scale off, and a measurement that is
    no code differs from it by more than its type's last digits: none is taken for one. Zero has no such neighbours.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        own = values.dtype.type(code)
        return (values == own) | (np.abs(values - own) <= _LAST_PLACES * np.abs(np.spacing(own)))


def _nanomaggies(survey: Survey, pivot: np.ndarray | None) -> np.ndarray:
    """Nanomaggies of one of the survey's unit in each band: of magnitudes, one, since they are made fluxes first."""
    if survey.zero_points is not None:
        return np.asarray(magnitudes.flux(np.asarray(survey.zero_points)))
    if survey.kind == "magnitude":
        return np.ones(len(survey.bands))
    wavelengths = (None,) * len(survey.bands) if pivot is None else tuple(map(float, pivot))
    return 1 / np.array([flux_units.per_nanomaggy(survey.unit, wavelength) for wavelength in wavelengths])


def _fluxes(
    survey: Survey, flux: np.ndarray, error: np.ndarray, codes: Codes
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fluxes, standard deviations in the same unit (of magnitudes: nanomaggies), and where the catalog's errors are some."""
    sigma = 1 / np.sqrt(error) if survey.error_kind == "ivar" else error
    stated = np.isfinite(error) & (error > 0)
    limit = (
        error if survey.limits == "error" else np.broadcast_to(np.asarray(survey.limits or np.nan, float), flux.shape)
    )
    limit = np.where(codes.upper_limit, flux, limit)
    if survey.kind == "magnitude":
        flux, slope = _of_magnitudes(survey, flux)
        limit, sigma = _of_magnitudes(survey, limit)[0], slope * sigma
    elif survey.error_kind == "magnitude":
        sigma = np.abs(flux) * _MAG * sigma
    lacking = np.array([name is None for name in survey.errors])
    if lacking.any():
        sigma = np.where(lacking, np.abs(flux) * np.asarray(survey.error_fraction), sigma)
    limit = np.where(limit > 0, limit / survey.limit_sigma, np.nan)
    return np.where(codes.limited, 0.0, flux), np.where(codes.limited, limit, sigma), stated | lacking | codes.limited


def _of_magnitudes(survey: Survey, magnitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fluxes [nanomaggies] of magnitudes (galaxy, band) and how much they fall per magnitude; NaN where there is none."""
    faintness = magnitude + np.asarray(survey.ab_offset or 0.0)
    low, high = _MAGNITUDES
    known = np.where((low < faintness) & (faintness < high), magnitude, np.nan)
    if survey.softening is not None:
        return magnitudes.asinh_flux(known, np.asarray(survey.softening))
    flux = magnitudes.flux(known)
    return flux, flux / magnitudes.POGSON


def _fraction2(survey: Survey) -> np.ndarray:
    floor = _MAG * np.asarray(survey.floor or 0.0)
    return np.broadcast_to(np.asarray(survey.model_error) ** 2 + floor**2, len(survey.bands))


def _possible(survey: Survey, extinction: np.ndarray) -> np.ndarray:
    """Whether the extinction of each band (galaxy, band) is one that a galaxy may have; of E(B-V), that in V too."""
    extinctions = [extinction]
    if survey.extinction_kind == "transmission":
        extinctions = [-np.log(extinction) / _MAG]
    elif survey.extinction_per_ebv is not None:
        extinctions = [_R_V * extinction, extinction * np.asarray(survey.extinction_per_ebv)]
    low, high = _EXTINCTIONS
    return np.all([(low <= found) & (found <= high) for found in extinctions], axis=0)


def _absurd(survey: Survey, flux: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Rows in which a colour of neighbouring bands with positive fluxes lies outside the limits."""
    colour, known = magnitudes.colours(flux, mask, survey.band_sets)
    low, high = survey.colour_limits
    return np.any(known & ((colour < low) | (colour > high)), axis=1)
