"""Where a table lacks what a survey names, the error says which of its columns looks like it; nothing is lost in silence."""

import numpy as np
import pytest
import tiny
import yaml
from astropy.table import Table

from jobs.config import shipped
from jobs.config.run_file import RunFile
from jobs.config.sections import Ingest
from jobs.ingest import column_names
from jobs.ingest.job import ingest
from sedflow_dist.photometry import surveys
from sedflow_dist.photometry.cuts import Cut
from sedflow_dist.photometry.flags import Flag

N = 30
BANDS = "ugriz"


def columns(**others):
    """A table of the survey sdss, but for what ``others`` say; None leaves a column out."""
    rng = np.random.default_rng(1)
    flux = rng.lognormal(4, 0.1, (N, 5))
    found = {
        "RA": rng.uniform(0, 360, N), "DEC": rng.uniform(-90, 90, N), "Z": np.full(N, 0.1), "MODELFLUX": flux,
        "MODELFLUX_IVAR": 100 / flux**2, "EXTINCTION": np.full((N, 5), 0.1), **others,
    }  # fmt: skip
    return {name: values for name, values in found.items() if values is not None}


def read(tmp_path, settings=None, survey="sdss", **others):
    path = tmp_path / "a.fits"
    Table(columns(**others)).write(path, overwrite=True)
    return ingest(path, surveys.get(survey), tiny.location(tmp_path / "store"), 20, settings)


@pytest.mark.parametrize(
    ("ra", "dec"),
    [("RA_1", "DEC_1"), ("ALPHA_J2000", "DELTA_J2000"), ("RAJ2000", "DEJ2000"), ("TARGET_RA", "TARGET_DEC"),
     ("raMean", "decMean"), ("X_WORLD", "Y_WORLD"), ("coord_ra", "coord_dec"), ("ra_x", "dec_x"), ("RA_ICRS", "DE_ICRS")],
)  # fmt: skip
def test_positions_under_other_names_are_never_lost(tmp_path, ra, dec):
    values = {ra: np.linspace(0, 300, N), dec: np.linspace(-60, 60, N)}
    with pytest.raises(ValueError, match=f"lacks RA, DEC.*{ra}, {dec} may be them.*--ra {ra} --dec {dec}"):
        read(tmp_path, RA=None, DEC=None, **values)
    store = read(tmp_path, Ingest(ra=ra, dec=dec), RA=None, DEC=None, **values)
    np.testing.assert_allclose(store.group["ra"][:], values[ra])
    np.testing.assert_allclose(store.group["dec"][:], values[dec])
    assert (store.group["healpix_29"][:] >= 0).all()


def test_a_declination_alone_under_another_name_is_asked_for_too(tmp_path):
    with pytest.raises(ValueError, match=r"lacks DEC, .*ra_gaia, dec_gaia may be them"):
        read(tmp_path, DEC=None, ra_gaia=np.zeros(N), dec_gaia=np.zeros(N))


def test_positions_that_are_codes_are_counted_and_found_by_no_cone(tmp_path):
    ra, dec = np.linspace(0, 300, N), np.linspace(-60, 60, N)
    ra[0], ra[1], dec[2], dec[3] = -999, 1000, -999, np.nan
    store = read(tmp_path, RA=ra, DEC=dec)
    assert store.group.attrs["report"]["no_position"] == 4
    assert np.flatnonzero(store.group["healpix_29"][:] < 0).tolist() == [0, 1, 2, 3]
    assert np.isnan(store.group["ra"][:3]).all() & np.isnan(store.group["dec"][:3]).all()


def test_a_table_without_any_positions_is_taken_and_says_so(tmp_path, capfd):
    store = read(tmp_path, RA=None, DEC=None, RA_ERR=np.ones(N), DEC_ERR=np.ones(N))
    assert store.group.attrs["report"]["no_position"] == N
    assert f"no position of {N} rows: RA and DEC are not there" in capfd.readouterr().err


@pytest.mark.parametrize(
    "name", ["ZSPEC", "z_phot", "REDSHIFT", "zBest", "photo_z", "Z_HELIO", "lp_zBEST", "z_spec_final"]
)
def test_a_redshift_under_another_name_is_proposed(tmp_path, name):
    with pytest.raises(
        ValueError, match=rf"lacks Z; its columns are .*{name} may be the redshift: .*--redshift {name}"
    ):
        read(tmp_path, Z=None, **{name: np.full(N, 0.1)})


def test_a_table_without_redshifts_says_how_to_join_them(tmp_path):
    with pytest.raises(ValueError, match=r"lacks Z; .*None looks like a redshift.*--redshift COLUMN.*join them"):
        read(tmp_path, Z=None, Z_ERR=np.ones(N), FLUX_Z=np.ones(N), ZWARN=np.zeros(N, int))


