"""Catalogs as files of rows: FITS, Parquet, CSV and Zarr, of which any rows and columns are read without the rest.

In: a `Location` (local or S3). Out: numpy columns by name, (row,) or (row, entry), in the order of the file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import IO, Any, cast

import numpy as np

from jobs.ingest import exact
from jobs.ingest.exact import Exact
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import printable, shortened
from storage_schemas.backend.remote import Remote, file_name

#: Limits, so that what a file announces, or stands for, cannot fill the memory: of one text, of one row of a column, and of
#: what is read of a Parquet file at once.
MOST_TEXT_BYTES = 4096
MOST_VALUE_BYTES = 65_536
MOST_PIECE_BYTES = 2 << 30
_MOST_CSV_BYTES = 512 << 20


class Catalog(ABC):
    """A catalog that is open: `names` of its columns, each once, `units` that it states, `n_rows`. Close it, or use ``with``.

    `unreadable` says of columns why they are not read (``is nested``); whoever wants none of them need not care. `title` is
    the catalog's place as messages name it.
    """

    names: tuple[str, ...] = ()
    n_rows: int = 0
    _file: IO[bytes] | None = None

    def __init__(self, location: Location) -> None:
        self.title = printable(location)
        self.units: dict[str, str | None] = {}
        self.unreadable: dict[str, str] = {}

    def read(self, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return rows ``start`` to ``stop`` of columns, of their own dtype.

        A column in which values are missing is a masked array; text that is missing is None.

        Raises:
            ValueError: a column is one of `unreadable`, or the file is damaged; says which and how.
        """
        self._require_readable(names)
        return self._read(start, stop, names)

    @abstractmethod
    def _read(self, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return rows of columns that can be read."""

    def exact(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Exact]:
        """Return rows ``start`` to ``stop`` of columns, integers and text as they are; of no rows, the columns' types.

        Raises:
            ValueError: a column holds neither numbers nor text, or is one of `unreadable`; says what.
        """
        self._require_readable(names)
        return self._exact(start, stop, names)

    @abstractmethod
    def _exact(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Exact]:
        """Return rows of columns that can be read, exactly."""

    def _require_readable(self, names: Sequence[str]) -> None:
        for name in names:
            if name in self.unreadable:
                raise ValueError(f"{self.title}: column {shortened(name)} {self.unreadable[name]}")

    def borders(self, rows: int) -> list[int]:
        """Return where to cut the catalog into pieces of at most ``rows`` rows that are read without waste."""
        return [*range(0, self.n_rows, rows), self.n_rows] if self.n_rows else [0]

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def open_catalog(location: Location) -> Catalog:
    """Open a catalog by the ending of its name; a folder is a Zarr group.

    Raises:
        FileNotFoundError, ValueError: no such file; empty; none of the formats, or broken. Says what was found.
    """
    from jobs.ingest.fits_catalog import Fits
    from jobs.ingest.parquet_catalog import Parquet
    from jobs.ingest.zarr_catalog import Zarr

    name = file_name(location).lower()
    kinds: dict[tuple[str, ...], Callable[[Location], Catalog]] = {
        (".fits", ".fit", ".gz"): Fits, (".parquet", ".pq"): Parquet, (".csv",): _Csv,
    }  # fmt: skip
    for endings, kind in kinds.items():
        if name.endswith(endings):
            return kind(location)
    if is_zarr(location):
        return Zarr(location)
    open_file(location).close()
    raise ValueError(f"{printable(location)}: its format is not one of .fits, .parquet, .csv and a Zarr group")


def count(location: Location) -> int:
    """Return the number of rows of a catalog."""
    with open_catalog(location) as catalog:
        return catalog.n_rows


def open_file(location: Location) -> IO[bytes]:
    """Open one object for reading and seeking.

    Raises:
        FileNotFoundError, ValueError: there is none; it is empty.
    """
    try:
        file: Any = open(location.url, "rb") if location.is_local else Remote.of(location).open()  # noqa: SIM115
    except (FileNotFoundError, IsADirectoryError) as error:
        raise FileNotFoundError(f"no catalog {printable(location)}") from error
    file.seek(0, 2)
    if not file.tell():
        file.close()
        raise ValueError(f"{printable(location)} is empty")
    file.seek(0)
    return cast("IO[bytes]", file)


def parent(location: Location) -> tuple[Location, str]:
    """Return the folder of an object, and the object's name there."""
    folder, _, name = location.url.rpartition("/")
    return location.at(folder or "/"), name


def is_zarr(location: Location) -> bool:
    """Whether a Zarr group (format 2 or 3) is there."""
    return any(map(location.has, ("zarr.json", ".zgroup")))


class _Csv(Catalog):
    """A CSV table; it is read whole, so it must not be large."""

    def __init__(self, location: Location) -> None:
        import pyarrow as pa
        import pyarrow.csv

        super().__init__(location)

        with open_file(location) as file:
            if (size := file.seek(0, 2)) > _MOST_CSV_BYTES:
                raise ValueError(
                    f"{self.title} has {size / 1e6:,.0f} MB; a CSV table is read whole, and at most "
                    f"{_MOST_CSV_BYTES / 1e6:,.0f} MB are taken: write it as Parquet"
                )
            file.seek(0)
            try:
                self._content = pa.py_buffer(file.read())
                self._table = pyarrow.csv.read_csv(self._content)
            except pa.ArrowInvalid as error:
                raise ValueError(f"{self.title} is not a csv file: {shortened(error)}") from error
        found, self.n_rows = self._table.column_names, self._table.num_rows
        self.names = tuple(dict.fromkeys(found))
        twice = "is there twice: columns of one name cannot be told apart"
        self.unreadable = {name: twice for name in self.names if found.count(name) > 1}

    def _read(self, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        from jobs.ingest.arrow_columns import to_numpy

        part = self._table.slice(start, stop - start)
        found = {}
        for name in names:
            try:
                found[name] = to_numpy(part.column(name))
            except ValueError as error:
                raise ValueError(f"{self.title}: column {shortened(name)} {shortened(error)}") from error
        return found

    def _exact(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Exact]:
        """What is written there, whatever it looks like: 00012 is not 12, and 1e5 no number."""
        import pyarrow as pa
        import pyarrow.csv

        if start == stop or not names:
            return {name: exact.from_arrow(pa.array([], pa.string())) for name in names}
        as_text = pyarrow.csv.ConvertOptions(
            include_columns=list(names), column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        )
        table = pyarrow.csv.read_csv(self._content, convert_options=as_text).slice(start, stop - start)
        found = {}
        for name in names:
            with exact.naming(self.title, name):
                found[name] = exact.from_arrow(table.column(name).combine_chunks())
        return found


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return arrays one after the other; a part with missing values is masked."""
    return np.ma.concatenate(parts) if any(map(np.ma.isMaskedArray, parts)) else np.concatenate(parts)


def missing(values: np.ndarray) -> np.ndarray:
    """Return which values of a column, as `Catalog.read` returns it, are missing; NaN is a value."""
    absent = np.ma.getmaskarray(values)
    if values.dtype.kind == "O":
        absent = absent | np.array([value is None for value in values.flat], bool).reshape(values.shape)
    return absent
