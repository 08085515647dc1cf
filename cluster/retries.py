"""Who is told that an engine begins something again: a job that counts it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Observer = Callable[[str, str], None]
_observer: ContextVar[Observer] = ContextVar("observer", default=lambda what, why: None)


@contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Call ``observer(what, why)`` for all that the engines begin again while the block runs."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


def observer() -> Observer:
    """Return whom to tell what is begun again, and why."""
    return _observer.get()
