"""VOTable: a table of a file of them, read whole by astropy; nothing is fetched from where the file says that more is.

What its service says of it counts: a result that is an error, or was cut off, is refused, and so are positions of another frame
than ICRS.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jobs.containers.addresses import Entry, addresses, choose
from jobs.containers.formats import TableInfo, content_of
from jobs.containers.whole_catalog import Whole
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import printable, shortened

MOST_BYTES = 512 << 20
_ELSEWHERE = re.compile(rb"<\s*(?:\w+:)?(?:STREAM|FITS|PARQUET)\b[^>]*\bhref\s*=", re.IGNORECASE)
_STATUS = "QUERY_STATUS"
#: Frames that are ICRS, to some hundredths of an arcsecond, or none that is known; FK5 only of J2000.
_ICRS, _FK5 = ("icrs", "unknown"), ("eq_fk5", "fk5")
_J2000 = re.compile(r"J?2000(\.0*)?", re.IGNORECASE)


class VoTable(Whole):
    """A table of a VOTable file: that of a name, ID or number (from 1), or the only one."""

    holds_several = True

    def __init__(self, location: Location, table: str | None = None) -> None:
        super().__init__(location, table)
        file = _parsed(content_of(location, MOST_BYTES), printable(location))
        found = _tables(file)
        chosen = found[choose([_entry(one, i) for i, one in enumerate(found, 1)], table, self.title)]
        _require_whole(file, chosen, self.title)
        units = {field.name: str(field.unit) for field in chosen.fields if field.unit is not None}
        self._fill([(field.name, _values(chosen.array[field.ID], field)) for field in chosen.fields], units)
        systems = {one.ID: one for one in file.iter_coosys()}
        for name, system in _frames(chosen, systems):
            if frame := _other_frame(system):
                self.unreadable.setdefault(
                    name,
                    f"is in the frame {shortened(frame)} (COOSYS), and positions are taken as ICRS: convert them first",
                )

    @classmethod
    def tables(cls, location: Location) -> list[TableInfo]:
        """Return all tables of a file."""
        found = _tables(_parsed(content_of(location, MOST_BYTES), printable(location)))
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
    return list(_parsed(content, title).iter_tables())


def _parsed(content: bytes, title: str) -> Any:
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
            return votable.parse(io.BytesIO(content), verify="ignore")
    except Exception as error:  # whatever a parser of XML raises
        raise ValueError(f"{title} is no VOTable that can be read: {shortened(error)}") from error


def _tables(file: Any) -> list[Any]:
    return [table for table in file.iter_tables() if len(table.fields)]


def _require_whole(file: Any, table: Any, title: str) -> None:
    """Raise ValueError where the service says that a table is no result, or lacks rows."""
    about = [*file.infos, *table.infos, *(info for resource in _above(file, table) for info in resource.infos)]
    for info in about:
        if str(info.name).upper() != _STATUS or str(info.value).strip().upper() == "OK":
            continue
        said = f"{title}: its {_STATUS} is {shortened(info.value)}" + (
            f" ({shortened(info.content)})" if info.content else ""
        )
        if str(info.value).strip().upper() != "OVERFLOW":
            raise ValueError(f"{said}: this is not the result that was asked for")
        raise ValueError(
            f"{said}: the service cut the table off after {len(table.array):,} rows. Ask it for all of them (MAXREC), or take this "
            "INFO element out of the file if these rows are enough"
        )


def _above(file: Any, table: Any) -> list[Any]:
    """The resources in which a table stands."""

    def path(resource: Any) -> list[Any]:
        inner = [found for one in resource.resources if (found := path(one))]
        here = any(one is table for one in resource.tables)
        return [resource, *(inner[0] if inner else [])] if inner or here else []

    return [found for resource in file.resources for found in path(resource)]


def _frames(table: Any, systems: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Columns and the systems of coordinates to which they, or groups of them, refer."""
    names = {field.ID: field.name for field in table.fields}
    refs = [(field.name, field.ref) for field in table.fields]
    for group in table.iter_groups():
        refs += [(names.get(getattr(entry, "ref", None)), group.ref) for entry in group.entries]
    yield from ((name, systems[ref]) for name, ref in refs if name and ref in systems)


def _other_frame(system: Any) -> str | None:
    """A frame that is not ICRS, nor FK5 of J2000, as it is written."""
    frame, equinox = str(system.system or "eq_FK5").strip(), str(system.equinox or "J2000").strip()
    if frame.lower() in _ICRS or (frame.lower() in _FK5 and _J2000.fullmatch(equinox)):
        return None
    return f"{frame} {system.equinox or ''}".strip()


def _values(values: np.ndarray, field: Any) -> np.ndarray:
    """A column, in which text that is declared as null is missing, too: astropy knows nulls of numbers only."""
    null = field.values.null
    if not isinstance(null, str) or np.ma.getdata(values).dtype.kind not in "UO":
        return values
    absent = np.frompyfunc(lambda value: isinstance(value, str) and value.rstrip() == null.rstrip(), 1, 1)
    return np.ma.masked_where(absent(np.ma.getdata(values)).astype(bool), values) if null.strip() else values


def _entry(table: Any, number: int) -> Entry:
    return Entry(tuple(str(name) for name in (table.name, table.ID) if name), number)
