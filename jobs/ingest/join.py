"""Join: columns of another table for the rows of the input, found by identifiers or by position, in bounded memory.

Here is what is joined, and what is told of it; `joined_rows` has how rows are found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from jobs.config.joining import Join
from jobs.config.run_file import fingerprint
from jobs.containers.exact import Exact
from jobs.containers.tables import Added, Table, find
from jobs.ingest import inputs
from jobs.ingest.inputs import InputFile
from sedflow_dist.photometry.survey import Survey
from storage_schemas.backend.access import Access
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import listed, shortened

_VERSION = 2
_OTHERWISE = (
    "What it names otherwise than the input is a mapping: `on: {OBJID: CATAID}`, `columns: {Z: ZBEST}` "
    "(--join FILE,on=OBJID:CATAID)"
)
#: What counts of a join are named by.
MATCHED, SEVERAL = "join matched", "join several"


@dataclass(frozen=True)
class JoinedRun:
    """A run: its name, the joined file's number, the least and greatest of its keys, and what all runs must agree on."""

    name: str
    file: int
    low: int
    high: int
    agreed: dict[str, str]


@dataclass(frozen=True)
class Joined:
    """A join that can be asked for: its settings, its files, what their columns are, and its runs, once they are made.

    ``units`` are those of the columns by the names that the survey knows them by; ``kinds`` the dtypes in which identifiers are
    compared.
    """

    settings: Join
    columns: Mapping[str, str]
    files: tuple[InputFile, ...]
    units: Mapping[str, str | None]
    kinds: tuple[str, ...]
    place: Location | None = None
    runs: tuple[JoinedRun, ...] = ()
    named: str = field(default="", compare=False)

    @property
    def content(self) -> str:
        """Hash of all that joined values follow from."""
        about = self.settings.model_dump(mode="json", exclude={"file", "columns"})
        return fingerprint(_VERSION, about, dict(self.columns), [file.content for file in self.files], list(self.kinds))

    @property
    def names(self) -> set[str]:
        """Names of the runs."""
        return {run.name for run in self.runs}

    def as_read(self, types: Mapping[str, str | None]) -> dict[str, str | None]:
        """Return the types of identifiers that come from the joined table, by the names that the survey knows."""
        return {name: types[column] for name, column in self.columns.items() if column in types}

    def described(self, table: Table, survey: Survey) -> None:
        """Let a table have the joined columns, with nothing in them yet: names and units can be checked.

        Raises:
            ValueError: it has a column of that name itself, or one that the survey takes instead.
        """
        both = {name: name for name in self.columns if name in table.names}
        nothing = Exact(np.zeros(table.n_rows), np.ones(table.n_rows, bool))
        table.add({name: Added(np.full(table.n_rows, np.nan), nothing) for name in self.columns}, self.units)
        for name, takers in _takers(survey, self.columns).items():
            meant = [find(taker, table.names) for taker in takers]
            if (
                meant and name not in meant
            ):  # there in another case: the table's own would be read, and the join do nothing
                both.setdefault(name, str(meant[0]))
        if both:
            name, own = next(iter(both.items()))
            column = shortened(self.columns[name])
            raise ValueError(
                f"{table.title} has {shortened(own)} itself, and {self.named} {column} as well: give the joined column a name "
                f"of its own, `columns: {{z_joined: {column}}}` (--join FILE,...,columns=z_joined:{column}), and name that "
                "where the survey takes it"
            )


def look(
    settings: Join, survey: Survey, files: Sequence[InputFile], storage: Location, access: Access | None,
    workers: Callable[..., None], rows_per_piece: int,
) -> Joined:  # fmt: skip
    """Find out what the joined files are; ``workers`` maps a function over items.

    Raises:
        FileNotFoundError, ValueError: there is none; a column is missing, of another unit in another file, or no identifier;
            the survey takes none of the columns.
    """
    columns = settings.taken or ({survey.redshift: survey.redshift} if survey.redshift else {})
    named = _named(settings)
    if not any(_takers(survey, columns).values()):
        raise ValueError(
            f"of the columns {listed(list(columns)) or 'none'} of {named} the survey {survey.name} takes none: name the redshift "
            "with --redshift, or `ingest: {redshift: NAME}`"
            + (
                f", or let a column be named as the survey has it, `columns: {{{survey.redshift}: NAME}}`"
                if survey.redshift
                else ""
            )
        )
    places = inputs.expand(settings.file, storage, access)
    ids = [*settings.keys.values(), *(column for name, column in columns.items() if name in survey.ids)]
    joined = tuple(inputs.inspect_all(places, rows_per_piece, ids, workers))
    inputs.require_all_rows(settings.file, joined, storage, access)
    units_of: dict[str, str | None] = {}
    types: dict[str, dict[np.dtype[Any], Table]] = {name: {} for name in columns}
    for number, file in enumerate(file for file in joined if file.n_rows):
        table = Table(file.location, slice(0, 1), columns.values(), (*settings.keys.values(), *columns.values()))
        table.require(
            (*settings.keys.values(), *columns.values(), *(settings.positions if settings.within else ())), _OTHERWISE
        )
        stated = {name: table.unit(column) for name, column in columns.items()}
        if number and stated != units_of:
            raise ValueError(f"{table.title} states other units than {joined[0].location}: {stated} and {units_of}")
        units_of = stated
        for name, column in columns.items():
            types[name].setdefault(table.exact(column).values.dtype, table)
    for name, tables in types.items():
        _require_one_type(columns[name], tables)
    if not any(file.n_rows for file in joined):
        raise ValueError(f"{named} holds no rows")
    kinds = tuple(_kind(name, column, files, joined) for name, column in settings.keys.items())
    return Joined(settings, columns, joined, units_of, kinds, named=named)


