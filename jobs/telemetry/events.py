"""What a job tells while it works: one JSON line per event on standard error, counters, and a record from which `status` reads.

Lines are written where ``SEDFLOW_LOG`` is json (``sedflow --log json``). The record of a job of a run
lies at ``ROOT/progress/STAGE.json``, beside the stores; it is written every ten seconds by a thread of its own, so storage
that is slow or gone holds up no job, and fails none.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
from dask.utils import format_bytes
from pydantic import BaseModel

from cluster import retries
from jobs.config.run_file import RunFile
from jobs.telemetry import metrics
from storage_schemas.backend import redaction
from storage_schemas.backend.faults import explain
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import printable

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds between two records of a job, and between two of its progress events.
BEAT = 10.0
FOLDER = "progress"
_ENDING = 15.0  # s that the end of a job waits for its last record
_LONGEST_ERROR = 2000
redaction.of_logs()  # of drivers and workers alike: whoever works for a job has this module
VERSION = importlib.metadata.version("sedflow-dist")


def as_json() -> bool:
    """Whether events are lines of JSON, for programs, or bars and sentences, for people.

    Raises:
        ValueError: ``SEDFLOW_LOG`` is neither json nor text
    """
    wanted = os.environ.get("SEDFLOW_LOG") or "text"
    if wanted not in ("json", "text"):
        raise ValueError(f"SEDFLOW_LOG is {wanted!r}; allowed are json and text")
    return wanted == "json"


def emit(event: str, **fields: Any) -> None:
    """Write an event as one line of JSON on standard error, where such lines are wanted; fields that are None are left out."""
    if as_json():
        there = {name: redaction.plain(value) for name, value in fields.items() if value is not None}
        line = json.dumps({"time": _now().isoformat(), "event": event, **there}, ensure_ascii=False)
        print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Chunk:
    """What a task tells of a chunk, a shard or several chunks in a row that it wrote."""

    number: int  # of the first
    rows: int
    size: int  # bytes of its arrays, before compression
    seconds: float  # that it took
    chunks: int = 1

    @classmethod
    def of(cls, number: int, arrays: Mapping[str, np.ndarray], seconds: float, chunks: int = 1) -> Chunk:
        """Describe a chunk by its arrays, all of its rows first."""
        rows, size = len(next(iter(arrays.values()))), sum(values.nbytes for values in arrays.values())
        return cls(number, rows, size, seconds, chunks)


class Record(BaseModel):
    """What is known of the last attempt at a stage of a run; times are those of the host that worked."""

    stage: str
    run: str
    state: Literal["running", "done", "failed"] = "running"
    doing: str  # the part of the stage that done and total are of
    done: int = 0
    total: int = 0
    unit: str = ""
    rows: int = 0  # of this attempt
    chunks: int = 0
    bytes: int = 0
    retries: int = 0
    sampling: str = ""  # what a chunk that takes long is at, until the next one is done
    started: datetime
    advanced: datetime
    heartbeat: datetime
    host: str
    pid: int
    version: str
    error: str | None = None

    @property
    def seconds(self) -> float:
        """How long it worked, as far as is known."""
        return (self.heartbeat - self.started).total_seconds()

    def summary(self) -> str:
        """What it did, in a line."""
        if not self.rows:
            return f"nothing to do ({self.seconds:.0f} s)"
        parts = [f"{self.rows:,} {self.unit} in {self.seconds:,.0f} s ({self.rows / max(self.seconds, 1e-3):,.0f}/s)"]
        parts += [f"{self.chunks:,} chunks, {format_bytes(self.bytes)}"] if self.chunks else []
        return ", ".join([*parts, f"{self.retries:,} retries"])


class Job:
    """A job under way; see `job`."""

    def __init__(self, stage: str, run: RunFile | None) -> None:
        self.run = run
        self.ended: list[Record] = []  # this job's and those that it started
        now = _now()
        self.record = Record(
            stage=stage, run=run.name if run else "", doing=stage, started=now, advanced=now, heartbeat=now,
            host=socket.gethostname(), pid=os.getpid(), version=VERSION,
        )  # fmt: skip
        self._told = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_record, args=(run,), daemon=True) if run else None

    @property
    def _who(self) -> dict[str, Any]:
        return {"run": self.record.run or None, "stage": self.record.stage}

    def start(self) -> None:
        """Say that the job starts."""
        emit("started", **self._who, host=self.record.host, pid=self.record.pid, version=VERSION)
        metrics.RUNNING.labels(self.record.stage).set(1)
        if self._thread:
            self._thread.start()

    def part(self, title: str, total: int, unit: str, done: int) -> None:
        """Begin a part of the job: so much is to be done, so much is there already."""
        record = self.record
        record.doing, record.total, record.unit, record.done = title, total, unit, done
        emit("part", **self._who, part=title, total=total, done=done, unit=unit)
        metrics.TOTAL.labels(title).set(total)
        metrics.DONE.labels(title).set(done)

    def advance(self, n: int) -> None:
        """Count what was done."""
        record = self.record
        record.done += n
        record.rows += n
        record.sampling = ""
        record.advanced = _now()
        metrics.WORK.labels(record.doing, record.unit).inc(n)
        metrics.DONE.labels(record.doing).set(record.done)
        metrics.ADVANCED.labels(record.doing).set_to_current_time()
        if time.monotonic() - self._told > BEAT:
            self._told = time.monotonic()
            self._tell("progress")

    def chunk(self, chunk: Chunk) -> None:
        """Count a chunk that was written."""
        record = self.record
        record.chunks += chunk.chunks
        record.bytes += chunk.size
        metrics.CHUNKS.labels(record.doing).inc(chunk.chunks)
        metrics.BYTES.labels(record.doing).inc(chunk.size)
        metrics.SECONDS.labels(record.doing).observe(chunk.seconds)
        rate = round(chunk.rows / max(chunk.seconds, 1e-3), 1)
        emit("chunk", **self._who, part=record.doing, chunk=chunk.number, chunks=chunk.chunks, rows=chunk.rows,
             bytes=chunk.size, seconds=round(chunk.seconds, 3), rate=rate, outcome="written")  # fmt: skip

    def sampling(self, chunk: int, galaxies: int, steps: int, most: int) -> None:
        """Tell of a chunk whose worker samples: so many galaxies, steps of their chains, and the most there can be."""
        record = self.record
        record.sampling = f"MCMC of {galaxies:,} galaxies in chunk {chunk}: {steps:,} of at most {most:,} steps"
        record.advanced = _now()
        metrics.ADVANCED.labels(record.doing).set_to_current_time()
        emit("sampling", **self._who, part=record.doing, chunk=chunk, galaxies=galaxies, steps=steps, most=most)

    def retry(self, what: str, why: str) -> None:
        """Count something that is begun again."""
        self.record.retries += 1
        metrics.RETRIES.labels(self.record.stage).inc()
        emit(
            "retry",
            **self._who,
            what=what,
            why=printable(redaction.without_secrets(why))[:_LONGEST_ERROR],
            retries=self.record.retries,
        )

    def end(self, error: BaseException | None) -> None:
        """Say how the job ended."""
        record = self.record
        record.state = "failed" if error else "done"
        record.error = _words(error) if error else None
        record.heartbeat = _now()
        self._tell(record.state)
        metrics.RUNNING.labels(record.stage).set(0)
        if self._thread:
            self._stop.set()
            self._thread.join(_ENDING)

    def _tell(self, event: str) -> None:
        record, seconds = self.record, (_now() - self.record.started).total_seconds()
        emit(event, **self._who, done=record.done, total=record.total, unit=record.unit, rows=record.rows,
             seconds=round(seconds, 1), rate=round(record.rows / max(seconds, 1e-3), 1), chunks=record.chunks,
             bytes=record.bytes, retries=record.retries, error=record.error)  # fmt: skip

    def _keep_record(self, run: RunFile) -> None:
        # A record that cannot be written is soon replaced by another: it is not worth the patience that stores deserve.
        place = replace(run.location, tries=2, timeout=5.0) / FOLDER
        complained = False
        while True:
            last = self._stop.wait(0)
            if not last:
                self.record.heartbeat = _now()
            try:
                place.put(f"{self.record.stage}.json", self.record.model_dump_json(indent=1).encode())
            except Exception as error:  # whatever storage libraries raise
                if not complained:
                    emit("warning", **self._who, message=printable(f"no progress record: {explain(error)}"))
                complained = True
            if last:
                return
            self._stop.wait(BEAT)


_under_way: ContextVar[Job | None] = ContextVar("job", default=None)


def current() -> Job | None:
    """Return the job under way, if there is one."""
    return _under_way.get()


@contextmanager
def under_way(stage: str, run: RunFile | None = None) -> Iterator[Job]:
    """Let a block be a job: its start, its end and what it does are told; within another job it is of the same run."""
    outer = current()
    job = Job(stage, run or (outer.run if outer else None))
    token = _under_way.set(job)
    job.start()
    error: BaseException | None = None
    try:
        with retries.observed(job.retry):
            yield job
    except BaseException as caught:
        error = caught
        raise
    finally:
        _under_way.reset(token)
        job.end(error)
        ended = [*job.ended, job.record]
        if outer:
            outer.ended += ended
        elif not as_json():
            for record in ended:
                print(f"{'summary':<10}: {record.stage}: {record.state}, {record.summary()}", file=sys.stderr)


def job(stage: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a function a job; the run file among its arguments, or that of the job that calls it, says whose."""

    def decorated(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def inner(*args: P.args, **kwargs: P.kwargs) -> T:
            run = next((value for value in args if isinstance(value, RunFile)), None)
            with under_way(stage, run):
                return function(*args, **kwargs)

        return inner

    return decorated


def records(root: Location) -> dict[str, Record]:
    """Return the last record of every stage of a run, by stage; one that cannot be read is left out."""
    place, found = root / FOLDER, {}
    for name in place.list():
        try:
            record = Record.model_validate_json(place.get(name))
        except (ValueError, FileNotFoundError):
            continue
        found[record.stage] = record
    return found


def _words(error: BaseException) -> str:
    """An error in words; an end that is no error, as by a signal, with its name and exit code."""
    text = explain(error) if isinstance(error, Exception) else f"{type(error).__name__} {error}".strip()
    return printable(redaction.without_secrets(text or type(error).__name__), keep="\n")[:_LONGEST_ERROR]


def _now() -> datetime:
    return datetime.now(UTC)
