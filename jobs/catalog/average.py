"""average: posterior catalogs of the same photometry under several models in, one catalog of the models' average out.

Dask maps, one task a shard of the first catalog: it reads these rows of all catalogs, weighs the models by their evidences and
replays their draws for the mixture's quantiles. The result is a catalog as `infer` makes one: it goes on where it stopped, and
memory holds one shard. Rows differ from catalog to catalog only in what was inferred: anything else is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr
import zarr

from cluster import dask_engine
from cluster.settings import DaskSettings
from jobs.catalog.average_rows import INFERRED, Rows, average, columns, extra
from jobs.catalog.draws import AVERAGED, engine
from jobs.config.run_file import fingerprint
from jobs.telemetry.progress import bar, say
from sedflow_dist.inference.cascade import Router
from sedflow_dist.inference.summary import QUANTILES, Method
from sedflow_dist.photometry.flags import Flag
from storage_schemas import photometry
from storage_schemas.backend.arrays import array
from storage_schemas.backend.chunked import Chunks
from storage_schemas.backend.location import Location
from storage_schemas.catalog import filling, releases
from storage_schemas.catalog import schema as catalog
from storage_schemas.catalog.filling import Filling
from storage_schemas.catalog.schema import Layout

_COMMIT_EVERY = 64  # shards
_NO_MODEL = (b"none", b"{}")  # an average has none of its own


@dataclass(frozen=True)
class Source:
    """A catalog and the release of it that is averaged."""

    location: Location
    release: str

    @classmethod
    def of(cls, location: Location) -> Source:
        """Pin what ``main`` of a catalog shows now."""
        catalog.store(location)  # says what is wrong
        repo = catalog.repository(location)
        return cls(location, releases.name_of(repo, repo.lookup_branch(catalog.MAIN)))

    def open(self) -> xr.Dataset:
        """Open the release."""
        return catalog.open_catalog(self.location, self.release)

    def __str__(self) -> str:
        return f"{self.location} ({self.release})"


def average_catalogs(
    locations: Sequence[Location], out: Location, odds: Sequence[float] | None, dask: DaskSettings
) -> dict[str, Any]:
    """Fill what is missing of the average of catalogs and publish it as a release; return counts of rows.

    Args:
        odds: of the models before the data, in the catalogs' order; alike if None

    Raises:
        ValueError: the catalogs are not of the same input, or were made without the certificate; or odds are none; says what.
        RuntimeError: another process writes ``out``, or published another release meanwhile.
    """
    sources = [Source.of(location) for location in locations]
    opened = [source.open() for source in sources]
    weights = _odds(odds, len(sources))
    check(sources, opened)
    run = _run(sources, opened, weights)
    layout = _layout(opened)
    run_id = fingerprint(run, layout.n_galaxies)
    with filling.opened(out, run_id) as (repo, expected, _, there):
        if there:
            say("average", f"the average is there already as {there}, nothing has changed: {out}")
            return {"rows": layout.n_galaxies, "shards": 0, "release": there}
        branch = releases.stage(repo, run_id, layout, run, _NO_MODEL)
        keys = [_key(run_id, shard, opened, layout.shards) for shard in range(len(layout.shards))]
        counts = _fill_missing(repo, branch, keys, layout, sources, weights, dask)
        return {**counts, "release": releases.publish(repo, branch, expected)}


def _fill_missing(
    repo: Any,
    branch: str,
    keys: Sequence[int],
    layout: Layout,
    sources: Sequence[Source],
    odds: np.ndarray,
    dask: DaskSettings,
) -> Counter[str]:
    """Compute the shards that the branch lacks, with a commit now and then; return counts."""
    missing, counts = releases.missing(repo, branch, keys), Counter[str](shards=0)
    if not missing:
        return counts
    there = layout.n_galaxies - layout.shards.count(missing)
    with dask_engine.client(dask) as client, bar("average", layout.n_galaxies, "galaxies", there) as progress:
        filled = Filling(repo, branch, _COMMIT_EVERY)

        def done(result: tuple[Any, int, dict[str, int]]) -> None:
            fork, shard, found = result
            counts.update(found, shards=1)
            progress.update(layout.shards.count([shard]))
            filled.merge(fork, shard)

        items = [(shard, keys[shard]) for shard in missing]
        common = {"layout": layout, "sources": tuple(sources), "odds": odds, "fork": filled.fork()}
        dask_engine.map_tasks(client, fill, items, done, dask.retries, **common)
        filled.commit()
    return counts


def fill(
    item: tuple[int, int], fork: Any, layout: Layout, sources: tuple[Source, ...], odds: np.ndarray
) -> tuple[Any, int, dict[str, int]]:
    """Average one shard and write it through the fork; return the fork, the shard and counts of its rows.

    Raises:
        ValueError: rows of the catalogs are not of the same galaxies or photometry; names the first.
    """
    shard, key = item
    rows = layout.shards.rows(shard)
    names = [*photometry.DATA, *photometry.PASSED, *columns()]
    group = [catalog.store(source.location, source.release) for source in sources]
    sigma = [photometry.REDSHIFT_SIGMA.name] if layout.redshift_errors else []
    passed = [*photometry.OBSERVED, *sigma, *photometry.PASSED, *photometry.id_arrays(layout.ids)]
    parts: list[dict[str, np.ndarray]] = []
    for source, stored in zip(sources, group, strict=True):
        opened = zarr.open_group(stored, mode="r")
        part = {name: np.asarray(array(opened, name)[rows]) for name in {*names, *passed}}
        if parts:
            _refuse_other_rows(source, sources[0], part, parts[0], passed, rows.start)
        parts.append(part)
    routers = [_router(source) for source in sources]
    found = average([Rows(part, router) for part, router in zip(parts, routers, strict=True)], rows.start, odds, layout)
    values = {**{name: parts[0][name] for name in passed}, **found}
    catalog.write_shard(fork, rows, shard, key, values)
    flags = found["flags"]
    counts = {flag.name or "": int(np.sum((flags & int(flag)) != 0)) for flag in Flag if flag >= Flag.MODEL_MISSING}
    return fork, shard, {"rows": len(flags), "answered": int(np.sum(found["method"] != Method.NONE)), **counts}


#: Models that a worker keeps: an average is over a few, and a cluster sees many averages.
_KEPT = 8


@lru_cache(_KEPT)
def _router(source: Source) -> Router:
    """What replays a catalog's draws, on this worker."""
    return engine(source.open())


