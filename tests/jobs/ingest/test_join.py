"""A joined table's columns are those of astropy's joins, by identifiers and on the sky, whatever the pieces."""

import re
import subprocess
import sys
from pathlib import Path

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from astropy.coordinates import SkyCoord, match_coordinates_sky
from astropy.io import fits
from astropy.table import Table, join
from distributed import LocalCluster
from paths import ROOT

from cluster import dask_engine
from cluster.settings import DaskSettings
from jobs.config.joining import Join
from jobs.config.run_file import RunFile
from jobs.config.sections import Ingest
from jobs.ingest.job import ingest
from sedflow_dist.photometry.cuts import Cut
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.photometry.survey import Survey
from storage_schemas import photometry

SURVEY = Survey(
    name="test", bands=("sdss2010-g", "sdss2010-r", "sdss2010-i"), labels=("g", "r", "i"), flux=("F_G", "F_R", "F_I"),
    error=("E_G", "E_R", "E_I"), error_kind="sigma", model_error=0.0, ids=("ID",),
)  # fmt: skip
N = 150


@pytest.fixture(scope="module")
def dask():
    kind = {"processes": False, "protocol": "tcp://", "host": "127.0.0.1", "dashboard_address": None}
    with LocalCluster(n_workers=2, threads_per_worker=1, **kind) as cluster:
        yield DaskSettings(address=cluster.scheduler_address)


def galaxies(ra, dec, seed=1):
    """Photometry without redshifts, at these positions."""
    rng = np.random.default_rng(seed)
    flux = rng.lognormal(3, 1, (len(ra), 3))
    return Table({
        "ID": rng.permutation(len(ra)).astype(np.int64) * 7 - 100, "RA": ra, "DEC": dec,
        **{f"F_{b}": flux[:, i] for i, b in enumerate("GRI")}, **{f"E_{b}": 0.1 * flux[:, i] for i, b in enumerate("GRI")},
    })  # fmt: skip


def everywhere(n, seed=1):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))


def redshifts(table, seed=2, share=0.8):
    """Redshifts of some of the galaxies, in another order, and of others."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(table))[: int(share * len(table))]
    ids = np.concatenate([table["ID"][chosen], np.arange(10**6, 10**6 + 20)])
    n = len(ids)
    return Table({"ID": ids, "Z": rng.uniform(0.01, 0.2, n), "ZERR": rng.uniform(1e-5, 1e-4, n),
                  "ZWARN": rng.integers(0, 8, n).astype(np.int64)})  # fmt: skip


def run(folder, dask, table, joined, survey=SURVEY, name="z.fits", rows_per_piece=10_000, out="out", **keys):
    """Ingest a table with another that is joined; both in many pieces."""
    source, other = folder / "p.fits", folder / name
    if isinstance(table, Table):
        table.write(source, overwrite=True)
    if joined is not None:
        joined.write(other, overwrite=True)
    settings = Ingest(rows_per_piece=rows_per_piece)
    return ingest(
        str(source), survey, tiny.location(folder / out), 50, settings, dask, None, Join(file=str(other), **keys)
    )


def found(store, name="redshift"):
    return np.asarray(store.group[name][:])


def has(store, flag):
    return (found(store, "flags") & int(flag)) != 0


def by_astropy(table, joined, column="Z", keys="ID"):
    """What astropy's left join gives each row of the table; NaN where nothing."""
    left = Table({**{key: table[key] for key in np.atleast_1d(keys)}, "row": np.arange(len(table))})
    both = join(left, joined, keys=keys, join_type="left")
    both.sort("row")
    return np.ma.filled(np.ma.asarray(both[column]).astype(float), np.nan)


# -- by identifiers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["z.fits", "z.csv", "z.parquet"])
def test_redshifts_joined_by_identifier_are_those_of_astropys_join(dask, tmp_path, name):
    table = galaxies(*everywhere(N))
    joined = redshifts(table)
    store = run(tmp_path, dask, table, joined, name=name, on="ID")
    wanted = by_astropy(table, joined)
    assert 0 < np.isnan(wanted).sum() < N
    np.testing.assert_array_equal(found(store), wanted.astype(np.float32))
    np.testing.assert_array_equal(has(store, Flag.NO_MATCH), np.isnan(wanted))
    np.testing.assert_array_equal(has(store, Flag.BAD_REDSHIFT), np.isnan(wanted))
    about = store.group.attrs["report"]
    assert about["join"]["matched"] == np.isfinite(wanted).sum() == about["usable"]
    assert about["flags"]["NO_MATCH"] == np.isnan(wanted).sum()


