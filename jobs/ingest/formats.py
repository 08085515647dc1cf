"""Catalogs as files of rows: FITS, Parquet, CSV and Zarr, of which any rows and columns are read without the rest.

In: a `Location` (local or S3). Out: numpy columns by name, (row,) or (row, entry), in the order of the file.
"""

from __future__ import annotations

import gzip
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from types import TracebackType
from typing import IO, Any, cast

import numpy as np
import obstore
import zarr
from obstore.store import ObjectStore

from jobs.ingest import exact
from jobs.ingest.exact import Exact
from storage_schemas.backend.location import Location

_BLOCK_BYTES = 32 << 20
_READ_AHEAD_BYTES = 1 << 20
_MOST_CSV_BYTES = 512 << 20


class Catalog(ABC):
    """A catalog that is open: `names` and `units` of its columns, `n_rows`. Close it, or use it in a ``with``."""

    names: tuple[str, ...]
    units: dict[str, str | None]
    n_rows: int
    _file: IO[bytes] | None = None

    @abstractmethod
    def read(self, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return rows ``start`` to ``stop`` of columns."""

    @abstractmethod
    def exact(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Exact]:
        """Return rows ``start`` to ``stop`` of columns, integers and text as they are; of no rows, the columns' types.

        Raises:
            ValueError: a column holds neither numbers nor text; says what.
        """

    def borders(self, rows: int) -> list[int]:
        """Return where to cut the catalog into pieces of at most ``rows`` rows that are read without waste."""
        return [*range(0, self.n_rows, rows), self.n_rows]

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
    name = location.url.lower()
    kinds: dict[tuple[str, ...], Callable[[Location], Catalog]] = {
        (".fits", ".fit", ".gz"): _Fits, (".parquet", ".pq"): _Parquet, (".csv",): _Csv,
    }  # fmt: skip
    for endings, kind in kinds.items():
        if name.endswith(endings):
            return kind(location)
    if is_zarr(location):
        return _Zarr(location)
    open_file(location).close()
    raise ValueError(f"{location}: its format is not one of .fits, .parquet, .csv and a Zarr group")


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
        if location.is_local:
            file: Any = open(location.url, "rb")  # noqa: SIM115
        else:
            folder, name = parent(location)
            file = io.BufferedReader(_Object(folder.objects(), name), _READ_AHEAD_BYTES)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise FileNotFoundError(f"no catalog {location}") from error
    file.seek(0, 2)
    if not file.tell():
        file.close()
        raise ValueError(f"{location} is empty")
    file.seek(0)
    return cast("IO[bytes]", file)


def parent(location: Location) -> tuple[Location, str]:
    """Return the folder of an object, and the object's name there."""
    folder, _, name = location.url.rpartition("/")
    return location.at(folder or "/"), name


def is_zarr(location: Location) -> bool:
    """Whether a Zarr group (format 2 or 3) is there."""
    return any(map(location.has, ("zarr.json", ".zgroup")))


class _Object(io.RawIOBase):
    """An object of a bucket as a file: obstore's own reader is none that pyarrow and astropy take."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store, self._name, self._at = store, name, 0
        self._size = obstore.head(store, name)["size"]

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


class _Fits(Catalog):
    """The first binary table of a FITS file, also of a gzipped one; rows come in blocks of a few megabytes."""

    def __init__(self, location: Location) -> None:
        from astropy.io import fits

        raw = open_file(location)
        file = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if location.url.lower().endswith(".gz") else raw
        self._file = self._rows = file
        try:
            hdus = fits.open(file, memmap=False, lazy_load_hdus=True)
            table = next((hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU)), None)
        except OSError as error:
            raise ValueError(f"{location} is not a FITS file: {error}") from error
        if table is None:
            raise ValueError(f"{location} holds no binary table; its HDUs are {[hdu.name for hdu in hdus]}")
        self._header, self._start = table.header.copy(), table.fileinfo()["datLoc"]
        self.units = {column.name: column.unit for column in table.columns}
        self.names, self.n_rows = tuple(self.units), self._header["NAXIS2"]
        self._location = location

    def read(self, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        size = max(_BLOCK_BYTES // max(self._header["NAXIS1"], 1), 1)
        blocks = [self._block(at, min(at + size, stop), names) for at in range(start, stop, size)]
        return {name: np.concatenate([block[name] for block in blocks]) for name in names}

    def exact(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Exact]:
        if not names:
            return {}
        size = max(_BLOCK_BYTES // max(self._header["NAXIS1"], 1), 1)
        parts: dict[str, list[Exact]] = {name: [] for name in names}
        for at in range(start, stop, size) or [start]:
            table = self._table(at, min(at + size, stop))
            for name in names:
                with exact.naming(self._location, name):
                    parts[name].append(exact.from_fits(table, name))
        return {name: exact.concatenate(part) for name, part in parts.items()}

    def _block(self, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        data = self._table(start, stop).data
        return {name: _native(np.asarray(data[name])) for name in names}

    def _table(self, start: int, stop: int) -> Any:
        """Rows as a FITS table of their own, so that astropy does all the decoding."""
        from astropy.io import fits

        width = self._header["NAXIS1"]
        self._rows.seek(self._start + start * width)
        raw = self._rows.read((stop - start) * width)
        if len(raw) < (stop - start) * width:
            raise ValueError(
                f"{self._location} is cut off: {self.n_rows} rows are announced, row {stop - 1} is not there"
            )
        header = self._header.copy()
        header["NAXIS2"], header["PCOUNT"] = stop - start, 0
        return fits.BinTableHDU.fromstring(header.tostring().encode() + raw, uint=True)


class _Parquet(Catalog):
    """A Parquet file: only the row groups and columns that are asked for are decoded."""

    def __init__(self, location: Location) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        self._file, self._location = open_file(location), location
        try:
            self._parquet = pyarrow.parquet.ParquetFile(self._file, pre_buffer=not location.is_local)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{location} is not a parquet file: {error}") from error
        schema = self._parquet.schema_arrow
        self.names = tuple(schema.names)
        self.units = {field.name: ((field.metadata or {}).get(b"unit") or b"").decode() or None for field in schema}
        groups = [self._parquet.metadata.row_group(i).num_rows for i in range(self._parquet.num_row_groups)]
        self._ends = np.cumsum(groups, dtype=np.int64)
        self.n_rows = self._parquet.metadata.num_rows

    def borders(self, rows: int) -> list[int]:
        """Cut between row groups, and within one only where it alone is larger than a piece."""
        cuts = [0]
        for start, end in pairwise([0, *self._ends.tolist()]):
            if end - cuts[-1] > rows and start > cuts[-1]:
                cuts.append(start)
            cuts += range(cuts[-1] + rows, end, rows)
        return [*cuts, self.n_rows]

    def read(self, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for part in self._batches(start, stop, names):
            for name in names:
                parts[name].append(_from_arrow(part.column(part.schema.get_field_index(name))))
        return {name: np.concatenate(part) for name, part in parts.items()}

    def exact(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Exact]:
        import pyarrow as pa

        parts: dict[str, list[Any]] = {name: [] for name in names}
        for part in self._batches(start, stop, names) if names and start < stop else ():
            for name in names:
                parts[name].append(part.column(part.schema.get_field_index(name)))
        found = {}
        for name in names:
            kind = self._parquet.schema_arrow.field(name).type
            with exact.naming(self._location, name):
                found[name] = exact.from_arrow(pa.chunked_array(parts[name], kind).combine_chunks())
        return found

    def _batches(self, start: int, stop: int, names: Sequence[str]) -> Iterator[Any]:
        """Batches of the rows ``start`` to ``stop``, none of them empty."""
        first, last = np.searchsorted(self._ends, [start, stop - 1], side="right")
        at = int(self._ends[first - 1]) if first else 0
        for batch in self._parquet.iter_batches(65_536, row_groups=range(first, last + 1), columns=list(names)):
            part = batch.slice(max(start - at, 0), max(min(stop - at, len(batch)) - max(start - at, 0), 0))
            at += len(batch)
            if len(part):
                yield part


class _Csv(Catalog):
    """A CSV table; it is read whole, so it must not be large."""

    def __init__(self, location: Location) -> None:
        import pyarrow as pa
        import pyarrow.csv

        with open_file(location) as file:
            if (size := file.seek(0, 2)) > _MOST_CSV_BYTES:
                raise ValueError(
                    f"{location} has {size / 1e6:,.0f} MB; a CSV table is read whole, and at most {_MOST_CSV_BYTES / 1e6:,.0f} "
                    "MB are taken: write it as Parquet"
                )
            file.seek(0)
            try:
                self._table = pyarrow.csv.read_csv(pa.py_buffer(file.read()))
            except pa.ArrowInvalid as error:
                raise ValueError(f"{location} is not a csv file: {error}") from error
        self.names, self.n_rows = tuple(self._table.column_names), self._table.num_rows
        self.units = dict.fromkeys(self.names)
        self._location = location

    def read(self, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        part = self._table.slice(start, stop - start)
        return {name: _from_arrow(part.column(name).combine_chunks()) for name in names}

    def exact(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Exact]:
        """What is written there, whatever it looks like: 00012 is not 12, and 1e5 no number."""
        import pyarrow as pa
        import pyarrow.csv

        if start == stop or not names:
            return {name: exact.from_arrow(pa.array([], pa.string())) for name in names}
        as_text = pyarrow.csv.ConvertOptions(
            include_columns=list(names), column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        )
        with open_file(self._location) as file:
            table = pyarrow.csv.read_csv(pa.py_buffer(file.read()), convert_options=as_text).slice(start, stop - start)
        found = {}
        for name in names:
            with exact.naming(self._location, name):
                found[name] = exact.from_arrow(table.column(name).combine_chunks())
        return found


class _Zarr(Catalog):
    """The arrays of a Zarr group that have as many rows as the longest: a table by columns."""

    def __init__(self, location: Location) -> None:
        self._group = zarr.open_group(location.zarr(read_only=True), mode="r")
        arrays = {name: value for name, value in self._group.arrays() if value.ndim in (1, 2)}
        for name, value in arrays.items():
            if any(getattr(codec, "codec_id", "") == "pickle" for codec in (*value.filters, *value.compressors)):
                raise ValueError(
                    f"{location}: array {name} is pickled: reading it could run any code, so it is not read"
                )
        self.n_rows = max((value.shape[0] for value in arrays.values()), default=0)
        self._arrays = {name: arrays[name] for name in sorted(arrays) if arrays[name].shape[0] == self.n_rows}
        self.names, self._location = tuple(self._arrays), location
        self.units = {name: cast("str | None", value.attrs.get("units")) for name, value in self._arrays.items()}

    def read(self, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        return {name: np.asarray(self._arrays[name][start:stop]) for name in names}

    def exact(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Exact]:
        found = {}
        for name in names:
            with exact.naming(self._location, name):
                found[name] = exact.from_zarr(self._arrays[name], slice(start, stop))
        return found


def _from_arrow(column: Any) -> np.ndarray:
    """An Arrow array as numpy; lists of one length become (row, entry), others stay objects, in case nobody asks."""
    import pyarrow as pa

    if not (
        pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type) or pa.types.is_large_list(column.type)
    ):
        return column.to_numpy(zero_copy_only=False)
    values = column.flatten()
    width = len(values) // max(len(column), 1)
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    if column.null_count == 0 and np.all(lengths == width):
        return values.to_numpy(zero_copy_only=False).reshape(len(column), width)
    ragged = np.empty(len(column), dtype=object)
    ragged[:] = column.to_pylist()
    return ragged


def _native(values: np.ndarray) -> np.ndarray:
    return values.astype(values.dtype.newbyteorder("=")) if values.dtype.kind in "iuf" else values
