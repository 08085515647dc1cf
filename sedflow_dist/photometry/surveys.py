"""Surveys that are built in, by name; a run file may declare another (`survey.Survey`)."""

from __future__ import annotations

from typing import Annotated

import cdshealpix.nested
import numpy as np
from astropy.coordinates import Latitude, Longitude
from pydantic import Discriminator, Tag

from sedflow_dist.photometry.cuts import Cut
from sedflow_dist.photometry.survey import Footprint, Survey


def healpix(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Return the HEALPix pixels of order 29, nested, of positions [deg]; -1 where there is none, as of the code -999."""
    good = (ra >= -180) & (ra <= 360) & (np.abs(dec) <= 90)  # counted from 0, or to both sides of it
    pixels = np.full(len(ra), -1, np.int64)
    pixels[good] = cdshealpix.nested.lonlat_to_healpix(Longitude(ra[good], "deg"), Latitude(dec[good], "deg"), 29)
    return pixels


#: As run files have it; what is wrong is told of the one that was meant.
NameOrSurvey = Annotated[
    Annotated[str, Tag("name")] | Annotated[Survey, Tag("declared")],
    Discriminator(lambda survey: "name" if isinstance(survey, str) else "declared"),
]

_SDSS_BANDS = tuple(f"sdss2010-{b}" for b in "ugriz")

_LEGACY = ("g", "r", "z", "w1", "w2")
_LEGACY_COLUMNS = ("g", "r", "z", *_LEGACY)
#: Of DR8 to DR10, as desitarget.io has them: DR9's are counted by processing run, odd ones in the north; DR10 is southern.
_NORTHERN_RELEASES = (8001, *range(9001, 9014, 2))
_SOUTHERN_RELEASES = (7000, 8000, *range(9000, 9014, 2), *range(10_000, 10_010))

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
        # DR9 and DR10 (legacysurvey.org/dr10/catalogs, .../bitmasks): AB nanomaggies, WISE's too. North of declination 32 and of
        # the Galaxy's plane BASS and MzLS observed, elsewhere DECam: photsys says it, and release (.../dr9/description, RELEASE).
        # Errors of calibration: as DESI's production has them in fastspecfit (Moustakas et al. 2023). The redshift is DESI's.
        Survey(
            name="desi-legacy",
            bands=("BASS-g", "BASS-r", "MzLS-z", *(f"decam2014-{b}" for b in "grz"), "wise2010-W1", "wise2010-W2"),
            labels=("g_north", "r_north", "z_north", *_LEGACY), selection_band="r",
            flux=tuple(f"flux_{b}" for b in _LEGACY_COLUMNS), error=tuple(f"flux_ivar_{b}" for b in _LEGACY_COLUMNS),
            extinction=tuple(f"mw_transmission_{b}" for b in _LEGACY_COLUMNS), extinction_kind="transmission", no_data=0.0,
            floor=(0.02, 0.02, 0.02, 0.02, 0.02, 0.02, 0.05, 0.05),
            footprints={
                "north": Footprint(
                    bands=("g_north", "r_north", "z_north"),
                    rows=(Cut(column="photsys", classes=("N",)), Cut(column="release", classes=_NORTHERN_RELEASES)),
                ),
                "south": Footprint(
                    bands=("g", "r", "z"),
                    rows=(
                        Cut(column="photsys", classes=("S",)),
                        Cut(column="release", classes=_SOUTHERN_RELEASES),
                    ),
                ),
            },
            ids=("release", "brickid", "objid"), ra="ra", dec="dec", colour_limits=(-2.0, 6.0),
            cuts={
                "bright_star": Cut(column="maskbits", bits=1 << 1), "saturated_or_bad": Cut(column="maskbits", bits=7 << 5),
                "fit_bailed_out": Cut(column="maskbits", bits=1 << 10), "cluster": Cut(column="maskbits", bits=1 << 13),
                # Of redshifts: as PROVABGS cuts them (Hahn et al. 2023, section 2).
                "zwarn": Cut(column="zwarn", above=0, required=False),
                "deltachi2": Cut(column="deltachi2", below=40, required=False),
                "redshift_error": Cut(column="zerr", above=5e-4, per_one_plus_z=True, required=False),
                "star_or_qso": Cut(column="spectype", classes=("STAR", "QSO"), not_a_galaxy=True, required=False),
            },
        ),
        # Object table of DP1. Its ebv is that of Schlegel et al. 1998; A / E(B-V) for it: Schlafly & Finkbeiner 2011, table 6,
        # R_V = 3.1.
        Survey(
            name="rubin", bands=tuple(f"lsst2016-{b}" for b in "ugrizy"), labels=tuple("ugrizy"), unit="nJy",
            flux=tuple(f"{b}_cModelFlux" for b in "ugrizy"), error=tuple(f"{b}_cModelFluxErr" for b in "ugrizy"),
            error_kind="sigma", band_flags=tuple(f"{b}_cModel_flag" for b in "ugrizy"),
            extinction=("ebv",) * 6, extinction_kind="ebv", extinction_per_ebv=(4.145, 3.237, 2.273, 1.684, 1.323, 1.088),
            redshift=None, without_redshifts=True, ids=("objectId",), ra="coord_ra", dec="coord_dec", selection_band="i",
            colour_limits=(-1.0, 6.0),
        ),
        # RAIL's files (github.com/LSSTDESC/rail): 99 is not detected, its error then the magnitude of one standard deviation; what
        # was not looked at is NaN or -99. Their magnitudes are free of the Galaxy's extinction; true redshifts are not looked at.
        Survey(
            name="rail", bands=tuple(f"lsst2016-{b}" for b in "ugrizy"), labels=tuple("ugrizy"), unit="mag",
            flux=tuple(f"mag_{b}_lsst" for b in "ugrizy"), error=tuple(f"mag_err_{b}_lsst" for b in "ugrizy"),
            error_kind="sigma", not_detected=(99.0,), limits="error", not_observed=(-99.0, float("nan")),
            redshift=None, without_redshifts=True, ra=None, dec=None, selection_band="i", colour_limits=(-5.0, 12.0),
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
