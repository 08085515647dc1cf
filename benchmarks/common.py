"""Timing helpers of the benchmarks."""

from __future__ import annotations

import resource
import statistics
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


def turns(rounds: int, *rivals: Callable[[], object]) -> list[float]:
    """Return each rival's median seconds: they take turns, so that the machine's other work disturbs all alike."""
    seconds: list[list[float]] = [[] for _ in rivals]
    for number in range(rounds + 1):
        for work, taken in zip(rivals, seconds, strict=True):
            start = time.perf_counter()
            work()
            if number:  # the first warms up
                taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in seconds]


def report(what: str, figure: str) -> None:
    """Print one line."""
    print(f"{what:<48} {figure}", flush=True)


def peak_memory_mb() -> float:
    """Return the process's largest resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
