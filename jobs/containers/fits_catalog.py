"""FITS: a table of a file, also of a gzipped one, of which only the columns that are asked for are decoded.

Without a name that is the first one; of SExtractor's LDAC the objects, and not the header of the image that stands before them.

What a header announces is compared with the file's size, and with limits, before anything is read or reserved by it.
"""

from __future__ import annotations

import gzip
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from jobs.containers import exact, fits_ascii
from jobs.containers.addresses import GZIP, Entry, addresses, choose, with_table
from jobs.containers.exact import Exact
from jobs.containers.formats import MOST_TEXT_BYTES, MOST_VALUE_BYTES, TWICE, Catalog, TableInfo, joined, open_file
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import listed, printable, shortened

if TYPE_CHECKING:
    from astropy.io.fits import Header

_BLOCK = 2880  # bytes, of which FITS is made
_CARD = 80
_MOST_HEADER_BYTES = 8 << 20
_MOST_FIELDS = 999  # by the standard
_MOST_HDUS = 1000
_MOST_ROW_BYTES = 256 << 20
_AT_ONCE_BYTES = 32 << 20
_GZIP_RATIO = 1032  # bytes that one byte can stand for, at most
_FORM = re.compile(r"\s*(\d{0,18})([LXBIJKAEDCMPQ])")
_WIDTHS = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
_UNREADABLE = {
    "P": "has vectors of different lengths (a variable-length column), which are not read",
    "Q": "has vectors of different lengths (a variable-length column), which are not read",
    "C": "holds complex numbers", "M": "holds complex numbers",
}  # fmt: skip
_ASCII = "TABLE"
_LDAC, _LDAC_OBJECTS = "LDAC_", "LDAC_OBJECTS"
_KEYS = ("TFORM", "TNULL", "TSCAL", "TZERO", "TDIM")  # what decoding depends on


@dataclass(frozen=True)
class _Field:
    """A column as the header has it: kind, where it is in a row, and its keywords."""

    code: str
    offset: int
    width: int
    keys: dict[str, Any]


@dataclass(frozen=True)
class _Hdu:
    """A header of a FITS file, its number (the primary's is 0), and where its data start."""

    number: int
    header: Header
    start: int

    @property
    def name(self) -> str:
        return str(self.header.get("EXTNAME", "")).strip()

    @property
    def kind(self) -> str:
        return str(self.header.get("XTENSION", "PRIMARY")).strip()

    @property
    def is_table(self) -> bool:
        return self.kind in ("BINTABLE", "A3DTABLE", _ASCII) and not self.header.get("ZIMAGE")

    @property
    def entry(self) -> Entry:
        names = (self.name, f"{self.name},{self.header.get('EXTVER', 1)}") if self.name else ()
        return Entry(names, self.number)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(_column_name(self.header, i) for i in range(1, min(self.header["TFIELDS"], _MOST_FIELDS) + 1))


