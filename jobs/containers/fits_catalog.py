"""FITS: a table of a file, also of a gzipped one, of which only the columns that are asked for are decoded.

Without a name that is the first one; of SExtractor's LDAC the objects, and not the header of the image that stands before them.

What a header announces is compared with the file's size, and with limits, before anything is read or reserved by it.
"""

from __future__ import annotations

import gzip
import re
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from jobs.containers import astropy_meta, exact, fits_ascii, units
from jobs.containers.addresses import addresses, choose, with_table
from jobs.containers.exact import Exact
from jobs.containers.fits_headers import ASCII, MOST_FIELDS, Hdu, all_hdus, column_name, natural, opened, serialized
from jobs.containers.formats import MOST_TEXT_BYTES, MOST_VALUE_BYTES, TWICE, Catalog, TableInfo, joined
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import listed, printable, shortened

if TYPE_CHECKING:
    from astropy.io.fits import Header

_MOST_ROW_BYTES = 256 << 20
_AT_ONCE_BYTES = 32 << 20
_FORM = re.compile(r"\s*(\d{0,18})([LXBIJKAEDCMPQ])")
_WIDTHS = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
_UNREADABLE = {
    "P": "has vectors of different lengths (a variable-length column), which are not read",
    "Q": "has vectors of different lengths (a variable-length column), which are not read",
    "C": "holds complex numbers", "M": "holds complex numbers",
}  # fmt: skip
_NUMBERS = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
_INNER = re.compile(r"\s*\(\s*(\d{1,9})\s*,")  # the width of each text, of several in a row
_LDAC, _LDAC_OBJECTS = "LDAC_", "LDAC_OBJECTS"
_KEYS = ("TFORM", "TNULL", "TSCAL", "TZERO", "TDIM")  # what decoding depends on


@dataclass(frozen=True)
class _Field:
    """A column as the header has it: kind, where it is in a row, and its keywords."""

    code: str
    offset: int
    width: int
    keys: dict[str, Any]


