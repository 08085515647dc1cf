"""Inputs from anywhere, by s3fs and other packages of fsspec, from a real S3 server; and what other tools read of ours by them."""

import boto3
import lsdb
import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import s3fs
import tiny
import xarray as xr
import zarr
from astropy.table import Table
from counting_s3 import BUCKET, serve
from upath import UPath
from zarr.storage import FsspecStore

from cluster.settings import DaskSettings
from jobs.config import shipped
from jobs.config.joining import Join
from jobs.config.run_file import RunFile
from jobs.config.sections import Inference, Ingest, Inputs
from jobs.containers.formats import open_catalog as open_input
from jobs.export import export
from jobs.export.whole import whole_file, whole_folder
from jobs.infer import infer
from jobs.ingest import inputs
from jobs.ingest.job import ingest, ingest_of
from sedflow_dist.inference.settings import Routing
from sedflow_dist.photometry import surveys
from sedflow_dist.photometry.flags import Flag
from storage_schemas import open_catalog, photometry
from storage_schemas.backend import credentials
from storage_schemas.backend.access import Access
from storage_schemas.backend.location import Location
from storage_schemas.backend.remote import PACKAGES, Remote

ANON = Access(anon=True)
N = 40
SETTINGS = Inference(n_draws=64, rows_per_shard=N, routing=Routing(share=0.0, more_draws=1))


@pytest.fixture
def server(monkeypatch):
    with serve(monkeypatch) as counted:
        yield counted


@pytest.fixture
def place(server, request):
    """A prefix of its own in a bucket of a real S3 server that writes down what it is asked."""
    return Location.parse(f"s3://{BUCKET}/{abs(hash(request.node.name))}")


def put(place, name, content, public=True):
    """Put a file there, for everybody to read or not; return its URL."""
    key = f"{place.url.removeprefix(f's3://{BUCKET}/')}/{name}"
    boto3.client("s3").put_object(Bucket=BUCKET, Key=key, Body=content, ACL="public-read" if public else "private")
    return f"{place}/{name}"


def publish(place):
    """Let everybody read all that is below a place."""
    client, prefix = boto3.client("s3"), place.url.removeprefix(f"s3://{BUCKET}/")
    for name in place.list():
        client.put_object_acl(Bucket=BUCKET, Key=f"{prefix}/{name}", ACL="public-read")


def sample(folder):
    """Write photometry of real galaxies, without redshifts, as FITS, and redshifts of most of them as CSV; return these."""
    table = Table.read(tiny.write_input(folder / "all.fits"))[100 : 100 + N]
    table["ID"] = np.arange(N) * 3
    redshifts = Table({"ID": table["ID"][5:][::-1], "ZSPEC": np.asarray(table["Z"][5:][::-1], float)})
    del table["Z"]
    table.write(folder / "p.fits")
    redshifts.write(folder / "z.csv")
    return redshifts


# -- one run, all of it in a bucket -----------------------------------------------------------------------------------------


def read_by_all(root, options, n):
    """Medians of the mass (row,) as every reader has them through s3fs."""
    files = s3fs.S3FileSystem(**options)
    name, bare = "log_mstar_p50", root.url.removeprefix("s3://")
    store = FsspecStore.from_url(f"{root}/c.zarr", storage_options=options, read_only=True)
    dataset = xr.open_zarr(store, chunks=None)
    assert dataset[name].dims == ("galaxy",) and dataset["ID"].dtype == np.int64
    with files.open(f"{bare}/c.fits") as file:
        fits = Table.read(file, format="fits")
    sky = lsdb.open_catalog(UPath(f"{root}/c_hats", **options)).compute()
    assert len(sky) == n
    by_id = sky.set_index("ID")[name]
    return {
        "xarray": dataset[name].values, "zarr": np.asarray(zarr.open_group(store, mode="r")[name][:]),
        "pyarrow": pyarrow.parquet.read_table(f"{bare}/c.parquet", filesystem=files)[name].to_numpy(),
        "pandas": pd.read_parquet(f"{root}/c.parquet", storage_options=options)[name].to_numpy(),
        "pandas csv": pd.read_csv(f"{root}/c.csv", storage_options=options)[name].to_numpy(np.float32),
        "astropy": np.asarray(fits[name.upper()], np.float32), "lsdb": by_id[dataset["ID"].values].to_numpy(np.float32),
    }  # fmt: skip


