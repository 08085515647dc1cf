"""The merge sort of ingest: pieces of the input become sorted runs, and slices of runs become chunks of the photometry store.

Every function here is a task: it reads stores or files, writes one store or none, and returns a small record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from jobs.config.run_file import fingerprint
from jobs.ingest import calibrated, working_files
from jobs.ingest.inputs import require_unchanged
from jobs.ingest.join import Joined
from jobs.ingest.repeats import Repeats
from jobs.telemetry.events import Chunk
from jobs.telemetry.progress import Clock
from sedflow_dist.photometry import duplicates
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.photometry.survey import Survey
from storage_schemas import photometry, photometry_run
from storage_schemas.backend.chunked import ChunkedStore
from storage_schemas.backend.lease import Fence
from storage_schemas.backend.location import Location

#: Of a run, one row in so many is looked at to find borders between groups of chunks.
SAMPLE = 256
DUPLICATES = "duplicates"
#: Of duplicates that one task finds, so many pairs are compared, by these arrays.
_PAIRS = 20
_LIKENESS = ("ra", "dec", "flux", "sigma", "mask")
_VERSION = 3


@dataclass(frozen=True)
class Sorting:
    """What all runs of an ingest share: where they are, the survey, identifying columns, the rows' order, the store's lease, and
    the table that is joined."""

    place: Location
    survey: Survey
    ids: Mapping[str, str]
    order: Literal["input", "healpix"]
    fence: Fence
    joined: Joined | None = None

    @property
    def redshift_errors(self) -> bool:
        """Whether rows have errors of their redshifts."""
        return self.survey.error_of_redshift is not None


@dataclass(frozen=True)
class Piece:
    """Rows of an input file; ``file`` is its number, ``content`` the hash of the whole of it, ``stamp`` as it was then."""

    file: int
    location: Location
    content: str
    stamp: str
    start: int
    stop: int

    def run(self, sorting: Sorting) -> str:
        """Return the name of this piece's run, which follows from its content."""
        survey, ids = sorting.survey, dict(sorting.ids)
        joined = [sorting.joined.content] if sorting.joined else []
        return fingerprint(_VERSION, self.content, self.start, self.stop, survey, ids, sorting.order, *joined)


@dataclass(frozen=True)
class Run:
    """A finished run of a piece: its name, counts of rows by flag, a sample of what it is sorted by, and what all must agree on."""

    piece: Piece
    name: str
    counts: dict[str, int]
    sample: np.ndarray
    agreed: dict[str, str]


@dataclass(frozen=True)
class Slice:
    """A part of a run: the input file's number, the run's number and name, and places in the run."""

    file: int
    number: int
    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Group:
    """Chunks that one task writes: rows ``skip`` to ``skip + n_rows`` of the slices, merged; some are duplicates."""

    chunks: range
    slices: tuple[Slice, ...]
    skip: int
    n_rows: int
    duplicates: str | None = None

    @property
    def key(self) -> int:
        """Hash of the input rows that come here."""
        slices = [[s.file, s.name, s.start, s.stop] for s in self.slices]
        return max(int(fingerprint(slices, self.skip, self.n_rows, self.duplicates), 16), 1)


def make(piece: Piece, sorting: Sorting) -> Run:
    """Read, calibrate and sort a piece, and write its run, unless that is there."""
    name = piece.run(sorting)
    place = sorting.place / name
    store = working_files.finished(place, photometry_run.open)
    if store is None:
        rows = slice(piece.start, piece.stop)
        arrays, counts, agreed = calibrated.read(piece.location, rows, sorting.survey, sorting.ids, sorting.joined)
        require_unchanged(piece.location, piece.stamp)  # or the run would not be that of its name
        if sorting.order == "healpix":
            order = np.argsort(_by_position(arrays["healpix_29"], arrays["input_row"]), kind="stable")
            arrays = {key: values[order] for key, values in arrays.items()}
        key = _keys(arrays, sorting, piece)
        by_key = np.argsort(key, kind="stable")
        arrays |= {"key": key[by_key], "key_place": by_key, "key_row": arrays["input_row"][by_key]}
        settings = {"content": piece.content, "start": piece.start, "order": sorting.order}
        store = photometry_run.create(
            place, len(key), sorting.survey.labels, sorting.ids, settings, counts, agreed, sorting.redshift_errors
        )
        store.write(range(store.n_chunks), arrays, sorting.fence.check)
    counts = dict(cast("dict[str, int]", store.group.attrs["counts"]))
    agreed = dict(cast("dict[str, str]", store.group.attrs["agreed"]))
    return Run(piece, name, counts, _sorted_by(store, sorting)[::SAMPLE], agreed)


