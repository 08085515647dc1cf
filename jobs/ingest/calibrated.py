"""A table in, its rows as the photometry store has them out: columns mapped, calibrated, flagged, counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jobs.containers import exact
from jobs.containers.tables import Table, find
from jobs.ingest import agreement, hints, joined_rows, redshift_errors, units
from jobs.ingest.inputs import InputFile
from jobs.ingest.join import Joined, as_input
from sedflow_dist.photometry import surveys
from sedflow_dist.photometry.calibrate import Codes, calibrate
from sedflow_dist.photometry.cuts import Cut
from sedflow_dist.photometry.flags import REASONS, Flag
from sedflow_dist.photometry.survey import Survey
from sedflow_dist.sps.filters import Band
from storage_schemas import photometry
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import listed, shortened

#: What counts are named by, before a flux column's name: rows whose file states no unit of it.
NO_UNIT = "no unit "
#: Before the label of a band: rows that lack it, and rows in which it holds no more than a limit.
MISSING, LIMITED = "missing ", "not detected "
#: Before a column's name: rows of inputs that lack it, to which its cuts were not made.
NOT_CUT = "not cut by "
NO_POSITION = "no position"


def read(
    location: Location, rows: slice, survey: Survey, ids: Mapping[str, str], joined: Joined | None = None
) -> tuple[dict[str, Any], dict[str, int], dict[str, str]]:
    """Read rows of a catalog; return the arrays of the photometry store but ``input_file``, counts by flag and cut, and what
    all pieces must agree on.

    ``ids`` are the identifying columns and their dtypes, ``joined`` the table that has columns which the catalog lacks.

    Raises:
        ValueError: a column is missing, has the wrong unit, or holds no numbers.
    """
    masks = [cut.column for cut in survey.cuts.values() if cut.is_exact]
    masks += [rule.column for footprint in survey.footprints.values() for rule in footprint.rows]
    keys = joined.settings.keys if joined else {}
    table = Table(location, rows, (*survey.measured, *_position(survey)), (*ids, *masks, *keys))
    matched, counts = np.ones(table.n_rows, bool), dict[str, int]()
    if joined:
        joined.described(table, survey)
    unstated = _check(table, survey)
    agreed = agreement.facts(table, survey, _stated(table, survey, survey.required))
    if joined:
        matched, counts = joined_rows.onto(joined, table, _positions(table, survey))
    table.require_numbers(survey.expected_units)
    extinction = table.numbers(survey.extinction) if survey.extinction else None
    unusable = _elsewhere(table, survey)
    if survey.band_flags:
        unusable |= table.numbers(survey.band_flags) != 0
    raw = table.numbers(survey.flux), _errors(table, survey), extinction, _redshifts(table, survey)
    calibrated = calibrate(survey, *raw, unusable, _codes(table, survey), _pivots(survey))
    errors = redshift_errors.read(table, survey, calibrated)
    cuts = {name: cut for name, cut in survey.cuts.items() if cut.required or table.found(cut.column)}
    hits = {name: _hits(table, cut, calibrated.photometry.redshift.numpy()) for name, cut in cuts.items()}
    for name, hit in hits.items():
        other = Flag.NOT_A_GALAXY if survey.cuts[name].not_a_galaxy else Flag.QUALITY_CUT
        calibrated.flags[hit] |= np.uint32(int(other))
    arrays = {**calibrated.photometry.arrays(), "flags": calibrated.flags}
    arrays = {name: arrays[name] for name in photometry.DATA} | errors
    counts |= redshift_errors.counts(calibrated, errors)
    ra, dec = _positions(table, survey)
    arrays["healpix_29"] = surveys.healpix(ra, dec)
    code = np.isfinite(ra) & np.isfinite(dec) & (arrays["healpix_29"] < 0)  # of "not known", which no cone is to find
    arrays["ra"], arrays["dec"] = np.where(code, np.nan, ra), np.where(code, np.nan, dec)
    arrays["input_row"] = np.arange(rows.start, rows.stop)
    arrays |= _identifiers(table, ids)
    if ids:
        calibrated.flags[arrays[photometry.ID_MISSING].any(axis=1)] |= np.uint32(int(Flag.NO_ID))
    arrays["flags"][~matched] |= np.uint32(int(Flag.NO_MATCH))
    counts |= {f"cut {name}": int(hit.sum()) for name, hit in hits.items()}
    counts |= {f"{NOT_CUT}{survey.cuts[name].column}": table.n_rows for name in survey.cuts if name not in cuts}
    counts |= {f"{NO_UNIT}{name}": table.n_rows for name in unstated}
    for title, entries in ((MISSING, ~arrays["mask"]), (LIMITED, calibrated.limited)):
        counts |= {f"{title}{label}": int(n) for label, n in zip(survey.labels, entries.sum(0), strict=True) if n}
    counts[NO_POSITION] = int(np.sum(arrays["healpix_29"] < 0))
    return arrays, {**flag_counts(arrays["flags"]), **counts}, agreed


def _errors(table: Table, survey: Survey) -> np.ndarray:
    """Uncertainties (galaxy, band); NaN of bands that have no column of them."""
    none = np.full(table.n_rows, np.nan)
    return np.stack([none if name is None else table.numbers([name])[:, 0] for name in survey.errors], axis=1)


def _codes(table: Table, survey: Survey) -> Codes:
    """Where columns hold the survey's codes: as the file has them, before they are converted."""

    def column(name: str) -> np.ndarray:
        values = table.column(name)
        text = values.dtype.kind not in "iuf"
        return (
            np.ma.masked_array(np.ma.getdata(values).astype(np.float64), np.ma.getmaskarray(values)) if text else values
        )

    errors = [None if name is None else column(name) for name in survey.errors]
    return Codes.of(survey, [column(name) for name in survey.flux], errors)


