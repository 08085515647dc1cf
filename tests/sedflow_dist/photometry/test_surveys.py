"""Raw columns to calibrated photometry: corrections, flags for every kind of bad value, and no row dropped."""

import warnings

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from jobs.config import run_file
from sedflow_dist.photometry import surveys
from sedflow_dist.photometry.calibrate import calibrate
from sedflow_dist.photometry.cuts import Cut
from sedflow_dist.photometry.flags import DESCRIPTIONS, REASONS, Flag, names
from sedflow_dist.photometry.survey import Survey
from sedflow_dist.photometry.surveys import SURVEYS, healpix

SDSS, NSA = SURVEYS["sdss"], SURVEYS["nsa"]
FLUX = np.array([[10.0, 30.0, 50.0, 70.0, 80.0]])
IVAR = np.full((1, 5), 4.0)
NO_EXTINCTION = np.zeros((1, 5))
Z = np.array([0.1])
MAG = 0.4 * np.log(10)


def survey(**changed):
    """Three bands without any correction."""
    values = {
        "name": "test", "bands": ("sdss2010-g", "sdss2010-r", "sdss2010-i"), "labels": ("g", "r", "i"),
        "flux": ("F[0]", "F[1]", "F[2]"), "error": ("E_G", "E_R", "E_I"), "error_kind": "sigma",
        "model_error": 0.0,
    }  # fmt: skip
    return Survey(**{**values, **changed})


def one(value, band=1, n=5, base=FLUX):
    """``base`` with one band's value replaced."""
    changed = np.array(base, float)
    changed[0, band] = value
    return changed


def flags_of(photometry):
    return set(names(int(photometry.flags[0])))


# -- corrections ------------------------------------------------------------------------------------------------------


def test_nothing_is_done_to_calibrated_catalogs():
    found = calibrate(NSA, FLUX, IVAR, None, Z)
    np.testing.assert_allclose(found.photometry.flux, FLUX, rtol=1e-6)
    np.testing.assert_allclose(found.photometry.sigma, np.hypot(0.5, NSA.model_error * FLUX), rtol=1e-6)
    assert found.photometry.mask.all()
    assert found.flags.tolist() == [0]
    assert (
        found.photometry.flux.dtype == found.photometry.sigma.dtype == found.photometry.redshift.dtype == torch.float32
    )


def test_sdss_offsets_and_floors():
    """Blanton & Roweis 2007: magnitudes plus the offset are AB; floors and the models' error are added in quadrature."""
    found = calibrate(SDSS, FLUX, IVAR, NO_EXTINCTION, Z)
    offset = np.array([-0.036, 0.012, 0.010, 0.028, 0.040])
    floor = np.array([0.05, 0.02, 0.02, 0.02, 0.03])
    magnitude = 22.5 - 2.5 * np.log10(FLUX) + offset
    np.testing.assert_allclose(22.5 - 2.5 * np.log10(found.photometry.flux), magnitude, atol=1e-5)
    sigma_magnitude = found.photometry.sigma / found.photometry.flux / MAG
    np.testing.assert_allclose(sigma_magnitude**2, (0.5 / FLUX / MAG) ** 2 + floor**2 + (0.025 / MAG) ** 2, rtol=1e-5)


def test_extinction_in_magnitudes_brightens_and_transmission_divides():
    magnitudes = np.array([[0.5, 0.3, 0.1]])
    args = FLUX[:, :3], np.full((1, 3), 0.5)
    found = calibrate(survey(extinction=("A", "B", "C")), *args, magnitudes, Z)
    np.testing.assert_allclose(found.photometry.flux, FLUX[:, :3] * 10 ** (0.4 * magnitudes), rtol=1e-6)
    np.testing.assert_allclose(found.photometry.sigma, 0.5 * 10 ** (0.4 * magnitudes), rtol=1e-6)
    transmission = survey(extinction=("A", "B", "C"), extinction_kind="transmission")
    same = calibrate(transmission, *args, 10 ** (-0.4 * magnitudes), Z)
    np.testing.assert_allclose(same.photometry.flux, found.photometry.flux, rtol=1e-6)


