"""Catalogs as files of rows: FITS, Parquet, text and others, of which any rows and columns are read without the rest.

In: a `Location` (local or S3). Out: numpy columns by name, (row,) or (row, entry), in the order of the file.
"""

from __future__ import annotations

import gzip
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, cast

import numpy as np

from jobs.containers import addresses
from jobs.containers.exact import Exact
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import printable, shortened
from storage_schemas.backend.remote import Remote, file_name

#: Limits, so that what a file announces, or stands for, cannot fill the memory: of one text, of one row of a column, and of
#: what is read of a Parquet file at once.
MOST_TEXT_BYTES = 4096
MOST_VALUE_BYTES = 65_536
MOST_PIECE_BYTES = 2 << 30
#: Of a chunk of an array, as Zarr and HDF5 have them.
MOST_CHUNK_BYTES = 1 << 30
#: A table of more rows must have about as many stored: without, it is one of fill values, which a small one may well be.
FEW_ROWS = 1_000_000
#: Why a column is not read whose name another has too.
TWICE = "is there twice: columns of one name cannot be told apart"
_HEAD_BYTES = 64 << 10
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class TableInfo:
    """A table of a file: what addresses it there, as in ``file[NAME]`` ("" where the file is the table), rows, columns."""

    name: str
    n_rows: int
    columns: tuple[str, ...]