def test_the_joined_table_may_be_an_extension_of_another_file_or_of_the_same(dask, tmp_path):
    """As in DESI's redrock files, beside the fibres, or with the photometry in one file."""
    table = galaxies(*everywhere(N))
    joined = redshifts(table)
    both = [fits.BinTableHDU(one, name=name) for one, name in ((table, "PHOT"), (joined, "REDSHIFTS"))]
    fits.HDUList([fits.PrimaryHDU(), *both]).writeto(tmp_path / "p.fits")
    wanted = by_astropy(table, joined).astype(np.float32)
    for folder, source in (("one", "p.fits[PHOT]"), ("other", "q.fits")):
        table.write(tmp_path / "q.fits", overwrite=True)
        place = Join(file=f"{tmp_path}/p.fits[REDSHIFTS]", on="ID")
        store = ingest(
            f"{tmp_path}/{source}", SURVEY, tiny.location(tmp_path / folder), 50, Ingest(), dask, None, place
        )
        np.testing.assert_array_equal(found(store), wanted)


def test_pieces_change_nothing_of_a_join(dask, tmp_path):
    table = galaxies(*everywhere(N))
    joined = redshifts(table)
    store = run(tmp_path, dask, table, joined, rows_per_piece=40, on="ID")
    np.testing.assert_array_equal(found(store), by_astropy(table, joined).astype(np.float32))


def test_identifiers_may_be_several_and_named_otherwise(dask, tmp_path):
    table = galaxies(*everywhere(N))
    table["BRICK"], table["OBJ"] = np.arange(N) // 10, np.char.add("o", (np.arange(N) % 10).astype(str))
    other = redshifts(table)
    keys = Table({"ID": table["ID"], "BRICK": table["BRICK"], "OBJ": table["OBJ"]})
    both = join(keys, other, keys="ID")
    wanted = by_astropy(table, both["BRICK", "OBJ", "Z"], keys=["BRICK", "OBJ"])
    both["BRICK"].name, both["OBJ"].name = "brick_id", "obj_id"
    store = run(tmp_path, dask, table, both["brick_id", "obj_id", "Z"], on={"BRICK": "brick_id", "OBJ": "obj_id"})
    assert np.isfinite(wanted).sum() == int(0.8 * N)
    np.testing.assert_array_equal(found(store), wanted.astype(np.float32))


def test_integers_of_one_table_are_found_as_text_and_unsigned_in_the_other_exactly(dask, tmp_path):
    table = galaxies(*everywhere(N))
    table["ID"] = np.arange(N).astype(np.int64) + 2**62  # floats could not tell these apart
    joined = redshifts(table)
    wanted = by_astropy(table, joined)
    joined["ID"] = joined["ID"].astype(np.uint64)
    np.testing.assert_array_equal(found(run(tmp_path, dask, table, joined, on="ID")), wanted.astype(np.float32))
    joined["ID"] = joined["ID"].astype(str)
    store = run(tmp_path, dask, table, joined, out="text", on="ID")
    np.testing.assert_array_equal(found(store), wanted.astype(np.float32))


def test_an_identifier_that_is_missing_matches_nothing(dask, tmp_path):
    table = galaxies(*everywhere(N))
    table["NAME"] = table["ID"].astype(str)
    table["NAME"][:5] = ""
    joined = redshifts(table, share=1)
    joined["NAME"] = joined["ID"].astype(str)
    joined["NAME"][:7] = ""
    del joined["ID"]
    store = run(tmp_path, dask, table, joined, on="NAME")
    lost = np.isin(table["NAME"], joined["NAME"][joined["NAME"] != ""], invert=True)
    assert lost.sum() >= 7
    np.testing.assert_array_equal(has(store, Flag.NO_MATCH), lost)


def test_several_rows_of_one_identifier_are_refused_or_the_first_is_taken(dask, tmp_path):
    table = galaxies(*everywhere(N))
    joined = redshifts(table, share=1)
    joined["Z"][120], joined["ID"][120] = 0.5, joined["ID"][3]
    joined["ID"][-2:] = 10**7  # twice, but of no galaxy here
    with pytest.raises(ValueError, match=rf"several rows of .*z\.fits fit ID = {joined['ID'][3]} .*row 3 .*duplicates"):
        run(tmp_path, dask, table, joined, on="ID")
    store = run(tmp_path, dask, table, joined, on="ID", duplicates="first")
    wanted = by_astropy(table, joined[np.arange(len(joined)) != 120])
    np.testing.assert_array_equal(found(store), wanted.astype(np.float32))
    assert store.group.attrs["report"]["join"]["several"] == 1
    assert "first" in store.group.attrs["report"]["join"]["rule"]


