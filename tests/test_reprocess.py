"""A new release on top of the old: only what changed is computed, and the result is a catalog made from scratch."""

import numpy as np
import pytest
import small
import tiny

from storage_schemas import catalog, open_catalog, photometry, releases

N_ROWS = 130  # six and a half shards


@pytest.fixture
def root(tmp_path, flow, mocks):
    place = tiny.location(tmp_path)
    small.write_inputs(place, flow, mocks, N_ROWS)
    return place


def from_scratch(root, dask, **changes):
    small.make(root, dask, out=root / "scratch", **changes)
    return small.contents(root / "scratch")


def test_only_touched_shards_are_computed(root, dask):
    assert small.make(root, dask)["shards"] == 7
    old = small.contents(root / "catalog")
    small.brighten(root / "photometry", 2)
    counts = small.make(root, dask)
    assert (counts["shards"], counts["rows"], counts["release"]) == (1, 20, "release-2")
    small.assert_same(small.contents(root / "catalog"), from_scratch(root, dask))
    small.assert_same(small.contents(root / "catalog", "release-1"), old)
    changed = {name: n for name, n, _ in catalog.diff(root / "catalog", "release-1", "release-2")}
    assert changed["flux"] == changed["log_evidence"] == 1
    assert changed["ra"] == 0


def test_nothing_changed_makes_no_release(root, dask, capsys):
    small.make(root, dask)
    assert small.make(root, dask)["shards"] == 0
    assert "nothing has changed" in capsys.readouterr().err
    repo = catalog.repository(root / "catalog")
    assert repo.list_tags() == {"release-1"}
    assert repo.list_branches() == {"main"}


@pytest.mark.parametrize(("n_rows", "computed"), [(160, 2), (141, 2), (100, 0), (65, 1)])
def test_more_or_fewer_rows(root, dask, flow, mocks, n_rows, computed):
    """The rows' order stays; arrays become longer or shorter; a shard that was cut off, or filled up, is touched."""
    small.make(root, dask)
    small.write_photometry(root / "photometry", small.rows_of(mocks, n_rows), flow.spec.bands)
    assert small.make(root, dask)["shards"] == computed
    assert open_catalog(root / "catalog").sizes["galaxy"] == n_rows
    assert open_catalog(root / "catalog", "release-1").sizes["galaxy"] == N_ROWS
    small.assert_same(small.contents(root / "catalog"), from_scratch(root, dask))


@pytest.mark.parametrize("changes", [{"seed": 8}, {"n_draws": 128}, {"keep_draws": 4}, {"rows_per_shard": 40}])
def test_other_settings_touch_every_shard(root, dask, changes):
    small.make(root, dask)
    assert small.make(root, dask, **changes)["rows"] == N_ROWS
    small.assert_same(small.contents(root / "catalog"), from_scratch(root, dask, **changes))


def test_another_model_replaces_the_stored_one(root, dask, learnt_flow):
    from storage_schemas import model as model_store

    small.make(root, dask)
    model_store.write(root / "model", *learnt_flow.to_bytes())
    assert small.make(root, dask)["rows"] == N_ROWS
    assert open_catalog(root / "catalog").attrs["run"]["model"] == learnt_flow.id
    small.assert_same(small.contents(root / "catalog"), from_scratch(root, dask))


def test_only_the_provenance_changed(root, dask):
    small.make(root, dask)
    store = photometry.open(root / "photometry", "r+")
    store.group.attrs["settings"] = {**store.group.attrs["settings"], "source": "the same rows, another file"}
    counts = small.make(root, dask)
    assert (counts["shards"], counts["release"]) == (0, "release-2")
    assert open_catalog(root / "catalog").attrs["run"]["photometry"]["source"] == "the same rows, another file"


def test_after_a_rollback_a_run_starts_from_what_readers_see_and_repeats_nothing(root, dask, capsys):
    small.make(root, dask)
    small.brighten(root / "photometry", 2)
    small.make(root, dask)
    repo = catalog.repository(root / "catalog")
    releases.rollback(repo, "release-1")
    assert small.make(root, dask) == {"rows": N_ROWS, "shards": 0, "release": "release-2"}  # it is there: not again
    assert "holds this very content, but main shows release-1" in capsys.readouterr().err
    assert repo.lookup_branch("main") == repo.lookup_tag("release-1")
    small.brighten(root / "photometry", 4)
    counts = small.make(root, dask)
    assert (counts["shards"], counts["release"]) == (2, "release-3")  # both chunks differ from release-1
    small.assert_same(small.contents(root / "catalog"), from_scratch(root, dask))
    assert [tags for *_, tags in releases.history(repo) if tags] == ["release-3", "release-2", "release-1"]


def test_a_run_that_died_after_moving_main_names_its_release(root, dask, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(releases, "next_release", die)
    with pytest.raises(KeyboardInterrupt):
        small.make(root, dask)
    monkeypatch.undo()
    repo = catalog.repository(root / "catalog")
    assert repo.list_tags() == set()
    assert small.make(root, dask)["shards"] == 0
    assert repo.lookup_tag("release-1") == repo.lookup_branch("main")
    assert repo.list_branches() == {"main"}


def test_the_old_release_is_read_while_the_new_one_is_made(root, dask, monkeypatch):
    small.make(root, dask)
    old = small.contents(root / "catalog")
    seen = []
    commit = releases.commit

    def watch(*arguments):
        small.assert_same(small.contents(root / "catalog"), old)
        small.assert_same(small.contents(root / "catalog", "release-1"), old)
        seen.append(commit(*arguments))

    monkeypatch.setattr(releases, "commit", watch)
    small.make(root, dask, seed=9)
    assert len(seen) == 4
    new = small.contents(root / "catalog")
    assert not np.array_equal(new[0]["mean"][0], old[0]["mean"][0], equal_nan=True)
