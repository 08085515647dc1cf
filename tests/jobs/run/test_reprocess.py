"""A new release on top of the old: only what changed is computed, and the result is a catalog made from scratch."""

import shutil
from dataclasses import replace
from datetime import timedelta

import boto3
import numpy as np
import pytest
import small
import tiny
import zarr
from astropy.table import Table

from jobs.catalog.verify import verify
from jobs.cli import main
from jobs.ingest.job import ingest_of
from jobs.run.reprocess import reprocess
from storage_schemas import model as model_store
from storage_schemas import open_catalog, photometry, training_set
from storage_schemas.backend.location import Location
from storage_schemas.catalog import releases
from storage_schemas.catalog import schema as catalog

N_ROWS = 130  # six and a half shards


@pytest.fixture
def unborn(tmp_path, filled_run):
    """A run whose catalog does not exist yet."""
    return filled_run(tiny.location(tmp_path), N_ROWS)


@pytest.fixture(scope="module")
def first_release(tmp_path_factory, filled_run):
    run = filled_run(tiny.location(tmp_path_factory.mktemp("first")), N_ROWS)
    assert run.infer()["shards"] == 7
    return run


@pytest.fixture
def run(first_release, tmp_path):
    """A run with its first release: a copy, which costs a hundredth of what making it anew would."""
    shutil.copytree(first_release.root.url, tmp_path, dirs_exist_ok=True)
    return replace(first_release, root=tiny.location(tmp_path))


def test_only_touched_shards_are_computed(run):
    old = run.contents()
    run.brighten(2)
    counts = run.infer()
    assert (counts["shards"], counts["rows"], counts["release"]) == (1, 20, "release-2")
    small.assert_same(run.contents(), run.from_scratch())
    small.assert_same(run.contents("release-1"), old)
    changed = {name: n for name, n, *_ in catalog.diff(run.catalog, "release-1", "release-2")}
    assert changed["flux"] == changed["log_evidence"] == 1
    assert changed["ra"] == 0


def test_nothing_changed_makes_no_release(run, capsys):
    assert run.infer()["shards"] == 0
    assert "nothing has changed" in capsys.readouterr().err
    repo = catalog.repository(run.catalog)
    assert repo.list_tags() == {"release-1"}
    assert repo.list_branches() == {"main"}


@pytest.mark.parametrize(("n_rows", "computed"), [(160, 2), (141, 2), (100, 0), (65, 1)])
def test_more_or_fewer_rows(run, mocks, n_rows, computed):
    """The rows' order stays; arrays become longer or shorter; a shard that was cut off, or filled up, is touched."""
    run.write(small.rows_of(mocks, n_rows))
    assert run.infer()["shards"] == computed
    assert open_catalog(run.catalog).sizes["galaxy"] == n_rows
    assert open_catalog(run.catalog, "release-1").sizes["galaxy"] == N_ROWS
    small.assert_same(run.contents(), run.from_scratch())


@pytest.mark.parametrize("changes", [{"seed": 8}, {"n_draws": 128}, {"keep_draws": 4}, {"rows_per_shard": 40}])
def test_other_settings_touch_every_shard(run, changes):
    assert run.infer(**changes)["rows"] == N_ROWS
    small.assert_same(run.contents(), run.from_scratch(**changes))


def test_another_model_replaces_the_stored_one(run, learnt_flow):
    other = run.root / "other_model"
    model_store.write(other, *learnt_flow.to_bytes())
    assert run.infer(model=other)["rows"] == N_ROWS
    assert open_catalog(run.catalog).attrs["run"]["model"] == learnt_flow.id
    small.assert_same(run.contents(), run.from_scratch(model=other))


def test_only_the_provenance_changed(run):
    store = photometry.open(run.photometry, "r+")
    store.group.attrs["settings"] = {**store.group.attrs["settings"], "source": "the same rows, another file"}
    counts = run.infer()
    assert (counts["shards"], counts["release"]) == (0, "release-2")
    assert open_catalog(run.catalog).attrs["run"]["photometry"]["source"] == "the same rows, another file"


def test_after_a_rollback_a_run_starts_from_what_readers_see_and_repeats_nothing(run, capsys):
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


