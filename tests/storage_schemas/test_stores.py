"""Stores: the chunk contract, and a catalog whose readers see whole releases only."""

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from jobs.simulate.ssp import build_ssp, load
from storage_schemas import model, training_set
from storage_schemas.backend.arrays import ArraySpec, array
from storage_schemas.backend.chunked import digest
from storage_schemas.backend.location import Location
from storage_schemas.catalog import releases
from storage_schemas.catalog import schema as catalog
from storage_schemas.catalog.schema import Layout


@pytest.fixture
def store(tmp_path):
    return training_set.create(tiny.location(tmp_path / "set"), 10, 4, ["a", "b"], ["u", "g", "r"], {"seed": 1})


def chunk_of(n):
    rng = np.random.default_rng(n)
    return {
        "phi": rng.normal(size=(n, 2)).astype(np.float32), "per_mass": rng.normal(size=(n, 3)).astype(np.float32),
        "redshift": rng.random(n).astype(np.float32),
    }  # fmt: skip


def test_a_chunk_is_missing_until_it_is_written(store):
    assert store.missing() == [0, 1, 2]
    store.write(2, chunk_of(2))
    store.write(0, chunk_of(4))
    assert store.missing() == [1]
    np.testing.assert_array_equal(store.read(2, ["phi"])["phi"], chunk_of(2)["phi"])


def test_a_chunk_of_the_wrong_length_is_refused(store):
    with pytest.raises(ValueError, match=r"chunk 2: phi has 4 rows, expected slice\(8, 10"):
        store.write(2, chunk_of(4))


def test_reopening_needs_the_same_settings(store, tmp_path):
    again = training_set.create(tiny.location(tmp_path / "set"), 10, 4, ["a", "b"], ["u", "g", "r"], {"seed": 1})
    assert again.n_chunks == 3
    with pytest.raises(ValueError, match="was made with seed = 1, now 2 is asked for"):
        training_set.create(tiny.location(tmp_path / "set"), 10, 4, ["a", "b"], ["u", "g", "r"], {"seed": 2})