class Fits(Catalog):
    """A binary table of a FITS file: that of a name or number, or the first."""

    holds_several = True

    def __init__(self, location: Location, table: str | None = None) -> None:
        super().__init__(with_table(location, table))
        self._file, size = _opened(location)
        try:
            header, self._start = self._table(table)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{self.title} is not a FITS file: {shortened(error)}") from error
        self.n_rows, self._width = _size(header, "NAXIS2", self.title), _size(header, "NAXIS1", self.title)
        if self._width > _MOST_ROW_BYTES:
            raise ValueError(
                f"{self.title}: NAXIS1 says {self._width:,} bytes a row; at most {_MOST_ROW_BYTES:,} are read"
            )
        if self.n_rows * self._width > size - self._start:
            raise ValueError(
                f"{self.title} is cut off: {self.n_rows} rows are announced, row {self.n_rows - 1} is not there"
            )
        self._ascii = str(header.get("XTENSION", "")).strip() == _ASCII
        self._fields = self._read_fields(header)
        self.names = tuple(self._fields)

    def _table(self, wanted: str | None) -> tuple[Header, int]:
        """The header of a table, and where its data start; all HDUs are looked at only where that is needed."""
        found: list[str] = []
        tables: list[_Hdu] = []
        for hdu in _all_hdus(cast("IO[bytes]", self._file), self.title):
            if not hdu.is_table:
                found.append(hdu.name or hdu.kind)
                continue
            tables.append(hdu)
            if wanted is None and hdu.kind != _ASCII and not hdu.name.startswith(_LDAC):
                tables = [hdu]
                break
        if wanted is None:  # the first binary table, or LDAC's objects, or a table of characters
            best = [hdu for hdu in tables if hdu.name == _LDAC_OBJECTS]
            tables = best or [hdu for hdu in tables if hdu.kind != _ASCII][:1] or tables[:1]
        if wanted is None and not tables:
            raise ValueError(f"{self.title} holds no table; its HDUs are {listed(found)}")
        chosen = tables[choose([hdu.entry for hdu in tables], wanted, self.title)]
        if chosen.header.get("ZTABLE"):
            raise ValueError(f"{self.title}: its table is compressed by tiles (fpack): unpack it (funpack) first")
        return chosen.header, chosen.start

    @classmethod
    def tables(cls, location: Location) -> list[TableInfo]:
        """Return all binary tables of a file."""
        file, _ = _opened(location)
        with file:
            title = printable(location)
            try:
                found = [hdu for hdu in _all_hdus(file, title) if hdu.is_table]
            except (OSError, EOFError, zlib.error) as error:
                raise ValueError(f"{title} is not a FITS file: {shortened(error)}") from error
        names = addresses([hdu.entry for hdu in found])
        return [
            TableInfo(name, _size(hdu.header, "NAXIS2", title), hdu.columns)
            for name, hdu in zip(names, found, strict=True)
        ]

    def _read_fields(self, header: Header) -> dict[str, _Field]:
        n_fields = _size(header, "TFIELDS", self.title)
        if n_fields > _MOST_FIELDS:
            raise ValueError(
                f"{self.title}: TFIELDS says {n_fields:,} columns; a FITS table has at most {_MOST_FIELDS}"
            )
        fields: dict[str, _Field] = {}
        offset = 0
        for number in range(1, n_fields + 1):
            stated = fits_ascii.KEYS if self._ascii else _KEYS
            keys = {key: header[f"{key}{number}"] for key in stated if f"{key}{number}" in header}
            name = _column_name(header, number)
            self.units[name] = str(header.get(f"TUNIT{number}") or "") or None
            if self._ascii:
                code, offset, width = fits_ascii.place(keys, number, self._width, self.title)
                self._check_column(name, name in fields, code, width)
                fields[name] = _Field(code, offset, width, keys)
                offset = self._width  # columns may stand anywhere in a row
                continue
            form = _FORM.match(str(keys.get("TFORM", "")))
            if not form:
                raise ValueError(
                    f"{self.title}: TFORM{number} is {shortened(keys.get('TFORM'))!r}, which is no FITS format"
                )
            repeat, code = int(form[1] or 1), form[2]
            width = -(-repeat // 8) if code == "X" else repeat * _WIDTHS[code]
            self._check_column(name, name in fields, code, width)
            fields[name] = _Field(code, offset, width, keys)
            offset += width
        if offset != self._width:
            raise ValueError(f"{self.title}: its columns take {offset:,} bytes a row, and NAXIS1 says {self._width:,}")
        return fields

    def _check_column(self, name: str, again: bool, code: str, width: int) -> None:
        """Note why a column is not read, if it is not."""
        if again:
            self.unreadable[name] = TWICE
        elif code in _UNREADABLE:
            self.unreadable[name] = _UNREADABLE[code]
        elif width > (most := MOST_TEXT_BYTES if code == "A" else MOST_VALUE_BYTES):
            self.unreadable[name] = f"takes {width:,} bytes a row; at most {most:,} are read"

    def places(self, number: int) -> list[int]:
        """Of a gzipped file the first rows only: what lies before a row has to be unpacked to get there."""
        return super().places(1 if isinstance(self._file, gzip.GzipFile) else number)

    def _read(self, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        size = max(_AT_ONCE_BYTES // max(self._width, 1), 1)
        blocks = [self._rows(at, min(at + size, stop), names) for at in range(start, stop, size)]
        return {name: joined([block[name] for block in blocks]) for name in names}

    def _exact(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Exact]:
        found = {}
        for name, values in (self._read(start, stop, names) if start < stop else self._rows(0, 0, names)).items():
            with exact.naming(self.title, name):
                text = np.ma.getdata(values).dtype.kind == "U"
                found[name] = exact.from_numpy(np.strings.rstrip(np.ma.getdata(values), " ") if text else values)
        return found

    def _rows(self, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Some columns of some rows as a FITS table of their own, so that astropy does all the decoding."""
        from astropy.io import fits

        file = cast("IO[bytes]", self._file)
        try:
            file.seek(self._start + start * self._width)
            raw = file.read((stop - start) * self._width)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{self.title}: rows {start} to {stop - 1} cannot be read: {shortened(error)}") from error
        if len(raw) < (stop - start) * self._width:
            raise ValueError(f"{self.title} is cut off: {self.n_rows} rows are announced, row {stop - 1} is not there")
        table = np.frombuffer(raw, np.uint8).reshape(stop - start, self._width)
        fields = [self._fields[name] for name in names]
        stored = [table[:, field.offset : field.offset + field.width] for field in fields]
        if self._ascii:
            return self._characters(names, stored)
        content = np.concatenate(stored, axis=1) if stored else np.zeros((stop - start, 0), np.uint8)
        header = fits.Header({"XTENSION": "BINTABLE", "BITPIX": 8, "NAXIS": 2, "NAXIS1": content.shape[1]})
        header.update({"NAXIS2": stop - start, "PCOUNT": 0, "GCOUNT": 1, "TFIELDS": len(fields)})
        for number, field in enumerate(fields, 1):
            header[f"TTYPE{number}"] = f"c{number}"
            for key, value in field.keys.items():
                header[f"{key}{number}"] = value
        with warnings.catch_warnings():  # astropy's quote the file
            warnings.simplefilter("ignore")
            data = fits.BinTableHDU.fromstring(header.tostring().encode() + content.tobytes(), uint=True).data
            found = {}
            for number, (name, field, bytes_) in enumerate(zip(names, fields, stored, strict=True), 1):
                try:
                    values = _native(np.asarray(data[f"c{number}"]))
                except UnicodeDecodeError as error:
                    raise ValueError(f"{self.title}: column {shortened(name)} holds text that is not ASCII") from error
                absent = _absent(field, bytes_)
                found[name] = np.ma.masked_array(values, absent.reshape(values.shape)) if absent.any() else values
        return found

    def _characters(self, names: Sequence[str], stored: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        found = {}
        for name, characters in zip(names, stored, strict=True):
            try:
                found[name] = fits_ascii.values(self._fields[name].code, self._fields[name].keys, characters)
            except ValueError as error:
                raise ValueError(f"{self.title}: column {shortened(name)} {error}") from error
        return found


def _absent(field: _Field, stored: np.ndarray) -> np.ndarray:
    """Which values (row, entry) are declared as missing: integers that are TNULL, logical ones that are 0."""
    null = field.keys.get("TNULL")
    if field.code == "L":
        return stored == 0
    if field.code in "BIJK" and isinstance(null, int):
        kind = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8"}[field.code]
        return np.ascontiguousarray(stored).view(kind) == null
    return np.zeros(0, bool)


def _opened(location: Location) -> tuple[IO[bytes], int]:
    """A file, gunzipped where its name says so, and the most bytes that it can have."""
    raw = open_file(location)
    size = raw.seek(0, 2)
    raw.seek(0)
    if location.url.lower().endswith(GZIP):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw)), size * _GZIP_RATIO
    return raw, size


def _column_name(header: Header, number: int) -> str:
    return str(header.get(f"TTYPE{number}", f"col{number}")).strip()


def _all_hdus(file: IO[bytes], title: str) -> Iterator[_Hdu]:
    for number, (header, start) in enumerate(_hdus(file, title)):
        yield _Hdu(number, header, start)


def _hdus(file: IO[bytes], title: str) -> Iterator[tuple[Header, int]]:
    """Yield the headers of a FITS file and where their data start."""
    from astropy.io import fits

    at = 0
    for number in range(_MOST_HDUS):
        file.seek(at)
        raw = bytearray()
        while not any(raw[i : i + _CARD].rstrip() == b"END" for i in range(max(len(raw) - _BLOCK, 0), len(raw), _CARD)):
            block = file.read(_BLOCK)
            if not raw and number and not block.strip(b"\0 "):
                return
            if len(block) < _BLOCK or not (number or raw or block.startswith(b"SIMPLE  =")):
                raise ValueError(f"{title} is not a FITS file: HDU {number} has no whole header")
            raw += block
            if len(raw) > _MOST_HEADER_BYTES:
                raise ValueError(f"{title}: the header of HDU {number} has more than {_MOST_HEADER_BYTES:,} bytes")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                header = fits.Header.fromstring(bytes(raw))
                axes = [
                    _size(header, f"NAXIS{i}", title)
                    for i in range(1, min(_size(header, "NAXIS", title), _MOST_FIELDS) + 1)
                ]
                at += len(raw)
                yield header, at
            except (fits.VerifyError, UnicodeDecodeError) as error:
                raise ValueError(f"{title} is not a FITS file: {shortened(error)}") from error
        if axes:
            axes[0] = axes[0] or 1  # random groups
            entries = _size(header, "PCOUNT", title, 0) + int(np.prod(np.array(axes, dtype=object)))
            length = entries * _size(header, "GCOUNT", title, 1) * abs(int(header["BITPIX"])) // 8
            at += -(-length // _BLOCK) * _BLOCK


def _size(header: Header, key: str, title: str, default: int | None = None) -> int:
    value = header.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{title} is not a FITS file: {key} is {printable(repr(value))[:_CARD]}")
    return value


def _native(values: np.ndarray) -> np.ndarray:
    return values.astype(values.dtype.newbyteorder("=")) if values.dtype.kind in "iuf" else values