def test_bits_of_a_joined_column_are_cut_on_and_identifiers_may_come_from_there(dask, tmp_path):
    table = galaxies(*everywhere(N))
    joined = redshifts(table, share=1)
    joined["SPECID"] = joined["ID"].astype(np.uint64) + np.uint64(2**63)
    survey = SURVEY.model_copy(update={"ids": ("ID", "SPECID"), "cuts": {"warned": Cut(column="ZWARN", bits=4)}})
    columns = ("Z", "ZWARN", "SPECID")
    store = run(tmp_path, dask, table, joined, survey, on="ID", columns=columns)
    order = np.argsort(joined["ID"])
    mine = order[np.searchsorted(joined["ID"], table["ID"], sorter=order)]
    np.testing.assert_array_equal(has(store, Flag.QUALITY_CUT), (joined["ZWARN"][mine] & 4) != 0)
    np.testing.assert_array_equal(store.group["ids/SPECID"][:], joined["SPECID"][mine])
    assert photometry.ids(store) == {"ID": "int64", "SPECID": "uint64"}


def test_a_column_that_both_have_is_refused_until_it_has_a_name_of_its_own(dask, tmp_path):
    table = galaxies(*everywhere(N))
    table["Z"] = np.full(N, 0.05)
    joined = redshifts(table)
    with pytest.raises(ValueError, match=r"p\.fits has Z itself.*z_joined"):
        run(tmp_path, dask, table, joined, on="ID")
    survey = SURVEY.model_copy(update={"redshift": "Z_SPEC"})
    store = run(tmp_path, dask, table, joined, survey, on="ID", columns={"Z_SPEC": "Z"})
    np.testing.assert_array_equal(found(store), by_astropy(table, joined).astype(np.float32))


@pytest.mark.parametrize(
    ("own", "joined_as", "redshift", "message"),
    [
        ("Z", "z", "Z", r"p\.fits has Z itself, and the joined table .* z as well.*z_joined"),
        ("zBest", "ZBEST", "zbest", "may be zBest or ZBEST"),
    ],
)
def test_a_joined_column_in_whose_place_one_in_another_case_would_be_read_is_refused(
    dask, tmp_path, own, joined_as, redshift, message
):
    table = galaxies(*everywhere(N))
    table[own] = np.full(N, 1.5)
    joined = redshifts(table)
    joined["Z"].name = joined_as
    survey = SURVEY.model_copy(update={"redshift": redshift})
    with pytest.raises(ValueError, match=message):
        run(tmp_path, dask, table, joined, survey, on="ID", columns=(joined_as,))
    survey = SURVEY.model_copy(update={"redshift": joined_as})  # as it is written, it is the joined one
    store = run(tmp_path, dask, table, joined, survey, on="ID", columns=(joined_as,))
    np.testing.assert_array_equal(found(store), by_astropy(table, joined, joined_as).astype(np.float32))


def test_a_flux_that_differs_in_case_from_the_joined_redshift_stays_one(dask, tmp_path):
    table = galaxies(*everywhere(N))
    table["F_I"].name = "z"
    survey = SURVEY.model_copy(update={"flux": ("F_G", "F_R", "z")})
    joined = redshifts(table)
    store = run(tmp_path, dask, table, joined, survey, on="ID")
    np.testing.assert_array_equal(found(store), by_astropy(table, joined).astype(np.float32))
    np.testing.assert_allclose(store.group["flux"][:, 2], table["z"], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "keys", "message"),
    [
        ({}, {"on": "TARGETID"}, r"lacks TARGETID"),
        ({}, {"on": "ID", "columns": ("ZPHOT",)}, "the survey test takes none.*redshift: NAME"),
        ({}, {"on": "ID", "columns": ("Z", "ZPHOT")}, r"z\.fits lacks ZPHOT"),
        ({"ID": np.float64}, {"on": "ID"}, "identifier ID is float64"),
        ({}, {"within": "1 arcsec"}, r"z\.fits lacks ra"),
        ({"Z": "km/s"}, {"on": "ID"}, "km"),
    ],
)
def test_what_cannot_be_joined_is_said_before_anything_is_read(dask, tmp_path, change, keys, message):
    table = galaxies(*everywhere(N))
    joined = redshifts(table)
    for name, kind in change.items():
        if isinstance(kind, str):
            joined[name].unit = kind
        else:
            joined[name] = joined[name].astype(kind)
    with pytest.raises(ValueError, match=message):
        run(tmp_path, dask, table, joined, **keys)