class Catalog(ABC):
    """A catalog that is open: `names` of its columns, each once, `units` that it states, `n_rows`. Close it, or use ``with``.

    `unreadable` says of columns why they are not read (``is nested``); whoever wants none of them need not care. `title` is
    the catalog's place as messages name it.
    """

    #: Whether a file of this kind may hold several tables; then the class takes the name of one beside the location.
    holds_several = False
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

    @classmethod
    def tables(cls, location: Location) -> list[TableInfo]:
        """Return the tables of a file: of most containers it is one."""
        with cls(location) as catalog:
            return [TableInfo("", catalog.n_rows, catalog.names)]

    def _require_readable(self, names: Sequence[str]) -> None:
        for name in names:
            if name in self.unreadable:
                raise ValueError(f"{self.title}: column {shortened(name)} {self.unreadable[name]}")

    def borders(self, rows: int) -> list[int]:
        """Return where to cut the catalog into pieces of at most ``rows`` rows that are read without waste."""
        return [*range(0, self.n_rows, rows), self.n_rows] if self.n_rows else [0]

    def places(self, number: int) -> list[int]:
        """Return rows, at most ``number`` of them and over the whole catalog, from which some can be read at little cost."""
        return sorted({self.n_rows * i // number for i in range(number)}) if self.n_rows else []

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def open_catalog(location: Location) -> Catalog:
    """Open a catalog by what it is; a folder is a Zarr group, and ``file.fits[PHOT]`` a table of a file.

    Raises:
        FileNotFoundError, ValueError: no such file, or no such table in it; empty; none of the formats, or broken. Says what
            was found.
    """
    file, table = addresses.split(location)
    kind = _kind(file)
    if table is None:
        return kind(file)
    if not kind.holds_several:
        raise ValueError(f"{printable(location)}: {printable(file)} is one table: leave [{shortened(table)}] out")
    return kind(file, table)  # type: ignore[call-arg]


def tables_of(location: Location) -> list[TableInfo]:
    """Return the tables that a file holds, in its order; of a location that names one, that one.

    Raises:
        FileNotFoundError, ValueError: as `open_catalog`.
    """
    file, table = addresses.split(location)
    if table is None:
        return _kind(file).tables(file)
    with open_catalog(location) as catalog:
        return [TableInfo(table, catalog.n_rows, catalog.names)]


def _kind(location: Location) -> type[Catalog]:
    """The class that reads a file: by the ending of its name, and text by what it begins with."""
    from jobs.containers import astropy_catalog
    from jobs.containers.fits_catalog import Fits
    from jobs.containers.hdf5_catalog import Hdf5
    from jobs.containers.parquet_catalog import Parquet
    from jobs.containers.text_catalog import Text
    from jobs.containers.zarr_catalog import Zarr

    name = file_name(location)
    kinds = ((addresses.FITS, Fits), (addresses.PARQUET, Parquet), (addresses.HDF5, Hdf5))
    for endings, kind in kinds:
        if addresses.ends_with(name, endings):
            return kind
    if is_zarr(location):
        return Zarr
    start = content_of(location, _HEAD_BYTES, whole=False)
    for magic, kind in ((b"SIMPLE  =", Fits), (b"PAR1", Parquet), (b"\x89HDF\r\n", Hdf5)):
        if start.startswith(magic):
            return kind
    if found := astropy_catalog.kind_of(start, location):
        return found
    if addresses.ends_with(name, addresses.TEXT):
        return Text
    raise ValueError(
        f"{printable(location)}: its format is not one of FITS ({_written(addresses.FITS)}), Parquet "
        f"({_written(addresses.PARQUET)}), HDF5 ({_written(addresses.HDF5)}), VOTable ({_written(addresses.VOTABLE)}), text "
        f"({_written(addresses.TEXT)}) and a Zarr group; FITS, VOTables and text may be gzipped"
    )


def each_of(kind: Any, location: Location, names: Sequence[str | None]) -> list[TableInfo]:
    """Return what tables of a file are, of a class that takes their names."""
    found = []
    for name in names:
        with kind(location, name) as catalog:
            found.append(TableInfo(name or "", catalog.n_rows, catalog.names))
    return found


def _written(endings: Sequence[str]) -> str:
    return " ".join(endings)


def content_of(location: Location, most: int, whole: bool = True) -> bytes:
    """Return a file's content, gunzipped where it is gzipped; without ``whole`` the first ``most`` bytes are enough.

    Raises:
        FileNotFoundError, ValueError: as `open_file`; it has more bytes than ``most``: says how it is converted.
    """
    with open_file(location) as raw:
        gzipped = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        file = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if gzipped else raw
        try:
            content = file.read(most + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{printable(location)} cannot be gunzipped: {shortened(error)}") from error
    if whole and len(content) > most:
        raise ValueError(
            f"{printable(location)} has more than {most / 1e6:,.0f} MB; a table of this kind is read whole, and no larger one is "
            "taken: write it as Parquet, which is read by parts, for example with `stilts tcopy IN OUT.parquet`"
        )
    return content[:most]


def count(location: Location) -> int:
    """Return the number of rows of a catalog."""
    with open_catalog(location) as catalog:
        return catalog.n_rows


def open_file(location: Location, may_be_empty: bool = False) -> IO[bytes]:
    """Open one object for reading and seeking.

    Raises:
        FileNotFoundError, ValueError: there is none; it is empty, and may not be.
    """
    try:
        file: Any = open(location.url, "rb") if location.is_local else Remote.of(location).open()  # noqa: SIM115
    except (FileNotFoundError, IsADirectoryError) as error:
        raise FileNotFoundError(f"no catalog {printable(location)}") from error
    file.seek(0, 2)
    if not file.tell() and not may_be_empty:
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


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return arrays one after the other; a part with missing values is masked."""
    return np.ma.concatenate(parts) if any(map(np.ma.isMaskedArray, parts)) else np.concatenate(parts)


def wrong_type(dtype: np.dtype[Any]) -> str:
    """Return why a column of a type that is no number and no text is not read."""
    return "holds complex numbers" if dtype.kind == "c" else f"is of type {dtype}, which is not read"


def missing(values: np.ndarray) -> np.ndarray:
    """Return which values of a column, as `Catalog.read` returns it, are missing; NaN is a value."""
    absent = np.ma.getmaskarray(values)
    if values.dtype.kind == "O":
        absent = absent | np.array([value is None for value in values.flat], bool).reshape(values.shape)
    return absent