def find_borders(
    run: Run, sorting: Sorting, borders: np.ndarray, keys: np.ndarray
) -> tuple[str, np.ndarray, np.ndarray]:
    """Return the run's name, and how many of its rows come before each of ``borders`` and of ``keys`` of duplicates."""
    store = photometry_run.open(sorting.place / run.name)
    by_key = np.searchsorted(working_files.read(store, slice(0, store.n_rows), ["key"])["key"], keys)
    return run.name, np.searchsorted(_sorted_by(store, sorting), borders), by_key


def find_duplicates(slices: Sequence[Slice], sorting: Sorting) -> Repeats:
    """Find later rows with the same key as an earlier one, among slices of the runs' keys; write their codes.

    Of some it is looked whether they are one galaxy at all: an identifier that repeats in every field is none.
    """
    names = ("key", "key_place", "key_row")
    found = [
        working_files.read(photometry_run.open(sorting.place / s.name), slice(s.start, s.stop), names) for s in slices
    ]
    key, place, row = (np.concatenate([part[name] for part in found]) for name in names)
    lengths = [s.stop - s.start for s in slices]
    file, number = (np.repeat([getattr(s, name) for s in slices], lengths) for name in ("file", "number"))
    again = duplicates.later(key, (row, file))
    name = write_codes(sorting.place, np.sort(code(number[again], place[again])))
    if not sorting.ids or not again.any():
        return Repeats(name)
    by_key = np.lexsort((row, file, key))
    at = 1 + np.flatnonzero(again[by_key[1:]])
    pairs = [(int(by_key[i - 1]), int(by_key[i])) for i in at[:: -(-len(at) // _PAIRS)]]
    runs = {s.number: photometry_run.open(sorting.place / s.name) for s in slices}

    def galaxy(i: int) -> dict[str, Any]:
        where = int(place[i])
        found = working_files.read(
            runs[int(number[i])], slice(where, where + 1), (*_LIKENESS, *photometry.id_arrays(sorting.ids))
        )
        return {**found, "file": int(file[i]), "row": int(row[i])}

    return Repeats.of(name, [(galaxy(i), galaxy(j)) for i, j in pairs], sorting.ids)


def merge(group: Group, sorting: Sorting, out: Location) -> Chunk:
    """Merge the slices of a group and write its chunks."""
    clock = Clock()
    stores = [photometry_run.open(sorting.place / s.name) for s in group.slices]
    which, place = _merged(group, stores, sorting)
    codes = read_codes(sorting.place, group.duplicates) if group.duplicates else np.zeros(0, np.int64)
    names = (*photometry.data(sorting.redshift_errors), *photometry.PASSED, *photometry.id_arrays(sorting.ids))
    rows, parts = [], []
    for i, store in enumerate(stores):
        mine = np.flatnonzero(which == i)
        if len(mine):
            rows.append(mine)
            parts.append(_part(store, group.slices[i].file, i, place[mine], codes, names))
    by_row = np.argsort(np.concatenate(rows))
    values = {name: np.concatenate([part[name] for part in parts])[by_row] for name in names}
    sorting.fence.check()  # before anything is touched, and again before it counts as written
    photometry.open(out, "r+").write(group.chunks, values, sorting.fence.check)
    return Chunk.of(group.chunks.start, values, clock.seconds, len(group.chunks))


def _merged(group: Group, stores: Sequence[ChunkedStore], sorting: Sorting) -> tuple[np.ndarray, np.ndarray]:
    """Of each of the group's rows, in the store's order: the number of its slice, and its place in that run; (row,) each."""
    lengths = [s.stop - s.start for s in group.slices]
    which = np.repeat(np.arange(len(stores)), lengths)
    place = np.concatenate([np.arange(s.start, s.stop) for s in group.slices])
    file = np.repeat([s.file for s in group.slices], lengths)
    names: tuple[str, ...] = ("input_row", "healpix_29") if sorting.order == "healpix" else ("input_row",)
    found = [
        working_files.read(store, slice(s.start, s.stop), names) for store, s in zip(stores, group.slices, strict=True)
    ]
    columns = {name: np.concatenate([part[name] for part in found]) for name in names}
    order: tuple[np.ndarray, ...] = (columns["input_row"], file)
    if sorting.order == "healpix":
        order = (*order, _by_position(columns["healpix_29"], columns["input_row"]))
    chosen = np.lexsort(order)[group.skip : group.skip + group.n_rows]
    return which[chosen], place[chosen]


def _part(
    run: ChunkedStore, file: int, number: int, place: np.ndarray, codes: np.ndarray, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Rows of a run at their places (row,); those are flagged that are duplicates by their codes (slice's number, place)."""
    first, stop = int(place.min()), int(place.max()) + 1
    values = working_files.read(run, slice(first, stop), [name for name in names if name != "input_file"])
    low, high = np.searchsorted(codes, [code(number, first), code(number, stop)])
    values["flags"][codes[low:high] - code(number, first)] |= np.uint32(int(Flag.DUPLICATE))
    return {name: value[place - first] for name, value in values.items()} | {
        "input_file": np.full(len(place), file, np.int32)
    }


def code(number: Any, place: Any) -> Any:
    """Return what stands for a place in the run, or slice, of that number."""
    return (number << 32) + place


def write_codes(folder: Location, codes: np.ndarray) -> str:
    """Write codes (row,) as one object, and return its name, which follows from its content."""
    content = codes.astype("<i8").tobytes()
    name = f"{DUPLICATES}/{_hash(content)}"
    folder.put(name, content)
    return name


def read_codes(folder: Location, name: str) -> np.ndarray:
    """Read such codes.

    Raises:
        ValueError: they are not those that were written.
    """
    content = folder.get(name)
    if _hash(content) != name.rpartition("/")[2]:
        raise ValueError(f"{folder / name} is damaged: remove it, and run ingest again")
    return np.frombuffer(content, "<i8")


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _keys(arrays: Mapping[str, Any], sorting: Sorting, piece: Piece) -> np.ndarray:
    """Keys by which duplicates are found; a row that lacks an identifier, or without any its position, is like no other."""
    if sorting.ids:
        key = duplicates.keys([arrays[photometry.id_array(name)] for name in sorting.ids])
        alone = arrays[photometry.ID_MISSING].any(axis=1)
    else:
        key = duplicates.keys([arrays["ra"], arrays["dec"], *arrays["flux"].T])
        alone = arrays["healpix_29"] < 0
    return np.where(alone, duplicates.unlike(arrays["input_row"], piece.content), key)


def _sorted_by(store: ChunkedStore, sorting: Sorting) -> np.ndarray:
    found = working_files.read(store, slice(0, store.n_rows), ("input_row", "healpix_29"))
    row = found["input_row"]
    return _by_position(found["healpix_29"], row) if sorting.order == "healpix" else row


def _by_position(pixel: np.ndarray, row: np.ndarray) -> np.ndarray:
    """What rows are sorted by: their pixel; those without one come first, by their row, so that they too can be parted."""
    return np.where(pixel < 0, row - (1 << 62), pixel)
