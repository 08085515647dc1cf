"""Units that a catalog states in, factors out by which its columns become what the survey's column map expects.

astropy parses them; what cannot be converted is refused, never guessed.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import astropy.units as u
import numpy as np

from sedflow_dist.magnitudes import JANSKY_PER_MAGGY
from sedflow_dist.photometry.surveys import Survey
from storage_schemas.backend.printable import shortened

#: What writers put where there is no unit.
_ABSENT = {"", "-", "--", "---", "none", "null", "nan", "n/a", "na", "unknown", "undefined"}
#: Spellings that astropy does not know, and what they mean; in lower case, except that M is no m.
_WORDS = {
    "nanomaggies": "nmgy", "nanomaggie": "nmgy", "nanomaggys": "nmgy", "nmaggy": "nmgy", "nmaggies": "nmgy",
    "nanomgy": "nmgy", "maggies": "mgy", "maggie": "mgy", "maggys": "mgy",
    "janskys": "Jy", "janskies": "Jy", "jy": "Jy", "jansky": "Jy", "njy": "nJy", "ujy": "uJy", "mjy": "mJy", "kjy": "kJy",
    "picojy": "pJy", "nanojy": "nJy", "microjy": "uJy", "millijy": "mJy", "kilojy": "kJy", "megajy": "MJy",
    "picojanskys": "pJy", "nanojanskys": "nJy", "microjanskys": "uJy", "millijanskys": "mJy",
    "picojansky": "pJy", "microjansky": "uJy", "millijansky": "mJy", "nanojansky": "nJy",
    "nmgy": "nmgy", "nanomaggy": "nmgy", "mgy": "mgy", "maggy": "mgy", "deg": "deg", "rad": "rad", "arcsec": "arcsec",
    "mag": "mag", "counts": "count", "adus": "adu", "dn": "DN", "electrons": "electron",
    "degs": "deg", "degrees": "deg", "degree": "deg", "radians": "rad", "radian": "rad", "rads": "rad",
    "hourangles": "hourangle", "arcsecs": "arcsec", "arcseconds": "arcsec", "arcsecond": "arcsec", "asec": "arcsec",
    "arcmins": "arcmin", "arcminutes": "arcmin", "arcminute": "arcmin",
    "mags": "mag", "magnitude": "mag", "magnitudes": "mag",
    "abmag": "mag(AB)", "ab": "mag(AB)", "magab": "mag(AB)", "mag_ab": "mag(AB)", "ab_mag": "mag(AB)", "vegamag": "mag",
    "dimensionless": "1", "unitless": "1", "redshift": "1",
}  # fmt: skip
_WORD = re.compile(r"[^\W\d](?:[^\W\d]|_(?=[^\W\d]))*")
#: A logarithm to base ten as VOTables and CDS write it, ``[solMass]``, as FITS does, ``log(solMass)``, and as astropy does.
_LOGARITHM = re.compile(r"\[([^\[\]]+)\]|(?:log|log10|dex)\((.+)\)", re.IGNORECASE)
_LONGEST = 200
_ROUNDING = 1e-14


@dataclass(frozen=True)
class Conversions:
    """By column, as the survey addresses it: factors to what is expected; flux columns that state no unit."""

    factors: dict[str, float] = field(default_factory=dict)
    unstated: tuple[str, ...] = ()


def parse(text: str | None) -> u.UnitBase | u.FunctionUnitBase | None:
    """Return a unit as astropy's, or None where nothing is stated.

    >>> parse("nanomaggies"), parse("10-3 Jy"), parse("---")
    (Unit("nmgy"), Unit("0.001 Jy"), None)

    Raises:
        ValueError: it is no unit that astropy or the table of spellings here knows.
    """
    plain = (text or "").strip().strip("\0").strip()
    if plain.lower() in _ABSENT:
        return None
    if len(plain) > _LONGEST:
        raise ValueError("its unit is a long text and none that is known")
    if plain.lower() in ("ab", "ab mag", "mag ab"):  # astropy's AB is the flux density of magnitude 0
        plain = "mag(AB)"
    if logarithm := _LOGARITHM.fullmatch(plain):
        of = next(filter(None, logarithm.groups())).strip()
        plain = f"dex({'1' if of.lower() in _ABSENT else of})"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for spelling in (plain, _WORD.sub(_astropys, plain)):
            try:
                unit = u.Unit(spelling, format="generic", parse_strict="raise")
            except (ValueError, TypeError, ArithmeticError, RecursionError):
                continue
            if isinstance(unit, u.FunctionUnitBase) or (np.isfinite(unit.scale) and unit.scale > 0):
                return unit
    raise ValueError(f"its unit {shortened(plain)!r} is none that is known")


def conversions(survey: Survey, stated: Mapping[str, str | None]) -> Conversions:
    """Compare the units that columns state (by their address in the survey) with those that the survey expects.

    An uncertainty without a unit has that of its flux.

    Raises:
        ValueError: one is unknown, or cannot be converted; names the column, what was found, what is expected.
    """
    factors: dict[str, float] = {}
    for name, expected in survey.expected_units.items():
        if name in stated and (factor := _factor(name, stated[name], expected)) is not None:
            factors[name] = factor
    power = -2 if survey.error_kind == "ivar" else 1
    for flux, error in zip(survey.flux, survey.error, strict=True):
        if flux in factors and error not in factors:
            factors[error] = factors[flux] ** power
        elif flux not in factors and factors.get(error, 1.0) != 1.0:
            raise ValueError(
                f"column {shortened(error)} is in {shortened(stated[error])}, but its flux {shortened(flux)} states no unit: "
                f"say what that is in, as `units: {{{shortened(flux)}: UNIT}}` of the survey in the run file"
            )
    return Conversions(factors, tuple(name for name in survey.flux if name in stated and name not in factors))


def _factor(name: str, text: str | None, expected: str) -> float | None:
    """The factor from a stated unit to the expected one; None where nothing is stated."""
    try:
        unit = parse(text)
    except ValueError as error:
        raise ValueError(f"column {shortened(name)}: {error}; {_remedy(name, expected)}") from None
    if unit is None:
        return None
    power = -2 if expected.endswith("-2") else 1
    aim = u.Unit(expected.removesuffix("-2"))
    try:
        factor = _linear(unit) ** (1 / power)
        factor = float(factor.to(aim, equivalencies=u.zero_point_flux(JANSKY_PER_MAGGY * u.Jy))) ** power
        if not (np.isfinite(factor) and factor > 0):  # decibels, say: larger is brighter
            raise u.UnitConversionError
    except u.UnitsError:
        note = " (a velocity is no redshift: join a column of redshifts)" if unit.is_equivalent(u.km / u.s) else ""
        raise ValueError(f"column {shortened(name)} is in {shortened(text)}{note}; {_remedy(name, expected)}") from None
    round_number = float(f"{factor:.12g}")  # astropy's product of factors is off in the last digit
    return round_number if abs(round_number / factor - 1) < _ROUNDING else factor


def _linear(unit: u.UnitBase | u.FunctionUnitBase) -> u.UnitBase:
    if isinstance(unit, u.FunctionUnitBase):  # mag(AB) and the like; astropy would convert the number 1 alone
        if unit.physical_unit != u.dimensionless_unscaled:
            raise u.UnitConversionError
        return unit.function_unit
    return unit


def _remedy(name: str, expected: str) -> str:
    wanted = expected or "a number without a unit"
    return (
        f"the survey's column map expects {wanted}, or what can be converted to it. Where the file is wrong, say the "
        f"right unit, as `units: {{{shortened(name)}: {expected or '1'}}}` of the survey in the run file"
    )


def _astropys(word: re.Match[str]) -> str:
    text = word[0]
    if text.startswith("M") and text.lower() == "mjy":
        return text  # mega or milli
    return _WORDS.get(text.lower(), text)
