"""Columns that are computed only where a run file or a notebook chooses them: what may be asked for, and what it is called.

Off by default; how they are computed: `chosen_columns`. What each costs stands in docs/columns.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from sedflow_dist.curves import Curve, declared
from sedflow_dist.quantities import Quantity

#: A band as run files name it: speclite's name, the label of a survey's band, or a curve.
Named = str | Curve
_FARTHEST = 10.0


class _Part(BaseModel):
    """A part of what may be chosen; bands that are files are read from the folder of the validation's context."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("predict", "bands", "band", mode="before", check_fields=False)
    @classmethod
    def _curves(cls, found: Any, info: ValidationInfo) -> Any:
        folder = Path((info.context or {}).get("folder", ""))
        return [declared(one, folder) for one in found] if isinstance(found, list | tuple) else declared(found, folder)


class RestFrame(_Part):
    """Absolute magnitudes of the rest frame in bands of one's choice, blue-shifted ones too, and K-corrections to them."""

    bands: tuple[Named, ...] = Field(
        (), description="as those of a survey, or labels of the survey's own; none: no such columns"
    )
    redshift: float = Field(
        0.0, ge=0, le=_FARTHEST, description="bands are blue-shifted by 1 + this: 0.1 gives ^0.1 M_r; 0: as they are"
    )
    observed: tuple[str, ...] = Field(
        (),
        description="labels of the survey's bands, one for each of `bands`, that are K-corrected to it; none: no columns",
    )

    @model_validator(mode="after")
    def _check(self) -> RestFrame:
        if self.observed and len(self.observed) != len(self.bands):
            raise ValueError(f"rest_frame.observed has {len(self.observed)} labels for {len(self.bands)} bands")
        return self

    def quantities(self) -> tuple[Quantity, ...]:
        """Return magnitudes, then K-corrections."""
        at = f"z{self.redshift:g}".replace(".", "p")
        shift = f", blue-shifted by {1 + self.redshift:g}" if self.redshift else ""
        magnitudes = [
            Quantity(
                f"absmag_{at}_{column_of(band)}", "mag", f"rest-frame absolute AB magnitude in {name_of(band)}{shift}",
                f"$^{{{self.redshift:g}}}M$ {name_of(band)}", "phys.magAbs",
            )
            for band in self.bands
        ]  # fmt: skip
        corrections = [
            Quantity(
                f"kcorr_{column_of(label)}_{at}_{column_of(band)}", "mag",
                f"K-correction from observed {label} to {name_of(band)}{shift}: m - DM - M", f"$K$ {label}, {name_of(band)}",
                "phot.mag;arith.diff",
            )
            for label, band in zip(self.observed, self.bands, strict=False)
        ]  # fmt: skip
        return (*magnitudes, *corrections)


class Selection(_Part):
    """What a survey selects by: z_max and V_max of each galaxy follow."""

    band: Named | None = Field(
        None, description="as those of a survey, or the label of one of the survey's own; none: no such columns"
    )
    magnitude: float | None = Field(
        None, ge=-30, le=40, description="faint limit in it, AB, corrected for Galactic extinction"
    )
    redshift: tuple[float, float] | None = Field(
        None,
        description="least and greatest redshift that are selected; none: 0 and the farthest that the model reaches",
    )

    @model_validator(mode="after")
    def _check(self) -> Selection:
        if (self.band is None) != (self.magnitude is None):
            raise ValueError("selection has band and magnitude, both or none")
        if self.redshift and not (self.band is not None and 0 <= self.redshift[0] < self.redshift[1]):
            raise ValueError(f"selection.redshift {self.redshift} is not increasing from 0 or more, or has no band")
        return self

    def quantities(self) -> tuple[Quantity, ...]:
        """Return z_max, V_max and its weight."""
        if self.band is None:
            return ()
        limit = f"{name_of(self.band)} < {self.magnitude:g}"
        return (
            Quantity(
                "z_max", "1", f"greatest redshift at which its spectrum is still brighter than {limit}", r"$z_{\rm max}$",
                "src.redshift;stat.max",
            ),
            Quantity(
                "v_max", "Mpc3 / sr", f"comoving volume per steradian in which its spectrum would be selected by {limit}",
                r"$V_{\rm max}$", "phys.volume",
            ),
            Quantity(
                "v_max_weight", "sr / Mpc3", "1 / v_max; 0 where that is 0", r"$1/V_{\rm max}$", "stat.weight",
            ),
        )  # fmt: skip


