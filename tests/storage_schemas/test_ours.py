"""What is not ours is refused, and stays as it is: local, through a link, in a bucket."""

import os

import boto3
import numpy as np
import obstore
import pytest
import tiny
import zarr
from astropy.table import Table

from jobs.config.sections import Ingest
from jobs.ingest.job import ingest
from jobs.simulate.ssp import build_ssp
from sedflow_dist.photometry import surveys
from storage_schemas import model, photometry, training_set
from storage_schemas.backend import ours
from storage_schemas.backend.location import WORKING, Location


@pytest.fixture(params=["local", "s3"])
def root(request, tmp_path, s3_server):
    if request.param == "local":
        return tiny.location(tmp_path)
    return Location.parse(f"s3://galaxies/{request.node.name}", s3_server)


@pytest.fixture
def few(source, tmp_path):
    Table.read(source)[:30].write(tmp_path / "few.fits")
    return tmp_path / "few.fits"


def contents(location):
    return {name: location.get(name) for name in location.list()}


def fill(where, what):
    """Things of a user's own."""
    if what == "files":
        where.put("notes/thesis.txt", b"years of work")
    elif what == "zarr":
        group = zarr.open_group(where.zarr(), mode="w", attributes={"title": "mine"})
        for name in ("flux", "mask", "redshift"):
            group.create_array(name, data=np.arange(5.0))
    elif what == "zarr 2":
        zarr.open_group(where.zarr(), mode="w", zarr_format=2).create_array("flux", data=np.arange(5.0))
    elif what == "array":
        zarr.create_array(where.zarr(), data=np.arange(5.0))
    else:
        training_set.create(where, 4, 2, ["a"], ["u"], {})


@pytest.mark.parametrize("what", ["files", "zarr", "zarr 2", "array", "another store of ours"])
def test_a_place_that_holds_something_else_is_refused_and_stays_as_it_is(root, few, what):
    where = root / "out"
    fill(where, what)
    before = contents(where)
    with pytest.raises(FileExistsError, match=r"out holds .*choose another place"):
        ingest(few, surveys.get("sdss"), where, 20)
    with pytest.raises((FileExistsError, ValueError), match=r"out holds"):
        build_ssp("bc03", where)
    if what != "another store of ours":
        with pytest.raises(FileExistsError, match="holds no model but other things"), model.writing(where):
            pass
    assert contents(where) == before


def test_folders_of_like_names_are_nobodys_business(root, few):
    for name in ("out-runs", "out-parts", "out-photometry"):
        (root / name).put("thesis.txt", b"years of work")
    store = ingest(few, surveys.get("sdss"), root / "out", 20)
    assert store.n_rows == 30
    for name in ("out-runs", "out-parts", "out-photometry"):
        assert contents(root / name) == {"thesis.txt": b"years of work"}
    assert not (store.location / WORKING).exists()


def test_a_linked_folder_is_not_deleted_through_the_link(tmp_path, few):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "out-runs").symlink_to(tmp_path / "mine")
    (tmp_path / "out").symlink_to(tmp_path / "mine")
    with pytest.raises(FileExistsError, match=r"mine holds no photometry store but other things, such as thesis.txt"):
        ingest(few, surveys.get("sdss"), tiny.location(tmp_path / "out"), 20)
    store = ingest(few, surveys.get("sdss"), tiny.location(tmp_path / "store"), 20)
    (tmp_path / "store" / WORKING).symlink_to(tmp_path / "mine")
    Table.read(few)[:25].write(few, overwrite=True)
    with pytest.raises(FileExistsError, match="is no folder of ours"):
        ingest(few, surveys.get("sdss"), store.location, 20)
    ours.remove_working(store.location)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_working_files_are_ours_by_their_mark_and_names(root, few):
    out = root / "out"
    ingest(few, surveys.get("sdss"), out, 20)
    folder = out / WORKING
    folder.put("0123456789abcdef/thesis.txt", b"years of work")
    ours.remove_working(out)
    assert contents(folder) == {"0123456789abcdef/thesis.txt": b"years of work"}  # no mark: not ours
    Table.read(few)[:25].write(few, overwrite=True)
    with pytest.raises(FileExistsError, match=r"is not ours: it holds 0123456789abcdef/thesis.txt, and no mark"):
        ingest(few, surveys.get("sdss"), out, 20)
    folder.remove()
    ingest(few, surveys.get("sdss"), out, 20, Ingest(keep_runs=True))
    assert len(contents(folder)) > 10
    folder.put("thesis.txt", b"years of work")
    ingest(few, surveys.get("sdss"), out, 20)
    assert contents(folder) == {"thesis.txt": b"years of work"}


def test_an_unfinished_table_is_made_anew_but_a_folder_is_not(root):
    where = root / "out"
    ours.begin(where, "ssp_table").create_array("half", data=np.arange(3))
    build_ssp("bc03", where)
    assert "half" not in zarr.open_group(where.zarr(), mode="r")


def test_a_bucket_as_a_store_leaves_other_buckets_alone(s3_server, few):
    client = boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1")
    for name in ("whole", "whole-runs", "whole-photometry", "whole-parts"):
        client.create_bucket(Bucket=name)
    for name in ("whole-runs", "whole-photometry", "whole-parts"):
        client.put_object(Bucket=name, Key="thesis.txt", Body=b"years of work")
    where = Location.parse("s3://whole", s3_server)
    for keep in (True, False):
        assert ingest(few, surveys.get("sdss"), where, 20, Ingest(keep_runs=keep)).n_rows == 30
    assert not list((where / WORKING).list())
    for name in ("whole-runs", "whole-photometry", "whole-parts"):
        keys = [found["Key"] for found in client.list_objects_v2(Bucket=name)["Contents"]]
        assert keys == ["thesis.txt"]


def test_an_input_that_is_replaced_while_it_is_read_is_refused(root, few, monkeypatch):
    """Its run would bear the name of a content that it does not have."""
    from jobs.ingest import calibrated

    read = calibrated.read

    def replace_and_read(*arguments):
        os.utime(few)
        table = Table.read(few)
        table["MODELFLUX"] *= 2
        table.write(few, overwrite=True)
        return read(*arguments)

    monkeypatch.setattr(calibrated, "read", replace_and_read)
    with pytest.raises(ValueError, match=r"few\.fits was changed while it was read"):
        ingest(few, surveys.get("sdss"), root / "out", 20, Ingest(keep_runs=True))
    monkeypatch.undo()
    store = ingest(few, surveys.get("sdss"), root / "out", 20)
    fresh = ingest(few, surveys.get("sdss"), root / "fresh", 20)
    np.testing.assert_array_equal(store.digests(), fresh.digests())


def test_a_damaged_working_file_is_made_anew(tmp_path, few):
    out = tiny.location(tmp_path / "out")
    ingest(few, surveys.get("sdss"), out, 20, Ingest(keep_runs=True))
    gone = next(name for name in (out / WORKING).list() if "/flux/c/" in name)
    obstore.delete((out / WORKING).objects(), gone)
    photometry.open(out, "r+").forget([0])
    with pytest.raises(
        ValueError, match=r"array flux, rows 0 to 29: the stored object is gone.*makes what is damaged anew"
    ):
        ingest(few, surveys.get("sdss"), out, 20, Ingest(keep_runs=True))
    assert ingest(few, surveys.get("sdss"), out, 20).missing() == []