def _elsewhere(table: Table, survey: Survey) -> np.ndarray:
    """Bands (galaxy, band) that belong to a footprint in which the galaxy does not lie."""
    found = np.zeros((table.n_rows, len(survey.labels)), bool)
    for footprint in survey.footprints.values():
        rule = next((rule for rule in footprint.rows if table.found(rule.column)), footprint.rows[-1])
        own = np.array([label in footprint.bands for label in survey.labels])
        found |= ~_exact_hits(table, rule)[:, None] & own
    return found


def _pivots(survey: Survey) -> np.ndarray | None:
    """Pivot wavelengths of the bands [A], where the survey's fluxes are per wavelength."""
    if survey.kind != "flux per wavelength":
        return None
    return np.array([Band.load(band).pivot for band in survey.bands])


def flag_counts(flags: np.ndarray) -> dict[str, int]:
    """Count the rows (galaxy,), those that can be answered, and those with each flag that any has."""
    counts = {"rows": len(flags), "usable": int(np.sum((flags & int(REASONS)) == 0))}
    return counts | {flag.name or "": n for flag in Flag if (n := int(np.sum((flags & int(flag)) != 0)))}


def first_row(files: Sequence[InputFile], survey: Survey, joined: Joined | None = None) -> Table:
    """Return a table of the first row of the first catalog, with the columns that are joined."""
    table = Table(files[0].location, slice(0, 1), (*survey.measured, *_position(survey)))
    if joined:
        joined.described(table, survey)
    return table


def identifiers(
    files: Sequence[InputFile], survey: Survey, first: Table, joined: Joined | None = None
) -> dict[str, str]:
    """Return the identifying columns of catalogs and their dtypes (int64, uint64 or str): those of every file.

    ``first``: `first_row` of them.

    Raises:
        ValueError: a column that the survey needs is missing, or has the wrong unit; or an identifier is of several types.
    """
    _check(first, survey)
    files = [*files, *(as_input(joined) if joined else ())]
    return {name: _common_type(files, name) for name in survey.ids}


def _common_type(files: Sequence[InputFile], name: str) -> str:
    """The dtype of an identifier, which all files must agree on: 12, 12.0 and 00012 are not the same name of a galaxy."""
    first: dict[str, InputFile] = {}
    for file in files:
        if (kind := file.id_types.get(name)) is not None:
            first.setdefault(kind, file)
    if len(first) > 1:
        found = ", ".join(f"{kind} in {file.location}" for kind, file in first.items())
        raise ValueError(
            f"identifier {name} is {found}: give it one type in all files (text of a CSV table is text, whatever it looks like)"
        )
    return next(iter(first), "str")


