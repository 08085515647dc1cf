"""One Parquet table on an S3 server, read whole and in parts by s3fs and by obstore: seconds, and the ratio of the two.

The server is moto's, in a process of its own on the same machine, so what is measured is what clients take, not a network. Each
figure is the best of three; the two take turns, so that a busy machine is busy for both.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import obstore
import pyarrow as pa
import pyarrow.parquet
from common import report
from object_storage import start_server

from storage_schemas.backend.location import Location
from storage_schemas.backend.remote import Remote

N_ROWS, TIMES, PIECE = 400_000, 3, 4 << 20


class _Object(io.RawIOBase):
    """An object as a file, every part of it asked for by obstore when it is read."""

    def __init__(self, location: Location) -> None:
        folder, _, self._name = location.url.rpartition("/")
        self._store, self._at = location.at(folder).objects(), 0
        self._size = obstore.head(self._store, self._name)["size"]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size - self._at)
        if length > 0:
            buffer[:length] = obstore.get_range(self._store, self._name, start=self._at, length=length)
            self._at += length
        return max(length, 0)


def every_byte(file: Any) -> None:
    """Read a file from its beginning to its end, as its hash is computed."""
    file.seek(0)
    while file.read(PIECE):
        pass


def two_columns(file: Any) -> None:
    """Read two of ten columns, as a survey's map asks for some."""
    pyarrow.parquet.ParquetFile(file, pre_buffer=True).read(["c0", "c7"])


def compare(location: Location, work: Callable[[Any], None]) -> tuple[float, float]:
    """Return the fewest seconds by s3fs and by obstore."""
    opened: tuple[Callable[[], Any], ...] = (
        Remote.of(location).open, lambda: io.BufferedReader(_Object(location), 1 << 20),
    )  # fmt: skip
    seconds: list[list[float]] = [[], []]
    for _ in range(TIMES + 1):
        for taken, open_file in zip(seconds, opened, strict=True):
            start = time.perf_counter()
            with open_file() as file:
                work(file)
            taken.append(time.perf_counter() - start)
    one, other = (min(taken[1:]) for taken in seconds)
    return one, other


def main() -> None:
    server = start_server()
    try:
        rng = np.random.default_rng(1)
        table = pa.table({f"c{i}": rng.random(N_ROWS) for i in range(10)})
        content = io.BytesIO()
        pyarrow.parquet.write_table(table, content, row_group_size=50_000)
        root = Location.parse("s3://galaxies/benchmark")
        root.put("table.parquet", content.getvalue())
        report("table", f"{N_ROWS:,} rows, {len(content.getvalue()) / 1e6:.0f} MB")
        for what, work in (("every byte", every_byte), ("two of ten columns", two_columns)):
            one, other = compare(root / "table.parquet", work)
            report(what, f"s3fs {one:.2f} s, obstore {other:.2f} s: ratio {one / other:.2f}")
    finally:
        server.terminate()


if __name__ == "__main__":
    main()
