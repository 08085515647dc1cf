"""The rows of a joined table: pieces of it become sorted runs among the working files, in which rows of the input are looked up.

A task that reads a piece of the input looks in one run after the other, in those that can hold its rows: memory holds one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import cast

import astropy.units as u
import numpy as np

from jobs.config.run_file import fingerprint
from jobs.containers import units
from jobs.containers.exact import Exact, naming
from jobs.containers.tables import Added, Table
from jobs.ingest import agreement, nearest, working_files
from jobs.ingest.inputs import InputFile, require_unchanged
from jobs.ingest.join import MATCHED, SEVERAL, Joined, JoinedRun
from jobs.telemetry.progress import bar
from sedflow_dist.photometry import duplicates
from sedflow_dist.photometry.surveys import healpix
from storage_schemas import joined_run
from storage_schemas.backend.chunked import ChunkedStore
from storage_schemas.backend.lease import Fence
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import shortened

Stores = Sequence[tuple[JoinedRun, ChunkedStore]]


@dataclass
class Found:
    """Of each row (row,): number of the run with its match, -1 without one; the place there; how far [chord]; whether several
    rows of the joined table fitted."""

    run: np.ndarray
    place: np.ndarray
    chord: np.ndarray
    several: np.ndarray

    @classmethod
    def none(cls, n: int) -> Found:
        """Nothing is found yet."""
        return cls(np.full(n, -1), np.zeros(n, np.int64), np.full(n, np.inf), np.zeros(n, bool))


def make_runs(joined: Joined, place: Location, fence: Fence, workers: Callable[..., None]) -> Joined:
    """Make the runs of a join among the working files at ``place``."""
    pieces = [
        (number, start, stop) for number, file in enumerate(joined.files) for start, stop in pairwise(file.borders)
    ]  # fmt: skip
    made: dict[tuple[int, int], JoinedRun | None] = {}
    with bar("join", sum(file.n_rows for file in joined.files), "rows") as progress:

        def done(found: tuple[tuple[int, int, int], JoinedRun | None]) -> None:
            (number, start, stop), run = found
            made[number, start] = run
            progress.update(stop - start)

        workers(_make_run, pieces, done, joined=joined, place=place, fence=fence)
    runs = tuple(run for key in sorted(made) if (run := made[key]))
    agreement.require((joined.files[run.file].location, run.agreed) for run in runs)
    return replace(joined, place=place, runs=runs)


def onto(joined: Joined, table: Table, positions: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, dict[str, int]]:
    """Give a table the joined columns; return which rows (row,) have a match, and counts.

    Args:
        positions: right ascensions and declinations of its rows [deg]; NaN: none

    Raises:
        ValueError: several rows of the joined table fit one equally well, and that was to be refused.
    """
    if joined.place is None:
        raise RuntimeError("the runs of the join were not made")
    stores = [(run, joined_run.open(joined.place / run.name)) for run in joined.runs]
    if joined.settings.within is None:
        found = _by_identifier(joined, table, stores)
    else:
        found = _by_position(joined, table, positions, stores)
    table.add(_values(joined, found, stores, table.n_rows), joined.units)
    matched = found.run >= 0
    return matched, {MATCHED: int(matched.sum()), SEVERAL: int(found.several.sum())}


def _make_run(
    piece: tuple[int, int, int], joined: Joined, place: Location, fence: Fence
) -> tuple[tuple[int, int, int], JoinedRun | None]:
    """Read a piece of a joined file and write its rows sorted, unless that is there; no run where none can be matched."""
    number, start, stop = piece
    file = joined.files[number]
    name = fingerprint("join", joined.content, file.content, start, stop)
    store = working_files.finished(place / name, joined_run.open)
    if store is None:
        arrays, agreed = _rows(joined, file, slice(start, stop))
        require_unchanged(file.location, file.stamp)
        if not len(arrays["key"]):
            return piece, None
        about = {"low": int(arrays["key"][0]), "high": int(arrays["key"][-1]), "agreed": agreed}
        store = joined_run.create(place / name, arrays, about)
        store.write(range(store.n_chunks), arrays, fence.check)
    low, high = (int(str(store.group.attrs[key])) for key in ("low", "high"))
    return piece, JoinedRun(name, number, low, high, dict(cast("dict[str, str]", store.group.attrs["agreed"])))


def _rows(joined: Joined, file: InputFile, rows: slice) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a run, without rows that nothing can match: those without identifier or position; what all must agree on."""
    settings, columns = joined.settings, list(joined.columns.values())
    positions = settings.positions if settings.within else ()
    table = Table(file.location, rows, (*columns, *positions), (*columns, *settings.keys.values()))
    arrays: dict[str, np.ndarray] = {"row": np.arange(rows.start, rows.stop)}
    if settings.within:
        arrays["ra"], arrays["dec"] = _positions(table, settings.positions)
        arrays["key"] = healpix(arrays["ra"], arrays["dec"])
        there = arrays["key"] >= 0
    else:
        values, missing = _identifiers(table, list(settings.keys.values()), joined.kinds)
        arrays |= {f"id{i}": value for i, value in enumerate(values)}
        arrays["key"], there = _keys(values), ~missing
    for i, name in enumerate(columns):
        found = table.added(name)
        column, arrays[f"missing{i}"] = found.exact
        arrays[f"value{i}"] = np.zeros(len(column), bool) if column.dtype.kind == "V" else column  # all are missing
        if found.numbers is not None:
            arrays[f"number{i}"] = found.numbers
    order = np.argsort(arrays["key"], kind="stable")
    arrays = {name: values[order[there[order]]] for name, values in arrays.items()}
    return arrays, agreement.lengths(table, (*columns, *settings.keys.values()))