# -- what may be averaged -------------------------------------------------------------------------------------------------


def check(sources: Sequence[Source], opened: Sequence[xr.Dataset]) -> None:
    """Raise ValueError, naming what differs, unless catalogs are of the same rows, bands, photometry and noise."""
    if len(sources) < 2:
        raise ValueError(f"an average needs two catalogs at least; there is {', '.join(map(str, sources))}")
    first, about = sources[0], _input(opened[0])
    for source, data in zip(sources, opened, strict=True):
        run = data.attrs["run"]
        if AVERAGED in run:
            raise ValueError(f"{source} is an average itself: name the catalogs that it was made of")
        if not run["certificate"]:
            raise ValueError(f"{source} was made without the certificate: its rows have no evidence to be weighed by")
        if run.get("leave_out"):
            raise ValueError(
                f"{source} was made with inference.leave_out: evidences of its rows are of some bands, not to be compared "
                "with those of all. Infer the photometry without it"
            )
        other = _input(data)
        for name in {**about, **other}:
            if about.get(name) != other.get(name):
                raise ValueError(
                    f"{source} and {first} are not of the same input: {name} is {other.get(name)!r} in the one, "
                    f"{about.get(name)!r} in the other. Infer the same photometry store with both models"
                )
    if not _common(opened):
        raise ValueError(f"{', '.join(map(str, sources))} have no parameter or property in common")


def _input(data: xr.Dataset) -> dict[str, Any]:
    """All that two catalogs of the same input have alike but for their rows, by name."""
    about = {
        "number of rows": data.sizes["galaxy"],
        "bands": data["band"].values.tolist(),
        "identifiers": data.attrs["ids"],
    }
    return about | _flat(data.attrs["run"]["photometry"], "photometry.")


