"""What is written for people is whole or not there: on a full disk, beside another command, told to end, in a bucket."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys

import made_catalog
import numpy as np
import obstore
import pyarrow.parquet
import pytest
import tiny
from astropy.table import Table
from commands import sedflow

from jobs.export import export
from jobs.export.whole import whole_file, whole_folder
from storage_schemas import open_catalog
from storage_schemas.backend.location import Location

N = 3000
_TIME = re.compile(rb"(?<=updated )[0-9T:-]{19}|CHECKSUM= '\w{16}'")  # FITS says when a checksum was made
CONTAINERS = ("c.fits", "c.parquet", "c.csv", "c.zarr", "c_hats", "c.qp.hdf5")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    where = tiny.location(tmp_path_factory.mktemp("made") / "catalog")
    made_catalog.publish(where, N, 1024, True, name_rows=True)
    return where


@pytest.fixture
def bucket(s3_server, monkeypatch, request):
    """A place in a bucket on a real S3 server, for this test alone."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    return Location.parse(f"s3://galaxies/{request.node.name}")


# -- full disks -------------------------------------------------------------------------------------------------------

_FULL = """
import json, os, resource, sys
from pathlib import Path
import torch
from matplotlib.figure import Figure
from jobs.export import export
from jobs.flux import flux
from jobs.validate.figures import save as save_figure
from sedflow_dist.sps.components import Composition
from sedflow_dist.photometry import surveys
from storage_schemas import Location, open_catalog

source, folder, hard = open_catalog(sys.argv[1]), Path(sys.argv[2]), resource.getrlimit(resource.RLIMIT_FSIZE)[1]
SPACE = Composition.of().space
theta = SPACE.from_unit(torch.rand(200, 11, generator=torch.Generator().manual_seed(1)))
rows = "\\n".join(",".join(f"{x:.6g}" for x in (*row, 0.1)) for row in theta.tolist())
(folder.parent / "parameters.csv").write_text(",".join((*SPACE.names, "z")) + "\\n" + rows)
figure = Figure()
figure.subplots().plot(range(1000), torch.rand(1000))

def save(out):
    return save_figure(figure, Location.parse(out.parent), out.name)

def fluxes(out):
    return flux(folder.parent / "parameters.csv", surveys.get("sdss"), "bc03", out, 0.01, Composition.of())

writers = {name: lambda out: export(source, out, ["log_mstar"] if "qp" in out.name else []) for name in sys.argv[3:]}
for name, write in (writers | {"figure.png": save, "flux.csv": fluxes}).items():
    write(folder.parent / name)  # as large as it will be
    whole = folder.parent / name
    size = max(file.stat().st_size for file in ([whole] if whole.is_file() else whole.rglob("*")))
    for limit in (0, size // 3, size - 1):
        out = folder / name
        if not name.endswith(("_hats", ".zarr")):
            out.write_text("before")
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            write(out)
            error = None
        except OSError as caught:
            error = caught
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        left = {path.name: path.read_text() for path in folder.iterdir()}
        print(json.dumps([name, limit, getattr(error, "errno", None), str(error), left]))
        [path.unlink() for path in folder.iterdir()]
"""


#: Exports into a folder, one after the other, as commands; "ended": SIGTERM comes as soon as there is anything in it.
_COMMANDS = """
import os, sys, threading, time
from jobs.cli import ending
from jobs.cli.main import main

ending.GRACE = 600  # seconds from the end of the first on: the next ones begin in this process
source, folder, how, *names = sys.argv[1:]

def end():
    while not os.listdir(folder):
        time.sleep(0.0002)
    os.kill(os.getpid(), 15)

for name in names:
    if how == "ended":
        threading.Thread(target=end).start()
    sys.argv = ["sedflow", "export", source, folder + "/" + name]
    try:
        main()
    except SystemExit as ended:
        print(ended.code, flush=True)
    assert os.listdir(folder) == [], os.listdir(folder)
"""