def test_another_content_of_the_joined_table_is_taken_in_and_the_same_costs_nothing(dask, tmp_path, capsys):
    table = galaxies(*everywhere(N))
    joined = redshifts(table)
    first = run(tmp_path, dask, table, joined, on="ID")
    digests = first.digests()
    capsys.readouterr()
    again = run(tmp_path, dask, None, joined, on="ID")
    assert "there already" in "".join(capsys.readouterr())
    np.testing.assert_array_equal(again.digests(), digests)
    row = int(np.flatnonzero(np.asarray(table["ID"]) == joined["ID"][0])[0])
    joined["Z"][0] = 0.123
    changed = run(tmp_path, dask, None, joined, on="ID")
    assert found(changed)[row] == np.float32(0.123)
    np.testing.assert_array_equal(np.flatnonzero(changed.digests() != digests), [row // 50])
    assert not changed.missing()


def test_several_joined_files_are_one_table(dask, tmp_path):
    table = galaxies(*everywhere(N))
    joined = redshifts(table)
    table.write(tmp_path / "p.fits")
    joined[:60].write(tmp_path / "z1.fits")
    joined[60:].write(tmp_path / "z2.parquet")
    store = ingest(
        str(tmp_path / "p.fits"), SURVEY, tiny.location(tmp_path / "out"), 50, Ingest(), dask, None,
        Join(file=str(tmp_path / "z?.*"), on="ID"),
    )  # fmt: skip
    np.testing.assert_array_equal(found(store), by_astropy(table, joined).astype(np.float32))


@pytest.mark.parametrize("name", ["z.fits", "z.parquet"])
def test_codes_of_a_joined_column_are_found_in_its_own_type(dask, tmp_path, name):
    """-99.9 in float32 is -99.90000153, which no float64 made of it tells."""
    table = galaxies(*everywhere(N))
    joined = redshifts(table, share=1)
    joined["F_I"] = np.where(joined["ID"] % 3 == 0, np.float32(-99.9), np.float32(2.0))
    table.remove_column("F_I")
    survey = SURVEY.model_copy(update={"not_observed": (-99.9,)})
    store = run(tmp_path, dask, table, joined, survey, name=name, on="ID", columns=("Z", "F_I"))
    np.testing.assert_array_equal(store.group["mask"][:, 2], table["ID"] % 3 != 0)


def test_a_joined_column_is_float32_in_all_files_or_in_none(dask, tmp_path):
    table = galaxies(*everywhere(N))
    joined = redshifts(table)
    for number, kind in enumerate(("f4", "f8")):
        joined["Z"] = joined["Z"].astype(kind)
        joined[number::2].write(tmp_path / f"z{number}.fits")
    with pytest.raises(ValueError, match=r"joined column Z is float32 in .*z0\.fits, float64 in .*z1\.fits"):
        run(tmp_path, dask, table, None, name="z?.fits", on="ID")


def test_joined_vectors_are_of_one_length_in_all_pieces(dask, tmp_path):
    table = galaxies(*everywhere(N))
    for number, length in enumerate((3, 4)):
        ids = np.asarray(table["ID"][number::2])
        Table({"ID": ids, "P": np.full((len(ids), length), 0.1)}).write(tmp_path / f"z{number}.fits")
    with pytest.raises(ValueError, match=r"z1\.fits: the number of entries per row of P is 4, and 3 in .*z0\.fits"):
        run(tmp_path, dask, table, None, name="z?.fits", on="ID", columns={"Z": "P[1]"})


def test_a_joined_column_that_is_null_in_one_file_has_the_type_of_the_others(dask, tmp_path):
    table = galaxies(*everywhere(N))
    joined = redshifts(table)
    joined[:60].write(tmp_path / "z1.parquet")
    nulls = {"ID": np.asarray(joined["ID"][60:]), "Z": pa.nulls(len(joined) - 60)}
    pq.write_table(pa.table(nulls), tmp_path / "z0.parquet")
    store = run(tmp_path, dask, table, None, name="z?.parquet", on="ID")
    np.testing.assert_array_equal(found(store), by_astropy(table, joined[:60]).astype(np.float32))


# -- on the sky -----------------------------------------------------------------------------------------------------------


def on_the_sky(table, joined, radius):
    """What astropy's nearest neighbour gives each row; NaN where it is further than ``radius``."""
    here, there = SkyCoord(table["RA"], table["DEC"], unit="deg"), SkyCoord(joined["ra"], joined["dec"], unit="deg")
    nearest, apart, _ = match_coordinates_sky(here, there)
    return np.where(apart <= radius, np.asarray(joined["Z"])[nearest], np.nan)


def shifted(ra, dec, most, seed):
    """Positions up to ``most`` [deg] away, in all directions."""
    rng = np.random.default_rng(seed)
    there = SkyCoord(ra, dec, unit="deg").directional_offset_by(
        rng.uniform(0, 360, len(ra)) * u.deg, most * rng.uniform(0, 1, len(ra)) * u.deg
    )
    return there.ra.deg, there.dec.deg


def edges():
    """Positions at RA 0 and 360, at both poles, where base pixels of HEALPix meet, and along their borders."""
    rng = np.random.default_rng(4)
    near = rng.normal(0, 1e-3, (6, 60))
    ra = np.concatenate(
        [near[0], rng.uniform(0, 360, 120), 45 + near[1], 90 + near[2], 90 * rng.integers(0, 4, 60) + near[3]]
    )
    dec = np.concatenate([near[4], 90 - np.abs(near[5]), np.abs(near[5]) - 90, np.degrees(np.arcsin(2 / 3)) + near[4],
                          near[5], rng.uniform(-90, 90, 60)])  # fmt: skip
    return np.mod(ra, 360), dec


@pytest.mark.parametrize("radius", [1.0, 10.0, 1800.0])
@pytest.mark.parametrize("where", [edges, lambda: everywhere(N)], ids=["edges", "everywhere"])
def test_redshifts_joined_by_position_are_those_of_match_to_catalog_sky(dask, tmp_path, where, radius):
    ra, dec = where()
    table = galaxies(ra, dec)
    other = [shifted(ra, dec, 1.5 * radius / 3600, seed) for seed in (5, 6)]  # about half of each too far
    ra2, dec2 = (np.concatenate(values) for values in zip(*other, strict=True))
    joined = Table({"ra": ra2, "dec": dec2, "Z": np.random.default_rng(7).uniform(0.01, 0.2, len(ra2))})
    pieces = 100 if radius == 10 else 10_000
    store = run(tmp_path, dask, table, joined, rows_per_piece=pieces, within=f"{radius} arcsec")
    wanted = on_the_sky(table, joined, radius * u.arcsec)
    assert len(ra) // 2 < np.isfinite(wanted).sum() < len(ra) or radius > 100
    np.testing.assert_array_equal(found(store), wanted.astype(np.float32))
    np.testing.assert_array_equal(has(store, Flag.NO_MATCH), np.isnan(wanted))


def test_positions_may_be_in_radians_and_those_that_are_none_match_nothing(dask, tmp_path):
    table = galaxies(*everywhere(N))
    table["RA"][:3] = np.nan
    ra, dec = everywhere(N)
    joined = Table({"x": np.radians(ra) * u.rad, "y": np.radians(dec) * u.rad, "Z": np.linspace(0.01, 0.2, N)})
    joined["y"][10] = np.nan
    store = run(tmp_path, dask, table, joined, within="0.1 arcsec", positions=("x", "y"))
    lost = np.isin(np.arange(N), (0, 1, 2, 10))
    np.testing.assert_array_equal(found(store), np.where(lost, np.nan, joined["Z"]).astype(np.float32))


def test_of_equally_near_rows_one_is_taken_only_if_that_is_said(dask, tmp_path):
    ra, dec = everywhere(N)
    table = galaxies(ra, dec)
    joined = Table({"ra": [*ra, ra[7]], "dec": [*dec, dec[7]], "Z": np.linspace(0.01, 0.2, N + 1)})
    with pytest.raises(ValueError, match=r"fit the position .* equally well"):
        run(tmp_path, dask, table, joined, within="1 arcsec")
    for pieces in (80, 1000):
        store = run(tmp_path, dask, table, joined, within="1 arcsec", duplicates="first", rows_per_piece=pieces)
        np.testing.assert_array_equal(found(store), joined["Z"][:N].astype(np.float32))
        assert store.group.attrs["report"]["join"]["several"] == 1


# -- settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "`on` identifying columns, or `within`"),
        ({"on": "A", "within": "1 arcsec"}, "`on` identifying columns, or `within`"),
        ({"within": "1.0"}, "an angle has a unit"),
        ({"within": "2 deg"}, "at most 1 deg"),
        ({"within": "-1 arcsec"}, "more than 0"),
        ({"on": "A", "columns": ["Z", "Z"]}, "twice"),
        ({"on": "A", "file": "zip://a::s3://b/c"}, "cannot read"),
    ],
)
def test_a_join_that_says_nothing_clear_is_refused_when_the_run_file_is_read(keys, message):
    with pytest.raises(ValueError, match=message):
        RunFile.model_validate({"name": "x", "root": "/r", "input": "p.fits", "join": {"file": "z.fits", **keys}})


