"""What a person sees of a job: a bar while it runs, one line when it is done. Programs get events instead."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from tqdm import tqdm

from jobs.telemetry import events
from jobs.telemetry.events import Chunk, Job
from storage_schemas.backend.redaction import shown


@dataclass(frozen=True)
class Bar:
    """Progress of a part of a job, for the eye and for the job."""

    shown: tqdm
    job: Job

    def update(self, n: int) -> None:
        """Count what was done."""
        self.job.advance(n)
        self.shown.set_postfix_str(self.job.record.sampling, refresh=False)
        self.shown.update(n)

    def sampling(self, chunk: int, galaxies: int, steps: int, most: int) -> None:
        """Show that a chunk is not done yet because its worker samples; see `Job.sampling`."""
        self.job.sampling(chunk, galaxies, steps, most)
        self.shown.set_postfix_str(self.job.record.sampling)

    def wrote(self, chunk: Chunk) -> None:
        """Count a chunk that was written, and its rows."""
        self.job.chunk(chunk)
        self.update(chunk.rows)


class _Lines:
    """Standard error for bars that cannot be drawn over: what would be, each time, is a line."""

    def write(self, text: str) -> None:
        """Write what a bar has become; a line that only ends one is there already."""
        if line := text.strip("\r\n "):
            print(line, file=sys.stderr, flush=True)

    def flush(self) -> None:
        """Do nothing: every line is."""


@contextmanager
def bar(title: str, total: int, unit: str, done: int = 0) -> Iterator[Bar]:
    """Show a progress bar on standard error, in the job under way, or as a job of its own.

    Where that is no terminal but a file or a pipe, it is a line every 10 seconds.
    """
    terminal = sys.stderr.isatty()
    under_way = events.current()
    with (
        nullcontext(under_way) if under_way else events.under_way(title) as job,
        tqdm(
            desc=f"{title:<10}", total=total, initial=done, unit=f" {unit}", unit_scale=True,
            file=sys.stderr if terminal else _Lines(),
            mininterval=0.2 if terminal else 10, maxinterval=10, dynamic_ncols=terminal, leave=True,
            disable=events.as_json(),
        ) as shown,
    ):  # fmt: skip
        job.part(title, total, unit, done)
        yield Bar(shown, job)


def say(title: str, message: str) -> None:
    """Print one line about a job on standard error."""
    message = shown(message)
    if events.as_json():
        events.emit("message", stage=title, message=message)
    else:
        print(f"{title:<10}: {message}", file=sys.stderr, flush=True)


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._start
