"""Rows to a FITS binary table, a block at a time: astropy writes header and blocks, the checksums are summed up here.

The header is written first, with the number of rows; ``CHECKSUM`` and ``DATASUM`` come last (FITS standard 4.0, appendix J).
"""

from __future__ import annotations

import io

import numpy as np
from astropy.io import fits

from jobs.export.rows import Column, Rows, null_of, with_null
from jobs.export.units import unit_of
from jobs.export.whole import Destination, whole_file

_RECORD = 2880
_EXCLUDED = {*range(0x3A, 0x41), *range(0x5B, 0x61)}  # ASCII that is neither digit nor letter
_FORMATS = {"b1": "L", "u1": "B", "i2": "I", "i4": "J", "u4": "J", "i8": "K", "u8": "K", "f4": "E", "f8": "D"}
_ZEROS = {"u4": 1 << 31, "u8": 1 << 63}  # FITS knows unsigned numbers as shifted ones


def write(rows: Rows, out: Destination) -> None:
    """Write one FITS file with the table ``POSTERIOR``; names are upper case, logarithms ``log(unit)``.

    Raises:
        ValueError: text that is not ASCII; FITS has no other. An identifier that is the number of missing ones.
    """
    widths, sums, header = rows.text_widths(), Sum(), fits.Header()
    gaps = _gaps(rows)
    with whole_file(out) as file:
        file.write(_primary())
        start = file.tell()
        for block in rows.blocks():
            block_header, data = _encode(rows, block, widths, gaps)
            if not header:
                header = block_header
                header["NAXIS2"] = rows.n_rows
                header["DATASUM"], header["CHECKSUM"] = "0", "0" * 16
                file.write(header.tostring().encode("ascii"))
            sums.add(data)
            file.write(data)
        file.write(bytes(-file.tell() % _RECORD))
        header["DATASUM"] = str(sums.total())
        whole = Sum(sums.total())
        whole.add(header.tostring().encode("ascii"))
        header["CHECKSUM"] = encode(whole.total())
        file.seek(start)
        file.write(header.tostring().encode("ascii"))


def _primary() -> bytes:
    """The header before the table; astropy itself, writing to a full disk, fails at saying so (an AttributeError)."""
    file = io.BytesIO()
    fits.PrimaryHDU().writeto(file, checksum=True)
    return file.getvalue()


def _gaps(rows: Rows) -> set[str]:
    """Columns of numbers in which some are missing."""
    names = [column.name for column in rows.columns if column.identifier is not None and not column.is_text]
    return {name for block in rows.blocks(names) for name in names if np.ma.is_masked(block[name])} if names else set()


def _encode(
    rows: Rows, block: dict[str, np.ndarray], widths: dict[str, int], gaps: set[str]
) -> tuple[fits.Header, bytes]:
    """The header of a table of this block, and its rows as bytes; in the columns ``gaps`` numbers may be missing."""
    columns = []
    for column in rows.columns:
        values, name = block[column.name], column.name.upper()
        if column.is_text:
            values = np.array(np.ma.filled(values, "").tolist(), dtype=str)
            columns.append(fits.Column(name, f"{widths[column.name]}A", _unit(column), array=values))
        else:
            kind = np.dtype(column.dtype).str[1:]
            null = None
            if column.name in gaps:  # TNULL is the number as it is stored
                null, values = null_of(values.dtype) - _ZEROS.get(kind, 0), with_null(column.name, values, "FITS")
            columns.append(
                fits.Column(name, _FORMATS[kind], _unit(column), null=null, bzero=_ZEROS.get(kind), array=values)
            )
    hdu = fits.BinTableHDU.from_columns(columns, name="POSTERIOR")
    for number, column in enumerate(rows.columns, 1):
        if column.description:
            hdu.header[f"TCOMM{number}"] = column.description
        if column.ucd:
            hdu.header[f"TUCD{number}"] = column.ucd
    hdu.header.update(rows.metadata)
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(file)
    content = file.getvalue()
    with fits.open(io.BytesIO(content)) as written:
        header, start = written[1].header, written[1].fileinfo()["datLoc"]
    return header, content[start : start + header["NAXIS1"] * header["NAXIS2"]]


def _unit(column: Column) -> str | None:
    """The unit as FITS writes it: a logarithm is log(unit)."""
    unit = unit_of(column)
    return None if unit is None else str(unit).replace("dex(", "log(").replace(" ", "")


class Sum:
    """The ones' complement sum of big-endian 32-bit words, of bytes that come in parts of any length."""

    def __init__(self, start: int = 0) -> None:
        self._sum, self._rest = start, b""

    def add(self, data: bytes) -> None:
        """Add what comes next."""
        data = self._rest + data
        end = len(data) // 4 * 4
        self._sum += int(np.frombuffer(data[:end], ">u4").sum(dtype=np.uint64))
        self._rest = data[end:]

    def total(self) -> int:
        """Return the sum so far."""
        total = self._sum + int.from_bytes(self._rest.ljust(4, b"\0"), "big")
        while total >> 32:
            total = (total & 0xFFFFFFFF) + (total >> 32)
        return total


def encode(total: int) -> str:
    """Return the sixteen characters that make a HDU of this sum (in which they are zeros) sum to -0."""
    text = np.zeros((4, 4), np.uint8)
    for column, byte in enumerate((~total & 0xFFFFFFFF).to_bytes(4, "big")):
        quotient, rest = divmod(byte, 4)
        letters = [0x30 + quotient + rest, *[0x30 + quotient] * 3]
        while any(letter in _EXCLUDED for letter in letters):
            for i in (0, 2):
                if letters[i] in _EXCLUDED or letters[i + 1] in _EXCLUDED:
                    letters[i] += 1
                    letters[i + 1] -= 1
        text[:, column] = letters
    return np.roll(text.ravel(), 1).tobytes().decode("ascii")
