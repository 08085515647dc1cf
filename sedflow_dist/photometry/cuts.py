"""Quality cuts: columns of a catalog in, the rows that a cut hits out."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

_NUMERIC = re.compile(r"[+-]?(\d{1,400}\.?\d{0,400}|\.\d{1,400})([eE][+-]?\d{1,4})?", re.ASCII)
_TRUTH = {"true": 1, "false": 0}
_LARGEST = 2.0**1023


class Cut(BaseModel):
    """A quality cut: which values of a column hit. Rows that are hit are flagged and counted, not dropped."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str = Field(description="a column of the input; a flux is meant in the survey's unit")
    bits: int = Field(0, ge=0, lt=2**64, description="hits where any of these bits is set")
    below: float | None = Field(None, description="hits where the value is below")
    above: float | None = Field(None, description="hits where the value is above")
    classes: tuple[str | int, ...] = Field(
        (), description="hits where the value is one of these: STAR, QSO, 6; text in any case"
    )
    per_one_plus_z: bool = Field(
        False,
        exclude_if=lambda scaled: not scaled,
        description="limits are those of the value divided by 1 + redshift, as of an error of the redshift",
    )
    required: bool = Field(
        True,
        exclude_if=lambda required: required,
        description="whether an input must have the column; else an input that lacks it is not cut, and the report says so",
    )
    not_a_galaxy: bool = Field(
        False,
        description="what is hit is a star or a QSO: it bears NOT_A_GALAXY, and takes no place from galaxies in MCMC",
    )

    @model_validator(mode="after")
    def _check(self) -> Cut:
        limits = [limit for limit in (self.below, self.above) if limit is not None]
        if np.isnan(limits).any() or not (self.bits or limits or self.classes):
            raise ValueError(
                f"cut on {self.column} hits nothing: give it bits, classes, or a number that values are below or above"
            )
        if self.classes and (self.bits or limits):
            raise ValueError(
                f"cut on {self.column} has classes, and bits or limits as well: these are two cuts, each with a name of its own"
            )
        if self.per_one_plus_z and not limits:
            raise ValueError(f"cut on {self.column} divides by 1 + redshift, and has no limits")
        return self

    @property
    def is_exact(self) -> bool:
        """Whether it looks at values as the container has them, integers or text, and not at numbers made of them."""
        return bool(self.bits or self.classes)

    def hits(self, values: np.ndarray) -> np.ndarray:
        """Return whether each value (galaxy,) hits; NaN never does. Bits are those of integers, at their own width.

        Raises:
            ValueError: bits are asked of numbers that are no integers, or classes in words of numbers.
        """
        if self.classes:
            return self._is_of_class(values)
        found = self._has_bits(values) if self.bits else np.zeros(len(values), bool)
        if self.below is not None:
            found |= values < self.below
        if self.above is not None:
            found |= values > self.above
        return found

    def _is_of_class(self, values: np.ndarray) -> np.ndarray:
        """Numbers, or text, whatever its case and the blanks around it; numbers that are written as text are numbers."""
        known = [number for one in self.classes if (number := _number(str(one))) is not None]
        if values.dtype.kind in "TU":
            words = {str(one).strip().casefold() for one in self.classes}
            texts = {str(value) for value in values}
            hit = {text for text in texts if text.strip().casefold() in words or _number(text) in known}
            return np.array([str(value) in hit for value in values], bool)
        if len(known) < len(self.classes) or values.dtype.kind not in "biuf":
            raise ValueError(f"cut on classes {self.classes} of {self.column}, which is {values.dtype} and no text")
        values = values.view(np.uint8) if values.dtype.kind == "b" else values
        return np.isin(values, np.array([number for number in known if _fits(number, values.dtype)], values.dtype))

    def _has_bits(self, values: np.ndarray) -> np.ndarray:
        if values.dtype.kind == "f":
            whole = np.where(np.isnan(values), 0, values)
            odd = whole[(whole != np.trunc(whole)) | (np.abs(whole) >= 2.0 ** (np.finfo(values.dtype).nmant + 1))]
            if len(odd):  # also numbers so large that their last bits are lost
                raise ValueError(
                    f"cut on bits {self.bits:#x} of {self.column}, which is {values.dtype} and holds {odd[0]:.17g}: bits are "
                    "those of integers"
                )
            values = whole.astype(np.int64)
        elif values.dtype.kind not in "iub":
            raise ValueError(
                f"cut on bits {self.bits:#x} of {self.column}, which is {values.dtype}: bits are those of integers"
            )
        words = values.view(f"u{values.dtype.itemsize}")
        return (words & words.dtype.type(self.bits & np.iinfo(words.dtype).max)) != 0


def _number(text: str) -> int | float | None:
    """What number a text is: integers exactly, the truth values of tables of text as others have them, 1 and 0."""
    plain = text.strip()
    if plain.casefold() in _TRUTH:
        return _TRUTH[plain.casefold()]
    if not _NUMERIC.fullmatch(plain):
        return None
    return int(plain) if plain.lstrip("+-").isdigit() else float(plain)


def _fits(number: float, dtype: np.dtype[Any]) -> bool:
    """Whether values of a dtype can be a number; integers exactly: 2^53 + 1 is no float64."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            held = float(dtype.type(number)) if abs(number) < _LARGEST else np.inf
        return np.isfinite(held) and (held == number or isinstance(number, float))
    return number == int(number) and np.iinfo(dtype).min <= number <= np.iinfo(dtype).max
