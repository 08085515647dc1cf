"""Stored objects that are gone, or hold something else: no fill value becomes data, and every kind of store tells."""

import shutil

import numpy as np
import pytest
import small
import tiny
import zarr

from cluster.settings import DaskSettings
from jobs.catalog.verify import verify
from jobs.infer import infer
from jobs.mcmc import rows_of
from jobs.simulate.ssp import build_ssp, load
from jobs.train import load_shapes
from jobs.validate.job import missing_patterns
from storage_schemas import chains, model, photometry, training_set, validation
from storage_schemas.backend.arrays import VERSION
from storage_schemas.catalog import releases
from storage_schemas.catalog import schema as catalog

N_ROWS = 60


@pytest.fixture
def run(tmp_path, filled_run):
    return filled_run(tiny.location(tmp_path), N_ROWS)


def path(location, name):
    from pathlib import Path

    return Path(location.url) / name


@pytest.mark.parametrize("array", ["mask", "redshift", "flux", "sigma", "flags", "ra", "ids/OBJID"])
def test_a_chunk_that_is_gone_is_an_error_that_names_array_and_rows(run, array):
    where = path(run.photometry, f"{array}/c/1")
    shutil.rmtree(where) if where.is_dir() else where.unlink()
    with pytest.raises(
        ValueError, match=rf"array {array}, rows 20 to 39: the stored object is gone.*sedflow verify RUN"
    ):
        run.infer()
    with pytest.raises(ValueError, match="no release yet"):
        catalog.open_catalog(run.catalog)
    assert [chunk for chunk, _ in photometry.open(run.photometry).damaged()] == [1]


@pytest.mark.parametrize("array", ["mask", "redshift", "flux"])
def test_a_chunk_in_place_of_another_is_an_error(run, array):
    """Its own checksum is right: it was written, but elsewhere."""
    one, other = (path(run.photometry, f"{array}/c/{chunk}") for chunk in (0, 2))
    if one.is_dir():
        shutil.rmtree(one)
        shutil.copytree(other, one)
    else:
        shutil.copy(other, one)
    with pytest.raises(ValueError, match=rf"array {array}, rows 0 to 19: the stored object holds something else"):
        run.infer()


def test_every_reader_of_some_arrays_notices(run, tmp_path):
    shutil.rmtree(path(run.photometry, "mask/c/1"))
    store = photometry.open(run.photometry)
    wrong = r"array mask, rows 20 to 39: the stored object is gone"
    with pytest.raises(ValueError, match=wrong):
        photometry.sample(store, ["mask"], 1000)
    with pytest.raises(ValueError, match=wrong):
        missing_patterns(store, 2)
    with pytest.raises(ValueError, match=wrong):
        rows_of(run.photometry, np.array([3, 25]), run.model)
    assert len(rows_of(run.photometry, np.array([3, 45]), run.model).photometry.mask) == 2  # what is whole is read


def test_galaxies_are_picked_in_the_order_asked_for(run):
    store, rows = photometry.open(run.photometry), np.array([45, 3, 59, 4])
    found = photometry.pick(store, rows, ["flux", "redshift"])
    np.testing.assert_array_equal(found["flux"], np.asarray(store.group["flux"][:])[rows])
    np.testing.assert_array_equal(found["redshift"], np.asarray(store.group["redshift"][:])[rows])


def test_values_that_equal_fill_values_come_back_bit_by_bit(tmp_path):
    """Zarr takes every NaN for its fill value, and -0.0 for 0.0."""
    store = training_set.create(tiny.location(tmp_path / "set"), 4, 2, ["a"], ["u"], {})
    odd = np.array([-np.nan, np.frombuffer(b"\x01\x00\xc0\x7f", np.float32)[0]], np.float32)
    for chunk in (0, 1):
        store.write(chunk, {"phi": odd[:, None], "per_mass": -0.0 * np.ones((2, 1), np.float32), "redshift": odd})
    found = training_set.open(store.location).read_rows(slice(1, 3), training_set.NAMES)
    assert found["redshift"].tobytes() == odd[[1, 0]].tobytes()
    assert np.signbit(found["per_mass"]).all()
    assert not list(store.damaged())


def test_photometry_that_changes_while_a_catalog_is_made_is_not_mixed(run, monkeypatch):
    """Ingest of other rows, or anybody else, writes a chunk after the run has read its digests."""
    stage = releases.stage

    def change_and_stage(*arguments):
        run.brighten(2)
        return stage(*arguments)

    monkeypatch.setattr(releases, "stage", change_and_stage)
    with pytest.raises(ValueError, match=r"rows 40 to 59 are not those that were there when this command began"):
        run.infer()
    monkeypatch.undo()
    assert run.infer()["release"] == "release-1"
    small.assert_same(run.contents(), run.from_scratch())


# -- verify ---------------------------------------------------------------------------------------------------------------


def damage(location, name):
    where = path(location, name)
    shutil.rmtree(where) if where.is_dir() else where.unlink()


