"""One writer at a time: whoever writes a store holds its lease, the object ``sedflow.lock`` in it, which says who that is.

In a local folder it is a lock of the kernel's, which ends with the process, however that ends. In object storage it is
written on conditions (``If-None-Match``, ``If-Match``) and renewed every `BEAT` seconds; one that was not renewed for `EXPIRES`
seconds, or whose process is dead on this machine, is taken over. Ages are differences of the server's own times, never of
two clocks.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore

from storage_schemas.backend import conditions
from storage_schemas.backend.location import LOCK, Location
from storage_schemas.backend.printable import printable
from storage_schemas.backend.redaction import without_secrets

if TYPE_CHECKING:
    from obstore import PutMode

BEAT = 10.0  # s
EXPIRES = 60.0  # s
_UNSURE = 45.0  # s without a renewal, after which a holder counts its lease as lost: before anybody else may have it
_PAUSES = (0.1, 0.5, 2.5)  # s, before another try where somebody was faster, or a connection broke
_CONDITION = (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError)


@dataclass(frozen=True)
class Fence:
    """What a task knows of the lease that it works under, wherever it runs."""

    location: Location
    token: str

    def check(self) -> None:
        """Look whether the lease is still held by who started this task: one that was killed may have left tasks behind.

        Raises:
            RuntimeError: it is not; nothing may be written any more.
        """
        if _read(self.location)[0].get("token") != self.token:
            raise RuntimeError(
                f"{self.location} is written by another process by now: this task belongs to one that ended"
            )


class Lease:
    """The right to write a store, held by this process; see `hold`."""

    def __init__(self, location: Location, what: str) -> None:
        self.location, self.what = location, what
        self._record = {
            "token": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid(), "place": _place(),
            "started": _started(os.getpid()), "command": _command(), "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        }  # fmt: skip

    @property
    def fence(self) -> Fence:
        """What tasks are given."""
        return Fence(self.location, str(self._record["token"]))

    def check(self) -> None:
        """Raise RuntimeError if the lease was lost: this process was held up for so long that another has taken it."""

    def _refuse(self, found: dict[str, Any], age: float | None = None) -> RuntimeError:
        who = "who it is, is not known"
        if found.get("pid"):
            who = f"`{found['command']}`, process {found['pid']} on {found['host']}, since {found['since']}"
        advice = "wait until it has ended, or end it, and run the same command again"
        if age is not None:
            who += f", last heard of {age:.0f} s ago"
            advice += f"; if it is dead, the store is free {max(EXPIRES - age, 0):.0f} s from now"
        return RuntimeError(f"another process is writing the {self.what} {self.location}: {who}; {advice}")


class _LocalLease(Lease):
    """A lock of the kernel's on a file, which says who has it."""

    def __enter__(self) -> Lease:
        folder = Path(self.location.url)
        folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            if not isinstance(error, BlockingIOError):
                raise OSError(f"{folder} lies on a file system without locks ({error}); use object storage") from error
            raise self._refuse(_read(self.location)[0]) from None
        self._write(json.dumps(self._record).encode())
        return self

    def _write(self, content: bytes) -> None:
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, content, 0)

    def __exit__(self, *_: object) -> None:
        self._write(b"")
        os.close(self._file)


#: Tokens of leases that this process has given back.
_LEFT: set[str] = set()