def _positions(table: Table, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Right ascension and declination [deg] of a joined table."""
    for name in names:
        unit = units.parse(table.unit(name))
        if unit is not None:
            try:
                table.scale({name: float(unit.to(u.deg))})
            except u.UnitConversionError:
                raise ValueError(
                    f"{table.title}: {shortened(name)} is in {shortened(unit)}, which is no angle: name the columns of the "
                    "positions, `positions: [ra, dec]`"
                ) from None
    ra, dec = table.numbers(names).T
    return np.ascontiguousarray(ra), np.ascontiguousarray(dec)


def _identifiers(
    table: Table, names: Sequence[str], kinds: Sequence[str]
) -> tuple[list[np.ndarray], np.ndarray]:  # fmt: skip
    """Identifiers in the dtypes in which they are compared, and which rows (row,) lack one."""
    found = [table.exact(name) for name in names]
    missing = np.any([column.missing for column in found], axis=0)
    return [_compared(column.values, kind) for column, kind in zip(found, kinds, strict=True)], missing


def _compared(values: np.ndarray, kind: str) -> np.ndarray:
    if kind != "str":
        return values.astype(kind) if values.dtype.kind in "iu" else np.zeros(len(values), kind)
    text = np.dtypes.StringDType()
    if values.dtype.kind == "V":  # a column that is null
        return np.full(len(values), "", text)
    return np.strings.strip(values.astype(text))


def _keys(values: Sequence[np.ndarray]) -> np.ndarray:
    """What rows are sorted by: the identifier itself where it is one integer, so that few runs are asked; else a hash."""
    if len(values) == 1 and values[0].dtype.kind in "iu":
        return values[0]
    return duplicates.keys(values)


# -- look-up --------------------------------------------------------------------------------------------------------------


def _by_identifier(joined: Joined, table: Table, stores: Stores) -> Found:
    values, missing = _identifiers(table, list(joined.settings.keys), joined.kinds)
    key, found = _keys(values), Found.none(table.n_rows)
    order = np.argsort(key, kind="stable")
    order = order[~missing[order]]
    if not len(order):
        return found
    for number, (run, store) in enumerate(stores):
        if run.high < key[order[0]] or run.low > key[order[-1]]:
            continue
        theirs = working_files.read(store, slice(0, store.n_rows), ["key"])["key"]
        low, high = (np.searchsorted(theirs, key[order], side) for side in ("left", "right"))
        if not (high > low).any():
            continue
        part = slice(int(low[high > low].min()), int(high[high > low].max()))
        there = working_files.read(store, part, [f"id{i}" for i in range(len(values))])
        at, left = low, high > low
        while left.any():  # candidates one after the other: hashes may collide, and two matches are enough
            mine, place = order[left], at[left]
            same = np.ones(len(mine), bool)
            for i, value in enumerate(values):
                same &= there[f"id{i}"][place - part.start] == value[mine]
            again = same & (found.run[mine] >= 0)
            new = same & ~again
            found.several[mine[again]] = True
            found.run[mine[new]], found.place[mine[new]] = number, place[new]
            at = at + left
            left = left & (at < high) & ~found.several[order]
    if joined.settings.duplicates == "refuse" and found.several.any():
        i = int(np.flatnonzero(found.several)[0])
        about = ", ".join(
            f"{name} = {value[i]}" for name, value in zip(joined.settings.keys.values(), values, strict=True)
        )
        _refuse(joined, table, found, stores, i, about)
    return found


def _by_position(
    joined: Joined, table: Table, positions: tuple[np.ndarray, np.ndarray], stores: Stores
) -> Found:  # fmt: skip
    sky = nearest.Sky.of(*positions, joined.settings.radius)
    found, tied = Found.none(table.n_rows), np.zeros(table.n_rows, bool)
    for number, (run, store) in enumerate(stores):
        if not sky.may_hold(run.low, run.high):
            continue
        there = working_files.read(store, slice(0, store.n_rows), ["key", "ra", "dec", "row"])
        match = sky.nearest_in(there["key"], there["ra"], there["dec"], there["row"])
        if match is None:
            continue
        mine, place, chord, several, equal = match
        before = found.chord[mine]
        found.several[mine] |= several | (found.run[mine] >= 0)
        tied[mine] = np.where(chord < before, equal, tied[mine] | (chord == before))
        nearer = chord < before
        found.run[mine[nearer]], found.place[mine[nearer]], found.chord[mine[nearer]] = (
            number,
            place[nearer],
            chord[nearer],
        )
    if joined.settings.duplicates == "refuse" and tied.any():
        i = int(np.flatnonzero(tied)[0])
        _refuse(joined, table, found, stores, i, f"the position {positions[0][i]:.7f}, {positions[1][i]:.7f}")
    return found


def _refuse(
    joined: Joined, table: Table, found: Found, stores: Stores, i: int, about: str
) -> None:  # fmt: skip
    run, store = stores[found.run[i]]
    row = int(working_files.read(store, slice(int(found.place[i]), int(found.place[i]) + 1), ["row"])["row"][0])
    raise ValueError(
        f"several rows of {joined.named} fit {about} equally well, of {table.title}; one is row {row} of "
        f"{joined.files[run.file].location}: leave out the others, or take the first of them with `duplicates: first` "
        "(--join FILE,...,duplicates=first)"
    )


def _values(
    joined: Joined, found: Found, stores: Stores, n_rows: int
) -> dict[str, Added]:  # fmt: skip
    """The joined columns of all rows; what has no match is missing."""
    parts: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
    for number, (_, store) in enumerate(stores):
        mine = np.flatnonzero(found.run == number)
        if len(mine) or not number:  # of the first, if need be no row: the columns' types
            place = found.place[mine]
            rows = slice(int(place.min()), int(place.max()) + 1) if len(mine) else slice(0, 0)
            wanted = [name for name in store.group.array_keys() if name.startswith(("value", "missing", "number"))]
            there = working_files.read(store, rows, wanted)
            parts.append((mine, {name: values[place - rows.start] for name, values in there.items()}))
    columns = {}
    for i, name in enumerate(joined.columns):
        with naming(joined.named, name):
            values, missing, numbers = _filled(parts, i, n_rows)
        columns[name] = Added(numbers, Exact(values, missing))
    return columns


def _filled(
    parts: Sequence[tuple[np.ndarray, dict[str, np.ndarray]]], i: int, n_rows: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:  # fmt: skip
    """Values, which are missing, and numbers of one column for all rows, of parts of them."""
    there = [part[f"value{i}"].dtype for _, part in parts if not part[f"missing{i}"].all()]
    kinds = set(there or [part[f"value{i}"].dtype for _, part in parts[:1]])
    kind = np.result_type(*kinds) if kinds else np.dtype(float)
    values, missing, numbers = np.zeros(n_rows, kind), np.ones(n_rows, bool), np.full(n_rows, np.nan)
    numeric = True
    for mine, part in parts:
        known = ~part[f"missing{i}"]
        rows, theirs = mine[known], part[f"value{i}"][known]
        values[rows], missing[rows] = theirs, False
        if kind.kind == "f" and theirs.dtype.kind in "iu" and (values[rows].astype(theirs.dtype) != theirs).any():
            raise ValueError(
                f"{theirs.dtype} in one file, and in others {kind}, which does not hold all of its integers"
            )
        if f"number{i}" in part:
            numbers[mine] = part[f"number{i}"]
        else:
            numeric = numeric and not len(mine)
    return values, missing, numbers if numeric else None
