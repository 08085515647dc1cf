"""Surveys: which columns of a catalog hold what, in which unit, and what is to be done to them.

Each survey is one declaration; a run file may declare its own. `calibrate` makes fluxes of columns by it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import cdshealpix.nested
import numpy as np
from astropy.coordinates import Latitude, Longitude
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)  # fmt: skip

from sedflow_dist.curves import Curve, declared
from sedflow_dist.photometry import flux_units
from sedflow_dist.photometry.cuts import Cut
from sedflow_dist.photometry.flags import MINIMUM_BANDS

_ONE_A_BAND = (
    "labels", "flux", "error", "extinction", "extinction_per_ebv", "band_flags", "ab_offset", "floor", "softening", "limits",
)  # fmt: skip
#: Of these, a number alone is that of all bands.
_ONE_OR_ONE_A_BAND = ("model_error", "error_fraction", "zero_point")
#: Least value; None: any.
_NUMBERS: dict[str, float | None] = {
    "ab_offset": None, "floor": 0.0, "extinction_per_ebv": 0.0, "softening": 0.0, "limits": None, "error_fraction": 0.0,
    "zero_point": None, "model_error": 0.0,
}  # fmt: skip


class Survey(BaseModel):
    """A survey's photometry. Lists run over the bands; a column of vectors is addressed as ``NAME[i]``.

    Corrections, in this order: extinction, AB offset, calibration floor and model error (both added to the uncertainty
    in quadrature).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="of the survey, in stores and messages")
    bands: tuple[str | Curve, ...] = Field(
        description="names of speclite's filters, or response curves: a path (ECSV, a VOTable as of the SVO filter profile "
        "service, text in two columns), or a mapping with `file`, `detector` (photon, the default, or energy), `unit` (of its "
        "wavelengths) and `name`; paths are relative to the run file"
    )
    labels: tuple[str, ...] = Field(description="short names, as in the column f_u")
    flux: tuple[str, ...] = Field(description="flux columns, or columns of magnitudes, as `unit` says")
    error: tuple[str | None, ...] | None = Field(
        None, description="uncertainty columns; none, of all bands or of one: error_fraction is assumed"
    )
    error_kind: Literal["ivar", "sigma", "magnitude"] = Field(
        "ivar",
        description="what uncertainty columns hold: inverse variances or standard deviations, in the unit of the fluxes (of "
        "magnitudes, where these are magnitudes), or standard deviations in magnitudes whatever the fluxes are in",
    )
    error_fraction: float | tuple[float, ...] | None = Field(
        None,
        description="assumed error, fraction of the flux, where there are no uncertainty columns; one or one a band",
    )
    max_snr: float | None = Field(
        None,
        gt=0,
        description="no flux counts for more than so many of its own uncertainties, the errors below included",
    )
    unit: str = Field(
        "nanomaggy",
        description="unit of fluxes and uncertainties: nanomaggy, maggy, any flux density as astropy writes it, per frequency "
        "(nJy, erg / (s cm2 Hz)) or per wavelength (erg / (s cm2 Angstrom)), mag for magnitudes, or counts with a zero_point; "
        "columns that state another are converted to it, or refused",
    )
    zero_point: float | tuple[float, ...] | None = Field(
        None,
        description="magnitude of one count, where fluxes are counts, or in a unit of their own; one or one a band",
    )
    system: Literal["AB", "Vega"] = Field(
        "AB", description="of magnitudes and zero points; of Vega's, ab_offset says what makes them AB"
    )
    softening: tuple[float, ...] | None = Field(
        None,
        description="softening b of each band, in maggies, where magnitudes are asinh magnitudes (luptitudes; Lupton et al. "
        "1999); SDSS's are 1.4e-10, 0.9e-10, 1.2e-10, 1.8e-10, 7.4e-10",
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
    not_observed: tuple[float, ...] = Field(
        (), description="values of a flux (or magnitude) column that say: not observed; as they stand in the file"
    )
    not_detected: tuple[float, ...] = Field(
        (),
        description="values of a flux (or magnitude) column that say: observed, and not detected; `limits` tell how deeply",
    )
    upper_limit: tuple[float, ...] = Field(
        (), description="values of an uncertainty column that say: the flux (or magnitude) column holds an upper limit"
    )
    limits: tuple[float, ...] | Literal["error"] | None = Field(
        None,
        description="where nothing was detected, the flux is 0 with the uncertainty limit / limit_sigma; limits of the bands, "
        "in the unit of the fluxes (or magnitudes), or `error`: the uncertainty columns hold them",
    )
    limit_sigma: float = Field(1.0, gt=0, description="of how many standard deviations limits are")
    band_flags: tuple[str, ...] | None = Field(
        None, description="columns that are true, or not 0, where a band is unusable"
    )
    cuts: dict[str, Cut] = Field(default_factory=dict, description="quality cuts by name")
    ab_offset: tuple[float, ...] | None = Field(None, description="added to magnitudes to make them AB [mag]")
    floor: tuple[float, ...] | None = Field(None, description="error of each band's zero point [mag], in quadrature")
    model_error: float | tuple[float, ...] = Field(
        0.025, description="error of the stellar models themselves, fraction of the flux; one number or one a band"
    )
    redshift: str | None = Field("Z", description="redshift column; None: the survey has none, a run file names one")
    ra: str | None = Field("RA", description="right ascension column [deg]; None: no positions")
    dec: str | None = Field("DEC", description="declination column [deg]")
    ids: tuple[str, ...] = Field((), description="identifying columns, integers or text, passed through as they are")
    selection_band: str = Field("r", description="label of the band in which the survey selects")
    colour_limits: tuple[float, float] = Field((-0.5, 3.0), description="neighbouring colours beyond are absurd [mag]")

    @model_validator(mode="before")
    @classmethod
    def _plain_unit(cls, content: Any) -> Any:
        """Who gives a zero point and no unit has counts; a unit such as mag(AB) is magnitudes of that system."""
        if not isinstance(content, dict):
            return content
        unit = content.get("unit")
        if unit is None:
            return {**content, "unit": "count"} if content.get("zero_point") is not None else content
        stated = flux_units.system(unit) if isinstance(unit, str) else None
        if stated == "asinh" and content.get("softening"):
            return {**content, "unit": "mag"}
        if stated in ("AB", "Vega") and content.get("system", stated) == stated and not content.get("softening"):
            return {**content, "unit": "mag", "system": stated}
        if stated:
            raise ValueError(f"unit {unit} is of magnitudes: say mag, and system or softening beside it as they are")
        return content

    @field_validator("bands", mode="before")
    @classmethod
    def _curves(cls, bands: Any, info: ValidationInfo) -> Any:
        """Read the curves of bands that are files, from the folder of the validation's context."""
        folder = Path((info.context or {}).get("folder", ""))
        return [declared(band, folder) for band in bands] if isinstance(bands, list | tuple) else bands

    @field_serializer("no_data", "not_observed", "not_detected", "upper_limit", when_used="json")
    def _codes(self, codes: Any) -> Any:
        """NaN as text: JSON has no other, and settings that are compared must equal themselves."""
        if isinstance(codes, tuple):
            return [self._codes(code) for code in codes]
        return "nan" if codes is not None and np.isnan(codes) else codes

    @model_validator(mode="after")
    def _check(self) -> Survey:
        n = len(self.bands)
        for field in (*_ONE_A_BAND, *_ONE_OR_ONE_A_BAND):
            values = getattr(self, field)
            if isinstance(values, tuple) and len(values) != n:
                raise ValueError(f"survey {self.name}: {field} has {len(values)} entries for {n} bands")
        for field, least in _NUMBERS.items():
            found = getattr(self, field)
            values = np.asarray(0.0 if found is None or isinstance(found, str) else found)
            if not np.all(np.isfinite(values) & (values >= (-np.inf if least is None else least))):
                raise ValueError(f"survey {self.name}: {field} {found} is not finite, or negative")
        if self.selection_band not in self.labels:
            raise ValueError(f"survey {self.name}: selection_band {self.selection_band!r} is not one of {self.labels}")
        if (self.extinction_kind == "ebv") != (self.extinction_per_ebv is not None):
            raise ValueError(f"survey {self.name}: extinction_per_ebv belongs to extinction_kind ebv, and only to it")
        for field in ("labels", "ids"):
            values = getattr(self, field)
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"survey {self.name}: {field} has {twice[0]!r} twice")
        if problem := self._unit_problem() or self._error_problem():
            raise ValueError(f"survey {self.name}: {problem}")
        limited = [cut.column for cut in self.cuts.values() if not cut.is_exact]
        columns = {name.lower() for name in (*self.expected_units, *limited)}
        if unused := [name for name in self.units if not {name.lower(), f"{name.lower()}[0]"} & columns]:
            raise ValueError(
                f"survey {self.name}: units name {', '.join(unused)}, whose numbers the survey does not take"
            )
        if n < MINIMUM_BANDS:
            raise ValueError(f"survey {self.name}: {n} bands; at least {MINIMUM_BANDS} are needed")
        return self

    def _unit_problem(self) -> str | None:
        """What is contradictory in unit, zero point, system and softening."""
        kind = flux_units.kind(self.unit)
        if (kind == "counts") != (self.zero_point is not None):
            return (
                f"unit {self.unit} needs a zero_point, the magnitude of one"
                if kind == "counts"
                else f"zero_point {self.zero_point} belongs to counts, and unit {self.unit} has a zero point of its own"
            )
        if self.softening is not None and (kind != "magnitude" or min(self.softening) == 0):
            return "softening belongs to asinh magnitudes (unit: mag), and is positive"
        if self.system == "Vega" and kind not in ("magnitude", "counts"):
            return f"system Vega belongs to magnitudes and zero points, and unit {self.unit} is absolute"
        if self.system == "Vega" and self.ab_offset is None:
            return "magnitudes of the system Vega need ab_offset: what is added in each band to make them AB"
        return None

    def _error_problem(self) -> str | None:
        """What is contradictory in uncertainties and limits."""
        lacking = [label for label, name in zip(self.labels, self.errors, strict=True) if name is None]
        if lacking and self.error_fraction is None:
            return (
                f"{', '.join(lacking)} have no uncertainty column: name one a band in error, or assume an error_fraction of "
                "the flux"
            )
        if self.error_fraction is not None and not (lacking and np.min(self.error_fraction) > 0):
            return "error_fraction is assumed where there is no uncertainty column, and is positive"
        if (self.not_detected != ()) != (self.limits is not None):
            return "not_detected and limits belong together: which values say it, and how faint that is"
        if self.upper_limit and lacking:
            return f"upper_limit is a value of uncertainty columns, and {', '.join(lacking)} have none"
        same = self.error_kind == "sigma" or (self.error_kind, self.kind) == ("magnitude", "magnitude")
        if self.limits == "error" and (lacking or not same):
            return "limits: error needs uncertainty columns with standard deviations, in the unit of the fluxes"
        if self.kind != "magnitude" and isinstance(self.limits, tuple) and min(self.limits) <= 0:
            return f"limits {self.limits} of fluxes are positive"
        return None

    @property
    def kind(self) -> flux_units.Kind:
        """What its fluxes are measured in."""
        return flux_units.kind(self.unit)

    @property
    def errors(self) -> tuple[str | None, ...]:
        """Uncertainty columns, one a band; None where there is none."""
        return (None,) * len(self.bands) if self.error is None else self.error

    @property
    def zero_points(self) -> tuple[float, ...] | None:
        """Magnitudes of one count, one a band; None: its fluxes are no counts."""
        return (self.zero_point,) * len(self.bands) if isinstance(self.zero_point, float) else self.zero_point

    @property
    def required(self) -> tuple[str, ...]:
        """Columns that a catalog must have, as they are addressed, in order, each once."""
        names = [*self.flux, *self.errors, *(self.extinction or ()), *(self.band_flags or ()), self.redshift, *self.ids]
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
        inverse = f"{self.unit}-2" if self.unit.isalpha() else f"({self.unit})-2"
        error = {"ivar": inverse, "sigma": self.unit, "magnitude": "mag"}[self.error_kind]
        extinction = "" if self.extinction_kind == "transmission" else "mag"
        kinds: list[tuple[tuple[str | None, ...], str]] = [
            (self.flux, self.unit), (self.errors, error), (self.extinction or (), extinction), ((self.redshift,), ""),
            ((self.ra, self.dec), "deg"),
        ]  # fmt: skip
        return {name: unit for names, unit in kinds for name in names if name}

    @property
    def columns(self) -> tuple[str, ...]:
        """The same, but ``NAME[i]`` counts as ``NAME``."""
        return tuple(dict.fromkeys(name.split("[")[0] for name in self.required))


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