def test_a_run_whose_input_redshifts_and_exports_lie_in_a_bucket_with_and_without_credentials(place, tmp_path, server):
    redshifts = sample(tmp_path)
    source, joined = (put(place, f"in/{name}", (tmp_path / name).read_bytes()) for name in ("p.fits", "z.csv"))
    survey = surveys.get("sdss").model_copy(update={"redshift": "ZSPEC", "ids": ("ID",)})
    joining, stores = Join(file=joined, on="ID"), {}
    for name, access in (("signed", Access()), ("anon", ANON)):
        stores[name] = ingest(source, survey, place / name, 20, Ingest(), DaskSettings(), None, joining, access)
    np.testing.assert_array_equal(stores["anon"].digests(), stores["signed"].digests())
    found = stores["anon"].group["redshift"][:]
    np.testing.assert_array_equal(found[5:], np.asarray(redshifts["ZSPEC"][::-1], np.float32))
    assert np.isnan(found[:5]).all() and (stores["anon"].group["flags"][:5] & int(Flag.NO_MATCH)).all()

    infer(place / "anon", shipped.model("sdss"), place / "catalog", SETTINGS, 1, DaskSettings(workers=1))
    catalog = open_catalog(place / "catalog")
    for name in ("c.fits", "c.parquet", "c.csv", "c.zarr", "c_hats"):
        assert export(catalog, place / "out" / name, ["log_mstar", "flags"]) == N
    publish(place / "out")
    wanted = catalog["quantiles"].sel(param="log_mstar", quantile=0.5).values
    assert np.isfinite(wanted).sum() == N - 5
    shared = {"endpoint_url": place.endpoint, "use_listings_cache": False}
    for options in ({**shared, "key": "test", "secret": "test"}, {**shared, "anon": True}):
        for reader, values in read_by_all(place / "out", options, N).items():
            np.testing.assert_allclose(values, wanted, rtol=1e-6, err_msg=reader)
    flux = zarr.open_group(FsspecStore.from_url(f"{place}/anon", storage_options=shared, read_only=True), mode="r")[
        "flux"
    ]
    np.testing.assert_array_equal(flux[:], stores["anon"].group["flux"][:])


def test_inputs_of_a_run_whose_root_is_a_folder_are_at_the_endpoint_of_its_storage(place, tmp_path, monkeypatch):
    sample(tmp_path)
    source, joined = (put(place, f"in/{name}", (tmp_path / name).read_bytes()) for name in ("p.fits", "z.csv"))
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    run = RunFile.model_validate({
        "name": "a", "root": str(tmp_path / "run"), "input": source, "join": {"file": joined, "on": "ID"},
        "ingest": {"redshift": "ZSPEC"}, "storage": {"endpoint": place.endpoint},
    })  # fmt: skip
    assert ingest_of(run).n_rows == N


def test_a_zarr_export_holds_what_the_catalog_does_and_is_an_input_again(place, tmp_path):
    full = Table.read(tiny.write_input(tmp_path / "all.fits"))[:N]
    full["ID"] = np.ma.masked_array(np.arange(N) + 2**60, np.arange(N) == 3)
    full.write(tmp_path / "full.fits")
    survey = surveys.get("sdss").model_copy(update={"ids": ("ID",)})
    ingest(str(tmp_path / "full.fits"), survey, tiny.location(tmp_path / "p"), N)
    infer(
        tiny.location(tmp_path / "p"),
        shipped.model("sdss"),
        tiny.location(tmp_path / "c"),
        SETTINGS,
        1,
        DaskSettings(workers=1),
    )
    catalog = open_catalog(tmp_path / "c")
    export(catalog, tmp_path / "x.zarr")
    found = xr.open_zarr(tmp_path / "x.zarr", consolidated=True, chunks=None)
    np.testing.assert_array_equal(found["ID"].values, np.where(np.arange(N) == 3, -(2**63), np.arange(N) + 2**60))
    assert found["ID"].attrs["null_value"] == -(2**63)
    np.testing.assert_array_equal(found["chi2"].values, catalog["chi2"].values)
    assert found["log_mstar_p50"].attrs["units"]
    with open_input(tiny.location(tmp_path / "x.zarr")) as again:
        assert again.n_rows == N and "log_mstar_p50" in again.names
    with pytest.raises(ValueError, match="exists already"):
        export(catalog, tmp_path / "x.zarr")


