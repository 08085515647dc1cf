"""The chunk contract: a store of rows that is filled chunk by chunk, by anybody, in any order, as often as they like.

A chunk is a run of rows, one object in every array. Its digest, the checksum of what was written, is written last: a chunk
without a digest is missing. A chunk's content depends on the store's settings and the chunk's number only, so writing
it twice is harmless. A store whose rows may change (`photometry`) takes the digests of the chunks concerned away first.

Whatever is read is compared with the digest of its array in each chunk: an object that is gone, which Zarr would read as
its fill value, or that holds something else, is an error. That costs a hash of what is read (1 GB/s), and a small object
a chunk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import zarr

from storage_schemas.backend.arrays import (
    MOST_ROWS,
    ArraySpec,
    all_arrays,
    array,
    as_json,
    objects_of,
    seal,
    write_coordinate,
)
from storage_schemas.backend.location import Location, open_group
from storage_schemas.backend.ours import begin

_DIGEST = ArraySpec("chunk_digest", ("chunk",), "uint64", long_name="checksum of the chunk's content; 0: not written")
_ARRAY_DIGEST = ArraySpec(
    "array_digest", ("chunk", "array"), "uint64", long_name="checksums of the chunk's arrays; 0: not written"
)


@dataclass(frozen=True)
class Chunks:
    """How rows fall into runs of ``size``; the last may be shorter."""

    n_rows: int
    size: int

    def __len__(self) -> int:
        return -(-self.n_rows // self.size)

    def rows(self, chunk: int) -> slice:
        """Rows of a chunk."""
        return slice(chunk * self.size, min((chunk + 1) * self.size, self.n_rows))

    def count(self, chunks: Iterable[int]) -> int:
        """Number of rows in some chunks."""
        return sum(rows.stop - rows.start for rows in map(self.rows, chunks))


def chunks_of(rows: slice, size: int) -> slice:
    """Return the chunks of ``size`` rows that hold some rows."""
    return slice(rows.start // size, (rows.stop - 1) // size + 1)


class ChunkedStore:
    """A store of rows in chunks; see the module's docstring."""

    def __init__(self, location: Location, kind: str, mode: Literal["r", "r+"] = "r") -> None:
        self.location, self.kind = location, kind
        self.group = open_group(location, kind, mode)
        self.n_rows = _count(self.group, "n_rows", 0)
        self.rows_per_chunk = _count(self.group, "rows_per_chunk", 1)
        self.chunks = Chunks(self.n_rows, self.rows_per_chunk)
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._array(_DIGEST.name)  # there, and of a size that can be

    @classmethod
    def create(
        cls, location: Location, kind: str, arrays: Sequence[ArraySpec], sizes: Mapping[str, int], rows_per_chunk: int,
        settings: Mapping[str, Any], coordinates: Mapping[str, Sequence[str]], attributes: Mapping[str, Any] | None = None,
        any_length: bool = False,
    ) -> ChunkedStore:  # fmt: skip
        """Create the store, or open it if it is there already with the same settings (and length, unless ``any_length``).

        Raises:
            ValueError: it is there with other settings; names the first that differs.
            FileExistsError: something else is there.
        """
        n_rows = sizes[arrays[0].dims[0]]
        settings = as_json(settings)
        try:
            store = cls(location, kind, "r+")
        except FileNotFoundError:
            pass
        else:
            its = cast("dict[str, Any]", store.group.attrs["settings"])
            found = _flat(its | {"n_rows": store.n_rows, "rows_per_chunk": store.rows_per_chunk})
            length = store.n_rows if any_length else n_rows
            wanted = _flat(settings | {"n_rows": length, "rows_per_chunk": rows_per_chunk})
            for name in {**found, **wanted}:
                if found.get(name) != wanted.get(name):
                    raise ValueError(
                        f"{location} was made with {name} = {found.get(name)!r}, now {wanted.get(name)!r} is asked for; "
                        "choose another storage root or remove the store"
                    )
            for name, values in coordinates.items():
                if np.asarray(array(store.group, name)[:]).tolist() != list(values):  # it is gone
                    store.replace(name, values, f"name of the {name}")
            return store
        group = begin(location, kind)
        for spec in arrays:
            spec.create(group, sizes, rows_per_chunk)
        for name, values in coordinates.items():
            write_coordinate(group, name, values, f"name of the {name}")
        sizes = {"chunk": len(Chunks(n_rows, rows_per_chunk)), "array": len(arrays)}
        for spec in (_ARRAY_DIGEST, _DIGEST):
            spec.create(group, sizes, 1)
        array(group, _ARRAY_DIGEST.name).update_attributes({"arrays": [spec.name for spec in arrays]})
        attributes = {"n_rows": n_rows, "rows_per_chunk": rows_per_chunk, "settings": settings, **(attributes or {})}
        seal(group, kind, attributes)
        return cls(location, kind, "r+")

    @property
    def n_chunks(self) -> int:
        """Number of chunks."""
        return len(self.chunks)

    def rows(self, chunk: int) -> slice:
        """Rows of a chunk."""
        return self.chunks.rows(chunk)

    def missing(self) -> list[int]:
        """Chunks that nobody has finished writing (one listing, no reads)."""
        prefix = "chunk_digest/c/"
        there = {int(name.removeprefix(prefix)) for name in self.location.list(prefix) if name.startswith(prefix)}
        return [chunk for chunk in range(self.n_chunks) if chunk not in there]

    def write(
        self, chunk: int | range, arrays: Mapping[str, np.ndarray], fence: Callable[[], None] | None = None
    ) -> None:
        """Write whole chunks, one or several in a row: every array's rows, then the digests.

        ``fence`` is called in between: it may raise, and the chunks stay missing.
        """
        chunks = range(chunk, chunk + 1) if isinstance(chunk, int) else chunk
        rows = slice(self.rows(chunks[0]).start, self.rows(chunks[-1]).stop)
        stored = {}
        for name, values in arrays.items():
            if len(values) != rows.stop - rows.start:
                raise ValueError(f"{self.location}, chunk {chunk}: {name} has {len(values)} rows, expected {rows}")
            there = self._array(name).with_config({"write_empty_chunks": True})  # or NaN and -0.0 come back otherwise
            stored[name] = np.asarray(values, there.dtype)
            there[rows] = stored[name]
        parts = [{name: values[self._within(at, rows)] for name, values in stored.items()} for at in chunks]
        written = np.zeros((len(chunks), len(self._columns)), np.uint64)
        for line, part in zip(written, parts, strict=True):
            for name, values in part.items():
                line[self._columns[name]] = digest({name: values})
        if fence:
            fence()
        self._array(_ARRAY_DIGEST.name)[chunks.start : chunks.stop] = written
        self._array(_DIGEST.name)[chunks.start : chunks.stop] = np.array([digest(part) for part in parts])

    def forget(self, chunks: Iterable[int]) -> None:
        """Make chunks count as missing: what is written there is about to change."""
        for chunk in chunks:
            for spec in (_DIGEST, _ARRAY_DIGEST):
                self._array(spec.name)[chunk] = 0

    def digests(self, chunks: slice = slice(None)) -> np.ndarray:
        """Return the digests of chunks (chunk,), 0 where they are missing."""
        return np.asarray(self._array(_DIGEST.name)[chunks])

    def _array(self, name: str) -> zarr.Array[Any]:
        """Return an array; what describes it is read once."""
        if name not in self._arrays:
            self._arrays[name] = array(self.group, name)
        return self._arrays[name]

    @cached_property
    def _columns(self) -> dict[str, int]:
        """Where the digests of arrays stand."""
        names = cast("list[str]", self._array(_ARRAY_DIGEST.name).attrs["arrays"])
        return {name: column for column, name in enumerate(names)}

    def _within(self, chunk: int, rows: slice) -> slice:
        """Where the rows of a chunk are among ``rows``."""
        at = self.rows(chunk)
        return slice(at.start - rows.start, at.stop - rows.start)

    def resize(self, n_rows: int, specs: Sequence[ArraySpec]) -> ChunkedStore:
        """Give all arrays another length, and return the store; chunks that lose or gain rows must be forgotten before.

        ``specs`` are those of the store's arrays. Killed at any moment, it can be called again, with any length.
        """
        for spec in specs:
            old = self._array(spec.name)
            if old.shape[0] == n_rows:
                continue
            if old.chunks[0] == self.rows_per_chunk:
                old.resize((n_rows, *old.shape[1:]))
            else:  # the store was shorter than a chunk, and is one chunk
                self._recreate(spec, dict(zip(spec.dims, (n_rows, *old.shape[1:]), strict=True)))
        for digests in (self._array(_ARRAY_DIGEST.name), self._array(_DIGEST.name)):
            digests.resize((len(Chunks(n_rows, self.rows_per_chunk)), *digests.shape[1:]))
        self.group.attrs["n_rows"] = n_rows
        return ChunkedStore(self.location, self.kind, "r+")

    def _recreate(self, spec: ArraySpec, sizes: Mapping[str, int]) -> None:
        """Make an array of one chunk, which was forgotten, one of other sizes; killed at any moment, the array is there."""
        self.location.remove_object(self._object(spec.name, 0))
        made, about = objects_of(lambda group: spec.create(group, sizes, self.rows_per_chunk)), f"{spec.name}/zarr.json"
        self.location.put(about, made[about])
        del self._arrays[spec.name]

    def replace(self, name: str, values: Sequence[Any] | np.ndarray, long_name: str, **attributes: Any) -> None:
        """Write an array beside the rows, or write it anew: killed at any moment, it is as it was, or as it will be.

        Values go where those in force are not, ``c/0`` or ``c.0``; then what describes the array, and says which of them it is, is
        replaced. The old ones stay for who has begun to read them.
        """
        separator = "." if name in self.group and self._object(name, 0) == f"{name}/c/0" else "/"
        made = objects_of(lambda group: write_coordinate(group, name, values, long_name, separator, **attributes))
        for key in (f"{name}/c{separator}0", f"{name}/zarr.json"):
            self.location.put(key, made[key])
        self._arrays.pop(name, None)

    def read(self, chunk: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Read arrays of a chunk."""
        return self.read_rows(self.rows(chunk), names)

    def read_rows(self, rows: slice, names: Sequence[str], digests: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Read rows of arrays, the whole chunks that hold them, and check all that was read.

        Args:
            digests: of the chunks that hold the rows, as `digests` had them; ``names`` are all arrays then

        Raises:
            ValueError: a stored object is gone or damaged, or a chunk is not written, or not what it was; names array and rows.
        """
        if rows.stop <= rows.start:
            return {name: np.asarray(self._array(name)[:0]) for name in names}
        at = chunks_of(rows, self.rows_per_chunk)
        chunks = range(at.start, at.stop)
        whole = slice(self.rows(chunks[0]).start, self.rows(chunks[-1]).stop)
        written = np.asarray(self._array(_ARRAY_DIGEST.name)[at])
        values = {}
        for name in names:
            try:
                values[name] = np.asarray(self._array(name)[whole])
            except ValueError as error:  # of the codecs
                raise self._damage(name, rows, str(error)) from error
            for chunk, found in zip(chunks, written[:, self._columns[name]], strict=True):
                content = values[name][self._within(chunk, whole)]
                if digest({name: content}) != found or (_is_constant(content) and not self._is_stored(name, chunk)):
                    raise self._damage(name, self.rows(chunk), self._reason(name, chunk, found))
        if digests is not None:
            parts = ({name: values[name][self._within(chunk, whole)] for name in names} for chunk in chunks)
            for chunk, part, wanted in zip(chunks, parts, digests, strict=True):
                if digest(part) != wanted:
                    at = self.rows(chunk)
                    raise ValueError(
                        f"{self.kind} store {self.location}: rows {at.start} to {at.stop - 1} are not those that were there "
                        "when this command began: something else wrote them meanwhile. Run the same command again"
                    )
        cut = slice(rows.start - whole.start, rows.stop - whole.start)
        return values if whole == rows else {name: found[cut].copy() for name, found in values.items()}

    def _reason(self, name: str, chunk: int, found: np.uint64) -> str:
        if not found:
            return "they are not written (any more)."
        what = "holds something else than was written" if self._is_stored(name, chunk) else "is gone"
        return f"the stored object {what}."

    def _is_stored(self, name: str, chunk: int) -> bool:
        """Whether there is an object of a chunk, which Zarr does not say: what is gone reads as fill values."""
        return self.location.has(self._object(name, chunk))

    def _object(self, name: str, chunk: int) -> str:
        """Return the name of an array's object."""
        there = self._array(name)
        return f"{name}/{there.metadata.encode_chunk_key((chunk, *[0] * (there.ndim - 1)))}"

    def _damage(self, name: str, rows: slice, reason: str) -> ValueError:
        return ValueError(
            f"{self.kind} store {self.location} is damaged: array {name}, rows {rows.start} to {rows.stop - 1}: "
            f"{reason} Run sedflow verify RUN, and all that is damaged counts as missing for the next run"
        )

    def damaged(self) -> Iterator[tuple[int, str]]:
        """Read everything; yield (chunk, reason) of chunks that are not what was written. Missing ones are not damaged.

        Arrays beside the rows, which who fills the store writes again, count as the first chunk's.
        """
        names = list(self._columns)
        for name in sorted(set(all_arrays(self.group)) - {*names, _DIGEST.name, _ARRAY_DIGEST.name}):
            try:
                np.asarray(self._array(name)[:])
                if self._array(name).size and not self._is_stored(name, 0):
                    yield 0, f"array {name}: the stored object is gone"
            except ValueError as error:
                yield 0, f"array {name}: {error}"
        for chunk, wanted in enumerate(self.digests().tolist()):
            if wanted:
                try:
                    if digest(self.read(chunk, names)) != wanted:
                        yield chunk, "its digest is not that of its content"
                except ValueError as error:
                    yield chunk, str(error)


def digest(arrays: Mapping[str, np.ndarray]) -> np.uint64:
    """Return a checksum of named arrays, never 0."""
    state = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        content = json.dumps(values.tolist()).encode() if values.dtype.kind in "TUO" else values.tobytes()
        state.update(name.encode())
        state.update(content)
    return np.uint64(max(int.from_bytes(state.digest()[:8], "little"), 1))


def _is_constant(values: np.ndarray) -> bool:
    """Whether all values are the same, as fill values are."""
    flat = values.reshape(-1)
    return bool(np.all((flat == flat[:1]) | (flat != flat)))  # NaN differs from itself


def _count(group: zarr.Group, name: str, least: int) -> int:
    """Return a number of rows that a store says it has.

    Raises:
        ValueError: it is none, or more than any store of ours has.
    """
    found = group.attrs.get(name)
    if not isinstance(found, int) or not least <= found <= MOST_ROWS:
        raise ValueError(
            f"{group.store_path} says {name} = {str(found)[:40]}, no number from {least} to {MOST_ROWS:,}: it is damaged"
        )
    return found


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name, so that an error names the one that differs."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
