"""Ray: a session, and a map over actors that survives their deaths."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cluster import retries
from cluster.settings import RaySettings

# Before ray is imported: no telemetry, and a cluster of this machine's own stays on the loopback interface.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import RayActorError

_TRIES = 4


@contextmanager
def session(settings: RaySettings) -> Iterator[None]:
    """Connect to the cluster of ``settings``, or start one on this machine and end it afterwards.

    A session that is open already is used as it is.
    """
    if ray.is_initialized():
        yield
        return
    common: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if settings.address:
        ray.init(address=settings.address, **common)
    else:
        ray.init(
            address="local", num_cpus=settings.actors, num_gpus=None, include_dashboard=False,
            object_store_memory=settings.object_store_memory, **common,
        )  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()


def map_actors(
    actor_class: type,
    arguments: Sequence[Any],
    method: str,
    items: Sequence[Any],
    n_actors: int,
    on_result: Callable[[Any], Any],
    on_death: Callable[[Any, RayActorError], Sequence[Any]] | None = None,
) -> None:
    """Call ``actor.method(item)`` once for every item on ``n_actors`` actors and hand each result on as it comes.

    Items are hashable and calls idempotent: an item whose actor dies is given to another, up to four times in all.
    ``on_death`` replaces that rule: told the item and the error, it returns what is to be done in the item's place.

    Raises:
        RuntimeError: an item failed on every try; names it.
    """
    remote_class: Any = ray.remote(num_cpus=1, max_restarts=0)(actor_class)
    on_death = on_death or _try_again()
    waiting = deque(items)
    running: dict[Any, tuple[Any, Any]] = {}

    def give(actor: Any) -> None:
        if waiting:
            item = waiting.popleft()
            running[getattr(actor, method).remote(item)] = (actor, item)

    for _ in range(min(n_actors, len(items))):
        give(remote_class.remote(*arguments))
    while running:
        (done,), _ = ray.wait(list(running), num_returns=1)
        actor, item = running.pop(done)
        try:
            on_result(ray.get(done))
        except RayActorError as error:
            waiting.extendleft(reversed(on_death(item, error)))
            retries.observer()(str(item), str(error))
            if not waiting:
                continue
            actor = remote_class.remote(*arguments)
        give(actor)
        # An actor without work ends here and frees its core: others may wait for one, where cores are fewer than actors.
        del actor


def _try_again() -> Callable[[Any, RayActorError], Sequence[Any]]:
    """Return the rule for deaths: the same item again, `_TRIES` times in all."""
    deaths = Counter[Any]()

    def again(item: Any, error: RayActorError) -> Sequence[Any]:
        deaths[item] += 1
        if deaths[item] == _TRIES:
            raise RuntimeError(f"item {item}: its actor died {_TRIES} times, last: {error}") from error
        return [item]

    return again


def counter() -> Any:
    """Return an actor that counts: what a worker does, for the driver's progress bar."""

    class Tally:
        def __init__(self) -> None:
            self.total = 0

        def add(self, n: int) -> None:
            self.total += n

        def take(self) -> int:
            total, self.total = self.total, 0
            return total

    return ray.remote(num_cpus=0)(Tally).remote()


@contextmanager
def watch(counting: Any, on_progress: Callable[[int], Any]) -> Iterator[None]:
    """Hand on what a counter counted, twice a second, while the block runs."""
    stop = threading.Event()

    def poll() -> None:
        while not stop.wait(0.5):
            on_progress(ray.get(counting.take.remote()))

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        on_progress(ray.get(counting.take.remote()))


def actor_id() -> str:
    """Return the id of the actor that this process is, as a `RayActorError` has it."""
    return str(ray.get_runtime_context().get_actor_id())
