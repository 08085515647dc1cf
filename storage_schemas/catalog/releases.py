"""Releases of a posterior catalog: a run stages its work on a branch of its own, and ``main`` moves to it when it is whole.

The branch is named after all that the content depends on (``run_id``): runs that differ never touch each other's work, and
the same run, started again or twice at once, goes on with it. It starts from what ``main`` shows where that has the same
arrays, so only shards whose key differs are computed. ``main`` moves by compare-and-swap, and a release is a tag: readers
see the old release or the new one, never half of one, and no release is ever lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import icechunk
import numpy as np
import zarr
from zarr.storage import MemoryStore

from storage_schemas import photometry
from storage_schemas.backend.arrays import all_arrays, array, as_json, seal, write_coordinate
from storage_schemas.backend.lease import Lease, hold
from storage_schemas.backend.location import Location
from storage_schemas.catalog import query
from storage_schemas.catalog.schema import (
    BYTES_PER_READ,
    COORDINATES,
    KIND,
    MAIN,
    SHARD_ARRAYS,
    WEIGHTS,
    Layout,
    arrays,
    check_release,
)

STAGING = "staging-"
#: Arrays that every run writes anew.
REPLACED = {*COORDINATES, WEIGHTS.name}
#: Two processes of the same run write the same values: whose are kept does not matter.
_SAME_VALUES = icechunk.BasicConflictSolver(on_chunk_conflict=icechunk.VersionSelection.UseOurs)


@contextmanager
def writing(location: Location, held: Lease | None = None) -> Iterator[None]:
    """Be the only process that writes a catalog in a local folder; object storage guards its commits itself.

    ``held`` is the lease of a caller who has it already.

    Raises:
        RuntimeError: another process writes it; nothing was changed.
    """
    with hold(location, "catalog", held) if location.is_local else nullcontext():
        yield


def branch_of(run_id: str) -> str:
    """Return the name of a run's branch."""
    return STAGING + run_id


def stage(
    repo: icechunk.Repository, run_id: str, layout: Layout, attributes: Mapping[str, Any], model: tuple[bytes, bytes]
) -> str:
    """Make a run's branch ready and return its name: go on where the run stopped, or start from what ``main`` shows.

    ``attributes`` describe the run; ``model`` (weights, specification) is stored along.
    """
    branch = branch_of(run_id)
    new = branch not in repo.list_branches()
    if new:
        try:
            repo.create_branch(branch, repo.lookup_branch(MAIN))
        except icechunk.IcechunkError:  # the same run, started elsewhere, was faster, or the answer got lost
            if branch not in repo.list_branches():
                raise
    session = repo.writable_session(branch)
    group = zarr.open_group(session.store, mode="a", zarr_format=3)
    if new or group.attrs.get("run_id") != run_id:
        _prepare(session.store, layout, model)
        seal(zarr.open_group(session.store), KIND, {
            "run": as_json(attributes), "run_id": run_id, "ids": list(layout.ids), "rows_per_shard": layout.rows_per_shard,
            "param_units": list(layout.units), "param_meanings": list(layout.meanings), "param_ucds": list(layout.ucds),
        })  # fmt: skip
        try:
            session.commit("staged")
        except icechunk.ConflictError:
            return stage(repo, run_id, layout, attributes, model)
    return branch


def todo(repo: icechunk.Repository, run_id: str, layout: Layout, keys: Sequence[int]) -> list[int]:
    """Return the shards that a run would compute; changes nothing."""
    staged = branch_of(run_id) in repo.list_branches()
    try:
        group = zarr.open_group(repo.readonly_session(branch_of(run_id) if staged else MAIN).store, mode="r")
    except FileNotFoundError:  # no release yet
        return list(range(len(keys)))
    return _missing(group, keys) if _same_arrays(group, layout) else list(range(len(keys)))


def missing(repo: icechunk.Repository, branch: str, keys: Sequence[int]) -> list[int]:
    """Return the shards of a branch whose key is not the wanted one."""
    return _missing(zarr.open_group(repo.readonly_session(branch).store, mode="r"), keys)


def commit(session: icechunk.Session, message: str) -> None:
    """Commit shards; where the same run, started twice, committed in between, after it."""
    session.commit(message, rebase_with=_SAME_VALUES)


def complete(repo: icechunk.Repository) -> None:
    """End what a run that was killed had begun to publish: a snapshot that ``main`` moved to gets its name, and a branch that
    is a release already goes. From then on a rollback leaves nothing behind that would undo it."""
    main = repo.lookup_branch(MAIN)
    for branch in _staged(repo):
        snapshot = repo.lookup_branch(branch)
        if _run_of(repo, branch) != branch:
            continue
        if snapshot == main and _is_whole(repo, branch):
            _name(repo, snapshot)
        if _tag_of(repo, snapshot) is not None:
            _drop(repo, branch)