def test_where_a_file_finds_no_room_the_error_says_so_and_what_was_there_stays(source, tmp_path):
    """The limit on the size of a file is the full disk that every machine has."""
    (tmp_path / "full").mkdir()
    command = [sys.executable, "-c", _FULL, source.url, str(tmp_path / "full"), *CONTAINERS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]  # 139 where HDF5 had met the error
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(results) == 3 * (len(CONTAINERS) + 2)
    for name, limit, number, error, left in results:
        assert number == 27, (name, limit, error)  # EFBIG
        assert f"no room to write {tmp_path / 'full' / name} (" in error
        assert left == ({} if name.endswith(("_hats", ".zarr")) else {name: "before"}), (name, limit)


def test_on_a_disk_that_is_full_a_command_ends_with_one_line_and_leaves_nothing(source, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=200k tmpfs {disk}"
    if (
        not shutil.which("unshare")
        or subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode
    ):
        pytest.skip("no file system can be mounted here")
    command = f"{mount} && {sys.executable} -c '{_COMMANDS}' {source} {disk} full c.qp.hdf5 c.csv c_hats"
    done = subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, text=True)
    assert done.stdout.split() == ["1", "1", "1"] and done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("sedflow: [Errno 28] no room to write")]
    assert len(lines) == 3 and "Traceback" not in done.stderr, done.stderr


def test_told_to_end_an_export_leaves_nothing(source, tmp_path):
    (tmp_path / "out").mkdir()
    names = ("c.csv", "c.zarr", "c_hats", "c.qp.hdf5")
    command = [sys.executable, "-c", _COMMANDS, source.url, str(tmp_path / "out"), "ended", *names]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == ["143"] * len(names) and done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("told to end (SIGTERM)") == len(names)


# -- two at once, and links -------------------------------------------------------------------------------------------


def test_of_two_that_write_one_file_the_later_stays_whole(tmp_path):
    out = tmp_path / "c.csv"
    with whole_file(out) as one:
        one.write(b"one " * 10_000)
        with whole_file(out) as other:
            other.write(b"the other ")
            one.write(b"one " * 10_000)
            other.write(b"the other")
        assert out.read_bytes() == b"the other the other"
        one.write(b"end")
    assert out.read_bytes() == b"one " * 20_000 + b"end"
    assert os.listdir(tmp_path) == ["c.csv"]


@pytest.mark.parametrize("where", ["here", "in a bucket"])
def test_of_two_that_write_one_folder_one_is_refused(where, tmp_path, bucket):
    out = bucket / "c_hats" if where == "in a bucket" else tiny.location(tmp_path / "c_hats")
    with pytest.raises(ValueError, match="c_hats exists already"), whole_folder(out, last=["a"]) as one:
        (one / "mine").write_text("one")
        (one / "a").write_text("one")
        with whole_folder(out, last=["a"]) as other:
            (other / "a").write_text("other")
    assert list(out.list()) == ["a"] and out.get("a") == b"other"
    assert os.listdir(tmp_path) == ([] if where == "in a bucket" else ["c_hats"])


def test_nothing_is_written_through_links(tmp_path, source):
    """Neither through one under the old name of unfinished files nor through one at the end of the path."""
    (tmp_path / "victim").write_text("precious")
    for name in ("c.csv.part", "c.csv", "dangling.csv"):
        (tmp_path / name).symlink_to(tmp_path / ("victim" if name != "dangling.csv" else "nowhere"))
    for name in ("c.csv", "dangling.csv"):
        assert export(open_catalog(source), tmp_path / name, ["chi2"]) == N
        assert stat.S_ISREG((tmp_path / name).lstat().st_mode)
    assert (tmp_path / "victim").read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == ["c.csv", "c.csv.part", "dangling.csv", "victim"]


def test_files_can_be_read_by_those_who_may_read_files(tmp_path):
    before = os.umask(0o027)
    try:
        with whole_file(tmp_path / "c.csv") as file:
            file.write(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "c.csv").stat().st_mode) == 0o640


def test_a_name_as_long_as_can_be_is_taken(tmp_path):
    name = "n" * 251 + ".csv"
    with whole_file(tmp_path / name) as file:
        file.write(b"x")
    assert os.listdir(tmp_path) == [name]


