"""Dask: a client of a cluster, and a map whose results come as they are done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client, KilledWorker, LocalCluster, as_completed
from distributed.comm import CommClosedError

from cluster.settings import DaskSettings

_GONE = "the Dask scheduler went away; when it is back, run the same command again: it goes on"


@contextmanager
def client(settings: DaskSettings) -> Iterator[Client]:
    """Connect to the scheduler of ``settings``, or start workers on this machine and end them afterwards.

    Raises:
        ConnectionError: no scheduler answers at the address, or it went away.
    """
    if settings.address:
        try:
            with Client(settings.address) as connected:
                yield connected
        except CommClosedError as error:
            raise ConnectionError(_GONE) from error
        return
    threads = {f"distributed.nanny.pre-spawn-environ.{name}": "1" for name in
               ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}  # fmt: skip
    with (
        dask.config.set({**threads, "distributed.worker.daemon": True}),
        LocalCluster(
            n_workers=settings.workers, threads_per_worker=1, processes=True, host="127.0.0.1",
            dashboard_address=None, memory_limit=settings.memory_limit,
        ) as cluster,
        Client(cluster) as connected,
    ):  # fmt: skip
        yield connected


def map_tasks(
    connected: Client,
    function: Callable[..., Any],
    items: Sequence[Any],
    on_result: Callable[[Any], Any],
    **common: Any,
) -> None:
    """Run ``function(item, **common)`` for every item and hand each result on as it comes; tasks are idempotent.

    Raises:
        ConnectionError: the scheduler went away.
        RuntimeError: a task's workers died again and again.
    """
    futures = connected.map(function, items, pure=False, retries=3, **common)
    try:
        for future, result in as_completed(futures, with_results=True):
            if isinstance(result, CancelledError):
                raise ConnectionError(_GONE)
            on_result(result)
            future.release()
    except KilledWorker as error:
        raise RuntimeError(
            f"Dask workers died again and again on one task, the last on {error.last_worker.address}: out of memory? "
            "Give workers more, or run with smaller shards"
        ) from error