@pytest.mark.parametrize(("unit", "one_nanomaggy"), [("nanomaggy", 1.0), ("nJy", 3631.0), ("maggy", 1e-9)])
def test_fluxes_of_any_unit_become_nanomaggies(unit, one_nanomaggy):
    found = calibrate(survey(unit=unit), one_nanomaggy * FLUX[:, :3], one_nanomaggy * np.ones((1, 3)), None, Z)
    np.testing.assert_allclose(found.photometry.flux, FLUX[:, :3], rtol=1e-6)
    np.testing.assert_allclose(found.photometry.sigma, 1.0, rtol=1e-6)


def test_the_model_error_is_a_fraction_of_the_flux():
    found = calibrate(survey(model_error=0.1, floor=(0.0, 0.0, 0.2)), FLUX[:, :3], np.ones((1, 3)), None, Z)
    expected = np.sqrt(1 + FLUX[0, :3] ** 2 * (0.1**2 + np.array([0, 0, (0.2 * MAG) ** 2])))
    np.testing.assert_allclose(found.photometry.sigma[0], expected, rtol=1e-6)
    one_a_band = calibrate(survey(model_error=(0.1, 0.0, 0.2)), FLUX[:, :3], np.ones((1, 3)), None, Z)
    expected = np.hypot(1, FLUX[0, :3] * np.array([0.1, 0.0, 0.2]))
    np.testing.assert_allclose(one_a_band.photometry.sigma[0], expected, rtol=1e-6)


# -- bad values -------------------------------------------------------------------------------------------------------

BAD_ERRORS = {"nan": np.nan, "zero": 0.0, "negative": -1.0, "infinite": np.inf}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e100])
@pytest.mark.parametrize("kind", [SDSS, NSA], ids=["sdss", "nsa"])
def test_a_bad_flux_is_masked_and_flagged(kind, value):
    """1e100 is finite in float64 only: photometry is float32."""
    found = calibrate(kind, one(value), IVAR, NO_EXTINCTION if kind is SDSS else None, Z)
    assert found.photometry.mask.tolist() == [[True, False, True, True, True]]
    assert {"BAD_FLUX", "BAND_MISSING"} <= flags_of(found)
    assert (found.photometry.flux[0, 1], found.photometry.sigma[0, 1]) == (0, 0)
    assert "TOO_FEW_BANDS" not in flags_of(found)


@pytest.mark.parametrize("name", BAD_ERRORS)
@pytest.mark.parametrize("kind", ["sdss", "nsa"])
def test_a_bad_inverse_variance_is_masked_and_flagged(kind, name):
    """Also an infinite one: an error of zero, which the floor must not make plausible."""
    extinction = NO_EXTINCTION if kind == "sdss" else None
    found = calibrate(SURVEYS[kind], FLUX, one(BAD_ERRORS[name], base=IVAR), extinction, Z)
    assert found.photometry.mask.tolist() == [[True, False, True, True, True]]
    assert {"BAD_ERROR", "BAND_MISSING"} == flags_of(found)
    assert (found.photometry.flux[0, 1], found.photometry.sigma[0, 1]) == (0, 0)


@pytest.mark.parametrize("name", BAD_ERRORS)
@pytest.mark.parametrize("floor", [None, (0.02, 0.02, 0.02)])
def test_a_bad_sigma_is_masked_and_flagged(name, floor):
    error = one(BAD_ERRORS[name], base=np.ones((1, 3)))
    found = calibrate(survey(floor=floor), FLUX[:, :3], error, None, Z)
    assert found.photometry.mask.tolist() == [[True, False, True]]
    assert {"BAD_ERROR", "BAND_MISSING", "TOO_FEW_BANDS"} == flags_of(found)


@pytest.mark.parametrize("value", [np.nan, np.inf, -9999.0])
def test_a_bad_extinction_masks_its_band(value):
    found = calibrate(SDSS, FLUX, IVAR, one(value, base=NO_EXTINCTION), Z)
    assert found.photometry.mask.tolist() == [[True, False, True, True, True]]
    assert flags_of(found) & {"BAD_FLUX", "BAD_ERROR"}