# -- where to ---------------------------------------------------------------------------------------------------------


def test_every_container_reaches_a_bucket_as_it_is_on_a_disk(source, bucket, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("c.fits", "c.parquet", "c.csv"):
        assert sedflow("export", source, bucket / name).returncode == 0
        assert sedflow("export", source, tmp_path / "here" / name).returncode == 1  # no such folder
        assert export(open_catalog(source), tmp_path / name) == N
        found, wanted = bucket.get(name), (tmp_path / name).read_bytes()
        assert _TIME.sub(b"", found) == _TIME.sub(b"", wanted) and len(found) == len(wanted)
        (tmp_path / name).unlink()
    done = sedflow("export", source, bucket / "q.qp.hdf5", "--columns", "log_mstar,log_z_mw")
    first, last = (f"{bucket}/q_{name}.qp.hdf5" for name in ("log_mstar", "log_z_mw"))
    assert (done.returncode, done.stdout) == (0, f"{N:,} rows: {first} to {last} (2 files)\n")
    assert {"q_log_mstar.qp.hdf5", "q_log_z_mw.qp.hdf5"} <= set(bucket.list())
    assert os.listdir(tmp_path) == []  # no folder s3:


def test_large_files_reach_a_bucket_in_parts(bucket):
    content = np.arange(2_000_000).tobytes()  # 16 MB: four parts
    with whole_file(bucket / "large") as file:
        file.write(content[8:])
        file.seek(0)
        file.write(content)
    assert bucket.get("large") == content
    with pytest.raises(RuntimeError, match="gone"), whole_file(bucket / "large") as file:
        file.write(b"half")
        raise RuntimeError("gone")
    assert bucket.get("large") == content


def test_lsdb_opens_hats_in_a_bucket(source, bucket, tmp_path):
    import lsdb

    assert sedflow("export", source, bucket / "c_hats").returncode == 0
    for name in (
        hats := bucket / "c_hats"
    ).list():  # as it lies there; tests/jobs/ingest/test_remote.py has LSDB read it through s3fs
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(hats.get(name))
    assert len(lsdb.open_catalog(tmp_path)) == np.isfinite(open_catalog(source)["ra"].values).sum()
    done = sedflow("export", source, bucket / "c_hats")
    assert done.returncode == 1 and "c_hats exists already" in done.stderr


def test_a_bucket_that_is_not_there_is_an_error_and_nothing_is_left(source, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("c.csv", "c.zarr", "c_hats", "c.qp.hdf5"):
        with pytest.raises((obstore.exceptions.BaseError, OSError)):
            export(open_catalog(source), bucket.at(f"s3://nobody-has-this/{name}"), ["log_mstar"])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("s3:/galaxies/c.csv", "a URL has two slashes"),
        ("gs://galaxies/c.csv", "needs the package gcsfs"),
        ("https://galaxies/c.csv", "web servers are only read"),
        ("s3://c.csv", "is a bucket"),
        ("s3://galaxies/../c.csv", "cannot store at"),
        ("nowhere/c.csv", "there is no folder"),
        ("folder.csv", "is no file that could be replaced"),
        ("pipe.csv", "is no file that could be replaced"),
        ("..", "ending must be|names no file"),
    ],
)
def test_where_nothing_can_be_written_it_is_said(source, tmp_path, monkeypatch, out, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises((ValueError, OSError), match=message):
        export(open_catalog(source), out, ["chi2"])
    if out != "..":
        with pytest.raises((ValueError, OSError), match=message), whole_file(out):
            pass
    assert sorted(os.listdir(tmp_path)) == ["folder.csv", "pipe.csv"]


def test_a_device_stays_a_device():
    with pytest.raises(ValueError, match="/dev/null is no file"), whole_file("/dev/null"):
        pass
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_url_of_a_file_is_a_path(source, tmp_path):
    assert export(open_catalog(source), f"file://{tmp_path}/c.parquet", ["chi2"]) == N
    assert pyarrow.parquet.read_table(tmp_path / "c.parquet").num_rows == N
    assert len(Table.read(tmp_path / "c.parquet")) == N
