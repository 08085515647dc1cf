"""Which tasks of Dask are begun again: workers tell of those that fail there, the scheduler of those whose worker died."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, TypeVar

from distributed import Client, Future, get_worker

from cluster import retries

T = TypeVar("T")
_FAILED = "sedflow-failed-tasks"
_EVERYBODY = "all"  # the scheduler's own topic of what concerns all
_LONGEST = 500


def attempt(item: Any, *, function: Callable[..., Any], **common: Any) -> Any:
    """Call ``function(item, **common)`` on a worker; when it fails, tell who has it `watched`."""
    try:
        return function(item, **common)
    except Exception as error:
        worker = get_worker()
        why = f"{type(error).__name__}: {error}"[:_LONGEST]
        worker.log_event(_FAILED, {"key": worker.get_current_task(), "why": why})
        raise


def watched(client: Client, futures: Collection[Future], results: Iterable[T]) -> Iterator[T]:
    """Hand on results as they come and tell `retries` of tasks that fail or are lost meanwhile."""
    ours, tell = {future.key for future in futures}, retries.observer()  # of this thread: events come in another

    def failed(event: tuple[float, Any]) -> None:
        if event[1]["key"] in ours:
            tell(event[1]["key"], event[1]["why"])

    def lost(event: tuple[float, Any]) -> None:
        said = event[1]
        if said.get("action") == "remove-worker" and not said["expected"]:
            for key in ours.intersection(said["processing-tasks"]):
                tell(str(key), f"its worker {said['worker']} died")

    client.subscribe_topic(_FAILED, failed)
    client.subscribe_topic(_EVERYBODY, lost)
    try:
        yield from results
    finally:
        if client.status == "running":  # else the scheduler went away, or the client is closed
            for topic in (_FAILED, _EVERYBODY):
                client.unsubscribe_topic(topic)
