"""DESI's tables: footprints told by photsys or release, in any case of letters, and cuts by columns that not all tables have."""

import sys

import numpy as np
import pytest
import tiny
from astropy.table import Table
from paths import ROOT

from jobs.config.joining import Join
from jobs.config.run_file import RunFile
from jobs.config.sections import Ingest
from jobs.ingest.job import ingest
from jobs.observed import observed
from sedflow_dist.photometry import surveys
from sedflow_dist.photometry.flags import Flag
from storage_schemas import photometry

sys.path.insert(0, str(ROOT / "examples"))
import legacy_table

SURVEY = surveys.get("desi-legacy")
N = 200
NORTH, SOUTH = (list(SURVEY.footprints[part].bands) for part in ("north", "south"))


@pytest.fixture(scope="module")
def table():
    return legacy_table.table(N, seed=3)


def stored(table, folder, **joined):
    """Ingest a table; return the store and its arrays by name."""
    table.write(folder / "table.fits")
    store = ingest(folder / "table.fits", SURVEY, tiny.location(folder / "store"), 100, **joined)
    return store, {name: np.asarray(store.group[name][:]) for name in photometry.DATA}


def places(names):
    return [SURVEY.labels.index(name) for name in names]


def test_bands_are_those_of_the_footprint(table, tmp_path):
    store, found = stored(table, tmp_path)
    north = np.asarray(table["PHOTSYS"]) == "N"
    assert 0 < north.sum() < N
    for own, other, rows in ((NORTH, SOUTH, north), (SOUTH, NORTH, ~north)):
        assert found["mask"][np.ix_(rows, places(own))].all() and not found["mask"][np.ix_(rows, places(other))].any()
        true = np.asarray(table["FLUX_R"] / table["MW_TRANSMISSION_R"])[rows]
        np.testing.assert_allclose(found["flux"][rows, SURVEY.labels.index(own[1])], true, rtol=1e-5)
    assert not (found["flags"] & int(Flag.BAND_MISSING)).any()
    report = store.group.attrs["report"]
    colours = {line["name"] for line in report["light"] if "-" in line["name"]}
    assert {"g_north-r_north", "g-r", "z-w1", "z_north-w1"} < colours and "z_north-g" not in colours
    assert report["cuts"] == dict.fromkeys(SURVEY.cuts, 0) and report["not_cut"] == {}


