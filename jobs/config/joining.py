"""The section `join` of the run file: a table that is joined to the input."""

from __future__ import annotations

import re
from typing import Any, Literal

from astropy.coordinates import Angle
from pydantic import Field, field_validator, model_validator

from cluster.settings import refuse_control_characters
from jobs.config.sections import Section
from storage_schemas.backend.access import Access

_LARGEST = 1.0  # deg
_NEXT_KEY = re.compile(r"\s*,\s*(?=\w+\s*=)")


class Join(Section):
    """A table with columns that the input lacks, such as its redshifts: by identifiers, or by position."""

    file: str | tuple[str, ...] = Field(description="the table, or tables, named as `input` is")
    on: str | tuple[str, ...] | dict[str, str] | None = Field(
        None, description="identifying columns that both have, or, where the joined table names them otherwise, a mapping "
        "{column of the input: column of the joined table}; integers or text"
    )  # fmt: skip
    within: str | None = Field(
        None, description="instead: the largest separation on the sky, as `1.0 arcsec`; the nearest row is taken"
    )
    positions: tuple[str, str] = Field(
        ("ra", "dec"), description="with `within`: columns of the joined table's positions, ICRS [deg]"
    )
    columns: tuple[str, ...] | dict[str, str] = Field(
        (), description="columns to take from the joined table, or a mapping {name from then on: column there}; none: the "
        "redshift"
    )  # fmt: skip
    duplicates: Literal["refuse", "first"] = Field(
        "refuse", description="where several rows of the joined table fit one of the input equally well: an error, or the first "
        "of them, in the order of files and rows"
    )  # fmt: skip

    @field_validator("file")
    @classmethod
    def _places(cls, file: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for entry in (file,) if isinstance(file, str) else file:
            Access().place(entry)
        return file

    @field_validator("within", mode="before")
    @classmethod
    def _angle(cls, value: Any) -> Any:
        return value if value is None else str(value)  # a number, which lacks its unit, is told of in `radius`

    @field_validator("on", "columns", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Join:
        if (self.on is None) == (self.within is None):
            raise ValueError(
                "a join is `on` identifying columns, or `within` a separation such as 1.0 arcsec: name one of them"
            )
        if self.on is not None and not len(self.on):
            raise ValueError("join: `on` names no column")
        if self.within is not None:
            _ = self.radius
        names = list(self.columns.values() if isinstance(self.columns, dict) else self.columns)
        if len({*names}) != len(names):
            raise ValueError(f"join: `columns` names a column twice: {', '.join(names)}")
        return self

    @property
    def radius(self) -> float:
        """The largest separation [deg].

        Raises:
            ValueError: it is no angle with a unit, or none that a position may be off by.
        """
        try:
            value = float(Angle(self.within).deg)
        except Exception:  # whatever astropy's parser raises
            raise ValueError(f"join: within is {str(self.within)[:40]!r}; an angle has a unit, as 1.0 arcsec") from None
        if not 0 < value <= _LARGEST:
            raise ValueError(f"join: within is {self.within}; allowed is more than 0, and at most {_LARGEST:g} deg")
        return value

    @property
    def keys(self) -> dict[str, str]:
        """Identifying columns of the joined table by those of the input; none of a join by position."""
        if isinstance(self.on, dict):
            return self.on
        return {name: name for name in ((self.on,) if isinstance(self.on, str) else self.on or ())}

    @property
    def taken(self) -> dict[str, str]:
        """Columns of the joined table by the names that they have from then on."""
        return self.columns if isinstance(self.columns, dict) else {name: name for name in self.columns}

    @classmethod
    def parse(cls, text: str | None) -> Join | None:
        """Read what the command line says: ``FILE,on=TARGETID,columns=Z+ZWARN`` or ``FILE,within=1 arcsec,positions=ra+dec``.

        Raises:
            ValueError: it says something else.
        """
        if text is None:
            return None
        refuse_control_characters(text)
        file, *rest = _NEXT_KEY.split(text.strip())
        keys = [name for name in cls.model_fields if name != "file"]
        if not file or file.partition("=")[0] in keys:
            raise ValueError("the table comes first, as FILE,on=COLUMN")
        given: dict[str, Any] = {"file": file}
        for part in rest:
            key, value = map(str.strip, part.split("=", 1))
            if key not in keys:
                raise ValueError(f"{key[:40]!r} is none of {', '.join(keys)}")
            if key in given:
                raise ValueError(f"{key} is there twice")
            given[key] = _several(value) if key in ("on", "positions", "columns") else value
        return cls.model_validate(given)


def _several(text: str) -> tuple[str, ...] | dict[str, str]:
    """Columns ``A+B``, or a mapping ``A:B+C``, in which C is C."""
    parts = text.split("+")
    if ":" not in text:
        return tuple(parts)
    return {name: column or name for name, _, column in (part.partition(":") for part in parts)}