class Chosen(_Part):
    """Columns beside those that every catalog has; none by default."""

    predict: tuple[Named, ...] = Field(
        (),
        exclude_if=lambda bands: not bands,
        description="bands, as those of a survey, in which a catalog has the model's observed flux: `model_flux_*`",
    )
    rest_frame: RestFrame = Field(RestFrame(), exclude_if=lambda part: not part.bands)
    selection: Selection = Field(Selection(), exclude_if=lambda part: part.band is None)
    star_formation_history: tuple[float, ...] = Field(
        (),
        exclude_if=lambda edges: not edges,
        description="edges of bins in lookback time [Gyr], from the youngest, in which a catalog has the mean star-formation "
        "rate: `sfr_*_gyr`",
    )
    specific_rates: bool = Field(
        False,
        exclude_if=lambda wanted: not wanted,
        description="star-formation rates over surviving mass: `log_ssfr_*`",
    )
    colours: tuple[Literal["observed", "unattenuated"], ...] = Field(
        (),
        exclude_if=lambda kinds: not kinds,
        description="colours of neighbouring bands: the model's as `observed`, of the rest frame without dust as `unattenuated`",
    )

    @model_validator(mode="after")
    def _check_columns(self) -> Chosen:
        edges = self.star_formation_history
        if edges and (len(edges) < 2 or edges[0] < 0 or any(b <= a for a, b in pairwise(edges)) or edges[-1] > 14):
            raise ValueError(
                f"star_formation_history: {list(edges)} are not two or more increasing lookback times from 0 to 14 Gyr"
            )
        every = [quantity.name for quantity in self.quantities(())] + list(self.colours)
        if twice := sorted({name for name in every if every.count(name) > 1}):
            raise ValueError(f"{twice[0]} is asked for twice")
        return self

    @property
    def is_empty(self) -> bool:
        """Whether nothing is chosen."""
        return not (self.quantities(()) or self.colours)

    def quantities(self, labels: Sequence[str]) -> tuple[Quantity, ...]:
        """Return what is chosen, for a survey with bands of these labels, in the order in which it is computed."""
        predicted = [
            Quantity(
                f"model_flux_{column_of(band)}", "nanomaggy", f"model's observed flux in {name_of(band)}",
                f"$f$ {name_of(band)}", "phot.flux;stat.fit",
            )
            for band in self.predict
        ]  # fmt: skip
        history = [
            Quantity(
                f"sfr_{_number(a)}_{_number(b)}_gyr", "Msun/yr", f"mean star-formation rate {a:g} to {b:g} Gyr ago",
                rf"${{\rm SFR}}_{{{a:g}-{b:g}}}$", "phys.SFR",
            )
            for a, b in pairwise(self.star_formation_history)
        ]  # fmt: skip
        own = (*predicted, *self.rest_frame.quantities(), *self.selection.quantities(), *history)
        return (*own, *(SPECIFIC_RATES if self.specific_rates else ()), *self._of_colours(labels))

    def _of_colours(self, labels: Sequence[str]) -> list[Quantity]:
        meaning = {"observed": "model's observed colour", "unattenuated": "rest-frame colour without dust"}
        return [
            Quantity(f"{kind}_{a}_{b}", "mag", f"{meaning[kind]} {a} - {b}", f"$({a} - {b})$ {kind}", "phot.color")
            for kind in self.colours
            for a, b in pairwise(labels)
        ]


SPECIFIC_RATES = tuple(
    Quantity(
        f"log_ssfr_{name}", "log10(1/yr)", f"star-formation rate averaged over the last {window}, over the surviving mass",
        rf"$\log {{\rm sSFR}}_{{\rm {window.replace(' ', '')}}}$", "phys.SFR;arith.ratio",
    )
    for name, window in (("1gyr", "1 Gyr"), ("100myr", "100 Myr"))
)  # fmt: skip


def resolved(wanted: Sequence[Named], labels: Sequence[str], bands: Sequence[Named]) -> tuple[Named, ...]:
    """Return bands, those that are known by the label of one of a survey's bands by what that is."""
    known = dict(zip(labels, bands, strict=True))
    return tuple(known.get(band, band) if isinstance(band, str) else band for band in wanted)


def name_of(band: Named) -> str:
    """Return a band's name."""
    return band if isinstance(band, str) else band.name


def column_of(band: Named) -> str:
    """Return a band's name as part of a column's: letters, digits and underscores."""
    return re.sub(r"[^0-9A-Za-z]+", "_", name_of(band)).strip("_")


def _number(x: float) -> str:
    return f"{x:g}".replace(".", "p")
