"""A table in, its rows as the photometry store has them out: columns mapped, calibrated, flagged, counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jobs.ingest import units
from jobs.ingest.formats import missing
from jobs.ingest.tables import Table, find
from jobs.telemetry.printable import listed, shortened
from sedflow_dist.photometry import surveys
from sedflow_dist.photometry.flags import REASONS, Flag
from sedflow_dist.photometry.surveys import Survey
from storage_schemas import photometry
from storage_schemas.backend.location import Location

#: What counts are named by, before a flux column's name: rows whose file states no unit of it.
NO_UNIT = "no unit "


def read(
    location: Location, rows: slice, survey: Survey, ids: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, int]]:
    """Read rows of a catalog; return the arrays of the photometry store but ``input_file``, and counts by flag and cut.

    ``ids`` are the identifying columns and their dtypes.

    Raises:
        ValueError: a column is missing, has the wrong unit, or holds no numbers.
    """
    table = Table(location, rows, (*survey.required, *_position(survey)))
    unstated = _check(table, survey)
    extinction = table.numbers(survey.extinction) if survey.extinction else None
    unusable = table.numbers(survey.band_flags) != 0 if survey.band_flags else None
    raw = (
        table.numbers(survey.flux),
        table.numbers(survey.error),
        extinction,
        table.numbers([survey.redshift or ""])[:, 0],
    )
    calibrated = surveys.calibrate(survey, *raw, unusable)
    hits = {name: cut.hits(table.numbers([cut.column])[:, 0]) for name, cut in survey.cuts.items()}
    for hit in hits.values():
        calibrated.flags[hit] |= np.uint32(int(Flag.QUALITY_CUT))
    arrays = {name: getattr(calibrated, name) for name in photometry.DATA}
    for name, column in (("ra", survey.ra), ("dec", survey.dec)):
        there = column is not None and find(column, table.names) is not None
        arrays[name] = table.numbers([column or ""])[:, 0] if there else np.full(table.n_rows, np.nan)
    arrays["healpix_29"] = surveys.healpix(arrays["ra"], arrays["dec"])
    arrays["input_row"] = np.arange(rows.start, rows.stop)
    arrays |= {name: _identifier(table, name, kind) for name, kind in ids.items()}
    counts = {f"cut {name}": int(hit.sum()) for name, hit in hits.items()}
    counts |= {f"{NO_UNIT}{name}": table.n_rows for name in unstated}
    return arrays, {**flag_counts(arrays["flags"]), **counts}


def flag_counts(flags: np.ndarray) -> dict[str, int]:
    """Count the rows (galaxy,), those that can be answered, and those with each flag that any has."""
    counts = {"rows": len(flags), "usable": int(np.sum((flags & int(REASONS)) == 0))}
    return counts | {flag.name or "": n for flag in Flag if (n := int(np.sum((flags & int(flag)) != 0)))}


def identifiers(location: Location, survey: Survey) -> dict[str, str]:
    """Return the identifying columns of a catalog and their dtypes (int64 or str), after a look at its first row.

    Raises:
        ValueError: a column that the survey needs is missing, or has the wrong unit.
    """
    table = Table(location, slice(0, 1), (*survey.required, *_position(survey)))
    _check(table, survey)
    return {name: "int64" if table.column(name).dtype.kind in "iu" else "str" for name in survey.ids}


def _check(table: Table, survey: Survey) -> tuple[str, ...]:
    """Check that the columns are there and in units that can be converted; return flux columns that state none."""
    if survey.redshift is None:
        raise ValueError(
            f"survey {survey.name} has no redshifts of its own: join a column of them, photometric ones for example, to "
            f"{table.title} and name it with --redshift, or `ingest: {{redshift: NAME}}` in a run file; its columns are "
            f"{listed(table.names)}"
        )
    table.require(survey.required)
    declared = {table.found(name): unit for name, unit in survey.units.items()}
    stated = {}
    for name in survey.expected_units:
        if found := table.found(name):
            stated[name] = declared.get(found) or declared.get(found.partition("[")[0]) or table.unit(name)
    try:
        conversions = units.conversions(survey, stated)
    except ValueError as error:
        raise ValueError(f"{table.title}: {error}") from error
    table.scale(conversions.factors)
    return conversions.unstated


def _position(survey: Survey) -> list[str]:
    return [name for name in (survey.ra, survey.dec) if name]


def _identifier(table: Table, name: str, kind: str) -> np.ndarray:
    values = table.column(name)
    if (absent := missing(values)).any():
        raise ValueError(
            f"{table.title}: identifier {shortened(name)} misses, first in row {np.argmax(absent)} of those read"
        )
    values = np.ma.getdata(values)
    if kind == "str":
        return values.astype(np.dtypes.StringDType())
    numbers = np.asarray(values)
    if numbers.dtype.kind not in "iu":
        raise ValueError(
            f"{table.title}: identifier {shortened(name)} is an integer in the first file and {numbers.dtype} here"
        )
    return numbers.astype(np.int64)
