"""ingest: catalogs in, one photometry store out. Every input row becomes a row; bad values and duplicates are flagged.

An external merge sort by Dask in bounded memory. Each piece of an input file becomes a sorted run; each group of the store's
chunks is merged from the slices of runs that hold its rows. What is there already, by the hash of its content, is not made
again; where the input changed, only chunks whose rows did are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from distributed import Client

from cluster import dask_engine
from cluster.settings import DaskSettings
from jobs.config.joining import Join
from jobs.config.run_file import RunFile
from jobs.config.sections import Ingest
from jobs.ingest import (
    agreement,
    calibrated,
    groups,
    inputs,
    join,
    joined_rows,
    plausibility,
    redshift_errors,
    repeats,
    sorted_runs,
)
from jobs.ingest.groups import Borders, Grouping
from jobs.ingest.inputs import InputFile
from jobs.ingest.repeats import Repeats
from jobs.ingest.sorted_runs import Piece, Run, Sorting
from jobs.run.plan import refuse_ingest
from jobs.telemetry import events
from jobs.telemetry.progress import Clock, bar, say
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.photometry.survey import Survey
from storage_schemas import photometry
from storage_schemas.backend.access import Access
from storage_schemas.backend.chunked import ChunkedStore
from storage_schemas.backend.lease import Lease, hold
from storage_schemas.backend.location import Location
from storage_schemas.backend.ours import remove_working, require_free, working_folder
from storage_schemas.photometry import File

_FILES_NAMED = 10
#: Parts of a report, and how they are told.
_TOLD = {
    "flags": "flagged", "cuts": "hit by the cuts", "missing": "rows that lack a band",
    "not_detected": "rows with no more than a limit in a band",
}  # fmt: skip
WHAT = "photometry store"


@events.job("ingest")
def ingest(
    source: str | Path | Sequence[str | Path], survey: Survey, out: Location, rows_per_chunk: int,
    settings: Ingest | None = None, dask: DaskSettings | None = None, held: Lease | None = None,
    joining: Join | None = None, access: Access | None = None,
) -> ChunkedStore:  # fmt: skip
    """Fill what is missing of a photometry store, or has changed; report what flags and cuts hit.

    ``held`` is the lease of the store where the caller has it already; ``joining`` says which table is joined to the input, and
    ``access`` how inputs in buckets are reached.

    Raises:
        FileNotFoundError, ValueError: an input is not there, or is none; a column is missing or has the wrong unit; the store
            was made with other settings; workers have less memory than the settings ask for.
        FileExistsError: something else is at ``out``.
        RuntimeError: another process writes the store.
    """
    settings, dask, clock = settings or Ingest(), dask or DaskSettings(), Clock()
    refuse_ingest(len(survey.bands), settings, dask)
    survey = settings.named(survey)
    locations = inputs.expand(source, out, access)
    require_free(out, photometry.KIND)
    with ExitStack() as stack:
        lease = stack.enter_context(hold(out, WHAT, held))
        workers = _Workers(dask, stack, lease)
        ids = (*survey.ids, *(joining.keys if joining else ()))
        files = inputs.inspect_all(locations, settings.rows_per_piece, ids, workers.map)
        inputs.require_all_rows(source, files, out, access)
        n_rows = sum(file.n_rows for file in files)
        if not n_rows:
            raise ValueError(f"the input holds no rows: {', '.join(str(f.location) for f in files[:_FILES_NAMED])}")
        joined = (
            join.look(joining, survey, files, out, access, workers.map, settings.rows_per_piece) if joining else None
        )
        filled = [file for file in files if file.n_rows]
        first = calibrated.first_row(filled, survey, joined)
        types = calibrated.identifiers(filled, survey, first, joined)
        survey = redshift_errors.settled(survey, first)
        order = _order(settings, source, locations)
        made = {"survey": survey.model_dump(mode="json"), "order": order, **join.setting(joining)}
        store = photometry.create(
            out, n_rows, rows_per_chunk, survey.labels, types, made, survey.error_of_redshift is not None
        )
        listed, numbers = _numbered(files, photometry.files(store))
        names: set[str] = set()
        if not photometry.is_made_of(store, listed) or store.missing() or join.changed(store.group.attrs, joined):
            pieces = [
                Piece(numbers[file.location.url], file.location, file.content, file.stamp, *cut)
                for file in files for cut in pairwise(file.borders)
            ]  # fmt: skip
            place = working_folder(out)
            joined = joined_rows.make_runs(joined, place, lease.fence, workers.map) if joined else None
            sorting = Sorting(place, survey, types, order, lease.fence, joined)
            store, names = _fill(store, pieces, n_rows, listed, sorting, settings, workers)
        if names or not settings.keep_runs:
            remove_working(out, names if settings.keep_runs else None)
        lease.check()
        _look(store, survey)
    _report(store, clock.seconds if names else None)
    return store


def ingest_of(run: RunFile, held: Lease | None = None) -> ChunkedStore:
    """Ingest the input of a run."""
    out, rows_per_chunk = run.store("photometry"), run.inference.rows_per_shard
    access = run.storage.access
    return ingest(
        run.input, run.survey_definition, out, rows_per_chunk, run.ingest, run.engines.dask, held, run.join, access
    )


@contextmanager
def holding(out: Location) -> Iterator[Lease]:
    """Hold the lease of a photometry store for longer than one ingest.

    Raises:
        FileExistsError, RuntimeError: as `ingest`.
    """
    require_free(out, photometry.KIND)
    with hold(out, WHAT) as lease:
        yield lease


class _Workers:
    """Dask workers, started when there is more than one thing to do at once."""

    def __init__(self, settings: DaskSettings, stack: ExitStack, lease: Lease) -> None:
        self._settings, self._stack, self._lease = settings, stack, lease
        self._client: Client | None = None

    def map(
        self, function: Callable[..., Any], items: Sequence[Any], on_result: Callable[[Any], Any], **common: Any
    ) -> None:
        def take(result: Any) -> None:
            self._lease.check()
            on_result(result)

        self._lease.check()
        if len(items) < 2:
            for item in items:
                take(function(item, **common))
            return
        if self._client is None:
            self._client = self._stack.enter_context(dask_engine.client(self._settings))
        dask_engine.map_tasks(self._client, function, items, take, self._settings.retries, **common)


def _order(
    settings: Ingest, source: str | Path | Sequence[str | Path], files: Sequence[Location]
) -> Literal["input", "healpix"]:
    if settings.order != "auto":
        return settings.order
    return "input" if inputs.is_single_table(source, files) else "healpix"


def _numbered(files: Sequence[InputFile], known: Sequence[File]) -> tuple[list[File], dict[str, int]]:
    """Number the files as the store knows them; a moved one keeps its number, new ones come after.

    Returns the list of all that ever had a number, and the number of each of ``files`` by URL.
    """
    there = {file.location.url for file in files}
    by_url = {file.url: number for number, file in enumerate(known)}
    moved = {file.content: number for number, file in enumerate(known) if file.url not in there and file.content}
    listed = [File(file.url, 0, "") for file in known]
    numbers = {}
    for file in files:
        url = file.location.url
        number = by_url[url] if url in by_url else moved.pop(file.content, len(listed))
        listed[number : number + 1] = [File(url, file.n_rows, file.content)]
        numbers[url] = number
    return listed, numbers


def _fill(
    store: ChunkedStore, pieces: Sequence[Piece], n_rows: int, files: Sequence[File], sorting: Sorting, settings: Ingest,
    workers: _Workers,
) -> tuple[ChunkedStore, set[str]]:  # fmt: skip
    """Make the runs and merge them into the store; return it and the names of the runs."""
    runs = _make_runs(pieces, n_rows, sorting, workers)
    grouping = Grouping.of(store, n_rows, settings.rows_per_piece)
    by_place, by_key = _find_borders(runs, Borders.between(runs, len(grouping), sorting), sorting, workers)
    duplicated, again = _find_duplicates(runs, by_key, sorting, workers)
    merged = groups.of_runs(runs, grouping, sorting, by_place, duplicated)

    report = (
        _counts(runs, len(duplicated), sorting.joined) | assumed(sorting.survey) | repeats.summary(again, sorting.ids)
    )
    per_group = grouping.chunks_per_group
    store = photometry.update(store, n_rows, files, per_group, [group.key for group in merged], report)
    missing = {chunk // per_group for chunk in store.missing()}
    todo = [group for number, group in enumerate(merged) if number in missing]
    with bar("ingest", n_rows, "rows", n_rows - sum(group.n_rows for group in todo)) as progress:
        workers.map(sorted_runs.merge, todo, progress.wrote, sorting=sorting, out=store.location)
    return store, {run.name for run in runs} | (sorting.joined.names if sorting.joined else set())


def _make_runs(pieces: Sequence[Piece], n_rows: int, sorting: Sorting, workers: _Workers) -> list[Run]:
    """Sort all pieces; return their runs in the order of the input."""
    made: dict[Piece, Run] = {}
    with bar("read", n_rows, "rows") as progress:

        def done(run: Run) -> None:
            made[run.piece] = run
            progress.update(run.counts["rows"])

        workers.map(sorted_runs.make, pieces, done, sorting=sorting)
    runs = [made[piece] for piece in sorted(pieces, key=lambda piece: (piece.file, piece.start))]
    agreement.require((run.piece.location, run.agreed) for run in runs)
    return runs


def _find_borders(
    runs: Sequence[Run], borders: Borders, sorting: Sorting, workers: _Workers
) -> tuple[np.ndarray, np.ndarray]:
    """How many rows of each run come before each border of places, and of keys; first 0, last all: shapes (run, border)."""
    before: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    workers.map(
        sorted_runs.find_borders, runs, lambda found: before.update({found[0]: found[1:]}),
        sorting=sorting, borders=borders.places, keys=borders.keys,
    )  # fmt: skip
    lengths = np.array([run.counts["rows"] for run in runs])[:, None]
    by_place, by_key = (
        np.concatenate([0 * lengths, np.stack([before[run.name][i] for run in runs]), lengths], axis=1) for i in (0, 1)
    )
    return by_place, by_key


def _find_duplicates(
    runs: Sequence[Run], by_key: np.ndarray, sorting: Sorting, workers: _Workers
) -> tuple[np.ndarray, list[Repeats]]:
    """Return all later rows of those with the same key, as sorted codes of run number and place (row,), and what was found."""
    parts = [groups.slices_of(runs, by_key[:, i], by_key[:, i + 1]) for i in range(by_key.shape[1] - 1)]
    written: list[Repeats] = []
    workers.map(sorted_runs.find_duplicates, [part for part in parts if part], written.append, sorting=sorting)
    return np.sort(np.concatenate([sorted_runs.read_codes(sorting.place, found.codes) for found in written])), written


def _counts(runs: Sequence[Run], n_duplicates: int, joined: join.Joined | None) -> dict[str, Any]:
    """What is told of an ingest: rows, usable rows, and how many each flag and cut hits."""
    total = Counter({"DUPLICATE": n_duplicates})
    for run in runs:
        total.update(run.counts)
    flags = {name: total[name] for name in Flag.__members__ if total[name]}
    parts = {
        "cuts": "cut ", "not_cut": calibrated.NOT_CUT, "no_unit": calibrated.NO_UNIT, "missing": calibrated.MISSING,
        "not_detected": calibrated.LIMITED,
    }  # fmt: skip
    report = {
        "rows": total["rows"],
        "usable": total["usable"],
        "flags": flags,
        "no_position": total[calibrated.NO_POSITION],
    }
    for part, title in parts.items():
        report[part] = {name.removeprefix(title): n for name, n in total.items() if name.startswith(title)}
    report |= redshift_errors.report(total)
    return report | ({"join": join.report(joined, total)} if joined else {})


def assumed(survey: Survey) -> dict[str, dict[str, float]]:
    """What the report says of errors that are none of the catalog's: fractions of the flux, by the band's label."""
    fractions = np.broadcast_to(survey.error_fraction or 0.0, len(survey.bands)).tolist()
    bands = zip(survey.labels, survey.errors, fractions, strict=True)
    return {"assumed_error": {label: fraction for label, column, fraction in bands if column is None}}


def _look(store: ChunkedStore, survey: Survey) -> None:
    """Put into the report of a finished store what its photometry looks like, unless that is there."""
    report: Any = store.group.attrs["report"]
    if "light" not in report:
        store.group.attrs["report"] = {**report, "light": plausibility.of_store(store, survey)}


def _report(store: ChunkedStore, seconds: float | None) -> None:
    report: Any = store.group.attrs["report"]
    files = [file for file in photometry.files(store) if file.n_rows]
    for file in files[:_FILES_NAMED]:
        say("ingest", f"{file.n_rows:,} rows of {file.url}")
    if len(files) > _FILES_NAMED:
        say("ingest", f"... and of {len(files) - _FILES_NAMED:,} more files")
    took = "there already" if seconds is None else f"{seconds:.0f} s, {report['rows'] / seconds:,.0f}/s"
    say("ingest", f"{report['rows']:,} rows, {report['usable']:,} of them usable ({took}): {store.location}")
    for part, title in _TOLD.items():
        if counts := report[part]:
            say("ingest", f"{title}: " + ", ".join(f"{n:,} {name}" for name, n in counts.items()))
    if lacking := report["not_cut"]:
        columns = ", ".join(f"{name} (in {n:,} rows)" for name, n in lacking.items())
        say("ingest", f"no cuts were made by columns that the input lacks: {columns}")
    if fractions := report["assumed_error"]:
        errors = ", ".join(f"{fraction:.3g} of the flux in {label}" for label, fraction in fractions.items())
        say("ingest", f"the input has no uncertainties of some bands, assumed are {errors}")
    if repeated := report.get(repeats.KEY):
        say("ingest", repeats.explain(repeated))
    plausibility.tell(report["light"])
    settings: Any = store.group.attrs["settings"]
    if report["no_position"]:
        ra, dec = settings["survey"]["ra"], settings["survey"]["dec"]
        said = f"{ra} and {dec} are not there or hold none" if ra and dec else "the survey has none"
        say("ingest", f"no position of {report['no_position']:,} rows: {said}; no cone finds them in a catalog")
    for line in (*redshift_errors.lines(report, settings["survey"]), *join.lines(report)):
        say("ingest", line)
    if no_unit := report["no_unit"]:
        say(
            "ingest",
            f"no unit is stated of {', '.join(no_unit)} in {max(no_unit.values()):,} rows: taken as "
            f"{settings['survey']['unit']}",
        )
