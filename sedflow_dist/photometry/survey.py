"""One survey: which columns of a catalog hold what, in which unit, and what is to be done to them.

Declared once; a run file may declare its own. `calibrate` makes fluxes of columns by it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
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


#: The error of the redshift is looked for by its name.
AUTO = "auto"


class Footprint(BaseModel):
    """A part of the sky that a survey observed through filters of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bands: tuple[str, ...] = Field(
        min_length=1, description="labels of the bands that are observed there and nowhere else"
    )
    rows: tuple[Cut, ...] = Field(
        min_length=1,
        description="which rows lie there: of these, the first whose column the input has decides; the last one's it must have",
    )

    @model_validator(mode="after")
    def _check(self) -> Footprint:
        if inexact := [rule.column for rule in self.rows if not rule.is_exact]:
            raise ValueError(f"rows of a footprint have classes or bits, and those by {inexact[0]} limits")
        return self


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
    footprints: dict[str, Footprint] = Field(
        default_factory=dict,
        exclude_if=lambda footprints: not footprints,
        description="parts of the sky with filters of their own, by name: a row has the bands of one of them, and those of none",
    )
    cuts: dict[str, Cut] = Field(default_factory=dict, description="quality cuts by name")
    ab_offset: tuple[float, ...] | None = Field(None, description="added to magnitudes to make them AB [mag]")
    floor: tuple[float, ...] | None = Field(None, description="error of each band's zero point [mag], in quadrature")
    model_error: float | tuple[float, ...] = Field(
        0.025, description="error of the stellar models themselves, fraction of the flux; one number or one a band"
    )
    redshift: str | None = Field("Z", description="redshift column; None: the survey has none, a run file names one")
    without_redshifts: bool = Field(False, exclude_if=lambda none: not none, description="no row has a redshift")
    redshift_error: str | None = Field(
        AUTO,
        exclude_if=lambda name: name == AUTO,
        description="column of the redshift's standard error; auto: the one that by its name is, where the input has it; none: "
        "redshifts are taken as exact",
    )
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
        if problem := self._unit_problem() or self._error_problem() or self._footprint_problem():
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

    def _footprint_problem(self) -> str | None:
        """What is contradictory in footprints."""
        own = [label for footprint in self.footprints.values() for label in footprint.bands]
        if wrong := [label for label in own if label not in self.labels or own.count(label) > 1]:
            return f"footprints name {wrong[0]!r}, which is none of {self.labels}, or belongs to one of them"
        if few := [bands for bands in self.band_sets if len(bands) < MINIMUM_BANDS]:
            return f"a footprint has {len(few[0])} bands in all; at least {MINIMUM_BANDS} are needed"
        return None

    @property
    def band_sets(self) -> tuple[tuple[int, ...], ...]:
        """Bands, by number, that a row may have together: one set for each footprint; none: all of them."""
        own = {label for footprint in self.footprints.values() for label in footprint.bands}
        return tuple(
            tuple(i for i, label in enumerate(self.labels) if label in footprint.bands or label not in own)
            for footprint in self.footprints.values()
        )

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
    def error_of_redshift(self) -> str | None:
        """Column of the redshift's standard error, where one is named or was found."""
        return None if self.redshift_error == AUTO else self.redshift_error

    @property
    def required(self) -> tuple[str, ...]:
        """Columns that a catalog must have, as they are addressed, in order, each once."""
        names = [*self.flux, *self.errors, *(self.extinction or ()), *(self.band_flags or ()), self.redshift, *self.ids]
        names += [footprint.rows[-1].column for footprint in self.footprints.values()]
        names += [cut.column for cut in self.cuts.values() if cut.required]
        return tuple(dict.fromkeys(name for name in names if name))

    @property
    def optional(self) -> tuple[str, ...]:
        """Columns beside those that are used where a catalog has them."""
        names = [rule.column for footprint in self.footprints.values() for rule in footprint.rows[:-1]]
        names += [cut.column for cut in self.cuts.values() if not cut.required]
        names += filter(None, [self.error_of_redshift])
        return tuple(dict.fromkeys(name for name in names if name not in self.required))

    @property
    def measured(self) -> tuple[str, ...]:
        """The same, without identifiers and text: columns of numbers, of `optional` too."""
        others = self.model_copy(update={"ids": ()}).required
        limits = (cut.column for cut in self.cuts.values() if not cut.is_exact and cut.column in self.optional)
        numbers = (*limits, *filter(None, [self.error_of_redshift]))
        return (*(name for name in self.required if name in others), *numbers)

    @property
    def expected_units(self) -> dict[str, str]:
        """Units in which numbers are taken, as astropy writes them, by column as it is addressed; "": a pure number."""
        inverse = f"{self.unit}-2" if self.unit.isalpha() else f"({self.unit})-2"
        error = {"ivar": inverse, "sigma": self.unit, "magnitude": "mag"}[self.error_kind]
        extinction = "" if self.extinction_kind == "transmission" else "mag"
        kinds: list[tuple[tuple[str | None, ...], str]] = [
            (self.flux, self.unit), (self.errors, error), (self.extinction or (), extinction),
            ((self.redshift, self.error_of_redshift), ""), ((self.ra, self.dec), "deg"),
        ]  # fmt: skip
        return {name: unit for names, unit in kinds for name in names if name}

    @property
    def columns(self) -> tuple[str, ...]:
        """The same, but ``NAME[i]`` counts as ``NAME``."""
        return tuple(dict.fromkeys(name.split("[")[0] for name in self.required))
