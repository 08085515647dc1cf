"""Stores among the working files of an ingest: what is damaged counts as missing from then on, and is made anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from storage_schemas.backend.chunked import ChunkedStore
from storage_schemas.backend.location import Location


def finished(place: Location, open_store: Callable[[Location], ChunkedStore]) -> ChunkedStore | None:
    """Return the store at a place, if it is there and whole."""
    try:
        store = open_store(place)
    except FileNotFoundError:
        return None
    return None if store.missing() else store


def read(store: ChunkedStore, rows: slice, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read rows of a store.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return store.read_rows(rows, names)
    except ValueError as error:
        ChunkedStore(store.location, store.kind, "r+").forget(range(store.n_chunks))
        raise ValueError(
            f"{error} Of these working files, the next sedflow ingest makes what is damaged anew"
        ) from error
