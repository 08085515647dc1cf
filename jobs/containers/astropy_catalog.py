"""Tables of text that say themselves what their columns are (ECSV, CDS and MRT, IPAC), read whole by astropy."""

from __future__ import annotations

import re
import warnings
from typing import Any, ClassVar

import numpy as np

from jobs.containers.addresses import VOTABLE, ends_with
from jobs.containers.formats import Catalog, content_of, parent
from jobs.containers.whole_catalog import Whole
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import shortened
from storage_schemas.backend.remote import file_name

#: astropy's readers hold every value as a Python text at first.
MOST_BYTES = 128 << 20
_README = "ReadMe"
_MOST_README_BYTES = 4 << 20
_DESCRIBED = b"Byte-by-byte Description"
_IPAC_TYPES = {"int", "i", "long", "l", "double", "d", "float", "f", "real", "r", "char", "c", "date"}


def kind_of(start: bytes, location: Location) -> type[Catalog] | None:
    """Return which of the classes here, or `VoTable`, reads a file that begins so; None where none does."""
    from jobs.containers.votable_catalog import VoTable

    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if ends_with(file_name(location), VOTABLE) or (text.startswith(b"<") and re.search(rb"<(\w+:)?VOTABLE\b", text)):
        return VoTable
    if text.startswith(b"# %ECSV"):
        return Ecsv
    if _DESCRIBED in text:
        return Cds
    if _is_ipac(text.decode("utf-8", "replace")):
        return Ipac
    if file_name(location).lower().endswith((".dat", ".dat.gz")) and _readme(location):
        return Cds
    return None


class _Ascii(Whole):
    """A table that one of astropy's readers of text takes."""

    format: ClassVar[str]

    def __init__(self, location: Location, table: str | None = None) -> None:
        super().__init__(location, table)
        content = content_of(location, MOST_BYTES).removeprefix(b"\xef\xbb\xbf")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read = self._parse(content.decode("utf-8", "surrogateescape"), location)
        except Exception as error:  # whatever a parser of text raises
            raise ValueError(f"{self.title} is no {self.format} table that can be read: {shortened(error)}") from error
        columns = [(name, _values(read[name])) for name in read.colnames]
        self._fill(columns, {name: str(unit) for name in read.colnames if (unit := getattr(read[name], "unit", None))})

    def _parse(self, text: str, location: Location) -> Any:
        from astropy.table import Table

        return Table.read(text.splitlines(), format=f"ascii.{self.format}")


def _with_nulls(reader: Any, source: Any) -> Any:
    """What one of astropy's readers makes of a table, and what its head declares as null is, also where that is written otherwise.

    astropy compares the characters: to it -9.000 is a value where -9 is null.
    """
    from astropy.table import MaskedColumn

    reader.data.fill_values = [*(reader.data.fill_values or ()), ("", "0")]  # also where another null is declared
    table = reader.read(source)
    declared = [rule for rule in reader.data.fill_values or () if len(rule) == 3 and rule[2] in table.colnames]
    for null, _, name in declared:
        try:
            number = float(null)
        except ValueError:
            continue
        if (
            table[name].dtype.kind in "if"
            and (absent := np.asarray(table[name]) == table[name].dtype.type(number)).any()
        ):
            table[name] = MaskedColumn(table[name], mask=np.ma.getmaskarray(np.ma.asarray(table[name])) | absent)
    return table


class Ecsv(_Ascii):
    """Enhanced CSV, whose head states types and units."""

    format = "ecsv"

    def _parse(self, text: str, location: Location) -> Any:
        from astropy.table import Table

        nulls = [("null", "0"), ("", "0")]  # Gaia's archive writes null where nothing is, in text too
        return Table.read(text.splitlines(), format="ascii.ecsv", fill_values=nulls)


class Ipac(_Ascii):
    """IPAC's tables, as IRSA writes them."""

    format = "ipac"

    def _parse(self, text: str, location: Location) -> Any:
        from astropy.io import ascii as tables

        lines = text.splitlines()
        bars = [i for i, c in enumerate(next(line for line in lines if line.startswith("|"))) if c == "|"]
        for number, line in enumerate(lines, 1):
            if line[:1] not in ("|", "\\") and any(line[i : i + 1].strip() for i in bars):
                raise ValueError(
                    f"in line {number:,} a value stands under a bar of the header, and would lose that character"
                )
        return _with_nulls(tables.get_reader(tables.Ipac), lines)


class Cds(_Ascii):
    """A machine-readable table of CDS or the AAS journals, with its description above it or in a ReadMe beside it."""

    format = "cds"

    def _parse(self, text: str, location: Location) -> Any:
        import tempfile
        from pathlib import Path

        from astropy.io import ascii as tables

        if _DESCRIBED.decode() in text:
            return _with_nulls(tables.get_reader(tables.Cds), text.splitlines())
        with tempfile.TemporaryDirectory() as folder:  # astropy knows which part of the description by the file's name
            name = parent(location)[1].removesuffix(".gz")
            paths = [Path(folder, one) for one in (_README, name)]
            for path, content in zip(paths, (_readme(location), text), strict=True):
                path.write_text(content, "utf-8", "surrogateescape")
            return _with_nulls(tables.get_reader(tables.Cds, readme=str(paths[0])), str(paths[1]))


def _readme(location: Location) -> str:
    """The description of CDS that lies beside a table and names it; "" where there is none."""
    folder, name = parent(location)
    try:
        text = content_of(folder / _README, _MOST_README_BYTES).decode("utf-8", "surrogateescape")
    except (OSError, ValueError):  # none, or none that is one
        return ""
    described = re.search(rf"{_DESCRIBED.decode()} of file:.*\b{re.escape(name.removesuffix('.gz'))}\b", text)
    return text if described else ""


def _is_ipac(text: str) -> bool:
    lines = [line for line in text.splitlines() if line.strip()]
    heads = [line for line in lines if not line.startswith("\\")][:2]
    if len(heads) < 2 or not heads[0].startswith("|"):
        return False
    types = {word.strip().lower() for word in heads[1].strip().strip("|").split("|")}
    return lines[0].startswith("\\") or (heads[1].startswith("|") and types <= _IPAC_TYPES)


def _values(column: Any) -> np.ndarray:
    """A column of astropy's as an array; what is no plain column as objects, which nobody reads."""
    from astropy.table import Column, MaskedColumn

    if isinstance(column, MaskedColumn):
        return column.data
    return np.asarray(column) if isinstance(column, Column) else np.array([column] * len(column), dtype=object)
