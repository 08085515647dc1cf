"""Ray: a session, and a map over actors that survives their deaths."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from cluster import retries, versions
from cluster.settings import RaySettings

# Before ray is imported: no telemetry, a cluster of this machine's own stays on the loopback interface, and whoever reaches
# it needs a token.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import (
    ActorUnavailableError,
    AuthenticationError,
    NodeDiedError,
    RayActorError,
    RayTaskError,
    TaskUnschedulableError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster import ray_place

#: Where Ray looks for the token of a cluster, for errors.
TOKEN = (
    "RAY_AUTH_TOKEN, the file of RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token; RAY_AUTH_MODE=disabled is for a cluster that asks "
    "for none"
)
_TRIES = 4
_LOOK_SECONDS = 1.0
#: An item hangs that takes so many times the longest before, and so many seconds at least.
_LATE, _LATE_SECONDS = 3.0, 60.0
_ANSWER_SECONDS = 120.0
_LOSSES = 4  # losses of nodes that count as one death
_NODE_LOST = "its node has died"  # Ray's words


@contextmanager
def session(settings: RaySettings) -> Iterator[None]:
    """Connect to the cluster of ``settings``, or start one on this machine and end it afterwards.

    A session that is open already is used as it is.
    """
    if ray.is_initialized():
        yield
        return
    common: dict[str, Any] = {
        "logging_level": logging.ERROR, "log_to_driver": False, "job_config": ray_place.OurModules(),
    }  # fmt: skip
    with ray_place.token(create=not settings.address), ExitStack() as stack:
        folder = None if settings.address else stack.enter_context(ray_place.folder())
        _connect(settings, folder, common)
        try:
            if settings.address:
                _compare_versions()
            yield
        finally:
            ray.shutdown()


def _connect(settings: RaySettings, folder: str | None, common: dict[str, Any]) -> None:
    """Connect to the cluster of ``settings``, or start one with its files in ``folder``; None: in Ray's own."""
    on_sigterm = signal.getsignal(signal.SIGTERM)
    if settings.address:
        try:
            ray.init(address=settings.address, **common)
        except (AuthenticationError, ConnectionError, RuntimeError) as error:
            if "AuthenticationError" in f"{error!r} {error.__context__!r}":
                raise PermissionError(
                    f"Ray at {settings.address} has another token than ours, or there is none: {TOKEN}"
                ) from None
            raise
    else:
        ray.init(
            address="local", num_cpus=math.ceil(settings.actors * settings.cores_per_actor), num_gpus=None,
            include_dashboard=False, object_store_memory=settings.object_store_memory,
            object_spilling_directory=settings.spill_directory, _temp_dir=folder, **common,
        )  # fmt: skip
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own says nothing


def _compare_versions() -> None:
    """Ask every node for its versions; one that joins later must have Ray's and Python's, which Ray sees to.

    Raises:
        RuntimeError: a node has others than this process; names both.
    """
    look = ray.remote(num_cpus=0, max_retries=0)(lambda: versions.here(versions.OF_WORKERS))
    asked = {
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(): node
        for node in ray.nodes() if node["Alive"]
    }  # fmt: skip
    ours = versions.here(versions.OF_WORKERS)
    for answer, node in asked.items():
        try:
            theirs = ray.get(answer, timeout=_ANSWER_SECONDS)
        except (NodeDiedError, TaskUnschedulableError):
            continue  # it is gone: others do its work
        except RayTaskError:
            theirs = {}  # it does not even know the question
        versions.refuse_difference(ours, theirs, "here", f"on Ray's node {node['NodeManagerAddress']}")


