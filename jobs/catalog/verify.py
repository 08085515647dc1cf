"""verify: the stores of a run in, what is damaged in them out, marked as missing: the next run fills it again."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.config.run_file import RunFile
from storage_schemas import photometry, training_set, validation
from storage_schemas.backend.chunked import ChunkedStore
from storage_schemas.backend.location import Location
from storage_schemas.catalog import damage, releases
from storage_schemas.catalog import schema as catalog

_KINDS = {"photometry": photometry.KIND, "training": training_set.KIND, "validation": validation.KIND}


def verify(run: RunFile) -> Iterator[str]:
    """Read all that a run has stored; yield a line for each damaged chunk, which counts as missing from then on."""
    for name, kind in _KINDS.items():
        try:
            store = ChunkedStore(run.store(name), kind, "r+")
        except FileNotFoundError:
            continue
        for chunk, reason in store.damaged():
            store.forget([chunk])
            yield f"{store.location}, chunk {chunk} of {store.n_chunks}: {reason}"
    if run.store("catalog").exists():
        yield from verify_catalog(run.store("catalog"))


def verify_catalog(location: Location) -> Iterator[str]:
    """Read all that ``main`` of a catalog shows; yield a line for each damaged array of a shard, and mark the shards."""
    repo = catalog.repository(location)
    with releases.writing(location):
        shards = set()
        for shard, reason in damage.damaged(repo) if repo.list_tags() else ():
            shards.add(shard)
            yield f"{location}, shard {shard}: {reason}"
        if shards:
            damage.mark_damaged(repo, shards)
