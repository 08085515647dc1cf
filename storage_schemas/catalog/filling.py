"""A catalog that a run fills: what is there of it before, and the shards of many tasks as commits on the run's branch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import icechunk

from storage_schemas.backend import conditions
from storage_schemas.backend.faults import may_pass, patiently
from storage_schemas.backend.lease import Lease
from storage_schemas.backend.location import Location
from storage_schemas.catalog import releases, schema


class Place(NamedTuple):
    """A catalog that is this process's to fill: ``expected`` is what ``main`` shows now, ``branch`` the run's own, ``release`` that
    which holds what the run would make, where there is one and the run is not under way."""

    repo: icechunk.Repository
    expected: str
    branch: str
    release: str | None


@contextmanager
def opened(out: Location, run_id: str, held: Lease | None = None) -> Iterator[Place]:
    """Open or create a catalog and be the only process that writes it; ``held`` is its lease where the caller has it already.

    Raises:
        ValueError: what is there is of another version.
        RuntimeError: another process writes it.
    """
    repo = schema.repository(out, create=True)
    if not out.is_local:
        conditions.require(out)
    with releases.writing(out, held):
        # Where storage cuts an answer off, icechunk does not repeat its request for what a branch is.
        yield patiently(lambda: _place(repo, out, run_id), may_pass)


def _place(repo: icechunk.Repository, out: Location, run_id: str) -> Place:
    schema.check_release(repo.readonly_session(schema.MAIN), str(out))
    releases.complete(repo)
    expected, branch = repo.lookup_branch(schema.MAIN), releases.branch_of(run_id)
    release = None if branch in repo.list_branches() else releases.find(repo, run_id)
    return Place(repo, expected, branch, release)


class Filling:
    """Shards that come back from tasks, merged and committed ``every`` so many."""

    def __init__(self, repo: icechunk.Repository, branch: str, every: int) -> None:
        self._repo, self._branch, self._every = repo, branch, every
        self._session, self._waiting = repo.writable_session(branch), list[int]()

    def fork(self) -> Any:
        """Return what tasks write through: later sessions take its parts, too, as they write other chunks."""
        return self._session.fork()

    def merge(self, fork: Any, shard: int) -> None:
        """Take a shard over from a task's fork."""
        self._session.merge(fork)
        self._waiting.append(shard)
        if len(self._waiting) == self._every:
            self.commit()

    def commit(self) -> None:
        """Commit what waits, if anything does."""
        if self._waiting:
            first, last = min(self._waiting), max(self._waiting)
            releases.commit(self._session, f"{len(self._waiting)} shards, {first} to {last}")
            self._session = self._repo.writable_session(self._branch)
            self._waiting.clear()
