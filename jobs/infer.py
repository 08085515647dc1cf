"""infer: a photometry store and a model in, a posterior catalog out. Dask maps, one task a shard.

A task reads its rows, answers them and writes its shard through a fork of an Icechunk session; what comes back is that fork
and a few counts. Shards whose key (photometry, model, settings) is already there are not computed again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import icechunk
import numpy as np
import obstore
from distributed import Client

from cluster import dask_engine, retries
from cluster.settings import DaskSettings
from jobs import target_prior
from jobs.columns import asked
from jobs.config.run_file import fingerprint
from jobs.config.sections import Inference
from jobs.observed import observed
from jobs.on_worker import read_likelihood, router
from jobs.run.plan import refuse_infer
from jobs.serving import check, check_columns
from jobs.telemetry import events, metrics
from jobs.telemetry.events import Chunk
from jobs.telemetry.metrics import Fractions
from jobs.telemetry.progress import Clock, bar, say
from sedflow_dist.flow import model_spec
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference.cascade import Router, Told
from sedflow_dist.inference.settings import refuse_amplitude
from sedflow_dist.inference.summary import QUANTILES, Method, Summary, unasked
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.quantities import described
from sedflow_dist.sps import unmodelled
from storage_schemas import model as model_store
from storage_schemas import photometry
from storage_schemas.backend.arrays import as_json
from storage_schemas.backend.chunked import ChunkedStore, chunks_of
from storage_schemas.backend.faults import explain, may_pass
from storage_schemas.backend.lease import Lease
from storage_schemas.backend.location import Location
from storage_schemas.catalog import filling, releases
from storage_schemas.catalog import schema as catalog
from storage_schemas.catalog.filling import Filling
from storage_schemas.catalog.schema import Layout

#: A shard, its key, the digests of the photometry that the key was made from, and rows that are not to be inferred.
Item = tuple[int, int, np.ndarray, tuple[int, ...]]
#: Settings that no answer depends on: how work is cut and kept. All others, also new ones, are part of a shard's key.
_NOT_OF_AN_ANSWER = {"rows_per_shard", "commit_every"}
_PAUSES = (10.0, 60.0)  # s, after a fault of storage that its library does not repeat


@dataclass(frozen=True)
class Shard:
    """What a task tells of a shard: rows by method and flag, and how their draws weigh."""

    chunk: Chunk
    methods: dict[str, int]
    flags: dict[str, int]
    fractions: Fractions

    @property
    def counts(self) -> dict[str, int]:
        """Rows, those that have an answer, and by method and flag."""
        rows = self.chunk.rows
        return {"rows": rows, "answered": rows - self.methods["NONE"], **self.methods, **self.flags}


@dataclass(frozen=True)
class Work:
    """All that a catalog follows from: its photometry, its model, its settings; and how it falls into shards."""

    store: ChunkedStore
    model: Location
    files: tuple[bytes, bytes]  # the model's weights and specification
    layout: Layout
    answers: dict[str, Any]  # what an answer depends on besides the photometry
    keys: list[int]  # of each shard: hash of the answers and of the photometry that it reads
    digests: np.ndarray  # of the chunks of the photometry that the keys were made from

    @property
    def run(self) -> dict[str, Any]:
        """What the catalog says about its run."""
        return as_json({**self.answers, "photometry": self.store.group.attrs["settings"]})

    @property
    def run_id(self) -> str:
        """Hash of everything."""
        return fingerprint(self.run, self.keys)


def work(source: Location, model: Location, settings: Inference, seed: int) -> Work:
    """Read what a catalog follows from.

    Raises:
        ValueError: bands of model and photometry differ, or the photometry is unfinished.
    """
    store = photometry.open(source)
    files = model_store.read(model)
    flow = TrainedModel.from_bytes(*files)
    check(store, flow, model)
    target_prior.check(flow, settings, seed)
    check_columns(flow, settings)
    layout = _layout(store, flow, settings)
    answers = {
        "model": flow.id, "seed": seed,
        **settings.model_dump(mode="json", exclude=_NOT_OF_AN_ANSWER),
        "software": {name: importlib.metadata.version(name) for name in ("sedflow-dist", "torch", "numpy", "emcee")},
    }  # fmt: skip
    if settings.learned_likelihood:
        likelihood = read_likelihood(model)
        likelihood.check(flow.id)
        answers["likelihood"] = likelihood.id
    digests = store.digests()
    return Work(
        store, model, files, layout, answers, _shard_keys(store, layout, fingerprint(answers), digests), digests
    )


@events.job("infer")
def infer(
    source: Location, model: Location, out: Location, settings: Inference, seed: int, dask: DaskSettings,
    held: Lease | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Fill what is missing of a catalog and publish it as a release; return counts of rows by flag and method.

    ``held`` is the lease of the catalog where the caller has it already.

    Raises:
        ValueError: bands of model and photometry differ, or the photometry is unfinished, damaged, or changed meanwhile; or
            workers have less memory than the settings ask for.
        RuntimeError: another process writes the catalog, or published another release meanwhile.
    """
    wanted = work(source, model, settings, seed)
    spec = model_spec.parse(wanted.files[1])
    refuse_amplitude(settings.certificate, spec.amplitude)
    refuse_infer(spec.composition().space, spec.labels, settings, dask)
    gas = ("nebular",) if spec.ssp.get("nebular_emission") else ()
    for line in unmodelled.warnings(spec.bands, spec.redshift, (*spec.components, *gas)):
        say("infer", f"not in the model: {line}")
    with filling.opened(out, wanted.run_id, held) as (repo, expected, branch, there):
        if there:
            return _done(repo, wanted, out, there)
        counts = Counter[str](shards=0)
        for pause in (*_PAUSES, None):
            try:
                _fill_missing(repo, wanted, settings, seed, dask, counts)
                release = releases.publish(repo, branch, expected)
                break
            except (icechunk.IcechunkError, icechunk.ConflictError, obstore.exceptions.BaseError) as error:
                if pause is None or not may_pass(error):
                    if branch in repo.list_branches() or not (found := releases.find(repo, wanted.run_id)):
                        raise
                    return _done(repo, wanted, out, found)  # by the same run, started twice
                say("infer", f"{explain(error)}; goes on in {pause:.0f} s")
                retries.observer()("shards since the last commit", explain(error))
                time.sleep(pause)
                repo = catalog.repository(out)
    say("infer", f"{release}: {out}")
    return {**counts, "release": release}


