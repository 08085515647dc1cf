"""Units that a catalog states in, factors out by which its columns become what the survey's column map expects.

What cannot be converted is refused, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import astropy.units as u
import numpy as np

from jobs.containers.units import parse
from sedflow_dist.magnitudes import JANSKY_PER_MAGGY
from sedflow_dist.photometry import flux_units
from sedflow_dist.photometry.survey import Survey
from storage_schemas.backend.printable import shortened

_PURE = "'1'"  # as it is typed: YAML takes a plain 1 for a number


@dataclass(frozen=True)
class Conversions:
    """By column, as the survey addresses it: factors to what is expected; flux columns that state no unit."""

    factors: dict[str, float] = field(default_factory=dict)
    unstated: tuple[str, ...] = ()


def conversions(survey: Survey, stated: Mapping[str, str | None]) -> Conversions:
    """Compare the units that columns state (by their address in the survey) with those that the survey expects.

    An uncertainty without a unit has that of its flux, where both are measured in the same.

    Raises:
        ValueError: one is unknown, or cannot be converted; names the column, what was found, what is expected.
    """
    factors: dict[str, float] = {}
    counted = zip(survey.flux, survey.errors, survey.zero_points or (), strict=False)
    zero_points = {name: point for flux, error, point in counted for name in (flux, error) if name}
    for name, expected in survey.expected_units.items():
        if name not in stated:
            continue
        text = stated[name]
        if expected.startswith("mag") and name in (*survey.flux, *survey.errors):
            text = _of_system(name, text, expected, survey)
        if (factor := _factor(name, text, expected, zero_points.get(name))) is not None:
            factors[name] = factor
    power = -2 if survey.error_kind == "ivar" else 1
    for flux, error in zip(survey.flux, survey.errors, strict=True):
        if error is None or (survey.error_kind == "magnitude" and survey.kind != "magnitude"):
            continue
        if flux in factors and error not in factors:
            factors[error] = factors[flux] ** power
        elif flux not in factors and factors.get(error, 1.0) != 1.0:
            raise ValueError(
                f"column {shortened(error)} is in {shortened(stated[error])}, but its flux {shortened(flux)} states no unit: "
                f"say what that is in, as `units: {{{shortened(flux)}: UNIT}}` of the survey in the run file"
            )
        if survey.kind == "counts":
            _require_same_counts(flux, stated.get(flux), error, stated.get(error), power)
    return Conversions(factors, tuple(name for name in survey.flux if name in stated and name not in factors))


def _require_same_counts(flux: str, of_flux: str | None, error: str, of_error: str | None, power: int) -> None:
    """Raise ValueError where a flux and its error count different things: electrons and data numbers, or such per second."""
    one, other = parse(of_flux), parse(of_error)
    if one is None or other is None:
        return
    one, other = _linear(one), _linear(other) ** (1 / power)
    if (
        flux_units.is_counts(one)
        and flux_units.is_counts(other)
        and flux_units.counted(one) != flux_units.counted(other)
    ):
        raise ValueError(
            f"column {shortened(flux)} is in {shortened(of_flux)} and its error {shortened(error)} in {shortened(of_error)}, which "
            f"cannot be converted: where the file is wrong, say the right unit, as `units: {{{shortened(error)}: UNIT}}` of the "
            "survey in the run file"
        )


def _of_system(name: str, text: str | None, expected: str, survey: Survey) -> str | None:
    """The unit of a column of magnitudes without the system that it states, which must be the survey's; an error has none.

    Raises:
        ValueError: it is another; or asinh magnitudes are stated and the survey has no softening for them.
    """
    found = flux_units.system(text or "")
    if found is None:
        return text
    plain = "mmag" if (text or "").strip().lower().startswith("mmag") else "mag"
    if name in survey.errors:
        return plain
    ours = "asinh" if survey.softening is not None else survey.system
    if found != ours and not (found == "AB" and ours == "asinh" and survey.system == "AB"):
        say = {
            "asinh": "give its softening parameters", "Vega": "say `system: Vega` and its ab_offset",
            "AB": "say `system: AB`, and no softening", "ST": "convert them",
        }[found]  # fmt: skip
        raise ValueError(
            f"column {shortened(name)} is in {shortened(text)}, and the survey's magnitudes are {ours}: {say}; "
            f"{_remedy(name, expected)}"
        )
    return plain


def _factor(name: str, text: str | None, expected: str, zero_point: float | None = None) -> float | None:
    """The factor from a stated unit to the expected one; None where nothing is stated.

    Where there is a zero point, counts are expected, and flux densities are made such counts.
    """
    try:
        unit = parse(text)
    except ValueError as error:
        raise ValueError(f"column {shortened(name)}: {error}; {_remedy(name, expected)}") from None
    if unit is None:
        return None
    power = -2 if expected.endswith("-2") else 1
    inner = (
        expected[1:-3] if expected.endswith(")-2") else expected.removesuffix("-2")
    )  # astropy reads no unit in brackets
    ours = flux_units.parsed(inner)
    try:
        factor = _linear(unit) ** (1 / power)
        if zero_point is not None:
            if flux_units.is_counts(factor):
                return flux_units.rounded(flux_units.counts(factor, ours) ** power)
            aim = 10 ** (-0.4 * zero_point) * JANSKY_PER_MAGGY * u.Jy
        else:
            aim = ours
        factor = float(factor.to(aim, equivalencies=flux_units.MAGGY)) ** power
        if not (np.isfinite(factor) and factor > 0):  # decibels, say: larger is brighter
            raise u.UnitConversionError
    except u.UnitsError:
        note = " (a velocity is no redshift: join a column of redshifts)" if unit.is_equivalent(u.km / u.s) else ""
        raise ValueError(
            f"column {shortened(name)} is in {shortened(text)}{note}; {_remedy(name, expected)}{_declaration(unit, expected)}"
        ) from None
    return flux_units.rounded(factor)


def _declaration(unit: u.UnitBase | u.FunctionUnitBase, expected: str) -> str:
    """What a survey declares whose fluxes are in a unit of another kind than what is expected."""
    if expected in ("", "deg") or expected.startswith("mag"):
        return ""
    if isinstance(unit, u.FunctionUnitBase) or unit.is_equivalent(u.mag):
        return ". Of magnitudes, the survey says `unit: mag`; of errors in magnitudes, `error_kind: magnitude`"
    return ". Of counts, the survey gives a zero_point" if flux_units.is_counts(unit) else ""


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
        f"right unit, as `units: {{{shortened(name)}: {expected or _PURE}}}` of the survey in the run file"
    )