# -- inputs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("access", [Access(), ANON], ids=["signed", "anon"])
def test_files_patterns_and_zarr_groups_in_a_bucket_are_those_of_a_disk(place, tmp_path, access):
    path = tiny.write_input(tmp_path / "a.fits")
    Table.read(path)["Z", "RA", "DEC"].to_pandas().to_parquet(tmp_path / "b.parquet")
    group = zarr.create_group(tmp_path / "c.zarr")
    group.create_array("Z", data=np.arange(7.0))
    for file in [*tmp_path.glob("*.*t*"), *tmp_path.rglob("c.zarr/**/*")]:
        if file.is_file():
            put(place, f"t/{file.relative_to(tmp_path)}", file.read_bytes())
    put(place, "t/deep/a.fits", path.read_bytes())
    found = inputs.expand([f"{place}/t/[ab].*", f"{place}/t/c.zarr"], place, access)
    assert [file.url.removeprefix(f"{place}/t/") for file in found] == ["a.fits", "b.parquet", "c.zarr"]
    for file in found:
        here = inputs.inspect(tiny.location(tmp_path / file.url.rpartition("/")[2]), 100, ("RA",)[:0])
        there = inputs.inspect(file, 100)
        assert (there.n_rows, there.content, there.borders) == (here.n_rows, here.content, here.borders)
        inputs.require_unchanged(file, there.stamp)
        with open_input(here.location) as one, open_input(file) as other:
            for name, values in one.read(0, here.n_rows, one.names).items():
                np.testing.assert_array_equal(other.read(0, here.n_rows, [name])[name], values)


def test_a_file_that_is_replaced_is_noticed(place):
    file = inputs.expand(put(place, "a.csv", b"a\n1\n"), place)[0]
    before = inputs.stamp(file)
    put(place, "a.csv", b"a\n2\n")
    with pytest.raises(ValueError, match="was changed while it was read"):
        inputs.require_unchanged(file, before)


def test_what_is_not_public_is_not_read_without_credentials_and_the_error_says_so(place):
    url = put(place, "secret.csv", b"a\n1\n", public=False)
    assert inputs.inspect(inputs.expand(url, place)[0], 10).n_rows == 1
    with pytest.raises(PermissionError, match=r"secret\.csv may not be read.*as `anon` says"):
        inputs.inspect(inputs.expand(url, place, ANON)[0], 10)


def test_who_has_no_credentials_is_told_of_public_buckets(place, monkeypatch, tmp_path):
    url = put(place, "a.csv", b"a\n1\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(credentials, "_last", None)
    with pytest.raises(PermissionError, match=r"no credentials for S3.*`anon`.*--access"):
        inputs.inspect(Remote.of(place.at(url)), 10)
    assert inputs.inspect(inputs.expand(url, place, ANON)[0], 10).n_rows == 1


def test_a_profile_signs_and_a_reader_who_pays_says_so(place, server, monkeypatch, tmp_path):
    url = put(place, "a.csv", b"a\n1\n")
    keys = tmp_path / "credentials"
    keys.write_text("[surveys]\naws_access_key_id = PROFILEKEY\naws_secret_access_key = of-the-profile-123\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    seen, before = [], server.application

    def watched(environ, start_response):
        seen.append((environ.get("HTTP_AUTHORIZATION", ""), environ.get("HTTP_X_AMZ_REQUEST_PAYER", "")))
        return before(environ, start_response)

    server.application = watched
    access = Inputs.parse("profile=surveys,requester_pays").access
    with open_input(inputs.expand(url, place, access)[0]) as catalog:
        assert catalog.n_rows == 1
    signed = [(who, pays) for who, pays in seen if who]
    assert signed and all("PROFILEKEY" in who and pays == "requester" for who, pays in signed)
    with pytest.raises(ValueError, match="know no profile nobody"):
        inputs.inspect(inputs.expand(url, place, Access(profile="nobody"))[0], 10)


def test_a_web_server_is_read_in_parts_or_whole_and_what_it_is_asked_is_no_pattern(place, server):
    table = "a,b\n" + "".join(f"{i},{i * i}\n" for i in range(50))
    put(place, "t/a b.csv", table.encode())
    web = f"{place.endpoint}/{BUCKET}/{place.url.rpartition('/')[2]}/t/a%20b.csv?download=1"
    wanted, before = inputs.inspect(inputs.expand(f"{place}/t/a b.csv", place)[0], 10), server.application
    for whole in (False, True):

        def answer(environ, start_response, whole=whole):
            if whole:
                environ.pop("HTTP_RANGE", None)
                if environ["REQUEST_METHOD"] == "HEAD":
                    start_response("405 METHOD NOT ALLOWED", [])
                    return [b""]
            return before(environ, start_response)

        server.application = answer
        file = inputs.expand(web, place)[0]
        assert file.url == web
        found = inputs.inspect(file, 10)
        assert (found.n_rows, found.content) == (50, wanted.content)
    with pytest.raises(FileNotFoundError, match=r"no catalog http://.*none\.csv"):
        inputs.inspect(inputs.expand(web.replace("a%20b", "none"), place)[0], 10)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("gs://bucket/a.fits", "needs the package gcsfs: pip install gcsfs"),
        ("abfs://container/a.fits", "needs the package adlfs"),
        ("zip://a.fits::s3://bucket/a.zip", "cannot read"),
        ("memory://a.fits", "cannot read .* s3://, "),
        ("https://host/a/../b.fits", "cannot read"),
        ("https://user:hunter22@host/a.fits", r"holds credentials"),
        ("https://host/a.fits?X-Amz-Signature=0123456789abcdef", "holds credentials"),
    ],
)
def test_what_cannot_be_read_is_said_with_what_would_help(url, message, tmp_path):
    with pytest.raises(ValueError, match=message) as found:
        inputs.inspect(inputs.expand(url, tiny.location(tmp_path))[0], 10)
    assert "hunter22" not in str(found.value) and "0123456789" not in str(found.value)