@pytest.mark.parametrize("value", [np.nan, 0.0, -0.5])
def test_a_bad_transmission_masks_its_band(value):
    """A negative one would turn a flux's sign."""
    transmission = survey(extinction=("A", "B", "C"), extinction_kind="transmission")
    found = calibrate(transmission, FLUX[:, :3], np.ones((1, 3)), one(value, base=np.ones((1, 3))), Z)
    assert found.photometry.mask.tolist() == [[True, False, True]]
    assert flags_of(found) & {"BAD_FLUX", "BAD_ERROR"}


IMPOSSIBLE = [
    ("magnitude", -9.0), ("magnitude", 50.0), ("magnitude", 99.0), ("magnitude", -0.5), ("magnitude", 20.1),
    ("transmission", 1.5), ("transmission", 0.0), ("transmission", -1.0), ("transmission", 1e-9), ("transmission", np.inf),
    ("ebv", -1.0), ("ebv", 99.0), ("ebv", 9.0), ("ebv", np.nan),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value"), IMPOSSIBLE)
@pytest.mark.parametrize("absent", [False, True])
def test_an_impossible_extinction_is_never_applied(kind, value, absent):
    """-9 and 50 are codes for not known, 1.5 is no transmission. A band that was not observed has no extinction to flag."""
    per_ebv = (3.0, 0.1, 2.0, 1.0) if kind == "ebv" else None  # even where it would do little
    declared = survey(
        extinction=("A",) * 4, extinction_kind=kind, extinction_per_ebv=per_ebv, bands=("sdss2010-g",) * 4,
        labels=tuple("abrc"), flux=("F",) * 4, error=("E",) * 4, no_data=-5.0,
    )  # fmt: skip
    none = 1.0 if kind == "transmission" else 0.0
    error = one(-5.0 if absent else 0.5, base=np.full((1, 4), 0.5))
    found = calibrate(declared, FLUX[:, :4], error, one(value, base=np.full((1, 4), none)), Z)
    assert found.photometry.mask.tolist() == [[True, False, True, True]]
    assert (found.photometry.flux[0, 1], found.photometry.sigma[0, 1]) == (0, 0)
    assert "BAND_MISSING" in flags_of(found)
    assert ("BAD_EXTINCTION" in flags_of(found)) == (not absent)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("magnitude", -0.009), ("magnitude", 19.9), ("magnitude", 0.0), ("transmission", 1.001), ("transmission", 1.1e-8),
     ("transmission", 1.0)],
)  # fmt: skip
def test_a_possible_extinction_is_applied_as_it_is(kind, value):
    """Also one that is a little below none: maps scatter about zero."""
    declared = survey(extinction=("A", "B", "C"), extinction_kind=kind)
    found = calibrate(declared, FLUX[:, :3], np.ones((1, 3)), np.full((1, 3), value), Z)
    factor = 1 / value if kind == "transmission" else 10 ** (0.4 * value)
    np.testing.assert_allclose(found.photometry.flux, FLUX[:, :3] * factor, rtol=1e-6)
    assert not {"BAD_EXTINCTION", "BAND_MISSING"} & flags_of(found)


@pytest.mark.parametrize("z", [np.nan, np.inf, 0.0, -0.01, -9999.0])
def test_a_bad_redshift_is_flagged_and_nan(z):
    found = calibrate(NSA, FLUX, IVAR, None, np.array([z]))
    assert flags_of(found) == {"BAD_REDSHIFT"}
    assert np.isnan(found.photometry.redshift[0])
    assert found.photometry.mask.all()


def test_negative_and_zero_fluxes_are_measurements():
    for value in (-3.0, 0.0):
        found = calibrate(SDSS, one(value, band=0), IVAR, NO_EXTINCTION, Z)
        assert flags_of(found) == {"NEGATIVE_FLUX"}
        assert found.photometry.mask.all()
        assert found.photometry.flux[0, 0] == pytest.approx(value * 10 ** (0.4 * 0.036))


def test_absurd_colours_are_flagged_and_kept():
    for value in (10 * FLUX[0, 2], FLUX[0, 2] / 100):
        found = calibrate(NSA, one(value), IVAR, None, Z)
        assert flags_of(found) == {"ABSURD_COLOUR"}
        assert found.photometry.mask.all()
    assert flags_of(calibrate(NSA, FLUX, IVAR, None, Z)) == set()