def test_a_table_of_another_built_in_survey_says_of_which(tmp_path):
    table = {"NMGY": np.ones((N, 7)), "NMGY_IVAR": np.ones((N, 7)), "NSAID": np.arange(N)}
    with pytest.raises(ValueError, match=r"lacks MODELFLUX\[0\].* those of the survey nsa: --survey nsa"):
        read(tmp_path, MODELFLUX=None, MODELFLUX_IVAR=None, **table)


def test_a_table_of_no_built_in_survey_is_to_be_inspected(tmp_path):
    with pytest.raises(ValueError, match=r"lacks MODELFLUX\[0\].*`sedflow inspect`"):
        read(tmp_path, MODELFLUX=None)


def test_names_of_magnitudes_and_errors_are_no_redshifts():
    names = [
        "z",
        "r",
        "i",
        "mag_z",
        "FLUX_Z",
        "zErr",
        "Z_ERR",
        "ZWARN",
        "z_l68",
        "psfMag_z",
        "modelMag_z",
        "z_flux",
        "e_z",
    ]
    assert column_names.redshifts(names) == []
    assert column_names.redshifts([*names, "Z"]) == ["Z"]


def test_photometry_of_other_bands_says_what_would_serve():
    assert "The model sdss" in shipped.serving(surveys.get("nsa").bands)
    assert "The model desi" in shipped.serving(surveys.get("desi-legacy").bands)
    assert "No model that comes along" in shipped.serving(("galex-fuv", "galex-nuv", "wise2010-W1"))


# -- stars ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "classes"),
    [(["GALAXY", "STAR ", "qso"] * 10, ("STAR", "QSO")), ([3, 6, 6] * 10, (6,)), ([3.0, 6.0, 6.0] * 10, ("6",)),
     ([b"G", b"S", b"Q"] * 10, ("s", "q"))],
)  # fmt: skip
def test_stars_and_quasars_by_class_are_flagged_and_counted(tmp_path, values, classes):
    cut = Cut(column="CLASS", classes=classes, not_a_galaxy=True)
    survey = surveys.get("sdss").model_copy(update={"cuts": {"stars": cut}})
    store = read(tmp_path, survey=survey, CLASS=np.array(values))
    flags = store.group["flags"][:]
    np.testing.assert_array_equal((flags & int(Flag.NOT_A_GALAXY)) != 0, np.arange(N) % 3 != 0)
    assert not (flags & int(Flag.QUALITY_CUT)).any()
    assert store.group.attrs["report"]["cuts"] == {"stars": 20}


def test_a_class_in_words_of_a_column_of_numbers_is_refused(tmp_path):
    survey = surveys.get("sdss").model_copy(update={"cuts": {"stars": Cut(column="TYPE", classes=("STAR",))}})
    with pytest.raises(ValueError, match=r"classes \('STAR',\) of TYPE, which is int64 and no text"):
        read(tmp_path, survey=survey, TYPE=np.arange(N))


def test_a_cut_of_classes_and_limits_is_two_cuts():
    with pytest.raises(ValueError, match="cut on TYPE has classes, and bits or limits as well"):
        Cut(column="TYPE", classes=(6,), above=1)


# -- what is wrong with a run file ------------------------------------------------------------------------------------


INSIDES = (
    "Survey",
    "str",
    "tuple[",
    "dictionary",
    "instance",
    "Value error",
    "Field required",
    "pydantic",
    "function-",
    "type=",
)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"survey": {"name": "mine"}}, "survey.bands: is needed"),
        ({"survey": 7}, "survey: "),
        ({"survey": {**surveys.get("sdss").model_dump(mode="json"), "labels": ["u"]}}, "labels has 1 entries for 5 bands"),
        ({"survey": {**surveys.get("sdss").model_dump(mode="json"), "fluxes": []}}, "survey.fluxes: "),
        ({"survey": {**surveys.get("sdss").model_dump(mode="json"), "cuts": {"Star": {"column": "c"}}}}, "survey.cuts.Star: "),
        ({"input": 3}, "input: "),
        ({"model": {"prior": {"tau_ism": "wide"}}}, "model.prior.tau_ism: "),
        ({"inference": {"routing": "none"}}, "inference.routing: a section of keys is expected"),
        ({"inference": {"routing": {"walkers": 23}}}, "walkers: 23 is odd"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_run_file_is_said_without_the_insides_of_a_library(tmp_path, section, said):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"name": "a", "root": str(tmp_path), "input": "a.fits", **section}))
    with pytest.raises(ValueError, match="is not a valid run file") as error:
        RunFile.load(path)
    text = str(error.value).replace(str(path), "")
    assert said in text and len(text.splitlines()) < 12
    for inside in INSIDES:
        assert inside not in text.replace("valid string", "").replace("in store", "").replace("survey sdss", ""), text
