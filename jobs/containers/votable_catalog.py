"""VOTable: a table of a file of them, read whole by astropy; nothing is fetched from where the file says that more is."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from typing import Any

from jobs.containers.addresses import Entry, addresses, choose
from jobs.containers.formats import TableInfo, content_of
from jobs.containers.whole_catalog import Whole
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import printable, shortened

MOST_BYTES = 512 << 20
_ELSEWHERE = re.compile(rb"<\s*(?:\w+:)?(?:STREAM|FITS|PARQUET)\b[^>]*\bhref\s*=", re.IGNORECASE)


class VoTable(Whole):
    """A table of a VOTable file: that of a name, ID or number (from 1), or the only one."""

    holds_several = True

    def __init__(self, location: Location, table: str | None = None) -> None:
        super().__init__(location, table)
        found = _tables(location)
        chosen = found[choose([_entry(one, i) for i, one in enumerate(found, 1)], table, self.title)]
        units = {field.name: str(field.unit) for field in chosen.fields if field.unit is not None}
        self._fill([(field.name, chosen.array[field.ID]) for field in chosen.fields], units)

    @classmethod
    def tables(cls, location: Location) -> list[TableInfo]:
        """Return all tables of a file."""
        found = _tables(location)
        names = addresses([_entry(one, i) for i, one in enumerate(found, 1)]) if len(found) > 1 else [""] * len(found)
        return [
            TableInfo(name, len(one.array), tuple(dict.fromkeys(field.name for field in one.fields)))
            for name, one in zip(names, found, strict=True)
        ]


def parse(content: bytes, title: str) -> Sequence[Any]:
    """Return the tables of a VOTable, as astropy has them.

    Raises:
        ValueError: it is none, has parts elsewhere, or entities, whose expansion may be of any size.
    """
    from astropy.io import votable

    if (
        not content[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")
    ):  # in UTF-16, what is looked for below would hide
        raise ValueError(f"{title} is no VOTable: it does not begin with <, in UTF-8")
    if b"<!ENTITY" in content or _ELSEWHERE.search(content):
        raise ValueError(
            f"{title} says that data are elsewhere (href), or has entities: only what stands in the file itself is read"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(votable.parse(io.BytesIO(content), verify="ignore").iter_tables())
    except Exception as error:  # whatever a parser of XML raises
        raise ValueError(f"{title} is no VOTable that can be read: {shortened(error)}") from error


def _tables(location: Location) -> list[Any]:
    found = parse(content_of(location, MOST_BYTES), printable(location))
    return [table for table in found if len(table.fields)]


def _entry(table: Any, number: int) -> Entry:
    return Entry(tuple(str(name) for name in (table.name, table.ID) if name), number)