def test_two_bands_are_too_few_and_three_are_enough():
    three, two = FLUX.copy(), FLUX.copy()
    three[0, :2], two[0, :3] = np.nan, np.nan
    assert "TOO_FEW_BANDS" not in flags_of(calibrate(NSA, three, IVAR, None, Z))
    assert "TOO_FEW_BANDS" in flags_of(calibrate(NSA, two, IVAR, None, Z))


anything = st.floats(allow_nan=True, allow_infinity=True, width=64)


@given(
    hnp.arrays(np.float64, (4, 5), elements=anything),
    hnp.arrays(np.float64, (4, 5), elements=anything),
    hnp.arrays(np.float64, (4, 5), elements=st.floats(-1, 5) | st.just(np.nan)),
    hnp.arrays(np.float64, 4, elements=anything),
)
def test_nothing_is_dropped_and_nothing_bad_travels_on(flux, error, extinction, redshift):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = calibrate(SDSS, flux, error, extinction, redshift)
    seen = found.photometry
    assert seen.flux.shape == seen.sigma.shape == seen.mask.shape == (4, 5)
    assert len(seen.redshift) == len(found.flags) == 4
    assert np.isfinite(seen.flux).all()
    assert np.isfinite(seen.sigma).all()
    assert (seen.sigma[seen.mask] > 0).all()
    assert (seen.flux[~seen.mask] == 0).all()
    missing = (found.flags & int(Flag.BAND_MISSING)) != 0
    np.testing.assert_array_equal(missing, ~seen.mask.all(1).numpy())
    explained = (found.flags & int(Flag.BAD_FLUX | Flag.BAD_ERROR)) != 0
    assert (explained | seen.mask.all(1).numpy()).all()
    few = (found.flags & int(Flag.TOO_FEW_BANDS)) != 0
    np.testing.assert_array_equal(few, seen.n_bands < 3)
    bad = (found.flags & int(Flag.BAD_REDSHIFT)) != 0
    np.testing.assert_array_equal(bad, ~((seen.redshift > 0) & torch.isfinite(seen.redshift)))


def test_rows_do_not_touch_each_other():
    rng = np.random.default_rng(0)
    flux, ivar = rng.normal(20, 30, (50, 5)), rng.normal(4, 4, (50, 5))
    extinction, z = rng.random((50, 5)), rng.normal(0.1, 0.1, 50)
    together = calibrate(SDSS, flux, ivar, extinction, z)
    for i in range(50):
        alone = calibrate(SDSS, flux[i : i + 1], ivar[i : i + 1], extinction[i : i + 1], z[i : i + 1])
        for name, values in alone.photometry.arrays().items():
            np.testing.assert_array_equal(together.photometry.arrays()[name][i], values[0])
        assert together.flags[i] == alone.flags[0]


# -- surveys with a sky of their own ------------------------------------------------------------------------------------

LEGACY, RUBIN = SURVEYS["desi-legacy"], SURVEYS["rubin"]
NORTH, SOUTH = ([label in LEGACY.footprints[part].bands for label in LEGACY.labels] for part in ("north", "south"))


def legacy(flux, ivar, transmission=None, elsewhere=NORTH):
    """Calibrate one southern galaxy of five bands (unless it lies elsewhere): columns of g r z stand for both footprints."""
    columns = [
        np.concatenate([row[:, :3], row], axis=1)
        for row in (flux, ivar, np.ones((1, 5)) if transmission is None else transmission)
    ]
    return calibrate(LEGACY, *columns, Z, np.array([elsewhere]))


def test_no_data_is_not_an_error_and_not_detected_is_not_not_observed():
    """DESI: ivar 0 says that the band was not observed; a negative flux was, and nothing was detected."""
    flux, ivar = one(-0.3, band=0), one(0.0, band=3, base=IVAR)
    found = legacy(flux, ivar)
    assert found.photometry.mask.tolist() == [[False] * 3 + [True, True, True, False, True]]
    assert flags_of(found) == {"BAND_MISSING", "NEGATIVE_FLUX"}
    assert flags_of(legacy(FLUX, one(-1.0, band=3, base=IVAR))) >= {"BAD_ERROR"}