def test_a_server_that_is_not_there_is_an_error_that_names_it_and_no_file_that_is_missing(tmp_path):
    with pytest.raises(OSError, match=r"http://127.0.0.1:9/a.csv cannot be read") as found:
        inputs.inspect(inputs.expand("http://127.0.0.1:9/a.csv", tiny.location(tmp_path))[0], 10)
    assert not isinstance(found.value, FileNotFoundError)


def test_a_run_file_says_how_inputs_are_reached_and_no_secret():
    content = {"name": "x", "root": "s3://own/run", "input": "s3a://public/a.fits",
               "storage": {"endpoint": "https://own.example",
                           "inputs": {"anon": True, "endpoint": "https://s3.amazonaws.com"}}}  # fmt: skip
    run = RunFile.model_validate(content)
    assert run.location.endpoint == "https://own.example"
    found = run.storage.inputs.access.place(run.input, run.location)
    assert found == Remote("s3://public/a.fits", "https://s3.amazonaws.com", found.region, anon=True)
    for key in ("key", "secret", "token"):
        with pytest.raises(ValueError, match=key):
            RunFile.model_validate({**content, "storage": {"inputs": {key: "0123456789abcdef"}}})
    with pytest.raises(ValueError, match="'key' is none of anon"):
        Inputs.parse("key=0123456789")
    assert set(PACKAGES) >= {"s3", "https", "gs", "abfs"}


# -- outputs --------------------------------------------------------------------------------------------------------------


def test_what_is_written_by_fsspec_is_whole_or_not_there(place):
    out = Remote.of(place)
    with whole_file(out / "a.txt") as file:
        file.write(b"one")
    assert place.get("a.txt") == b"one"
    with pytest.raises(RuntimeError, match="gone"), whole_file(out / "a.txt") as file:
        file.write(b"two")
        raise RuntimeError("gone")
    assert place.get("a.txt") == b"one"
    with whole_folder(out / "f", last=("first",)) as folder:
        (folder / "first").write_text("1")
        (folder / "second").write_text("2")
    assert sorted((place / "f").list()) == ["first", "second"]
    with pytest.raises(ValueError, match="exists already"), whole_folder(out / "f"):
        pass
    with pytest.raises(ValueError, match="web servers are only read"), whole_file("https://host/a.fits"):
        pass
    with pytest.raises(ValueError, match="needs the package gcsfs"), whole_file("gs://bucket/a.fits"):
        pass


def test_no_store_of_ours_is_made_where_fsspec_reads(place):
    with pytest.raises(ValueError, match="stores are kept in a local path"):
        photometry.open(Remote.of(place), "r+")
