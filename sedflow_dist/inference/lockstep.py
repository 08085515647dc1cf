"""Run samplers side by side: each asks for values of a function at points, and all that ask are answered in one batch.

Any sampler that calls a vectorised function can be a task as it is. Tasks are coroutines (greenlets), so their order is
always the same, and each has `random` and `numpy.random` to itself: what a task returns depends on the seeds it sets and on
the answers alone, whoever runs beside it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from greenlet import greenlet

#: Takes points and returns values, one a point: what a task is given to call.
Ask = Callable[[np.ndarray], np.ndarray]
Evaluate = Callable[[list[int], list[np.ndarray]], list[np.ndarray]]


@dataclass
class _Random:
    """What both global generators draw from; numpy's is swapped, not copied, which would take longer than a task's step."""

    python: Any
    numpy: np.random.BitGenerator

    @classmethod
    def current(cls) -> _Random:
        return cls(random.getstate(), np.random.mtrand.get_bit_generator())

    @classmethod
    def seeded(cls, seed: int) -> _Random:
        return cls(random.Random(seed).getstate(), np.random.MT19937(seed))

    def restore(self) -> None:
        random.setstate(self.python)
        np.random.mtrand.set_bit_generator(self.numpy)


def run(tasks: Sequence[Callable[[Ask], Any]], evaluate: Evaluate) -> list[Any]:
    """Run ``task(ask)`` of every task to its end and return what they return.

    Args:
        evaluate: given the numbers of the tasks that wait and the points of each, returns the values of each
    """
    hub = greenlet.getcurrent()
    coroutines = [greenlet(task, hub) for task in tasks]
    states = [_Random.seeded(number) for number in range(len(tasks))]
    results: list[Any] = [None] * len(tasks)
    waiting: dict[int, np.ndarray] = {}

    def resume(number: int, message: Any) -> None:
        states[number].restore()
        answer = coroutines[number].switch(message)
        states[number] = _Random.current()
        if coroutines[number].dead:
            results[number] = answer
        else:
            waiting[number] = answer

    before = _Random.current()
    try:
        for number in range(len(tasks)):
            resume(number, hub.switch)
        while waiting:
            numbers, points = list(waiting), list(waiting.values())
            waiting.clear()
            before.restore()  # what the evaluation draws is none of the tasks' numbers
            for number, values in zip(numbers, evaluate(numbers, points), strict=True):
                resume(number, values)
    finally:
        before.restore()
    return results
