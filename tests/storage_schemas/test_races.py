"""Runs at the same time: nothing that said it was done is lost, and readers see whole releases only."""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import racer
import small
import tiny

from storage_schemas import open_catalog
from storage_schemas.backend.location import Location
from storage_schemas.catalog import releases
from storage_schemas.catalog import schema as catalog


@pytest.fixture
def place(s3_server, request):
    return Location.parse(f"s3://galaxies/{request.node.name}", s3_server)


def start(place, what):
    command = [sys.executable, str(Path(racer.__file__)), place.url, place.endpoint, str(what)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)


@pytest.mark.slow
def test_sixteen_runs_at_once_all_become_releases(place):
    processes = [start(place, seed) for seed in range(1, 17)]
    results = dict(zip(range(1, 17), map(result, processes), strict=True))
    assert sorted(release for release, _ in results.values()) == sorted(f"release-{n}" for n in range(1, 17))
    assert sum(lost for _, lost in results.values()) > 0, "they did not meet"
    repo = catalog.repository(place / "catalog")
    assert repo.list_branches() == {"main"}
    assert repo.lookup_branch("main") == repo.lookup_tag("release-16")
    commits = {snapshot: tags for snapshot, _, _, tags in releases.history(repo)}
    for seed, (release, _) in results.items():
        assert commits[repo.lookup_tag(release)] == release
        data = open_catalog(place / "catalog", release)
        assert all((data[name].values == seed).all() for name in racer.FILLED)
    for release, _, message in ((tags, when, message) for _, when, message, tags in releases.history(repo)):
        assert release or "shard" in message or "staged" in message or "initialized" in message
    shards = [message for _, _, message, _ in releases.history(repo) if message.startswith("shard")]
    assert len(shards) == 16 * 3  # each run computed each of its shards once, however often it lost


def test_one_run_started_four_times_at_once_is_one_release(filled_run, place):
    run = filled_run(place, 130)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: run.infer(), range(4)))
    assert {counts["release"] for counts in results} == {"release-1"}
    repo = catalog.repository(run.catalog)
    assert (repo.list_branches(), repo.list_tags()) == ({"main"}, {"release-1"})
    small.assert_same(run.contents(), run.from_scratch())


@pytest.mark.slow
def test_of_two_different_runs_at_once_one_wins_and_the_other_goes_on_after_it(filled_run, place, monkeypatch):
    run = filled_run(place, 130)
    run.infer()
    publish, ready = releases.publish, threading.Barrier(2)

    def publish_together(*arguments):
        ready.wait()
        return publish(*arguments)

    def attempt(seed):
        try:
            return run.infer(seed=seed)
        except RuntimeError as error:
            return str(error)

    monkeypatch.setattr(releases, "publish", publish_together)
    with ThreadPoolExecutor(2) as pool:
        results = dict(zip((8, 9), pool.map(attempt, (8, 9)), strict=True))
    monkeypatch.undo()
    (won,) = (seed for seed, counts in results.items() if isinstance(counts, dict))
    (lost,) = (seed for seed, counts in results.items() if isinstance(counts, str))
    assert "run the same command again to publish it after release-2" in results[lost] or "snapshot" in results[lost]
    assert open_catalog(run.catalog).attrs["run"]["seed"] == won
    assert run.infer(seed=lost) == {"shards": 0, "release": "release-3"}
    small.assert_same(run.contents(), run.from_scratch(seed=lost))
    small.assert_same(run.contents("release-2"), run.from_scratch(seed=won))


def test_a_local_folder_bears_one_writer(filled_run, tmp_path):
    run = filled_run(tiny.location(tmp_path), 130)
    catalog.repository(run.catalog, create=True)
    with releases.writing(run.catalog), pytest.raises(RuntimeError, match="another process is writing the catalog"):
        run.infer()
    assert run.infer()["release"] == "release-1"


@pytest.mark.slow
def test_readers_see_whole_releases_while_twenty_are_made(place):
    racer.race(place / "catalog", 1)
    readers = [start(place, "read") for _ in range(2)]
    for seed in range(2, 22):
        assert racer.race(place / "catalog", seed) == (f"release-{seed}", 0)
    (place / "control").put("stop", b"")
    for seen in map(result, readers):
        assert np.all(np.diff(seen) >= 0)
        assert seen[-1] == 21
        assert len(set(seen)) >= 3, "it saw too few releases to tell"


def test_work_of_dead_runs_is_shown_and_removed_when_asked(place):
    where = place / "catalog"
    racer.race(where, 1)
    repo = catalog.repository(where)
    branch = releases.stage(repo, "2", racer.LAYOUT, {"seed": 2}, (b"weights", b"{}"))
    assert [name for name, _, _ in releases.unpublished(repo)] == [branch] == ["staging-2"]
    assert releases.clean(repo, timedelta(days=1))[0] == []
    removed, size = releases.clean(repo, timedelta(0))
    assert removed == [branch]
    assert size > 0
    assert (open_catalog(where)["chi2"].values == 1).all()
    assert racer.race(where, 2) == ("release-2", 0)
