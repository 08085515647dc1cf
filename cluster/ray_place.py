"""What Ray takes from the machine it runs on: a token, a folder for its sockets, and where workers look for modules."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ray.job_config import JobConfig

from cluster.settings import LONGEST_SOCKET

#: Letters of a socket's name that Ray adds to its folder.
_ADDED = len("/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store.00")
_ROOT = str(Path(__file__).parents[1])


class OurModules(JobConfig):
    """A job whose workers find our packages where the driver has them, and look for none in the folder that it works in.

    Ray adds that folder to their path, before what is installed: a `jobs.py` there would be taken for ours.
    """

    def _serialize(self) -> str:
        here = {os.path.abspath(os.curdir), os.path.dirname(os.path.realpath(sys.argv[0]))}
        self._py_driver_sys_path = [_ROOT, *(path for path in self._py_driver_sys_path if path not in {*here, _ROOT})]
        return super()._serialize()


@contextmanager
def token(create: bool) -> Iterator[None]:
    """See to it that nobody else can read the token of ``~/.ray``, and that there is one for a cluster started here.

    A home that cannot be written to is no obstacle: the token is then this process' and its children's.
    """
    if os.environ.get("RAY_AUTH_MODE") != "token" or {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        yield
        return
    file = Path(os.environ.get("HOME") or "/nonexistent", ".ray", "auth_token")
    with suppress(OSError):  # also of a home that is none
        _private(file, create)
    if not create or _readable(file):
        yield
        return
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        yield
    finally:
        del os.environ["RAY_AUTH_TOKEN"]
        _forget()


def _private(file: Path, create: bool) -> None:
    """Take other users' rights to a file of ours away; make it, with a new token, if it is not there."""
    if file.exists():
        if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            file.chmod(stat.S_IRUSR | stat.S_IWUSR)
    elif create:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Written beside and moved: a process that starts at the same time finds a whole one, and both have the same.
        handle, name = tempfile.mkstemp(dir=file.parent)  # for its owner only
        with os.fdopen(handle, "w") as new:
            new.write(secrets.token_hex(32))
        try:
            with suppress(FileExistsError):
                os.link(name, file)
        finally:
            os.unlink(name)


def _readable(file: Path) -> bool:
    with suppress(OSError, UnicodeDecodeError):
        return bool(file.read_text().strip())
    return False


def _forget() -> None:
    """Let Ray look for a token again: it remembers the first that it finds."""
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def folder() -> Iterator[str | None]:
    """Give Ray a folder for its sockets, whose names may be no longer than the system allows; None: its own will do.

    Raises:
        OSError: the folder for temporary files has too long a name, and no other can be made.
    """
    usual = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    if len(os.fsencode(os.path.abspath(usual))) + _ADDED <= LONGEST_SOCKET:
        yield None
        return
    try:
        short = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    except OSError as error:
        raise OSError(
            f"the name of the folder for temporary files, {usual}, is too long for Ray's sockets (at most "
            f"{LONGEST_SOCKET - _ADDED} letters), and /tmp cannot be used ({error.strerror}): set RAY_TMPDIR to a folder with a "
            "short name"
        ) from error
    try:
        yield short
    finally:
        shutil.rmtree(short, ignore_errors=True)
