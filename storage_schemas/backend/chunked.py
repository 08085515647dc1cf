"""The chunk contract: a store of rows that is filled chunk by chunk, by anybody, in any order, as often as they like.

A chunk is a run of rows, one object in every array. Its digest, the checksum of what was written, is written last: a chunk
without a digest is missing. A chunk's content depends on the store's settings and the chunk's number only, so writing
it twice is harmless. A store whose rows may change (`photometry`) takes the digests of the chunks concerned away first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import zarr

from storage_schemas.backend.arrays import MOST_ROWS, ArraySpec, array, as_json, dimensions, seal, write_coordinate
from storage_schemas.backend.location import Location, open_group

_DIGEST = ArraySpec("chunk_digest", ("chunk",), "uint64", long_name="checksum of the chunk's content; 0: not written")


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


class ChunkedStore:
    """A store of rows in chunks; see the module's docstring."""

    def __init__(self, location: Location, kind: str, mode: Literal["r", "r+"] = "r") -> None:
        self.location, self.kind = location, kind
        self.group = open_group(location, kind, mode)
        self.n_rows = _count(self.group, "n_rows", 0)
        self.rows_per_chunk = _count(self.group, "rows_per_chunk", 1)
        self.chunks = Chunks(self.n_rows, self.rows_per_chunk)
        array(self.group, "chunk_digest")  # there, and of a size that can be

    @classmethod
    def create(
        cls, location: Location, kind: str, arrays: Sequence[ArraySpec], sizes: Mapping[str, int], rows_per_chunk: int,
        settings: Mapping[str, Any], coordinates: Mapping[str, Sequence[str]], attributes: Mapping[str, Any] | None = None,
        any_length: bool = False,
    ) -> ChunkedStore:  # fmt: skip
        """Create the store, or open it if it is there already with the same settings (and length, unless ``any_length``).

        Raises:
            ValueError: it is there with other settings; names the first that differs.
        """
        dimension = arrays[0].dims[0]
        n_rows = sizes[dimension]
        settings = as_json(settings)
        try:
            store = cls(location, kind, "r+")
        except FileNotFoundError:
            pass
        else:
            found = _flat(
                {**cast("dict[str, Any]", store.group.attrs["settings"]), **_shape(store.n_rows, store.rows_per_chunk)}
            )
            wanted = _flat({**settings, **_shape(store.n_rows if any_length else n_rows, rows_per_chunk)})
            for name in {**found, **wanted}:
                if found.get(name) != wanted.get(name):
                    raise ValueError(
                        f"{location} was made with {name} = {found.get(name)!r}, now {wanted.get(name)!r} is asked for; "
                        "choose another storage root or remove the store"
                    )
            return store
        group = zarr.open_group(location.zarr(), mode="a", zarr_format=3)
        for spec in arrays:
            spec.create(group, sizes, rows_per_chunk)
        for name, values in coordinates.items():
            write_coordinate(group, name, values, f"name of the {name}")
        _DIGEST.create(group, {"chunk": len(Chunks(n_rows, rows_per_chunk))}, 1)
        attributes = {**_shape(n_rows, rows_per_chunk), "settings": settings, **(attributes or {})}
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

    def write(self, chunk: int | range, arrays: Mapping[str, np.ndarray]) -> None:
        """Write whole chunks, one or several in a row: every array's rows, then the digests."""
        chunks = range(chunk, chunk + 1) if isinstance(chunk, int) else chunk
        rows = slice(self.rows(chunks[0]).start, self.rows(chunks[-1]).stop)
        stored = {}
        for name, values in arrays.items():
            if len(values) != rows.stop - rows.start:
                raise ValueError(f"{self.location}, chunk {chunk}: {name} has {len(values)} rows, expected {rows}")
            there = array(self.group, name)
            stored[name] = np.asarray(values, there.dtype)
            there[rows] = stored[name]
        cuts = [slice(at.start - rows.start, at.stop - rows.start) for at in map(self.rows, chunks)]
        digests = [digest({name: values[cut] for name, values in stored.items()}) for cut in cuts]
        array(self.group, "chunk_digest")[chunks.start : chunks.stop] = np.array(digests)

    def forget(self, chunks: Iterable[int]) -> None:
        """Make chunks count as missing: what is written there is about to change."""
        digests = array(self.group, "chunk_digest")
        for chunk in chunks:
            digests[chunk] = 0

    def resize(self, n_rows: int, specs: Sequence[ArraySpec]) -> ChunkedStore:
        """Give all arrays another length, and return the store; chunks that lose or gain rows must be forgotten before.

        ``specs`` are those of the store's arrays.
        """
        for spec in specs:
            old = array(self.group, spec.name)
            if old.shape[0] == n_rows:
                continue
            if old.chunks[0] == self.rows_per_chunk:
                old.resize((n_rows, *old.shape[1:]))
            else:  # the store was shorter than a chunk, and is one chunk
                sizes = dict(zip(spec.dims, (n_rows, *old.shape[1:]), strict=True))
                spec.create(self.group, sizes, self.rows_per_chunk)
        array(self.group, "chunk_digest").resize((len(Chunks(n_rows, self.rows_per_chunk)),))
        self.group.attrs["n_rows"] = n_rows
        return ChunkedStore(self.location, self.kind, "r+")

    def read(self, chunk: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Read arrays of a chunk."""
        return self.read_rows(self.rows(chunk), names)

    def read_rows(self, rows: slice, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Read rows of arrays.

        Raises:
            ValueError: a stored object is damaged; names the array and the rows.
        """
        values = {}
        for name in names:
            try:
                values[name] = np.asarray(array(self.group, name)[rows])
            except ValueError as error:  # of the codecs
                raise ValueError(
                    f"{self.kind} store {self.location} is damaged: array {name}, rows {rows.start} to {rows.stop - 1}: "
                    f"{error} Run sedflow verify RUN, and all that is damaged counts as missing for the next run"
                ) from error
        return values

    def damaged(self) -> Iterator[tuple[int, str]]:
        """Read everything; yield (chunk, reason) of chunks that are not what was written. Missing ones are not damaged."""
        names = [
            name
            for name, values in self.group.arrays()
            if name != _DIGEST.name and dimensions(values) != (name,)  # else a coordinate
        ]
        written = np.asarray(array(self.group, "chunk_digest")[:])
        for chunk in np.flatnonzero(written).tolist():
            try:
                if digest(self.read(chunk, names)) != written[chunk]:
                    yield chunk, "an object is missing, or holds something else than was written"
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


def _shape(n_rows: int, rows_per_chunk: int) -> dict[str, int]:
    return {"n_rows": n_rows, "rows_per_chunk": rows_per_chunk}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name, so that an error names the one that differs."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
