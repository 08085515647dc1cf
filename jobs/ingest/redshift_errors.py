"""Errors of redshifts in ingest: which column holds them, what they are, how many matter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jobs.containers.tables import Table
from jobs.ingest import column_names
from sedflow_dist.photometry.calibrate import Calibrated
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.photometry.photometry import EXACT
from sedflow_dist.photometry.survey import AUTO, Survey
from storage_schemas.backend.printable import listed, shortened
from storage_schemas.photometry import REDSHIFT_SIGMA

#: What counts of rows are named by: with an error that matters, with none stated, with one that is no error.
KEY = "redshift_error"
_TITLES = {
    "uncertain": "redshift uncertain",
    "unstated": "redshift error unstated",
    "impossible": "redshift error impossible",
}


def settled(survey: Survey, table: Table) -> Survey:
    """Return a survey that names the column of errors which a table has, if it names none; none is there: as it was.

    Raises:
        ValueError: a column that is named is not there, or several may be meant.
    """
    if survey.redshift_error != AUTO:
        table.require(filter(None, [survey.redshift_error]), "It is named as the error of the redshift")
        return survey
    found = column_names.redshift_errors(table.names, survey.redshift or "")
    if len(found) > 1:
        raise ValueError(
            f"{table.title}: {listed(found)} may be the error of the redshift {shortened(survey.redshift)}: name the one that "
            f"is meant, `ingest: {{redshift_error: {shortened(found[0])}}}` in a run file"
        )
    return survey.model_copy(update={"redshift_error": found[0]}) if found else survey


def read(table: Table, survey: Survey, calibrated: Calibrated) -> dict[str, np.ndarray]:
    """Return the array of errors (row,), NaN where the input states none, if the survey has a column of them.

    Flags rows whose error is none: negative or infinite, by which pipelines say that the redshift is bad.
    """
    if (name := survey.error_of_redshift) is None:
        return {}
    there = table.found(name) is not None  # this file may lack it
    sigma = table.numbers([name])[:, 0] if there else np.full(table.n_rows, np.nan)
    calibrated.flags[_impossible(sigma)] |= np.uint32(int(Flag.BAD_REDSHIFT))
    return {REDSHIFT_SIGMA.name: sigma.astype(np.float32)}


def counts(calibrated: Calibrated, errors: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Count rows by what their errors are, if there are any."""
    if REDSHIFT_SIGMA.name not in errors:
        return {}
    sigma, z = errors[REDSHIFT_SIGMA.name], calibrated.photometry.redshift.numpy()
    bad, known = _impossible(sigma), np.isfinite(z)
    found = {
        "uncertain": known & ~bad & (sigma > EXACT * z), "unstated": known & np.isnan(sigma), "impossible": known & bad,
    }  # fmt: skip
    return {title: int(found[name].sum()) for name, title in _TITLES.items()}


def report(total: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Return what the report of an ingest says of counts over all its pieces; nothing where no errors were read."""
    found = {name: total[title] for name, title in _TITLES.items() if title in total}
    return {KEY: found} if found else {}


def lines(report: Mapping[str, Any], survey: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is said of them."""
    if (found := report.get(KEY)) is None:
        return
    yield (
        f"errors of redshifts are those of {survey['redshift_error']}: {found['uncertain']:,} rows have one above {EXACT:.1%} of "
        f"their redshift, and answers are integrated over it; {found['unstated']:,} state none and are taken as exact; "
        f"{found['impossible']:,} have an impossible one and get no answer"
    )


def _impossible(sigma: np.ndarray) -> np.ndarray:
    return (sigma < 0) | np.isinf(sigma)
