"""FSPS in Ray actors: parameters in, spectra out; and what to do when its Fortran ends a process.

A STOP looks like a clean exit (status 0). So nothing is believed of an actor but its answers: one that ends without an
answer has died, and its log tells on what.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cluster import ray_engine
from cluster.ray_engine import RayActorError
from cluster.settings import RaySettings
from jobs.telemetry.progress import say
from sedflow_dist.sps import fsps_engine
from sedflow_dist.sps.fsps_engine import FSPS, FSPSSettings


class FSPSActor:
    """An actor that owns the one FSPS of its process.

    Args:
        settings: what every spectrum is computed with
        home: the driver's SPS_HOME; a node that has its own uses that
        logs: folder for the log, named after the actor, that outlives the process
    """

    def __init__(self, settings: FSPSSettings, home: str | None, logs: str) -> None:
        # Read when Fortran's library is loaded. A worker of Ray does not get to write buffers out when it is stopped.
        os.environ.setdefault("GFORTRAN_UNBUFFERED_PRECONNECTED", "1")
        Path(logs).mkdir(parents=True, exist_ok=True)
        os.chdir(logs)  # Fortran leaves fort.91 and the like where it fails
        # An exception here would look like a death: it is raised where an answer is asked for.
        self._fsps: FSPS | ValueError
        try:
            self._fsps = FSPS(settings, os.environ.get("SPS_HOME") or home, log_path(logs, ray_engine.actor_id()))
        except ValueError as error:
            self._fsps = error

    @property
    def fsps(self) -> FSPS:
        """The FSPS of this process.

        Raises:
            ValueError: its SPS_HOME is not fit for use; with the remedy
        """
        if isinstance(self._fsps, ValueError):
            raise self._fsps
        return self._fsps


def log_path(logs: str, actor: str) -> Path:
    """Where an actor's FSPS says what it works on."""
    return Path(logs) / f"{actor}.log"


class Deaths:
    """What is done about deaths: parts of the item go to other actors, until one part has died ``tries`` times.

    Args:
        logs: folder of the actors' logs
        tries: deaths on an item after which it is given up on
        split: parts of an item to try one by one, so that only what kills is given up on
        give_up: takes an item given up on, and FSPS's last words
    """

    def __init__(
        self, logs: str, tries: int, split: Callable[[Any], Sequence[Any]], give_up: Callable[[Any, str], Any]
    ) -> None:
        self.logs, self.tries, self.split, self.give_up = logs, tries, split, give_up
        self.total = 0
        self._of: Counter[Any] = Counter()
        self._at_start = 0  # in a row
        self._any_answer = False

    def __call__(self, item: Any, error: RayActorError) -> Sequence[Any]:
        """Report a death on ``item``; return what is to be tried instead.

        Raises:
            RuntimeError: FSPS dies before it has done anything, again and again: no item is to blame
        """
        self.total += 1
        log = log_path(self.logs, str(error.actor_id))
        words = fsps_engine.last_words(log) if log.exists() else f"FSPS died; Ray says: {error}"
        say("fsps", words)
        # Another node's log is not seen from here; what dies before any answer then counts as a bad start.
        if words.startswith("FSPS died on setting up") if log.exists() else not self._any_answer:
            self._at_start += 1
            if self._at_start >= self.tries:
                raise RuntimeError(f"FSPS died {self._at_start} times before its first spectrum, last: {words}")
            return [item]
        parts = list(self.split(item))
        self._of.update(parts)
        if len(parts) == 1 and self._of[item] >= self.tries:
            self.give_up(item, words)
            return []
        return parts

    def answered(self) -> None:
        """Note that some FSPS gave an answer."""
        self._at_start, self._any_answer = 0, True


def map_fsps(
    actor_class: type[FSPSActor], settings: FSPSSettings, arguments: Sequence[Any], method: str, items: Sequence[Any],
    ray: RaySettings, on_result: Callable[[Any], Any], split: Callable[[Any], Sequence[Any]],
    give_up: Callable[[Any, str], Any],
) -> int:  # fmt: skip
    """Call ``method`` of FSPS actors for every item, see `ray_engine.map_actors` and `Deaths`; return the deaths."""
    with tempfile.TemporaryDirectory(prefix="sedflow-fsps-", ignore_cleanup_errors=True) as logs:
        deaths = Deaths(logs, ray.tries, split, give_up)

        def take(result: Any) -> None:
            deaths.answered()
            on_result(result)

        with ray_engine.session(ray):
            constructor = (settings, os.environ.get("SPS_HOME"), logs, *arguments)
            ray_engine.map_actors(actor_class, constructor, method, items, ray, take, deaths)
        return deaths.total
