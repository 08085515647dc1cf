"""Damage of a posterior catalog: what ``main`` shows is read, and shards that are not as they were written count as missing."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, cast

import icechunk
import zarr

from storage_schemas.backend.arrays import all_arrays, array, dimensions
from storage_schemas.backend.chunked import Chunks
from storage_schemas.catalog.releases import REPLACED
from storage_schemas.catalog.schema import MAIN, check_release

_GONE = ("not found", "range was invalid", "range not satisfiable")  # icechunk: an object is missing, or was cut off


def damaged(repo: icechunk.Repository) -> Iterator[tuple[int, str]]:
    """Read all that ``main`` shows; yield (shard, reason) of what is not as it was written.

    Raises:
        icechunk.IcechunkError: storage failed otherwise
        ValueError: the catalog is of another version
    """
    check_release(repo.readonly_session(MAIN), MAIN)
    group = zarr.open_group(repo.readonly_session(MAIN).store, mode="r")
    shards = Chunks(array(group, "flags").shape[0], cast(int, group.attrs["rows_per_shard"]))
    by_row = {name: values for name, values in all_arrays(group).items() if dimensions(values)[0] == "galaxy"}
    for name in REPLACED:
        if reason := _damage(array(group, name), slice(None)):
            yield 0, f"array {name}: {reason}"  # whichever shard: with it, the run writes these arrays anew
    for shard, rows in enumerate(map(shards.rows, range(len(shards)))):
        for name, values in by_row.items():
            if reason := _damage(values, rows):
                yield shard, f"array {name}, rows {rows.start} to {rows.stop - 1}: {reason}"


def _damage(values: zarr.Array[Any], rows: slice) -> str | None:
    try:
        values[rows]
    except ValueError as error:  # a checksum
        return str(error)
    except icechunk.IcechunkError as error:
        if not any(text in str(error) for text in _GONE):
            raise
        return str(error).strip().splitlines()[0]
    return None


def mark_damaged(repo: icechunk.Repository, shards: Collection[int]) -> None:
    """Let shards of ``main`` count as missing, so that the next run computes them again; readers see what they saw."""
    session = repo.writable_session(MAIN)
    for shard in shards:
        array(zarr.open_group(session.store), "shard_key")[shard] = 0
    session.commit(f"damaged shards: {', '.join(map(str, sorted(shards)))}")
