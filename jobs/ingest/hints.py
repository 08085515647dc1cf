"""What to say where a table lacks what a survey wants: which of its columns look like that, which survey it fits."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from jobs.containers.tables import find
from jobs.ingest import column_names
from sedflow_dist.photometry.survey import Survey
from sedflow_dist.photometry.surveys import SURVEYS
from storage_schemas.backend.printable import listed, shortened

_PROPOSED = 3


def lacking(survey: Survey, names: Sequence[str], wanted: Sequence[str] | None = None) -> list[str]:
    """Return which columns of a survey (or which of those ``wanted``) a table with these columns does not have."""
    return [name for name in (survey.required if wanted is None else wanted) if not _there(name, names)]


def of_missing(survey: Survey, names: Sequence[str]) -> str:
    """Return what to say of columns that a survey needs and a table lacks, or nothing where it has all."""
    missing = lacking(survey, names)
    if not missing:
        return ""
    said = f"lacks {listed(missing)}; its columns are {listed(names)}."
    if missing == [survey.redshift]:
        return f"{said} {of_redshift(survey, names)}"
    others = [one.name for one in fitting(names) if one.name != survey.name]
    if others:
        return f"{said} They are those of the survey {' or '.join(others)}: --survey {others[0]}"
    return f"{said} If they have other names here, declare the survey in a run file: `sedflow inspect` of this file proposes one"


def of_redshift(survey: Survey, names: Sequence[str]) -> str:
    """Return what may serve as the redshift of a table that lacks the survey's."""
    alike = [name for name in column_names.redshifts(names) if name != survey.redshift]
    if alike:
        return (
            f"{_or(alike)} may be the redshift: name it with --redshift {shlex.quote(alike[0])}, or `ingest: {{redshift: "
            f"{shortened(alike[0])}}}` in a run file"
        )
    return (
        "None looks like a redshift: name it with --redshift COLUMN, or `ingest: {redshift: COLUMN}` in a run file; or, where "
        "redshifts stand in another table, join them to this one (docs/your-table.md)"
    )


def of_positions(survey: Survey, names: Sequence[str]) -> str:
    """Return what to say of positions that a survey names and a table has only under other names, or nothing."""
    missing = lacking(survey, names, [name for name in (survey.ra, survey.dec) if name])
    alike = column_names.positions(names)
    if not missing or not alike:
        return ""
    pairs = [f"{shortened(ra)}, {shortened(dec)}" for ra, dec in alike]
    ra, dec = map(shortened, alike[0])
    typed = "--ra {} --dec {}".format(*map(shlex.quote, alike[0]))
    return (
        f"lacks {listed(missing)}, the positions of the survey {survey.name}; {_or(pairs)} may be them: name them with "
        f"{typed}, or `ingest: {{ra: {ra}, dec: {dec}}}` in a run file; a survey that is to have no positions says "
        "`ra: null, dec: null`"
    )


def fitting(names: Sequence[str]) -> list[Survey]:
    """Return built-in surveys whose columns a table has, but for the redshift perhaps."""
    return [survey for survey in SURVEYS.values() if not set(lacking(survey, names)) - {survey.redshift}]


def _there(name: str, names: Sequence[str]) -> bool:
    try:
        return find(name, names) is not None
    except ValueError:  # there twice but for the case: whoever reads it says so
        return True


def _or(names: Sequence[str]) -> str:
    more = f" (and {len(names) - _PROPOSED} more)" if len(names) > _PROPOSED else ""
    return " or ".join(map(shortened, names[:_PROPOSED])) + more
