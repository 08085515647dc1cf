"""Whole files: a file or a folder, here or in a bucket, that bears its name once all of it is written, or not at all.

Everything that a command writes for people goes through here. Until it is whole it has a name nobody can guess, beside the
final one, and whatever ends the command (an error, a full disk, SIGTERM) takes it away. What was there before stays until then.
"""

from __future__ import annotations

import errno
import mimetypes
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

import obstore

from storage_schemas.backend.access import Access
from storage_schemas.backend.location import Location
from storage_schemas.backend.remote import Remote

#: Where something is written: a path, s3://bucket/name, another URL that fsspec writes, or any of these as a `Location`.
Destination = str | Path | Location
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def destination(out: Destination) -> Location:
    """Return where ``out``, a path or URL, is; a link at its end is not followed. S3 is written by obstore, the rest by fsspec.

    Raises:
        ValueError: it names no file or folder in a folder or bucket; a scheme that nothing is written to, such as https.
    """
    if isinstance(out, Location):
        return out
    text = os.fspath(out).rstrip("/")
    other = "://" in text and not text.startswith(("s3://", "file://"))
    where = Access().place(text) if other else Location.parse(text)
    if isinstance(where, Remote) and where.is_web:
        raise ValueError(
            f"cannot write to {where}: web servers are only read; allowed are a path, s3:// and URLs of other storage"
        )
    if where.is_local:
        folder, name = os.path.split(text.removeprefix("file://"))
        if name in ("", ".", ".."):
            raise ValueError(f"{out} names no file")
        return Location(os.path.join(Location.parse(folder or ".").url, name))
    if text.count("/") < 3:
        raise ValueError(f"{out} is a bucket; give what is written there a name: {text}/NAME")
    return where


@contextmanager
def whole_file(out: Destination) -> Iterator[IO[bytes]]:
    """Yield a file to write and seek in; it replaces ``out`` if the block ends without an error, and goes otherwise.

    Of two that write the same file at once the later one stays, whole. To a bucket the file goes when it is complete; until
    then it takes room in the folder for temporary files (TMPDIR).

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: ``out`` is there and is no file.
        OSError: the disk is full; says what could not be written.
    """
    where = destination(out)
    folder, _, name = where.url.rpartition("/")
    if where.is_local:
        with _room_for(where.url), _new_file(Path(where.url)) as file:
            yield file
        return
    until_sent = f"{where} (until it is sent, in {tempfile.gettempdir()})"
    if isinstance(where, Remote):
        where.files()  # says at once if nothing can be written there
        with _room_for(until_sent), tempfile.NamedTemporaryFile() as file:
            yield cast("IO[bytes]", file)
            file.flush()
            where.send(Path(file.name))
        return
    with _room_for(until_sent), tempfile.TemporaryFile() as file:
        yield file
        file.seek(0)
        obstore.put(where.at(folder).objects(), name, file)


@contextmanager
def whole_folder(out: Destination, last: Sequence[str] = ()) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes ``out`` if the block ends without an error, and goes otherwise.

    To a bucket its files go when all are complete, those named in ``last`` (by which readers know it) at the very end. None
    replaces another: of two that write the same folder at once one is refused.

    Raises:
        FileNotFoundError: there is no folder that ``out`` could lie in.
        ValueError: ``out`` exists already.
        OSError: the disk is full; says what could not be written.
    """
    where = destination(out)
    if os.path.lexists(where.url) if where.is_local else where.exists():
        raise _exists(where)
    if where.is_local:
        with _room_for(where.url), _new_folder(Path(where.url)) as folder:
            yield folder
        return
    with _room_for(f"{where} (until it is sent, in {tempfile.gettempdir()})"), tempfile.TemporaryDirectory() as name:
        yield Path(name)
        _send(Path(name), where, last)


def _exists(where: Location) -> ValueError:
    return ValueError(f"{where} exists already; remove it, or choose another name")


def _part(out: Path) -> Path:
    """A name beside ``out`` that nobody can have guessed."""
    if not out.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {out.parent} to write {out.name} in")
    return out.with_name(f"sedflow-{secrets.token_hex(8)}.part")


@contextmanager
def _new_file(out: Path) -> Iterator[IO[bytes]]:
    if out.parent == Path("/dev") or (out.exists() and not out.is_file()):
        raise ValueError(f"{out} is no file that could be replaced by a new one")
    part = _part(out)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.fdopen(os.open(part, flags, 0o666), "w+b")
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):  # what is left in the buffer finds no room either
                file.close()
            raise
        file.close()
        os.replace(part, out)
        _sync(out.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    part = _part(out)
    try:
        part.mkdir()
        yield part
        for folder, _, names in os.walk(part):
            for name in (*names, ""):
                _sync(Path(folder) / name)
        try:
            os.rename(part, out)
        except OSError as error:
            if os.path.lexists(out):  # made by another meanwhile
                raise _exists(Location(str(out))) from error
            raise
        _sync(out.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _sync(path: Path) -> None:
    """Have a file, or the names in a folder, written to the disk: a network's file system says only now that it is full."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _send(folder: Path, out: Location, last: Sequence[str]) -> None:
    """Put a folder's files into a bucket; if one cannot be, or is there already, take away those that were put."""
    store, sent = None if isinstance(out, Remote) else out.objects(), list[str]()
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    try:
        for name in sorted(names, key=lambda name: name in last):
            if isinstance(out, Remote):
                (out / name).send(folder / name, new=True)
            elif store:
                # A browser shows as a page only what the server calls one.
                kind = {"Content-Type": found} if (found := mimetypes.guess_type(name)[0]) else None
                obstore.put(store, name, folder / name, mode="create", use_multipart=False, attributes=kind)
            sent.append(name)
    except BaseException as error:
        for name in reversed(sent):
            out.remove_object(name)
        if isinstance(error, obstore.exceptions.AlreadyExistsError | FileExistsError):
            raise _exists(out) from error
        raise


@contextmanager
def _room_for(what: str) -> Iterator[None]:
    """Say of a full disk what it is that finds no room, and that nothing is left of it."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause and not (isinstance(cause, OSError) and cause.errno in _FULL):
            cause = cause.__cause__ or cause.__context__  # libraries make other errors of it
        if not isinstance(cause, OSError):
            raise
        raise OSError(
            cause.errno, f"no room to write {what} ({cause.strerror}): nothing of it is left; make room and repeat"
        ) from error
