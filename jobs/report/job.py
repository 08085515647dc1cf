"""report: a catalog, or the catalog and validation of a run, in; a folder of pages out, here or in a bucket.

Sums over the catalog's rows are made by Dask, a block of rows at a time, so that memory does not grow with the catalog.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import dask.bag

from cluster import dask_engine
from cluster.settings import DaskSettings
from jobs.config.run_file import RunFile
from jobs.export.whole import Destination, whole_folder
from jobs.report import contents, counted, pages
from jobs.report.pages import Page
from jobs.report.plans import Plan, plan
from jobs.report.sums import Sums, added
from jobs.telemetry import events
from storage_schemas import validation
from storage_schemas.backend.location import Location
from storage_schemas.catalog import releases, schema

if TYPE_CHECKING:
    import xarray as xr

#: Rows that a task reads at once; of a whole catalog's columns some 60 MB.
_BLOCK = 1 << 16
_TOGETHER = 8  # sums that are added up at once
#: Threads of this process where no cluster is asked for.
_THREADS = 2


def report(
    source: Location, out: Destination, release: str = schema.MAIN, run: RunFile | None = None,
    engine: DaskSettings | None = None,
) -> list[str]:  # fmt: skip
    """Write the report of a catalog into a new folder; return the names of its pages.

    Args:
        run: the run that filled the catalog: its stages and its validation are told of, too
        engine: the Dask workers that sum up; None: threads of this process

    Raises:
        ValueError: ``out`` exists already.
    """
    ref, history = _release(source, release)
    catalog = schema.open_catalog(source, ref)
    spec = catalog["model_weights"].attrs["spec"]
    band = int(spec.get("selection_band", catalog.sizes["band"] // 2))
    wanted = plan(catalog, band)
    sums = summed(source, ref, catalog.sizes["galaxy"], wanted, engine)
    named = counted.labels(_params(catalog), str(catalog["band"].values[band]))
    title = f"{run.name}: {ref}" if run else f"{source}: {ref}"
    found: list[Page | None] = [
        contents.what_was_run(
            _about(source, ref, catalog, run), catalog, spec, history, events.records(run.location) if run else {},
            run.model_dump(mode="json", exclude_defaults=True) if run else None,
        ),
        contents.input_and_flags(sums, wanted, named), contents.certificate(sums, wanted, named),
        contents.results(sums, wanted, named), contents.sky(sums, wanted), _calibration(run),
        contents.worst(sums, catalog),
    ]  # fmt: skip
    made = [page for page in found if page]
    with whole_folder(out, last=["index.html"]) as folder:
        pages.write(folder, title, made)
    return [f"{page.name}.html" for page in made]


def summed(source: Location, ref: str, n_rows: int, wanted: Plan, engine: DaskSettings | None = None) -> Sums:
    """Return the sums over a release's rows; memory is that of a block on each worker."""
    blocks = [slice(start, min(start + _BLOCK, n_rows)) for start in range(0, n_rows, _BLOCK)]
    parts = dask.bag.from_sequence(blocks, partition_size=1).map(_block, source, ref, wanted)
    total = parts.reduction(added, added, split_every=_TOGETHER)
    if engine is None:
        found: Sums = total.compute(scheduler="threads", num_workers=_THREADS)
        return found
    with dask_engine.client(engine) as client:
        found = total.compute(scheduler=client, retries=engine.retries)
        return found


def _block(rows: slice, source: Location, ref: str, wanted: Plan) -> Sums:
    return Sums.of(_opened(source, ref).isel(galaxy=rows), rows.start, wanted)


@lru_cache(2)
def _opened(source: Location, ref: str) -> xr.Dataset:
    return schema.open_catalog(source, ref)


def _release(source: Location, release: str) -> tuple[str, list[tuple[str, str, str, str]]]:
    """Return the name of a release, so that all parts of a report are of the same, and the catalog's history."""
    repo = schema.repository(source)
    found = list(releases.history(repo))
    if release != schema.MAIN or not repo.list_tags():
        return release, [(snapshot, when, tags, message) for snapshot, when, message, tags in found]
    name = releases.name_of(repo, repo.lookup_branch(schema.MAIN))
    return name, [(snapshot, when, tags, message) for snapshot, when, message, tags in found]


def _params(catalog: xr.Dataset) -> Mapping[str, tuple[str, str]]:
    """Meaning and unit of each parameter and property."""
    names = [str(name) for name in catalog["param"].values]
    meanings = [meaning or name for name, meaning in zip(names, catalog.attrs["param_meanings"], strict=True)]
    return dict(zip(names, zip(meanings, catalog.attrs["param_units"], strict=True), strict=True))


def _about(source: Location, ref: str, catalog: xr.Dataset, run: RunFile | None) -> dict[str, str]:
    made: Mapping[str, Any] = catalog.attrs["run"]
    versions = made.get("software", {})
    return {
        **({"run": run.name} if run else {}), "catalog": str(source), "release": ref,
        "galaxies": f"{catalog.sizes['galaxy']:,}", "bands": ", ".join(map(str, catalog["band"].values)),
        "model": str(made["model"]), "run id": str(catalog.attrs["run_id"]), "seed": str(made.get("seed", "")),
        "software": ", ".join(f"{name} {version}" for name, version in versions.items()) or json.dumps(versions),
    }  # fmt: skip


def _calibration(run: RunFile | None) -> Page | None:
    if run is None:
        return None
    try:
        return contents.calibration(*validation.read(run.store("validation")))
    except FileNotFoundError:
        return None
