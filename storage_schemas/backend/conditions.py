"""Whether a server keeps the promise that catalogs rest on: a write conditional on what is there is done if it holds, else not.

In: a `Location`. Out: nothing, or an error that says which promise is broken. Probes are objects of their own, and are removed.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import obstore
from obstore.store import ObjectStore

from storage_schemas.backend.location import Location

if TYPE_CHECKING:
    from obstore import PutMode

#: Writers of a race.
RACERS = 16
#: What S3 takes as a part of an upload is 5 MiB at least, but for the last [bytes].
_PART = 5 * 2**20
#: How a lost race is answered: 412 by AWS; Ceph may say 409 where the race is still going on.
_LOST = ("412", "409", "PreconditionFailed", "ConditionalRequestConflict")
_ELSEWHERE = "Keep the catalog on a server with conditional writes, or in a local folder"
_AGAIN = "`sedflow doctor --root {}` repeats this"


def require(location: Location) -> None:
    """Check that a write can be made conditional on what is there, as every writer does first: ten small requests.

    Raises:
        RuntimeError: the server ignores the conditions, and so could lose commits silently, or refuses what it must accept.
    """
    store = location.objects()
    with _probe(location) as name:
        if not _accepted(store, name, b"1", "create"):
            raise RuntimeError(_refuses(location, "If-None-Match", "where nothing is"))
        if _accepted(store, name, b"2", "create"):
            raise RuntimeError(_ignores(location, "If-None-Match"))
        if location.is_local:
            return  # If-Match is not to be had: `releases.writing` is the guard there
        if _accepted(store, name, b"3", {"e_tag": '"of nothing"'}):
            raise RuntimeError(_ignores(location, "If-Match"))
        if not _accepted(store, name, b"4", {"e_tag": obstore.head(store, name)["e_tag"]}):
            raise RuntimeError(_refuses(location, "If-Match", "with the ETag that it gave itself"))


def examine(location: Location) -> str:
    """Check conditions, races and uploads in parts, as `sedflow doctor` does; return what was found, in words.

    Raises:
        RuntimeError: a promise is broken; says which.
    """
    require(location)
    found = "conditional writes are accepted and refused as they must be"
    if location.is_local:
        return found
    with _probe(location) as name:
        _race(location, name, "create")
        _race(location, name, {"e_tag": obstore.head(location.objects(), name)["e_tag"]})
        _in_parts(location, name)
    return f"{found}; of {RACERS} at once one wins; an upload in parts is whole"


def _refuses(location: Location, header: str, when: str) -> str:
    return (
        f"the server of {location} refuses {header} {when}: no second commit would ever get through. {_ELSEWHERE}. "
        f"{_AGAIN.format(location)}"
    )


def _ignores(location: Location, header: str) -> str:
    return (
        f"the server of {location} ignores {header}: two runs at once could lose commits. {_ELSEWHERE}. "
        f"{_AGAIN.format(location)}"
    )


@contextlib.contextmanager
def _probe(location: Location) -> Iterator[str]:
    """Yield a name that nobody else uses, and remove what was written there."""
    name = f"sedflow-probe-{uuid.uuid4().hex}"
    try:
        yield name
    finally:
        location.remove_object(name)


def _accepted(store: ObjectStore, name: str, data: bytes, mode: PutMode) -> bool:
    """Whether a conditional write was done.

    What is there afterwards says so: where an answer was lost and the request repeated, the answer to that is no.

    Raises:
        obstore.exceptions.BaseError: it failed for another reason than its condition: no access, no bucket.
    """
    failed = None
    try:
        obstore.put(store, name, data, mode=mode)
    except obstore.exceptions.BaseError as error:
        failed = error
    try:
        done = bool(obstore.get(store, name).bytes() == data)
    except FileNotFoundError:
        done = False
    if failed is not None and not done and not _is_lost(failed):
        raise failed
    return done


def _is_lost(error: BaseException) -> bool:
    """Whether an error says that somebody else was faster, or that the condition does not hold."""
    known = (obstore.exceptions.PreconditionError, obstore.exceptions.AlreadyExistsError)
    return isinstance(error, known) or any(code in str(error) for code in _LOST)


def _race(location: Location, name: str, mode: PutMode) -> None:
    """Let many write at once on the same condition: one may win, and what it wrote is there."""
    store, start = location.objects(), threading.Barrier(RACERS)

    def write(data: bytes) -> bool:
        start.wait()
        try:
            obstore.put(store, name, data, mode=mode)
        except obstore.exceptions.BaseError as error:
            if not _is_lost(error):
                raise
            return False
        return True

    bodies = [f"racer {number} on {mode}".encode() for number in range(RACERS)]
    with ThreadPoolExecutor(RACERS) as pool:
        won = [body for body, winner in zip(bodies, pool.map(write, bodies), strict=True) if winner]
    header = "If-None-Match" if mode == "create" else "If-Match"
    if len(won) != 1:
        raise RuntimeError(
            f"the server of {location} let {len(won)} of {RACERS} writers at once win on one condition ({header}), where one must: "
            f"commits could be lost. {_ELSEWHERE}. {_AGAIN.format(location)}"
        )
    if (there := obstore.get(store, name).bytes()) != won[0]:
        raise RuntimeError(
            f"the server of {location} told a writer that it had won ({header}), and holds {bytes(there)!r}, not {won[0]!r}. "
            f"{_ELSEWHERE}. {_AGAIN.format(location)}"
        )


def _in_parts(location: Location, name: str) -> None:
    """Write an object in two parts and read it back: large chunks are written so."""
    store, data = location.objects(), bytes(range(256)) * (_PART // 256) + b"the second part"
    try:
        obstore.put(store, name, data, use_multipart=True, chunk_size=_PART)
    except obstore.exceptions.BaseError as error:
        raise RuntimeError(
            f"the server of {location} does not complete an upload in parts: {error}. {_AGAIN.format(location)}"
        ) from error
    found = obstore.get(store, name).bytes()
    if found != data:
        raise RuntimeError(
            f"the server of {location} holds {len(found):,} bytes of an upload in parts of {len(data):,}, or others. "
            f"{_AGAIN.format(location)}"
        )
