"""Which rows each task of the merge writes: a store's chunks in groups, and the slices of sorted runs that hold their rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs.ingest import sorted_runs
from jobs.ingest.sorted_runs import Group, Run, Slice, Sorting
from storage_schemas.backend.chunked import ChunkedStore
from storage_schemas.backend.location import Location

#: Borders between which rows are counted, for each group of chunks: a task looks at so much more than its own rows.
_BORDERS_PER_GROUP = 8


@dataclass(frozen=True)
class Grouping:
    """A store's rows in groups of whole chunks, each about as many rows as a piece of the input."""

    n_rows: int
    rows_per_chunk: int
    chunks_per_group: int

    @classmethod
    def of(cls, store: ChunkedStore, n_rows: int, rows_per_piece: int) -> Grouping:
        """Return the groups in which a store is merged that will have so many rows."""
        return cls(n_rows, store.rows_per_chunk, max(rows_per_piece // store.rows_per_chunk, 1))

    def __len__(self) -> int:
        return -(-self.n_rows // (self.chunks_per_group * self.rows_per_chunk))

    def rows(self, number: int) -> slice:
        """Return the rows of a group."""
        size = self.chunks_per_group * self.rows_per_chunk
        return slice(number * size, min((number + 1) * size, self.n_rows))

    def chunks(self, number: int) -> range:
        """Return the chunks of a group."""
        return range(number * self.chunks_per_group, -(-self.rows(number).stop // self.rows_per_chunk))


@dataclass(frozen=True)
class Borders:
    """Borders that part the rows of all runs: by what the rows are sorted by, and by the keys of duplicates."""

    places: np.ndarray
    keys: np.ndarray

    @classmethod
    def between(cls, runs: Sequence[Run], n_groups: int, sorting: Sorting) -> Borders:
        """Choose borders, several a group, from the runs' samples; in the input's order no places are needed."""
        found = [run.sample for run in runs] if sorting.order == "healpix" else [np.zeros(0, np.int64)]
        samples = np.sort(np.concatenate(found))
        places = np.unique(samples[:: max(len(samples) // (_BORDERS_PER_GROUP * n_groups), 1)])
        return cls(places, np.array([(part << 64) // n_groups for part in range(1, n_groups)], np.uint64))


def of_runs(
    runs: Sequence[Run], grouping: Grouping, sorting: Sorting, before: np.ndarray, duplicated: np.ndarray
) -> list[Group]:
    """Return what each task merges.

    Args:
        before: how many of a run's rows come before each place at which the runs may be cut, first 0 and last all of them,
            shape (run, border)
        duplicated: codes of the rows that are duplicates, sorted, shape (row,)
    """
    held_by = _by_position(before) if sorting.order == "healpix" else _by_input(runs)
    groups = []
    for number in range(len(grouping)):
        rows = grouping.rows(number)
        starts, stops, skip = held_by(rows)
        slices = slices_of(runs, starts, stops)
        named = _duplicates_of(slices, duplicated, sorting.place)
        groups.append(Group(grouping.chunks(number), slices, skip, rows.stop - rows.start, named))
    return groups


#: Where rows of the store are: first and last place in each run (run,), and how many rows there come before them.
_HeldBy = Callable[[slice], tuple[np.ndarray, np.ndarray, int]]


def _by_position(before: np.ndarray) -> _HeldBy:
    total = before.sum(0)

    def held_by(rows: slice) -> tuple[np.ndarray, np.ndarray, int]:
        first, last = np.searchsorted(total, rows.start, "right") - 1, np.searchsorted(total, rows.stop)
        return before[:, first], before[:, last], rows.start - int(total[first])

    return held_by


def _by_input(runs: Sequence[Run]) -> _HeldBy:
    lengths = np.array([run.counts["rows"] for run in runs])
    starts = np.cumsum(lengths) - lengths

    def held_by(rows: slice) -> tuple[np.ndarray, np.ndarray, int]:
        first, last = (np.clip(at - starts, 0, lengths) for at in (rows.start, rows.stop))
        return first, last, 0

    return held_by


def slices_of(runs: Sequence[Run], starts: np.ndarray, stops: np.ndarray) -> tuple[Slice, ...]:
    """Return the parts of runs from ``starts`` to ``stops`` (run,), without empty ones."""
    parts = enumerate(zip(runs, starts.tolist(), stops.tolist(), strict=True))
    return tuple(Slice(run.piece.file, i, run.name, start, stop) for i, (run, start, stop) in parts if start < stop)


def _duplicates_of(slices: Sequence[Slice], codes: Any, place: Location) -> str | None:
    """Write the duplicates among some slices as one object, named by its content, for the task that merges them."""
    mine = []
    for i, part in enumerate(slices):
        first, last = np.searchsorted(codes, [sorted_runs.code(part.number, at) for at in (part.start, part.stop)])
        mine.append(codes[first:last] + sorted_runs.code(i - part.number, 0))
    return sorted_runs.write_codes(place, np.concatenate(mine)) if sum(map(len, mine)) else None
