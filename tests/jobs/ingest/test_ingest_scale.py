"""Ingest of many files: one content whatever the workers, interruptions and history; a changed input costs what it changed."""

import os
import resource
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tiny
import zarr
from astropy.table import Table
from counting_s3 import BUCKET, serve
from paths import HELPERS, ROOT

from cluster import dask_engine
from cluster.settings import DaskSettings
from jobs.config.sections import Ingest
from jobs.ingest.job import ingest
from sedflow_dist.photometry import surveys
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.photometry.survey import Survey
from storage_schemas import photometry
from storage_schemas.backend.arrays import all_arrays
from storage_schemas.backend.location import Location

CHUNK = 20
SETTINGS = Ingest(rows_per_piece=64, keep_runs=True)
SURVEY = Survey(
    name="test", bands=("sdss2010-g", "sdss2010-r", "sdss2010-i"), labels=("g", "r", "i"), flux=("F_G", "F_R", "F_I"),
    error=("E_G", "E_R", "E_I"), error_kind="sigma", model_error=0.0, ids=("ID", "NAME"),
)  # fmt: skip


@pytest.fixture(scope="module")
def dask(dask):
    """The two workers of all tests, as settings."""
    return DaskSettings(address=dask)


def rows(n, seed):
    """Galaxies all over the sky; one in 20 without a position."""
    rng = np.random.default_rng(seed)
    flux = rng.lognormal(3, 1, (n, 3))
    ra = np.where(rng.random(n) < 0.05, np.nan, rng.uniform(0, 360, n))
    return Table({
        "ID": np.arange(n) + 10_000 * seed, "NAME": [f"galaxy {seed:02}/{i:05}" for i in range(n)], "RA": ra,
        "DEC": np.degrees(np.arcsin(rng.uniform(-1, 1, n))), "Z": rng.uniform(0.01, 0.2, n),
        **{f"F_{b}": flux[:, i] for i, b in enumerate("GRI")}, **{f"E_{b}": 0.1 * flux[:, i] for i, b in enumerate("GRI")},
    })  # fmt: skip


def write(table, path):
    """FITS or Parquet, by the ending; row groups of 50."""
    if path.suffix == ".fits":
        table.write(path, overwrite=True)
    else:
        columns = {name: pa.array(np.asarray(table[name]).tolist()) for name in table.colnames}
        pa.parquet.write_table(pa.table(columns), path, row_group_size=50)
    return path


@pytest.fixture
def files(tmp_path):
    """Three files of 150, 210 and 90 rows."""
    names = ("a.fits", "b.parquet", "c.fits")
    (tmp_path / "in").mkdir()
    return [
        write(rows(n, i + 1), tmp_path / "in" / name)
        for i, (n, name) in enumerate(zip((150, 210, 90), names, strict=True))
    ]


def contents(store):
    """Arrays by name; of input files those that are there."""
    return {name: np.asarray(value[...]) for name, value in all_arrays(store.group).items()}


def data(store):
    """What does not depend on how the work was parted."""
    return {name: value for name, value in contents(store).items() if name not in ("group_key", "file_url")}


def assert_rows_are_the_inputs(store, paths):
    """Every input row is there once, with its own values."""
    found = contents(store)
    where = {file.url: number for number, file in enumerate(photometry.files(store))}
    assert len(found["ids/ID"]) == sum(len(Table.read(path)) for path in paths)
    for path in paths:
        table = Table.read(path)
        mine = np.flatnonzero(found["input_file"] == where[str(path)])
        mine = mine[np.argsort(found["input_row"][mine])]
        np.testing.assert_array_equal(found["input_row"][mine], np.arange(len(table)))
        np.testing.assert_array_equal(found["ids/ID"][mine], table["ID"])
        assert found["ids/NAME"][mine].tolist() == list(table["NAME"])
        np.testing.assert_array_equal(found["ra"][mine], np.asarray(table["RA"], float))
        np.testing.assert_allclose(found["flux"][mine, 1], table["F_R"], rtol=1e-6)
        np.testing.assert_array_equal(found["healpix_29"][mine], surveys.healpix(found["ra"][mine], found["dec"][mine]))


def run(source, out, dask, survey=SURVEY, **changes):
    return ingest(source, survey, tiny.location(out), CHUNK, SETTINGS.model_copy(update=changes), dask)


# -- order and partition ------------------------------------------------------------------------------------------------