def _fill_missing(
    repo: icechunk.Repository, wanted: Work, settings: Inference, seed: int, dask: DaskSettings, counts: Counter[str]
) -> None:
    """Compute the shards that the run's branch lacks, with a commit every ``commit_every``; add to the counts."""
    branch = releases.stage(repo, wanted.run_id, wanted.layout, wanted.run, wanted.files)
    missing = releases.missing(repo, branch, wanted.keys)
    clock, shards, topic = Clock(), wanted.layout.shards, f"sedflow-infer-{wanted.run_id}"
    common = {"source": wanted.store.location, "model": wanted.model, "model_id": wanted.answers["model"],
              "layout": wanted.layout, "settings": settings, "seed": seed, "topic": topic,
              "likelihood_id": wanted.answers.get("likelihood", "")}  # fmt: skip
    if not missing:
        return
    there = wanted.store.n_rows - shards.count(missing)
    with dask_engine.client(dask) as client, bar("infer", wanted.store.n_rows, "galaxies", there) as progress:
        filled = Filling(repo, branch, settings.commit_every)

        def done(result: tuple[Any, Shard]) -> None:
            fork, shard = result
            counts.update(shard.counts, shards=1)
            progress.wrote(shard.chunk)
            metrics.answered(shard.methods, shard.flags, shard.fractions)
            filled.merge(fork, shard.chunk.number)

        size = wanted.store.rows_per_chunk
        items = [(n, wanted.keys[n], wanted.digests[chunks_of(shards.rows(n), size)], ()) for n in missing]
        blame = partial(_without_killers, client, common)
        with dask_engine.hearing(client, topic, lambda told: progress.sampling(**told)):
            dask_engine.map_tasks(client, fill, items, done, dask.retries, blame, fork=filled.fork(), **common)
        filled.commit()
    rate = shards.count(missing) / clock.seconds
    say("infer", f"{shards.count(missing):,} galaxies in {clock.seconds:.0f} s ({rate:,.0f}/s)")


def _done(repo: icechunk.Repository, wanted: Work, out: Location, release: str) -> dict[str, Any]:
    """Say that a release is what was asked for, and how to see it where ``main`` was rolled back."""
    if repo.lookup_tag(release) == repo.lookup_branch(catalog.MAIN):
        say("infer", f"the catalog is there already as {release}, nothing has changed: {out}")
    else:
        shown = releases.name_of(repo, repo.lookup_branch(catalog.MAIN))
        say("infer", f"{release} of {out} holds this very content, but main shows {shown}; to show it again: "
            f"sedflow catalog rollback {out} {release}")  # fmt: skip
    return {"rows": wanted.store.n_rows, "shards": 0, "release": release}