def test_the_command_line_says_a_join_as_a_run_file_does():
    assert Join.parse("a,b.fits,on=TARGETID,columns=Z+ZWARN") == Join(
        file="a,b.fits", on=("TARGETID",), columns=("Z", "ZWARN")
    )
    assert Join.parse("z.csv,within=1.0 arcsec,positions=r+d,columns=z_spec:Z,duplicates=first") == Join(
        file="z.csv", within="1.0 arcsec", positions=("r", "d"), columns={"z_spec": "Z"}, duplicates="first"
    )


def test_a_command_joins_as_a_run_file_does(tmp_path, dask):
    table = galaxies(*everywhere(N))
    joined = redshifts(table)
    store = run(tmp_path, dask, table, joined, on="ID")
    (tmp_path / "survey.yaml").write_text(
        f"name: x\nroot: {tmp_path}\ninput: p.fits\nsurvey: {SURVEY.model_dump_json(exclude_defaults=True)}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "ingest", str(tmp_path / "p.fits"), "--survey", str(tmp_path / "survey.yaml"),
         "--join", f"{tmp_path}/z.fits,on=ID", "--out", str(tmp_path / "cli"), "--rows-per-chunk", "50"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{int(0.8 * N)} of {N} rows have a match" in done.stdout + done.stderr
    np.testing.assert_array_equal(photometry.open(tiny.location(tmp_path / "cli")).digests(), store.digests())


# -- scale ----------------------------------------------------------------------------------------------------------------


def joined_peak(n, folder, keys):
    """Join ``n`` redshifts to as many galaxies in pieces of 50,000, compare them with astropy's, and return the most bytes that
    each of two workers held."""
    folder.mkdir()
    ra, dec = everywhere(n)
    table, rng = galaxies(ra, dec), np.random.default_rng(3)
    rows = rng.permutation(n)[: n - n // 10]
    moved = dec[rows] - 1e-4 * np.sign(dec[rows])
    joined = Table({"ID": table["ID"][rows], "ra": ra[rows], "dec": moved, "Z": rng.random(len(rows))})
    table.write(folder / "p.fits")
    joined.write(folder / "z.fits")
    with dask_engine.client(DaskSettings(workers=2)) as client:
        store = ingest(
            str(folder / "p.fits"), SURVEY, tiny.location(folder / "out"), 10_000, Ingest(rows_per_piece=50_000),
            DaskSettings(address=client.scheduler.address), None, Join(file=str(folder / "z.fits"), **keys),
        )  # fmt: skip
        # what getrusage says begins at the parent's
        status = client.run(lambda: Path("/proc/self/status").read_text()).values()
        most = max(int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) * 1024 for text in status)
    wanted = by_astropy(table, joined) if "on" in keys else on_the_sky(table, joined, 1 * u.arcsec)
    assert np.isfinite(wanted).sum() >= len(rows)
    np.testing.assert_array_equal(found(store), wanted.astype(np.float32))
    return most


@pytest.mark.slow
@pytest.mark.parametrize("keys", [{"on": "ID"}, {"within": "1 arcsec"}], ids=["identifiers", "positions"])
def test_a_million_redshifts_are_those_of_astropy_and_memory_is_that_of_a_few(tmp_path, keys):
    few, many = (joined_peak(n, tmp_path / f"{n}", keys) for n in (100_000, 1_000_000))
    print(f"peak of a worker: {few / 1e6:.0f} MB for 10^5 rows, {many / 1e6:.0f} MB for 10^6")
    assert many < 1.25 * few