def map_actors(
    actor_class: type,
    arguments: Sequence[Any],
    method: str,
    items: Sequence[Any],
    settings: RaySettings,
    on_result: Callable[[Any], Any],
    on_death: Callable[[Any, RayActorError], Sequence[Any]] | None = None,
) -> None:
    """Call ``actor.method(item)`` once for every item on the actors of ``settings`` and hand each result on as it comes.

    Items are hashable and calls idempotent: an item whose actor dies is given to another, see `Blame`, and one that takes
    several times as long as the longest before is given to a second one besides, in case the first hangs.
    ``on_death`` replaces the rule for deaths: told the item and the error, it returns what is to be done in the item's place.

    Raises:
        RuntimeError: an item failed on every try; names it.
    """
    remote_class: Any = ray.remote(**settings.per_actor, max_restarts=0)(actor_class)
    on_death = on_death or Blame(_TRIES)
    waiting = deque(items)
    running: dict[Any, tuple[Any, Any, float]] = {}
    longest = 0.0

    def give(actor: Any, item: Any) -> None:
        running[getattr(actor, method).remote(item)] = (actor, item, time.monotonic())

    for _ in range(min(settings.actors, len(items))):
        give(remote_class.remote(*arguments), waiting.popleft())
    while running:
        ready, _ = ray.wait(list(running), num_returns=1, timeout=_LOOK_SECONDS)
        if not ready:
            given = Counter(item for _, item, _ in running.values())
            late = time.monotonic() - max(_LATE * longest, _LATE_SECONDS)
            for item in [item for _, item, since in running.values() if longest and since < late and given[item] == 1]:
                give(remote_class.remote(*arguments), item)
            continue
        actor, item, since = running.pop(ready[0])
        twins = [call for call, (_, other, _) in running.items() if other == item]
        try:
            result = ray.get(ready[0])
        except RayActorError as error:
            retries.observer()(str(item), str(error))
            if not twins:
                waiting.extendleft(reversed(on_death(item, error)))
            if waiting:
                give(remote_class.remote(*arguments), waiting.popleft())
            continue
        longest = max(longest, time.monotonic() - since)
        on_result(result)
        for call in twins:
            ray.kill(running.pop(call)[0])
        if waiting:
            give(actor, waiting.popleft())
        # An actor without work ends here and frees its core: others may wait for one, where cores are fewer than actors.
        del actor


class Blame:
    """The rule for deaths of actors: their item is tried again; what goes on killing is taken apart, and given up on.

    The loss of a node is not the fault of the item at work there, unless it happens again and again.

    Args:
        tries: deaths on an item after which it is to blame
        split: its parts, to be tried one by one; for an item that has none, itself
        give_up: takes an item to blame that has no parts; none: that is an error
    """

    def __init__(
        self,
        tries: int,
        split: Callable[[Any], Sequence[Any]] = lambda item: [item],
        give_up: Callable[[Any], Any] | None = None,
    ) -> None:
        self.tries, self.split, self.give_up = tries, split, give_up
        self._deaths = Counter[Any]()
        self._losses = Counter[Any]()

    def __call__(self, item: Any, error: RayActorError) -> Sequence[Any]:
        """Report a death on ``item``; return what is to be tried in its place.

        Raises:
            RuntimeError: the item is to blame and cannot be given up on, or actors do not come to life.
        """
        if error.actor_init_failed:
            raise RuntimeError(f"an actor could not be made: {error}") from error
        lost = isinstance(error, ActorUnavailableError) or _NODE_LOST in str(error)
        (self._losses if lost else self._deaths)[item] += 1
        if self._deaths[item] < self.tries and self._losses[item] < _LOSSES * self.tries:
            return [item]
        parts = list(self.split(item))
        if len(parts) > 1:
            return parts
        if self.give_up is None:
            raise RuntimeError(
                f"item {item}: its actor died {self._deaths[item] + self._losses[item]} times, last: {error}"
            ) from error
        self.give_up(item)
        return []


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

    return ray.remote(num_cpus=0, max_restarts=-1)(Tally).remote()


@contextmanager
def watch(counting: Any, on_progress: Callable[[int], Any]) -> Iterator[None]:
    """Hand on what a counter counted, twice a second, while the block runs.

    The counter may be lost with its node: then it begins again elsewhere, and what it had not told is not shown.
    """
    stop = threading.Event()

    def take() -> None:
        with suppress(RayActorError):
            on_progress(ray.get(counting.take.remote()))

    def poll() -> None:
        while not stop.wait(0.5):
            take()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        take()


def actor_id() -> str:
    """Return the id of the actor that this process is, as a `RayActorError` has it."""
    return str(ray.get_runtime_context().get_actor_id())