def _flat(settings: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _refuse_other_rows(
    source: Source,
    first: Source,
    part: Mapping[str, np.ndarray],
    wanted: Mapping[str, np.ndarray],
    names: Sequence[str],
    start: int,
) -> None:
    for name in names:
        same = part[name] == wanted[name]
        if wanted[name].dtype.kind == "f":
            same |= np.isnan(part[name]) & np.isnan(wanted[name])
        other = np.flatnonzero(~same.reshape(len(same), -1).all(1))
        if len(other):
            raise ValueError(
                f"{source} and {first} are not of the same input: {name} of row {start + other[0]} is "
                f"{part[name][other[0]]} in the one, {wanted[name][other[0]]} in the other ({len(other)} rows of this shard)"
            )


def _odds(odds: Sequence[float] | None, n: int) -> np.ndarray:
    found = np.ones(n) if odds is None else np.asarray(odds, float)
    if len(found) != n or not (np.isfinite(found) & (found > 0)).all():
        raise ValueError(f"--odds: {n} positive numbers are expected, one a catalog; there is {found.tolist()}")
    return found / found.sum()


# -- what it is called ----------------------------------------------------------------------------------------------------


def _common(opened: Sequence[xr.Dataset]) -> list[tuple[str, str, str, str]]:
    """Names, units, meanings and UCDs of what all catalogs have, in the first one's order."""
    every = [
        dict(zip(map(str, data["param"].values), zip(*(data.attrs[f"param_{of}"] for of in ("units", "meanings", "ucds")),
                                                     strict=True), strict=True))
        for data in opened
    ]  # fmt: skip
    return [(name, *about) for name, about in every[0].items() if all(e.get(name, ("",))[0] == about[0] for e in every)]


def _layout(opened: Sequence[xr.Dataset]) -> Layout:
    names, units, meanings, ucds = map(list, zip(*_common(opened), strict=True))
    first = opened[0]
    left_out = sorted({str(name) for data in opened for name in data["param"].values} - set(names))
    if left_out:
        say("average", f"not in all catalogs, or not in the same unit, and left out: {', '.join(left_out)}")
    variables = first.attrs.get("id_variables", {})
    ids = {
        name: str(first[variable].dtype) if first[variable].dtype.kind in "iu" else "str" for name, variable in variables.items()
    }  # fmt: skip
    return Layout(
        first.sizes["galaxy"], int(first.attrs["rows_per_shard"]), names, units, QUANTILES, ["none"],
        [str(label) for label in first["band"].values], 0, ids, meanings, ucds,
        inferred=(*INFERRED, *extra(len(opened))), redshift_errors=photometry.REDSHIFT_SIGMA.name in first,
    )  # fmt: skip


def _run(sources: Sequence[Source], opened: Sequence[xr.Dataset], odds: np.ndarray) -> dict[str, Any]:
    """What the average's catalog says about its run."""
    models = [
        {"catalog": str(source.location), "release": source.release, "run_id": data.attrs["run_id"], "odds": float(share),
         "model": data.attrs["run"]["model"], "seed": data.attrs["run"]["seed"], "prior": data.attrs["run"]["prior"],
         "ssp": data["model_weights"].attrs["spec"].get("ssp")}
        for source, data, share in zip(sources, opened, odds, strict=True)
    ]  # fmt: skip
    first = opened[0].attrs["run"]
    return {
        AVERAGED: models, "model": "average of " + ", ".join(str(one["model"]) for one in models), "seed": first["seed"],
        "certificate": True, "photometry": first["photometry"], "columns": [spec.name for spec in extra(len(opened))],
    }  # fmt: skip


def _key(run_id: str, shard: int, opened: Sequence[xr.Dataset], shards: Chunks) -> int:
    """Hash of all that a shard of the average depends on: the keys of the shards that it reads."""
    rows, parts = shards.rows(shard), []
    for data in opened:
        size = int(data.attrs["rows_per_shard"])
        parts.append(data["shard_key"].values[rows.start // size : (rows.stop - 1) // size + 1].tolist())
    return max(int(fingerprint(run_id, rows.start, rows.stop, parts), 16), 1)