class _RemoteLease(Lease):
    """An object that is written on conditions and renewed by a thread."""

    def __init__(self, location: Location, what: str) -> None:
        super().__init__(location, what)
        self._tag = ""
        self._beats = 0
        self._lost: str | None = None
        self._end, self._guard = threading.Event(), threading.Lock()

    def __enter__(self) -> Lease:
        conditions.require(self.location)
        for pause in (*_PAUSES, None):
            found, tag, _ = _read(self.location)
            if found.get("token"):
                age = _age(self.location)
                if age < EXPIRES and not _is_dead(found) and found["token"] not in _LEFT:
                    raise self._refuse(found, age)
            try:
                if self._put(self.location, tag):
                    break
            except obstore.exceptions.GenericError:  # a connection broke
                if pause is None:
                    raise
            if pause is None:
                raise self._refuse(_read(self.location)[0])
            time.sleep(pause)
        self._renewed = time.monotonic()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()
        return self

    def _put(self, location: Location, tag: str, free: bool = False) -> bool:
        """Write the record if the object is as it was, and return whether it is ours, also where an answer got lost."""
        self._beats += 1
        record: dict[str, Any] = {**self._record, "beats": self._beats}
        if free:
            record = {"freed_by": record["token"]}
        mode: PutMode = {"e_tag": tag} if tag else "create"
        try:
            self._tag = str(obstore.put(location.objects(), LOCK, json.dumps(record).encode(), mode=mode)["e_tag"])
            return True
        except (*_CONDITION, obstore.exceptions.GenericError) as error:  # the last: a connection broke
            found, self._tag, _ = _read(location)
            if found == record:
                return True
            if isinstance(error, _CONDITION):
                return False
            raise

    def _keep(self) -> None:
        hasty = replace(self.location, tries=2, timeout=5.0)  # a renewal that does not come through is soon repeated
        while not self._end.wait(BEAT):
            at = time.monotonic()
            with self._guard, contextlib.suppress(Exception):  # whatever storage libraries raise
                if not self._put(hasty, self._tag):
                    self._lost = "another process has taken it over"
                    return
                self._renewed = at

    def check(self) -> None:
        silence = time.monotonic() - self._renewed
        if self._lost is None and silence > _UNSURE:
            self._lost = f"storage has not taken its renewal for {silence:.0f} s"
        if self._lost is not None:
            raise RuntimeError(
                f"the right to write the {self.what} {self.location} was lost: {self._lost}. What was written stays; run the "
                "same command again: it goes on"
            )

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        if self._lost is None:
            _LEFT.add(str(self._record["token"]))  # this process needs not wait, even where storage does not hear of it
            with contextlib.suppress(Exception):  # it expires; what the block raised, or did, matters more
                self._put(self.location, self._tag, free=True)


@contextmanager
def hold(location: Location, what: str, held: Lease | None = None) -> Iterator[Lease]:
    """Be the only process that writes a store; ``held`` is the lease of a caller who has it already.

    Args:
        what: the kind of store, as messages name it

    Raises:
        RuntimeError: another process writes it, or the server ignores conditions; nothing was changed.
    """
    lease = _LocalLease if location.is_local else _RemoteLease
    with nullcontext(held) if held else lease(location, what) as mine:
        yield mine
        mine.check()


def _read(location: Location) -> tuple[dict[str, Any], str, datetime | None]:
    """Return who holds the lease of a store (nothing: nobody), the object's tag ("": there is none) and its time."""
    try:
        if location.is_local:
            found, tag, when = (Path(location.url) / LOCK).read_bytes(), "", None
        else:
            answer = obstore.get(location.objects(), LOCK)
            found, tag, when = bytes(answer.bytes()), str(answer.meta["e_tag"]), answer.meta["last_modified"]
        record = json.loads(found or b"{}")
    except FileNotFoundError:
        return {}, "", None
    except ValueError:  # being written
        record = {}
    return (record if isinstance(record, dict) else {}), tag, when


def _age(location: Location) -> float:
    """Seconds since the lease was renewed, both times being the server's: an object written now tells what time it is."""
    name = f"{LOCK}.{uuid.uuid4().hex}"
    location.put(name, b"")
    try:
        now = obstore.head(location.objects(), name)["last_modified"]
    finally:
        with contextlib.suppress(obstore.exceptions.BaseError):
            location.remove_object(name)
    when = _read(location)[2]
    return EXPIRES if when is None else (now - when).total_seconds()


def _place() -> str:
    """What tells machines and containers apart in which process numbers mean something."""
    with contextlib.suppress(OSError):
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    return uuid.uuid4().hex


def _started(pid: int) -> str:
    """When a process started, since the machine did: its number may be another's by now. Empty: there is none."""
    with contextlib.suppress(OSError):
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else fields[18]
    return ""


def _is_dead(found: dict[str, Any]) -> bool:
    return found.get("place") == _place() and found.get("started") != _started(int(found["pid"]))


def _command() -> str:
    """The command line, as one would type it, short and without anything secret or unprintable."""
    name, *arguments = sys.argv or ["python"]
    return printable(without_secrets(shlex.join([Path(name).name, *arguments])))[:200]