def test_a_galaxy_of_one_footprint_misses_nothing_of_the_other():
    for elsewhere in (NORTH, SOUTH):
        found = legacy(FLUX, IVAR, elsewhere=elsewhere)
        assert found.photometry.mask.tolist() == [[not gone for gone in elsewhere]]
        assert flags_of(found) == set()
    nowhere = legacy(FLUX, IVAR, elsewhere=[north or south for north, south in zip(NORTH, SOUTH, strict=True)])
    assert flags_of(nowhere) == {"BAND_MISSING", "TOO_FEW_BANDS"}
    bright = one(1e6, band=1)  # r: both of its colours are absurd, in either footprint
    assert all("ABSURD_COLOUR" in flags_of(legacy(bright, IVAR, elsewhere=part)) for part in (NORTH, SOUTH))


@pytest.mark.parametrize(
    ("footprints", "told"),
    [
        ({"a": {"bands": ["g", "y"], "rows": [{"column": "part", "classes": ["A"]}]}}, "footprints name 'y'"),
        ({"a": {"bands": ["g"], "rows": [{"column": "part", "above": 1}]}}, "classes or bits, and those by part limits"),
        (
            {name: {"bands": ["g"], "rows": [{"column": "part", "classes": [name]}]} for name in ("a", "b")},
            "'g', which is none of",
        ),
        (
            {"a": {"bands": ["u", "g", "r"], "rows": [{"column": "part", "classes": ["A"]}]},
             "b": {"bands": ["i", "z"], "rows": [{"column": "part", "classes": ["B"]}]}},
            "a footprint has 2 bands in all",
        ),
    ],
)  # fmt: skip
def test_footprints_that_contradict_the_bands_are_refused(footprints, told):
    with pytest.raises(ValueError, match=told):
        Survey.model_validate({**SDSS.model_dump(), "footprints": footprints})


def test_legacy_fluxes_are_divided_by_the_transmission():
    transmission = np.array([[0.8, 0.9, 0.95, 0.99, 1.0]])
    found = legacy(FLUX, IVAR, transmission).photometry
    np.testing.assert_allclose(found.flux[:, 3:], FLUX / transmission, rtol=1e-6)
    floor = 0.4 * np.log(10) * np.array([0.02, 0.02, 0.02, 0.05, 0.05])
    sigma = np.hypot(1 / np.sqrt(IVAR * transmission**2), np.hypot(LEGACY.model_error, floor) * FLUX / transmission)
    np.testing.assert_allclose(found.sigma[:, 3:], sigma, rtol=1e-6)


def test_rubin_fluxes_are_dereddened_and_flagged_bands_are_missing():
    """A = R E(B-V); 31.4 is the AB zero point of nJy. A flagged band may hold anything."""
    njy = np.array([[100.0, 300.0, 500.0, 700.0, 800.0, 900.0]])
    unusable = np.zeros((1, 6), bool)
    unusable[0, 5] = True
    njy_flagged = njy.copy()
    njy_flagged[0, 5] = np.nan
    found = calibrate(RUBIN, njy_flagged, 0.1 * njy, np.full((1, 6), 0.1), Z, unusable)
    magnitude = 31.4 - 2.5 * np.log10(njy) - 0.1 * np.array(RUBIN.extinction_per_ebv)
    np.testing.assert_allclose(22.5 - 2.5 * np.log10(found.photometry.flux[0, :5]), magnitude[0, :5], atol=2e-4)
    assert found.photometry.mask[0].tolist() == [True] * 5 + [False]
    assert flags_of(found) == {"BAND_MISSING"}
    assert RUBIN.required[-1] == "objectId"  # and no redshift
    assert "u_cModel_flag" in RUBIN.columns


