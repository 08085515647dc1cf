"""How a command ends: an error as one message, a signal within seconds, and limits of the machine before they make it hang."""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import NoReturn

import icechunk
import obstore
from pydantic import ValidationError

from cluster.messages import problems
from storage_schemas.backend.faults import explain
from storage_schemas.backend.redaction import shown

#: What is raised with a message for the user; all else was not foreseen, and is told with where it happened.
_FORESEEN = (
    ValueError, RuntimeError, OSError, ImportError, icechunk.IcechunkError, icechunk.ConflictError,
    obstore.exceptions.BaseError,
)  # fmt: skip
_TRACEBACK = "SEDFLOW_TRACEBACK"
_ROOT = Path(__file__).parents[2]
_OURS = ("cluster", "jobs", "sedflow_dist", "storage_schemas")
#: Seconds from a signal to the end, whatever the process does then: waiting for storage that is silent, or for workers.
GRACE = 8.0
_FILES, _FEWEST_FILES = 4096, 256
_LONGEST = 8000


def fail(error: Exception) -> NoReturn:
    """Say what went wrong, and exit with 1; with ``SEDFLOW_TRACEBACK=1`` say also where each step came from."""
    if os.environ.get(_TRACEBACK, "0") not in ("", "0"):
        print(shown("".join(traceback.format_exception(error))), file=sys.stderr)
    print(f"sedflow: {shown(words(error))}", file=sys.stderr, flush=True)
    sys.exit(1)


def words(error: BaseException) -> str:
    """Return an error as a message: what was found, where, and what to do."""
    error = _cause(error)
    text = _without_traceback(explain(error))[:_LONGEST]
    if isinstance(error, ValidationError):
        return f"settings are not valid:\n{problems(error)}"
    if isinstance(error, MemoryError):
        return (
            f"memory is full, in {_where(error)}{f' ({text})' if text else ''}. Give it more, or less at once: fewer rows, "
            "draws or workers, smaller rows_per_shard or rows_per_chunk; `sedflow plan RUN` says what a run takes"
        )
    if isinstance(error, _FORESEEN) and text and not isinstance(error, RecursionError | NotImplementedError):
        return text
    return (
        f"{type(error).__name__}{f': {text}' if text else ''}, in {_where(error)}. Nobody foresaw this: what was read holds "
        f"something unexpected (`sedflow verify RUN` looks for damage), or sedflow has a fault. {_TRACEBACK}=1 before the same "
        "command shows where it comes from"
    )


def _cause(error: BaseException) -> BaseException:
    """Return what a Ray task or actor raised, not Ray's report of it."""
    cause = getattr(error, "cause", None)
    return cause if type(error).__module__.startswith("ray.") and isinstance(cause, Exception) else error


def _without_traceback(text: str) -> str:
    """Return a text without the tracebacks of other processes in it: their last lines say what happened."""
    if "Traceback (most recent call last)" not in text:
        return text
    said, *_ = text.partition("Traceback (most recent call last)")
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    return re.sub(r"\x1b\[[0-9;]*m", "", " ".join(f"{said} {last}".split()))


def _where(error: BaseException) -> str:
    """Return the last place of ours that an error came through."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(_ROOT) and path.relative_to(_ROOT).parts[0] in _OURS:
            return f"{frame.name} ({path.relative_to(_ROOT)}, line {frame.lineno})"
    return "a library or another process"


def check_limits() -> None:
    """Allow this process and its children as many open files as the machine lets them have.

    Raises:
        RuntimeError: that is too few: engines and storage would wait for ever for one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft != resource.RLIM_INFINITY and soft < _FEWEST_FILES:
        raise RuntimeError(
            f"this process may have {soft} files open, and {_FEWEST_FILES} are the fewest to work with: ulimit -n {_FILES}, or "
            "the limit of the container or the batch system"
        )


def end_on_signals() -> None:
    """End on SIGTERM (a node is taken away, a job is stopped) and SIGINT within `GRACE` seconds.

    Python handles a signal between two of its own steps, and there is none while a library waits for storage that does not
    answer. So a thread watches as well: the operating system tells it, and it ends a process that has not ended by then.
    Workers started here notice and end by themselves.
    """
    _said.clear()
    told, tells = os.pipe()
    os.set_blocking(tells, False)
    signal.set_wakeup_fd(tells, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_watch, args=(told,), daemon=True).start()


def _end(number: int, frame: object) -> NoReturn:
    _say_once()
    sys.exit(128 + number)


def _watch(told: int) -> None:
    while True:
        number = os.read(told, 1)[0]
        if number in (signal.SIGTERM, signal.SIGINT):
            time.sleep(GRACE)
            if number == signal.SIGTERM:
                _say_once()
            os._exit(128 + number)


_said = threading.Event()


def _say_once() -> None:
    if not _said.is_set():
        _said.set()
        words = "told to end (SIGTERM); what is committed stays, and the same command goes on"
        print(f"sedflow: {words}", file=sys.stderr, flush=True)
