"""A new release on top of the old: only what changed is computed, and the result is a catalog made from scratch."""

import numpy as np
import pytest
import small
import tiny

from storage_schemas import catalog, open_catalog, photometry, releases
from storage_schemas import model as model_store

N_ROWS = 130  # six and a half shards


@pytest.fixture
def run(tmp_path, small_run, mocks):
    run = small_run(tiny.location(tmp_path))
    run.write(small.rows_of(mocks, N_ROWS))
    return run


def test_only_touched_shards_are_computed(run):
    assert run.infer()["shards"] == 7
    old = run.contents()
    run.brighten(2)
    counts = run.infer()
    assert (counts["shards"], counts["rows"], counts["release"]) == (1, 20, "release-2")
    small.assert_same(run.contents(), run.from_scratch())
    small.assert_same(run.contents("release-1"), old)
    changed = {name: n for name, n, _ in catalog.diff(run.catalog, "release-1", "release-2")}
    assert changed["flux"] == changed["log_evidence"] == 1
    assert changed["ra"] == 0


def test_nothing_changed_makes_no_release(run, capsys):
    run.infer()
    assert run.infer()["shards"] == 0
    assert "nothing has changed" in capsys.readouterr().err
    repo = catalog.repository(run.catalog)
    assert repo.list_tags() == {"release-1"}
    assert repo.list_branches() == {"main"}


@pytest.mark.parametrize(("n_rows", "computed"), [(160, 2), (141, 2), (100, 0), (65, 1)])
def test_more_or_fewer_rows(run, mocks, n_rows, computed):
    """The rows' order stays; arrays become longer or shorter; a shard that was cut off, or filled up, is touched."""
    run.infer()
    run.write(small.rows_of(mocks, n_rows))
    assert run.infer()["shards"] == computed
    assert open_catalog(run.catalog).sizes["galaxy"] == n_rows
    assert open_catalog(run.catalog, "release-1").sizes["galaxy"] == N_ROWS
    small.assert_same(run.contents(), run.from_scratch())


@pytest.mark.parametrize("changes", [{"seed": 8}, {"n_draws": 128}, {"keep_draws": 4}, {"rows_per_shard": 40}])
def test_other_settings_touch_every_shard(run, changes):
    run.infer()
    assert run.infer(**changes)["rows"] == N_ROWS
    small.assert_same(run.contents(), run.from_scratch(**changes))


def test_another_model_replaces_the_stored_one(run, learnt_flow):
    run.infer()
    other = run.root / "other_model"
    model_store.write(other, *learnt_flow.to_bytes())
    assert run.infer(model=other)["rows"] == N_ROWS
    assert open_catalog(run.catalog).attrs["run"]["model"] == learnt_flow.id
    small.assert_same(run.contents(), run.from_scratch(model=other))


def test_only_the_provenance_changed(run):
    run.infer()
    store = photometry.open(run.photometry, "r+")
    store.group.attrs["settings"] = {**store.group.attrs["settings"], "source": "the same rows, another file"}
    counts = run.infer()
    assert (counts["shards"], counts["release"]) == (0, "release-2")
    assert open_catalog(run.catalog).attrs["run"]["photometry"]["source"] == "the same rows, another file"


def test_after_a_rollback_a_run_starts_from_what_readers_see_and_repeats_nothing(run, capsys):
    run.infer()
    run.brighten(2)
    run.infer()
    repo = catalog.repository(run.catalog)
    releases.rollback(repo, "release-1")
    assert run.infer() == {"rows": N_ROWS, "shards": 0, "release": "release-2"}  # it is there: not again
    assert "holds this very content, but main shows release-1" in capsys.readouterr().err
    assert repo.lookup_branch("main") == repo.lookup_tag("release-1")
    run.brighten(4)
    counts = run.infer()
    assert (counts["shards"], counts["release"]) == (2, "release-3")  # both chunks differ from release-1
    small.assert_same(run.contents(), run.from_scratch())
    assert [tags for *_, tags in releases.history(repo) if tags] == ["release-3", "release-2", "release-1"]


def test_a_run_that_died_after_moving_main_names_its_release(run, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(releases, "next_release", die)
    with pytest.raises(KeyboardInterrupt):
        run.infer()
    monkeypatch.undo()
    repo = catalog.repository(run.catalog)
    assert repo.list_tags() == set()
    assert run.infer()["shards"] == 0
    assert repo.lookup_tag("release-1") == repo.lookup_branch("main")
    assert repo.list_branches() == {"main"}


def test_the_old_release_is_read_while_the_new_one_is_made(run, monkeypatch):
    run.infer()
    old = run.contents()
    seen = []
    commit = releases.commit

    def watch(*arguments):
        small.assert_same(run.contents(), old)
        small.assert_same(run.contents("release-1"), old)
        seen.append(commit(*arguments))

    monkeypatch.setattr(releases, "commit", watch)
    run.infer(seed=9)
    assert len(seen) == 4
    new = run.contents()
    assert not np.array_equal(new[0]["mean"][0], old[0]["mean"][0], equal_nan=True)
