"""verify: the stores of a run in, what is damaged in them out, marked as missing: the next run fills it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import zarr

from jobs.config.run_file import RunFile
from jobs.on_worker import read_likelihood
from jobs.simulate import ssp
from sedflow_dist.flow.trained_model import TrainedModel
from storage_schemas import model, photometry, ssp_table, training_set, validation
from storage_schemas.backend.chunked import ChunkedStore
from storage_schemas.backend.lease import hold
from storage_schemas.backend.location import Location
from storage_schemas.backend.ours import unseal
from storage_schemas.catalog import damage, releases
from storage_schemas.catalog import schema as catalog

#: Stores of a run that are filled chunk by chunk: kind, as messages name it, and which part of a place has the lease.
_CHUNKED = {
    "photometry": (photometry.KIND, "photometry store", "photometry"),
    "training": (training_set.KIND, "training set", "training"),
    "chains/segments": ("chain_segments", "chains", "chains"),
    "chains/summary": ("chain_summary", "chains", "chains"),
}
#: Stores that are read and written as a whole.
_WHOLE: dict[str, tuple[str, Callable[[Location], object]]] = {
    "ssp": (ssp_table.KIND, ssp.load),
    "validation": (validation.KIND, validation.read),
}


def verify(run: RunFile) -> Iterator[str]:
    """Read all that a run has stored; yield a line for each damaged chunk, which counts as missing from then on.

    Raises:
        RuntimeError: another process writes one of the stores, so that what is read is no damage.
    """
    for name, (kind, what, place) in _CHUNKED.items():
        try:
            ChunkedStore(run.store(name), kind)
        except FileNotFoundError:
            continue
        with hold(run.store(place), what):
            store = ChunkedStore(run.store(name), kind, "r+")
            for chunk, reason in store.damaged():
                store.forget([chunk])
                yield f"{store.location}, chunk {chunk} of {store.n_chunks}: {reason}"
    for name, (kind, read) in _WHOLE.items():
        yield from _verify_whole(run.store(name), kind, read)
    yield from _verify_model(run.store("model"))
    if run.store("catalog").exists():
        yield from verify_catalog(run.store("catalog"))


def _verify_whole(location: Location, kind: str, read: Callable[[Location], object]) -> Iterator[str]:
    try:
        read(location)
    except FileNotFoundError:
        return
    except ValueError:
        with hold(location, f"{kind} store"):
            try:  # again, now that nobody writes it
                read(location)
            except ValueError as error:
                unseal(zarr.open_group(location.zarr(), mode="r+"), kind)
                yield f"{location}: {error}"


def _verify_model(location: Location) -> Iterator[str]:
    if not model.is_finished(location):
        return
    try:
        TrainedModel.from_bytes(*model.read(location))
        if model.is_finished(model.likelihood_of(location)):
            read_likelihood(location)
    except (ValueError, FileNotFoundError) as error:
        yield f"{location}: {error} (this does not mend itself: remove the model, and it is trained again)"


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
