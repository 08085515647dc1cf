"""HDF5 files that are written through a file of ours, which may find no room or go to a bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import IO, Any

import h5py


@contextmanager
def hdf5_file(file: IO[bytes]) -> Iterator[tuple[Any, Callable[[], None]]]:
    """Yield a new HDF5 file (`h5py.File`) in ``file``, and what raises the error that writing it met: call it now and then."""
    patient = _Patient(file)
    with closing(h5py.File(patient, "w")) as content:
        yield content, patient.check
    patient.check()


class _Patient:
    """A file for HDF5, which ends the process (SIGSEGV) some time after a write fails: it is told that all goes well.

    The first error is kept for `check`; nothing is written after it.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._error: BaseException | None = None

    def check(self) -> None:
        """Raise the error that there was."""
        if self._error is not None:
            raise self._error

    def _try(self, action: Callable[[], int | None], otherwise: int = 0) -> int:
        if self._error is None:
            try:
                return action() or 0
            except BaseException as error:  # SIGTERM's, too
                self._error = error
        return otherwise

    def write(self, data: Any) -> int:
        """Write all of ``data`` here."""
        return self._try(lambda: self._file.write(data), len(data))

    def read(self, size: int = -1) -> bytes:
        """Read, as a file does: h5py knows a file by it."""
        return self._file.read(size)

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` from here."""
        return self._try(lambda: self._file.readinto(buffer), len(buffer))  # type: ignore[attr-defined]

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        return self._try(lambda: self._file.seek(offset, whence), offset)

    def tell(self) -> int:
        """Say the place."""
        return self._try(self._file.tell)

    def truncate(self, size: int) -> int:
        """Give the file a size."""
        return self._try(lambda: self._file.truncate(size), size)

    def flush(self) -> None:
        """Hand on what is in memory."""
        self._try(lambda: self._file.flush())