def test_verify_finds_what_is_gone_in_every_store(tmp_path, source):
    run = tiny.settings(tmp_path, source)
    build_ssp("bc03", run.store("ssp"))
    training = training_set.create(run.store("training"), 4, 2, ["a"], ["u"], {})
    for chunk in (0, 1):
        values = np.ones((2, 1), np.float32)
        training.write(chunk, {"phi": values, "per_mass": values, "redshift": values[:, 0]})
    segments, summary = chains.create(run.store("chains"), 1, 1, 3, 2, ["a", "b"], {})
    for store in (segments, summary):
        values = {name: np.asarray(store.group[name][:]) for name in store._columns}
        store.write(0, values)
    arrays = {s.name: np.ones((3, 2) if len(s.dims) == 2 else 3, s.dtype) for s in validation.ARRAYS}
    validation.write(run.store("validation"), arrays, ["a", "b"], ["u", "g"], {"seed": 1})
    assert list(verify(run)) == []
    damage(run.store("training"), "per_mass/c/1")
    damage(run.store("training"), "band/c")
    damage(run.store("chains"), "segments/log_prob/c/0")
    damage(run.store("chains"), "summary/rhat/c/0")
    damage(run.store("ssp"), "surviving/c/0")
    damage(run.store("validation"), "weighted_rank/c/0")
    found = "\n".join(verify(run))
    for words in (
        "/training, chunk 1 of 2: ", "array per_mass, rows 2 to 3: the stored object is gone", "array band: the stored",
        "/segments, chunk 0 of 1", "array log_prob, rows 0 to 0", "/summary, chunk 0 of 1", "/ssp: ", "/validation: ",
    ):  # fmt: skip
        assert words in found
    assert training_set.open(run.store("training")).missing() == [0, 1]
    assert segments.missing() == summary.missing() == [0]
    for read, name in ((load, "ssp"), (validation.read, "validation")):
        with pytest.raises(FileNotFoundError, match="never finished"):
            read(run.store(name))  # and so the next run makes it anew
    build_ssp("bc03", run.store("ssp"))
    load(run.store("ssp"))


def test_a_training_set_without_a_chunk_is_not_trained_on(tmp_path, source):
    run = tiny.settings(tmp_path, source)
    training = training_set.create(run.store("training"), 4, 2, ["a"], ["u"], {})
    for chunk in (0, 1):
        values = np.ones((2, 1), np.float32)
        training.write(chunk, {"phi": values, "per_mass": values, "redshift": values[:, 0]})
    damage(run.store("training"), "redshift/c/0")
    with pytest.raises(
        ValueError, match=r"training_set store .* array redshift, rows 0 to 1: the stored object is gone"
    ):
        load_shapes(run)


# -- versions ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [VERSION + 1, 0, "1", True, None])
def test_a_store_of_another_version_is_refused_with_both_named(tmp_path, version):
    where = tiny.location(tmp_path / "ssp")
    build_ssp("bc03", where)
    store = training_set.create(tiny.location(tmp_path / "set"), 4, 2, ["a"], ["u"], {})
    for location in (where, store.location):
        group = zarr.open_group(location.zarr(), mode="r+")
        group.attrs["sedflow_version"] = version
    words = rf"has format version {version!r}; this sedflow-dist reads version {VERSION}"
    with pytest.raises(ValueError, match=words):
        load(where)
    with pytest.raises(ValueError, match=words):
        training_set.open(store.location)
    with pytest.raises(ValueError, match=words):
        training_set.create(store.location, 4, 2, ["a"], ["u"], {})  # nor is it written
    with pytest.raises(ValueError, match=words):
        build_ssp("bc03", where)


def test_a_catalog_of_another_version_is_neither_read_nor_written(run):
    run.infer()
    repo = catalog.repository(run.catalog)
    session = repo.writable_session("main")
    zarr.open_group(session.store).attrs["sedflow_version"] = 2
    snapshot = session.commit("from the future")
    repo.create_tag("release-2", snapshot)
    words = "has format version 2; this sedflow-dist reads version 1"
    run.brighten(1)
    for do in (
        lambda: catalog.open_catalog(run.catalog), lambda: catalog.open_catalog(run.catalog, "release-2"), run.infer,
        lambda: list(verify_catalog(run.catalog)), lambda: releases.rollback(repo, "release-2"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            do()
    assert repo.lookup_branch("main") == snapshot
    assert catalog.open_catalog(run.catalog, "release-1").sizes["galaxy"] == N_ROWS
    releases.rollback(repo, "release-1")
    assert run.infer()["release"] == "release-3"


def verify_catalog(location):
    from jobs.catalog.verify import verify_catalog as check

    return check(location)


@pytest.mark.parametrize("more", [{}, {"a_key_of_the_future": 1}])
def test_a_model_of_another_version_is_refused_with_both_named(run, more):
    import json

    weights, spec = model.read(run.model)
    other = run.root / "model"
    model.write(other, weights, json.dumps({**json.loads(spec), "format": 3, **more}).encode())
    with pytest.raises(ValueError, match="has format 3; this version reads format 2"):
        infer(run.photometry, other, run.catalog, small.SETTINGS, 1, DaskSettings(workers=1))
