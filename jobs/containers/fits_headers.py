"""Headers of a FITS file: where its HDUs start, what their tables are named, and what astropy wrote into their comments."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

import numpy as np

from jobs.containers import astropy_meta
from jobs.containers.addresses import GZIP, Entry
from jobs.containers.formats import open_file
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import printable, shortened

if TYPE_CHECKING:
    from astropy.io.fits import Header

MOST_FIELDS = 999  # by the standard
ASCII = "TABLE"
_BLOCK = 2880  # bytes, of which FITS is made
_CARD = 80
_MOST_HEADER_BYTES = 8 << 20
_MOST_HDUS = 1000
_GZIP_RATIO = 1032  # bytes that one byte can stand for, at most
_BEGIN, _END = (f"--{word}-ASTROPY-SERIALIZED-COLUMNS--" for word in ("BEGIN", "END"))
_COMMENT_CHARACTERS = 70  # of a line of YAML in a card; one more is the sign that the line goes on


@dataclass(frozen=True)
class Hdu:
    """A header of a FITS file, its number (the primary's is 0), and where its data start."""

    number: int
    header: Header
    start: int

    @property
    def name(self) -> str:
        """EXTNAME; "" where there is none."""
        return str(self.header.get("EXTNAME", "")).strip()

    @property
    def kind(self) -> str:
        """XTENSION, or ``PRIMARY``."""
        return str(self.header.get("XTENSION", "PRIMARY")).strip()

    @property
    def is_table(self) -> bool:
        """Whether it is a table, and no image that is compressed into one."""
        return self.kind in ("BINTABLE", "A3DTABLE", ASCII) and not self.header.get("ZIMAGE")

    @property
    def entry(self) -> Entry:
        """By what the table is addressed."""
        names = (self.name, f"{self.name},{self.header.get('EXTVER', 1)}") if self.name else ()
        return Entry(names, self.number)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the table's columns."""
        return tuple(column_name(self.header, i) for i in range(1, min(self.header["TFIELDS"], MOST_FIELDS) + 1))


def opened(location: Location) -> tuple[IO[bytes], int]:
    """Return a file, gunzipped where its name says so, and the most bytes that it can have."""
    raw = open_file(location)
    size = raw.seek(0, 2)
    raw.seek(0)
    if location.url.lower().endswith(GZIP):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw)), size * _GZIP_RATIO
    return raw, size


def column_name(header: Header, number: int) -> str:
    """Return the name of a table's column, whose numbers begin at 1."""
    return str(header.get(f"TTYPE{number}", f"col{number}")).strip()


def all_hdus(file: IO[bytes], title: str) -> Iterator[Hdu]:
    """Yield the HDUs of a FITS file.

    Raises:
        ValueError: it is none, or a header announces what cannot be.
    """
    for number, (header, start) in enumerate(_headers(file, title)):
        yield Hdu(number, header, start)


def _headers(file: IO[bytes], title: str) -> Iterator[tuple[Header, int]]:
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
                    natural(header, f"NAXIS{i}", title)
                    for i in range(1, min(natural(header, "NAXIS", title), MOST_FIELDS) + 1)
                ]
                at += len(raw)
                yield header, at
            except (fits.VerifyError, UnicodeDecodeError) as error:
                raise ValueError(f"{title} is not a FITS file: {shortened(error)}") from error
        if axes:
            axes[0] = axes[0] or 1  # random groups
            entries = natural(header, "PCOUNT", title, 0) + int(np.prod(np.array(axes, dtype=object)))
            length = entries * natural(header, "GCOUNT", title, 1) * abs(int(header["BITPIX"])) // 8
            at += -(-length // _BLOCK) * _BLOCK


def natural(header: Header, key: str, title: str, default: int | None = None) -> int:
    """Return what a header announces of a size.

    Raises:
        ValueError: it is no natural number.
    """
    value = header.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{title} is not a FITS file: {key} is {printable(repr(value))[:_CARD]}")
    return value


def serialized(header: Header, title: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return units by column and masks by column, as `astropy_meta.read` has them, of what astropy wrote into comments.

    That is where it puts what FITS has no keyword for: nanomaggies, logarithms, and which column is the mask of which.
    """
    comments = [str(line) for line in header.get("COMMENT", ())]
    if _BEGIN not in comments:
        return {}, {}
    if _END not in comments:
        raise ValueError(f"{title}: its comments have {_BEGIN}, and no {_END}: what its columns are cannot be read")
    text = ""
    for line in comments[comments.index(_BEGIN) + 1 : comments.index(_END)]:
        goes_on = len(line) > _COMMENT_CHARACTERS
        text += line[:_COMMENT_CHARACTERS] + ("" if goes_on else "\n")
    return astropy_meta.read(text, title, _BEGIN.strip("-"))