def test_several_files_are_ordered_by_position(files, dask, tmp_path):
    store = run(files, tmp_path / "out", dask)
    assert_rows_are_the_inputs(store, files)
    pixel = store.group["healpix_29"][:]
    assert (np.diff(pixel) >= 0).all()
    assert 0 < (pixel < 0).sum() < 50
    assert [(file.url, file.n_rows) for file in photometry.files(store)] == [
        (str(path), n) for path, n in zip(files, (150, 210, 90), strict=True)
    ]
    assert store.group.attrs["report"]["rows"] == 450


def test_the_inputs_order_is_kept_if_that_is_wanted(files, dask, tmp_path):
    store = run(files, tmp_path / "out", dask, order="input")
    assert_rows_are_the_inputs(store, files)
    np.testing.assert_array_equal(store.group["input_file"][:], np.repeat([0, 1, 2], (150, 210, 90)))
    np.testing.assert_array_equal(store.group["ids/ID"][:], np.concatenate([Table.read(path)["ID"] for path in files]))


def test_a_single_table_keeps_its_order_and_a_pattern_does_not(files, dask, tmp_path):
    assert run(files[0], tmp_path / "one", dask).group.attrs["settings"]["order"] == "input"
    assert run([str(files[0])], tmp_path / "one", dask).n_rows == 150
    pattern = run(str(files[0].parent / "a*.fits"), tmp_path / "pattern", dask)
    assert pattern.group.attrs["settings"]["order"] == "healpix"


@pytest.mark.slow
@pytest.mark.parametrize("order", ["healpix", "input"])
def test_one_worker_and_other_pieces_give_the_same_content(files, dask, tmp_path, order):
    two = run(files, tmp_path / "two", dask, order=order)
    one = run(files, tmp_path / "one", DaskSettings(workers=1), order=order)
    tiny.assert_same(contents(two), contents(one))
    for pieces in (1_000_000, 33):
        tiny.assert_same(data(two), data(run(files, tmp_path / f"{pieces}", dask, order=order, rows_per_piece=pieces)))


# -- containers ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3():
    """A real S3 server on loopback, with a bucket; its environment reaches this process only."""
    with pytest.MonkeyPatch.context() as patch, serve(patch):
        yield Location.parse(f"s3://{BUCKET}")


def as_zarr(table, where):
    group = zarr.open_group(where.zarr(), mode="w")
    for name in table.colnames:
        values = np.asarray(table[name])
        values = values.astype("U").astype(np.dtypes.StringDType()) if values.dtype.kind in "SU" else values
        group.create_array(name, data=values, chunks=(40,))


def as_hats(table, where):
    """What hats writes: rows by coarse pixel, and a file of properties."""
    pixel = surveys.healpix(np.nan_to_num(np.asarray(table["RA"])), np.asarray(table["DEC"])) >> 58
    for number in np.unique(pixel):
        part = table[pixel == number]
        sink = pa.BufferOutputStream()
        pa.parquet.write_table(pa.table({name: pa.array(part[name].tolist()) for name in part.colnames}), sink)
        where.put(f"dataset/Norder=0/Dir=0/Npix={number}.parquet", sink.getvalue().to_pybytes())
    where.put("dataset/_metadata", b"not a leaf")
    where.put("hats.properties", b"obs_collection=test\n")


@pytest.mark.slow
def test_containers_on_s3_give_what_files_here_do(s3, files, dask, tmp_path):
    table = Table.read(files[0])
    here = run(files[0], tmp_path / "here", dask, order="healpix")
    (s3 / "in").put("a.fits", files[0].read_bytes())
    (s3 / "in").put("a.parquet", write(table, tmp_path / "a.parquet").read_bytes())
    as_zarr(table, s3 / "a")
    as_hats(table, s3 / "hats")
    as_hats(table, tiny.location(tmp_path / "hats"))
    names = [name for name in photometry.DATA + photometry.PASSED if not name.startswith("input_")] + [
        "ids/ID",
        "ids/NAME",
    ]
    wanted = {name: here.group[name][:] for name in names}
    order = np.argsort(wanted["ids/ID"])
    sources = [f"{s3}/in/a.fits", f"{s3}/in/*.parquet", f"{s3}/a", f"{s3}/hats", tmp_path / "hats"]
    for number, source in enumerate(sources):
        where = f"{s3}/out{number}" if number < 3 else tmp_path / f"out{number}"
        store = ingest(source, SURVEY, tiny.location(where), CHUNK, Ingest(order="healpix"), DaskSettings(workers=1))
        assert not Location.parse(f"{where}/sedflow.working").exists()
        again = np.argsort(store.group["ids/ID"][:])
        tiny.assert_same(
            {name: values[order] for name, values in wanted.items()},
            {name: np.asarray(store.group[name][:])[again] for name in names},
        )