def test_cuts_hit_bits_and_ranges_and_never_nan():
    values = np.array([0.0, 2.0, 3.0, 1024.0, np.nan, -1.0])
    assert Cut(column="x", bits=2).hits(values).tolist() == [False, True, True, False, False, True]
    assert Cut(column="x", below=0, above=3).hits(values).tolist() == [False, False, False, True, False, True]


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"])
def test_bits_are_tested_at_the_width_of_the_column(kind):
    """No float in between, and no sign that fills bits which the column has not."""
    width = 1 if kind == "bool" else 8 * np.dtype(kind).itemsize
    values = np.array([0, 1, -1] if kind[0] == "i" else [0, 1, 1], kind)
    assert Cut(column="x", bits=1).hits(values).tolist() == [False, True, True]
    assert Cut(column="x", bits=1 << (width - 1)).hits(values).tolist() == [
        False,
        width == 1,
        kind[0] == "i" or width == 1,
    ]
    if width < 64:
        assert not Cut(column="x", bits=1 << width).hits(values).any()
    else:
        values = np.array([(1 << 58) | 4, 1 << 58, (1 << 62) | (1 << 53) | 1], kind)
        assert Cut(column="x", bits=4).hits(values).tolist() == [True, False, False]
        assert Cut(column="x", bits=1).hits(values).tolist() == [False, False, True]


@pytest.mark.parametrize("values", [[0.5, 0], [2.0**53, 0], [np.inf, 0], [-(2.0**60), 1]])
def test_bits_of_floats_that_are_no_exact_integers_are_refused(values):
    with pytest.raises(
        ValueError, match=r"cut on bits 0x4 of x, which is float64 and holds .*: bits are those of integers"
    ):
        Cut(column="x", bits=4).hits(np.array(values))
    with pytest.raises(ValueError, match="cut on bits 0x4 of x, which is float32"):
        Cut(column="x", bits=4).hits(np.array([2.0**24, 0], np.float32))


TEXT = np.dtypes.StringDType()


@pytest.mark.parametrize(
    ("values", "classes", "hit"),
    [
        (np.array([6.0, 3.0, np.nan]), (6,), [0]), (np.array(["6.0", "3", " 6", "x", ""], TEXT), (6,), [0, 2]),
        (np.array([True, False]), (1,), [0]), (np.array(["True", "FALSE", "1"], TEXT), (1,), [0, 2]),
        (np.array(["True", "false", "0"], TEXT), (0,), [1, 2]), (np.array(["6", "star"], TEXT), ("STAR", 6), [0, 1]),
        (np.array([2**53, 2**53 + 1]), (2**53 + 1,), [1]), (np.array([float(2**53)]), (2**53 + 1,), []),
        (np.array(["9007199254740992", "9007199254740993"], TEXT), (2**53 + 1,), [1]),
        (np.array([2**64 - 1, 1], np.uint64), (2**64 - 1, -1), [0]), (np.array([-1, 7], np.int8), (255, -1), [0]),
        (np.array([0.1, 0.2], np.float32), ("0.1",), [0]), (np.array([3, 4]), ("3.0", "4.5"), [0]),
    ],
)  # fmt: skip
def test_classes_that_are_numbers_are_numbers_whatever_the_container_makes_of_them(values, classes, hit):
    """A table of text writes a column of integers with nulls as 6.0, and truth values as words."""
    assert np.flatnonzero(Cut(column="x", classes=classes).hits(values)).tolist() == hit


def test_no_data_may_be_nan():
    found = calibrate(survey(no_data=float("nan")), FLUX[:, :3], one(np.nan, base=np.ones((1, 3))), None, Z)
    assert flags_of(found) == {"BAND_MISSING", "TOO_FEW_BANDS"}


def test_declared_cuts_name_the_bits_of_maskbits():
    bits = {name: cut.bits for name, cut in LEGACY.cuts.items() if cut.bits}
    assert bits == {"bright_star": 2, "saturated_or_bad": 32 + 64 + 128, "fit_bailed_out": 1024, "cluster": 8192}


# -- declarations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SURVEYS)
def test_declared_surveys_are_consistent(name):
    found = surveys.get(name)
    assert len(found.bands) == len(found.labels) == len(found.flux) == len(found.error)
    assert found.labels.index(found.selection_band) >= 0
    assert surveys.get(found) is found


def test_columns_are_listed_once_without_their_index():
    assert SDSS.columns == ("MODELFLUX", "MODELFLUX_IVAR", "EXTINCTION", "Z")
    assert NSA.columns == ("NMGY", "NMGY_IVAR", "Z", "NSAID")


