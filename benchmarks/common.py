"""Timing helpers of the benchmarks."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable


def best_of(n: int, work: Callable[[], object]) -> float:
    """Return the fewest seconds of n runs, after one to warm up: the least disturbed one on a shared machine."""
    work()
    seconds = []
    for _ in range(n):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def report(what: str, figure: str) -> None:
    """Print one line."""
    print(f"{what:<48} {figure}", flush=True)


def peak_memory_mb() -> float:
    """Return the process's largest resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