def _redshifts(table: Table, survey: Survey) -> np.ndarray:
    """Redshifts (row,); NaN where the survey has none."""
    return table.numbers([survey.redshift])[:, 0] if survey.redshift else np.full(table.n_rows, np.nan)


def _check(table: Table, survey: Survey) -> tuple[str, ...]:
    """Check that the columns are there and in units that can be converted; return flux columns that state none."""
    if survey.redshift is None and not survey.without_redshifts:
        raise ValueError(
            f"survey {survey.name} has no redshifts of its own: join a column of them, photometric ones for example, to "
            f"{table.title} and name it with --redshift, or `ingest: {{redshift: NAME}}` in a run file; where a model infers "
            f"redshifts, say --redshift none; its columns are {listed(table.names)}. {hints.of_redshift(survey, table.names)}"
        )
    for said in (hints.of_missing(survey, table.names), hints.of_positions(survey, table.names)):
        if said:
            raise ValueError(f"{table.title} {said}")
    cuts = [cut.column for cut in survey.cuts.values()]
    quantities = [name for name in (*survey.required, *_position(survey)) if name not in cuts]
    fluxes = [name for name in (*survey.flux, *survey.errors) if name]
    table.require_distinct((*quantities, *fluxes), cuts)
    if survey.redshift and table.found(survey.redshift) in map(table.found, fluxes):
        raise ValueError(
            f"{table.title}: column {shortened(survey.redshift)} is a flux, or its uncertainty, of survey {survey.name}, and its "
            f"redshift as well: name the column of redshifts (--redshift COLUMN); its columns are {listed(table.names)}"
        )
    try:
        conversions = units.conversions(survey, _stated(table, survey, survey.expected_units))
    except ValueError as error:
        raise ValueError(f"{table.title}: {error}") from error
    table.scale(conversions.factors)
    return conversions.unstated


def _stated(table: Table, survey: Survey, names: Iterable[str]) -> dict[str, str | None]:
    """Units of columns by their address: as the survey declares them, "" for a pure number; else as the table states them."""
    declared = {table.found(name): unit.strip() or "1" for name, unit in survey.units.items()}
    stated = {}
    for name in names:
        if found := table.found(name):
            column = found.partition("[")[0]
            stated[name] = declared.get(found, declared.get(column, table.unit(name)))
    return stated


def _position(survey: Survey) -> list[str]:
    return [name for name in (survey.ra, survey.dec) if name]


def _positions(table: Table, survey: Survey) -> tuple[np.ndarray, np.ndarray]:
    """Right ascension and declination (row,) [deg]; NaN where the survey, or the table, has none."""
    there = [name if name and find(name, table.names) else None for name in (survey.ra, survey.dec)]
    ra, dec = (table.numbers([name])[:, 0] if name else np.full(table.n_rows, np.nan) for name in there)
    return ra, dec


def _identifiers(table: Table, ids: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The arrays of identifiers as the store has them, and which of them rows lack."""
    arrays, missing = {}, []
    for name, kind in ids.items():
        column = table.exact(name)
        try:
            arrays[photometry.id_array(name)] = column.as_kind(kind)
        except ValueError as error:
            raise ValueError(f"{table.path}: identifier {name} is {error}") from None
        missing.append(column.missing)
    return {**arrays, photometry.ID_MISSING: np.stack(missing, axis=1)} if ids else {}


def _hits(table: Table, cut: Cut, redshift: np.ndarray) -> np.ndarray:
    """Rows that a cut hits."""
    if cut.is_exact:
        return _exact_hits(table, cut)
    values = table.numbers([cut.column])[:, 0]
    return cut.hits(values / (1 + redshift.astype(np.float64)) if cut.per_one_plus_z else values)


def _exact_hits(table: Table, cut: Cut) -> np.ndarray:
    """Rows that bits or classes hit: bits of the container's integers, not of floats made of them; classes may be text."""
    column = table.exact(cut.column)
    values = column.values
    if values.dtype.kind == "T" and cut.bits:
        numbers = exact.integers(column)
        values = table.numbers([cut.column])[:, 0] if numbers is None else numbers.values
    elif values.dtype.kind == "V":
        values = np.zeros(len(values), np.int64)
    try:
        return cut.hits(values) & ~column.missing
    except ValueError as error:
        raise ValueError(f"{table.path}: {error}") from None
