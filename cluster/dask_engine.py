"""Dask: a client of a cluster, and a map whose results come as they are done."""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import dask
from distributed import Client, KilledWorker, LocalCluster, as_completed, get_worker
from distributed.comm import CommClosedError
from distributed.utils import get_mp_context

from cluster import dask_retries, kubernetes, slurm, versions
from cluster.settings import LONGEST_SOCKET, WORKER_ENVIRONMENT, DaskSettings

_PARTS = 32
#: Letters that the name of a socket has beside the folder for temporary files.
_FORKSERVER_ADDS = len("/pymp-xxxxxxxx/listener-xxxxxxxx")
_POD_TIMEOUT = "10 minutes"  # in which images are pulled, and nodes added
_GONE = "the Dask scheduler went away; when it is back, run the same command again: it goes on"


@contextmanager
def client(settings: DaskSettings) -> Iterator[Client]:
    """Connect to the scheduler of ``settings``, or start workers where they say and end them afterwards.

    Raises:
        ConnectionError: no scheduler answers at the address, or it went away.
    """
    with dask.config.set({"distributed.worker.daemon": True}), ExitStack() as stack:
        patience = {}
        if settings.address:
            cluster = settings.address
        elif settings.start == "kubernetes":
            cluster, patience = stack.enter_context(kubernetes.cluster(settings)), {"timeout": _POD_TIMEOUT}
        else:
            stack.enter_context(_worker_environment())
            stack.enter_context(_forking())
            cluster = stack.enter_context(_started(settings))
        try:
            # Nobody's default: one that cannot connect would stay so, and what else uses Dask here would ask it in vain.
            with Client(cluster, set_as_default=False, **patience) as connected:
                if settings.address or settings.start != "local":
                    _compare_versions(connected)
                yield connected
        except CommClosedError as error:
            raise ConnectionError(_GONE) from error


def _compare_versions(connected: Client) -> None:
    """Ask every worker that is there for its versions.

    Raises:
        RuntimeError: a worker has others than this process; names both.
    """
    ours = versions.here(versions.OF_WORKERS)
    for address, found in connected.run(versions.here, versions.OF_WORKERS, on_error="return").items():
        theirs = {} if isinstance(found, Exception) else found  # it does not even know the question
        versions.refuse_difference(ours, theirs, "here", f"on Dask's worker {address}")


@contextmanager
def _worker_environment() -> Iterator[None]:
    """Let this process have the workers' environment while it starts any, and its own again afterwards.

    Dask takes what this process has before what it is told, and leaves behind what it told a worker: without this, who has
    had other workers before would give theirs to ours.
    """
    before = {name: os.environ.get(name) for name in WORKER_ENVIRONMENT}
    os.environ.update(WORKER_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _forking() -> Iterator[None]:
    """Let Dask fork workers on this machine from a process that has imported what they need, where its socket has room.

    Imports are 5 s of a core for each worker else, and memory that they now share. That process has what this one has of the
    science and the storage, which know no engine: Ray's threads would not outlive a fork.
    """
    if len(os.fsencode(tempfile.gettempdir())) + _FORKSERVER_ADDS > LONGEST_SOCKET:
        yield
        return
    ours = [name for name in sys.modules if name.partition(".")[0] in ("sedflow_dist", "storage_schemas")]
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context().set_forkserver_preload(["distributed", *ours])  # after Dask, which has a list of its own
        yield


def _started(settings: DaskSettings) -> Any:
    """Start a scheduler in this process, and workers on this machine or as Slurm jobs."""
    if settings.start == "slurm":
        cluster = slurm.cluster(settings)
    else:
        cluster = LocalCluster(
            n_workers=settings.workers, threads_per_worker=1, processes=True, host="127.0.0.1",
            dashboard_address=None, memory_limit=settings.memory_limit, env=dict(os.environ),
        )  # fmt: skip
    if settings.maximum_workers:
        cluster.adapt(minimum=settings.workers, maximum=settings.maximum_workers)
    return cluster


def map_tasks(
    connected: Client,
    function: Callable[..., Any],
    items: Sequence[Any],
    on_result: Callable[[Any], Any],
    retries: int = 3,
    on_death: Callable[[Any], Any] | None = None,
    **common: Any,
) -> None:
    """Run ``function(item, **common)`` for every item and hand each result on as it comes; tasks are idempotent.

    A task whose workers died four times is run again when all others are done, alone: it may have died with others' tasks.
    ``on_death`` may give an item for it that has what kills left out, see `killers`.

    Raises:
        ConnectionError: the scheduler went away.
        RuntimeError: a task's workers died again and again.
    """
    futures = connected.map(
        dask_retries.attempt, items, function=function, key=function.__name__, pure=False, retries=retries, **common
    )
    given = dict(zip(futures, items, strict=True))
    suspects = []
    answers = as_completed(futures, loop=connected.loop, with_results=True, raise_errors=False)
    for future, result in dask_retries.watched(connected, futures, answers):
        item = given.pop(future)
        if isinstance(result, CancelledError):
            raise ConnectionError(_GONE)
        if future.status != "error":
            on_result(result)
        elif isinstance(result[1], KilledWorker):
            suspects.append(item)
        else:
            raise result[1].with_traceback(result[2])
        future.release()
    for item in suspects:
        alone = connected.submit(function, on_death(item) if on_death else item, pure=False, retries=retries, **common)
        try:
            on_result(alone.result())
        except KilledWorker as error:
            raise RuntimeError(
                f"Dask workers died again and again on one task, the last on {error.last_worker.address}: out of memory? "
                "Give workers more, or run with smaller shards"
            ) from error


@contextmanager
def hearing(connected: Client, topic: str, on_message: Callable[[Any], None]) -> Iterator[None]:
    """Hand on what tasks `tell` under a topic, as it comes, in another thread."""
    connected.subscribe_topic(topic, lambda event: on_message(event[1]["said"]))
    try:
        yield
    finally:
        with suppress(CommClosedError, ValueError):
            connected.unsubscribe_topic(topic)


def tell(topic: str, message: Any) -> None:
    """Tell the client something while a task works, in a task of a Dask worker; elsewhere nobody hears."""
    try:
        worker = get_worker()
    except ValueError:
        return
    worker.log_event(topic, {"said": message})  # to which Dask adds who said it


def killers(connected: Client, function: Callable[..., Any], rows: Sequence[int], **common: Any) -> list[int]:
    """Find rows on which ``function(rows, **common)`` kills every worker, four of them: it is alone, so no other is to blame.

    Rows are taken apart into some dozen parts, and those that kill into parts again.
    """
    size = max(math.ceil(len(rows) / _PARTS), 1)
    found: list[int] = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        try:
            connected.submit(function, part, pure=False, **common).result()
        except KilledWorker:
            found += [int(part[0])] if len(part) == 1 else killers(connected, function, part, **common)
    return found
