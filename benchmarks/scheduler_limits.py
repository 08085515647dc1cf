"""What limits `infer` on 1,000 workers: a simulation of 10^9 galaxies with the overheads that are measured here first.

Measured on this machine: a task's way through a real Dask scheduler and back, the driver's merge of its fork, and a commit
to Icechunk as the catalog grows. Simulated: workers that take shards as they are free; a scheduler, a driver and an object
store that serve one after another; shards whose time scatters, some on slow nodes. `barrier` is how it was first written:
a batch of `commit_every` shards had to end before the next one began.
"""

from __future__ import annotations

import heapq
import math
import pickle
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np
from common import report

from cluster import dask_engine
from cluster.settings import DaskSettings
from jobs.columns import INFERRED
from sedflow_dist.inference.summary import QUANTILES
from sedflow_dist.quantities import described
from sedflow_dist.sps import derived
from sedflow_dist.sps.components import Composition
from storage_schemas.backend.location import Location
from storage_schemas.catalog import releases
from storage_schemas.catalog import schema as catalog
from storage_schemas.catalog.schema import Layout

N_ROWS, WORKERS, RATE = 10**9, 1_000, 70.0  # galaxies a second and core: inference.py with 512 draws
SCATTER, SLOW_SHARE, SLOW = 0.3, 1e-3, 10.0  # sigma of ln(time); shards on a node that is ten times slower
PUTS_PER_S = 3_500.0  # one prefix of Amazon S3, as its documentation says
SHARDS, PER_COMMIT, TASKS = 640, 64, 2_000  # for measuring


@dataclass(frozen=True)
class Overheads:
    """Seconds: a task through the scheduler, a merge, a commit (and its growth with each shard there); PUTs a shard."""

    task: float
    merge: float
    commit: float
    commit_growth: float
    puts: int


def measure() -> Overheads:
    """Measure on this machine."""
    space = Composition.of().space
    names, units, meanings, ucds = described(derived.columns(space, tuple("ugriz")))
    layout = Layout(
        SHARDS, 1, names, units, QUANTILES, space.coordinates, tuple("ugriz"), 0, {"id": "int64"}, meanings, ucds,
        inferred=INFERRED,
    )  # fmt: skip
    sizes = {"galaxy": 1, "param": len(names), "quantile": len(QUANTILES), "band": 5, "identifier": 1}
    row = {spec.name: np.ones([sizes[d] for d in spec.dims], spec.dtype) for spec in catalog.arrays(INFERRED, layout.ids)
           if "draw" not in spec.dims}  # fmt: skip
    merges, commits = [], []
    with tempfile.TemporaryDirectory() as folder:
        repo = catalog.repository(Location.parse(f"{folder}/catalog"), create=True)
        branch = releases.stage(repo, "measured", layout, {}, (b"", b"{}"))
        empty = pickle.dumps(repo.writable_session(branch).fork())
        for first in range(0, SHARDS, PER_COMMIT):
            session = repo.writable_session(branch)
            for shard in range(first, first + PER_COMMIT):
                fork = pickle.loads(empty)
                catalog.write_shard(fork, slice(shard, shard + 1), shard, 1, row)
                merges.append(_seconds(lambda session=session, fork=fork: session.merge(fork)))
            commits.append(_seconds(lambda session=session: releases.commit(session, "measured")))
    with dask_engine.client(DaskSettings(workers=2)) as client:
        result = pickle.dumps(fork)  # what a task sends back, and about what it is sent
        dask_engine.map_tasks(client, _task, range(100), lambda _: None, fork=empty, result=result)
        seconds = _seconds(
            lambda: dask_engine.map_tasks(client, _task, range(TASKS), lambda _: None, fork=empty, result=result)
        )
    growth, commit = np.polyfit(PER_COMMIT * np.arange(len(commits)), commits, 1)
    return Overheads(seconds / TASKS, float(np.median(merges)), float(commit), max(float(growth), 0.0), len(row) + 2)


def _task(item: int, fork: bytes, result: bytes) -> bytes:
    return result


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Outcome:
    """Of a simulated run: hours, share of the workers' time that is spent on galaxies, what each server is busy."""

    hours: float
    useful: float
    scheduler: float
    driver: float
    puts_per_s: float


def simulate(
    over: Overheads, rows_per_shard: int, commit_every: int, barrier: bool = False, slow: float = SLOW
) -> Outcome:
    """Run all shards of `N_ROWS` galaxies through the queues; each server takes what comes first."""
    shards = math.ceil(N_ROWS / rows_per_shard)
    rng = np.random.default_rng(1)
    work = rows_per_shard / RATE * rng.lognormal(-(SCATTER**2) / 2, SCATTER, shards)
    work[rng.random(shards) < SLOW_SHARE] *= slow
    storing, batch = over.puts / PUTS_PER_S, commit_every if barrier else shards
    scheduler = store = driver = committing = 0.0
    done = 0
    for first in range(0, shards, batch):
        scheduler = max(driver, scheduler)
        todo, busy, ended = iter(work[first : first + batch]), list[float](), list[float]()
        for seconds in islice(todo, WORKERS):
            scheduler += over.task
            busy.append(scheduler + seconds)
        heapq.heapify(busy)
        while busy:  # in the order in which they have computed, they store and take the next
            store = max(heapq.heappop(busy), store) + storing
            ended.append(store)
            if (seconds := next(todo, None)) is not None:
                scheduler = max(store, scheduler) + over.task
                heapq.heappush(busy, scheduler + seconds)
        for at in ended:
            driver = max(driver, at) + over.merge
            done += 1
            if done % commit_every == 0 or done == shards:
                seconds = over.commit + over.commit_growth * done
                driver, committing = driver + seconds, committing + seconds
    return Outcome(
        driver / 3600, work.sum() / (WORKERS * driver), shards * over.task / driver,
        (shards * over.merge + committing) / driver, shards * over.puts / driver,
    )  # fmt: skip


def main() -> None:
    over = measure()
    report("a task through the scheduler and back", f"{1e3 * over.task:.2f} ms")
    report("merge of a fork", f"{1e3 * over.merge:.2f} ms")
    report(
        f"commit of {PER_COMMIT} shards", f"{1e3 * over.commit:.0f} ms, {1e6 * over.commit_growth:.0f} us more a shard"
    )
    report("PUTs a shard", f"{over.puts}")
    print(
        f"{N_ROWS:.0e} galaxies, {WORKERS:,} workers of {RATE:.0f} galaxies/s, {N_ROWS / WORKERS / RATE / 3600:.2f} h at best"
    )
    print("rows a shard, commit every: hours, useful share, scheduler busy, driver busy, PUT/s")
    for rows, every, barrier, slow in (
        (4096, 64, True, SLOW), (4096, 64, False, SLOW), (4096, 1024, False, SLOW), (256, 1024, False, SLOW),
        (1024, 1024, False, SLOW), (16384, 1024, False, SLOW), (65536, 256, False, SLOW), (65536, 256, False, 1.0),
    ):  # fmt: skip
        found = simulate(over, rows, every, barrier, slow)
        note = (", barrier" if barrier else "") + (", no slow nodes" if slow == 1 else "")
        report(f"{rows:,}, {every:,}{note}", f"{found.hours:.2f} h, {found.useful:.1%}, {found.scheduler:.1%}, "
               f"{found.driver:.1%}, {found.puts_per_s:,.0f}/s")  # fmt: skip


if __name__ == "__main__":
    main()
