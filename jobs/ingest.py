"""ingest: a catalog file in, a photometry store out. Every input row becomes a row, in order; bad values are flagged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jobs.progress import bar, say
from jobs.tables import Table, resolve
from sedflow_dist import surveys
from sedflow_dist.flags import Flag
from sedflow_dist.surveys import Photometry, Survey
from storage_schemas import photometry
from storage_schemas.chunked import ChunkedStore
from storage_schemas.storage import Location


def calibrate(table: Table, survey: Survey) -> Photometry:
    """Return the calibrated photometry of a catalog.

    Raises:
        ValueError: a column is missing or has the wrong unit.
    """
    table.require((*survey.flux, *survey.error, *(survey.extinction or ()), survey.redshift, *survey.ids))
    for name in survey.flux:
        table.check_unit(name, survey.unit)
    extinction = table.numbers(survey.extinction) if survey.extinction else None
    redshift = table.numbers([survey.redshift])[:, 0]
    return surveys.calibrate(survey, table.numbers(survey.flux), table.numbers(survey.error), extinction, redshift)


def ingest(source: str | Path, survey: Survey, out: Location, rows_per_chunk: int) -> ChunkedStore:
    """Fill what is missing of a photometry store; prints how many rows bear each flag."""
    path = resolve(source)
    settings = {"source": path.name, "content": _checksum(path), "survey": survey.model_dump(mode="json")}
    table = Table(source)
    rows = calibrate(table, survey)
    ids = {name: table.column(name) for name in survey.ids}
    kinds = {name: "int64" if values.dtype.kind in "iu" else "str" for name, values in ids.items()}
    store = photometry.create(out, table.n_rows, rows_per_chunk, survey.labels, kinds, settings)
    values = {name: getattr(rows, name) for name in photometry.DATA}
    for name, column in (("ra", survey.ra), ("dec", survey.dec)):
        try:
            values[name] = table.numbers([column])[:, 0] if column else np.full(table.n_rows, np.nan)
        except ValueError:
            values[name] = np.full(table.n_rows, np.nan)
    values["healpix_29"] = surveys.healpix(values["ra"], values["dec"])
    values["input_file"], values["input_row"] = np.zeros(table.n_rows, np.int32), np.arange(table.n_rows)
    values |= {
        name: v.astype("int64" if kinds[name] == "int64" else np.dtypes.StringDType()) for name, v in ids.items()
    }
    missing = store.missing()
    with bar("ingest", table.n_rows, "rows", 0 if missing else table.n_rows) as progress:
        for chunk in missing:
            at = store.rows(chunk)
            store.write(chunk, {name: v[at] for name, v in values.items()})
            progress.update(at.stop - at.start)
    counts = [f"{count:,} {flag.name}" for flag in Flag if (count := int(np.sum((rows.flags & int(flag)) != 0)))]
    say("ingest", f"{table.n_rows:,} rows of {path.name}, flagged: {', '.join(counts) or 'none'}; {out}")
    return store


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            yield block