def _without_killers(client: Client, common: Mapping[str, Any], item: Item) -> Item:
    """Find the rows of a shard that kill every worker, so that they are flagged and the others answered."""
    shard, key, digests, _ = item
    rows, kept = (
        common["layout"].shards.rows(shard),
        ("source", "model", "model_id", "settings", "seed", "likelihood_id"),
    )
    say("infer", f"shard {shard}: its workers died again and again; looking for the row that kills them")
    poison = dask_engine.killers(
        client, try_rows, range(rows.start, rows.stop), **{name: common[name] for name in kept}
    )
    say("infer", f"shard {shard}: rows {poison} kill every worker and get no answer (flag FAILED)")
    return shard, key, digests, tuple(poison)


def try_rows(
    rows: range,
    source: Location,
    model: Location,
    model_id: str,
    settings: Inference,
    seed: int,
    likelihood_id: str = "",
) -> None:
    """Answer rows and forget the answers: whether a worker survives it is the question."""
    store = photometry.open(source)
    names = photometry.data(photometry.has_redshift_errors(store))
    data = store.read_rows(slice(rows.start, rows.stop), names)
    _infer(data, rows.start, router(model, model_id, seed, settings, likelihood_id))


def fill(
    item: Item, fork: Any, source: Location, model: Location, model_id: str, layout: Layout,
    settings: Inference, seed: int, topic: str = "", likelihood_id: str = "",
) -> tuple[Any, Shard]:  # fmt: skip
    """Answer one shard and write it through the fork; return the fork and what there is to tell.

    Chains that grow are told of under ``topic``.
    """
    clock, (shard, key, digests, poison) = Clock(), item
    rows = layout.shards.rows(shard)
    store = photometry.open(source)
    names = (*photometry.data(layout.redshift_errors), *photometry.PASSED, *photometry.id_arrays(layout.ids))
    data = store.read_rows(rows, names, digests)
    data["flags"][[row - rows.start for row in poison]] |= np.uint32(int(Flag.FAILED))
    summary = _infer(data, rows.start, router(model, model_id, seed, settings, likelihood_id), _telling(topic, shard))
    values = {**data, **vars(summary)}
    for name in unasked(settings):
        del values[name]
    catalog.write_shard(fork, rows, shard, key, values)
    methods = {method.name: int(np.sum(summary.method == method)) for method in Method}
    flags = {flag.name or "": int(np.sum((summary.flags & int(flag)) != 0)) for flag in Flag}
    chunk = Chunk.of(shard, values, clock.seconds)
    return fork, Shard(chunk, methods, flags, Fractions.of(summary.effective_fraction))


def _infer(data: Mapping[str, np.ndarray], first_row: int, router: Router, told: Told = lambda *_: None) -> Summary:
    return router.summarise(observed(data), data["flags"], first_row, told)


def _telling(topic: str, shard: int) -> Told:
    """Return what tells the driver of a shard's chains, at once and then every few seconds."""
    last = -events.BEAT

    def told(galaxies: int, steps: int, most: int) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= events.BEAT:
            last = now
            dask_engine.tell(topic, {"chunk": shard, "galaxies": galaxies, "steps": steps, "most": most})

    return told


def _layout(store: ChunkedStore, flow: TrainedModel, settings: Inference) -> Layout:
    found = flow.quantities(settings, settings.certificate)
    names, units, meanings, ucds = described(found)
    return Layout(
        store.n_rows, settings.rows_per_shard, names, units, QUANTILES, flow.space.coordinates, flow.spec.labels,
        settings.keep_draws, photometry.ids(store), meanings, ucds, inferred=asked(settings),
        redshift_errors=photometry.has_redshift_errors(store),
    )  # fmt: skip


def _shard_keys(store: ChunkedStore, layout: Layout, settings: str, digests: np.ndarray) -> list[int]:
    """Hash, for each shard, of the settings and the content of the photometry chunks it reads."""
    keys = []
    for rows in map(layout.shards.rows, range(len(layout.shards))):
        read = digests[chunks_of(rows, store.rows_per_chunk)]
        content = read.tobytes() + f"{settings}/{rows.start}/{rows.stop}".encode()
        keys.append(max(int.from_bytes(hashlib.sha256(content).digest()[:8], "little"), 1))
    return keys