class Fits(Catalog):
    """A binary table of a FITS file: that of a name or number, or the first."""

    holds_several = True

    def __init__(self, location: Location, table: str | None = None) -> None:
        super().__init__(with_table(location, table))
        self._file, size = opened(location)
        try:
            header, self._start = self._table(table)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{self.title} is not a FITS file: {shortened(error)}") from error
        self.n_rows, self._width = natural(header, "NAXIS2", self.title), natural(header, "NAXIS1", self.title)
        if self._width > _MOST_ROW_BYTES:
            raise ValueError(
                f"{self.title}: NAXIS1 says {self._width:,} bytes a row; at most {_MOST_ROW_BYTES:,} are read"
            )
        if self.n_rows * self._width > size - self._start:
            raise ValueError(
                f"{self.title} is cut off: {self.n_rows} rows are announced, row {self.n_rows - 1} is not there"
            )
        self._ascii = str(header.get("XTENSION", "")).strip() == ASCII
        self._fields = self._read_fields(header)
        self.names = tuple(self._fields)
        self._masks: dict[str, str] = {}
        self._read_serialized(header)

    def _table(self, wanted: str | None) -> tuple[Header, int]:
        """The header of a table, and where its data start; all HDUs are looked at only where that is needed."""
        found: list[str] = []
        tables: list[Hdu] = []
        for hdu in all_hdus(cast("IO[bytes]", self._file), self.title):
            if not hdu.is_table:
                found.append(hdu.name or hdu.kind)
                continue
            tables.append(hdu)
            if wanted is None and hdu.kind != ASCII and not hdu.name.startswith(_LDAC):
                tables = [hdu]
                break
        if wanted is None:  # the first binary table, or LDAC's objects, or a table of characters
            best = [hdu for hdu in tables if hdu.name == _LDAC_OBJECTS]
            tables = best or [hdu for hdu in tables if hdu.kind != ASCII][:1] or tables[:1]
        if wanted is None and not tables:
            raise ValueError(f"{self.title} holds no table; its HDUs are {listed(found)}")
        chosen = tables[choose([hdu.entry for hdu in tables], wanted, self.title)]
        if chosen.header.get("ZTABLE"):
            raise ValueError(f"{self.title}: its table is compressed by tiles (fpack): unpack it (funpack) first")
        return chosen.header, chosen.start

    @classmethod
    def tables(cls, location: Location) -> list[TableInfo]:
        """Return all binary tables of a file."""
        file, _ = opened(location)
        with file:
            title = printable(location)
            try:
                found = [hdu for hdu in all_hdus(file, title) if hdu.is_table]
            except (OSError, EOFError, zlib.error) as error:
                raise ValueError(f"{title} is not a FITS file: {shortened(error)}") from error
        names = addresses([hdu.entry for hdu in found])
        return [
            TableInfo(name, natural(hdu.header, "NAXIS2", title), hdu.columns)
            for name, hdu in zip(names, found, strict=True)
        ]

    def _read_fields(self, header: Header) -> dict[str, _Field]:
        n_fields = natural(header, "TFIELDS", self.title)
        if n_fields > MOST_FIELDS:
            raise ValueError(f"{self.title}: TFIELDS says {n_fields:,} columns; a FITS table has at most {MOST_FIELDS}")
        fields: dict[str, _Field] = {}
        offset = 0
        for number in range(1, n_fields + 1):
            stated = fits_ascii.KEYS if self._ascii else _KEYS
            keys = {key: header[f"{key}{number}"] for key in stated if f"{key}{number}" in header}
            name = column_name(header, number)
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
            if reason := _unknown_null(code, keys):
                self.unreadable.setdefault(name, reason)
            fields[name] = _Field(code, offset, width, keys)
            offset += width
        if offset != self._width:
            raise ValueError(f"{self.title}: its columns take {offset:,} bytes a row, and NAXIS1 says {self._width:,}")
        return fields

    def _read_serialized(self, header: Header) -> None:
        """Take the units and masks that astropy keeps in the header's comments."""
        stated, masks = serialized(header, self.title)
        for name in self.names:
            self.units[name], contradiction = units.agreed((self.units[name] or "", stated.get(name, "")))
            if contradiction:
                self.unreadable[name] = contradiction
            if (mask := masks.get(name)) is None:
                continue
            if mask not in self._fields or mask in self.unreadable:
                self.unreadable[name] = f"has its missing values in the column {shortened(mask)}, which cannot be read"
            self._masks[name] = mask

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
        masks = {name: self._masks[name] for name in names if name in self._masks}
        wanted = list(dict.fromkeys([*names, *masks.values()]))
        blocks = [self._rows(at, min(at + size, stop), wanted) for at in range(start, stop, size)]
        found = {name: joined([block[name] for block in blocks]) for name in wanted}
        for name, mask in masks.items():
            found[name] = np.ma.masked_where(astropy_meta.over(found[mask], found[name]), found[name])
        return {name: found[name] for name in names}

    def _exact(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Exact]:
        found = {}
        for name, values in (self._read(start, stop, names) if start < stop else self._rows(0, 0, names)).items():
            with exact.naming(self.title, name):
                if values.dtype.kind == "U":
                    plain = np.strings.rstrip(np.ma.getdata(values), " ")
                    values = np.ma.masked_array(plain, np.ma.getmaskarray(values))
                found[name] = exact.from_numpy(values)
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
        stored = [_stored(field, table[:, field.offset : field.offset + field.width]) for field in fields]
        if self._ascii:
            return self._characters(names, stored)
        content = np.concatenate(stored, axis=1) if stored else np.zeros((stop - start, 0), np.uint8)
        header = fits.Header({"XTENSION": "BINTABLE", "BITPIX": 8, "NAXIS": 2, "NAXIS1": content.shape[1]})
        header.update({"NAXIS2": stop - start, "PCOUNT": 0, "GCOUNT": 1, "TFIELDS": len(fields)})
        for number, field in enumerate(fields, 1):
            header[f"TTYPE{number}"] = f"c{number}"
            header.update({f"{key}{number}": value for key, value in field.keys.items() if key != "TNULL"})
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


def _unknown_null(code: str, keys: dict[str, Any]) -> str | None:
    """Take TNULL as a number of the column's kind; why the column is not read, where that cannot be.

    The standard has it of integers, and writers have it of floats, too.
    """
    null = keys.pop("TNULL", None)
    if null is None or (isinstance(null, str) and not null.strip()):
        return None
    if isinstance(null, int | float) and not isinstance(null, bool) and code in _NUMBERS:
        if code in "ED":
            keys["TNULL"] = float(null)
            return None
        if float(null).is_integer():
            keys["TNULL"] = int(null)
            return None
    what = "an integer" if code in "BIJK" else "a number" if code in _NUMBERS else "known of a column without numbers"
    return f"declares as missing (TNULL) what is not {what}: {shortened(null)}"


def _stored(field: _Field, table: np.ndarray) -> np.ndarray:
    """The bytes of a column (row, byte), of text without what stands behind a NUL, which ends it."""
    if field.code != "A" or not table.size or table.all():
        return table
    inner = _INNER.match(str(field.keys.get("TDIM", "")))
    width = int(inner[1]) if inner and int(inner[1]) and not field.width % int(inner[1]) else field.width
    texts = table.reshape(len(table), -1, width)
    return np.where(np.logical_or.accumulate(texts == 0, axis=2), 0, texts).astype(np.uint8).reshape(table.shape)


def _absent(field: _Field, stored: np.ndarray) -> np.ndarray:
    """Which values (row, entry) are declared as missing: numbers that are TNULL, logical ones that are 0."""
    null = field.keys.get("TNULL")
    if field.code == "L":
        return stored == 0
    if null is not None:
        return np.ascontiguousarray(stored).view(_NUMBERS[field.code]) == null
    return np.zeros(0, bool)


def _native(values: np.ndarray) -> np.ndarray:
    return values.astype(values.dtype.newbyteorder("=")) if values.dtype.kind in "iuf" else values