def test_release_tells_where_photsys_is_not_there_and_letters_may_be_small(table, tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    small = table.copy()
    small.remove_column("PHOTSYS")
    small.rename_columns(small.colnames, [name.lower() for name in small.colnames])
    small.rename_column("z", "Z")
    (_, one), (_, other) = stored(table, tmp_path / "a"), stored(small, tmp_path / "b")
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_a_row_of_no_footprint_has_no_answer(table, tmp_path):
    odd = table.copy()
    odd["PHOTSYS"] = np.where(
        np.arange(N) < 3, "", table["PHOTSYS"]
    )  # as of targets of DESI outside the Legacy Surveys
    _, found = stored(odd, tmp_path)
    assert (found["flags"][:3] & int(Flag.TOO_FEW_BANDS)).all() and not (
        found["flags"][3:] & int(Flag.TOO_FEW_BANDS)
    ).any()
    assert found["mask"][:3].sum() == 6  # W1 and W2


def test_redshifts_that_are_not_to_be_trusted_are_cut_by_name(table, tmp_path):
    bad = table.copy()
    bad["ZWARN"][0], bad["DELTACHI2"][1] = 4, 39.9
    bad["ZERR"][2:4] = np.array([5.1e-4, 4.9e-4]) * (1 + table["Z"][2:4])
    bad["SPECTYPE"] = np.where(np.arange(N) == 5, "STAR", np.where(np.arange(N) == 6, "QSO", "GALAXY"))
    store, found = stored(bad, tmp_path)
    cuts = store.group.attrs["report"]["cuts"]
    assert {name: n for name, n in cuts.items() if n} == {
        "zwarn": 1, "deltachi2": 1, "redshift_error": 1, "star_or_qso": 2,
    }  # fmt: skip
    assert np.flatnonzero(found["flags"] & int(Flag.QUALITY_CUT)).tolist() == [0, 1, 2]
    assert np.flatnonzero(found["flags"] & int(Flag.NOT_A_GALAXY)).tolist() == [5, 6]


def test_a_table_without_desis_columns_is_taken_and_the_report_says_so(table, tmp_path, capsys):
    plain = table.copy()
    plain.remove_columns(["ZWARN", "ZERR", "SPECTYPE", "DELTACHI2", "PHOTSYS"])
    store, _ = stored(plain, tmp_path)
    assert store.group.attrs["report"]["not_cut"] == dict.fromkeys(("zwarn", "zerr", "spectype", "deltachi2"), N)
    assert "no cuts were made by columns that the input lacks" in capsys.readouterr().err


def test_errors_of_redshifts_are_kept_and_counted_by_what_they_are(table, tmp_path, capsys):
    odd = table.copy()
    odd["ZERR"][:4] = [0.01 * odd["Z"][0], np.nan, -1.0, np.inf]
    store, found = stored(odd, tmp_path)
    sigma = np.asarray(store.group["redshift_sigma"][:])
    np.testing.assert_allclose(sigma, odd["ZERR"], rtol=1e-6)
    assert np.flatnonzero(found["flags"] & int(Flag.BAD_REDSHIFT)).tolist() == [2, 3]
    above = int(np.sum(np.asarray(odd["ZERR"][4:]) > 0.005 * odd["Z"][4:]))
    assert store.group.attrs["report"]["redshift_error"] == {"uncertain": 1 + above, "unstated": 1, "impossible": 2}
    assert "errors of redshifts are those of ZERR" in capsys.readouterr().err
    seen = observed({**found, "redshift_sigma": sigma})
    assert not seen.has_exact_redshift[0] and seen.has_exact_redshift[1] and not seen.has_exact_redshift[2:4].any()


def test_a_store_without_errors_of_redshifts_has_no_array_of_them_and_settings_that_do_not_name_them(table, tmp_path):
    plain = table.copy()
    plain.remove_column("ZERR")
    store, _ = stored(plain, tmp_path)
    assert not photometry.has_redshift_errors(store) and "redshift_error" not in store.group.attrs["report"]
    assert "redshift_error" not in store.group.attrs["settings"]["survey"]


@pytest.mark.parametrize(
    ("change", "named", "said"),
    [
        (
            lambda t: setattr(t["ZERR"], "unit", "km / s"),
            None,
            r"column ZERR is in km s-1.*expects a number without a unit",
        ),
        (
            lambda t: t.add_column(t["ZERR"], name="REDSHIFT_ERR"),
            None,
            r"ZERR, REDSHIFT_ERR may be the error of the redshift Z",
        ),
        (lambda t: None, "Z_SIGMA", r"lacks Z_SIGMA.*named as the error of the redshift"),
    ],
)
def test_an_error_of_the_redshift_that_is_none_or_may_be_several_is_refused(table, tmp_path, change, named, said):
    odd = table[:20].copy()
    change(odd)
    with pytest.raises(ValueError, match=said):
        stored(odd, tmp_path, settings=Ingest(redshift_error=named))


def test_redshifts_of_zall_are_joined_by_targetid_with_what_cuts_need(table, tmp_path):
    """Photometry without redshifts, and DESI's table of them in another order, in which some targets are not."""
    of_desi = ["TARGETID", "Z", "ZERR", "ZWARN", "DELTACHI2", "SPECTYPE"]
    zall = table[of_desi][::-1][: N - 5]
    zall["ZWARN"][zall["TARGETID"] == table["TARGETID"][10]] = 4
    zall.write(tmp_path / "zall-pix.fits")
    photometry_alone = table.copy()
    photometry_alone.remove_columns(of_desi[1:])
    join = Join(file=str(tmp_path / "zall-pix.fits"), on="TARGETID", columns=tuple(of_desi[1:]))
    store, found = stored(photometry_alone, tmp_path, joining=join)
    rows = np.asarray(store.group["input_row"][:])
    np.testing.assert_allclose(found["redshift"][5:], table["Z"][rows][5:], rtol=1e-6)
    assert ((found["flags"] & int(Flag.NO_MATCH)) != 0).tolist() == [True] * 5 + [False] * (N - 5)
    assert np.flatnonzero(found["flags"] & int(Flag.QUALITY_CUT)).tolist() == [10]
    np.testing.assert_allclose(store.group["redshift_sigma"][:][5:], table["ZERR"][rows][5:], rtol=1e-6)
    assert store.group.attrs["report"]["not_cut"] == {}


def test_files_that_tell_footprints_by_other_columns_are_refused(table, tmp_path):
    table.write(tmp_path / "a.fits")
    other = table.copy()
    other.remove_column("PHOTSYS")
    other.write(tmp_path / "b.fits")
    with pytest.raises(ValueError, match="the column that tells footprints apart is"):
        ingest(str(tmp_path / "*.fits"), SURVEY, tiny.location(tmp_path / "store"), 100)


def test_the_table_is_what_the_run_file_and_the_survey_say(table):
    run = RunFile.load(ROOT / "jobs" / "runs" / "desi.yaml")
    assert set(run.training.depth) == set(SURVEY.labels)
    assert (
        22.5 - 2.5 * np.log10(table["FLUX_R"] / table["MW_TRANSMISSION_R"])
    ).max() < 20.175 + 0.3  # selected before noise
    assert (
        isinstance(table, Table)
        and run.model.redshift[0] < table["Z"].min()
        and table["Z"].max() < run.model.redshift[1]
    )
