"""Units that a survey may declare of its fluxes, and how many of each a nanomaggy is.

In: a unit as astropy writes it. Out: what kind it is of, and numbers per nanomaggy. A flux per wavelength needs the band's pivot
wavelength, by which f_nu = f_lambda pivot^2 / c is exact for means over a band (Koornneef et al. 1986).
"""

from __future__ import annotations

import re
import warnings
from functools import cache
from typing import Literal

import astropy.units as u
import numpy as np

from sedflow_dist.magnitudes import JANSKY_PER_MAGGY

Kind = Literal["flux", "flux per wavelength", "magnitude", "counts"]

_ALLOWED = (
    "nanomaggy, maggy, a flux density as astropy writes it (nJy, uJy, erg / (s cm2 Hz), erg / (s cm2 Angstrom)), mag, or, "
    "with a zero_point, counts"
)
#: Magnitudes of a system, in the spellings of catalogs.
_SYSTEMS = {
    "AB": re.compile(r"ab([ _]?mags?)?|m?mag *[(_]?ab\)?", re.IGNORECASE),
    "Vega": re.compile(r"vega([ _]?mags?)?|m?mag *[(_]?vega\)?", re.IGNORECASE),
    "ST": re.compile(r"st[ _]?mags?|m?mag *[(_]?st\)?", re.IGNORECASE),
    "asinh": re.compile(r"a(rc)?sinh[ _-]?mag(nitude)?s?|m?mag *[(_]?a(rc)?sinh\)?|lupt(itude|mag)?s?", re.IGNORECASE),
}
_PLURALS = {"nanomaggies": "nanomaggy", "maggies": "maggy", "counts": "count"}
#: What instruments count, and the time by which they divide.
_COUNTED = {"ct", "adu", "DN", "electron", "ph", "s"}
#: By which astropy converts maggies to other flux densities.
MAGGY = u.zero_point_flux(JANSKY_PER_MAGGY * u.Jy)
#: Data numbers are what analog-to-digital units are.
_SYNONYMS = {u.DN: u.adu}
_ROUNDING = 1e-14


@cache
def kind(unit: str) -> Kind:
    """Return what a survey's unit measures.

    >>> kind("uJy"), kind("erg / (s cm2 Angstrom)"), kind("mag"), kind("adu / s")
    ('flux', 'flux per wavelength', 'magnitude', 'counts')

    Raises:
        ValueError: it is none of these, or no unit; says what is allowed.
    """
    found = parsed(unit)
    if found == u.mag:
        return "magnitude"
    if is_counts(found):
        return "counts"
    if found.is_equivalent(u.Jy, equivalencies=MAGGY):
        return "flux"
    if found.is_equivalent(u.Unit("erg / (s cm2 Angstrom)")):
        return "flux per wavelength"
    raise ValueError(f"unit {unit!r} is no flux density; allowed are {_ALLOWED}")


def system(text: str) -> str | None:
    """Return the system of magnitudes that a text states (AB, Vega, ST or asinh), or None where it states none.

    >>> system("ABmag"), system("mag(Vega)"), system("luptitude"), system("mag")
    ('AB', 'Vega', 'asinh', None)
    """
    plain = " ".join(text.split())
    return next((name for name, spelling in _SYSTEMS.items() if spelling.fullmatch(plain)), None)


def is_counts(unit: u.UnitBase) -> bool:
    """Whether a unit is of counts of an instrument, per time or not, or a pure number."""
    plain = unit.decompose()
    bases = {base.name: power for base, power in zip(plain.bases, plain.powers, strict=True)}
    return bases.keys() <= _COUNTED and bases.get("s", -1) == -1


def counts(unit: u.UnitBase, expected: u.UnitBase) -> float:
    """Return how many of the counts that a survey expects one of a unit is.

    Plain counts (or a number) are of whatever an instrument counts, per second or not: the zero point is that of one.

    >>> counts(u.Unit("1000 adu"), u.ct), counts(u.electron / u.s, u.ct), counts(u.ct / u.s, u.ct / u.min)
    (1000.0, 1.0, 60.0)

    Raises:
        u.UnitConversionError: they are of something else; or per minute, say, where a zero point of plain counts does not tell
            of what.
    """
    if expected in (u.ct, u.dimensionless_unscaled):
        plain = unit.decompose()
        if not is_counts(unit) or (u.s in plain.bases and rounded(plain.scale) != 1):
            raise u.UnitConversionError
        return rounded(float(plain.scale))
    return rounded(float(unit.to(expected, equivalencies=list(_SYNONYMS.items()))))


def counted(unit: u.UnitBase) -> str:
    """Return what a unit of counts counts, per second or not, in whatever number; a pure number is of counts.

    >>> counted(u.Unit("1000 DN / min")), counted(u.percent)
    ('adu / s', 'ct')
    """
    plain = unit.decompose()
    powers = {_SYNONYMS.get(base, base): power for base, power in zip(plain.bases, plain.powers, strict=True)}
    if powers.keys() <= {u.s}:
        powers[u.ct] = 1
    return u.CompositeUnit(1, list(powers), list(powers.values())).to_string()


@cache
def per_nanomaggy(unit: str, pivot: float | None = None) -> float:
    """Return how many of a flux density a nanomaggy is; ``pivot`` [A] is needed of a flux per wavelength.

    >>> per_nanomaggy("nJy"), per_nanomaggy("maggy")
    (3631.0, 1e-09)
    """
    nanomaggy = 1e-9 * JANSKY_PER_MAGGY * u.Jy
    if kind(unit) == "flux per wavelength":
        if pivot is None:
            raise ValueError(f"unit {unit!r} is a flux per wavelength: a pivot wavelength is needed")
        value = nanomaggy.to_value(parsed(unit), equivalencies=u.spectral_density(pivot * u.AA))
    else:
        value = nanomaggy.to_value(parsed(unit), equivalencies=MAGGY)
    return rounded(float(value))


def rounded(factor: float) -> float:
    """Return a factor without the error of astropy's products in its last digit, where it is a round number."""
    round_number = float(f"{factor:.12g}")
    return round_number if abs(round_number / factor - 1) < _ROUNDING else factor


def parsed(text: str) -> u.UnitBase:
    """Return a unit that a survey declares of its fluxes.

    Raises:
        ValueError: it is none, or of a scale that no flux has; says what is allowed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # several slashes are discouraged, and mean what they say
        try:
            found = u.Unit(_PLURALS.get(text, text), format="generic", parse_strict="raise")
        except (ValueError, TypeError, ArithmeticError, RecursionError):
            raise ValueError(f"unit {text!r:.60} is none that astropy knows; allowed are {_ALLOWED}") from None
    if not isinstance(found, u.UnitBase) or not (np.isfinite(found.scale) and found.scale > 0):
        hint = ": say mag, and the system beside it" if isinstance(found, u.FunctionUnitBase) else ""
        raise ValueError(f"unit {text!r:.60} is no flux density{hint}; allowed are {_ALLOWED}")
    return found