def find(repo: icechunk.Repository, run_id: str) -> str | None:
    """Return the newest release that this very run made; none, too, where ``main`` shows it with shards marked damaged."""
    releases = sorted(repo.list_tags(), key=_number, reverse=True)
    if releases:
        main = zarr.open_group(repo.readonly_session(MAIN).store, mode="r")
        if main.attrs["run_id"] == run_id and not np.all(array(main, "shard_key")[:]):
            return None
    for release in releases:
        if zarr.open_group(repo.readonly_session(tag=release).store, mode="r").attrs["run_id"] == run_id:
            return release
    return None


def publish(repo: icechunk.Repository, branch: str, expected: str) -> str:
    """Move ``main`` to a run's whole branch, name the release, remove the branch; return the release's name.

    Args:
        expected: snapshot that ``main`` showed when the run started: what the new release is meant to replace

    Raises:
        RuntimeError: ``main`` shows something else meanwhile; nothing was changed.
    """
    snapshot = repo.lookup_branch(branch)
    if (
        repo.lookup_branch(MAIN) != snapshot and _tag_of(repo, snapshot) is None
    ):  # else: died before it named the release
        try:
            repo.reset_branch(MAIN, snapshot, from_snapshot_id=expected)
        except icechunk.IcechunkError:
            now = repo.lookup_branch(MAIN)
            if now == expected:
                raise
            if now != snapshot:  # else: it was moved, and the answer got lost
                raise RuntimeError(
                    f"main moved to {name_of(repo, now)} while this run worked, so it was not published; its shards are "
                    f"kept on the branch {branch}: run the same command again to publish it after {name_of(repo, now)}"
                ) from None
    release = _name(repo, snapshot)
    _drop(repo, branch)
    return release


def _name(repo: icechunk.Repository, snapshot: str) -> str:
    """Make a snapshot a release, unless it is one, and return its name."""
    while (release := _tag_of(repo, snapshot)) is None:
        try:
            repo.create_tag(next_release(repo), snapshot)
        except icechunk.IcechunkError as error:  # another run took the name, or the answer got lost
            if "tag already exists" not in str(error):
                raise
    return release


def _drop(repo: icechunk.Repository, branch: str) -> None:
    if branch in repo.list_branches():
        try:
            repo.delete_branch(branch)
        except icechunk.IcechunkError:  # the same run, started elsewhere, was faster
            if branch in repo.list_branches():
                raise


def next_release(repo: icechunk.Repository) -> str:
    """Return the name of the next release: release-1, release-2, ..."""
    return f"release-{max(map(_number, repo.list_tags()), default=0) + 1}"


def name_of(repo: icechunk.Repository, snapshot: str) -> str:
    """Return the release that shows a snapshot, or the snapshot's id where none does."""
    return _tag_of(repo, snapshot) or f"snapshot {snapshot}"


def history(repo: icechunk.Repository) -> Iterator[tuple[str, str, str, str]]:
    """Yield (snapshot id, time, message, releases) of every commit of ``main`` and of all releases, newest first."""
    tags: dict[str, list[str]] = {}
    for tag in sorted(repo.list_tags()):
        tags.setdefault(repo.lookup_tag(tag), []).append(tag)
    infos: dict[str, Any] = {}
    for tip in (repo.lookup_branch(MAIN), *tags):
        for info in repo.ancestry(snapshot_id=tip):
            if info.id in infos:
                break
            infos[info.id] = info
    for info in sorted(infos.values(), key=lambda info: info.written_at, reverse=True):
        yield info.id, f"{info.written_at:%Y-%m-%d %H:%M:%S}", info.message, ", ".join(tags.get(info.id, []))


def rollback(repo: icechunk.Repository, release: str) -> str:
    """Let ``main`` show an earlier release again; nothing is deleted. Return its snapshot id.

    Raises:
        ValueError: there is no such release, or it is of another version.
    """
    if release not in repo.list_tags():
        raise ValueError(f"no release {release!r}; there are {', '.join(sorted(repo.list_tags())) or 'none'}")
    snapshot = repo.lookup_tag(release)
    check_release(repo.readonly_session(tag=release), f"release {release!r}")
    complete(repo)
    repo.reset_branch(MAIN, snapshot, from_snapshot_id=repo.lookup_branch(MAIN))
    return snapshot


def unpublished(repo: icechunk.Repository) -> Iterator[tuple[str, datetime, str]]:
    """Yield (branch, time of its last commit, its message) of runs that are under way or died."""
    for branch in _staged(repo):
        info = next(iter(repo.ancestry(branch=branch)))
        yield branch, info.written_at, info.message