def test_a_folder_that_is_nothing_known_is_refused(files, tmp_path):
    with pytest.raises(ValueError, match=r"neither a HATS catalog .* give a pattern, such as folder/\*\.parquet"):
        run(files[0].parent, tmp_path / "out", None)
    with pytest.raises(FileNotFoundError, match=r"nothing matches .*nothing"):
        run(str(tmp_path / "nothing*"), tmp_path / "out", None)
    with pytest.raises(ValueError, match=r"a\.fits is named twice"):
        run([files[0], files[0]], tmp_path / "out", None)


# -- changed inputs -----------------------------------------------------------------------------------------------------


def digests(store):
    return np.asarray(store.group["chunk_digest"][:])


def test_nothing_is_done_twice(files, dask, tmp_path):
    store = run(files, tmp_path / "out", dask)
    before = contents(store)
    tiny.location(f"{tmp_path}/out/sedflow.working").remove()
    tiny.assert_same(before, contents(run(files, tmp_path / "out", dask)))
    tiny.assert_same(before, contents(run(files, tmp_path / "out", dask, keep_runs=False)))
    assert not (tmp_path / "out" / "sedflow.working").exists()


@pytest.mark.parametrize("keep_runs", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_rows_changed_in_place_change_their_chunks_only(files, dask, tmp_path, keep_runs):
    store = run(files, tmp_path / "out", dask, keep_runs=keep_runs)
    runs = tmp_path / "out" / "sedflow.working"
    assert runs.exists() == keep_runs
    before, made = digests(store), {path: path.stat().st_mtime_ns for path in runs.glob("*/zarr.json")}
    table = Table.read(files[0])
    changed = [17, 101, 102, 140]
    table["F_R"][changed] *= 1.5
    write(table, files[0])
    store = run(files, tmp_path / "out", dask, keep_runs=keep_runs)
    touched = (
        np.flatnonzero((store.group["input_file"][:] == 0) & np.isin(store.group["input_row"][:], changed)) // CHUNK
    )
    np.testing.assert_array_equal(np.flatnonzero(digests(store) != before), np.unique(touched))
    assert 2 <= len(np.unique(touched)) < store.n_chunks / 2
    tiny.assert_same(contents(run(files, tmp_path / "fresh", dask)), contents(store))
    if keep_runs:  # those of the other files were not made again, those of the old content are gone
        there = {path: path.stat().st_mtime_ns for path in runs.glob("*/zarr.json")}
        assert len(there) == len(made) == 3 + 4 + 2  # row groups of 50 are not parted
        assert len(set(there.items()) & set(made.items())) == 4 + 2


@pytest.mark.parametrize("order", [pytest.param("healpix", marks=pytest.mark.slow), "input"])
def test_files_may_come_and_go(files, dask, tmp_path, order):
    store = run([files[0], files[2]], tmp_path / "out", dask, order=order)
    before = digests(store)
    store = run(files, tmp_path / "out", dask, order=order)
    assert_rows_are_the_inputs(store, files)
    assert [file.url for file in photometry.files(store)] == [str(files[i]) for i in (0, 2, 1)]  # numbers stay
    if order == "input":
        np.testing.assert_array_equal(digests(store)[: 240 // CHUNK], before[: 240 // CHUNK])
    listed = run([files[0], files[2], files[1]], tmp_path / "fresh", dask, order=order)
    tiny.assert_same(contents(listed), contents(store))
    store = run([files[0], files[2]], tmp_path / "out", dask, order=order)
    np.testing.assert_array_equal(digests(store), before)
    assert photometry.files(store)[2].n_rows == 0
    assert store.missing() == []
    files[2].rename(files[2].with_name("moved.fits"))
    store = run([files[0], files[2].with_name("moved.fits")], tmp_path / "out", dask, order=order)
    np.testing.assert_array_equal(digests(store), before)


def test_a_store_shorter_than_a_chunk_grows(dask, tmp_path):
    paths = [write(rows(n, n), tmp_path / f"{n}.fits") for n in (7, 9, 50)]
    for number in (1, 2, 3, 1):
        store = run(paths[:number], tmp_path / "out", dask, order="input")
        assert store.missing() == []
        assert_rows_are_the_inputs(store, paths[:number])


def test_other_settings_are_refused(files, dask, tmp_path):
    store = run(files, tmp_path / "out", dask)
    before = contents(store)
    for path in files:
        table = Table.read(path)
        table["Z2"] = table["Z"]
        write(table, path)
    for changes, message in [
        ({"order": "input"}, "order = 'healpix', now 'input'"),
        ({"redshift": "Z2"}, "survey.redshift = 'Z', now 'Z2'"),
    ]:
        with pytest.raises(ValueError, match=message):
            run(files, tmp_path / "out", dask, **changes)
        tiny.assert_same(before, contents(photometry.open(store.location)))


def ingest_in_a_process(paths, out):
    code = f"""
from cluster.settings import DaskSettings
from test_ingest_scale import run
if __name__ == "__main__":
    run({[str(path) for path in paths]!r}, {str(out)!r}, DaskSettings(workers=1), rows_per_piece=600)
"""
    return subprocess.Popen(
        [sys.executable, "-c", code], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), str(HELPERS), str(ROOT)])},
    )  # fmt: skip


