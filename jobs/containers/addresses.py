"""Which table of a file is meant: ``file.fits[PHOT]`` is a file and a table in it, and that for every container alike.

A table is named as the file names it (FITS: EXTNAME, or ``EXTNAME,EXTVER``; HDF5: the group's path; VOTable: name or ID), in any
case where only one has that name, or by its number: of a FITS file's HDU, whose primary is 0; elsewhere counted from 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import listed, shortened
from storage_schemas.backend.remote import file_name

FITS = (".fits", ".fit", ".fts", ".ldac", ".fz")
PARQUET = (".parquet", ".pq", ".parq")
HDF5 = (".hdf5", ".h5", ".hdf", ".he5", ".nc")
VOTABLE = (".vot", ".votable", ".xml")
#: Text is told apart by what it begins with.
TEXT = (".csv", ".tsv", ".tab", ".psv", ".ecsv", ".txt", ".text", ".dat", ".cat", ".asc", ".ascii", ".mrt", ".tbl")
GZIP = ".gz"
ENDINGS = (*FITS, *PARQUET, *HDF5, *VOTABLE, *TEXT)
_ADDRESS = re.compile(r"(?P<file>.+)\[(?P<table>[^\[\]]+)\]", re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """A table that a file holds: the names by which it is known, the first of them its own, and its number."""

    names: tuple[str, ...]
    number: int


def split(location: Location) -> tuple[Location, str | None]:
    """Return the file of a location, and the table in it that is meant, or None where none is named.

    >>> split(Location("/data/a.fits[PHOT]"))
    (Location(url='/data/a.fits', endpoint=None, region=None, tries=10, timeout=60.0), 'PHOT')
    """
    found = _ADDRESS.fullmatch(location.url)
    if (
        not found
        or not ends_with(file_name(location.at(found["file"])), ENDINGS)
        or (location.is_local and Path(location.url).exists())
    ):
        return location, None
    return location.at(found["file"]), found["table"].strip()


def with_table(location: Location, table: str | None) -> Location:
    """Return the location of a table of a file; None is what the file alone stands for."""
    return location if table is None else location.at(f"{location.url}[{table}]")


def ends_with(name: str, endings: Sequence[str]) -> bool:
    """Whether a file's name has one of some endings, in any case, gzipped or not."""
    return name.lower().removesuffix(GZIP).endswith(tuple(endings))


def choose(entries: Sequence[Entry], wanted: str | None, title: str, what: str = "tables") -> int:
    """Return which of the tables of a file is meant (its place in ``entries``); without a name, the only one.

    Raises:
        ValueError: none, or more than one, has that name; or none is named and there are several. Says what to write.
    """
    known = listed(_address(entry, entries) for entry in entries) or "none"
    if wanted is None:
        if len(entries) == 1:
            return 0
        if not entries:
            raise ValueError(f"{title} holds no table that can be read")
        raise ValueError(
            f"{title} holds {len(entries)} {what}: {known}. Say which in brackets, as {title}[{_address(entries[0], entries)}]"
        )
    for found in (
        [i for i, entry in enumerate(entries) if wanted in (*entry.names, str(entry.number))],
        [i for i, entry in enumerate(entries) if wanted.lower() in map(str.lower, entry.names)],
    ):
        if len(found) > 1:
            these = " or ".join(f"[{_address(entries[i], entries)}]" for i in found)
            raise ValueError(f"{title}: {len(found)} of its {what} are named {shortened(wanted)}: write {these}")
        if found:
            return found[0]
    raise ValueError(f"{title}: none of its {what} is {shortened(wanted)}; it holds {known}")


def _address(entry: Entry, entries: Sequence[Entry]) -> str:
    """What addresses a table and no other: the first of its names that is its own, or its number."""
    taken = {name for other in entries if other is not entry for name in (*other.names, str(other.number))}
    return next((name for name in entry.names if name and name not in taken), str(entry.number))


def addresses(entries: Sequence[Entry]) -> list[str]:
    """Return what addresses each of the tables of a file."""
    return [_address(entry, entries) for entry in entries]