def test_nsa_takes_the_optical_bands_of_its_seven():
    assert NSA.flux == tuple(f"NMGY[{i}]" for i in range(2, 7))
    assert (NSA.ab_offset, NSA.floor, NSA.extinction) == (None, None, None)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": ("g", "r")}, "labels has 2 entries for 3 bands"),
        ({"floor": (0.1,)}, "floor has 1 entries for 3 bands"),
        ({"selection_band": "u"}, "selection_band 'u' is not one of"),
        ({"model_error": -0.1}, "model_error"),
        ({"model_error": (0.1,)}, "model_error has 1 entries for 3 bands"),
        ({"colour": 1}, "colour"),
        ({"unit": "furlong"}, "unit"),
        (
            {"extinction": ("A", "A", "A"), "extinction_kind": "ebv"},
            "extinction_per_ebv belongs to extinction_kind ebv",
        ),
        ({"band_flags": ("A",)}, "band_flags has 1 entries for 3 bands"),
        ({"ids": ("ID", "ID")}, "ids has 'ID' twice"),
        ({"labels": ("g", "r", "g")}, "labels has 'g' twice"),
        ({"ab_offset": (0.0, float("nan"), 0.0)}, "ab_offset .* is not finite"),
        ({"floor": (0.0, -0.1, 0.0)}, "floor .* is not finite, or negative"),
        (
            {"extinction": ("A", "A", "A"), "extinction_kind": "ebv", "extinction_per_ebv": (3.0, -2.0, 1.0)},
            "extinction_per_ebv .* is not finite, or negative",
        ),
        ({"cuts": {"none": {"column": "x"}}}, "cut on x hits nothing"),
        ({"cuts": {"none": {"column": "x", "above": float("nan")}}}, "cut on x hits nothing"),
        ({"cuts": {"none": {"column": "x", "bits": 1 << 64}}}, "less than 18446744073709551616"),
    ],
)
def test_bad_declarations_are_refused(changed, message):
    with pytest.raises(ValidationError, match=message):
        survey(**changed)


def test_an_unknown_survey_names_the_known_ones():
    with pytest.raises(ValueError, match="no survey named 'desi'; known are sdss, nsa"):
        surveys.get("desi")


def test_every_flag_is_described_and_has_its_own_bit():
    assert set(DESCRIPTIONS) == set(Flag)
    assert len({int(f) for f in Flag}) == len(Flag)
    assert all(bin(int(f)).count("1") == 1 for f in Flag)
    assert names(int(REASONS)) == [
        "TOO_FEW_BANDS", "BAD_REDSHIFT", "REDSHIFT_OUTSIDE_MODEL", "FAILED", "PRIOR_TOO_FAR"
    ]  # fmt: skip
    for flag in Flag:
        assert ("no answer" in DESCRIPTIONS[flag]) == bool(flag & REASONS)


def test_a_run_file_declares_a_survey(tmp_path):
    declared = surveys.get("nsa").model_dump(mode="json") | {"name": "mine", "redshift": "ZBEST"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"name": "a", "root": "x", "input": "y", "survey": declared}))
    assert run_file.survey(str(tmp_path / "run.yaml")).redshift == "ZBEST"
    assert run_file.survey("nsa") is surveys.get("nsa")
    with pytest.raises(ValueError, match=r"there is no file none\.yaml; surveys by name are sdss"):
        run_file.survey("none.yaml")


@pytest.mark.parametrize("ra", [-999.0, 1000.0, -180.1, 360.1, np.nan, np.inf])
def test_a_right_ascension_that_is_a_code_is_no_position(ra):
    assert healpix(np.array([ra, 10.0]), np.array([5.0, 5.0])).tolist()[0] == -1


def test_right_ascensions_are_counted_from_zero_or_to_both_sides():
    ra, dec = np.array([0.0, 360.0, -180.0, 180.0, -1.0, 359.0, 10.0, 10.0]), np.array([5.0] * 6 + [90.0, 90.1])
    found = healpix(ra, dec).tolist()
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert found[4] == found[5]
    assert found[6] >= 0 > found[7]