@pytest.mark.slow
def test_killed_ingest_goes_on_and_ends_in_the_same_content(dask, tmp_path):
    """SIGKILL of driver and worker while chunks are written: of a new store, then of one whose input changed."""
    paths = [write(rows(3000, seed), tmp_path / f"{seed}.fits") for seed in (1, 2)]
    out = tiny.location(tmp_path / "out")
    old = None
    for change in (False, True):
        if change:
            table = Table.read(paths[1])
            table["F_G"] *= 1.1
            write(table, paths[1])
            old = digests(photometry.open(out))
        process = ingest_in_a_process(paths, out)

        def half_done(change=change, old=old):
            if not change:
                return any(True for _ in out.list("chunk_digest/c/"))
            found = digests(photometry.open(out))
            return ((found != 0) & (found != old)).any()

        tiny.kill_when(process, half_done)
        assert 0 < len(photometry.open(out).missing()) <= 300
        store = run(paths, out, dask, rows_per_piece=600)
        fresh = run(paths, tmp_path / f"fresh{change}", dask, rows_per_piece=600)
        tiny.assert_same(contents(fresh), contents(store))


# -- duplicates, cuts, report ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [pytest.param("healpix", marks=pytest.mark.slow), "input"])
def test_the_second_row_with_the_same_identifiers_is_flagged(files, dask, tmp_path, order):
    """Within a file, across files, elsewhere on the sky; one identifier alone is none."""
    first, third = Table.read(files[0]), Table.read(files[2])
    third["ID"][[3, 80]], third["NAME"][[3, 80]] = first["ID"][[100, 7]], first["NAME"][[100, 7]]
    third["ID"][50] = first["ID"][51]
    first["ID"][149], first["NAME"][149] = first["ID"][2], first["NAME"][2]
    write(first, files[0])
    write(third, files[2])
    store = run(files, tmp_path / "out", dask, order=order)
    again = (store.group["flags"][:] & int(Flag.DUPLICATE)) != 0
    found = np.stack([store.group["input_file"][:][again], store.group["input_row"][:][again]], axis=1)
    assert sorted(map(tuple, found.tolist())) == [(0, 149), (2, 3), (2, 80)]
    assert store.group.attrs["report"]["flags"]["DUPLICATE"] == 3
    write(rows(150, 1), files[0])  # what was doubled is no more: row 100's double changes its flag
    store = run(files, tmp_path / "out", dask, order=order)
    assert store.group.attrs["report"]["flags"]["DUPLICATE"] == 2
    tiny.assert_same(contents(run(files, tmp_path / "fresh", dask, order=order)), contents(store))


def test_without_identifiers_position_and_fluxes_tell(files, dask, tmp_path):
    table = Table.read(files[0])
    missing = np.isnan(np.asarray(table["RA"]))
    positions = np.flatnonzero(~missing)[:3]
    nowhere = np.flatnonzero(missing)[0]
    same_place = table[positions[2]]
    both = Table.read(files[0])
    both.add_row(table[positions[0]])  # 150: a duplicate
    both.add_row(table[nowhere])  # 151: cannot be told
    both.add_row(same_place)  # 152: the same position, another flux
    both["F_R"][152] *= 1.01
    write(both, files[0])
    store = run(files[0], tmp_path / "out", dask, survey=SURVEY.model_copy(update={"ids": ()}))
    again = (store.group["flags"][:] & int(Flag.DUPLICATE)) != 0
    assert np.flatnonzero(again).tolist() == [150]


