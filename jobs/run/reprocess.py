"""reprocess: a run whose input, model or settings changed; the next release of its catalog, made on top of the last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import zarr

from jobs import infer as job
from jobs.config.run_file import RunFile
from jobs.infer import Work
from jobs.ingest.job import holding, ingest_of
from jobs.run.plan import refuse_what_cannot_fit
from jobs.telemetry import events
from jobs.telemetry.progress import say
from storage_schemas.backend.lease import Lease, hold
from storage_schemas.backend.location import Location
from storage_schemas.catalog import releases
from storage_schemas.catalog import schema as catalog


@dataclass(frozen=True)
class Preview:
    """What reprocessing will do: shards in all and to compute, rows to compute, and why."""

    shards: int
    computed: int
    rows: int
    reasons: tuple[str, ...]
    release: str | None  # that holds the result already

    def __str__(self) -> str:
        if self.release:
            return f"nothing has changed since {self.release}"
        return (
            f"{self.shards - self.computed:,} shards unchanged, {self.computed:,} to compute ({self.rows:,} rows), because "
            f"of: {', '.join(self.reasons)}"
        )


@events.job("reprocess")
def reprocess(run: RunFile, dry_run: bool = False) -> dict[str, Any]:
    """Take in what changed in the run's input, say what there is to compute, and publish the next release.

    Args:
        dry_run: look at the photometry as it was taken in last, and change nothing

    Returns:
        what `infer` counted
    """
    refuse_what_cannot_fit(run)
    if dry_run:
        seen = _look(run)
        return {"rows": seen.rows, "shards": seen.computed}
    with writing(run) as (of_photometry, of_catalog):
        ingest_of(run, of_photometry)
        _look(run)
        return infer_of(run, of_catalog)


@contextmanager
def writing(run: RunFile) -> Iterator[tuple[Lease, Lease | None]]:
    """Hold the leases of a run's photometry and, where it is there in a local folder, of its catalog: nobody may change the one
    while the other is made from it.

    Raises:
        RuntimeError: another process has one of them; nothing was changed.
    """
    out = run.store("catalog")
    there = out.is_local and out.exists()
    with holding(run.store("photometry")) as photometry, hold(out, "catalog") if there else nullcontext() as lease:
        yield photometry, lease


def infer_of(run: RunFile, held: Lease | None = None) -> dict[str, Any]:
    """Infer the catalog of a run."""
    source, model, out = run.store("photometry"), run.store("model"), run.store("catalog")
    return job.infer(source, model, out, run.inference, run.seed, run.engines.dask, held)


def _look(run: RunFile) -> Preview:
    source, model, out = run.store("photometry"), run.store("model"), run.store("catalog")
    seen = preview(job.work(source, model, run.inference, run.seed), out)
    say("reprocess", f"{seen}: {out}")
    return seen


def preview(wanted: Work, out: Location) -> Preview:
    """Compare a run with what ``main`` of its catalog shows, or with its own unpublished work; changes nothing."""
    shards = wanted.layout.shards
    try:
        repo = catalog.repository(out)
        catalog.check_release(repo.readonly_session(catalog.MAIN), str(out))
        group = zarr.open_group(repo.readonly_session(catalog.MAIN).store, mode="r")
    except FileNotFoundError:
        return Preview(len(shards), len(shards), shards.n_rows, ("no release yet",), None)
    todo = releases.todo(repo, wanted.run_id, wanted.layout, wanted.keys)
    return Preview(
        len(shards),
        len(todo),
        shards.count(todo),
        _reasons(wanted, group.attrs),
        releases.find(repo, wanted.run_id),
    )


def _reasons(wanted: Work, shown: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of what differs; what differs in no setting differs in the photometry itself."""
    if shown["run_id"] == wanted.run_id:
        return ("damaged shards",)
    every = {**wanted.run, **shown["run"]}  # a setting that is off may be in neither
    names = [name for name in every if name != "photometry" and wanted.run.get(name) != shown["run"].get(name)]
    return tuple(names) or ("photometry",)