def test_a_store_that_was_never_finished_counts_as_missing_and_is_made_anew(tmp_path, monkeypatch):
    """A job that dies between the arrays and the seal leaves a group that says what was being made in it."""
    where = tiny.location(tmp_path / "set")
    with monkeypatch.context() as patch:
        patch.setattr("storage_schemas.backend.chunked.seal", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            training_set.create(where, 7, 3, ["a", "b", "c"], ["u"], {"seed": 2})
    with pytest.raises(FileNotFoundError, match="never finished"):
        training_set.open(where)
    again = training_set.create(where, 10, 4, ["a", "b"], ["u", "g", "r"], {"seed": 1})
    assert again.missing() == [0, 1, 2]
    assert array(again.group, "band")[:].tolist() == ["u", "g", "r"]


def test_another_kind_of_store_is_named(tmp_path):
    build_ssp("bc03", tiny.location(tmp_path / "ssp"))
    with pytest.raises(ValueError, match="holds a ssp_table store; expected a training_set store"):
        training_set.open(tiny.location(tmp_path / "ssp"))


@given(st.integers(1, 500), st.integers(1, 60))
def test_chunks_cover_every_row_once(n_rows, per_chunk):
    layout = Layout(n_rows, per_chunk, (), (), (), (), (), 0, {}, inferred=())
    rows = [row for shard in range(len(layout.shards)) for row in range(*layout.shards.rows(shard).indices(n_rows))]
    assert rows == list(range(n_rows))


def test_the_digest_sees_names_and_every_value():
    one = {"a": np.arange(4.0), "b": np.arange(3)}
    assert digest(one) == digest(dict(reversed(one.items())))
    assert digest(one) != digest({"a": np.arange(4.0), "c": np.arange(3)})
    changed = {**one, "a": one["a"].copy()}
    changed["a"][2] = np.nextafter(2.0, 3.0)
    assert digest(one) != digest(changed)


@pytest.mark.parametrize("url", ["ftp://host/x", "s3://", "gs://bucket"])
def test_other_schemes_are_refused(url):
    with pytest.raises(ValueError, match="allowed are a local path and s3://bucket/prefix"):
        Location.parse(url)


def test_a_corrupted_ssp_table_is_noticed(tmp_path):
    where = tiny.location(tmp_path / "ssp")
    build_ssp("bc03", where)
    import zarr

    group = zarr.open_group(where.zarr(), mode="r+")
    array(group, "spectra")[3, 100, 200] = 1.0
    with pytest.raises(ValueError, match="checksum"):
        load(where)


def test_looking_for_a_store_makes_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no posterior catalog"):
        catalog.open_catalog(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        model.read(tiny.location(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()


def release(repo, seed, name):
    """Stage and publish a catalog of 6 rows in 2 shards whose chi2 is ``seed``."""
    inferred = [ArraySpec("chi2", ("galaxy",), "float32")]
    layout = Layout(6, 3, ["p"], ["1"], [0.5], ["c"], ["u"], 0, {}, inferred=inferred)
    main = repo.lookup_branch(catalog.MAIN)
    branch = releases.stage(repo, f"{seed}", layout, {"seed": seed}, (b"weights", b"{}"))
    for shard in releases.missing(repo, branch, [seed, seed]):
        session = repo.writable_session(branch)
        fork = session.fork()
        catalog.write_shard(fork, layout.shards.rows(shard), shard, seed, {"chi2": np.full(3, seed, np.float32)})
        session.merge(fork)
        session.commit(f"shard {shard}")
        yield shard
    assert releases.publish(repo, branch, main) == name


def test_readers_see_whole_releases_only(tmp_path):
    where = tiny.location(tmp_path / "catalog")
    repo = catalog.repository(where, create=True)
    for _ in release(repo, 1, "release-1"):
        with pytest.raises(ValueError, match="no release yet"):
            catalog.open_catalog(where)
    assert (catalog.open_catalog(where)["chi2"].values == 1).all()
    for _ in release(repo, 2, "release-2"):
        assert (catalog.open_catalog(where)["chi2"].values == 1).all()
    assert (catalog.open_catalog(where)["chi2"].values == 2).all()
    assert (catalog.open_catalog(where, "release-1")["chi2"].values == 1).all()
    assert {name: n for name, n, *_ in catalog.diff(where, "release-1", "release-2")}["chi2"] == 6
    tags = [tags for *_, tags in releases.history(repo) if tags]
    assert tags == ["release-2", "release-1"]
    assert releases.next_release(repo) == "release-3"
    releases.rollback(repo, "release-1")
    assert (catalog.open_catalog(where)["chi2"].values == 1).all()
    with pytest.raises(ValueError, match="no release 'release-9'"):
        releases.rollback(repo, "release-9")


def test_a_run_goes_on_where_it_stopped(tmp_path):
    repo = catalog.repository(tiny.location(tmp_path / "catalog"), create=True)
    assert next(release(repo, 1, "release-1")) == 0  # and no further
    assert list(release(repo, 1, "release-1")) == [1]


def test_a_catalog_whose_creation_was_cut_off_is_created_anew(tmp_path, monkeypatch):
    """Icechunk creates only where nothing is, and a process that dies when it does leaves something."""
    monkeypatch.setattr(catalog, "_CREATION_TRIES", 1)
    where = tiny.location(tmp_path / "catalog")
    catalog.repository(where, create=True)
    where.remove("refs/")
    assert catalog.repository(where, create=True).list_branches() == {"main"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"other things, such as thesis.txt"):
        catalog.repository(tiny.location(tmp_path / "other"), create=True)
    assert (tmp_path / "other" / "thesis.txt").exists()
    (tmp_path / "holiday" / "snapshots").mkdir(parents=True)
    (tmp_path / "holiday" / "snapshots" / "beach.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "holiday" / "config.yaml").write_text("mine: true")
    with pytest.raises(FileExistsError, match="holds no catalog but other things"):
        catalog.repository(tiny.location(tmp_path / "holiday"), create=True)
    assert (tmp_path / "holiday" / "snapshots" / "beach.jpg").exists()