def as_input(joined: Joined) -> list[InputFile]:
    """Return the joined files as if they were input, as far as identifiers come from there."""
    return [replace(file, id_types=joined.as_read(file.id_types)) for file in joined.files]


def setting(settings: Join | None) -> dict[str, Any]:
    """Return what a store is made with: all of a join but where its table is, which may move, and what is done with rows that
    are there several times, which may be decided when they are found."""
    return {"join": settings.model_dump(mode="json", exclude={"file", "duplicates"})} if settings else {}


def changed(attributes: Mapping[str, Any], joined: Joined | None) -> bool:
    """Whether a store with these attributes was made with another content of the joined table."""
    told = attributes.get("report", {}).get("join", {})
    return told.get("content") != (joined.content if joined else None)


def report(joined: Joined, counts: Mapping[str, int]) -> dict[str, Any]:
    """Return what is told of a join, and kept with the store."""
    return {
        "content": joined.content, "files": [file.location.url for file in joined.files], "columns": dict(joined.columns),
        "matched": counts.get(MATCHED, 0), "several": counts.get(SEVERAL, 0), "rule": _rule(joined.settings),
    }  # fmt: skip


def lines(report: Mapping[str, Any]) -> list[str]:
    """Return what an ingest's report says of a join."""
    about = report.get("join")
    if about is None:
        return []
    files, columns = listed(about["files"]), listed(list(about["columns"].values()))
    said = [f"{about['matched']:,} of {report['rows']:,} rows have a match in {files}, for {columns}"]
    if about["several"]:
        said.append(f"{about['several']:,} rows have several: {about['rule']}")
    if not about["matched"]:
        said.append("nothing matches: are these the identifiers, or positions, of the same objects?")
    return said


def _require_one_type(column: str, tables: Mapping[np.dtype[Any], Table]) -> None:
    """Refuse a column that is float32 in one file and not in another: as one column, 99.99 of the first would be no 99.99."""
    floats = {np.dtype(np.float64) if dtype.kind == "T" else dtype for dtype in tables if dtype.kind in "fT"}
    if len(floats) > 1:
        found = ", ".join(
            f"{'text' if dtype.kind == 'T' else dtype} in {table.title}" for dtype, table in tables.items()
        )
        raise ValueError(f"joined column {shortened(column)} is {found}: give it one type in all files")


def _takers(survey: Survey, columns: Iterable[str]) -> dict[str, list[str]]:
    """By joined column, what of the survey may mean it."""
    found: dict[str, list[str]] = {name: [] for name in columns}
    for wanted in (*survey.required, *survey.optional, *filter(None, (survey.ra, survey.dec))):
        if (name := find(wanted, tuple(found))) is not None:
            found[name].append(wanted)
    return found


def _rule(settings: Join) -> str:
    if settings.within is None:
        return "the first was taken, in the order of files and rows"
    return "the nearest was taken" + (", of equally near ones the first" if settings.duplicates == "first" else "")


def _named(settings: Join) -> str:
    return f"the joined table {settings.file if isinstance(settings.file, str) else listed(settings.file)}"


def _kind(name: str, column: str, files: Sequence[InputFile], joined: Sequence[InputFile]) -> str:
    """The dtype in which an identifier is compared: the one that it has on both sides; else as text, which is exact."""
    for file, wanted in [*((file, name) for file in files), *((file, column) for file in joined)]:
        if file.n_rows and wanted not in file.id_types:
            raise ValueError(f"{file.location} lacks {shortened(wanted)}, by which it is joined")
    found = {kind for file in files if (kind := file.id_types.get(name))}
    found |= {kind for file in joined if (kind := file.id_types.get(column))}
    return next(iter(found)) if len(found) == 1 else "str"