def test_a_run_that_died_after_moving_main_names_its_release(unborn, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(releases, "next_release", die)
    with pytest.raises(KeyboardInterrupt):
        unborn.infer()
    monkeypatch.undo()
    repo = catalog.repository(unborn.catalog)
    assert repo.list_tags() == set()
    assert unborn.infer()["shards"] == 0
    assert repo.lookup_tag("release-1") == repo.lookup_branch("main")
    assert repo.list_branches() == {"main"}


@pytest.mark.parametrize("moment", ["_drop", "next_release"])
@pytest.mark.parametrize("by", ["the command", "hand"])
def test_a_rollback_stays_when_a_run_that_was_killed_as_it_published_is_started_again(run, monkeypatch, moment, by):
    """It died between tag and removal of its branch, or between the move of main and the tag."""

    def die(*_):
        raise KeyboardInterrupt

    run.brighten(2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(releases, moment, die)
        run.infer()
    repo = catalog.repository(run.catalog)
    if by == "hand":  # as a version of ours did that left the branch
        if moment == "next_release":
            repo.create_tag("release-2", repo.lookup_branch("main"))
        repo.reset_branch("main", repo.lookup_tag("release-1"))
    else:
        releases.rollback(repo, "release-1")
    for _ in range(2):
        assert run.infer() == {"rows": N_ROWS, "shards": 0, "release": "release-2"}
        assert repo.lookup_branch("main") == repo.lookup_tag("release-1")
        assert (repo.list_branches(), repo.list_tags()) == ({"main"}, {"release-1", "release-2"})


def test_what_others_are_staging_is_left_alone_when_an_end_is_made(run):
    repo = catalog.repository(run.catalog)
    for name in ("staging-fresh", "staging-half"):
        repo.create_branch(name, repo.lookup_branch("main"))
    session = repo.writable_session("staging-half")
    zarr.open_group(session.store).attrs["run_id"] = "half"
    session.commit("staged")
    releases.complete(repo)
    assert repo.list_branches() == {"main", "staging-fresh", "staging-half"}


def test_the_old_release_is_read_while_the_new_one_is_made(run, monkeypatch):
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


# -- the command, and what is damaged -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_run(flow, source, dask, tmp_path_factory):
    """The photometry of the tiny run, a model, and a training set that nobody reads."""
    run = tiny.settings(tmp_path_factory.mktemp("again"), source, engines={"dask": {"address": dask}})
    model_store.write(run.store("model"), *flow.to_bytes())
    training = training_set.create(run.store("training"), 30, 10, ["a"], ["u"], {})
    for chunk in range(3):
        values = np.random.default_rng(chunk).random((10, 1), np.float32)
        training.write(chunk, {"phi": values, "per_mass": values, "redshift": values[:, 0]})
    assert reprocess(run)["shards"] == 5
    return run


def test_a_preview_says_what_a_run_does_and_why(tiny_run, capsys):
    assert reprocess(tiny_run)["shards"] == 0
    assert "nothing has changed since release-1" in capsys.readouterr().err
    other = tiny_run.model_copy(update={"seed": 9})
    assert reprocess(other, dry_run=True) == {"rows": tiny.N_ROWS, "shards": 5}
    assert "0 shards unchanged, 5 to compute (500 rows), because of: seed" in capsys.readouterr().err
    assert catalog.repository(tiny_run.store("catalog")).list_branches() == {"main"}


@pytest.mark.parametrize("storage", ["local", "s3"])
def test_a_second_reprocess_is_refused_before_it_touches_the_photometry(
    flow, source, dask, s3_server, tmp_path, monkeypatch, storage
):
    """The input is replaced while the first one works: its release holds the old input, the next one the new."""
    few = Table.read(source)[20:84]
    few.write(tmp_path / "in.fits")
    root = tmp_path / "root" if storage == "local" else "s3://galaxies/second-reprocess"
    sections = {"engines": {"dask": {"address": dask}}} | (
        {"storage": {"endpoint": s3_server}} if storage == "s3" else {}
    )
    run = tiny.settings(root, tmp_path / "in.fits", **sections)
    model_store.write(run.store("model"), *flow.to_bytes())
    stage, refusals = releases.stage, []

    def replace_and_try(*arguments):
        monkeypatch.undo()
        changed = few.copy()
        changed["MODELFLUX"] *= 2
        changed.write(tmp_path / "in.fits", overwrite=True)
        for again in (reprocess, ingest_of):
            with pytest.raises(
                RuntimeError, match=r"another process is writing the photometry store .*process \d+ on "
            ) as caught:
                again(run)
            refusals.append(caught)
        return stage(*arguments)

    monkeypatch.setattr(releases, "stage", replace_and_try)
    assert reprocess(run)["release"] == "release-1"
    assert len(refusals) == 2
    assert reprocess(run)["release"] == "release-2"
    one, two = (open_catalog(run.store("catalog"), name)["flux"].values for name in ("release-1", "release-2"))
    np.testing.assert_allclose(two, 2 * one, rtol=1e-5)


def test_infer_of_a_table_keeps_its_photometry_in_the_catalogs_own_place(
    learnt_flow, source, s3_server, tmp_path, monkeypatch
):
    """A bucket as a catalog: other buckets of like names are other people's; so is a folder that holds other things."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    client = boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1")
    for name in ("galore", "galore-photometry", "galore-photometry-runs"):
        client.create_bucket(Bucket=name)
    Table.read(source)[20:60].write(tmp_path / "in.fits")
    model_store.write(tiny.location(tmp_path / "model"), *learnt_flow.to_bytes())
    common = {"model": str(tmp_path / "model"), "workers": 1, "draws": 16, "certificate": False, "rows_per_shard": 20}
    main.infer(str(tmp_path / "in.fits"), out="s3://galore", **common)
    where = Location.parse("s3://galore", s3_server)
    assert open_catalog(where).sizes["galaxy"] == photometry.open(where / "photometry").n_rows == 40
    for name in ("galore-photometry", "galore-photometry-runs"):
        assert client.list_objects_v2(Bucket=name)["KeyCount"] == 0
    main.infer(str(tmp_path / "in.fits"), out="s3://galore", **common)  # it is there already
    assert releases.clean(catalog.repository(where), timedelta(0))[0] == []
    assert photometry.open(where / "photometry").missing() == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    monkeypatch.setattr(catalog, "_CREATION_TRIES", 1)
    with pytest.raises(FileExistsError, match=r"mine holds no catalog but other things, such as thesis.txt"):
        main.infer(str(tmp_path / "in.fits"), out=str(tmp_path / "mine"), **common)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def corrupt(location, pattern, wanted):
    """Flip a byte of the ``wanted``-th largest file that matches."""
    import pathlib

    path = sorted(pathlib.Path(location.url).glob(pattern), key=lambda path: path.stat().st_size)[wanted]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    return path


@pytest.mark.slow
def test_damaged_chunks_are_named_and_filled_again(tiny_run, capsys):
    before = small.contents(tiny_run.store("catalog"))
    photometry_before = np.asarray(photometry.open(tiny_run.store("photometry")).group["flux"][:])
    corrupt(tiny_run.store("photometry"), "flux/c/2/*", 0)
    (tiny_run.store("photometry") / "ra" / "c").remove("4")  # an object that is gone reads as its fill value
    corrupt(tiny_run.store("training"), "phi/c/1/*", 0)
    with pytest.raises(ValueError, match=r"photometry.* is damaged: array flux, rows 200 to 299: .*sedflow verify RUN"):
        photometry.open(tiny_run.store("photometry")).read(2, ["flux"])
    corrupt(tiny_run.store("catalog"), "chunks/*", -1)
    corrupt(tiny_run.store("catalog"), "chunks/*", -2)
    found = list(verify(tiny_run))
    assert [line.split(": ")[0].partition(str(tiny_run.location))[2] for line in found[:3]] == [
        "/photometry, chunk 2 of 5", "/photometry, chunk 4 of 5", "/training, chunk 1 of 3",
    ]  # fmt: skip
    assert "array flux, rows 200 to 299" in found[0]
    assert all("/catalog, shard " in line and ": array " in line for line in found[3:])
    assert photometry.open(tiny_run.store("photometry")).missing() == [2, 4]
    shards = {line.partition("shard ")[2].partition(":")[0] for line in found[3:]}
    capsys.readouterr()
    assert reprocess(tiny_run)["shards"] == len(shards) > 0
    assert "because of: damaged shards" in capsys.readouterr().err
    small.assert_same(small.contents(tiny_run.store("catalog")), before)
    np.testing.assert_array_equal(photometry.open(tiny_run.store("photometry")).group["flux"][:], photometry_before)
    assert reprocess(tiny_run)["shards"] == 0
    assert not [line for line in verify(tiny_run) if "/training" not in line]