def clean(repo: icechunk.Repository, idle: timedelta) -> tuple[list[str], int]:
    """Remove branches of runs without a commit for ``idle``, and objects as old that nothing refers to.

    A run that works commits from time to time; choose ``idle`` longer than that. Returns branches and bytes removed.
    """
    before = datetime.now(UTC) - idle
    removed = [branch for branch, when, _ in unpublished(repo) if when < before]
    for branch in removed:
        repo.delete_branch(branch)
    return removed, repo.garbage_collect(before).bytes_deleted


def _staged(repo: icechunk.Repository) -> list[str]:
    return sorted(name for name in repo.list_branches() if name.startswith(STAGING))


def _number(tag: str) -> int:
    number = tag.removeprefix("release-")
    return int(number) if number.isdigit() else 0


def _tag_of(repo: icechunk.Repository, snapshot: str) -> str | None:
    return next((tag for tag in sorted(repo.list_tags(), key=_number) if repo.lookup_tag(tag) == snapshot), None)


def _missing(group: zarr.Group, keys: Sequence[int]) -> list[int]:
    found = np.zeros(len(keys), np.uint64)
    stored = np.asarray(array(group, "shard_key")[: len(keys)])
    found[: len(stored)] = stored
    return np.flatnonzero(found != np.array(keys, np.uint64)).tolist()


def _run_of(repo: icechunk.Repository, branch: str) -> str:
    """Branch of the run whose catalog a branch shows: not its own as long as nothing is staged on it."""
    try:
        return branch_of(str(zarr.open_group(repo.readonly_session(branch).store, mode="r").attrs.get("run_id")))
    except FileNotFoundError:
        return ""


def _is_whole(repo: icechunk.Repository, branch: str) -> bool:
    group = zarr.open_group(repo.readonly_session(branch).store, mode="r")
    return bool(np.all(array(group, "shard_key")[:]))


def _prepare(store: Any, layout: Layout, model: tuple[bytes, bytes]) -> None:
    """Give a store the arrays of a catalog: those that are there, made longer or shorter, or new ones."""
    group = zarr.open_group(store)
    if _same_arrays(group, layout):
        for name, shape in _shapes(layout).items():
            if array(group, name).shape != shape:
                array(group, name).resize(shape)
    else:
        group = zarr.open_group(store, mode="w", zarr_format=3)
        _create(group, layout)
    coordinates: dict[str, Sequence[Any] | np.ndarray] = {
        "param": layout.params, "quantile": np.asarray(layout.quantiles), "coordinate": layout.coordinates,
        "band": layout.labels, "indexed": _indexed(layout),
    }  # fmt: skip
    for name, meaning in COORDINATES.items():
        write_coordinate(group, name, coordinates[name], meaning)
    weights, specification = model
    WEIGHTS.create(group, {"byte": len(weights)}, None)
    stored = array(group, WEIGHTS.name)
    stored.update_attributes({"spec": json.loads(specification)})
    stored[:] = np.frombuffer(weights, np.uint8)


def _create(group: zarr.Group, layout: Layout) -> None:
    sizes = {
        "galaxy": layout.n_galaxies, "param": len(layout.params), "quantile": len(layout.quantiles),
        "draw": layout.n_draws, "coordinate": len(layout.coordinates), "band": len(layout.labels),
        "identifier": len(layout.ids),
    }  # fmt: skip
    for spec in arrays(layout.inferred, layout.ids, layout.redshift_errors):
        if "draw" not in spec.dims or layout.n_draws:
            spec.create(group, sizes, layout.rows_per_shard, BYTES_PER_READ)
    for spec in SHARD_ARRAYS:
        spec.create(group, {"shard": len(layout.shards), "indexed": len(_indexed(layout)), "bound": 2}, 1)


def _indexed(layout: Layout) -> list[str]:
    numbers = [name for name, dtype in layout.ids.items() if dtype != "str"]
    return [query.PIXEL, *map(photometry.id_array, numbers)]


def _empty(layout: Layout) -> zarr.Group:
    """Return the arrays of a layout, in memory: nothing is written."""
    group = zarr.open_group(MemoryStore(), mode="w", zarr_format=3)
    _create(group, layout)
    return group


def _shapes(layout: Layout) -> dict[str, tuple[int, ...]]:
    return {name: values.shape for name, values in all_arrays(_empty(layout)).items()}


def _same_arrays(group: zarr.Group, layout: Layout) -> bool:
    """Whether a group has the arrays of a layout, but for the number of rows: names, dtypes, chunks, codecs, units."""

    def described(group: zarr.Group) -> dict[str, Any]:
        found = {name: cast("dict[str, Any]", values.metadata.to_dict()) for name, values in all_arrays(group).items()}
        return {
            name: {**values, "shape": values["shape"][1:]} for name, values in found.items() if name not in REPLACED
        }

    return described(group) == described(_empty(layout))
