"""What all pieces of an input must agree on, and none can tell alone: how long vectors are, what cuts and counts are in.

Rows in, facts by name out; the facts of all pieces are compared when the pieces are made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jobs.containers.tables import Table
from jobs.containers.units import parse
from sedflow_dist.photometry import flux_units
from sedflow_dist.photometry.survey import Survey
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import printable, shortened

Facts = Mapping[str, str]


def facts(table: Table, survey: Survey, units: Mapping[str, str | None]) -> dict[str, str]:
    """Return what a piece of a survey's input says; ``units`` are those of columns, as stated or declared, by their address."""
    found = lengths(table, (*survey.required, *(name for name in (survey.ra, survey.dec) if name)))
    if survey.footprints:  # or a row's footprint would depend on which of them lies beside it
        deciding = [rule.column for footprint in survey.footprints.values() for rule in footprint.rows]
        first = next((name for name in deciding if table.found(name)), "")
        found["the column that tells footprints apart"] = shortened(first)
    converted = {table.found(name) for name in survey.expected_units}
    for cut in survey.cuts.values():
        if not (cut.is_exact or table.found(cut.column) in converted):
            found[f"the unit of {shortened(cut.column)}"] = _unit(units.get(cut.column))
    if survey.kind == "counts":
        for name in survey.flux:
            unit = parse(units.get(name))
            if unit is not None and flux_units.is_counts(unit):
                found[f"what {shortened(name)} counts"] = flux_units.counted(unit)
    return found


def lengths(table: Table, names: Iterable[str]) -> dict[str, str]:
    """Return how many entries those columns of vectors have of which names address one: the third of five may be another
    quantity than the third of seven."""
    widths = {name.partition("[")[0]: table.width(name) for name in names if table.found(name)}
    return {f"the number of entries per row of {shortened(name)}": str(n) for name, n in widths.items() if n}


def require(pieces: Iterable[tuple[Location, Facts]]) -> None:
    """Raise ValueError, naming what and where, unless all pieces say the same."""
    known: dict[str, tuple[str, Location]] = {}
    for location, said in pieces:
        for what, value in said.items():
            before, where = known.setdefault(what, (value, location))
            if value != before:
                there = "other rows" if where.url == location.url else printable(where)
                raise ValueError(
                    f"{printable(location)}: {what} is {value}, and {before} in {there}; it must be one in the whole input. "
                    "Where a file's unit is wrong, or not stated, say it, as `units: {COLUMN: UNIT}` of the survey in the run file"
                )


def _unit(text: str | None) -> str:
    """A unit, however it is written."""
    try:
        unit = parse(text)
    except ValueError:  # one that nobody knows
        return shortened(text)
    return "not stated" if unit is None else unit.to_string()
