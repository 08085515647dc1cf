"""The photometry store: one row per input row, calibrated to nanomaggies, flagged, filled chunk by chunk.

It knows its input: the files (names, rows, hashes of their content; ``input_file`` counts them), and for each group of chunks,
which one task writes, a key of the input rows in it. Where the input changes, so do the keys of the groups concerned: their
chunks are missing from then on, all others stay.

Identifiers keep the names that they have in the input, whatever these are: they stand in a group of their own, ``ids``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, cast

import numpy as np

from storage_schemas.backend.arrays import ArraySpec, array, as_json
from storage_schemas.backend.chunked import ChunkedStore
from storage_schemas.backend.location import Location

KIND = "photometry"
ARRAYS = (
    ArraySpec("flux", ("galaxy", "band"), "float32", "nanomaggy", "flux, corrected for extinction, AB; 0 where masked"),
    ArraySpec(
        "sigma", ("galaxy", "band"), "float32", "nanomaggy", "uncertainty with floor and model error; 0 where masked"
    ),
    ArraySpec("mask", ("galaxy", "band"), "bool", "1", "band was measured", False),
    ArraySpec("redshift", ("galaxy",), "float32", "1", "redshift"),
    ArraySpec("flags", ("galaxy",), "uint32", "1", "quality flags (bit mask)"),
    ArraySpec("ra", ("galaxy",), "float64", "deg", "right ascension (ICRS)"),
    ArraySpec("dec", ("galaxy",), "float64", "deg", "declination (ICRS)"),
    ArraySpec("healpix_29", ("galaxy",), "int64", "1", "HEALPix pixel of order 29, nested; -1: no position", -1),
    ArraySpec("input_file", ("galaxy",), "int32", "1", "which of the input files, counted from 0"),
    ArraySpec("input_row", ("galaxy",), "int64", "1", "row in that file, counted from 0"),
)
#: Where the input has it.
REDSHIFT_SIGMA = ArraySpec(
    "redshift_sigma", ("galaxy",), "float32", "1", "standard error of the redshift; NaN: none is stated, taken as exact"
)
#: What was observed; what inference reads, and what it only passes on.
OBSERVED = ("flux", "sigma", "mask", "redshift")
DATA = (*OBSERVED, "flags")
PASSED = ("ra", "dec", "healpix_29", "input_file", "input_row")


#: The group of identifying columns, and the array beside it that says which of them a row lacks.
IDS = "ids"
ID_MISSING = "id_missing"
#: The attribute of what an ingest tells; a store without it is being updated.
_REPORT = "report"
#: What Zarr, a file system or a bucket could take for something else.
_UNPLAIN = re.compile(r"[^\w.-]|^(?=__)_|^\.|^(?=zarr\.json$)z", re.ASCII)
_LONGEST_NAME = 200


def id_array(name: str) -> str:
    """Return the path of an identifier's array: ``ids/`` and its name, in which unusual characters are as ``=2F`` for a slash.

    >>> id_array("objectId"), id_array("a/b")
    ('ids/objectId', 'ids/a=2Fb')

    Raises:
        ValueError: the name is empty, or too long.
    """
    plain = _UNPLAIN.sub(lambda found: "".join(f"={byte:02X}" for byte in found[0].encode()), name)
    if not 0 < len(plain) <= _LONGEST_NAME:
        raise ValueError(f"identifier {name[:_LONGEST_NAME]!r}: a name has 1 to {_LONGEST_NAME} characters")
    return f"{IDS}/{plain}"


def identifiers(ids: Mapping[str, str]) -> list[ArraySpec]:
    """Return the arrays of identifying columns (name -> dtype: int64, uint64 or str)."""
    if not ids:
        return []
    missing = ArraySpec(
        ID_MISSING, ("galaxy", "identifier"), "bool", "1", "the row lacks that identifier, which is 0 or empty", False
    )
    specs = [ArraySpec(id_array(n), ("galaxy",), t, "", "identifier", "" if t == "str" else 0) for n, t in ids.items()]
    return [*specs, missing]


def id_arrays(ids: Mapping[str, str]) -> tuple[str, ...]:
    """Return the paths of these arrays."""
    return tuple(spec.name for spec in identifiers(ids))


def observations(redshift_errors: bool) -> tuple[ArraySpec, ...]:
    """Return the arrays of a store but for identifiers, with errors of redshifts or without."""
    return (*ARRAYS, REDSHIFT_SIGMA) if redshift_errors else ARRAYS


def has_redshift_errors(store: ChunkedStore) -> bool:
    """Return whether a store has errors of redshifts."""
    return REDSHIFT_SIGMA.name in store.group


def data(redshift_errors: bool) -> tuple[str, ...]:
    """Return the names of what inference reads."""
    return (*DATA, REDSHIFT_SIGMA.name) if redshift_errors else DATA


@dataclass(frozen=True)
class File:
    """An input file: where it is, its rows, and the hash of its content. A file that is no longer there has no rows."""

    url: str
    n_rows: int
    content: str


def create(
    location: Location, n_galaxies: int, rows_per_chunk: int, labels: Sequence[str], ids: Mapping[str, str],
    settings: Mapping[str, Any], redshift_errors: bool = False,
) -> ChunkedStore:  # fmt: skip
    """Create or reopen a photometry store; ``ids`` are identifying columns and their dtypes (int64, uint64 or str).

    A store that is there may have another number of rows: `update` changes that.

    Raises:
        ValueError: it is there with other settings or other identifiers.
    """
    sizes = {"galaxy": n_galaxies, "band": len(labels), "identifier": len(ids)}
    store = ChunkedStore.create(
        location,
        KIND,
        (*observations(redshift_errors), *identifiers(ids)),
        sizes,
        rows_per_chunk,
        settings,
        {"band": labels},
        {"ids": list(ids)},
        any_length=True,
    )
    if (found := _ids(store)) != dict(ids):
        raise ValueError(
            f"{location} was made with identifiers {_described(found)}, now they are {_described(ids)}; choose another "
            "storage root, or make the types of the input what they were"
        )
    return store


def _described(ids: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({dtype})" for name, dtype in ids.items()) or "none"


def open(location: Location, mode: Literal["r", "r+"] = "r") -> ChunkedStore:  # noqa: A001
    """Open a photometry store."""
    return ChunkedStore(location, KIND, mode)


def ids(store: ChunkedStore) -> dict[str, str]:
    """Return the identifying columns of a store and their dtypes (int64, uint64 or str)."""
    names = [str(name) for name in cast("list[str]", store.group.attrs["ids"])]
    dtypes = {name: array(store.group, id_array(name)).dtype for name in names}
    return {name: str(dtype) if dtype.kind in "iu" else "str" for name, dtype in dtypes.items()}


_ids = ids  # where an argument has that name


def files(store: ChunkedStore) -> list[File]:
    """Return the input files by their number, as far as the store knows them."""
    names = [f"file_{field.name}" for field in fields(File)]
    if any(name not in store.group for name in names):
        return []
    columns = [np.asarray(array(store.group, name)[:]).tolist() for name in names]
    found = [File(*row) for row in zip(*columns, strict=False)]
    return found if all(file.url for file in found) else []  # else the names were lost


def is_made_of(store: ChunkedStore, inputs: Sequence[File]) -> bool:
    """Return whether `update` made a store that of some files and was not killed; chunks may be missing."""
    n_rows = sum(file.n_rows for file in inputs)
    return _REPORT in store.group.attrs and store.n_rows == n_rows and files(store) == list(inputs)


def update(
    store: ChunkedStore, n_rows: int, inputs: Sequence[File], chunks_per_group: int, keys: Sequence[int], report: Any
) -> ChunkedStore:
    """Make the store that of ``inputs``: chunks of groups whose key is another than before are missing afterwards.

    Killed at any moment, the store is as it was, or as it will be, or that of no input (`is_made_of`), so that the same or another
    `update` comes next; nothing in it is damaged. The report goes first and comes last.
    """
    group = store.group
    group.attrs.pop(_REPORT, None)
    same = "group_key" in group and group["group_key"].attrs.get("chunks_per_group") == chunks_per_group
    old = np.asarray(array(group, "group_key")[:]).tolist() if same else []
    kept = {number for number, (a, b) in enumerate(zip(old, keys, strict=False)) if a == b}
    written = sorted(set(range(store.n_chunks)) - set(store.missing()))
    store.forget(chunk for chunk in written if chunk // chunks_per_group not in kept)
    store = store.resize(n_rows, (*observations(has_redshift_errors(store)), *identifiers(ids(store))))
    for field in fields(File):
        values = [getattr(file, field.name) for file in inputs]
        store.replace(f"file_{field.name}", values, f"{field.name} of the input files")
    about = "hash of the input rows in a group of chunks"
    store.replace("group_key", np.array(keys, np.uint64), about, chunks_per_group=chunks_per_group)
    store.group.attrs[_REPORT] = as_json(report)
    return store


def sample(store: ChunkedStore, names: Sequence[str], n_rows: int) -> dict[str, np.ndarray]:
    """Return about ``n_rows`` rows of some arrays at most: whole chunks, evenly over the store; all where they are fewer."""
    number = min(max(n_rows // store.rows_per_chunk, 1), store.n_chunks)
    chunks = np.linspace(0, store.n_chunks - 1, number).round().astype(int).tolist()
    parts = [store.read(chunk, names) for chunk in chunks]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def pick(store: ChunkedStore, rows: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return some rows of some arrays, in their order; of the store only the chunks that hold them are read."""
    chunk_of = rows // store.rows_per_chunk
    empty = store.read_rows(slice(0, 0), names)
    found = {name: np.zeros((len(rows), *values.shape[1:]), values.dtype) for name, values in empty.items()}
    for chunk in np.unique(chunk_of).tolist():
        mine = np.flatnonzero(chunk_of == chunk)
        part = store.read(chunk, names)
        for name in names:
            found[name][mine] = part[name][rows[mine] - store.rows(chunk).start]
    return found