def test_every_row_twice(files, dask, tmp_path):
    """The same content under two names: one set of runs, and half of the rows are duplicates."""
    copy = files[0].with_name("copy.fits")
    copy.write_bytes(files[0].read_bytes())
    store = run([files[0], copy], tmp_path / "out", dask)
    np.testing.assert_array_equal(
        (store.group["flags"][:] & int(Flag.DUPLICATE)) != 0, store.group["input_file"][:] == 1
    )


def test_cuts_are_counted_by_name_and_reported(dask, tmp_path, capsys):
    table = rows(100, 1)
    table["maskbits"] = np.zeros(100, int)
    table["maskbits"][:5], table["maskbits"][3:8] = 2, 1 << 10
    table["maskbits"][[3, 4]] = 2 | 1 << 10
    table["F_G"][50] = np.nan
    table["Z"][60] = -1
    cuts = {
        "bright": {"column": "MASKBITS", "bits": 2}, "bailed": {"column": "maskbits", "bits": 1 << 10},
        "faint": {"column": "F_R", "below": 0.0},
    }  # fmt: skip
    survey = Survey.model_validate({**SURVEY.model_dump(), "cuts": cuts})
    store = run(write(table, tmp_path / "a.fits"), tmp_path / "out", dask, survey=survey)
    report = store.group.attrs["report"]
    told = ("rows", "usable", "no_unit", "cuts", "missing", "not_detected", "no_position", "assumed_error", "flags")
    assert {name: report[name] for name in told} == {
        "missing": {"g": 1}, "not_detected": {}, "assumed_error": {}, "no_position": 3,
        "rows": 100, "usable": 98, "no_unit": {"F_G": 100, "F_R": 100, "F_I": 100},
        "cuts": {"bright": 5, "bailed": 5, "faint": 0},
        "flags": {"BAND_MISSING": 1, "TOO_FEW_BANDS": 1, "BAD_FLUX": 1, "BAD_ERROR": 1, "BAD_REDSHIFT": 1, "QUALITY_CUT": 8,
                  **{k: v for k, v in report["flags"].items() if k == "ABSURD_COLOUR"}},
    }  # fmt: skip
    assert np.flatnonzero(store.group["flags"][:] & int(Flag.QUALITY_CUT)).tolist() == list(range(8))
    said = capsys.readouterr().err
    assert "100 rows, 98 of them usable" in said
    assert "hit by the cuts: 5 bright, 5 bailed, 0 faint" in said


# -- memory -------------------------------------------------------------------------------------------------------------


def peak_memory(n_rows, folder):
    """Most bytes that each of two workers held while ``n_rows`` rows in 20 files were ingested, in pieces of 25,000."""
    rng = np.random.default_rng(1)
    folder.mkdir()
    for number in range(20):
        n = n_rows // 20
        table = {name: rng.lognormal(3, 1, n).astype(np.float32) for name in ("F_G", "F_R", "F_I")}
        table |= {f"E_{b}": 0.1 * table[f"F_{b}"] for b in "GRI"}
        table |= {"ID": np.arange(n) + n * number, "NAME": np.full(n, "x"), "Z": rng.random(n)}
        table |= {"RA": rng.uniform(0, 360, n), "DEC": rng.uniform(-90, 90, n)}
        pa.parquet.write_table(pa.table(table), folder / f"{number:02}.parquet", row_group_size=10_000)
    with dask_engine.client(DaskSettings(workers=2)) as client:
        settings = Ingest(rows_per_piece=25_000)
        source = str(folder / "*.parquet")
        where = tiny.location(folder / "out")
        store = ingest(source, SURVEY, where, 5_000, settings, DaskSettings(address=client.scheduler.address))
        assert store.n_rows == n_rows
        return max(client.run(lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024).values())


@pytest.mark.slow
def test_memory_is_flat_in_the_number_of_rows(tmp_path):
    few, many = (peak_memory(n, tmp_path / f"{n}") for n in (100_000, 1_000_000))
    print(f"peak of a worker: {few / 1e6:.0f} MB for 10^5 rows, {many / 1e6:.0f} MB for 10^6")
    assert many < 1.2 * few
