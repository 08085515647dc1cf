"""What a person sees of a job: a bar while it runs, one line when it is done."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def bar(title: str, total: int, unit: str, done: int = 0) -> Iterator[tqdm]:
    """Show a progress bar on standard error; where that is no terminal, a line every 10 seconds."""
    terminal = sys.stderr.isatty()
    with tqdm(
        desc=f"{title:<10}", total=total, initial=done, unit=f" {unit}", unit_scale=True, file=sys.stderr,
        mininterval=0.2 if terminal else 10, maxinterval=10, dynamic_ncols=terminal, leave=True,
    ) as progress:  # fmt: skip
        yield progress


def say(title: str, message: str) -> None:
    """Print one line about a job on standard error."""
    print(f"{title:<10}: {message}", file=sys.stderr, flush=True)


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._start
