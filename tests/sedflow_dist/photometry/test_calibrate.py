"""Columns in any unit to nanomaggies: the same galaxies are the same, whatever a catalog measures them in."""

from decimal import Decimal

import astropy.units as u
import numpy as np
import pytest
from pydantic import ValidationError

from sedflow_dist.photometry.calibrate import calibrate, is_coded
from sedflow_dist.photometry.flags import names
from sedflow_dist.photometry.flux_units import per_nanomaggy
from sedflow_dist.photometry.survey import Survey
from sedflow_dist.sps.filters import Band

BANDS = ("sdss2010-g", "sdss2010-r", "sdss2010-i")
RNG = np.random.default_rng(4)
FLUX = 10 ** RNG.uniform(-1, 4, (50, 3))
SIGMA = FLUX * RNG.uniform(0.003, 0.2, (50, 3))
Z = np.full(50, 0.1)
PIVOT = np.array([Band.load(band).pivot for band in BANDS])
#: Vega's AB magnitudes (Blanton & Roweis 2007), and SDSS' softening parameters, of g, r, i.
VEGA, SOFTENING = np.array([-0.08, 0.16, 0.37]), np.array([0.9e-10, 1.2e-10, 1.8e-10])
POGSON = 2.5 / np.log(10)


def survey(**changed):
    """Three bands without any correction."""
    values = {
        "name": "test", "bands": BANDS, "labels": ("g", "r", "i"), "flux": ("F_G", "F_R", "F_I"),
        "error": ("E_G", "E_R", "E_I"), "error_kind": "sigma", "model_error": 0.0,
    }  # fmt: skip
    return Survey(**{**values, **changed})


def seen(declared, flux, error, pivot=None):
    found = calibrate(
        declared, np.atleast_2d(flux), np.atleast_2d(error), None, Z[: len(np.atleast_2d(flux))], pivot=pivot
    )
    return found.photometry.flux.numpy(), found.photometry.sigma.numpy(), found


def flags_of(found):
    return set(names(int(found.flags[0])))


def luptitudes(flux, sigma):
    """Lupton, Gunn & Szalay 1999, equations 3 and 4, as SDSS makes them of fluxes [nanomaggies]."""
    x = 1e-9 * flux / (2 * SOFTENING)
    error = POGSON * 1e-9 * sigma / (2 * SOFTENING) / np.sqrt(1 + x**2)
    return -POGSON * (np.arcsinh(x) + np.log(SOFTENING)), error


def magnitudes(flux, sigma):
    return 22.5 - 2.5 * np.log10(flux), POGSON * sigma / flux


CGS = 3.631e-29  # erg / (s cm2 Hz) of a nanomaggy
FORMS = {
    "nanomaggy": ({}, lambda f, s: (f, s)),
    "inverse variances": ({"error_kind": "ivar"}, lambda f, s: (f, s**-2)),
    "nJy": ({"unit": "nJy"}, lambda f, s: (3631 * f, 3631 * s)),
    "uJy": ({"unit": "uJy"}, lambda f, s: (3.631 * f, 3.631 * s)),
    "mJy, ivar": ({"unit": "mJy", "error_kind": "ivar"}, lambda f, s: (3.631e-3 * f, (3.631e-3 * s) ** -2.0)),
    "cgs": ({"unit": "erg/s/cm2/Hz"}, lambda f, s: (CGS * f, CGS * s)),
    "SI": ({"unit": "W / (m2 Hz)"}, lambda f, s: (1e-3 * CGS * f, 1e-3 * CGS * s)),
    "f_lambda": (
        {"unit": "1e-17 erg / (s cm2 Angstrom)"},
        lambda f, s: tuple(1e17 * CGS * 2.99792458e18 / PIVOT**2 * x for x in (f, s)),
    ),
    "counts": ({"zero_point": 25.0}, lambda f, s: (10**1.0 * f, 10**1.0 * s)),
    "counts, a zero point a band": (
        {"zero_point": (25.0, 27.5, 30.0), "unit": "adu"},
        lambda f, s: tuple(10 ** np.array([1.0, 2.0, 3.0]) * x for x in (f, s)),
    ),
    "fluxes with errors in magnitudes": ({"error_kind": "magnitude"}, lambda f, s: (f, POGSON * s / f)),
    "AB magnitudes": ({"unit": "mag", "error_kind": "magnitude"}, magnitudes),
    "AB magnitudes, sigma": ({"unit": "mag"}, magnitudes),
    "AB magnitudes, as units": ({"unit": "mag(AB)"}, magnitudes),
    "AB magnitudes, ivar": (
        {"unit": "mag", "error_kind": "ivar"}, lambda f, s: (magnitudes(f, s)[0], magnitudes(f, s)[1] ** -2.0),
    ),
    "Vega magnitudes": (
        {"unit": "mag", "system": "Vega", "ab_offset": tuple(VEGA.tolist())},
        lambda f, s: (magnitudes(f, s)[0] - VEGA, magnitudes(f, s)[1]),
    ),
    "luptitudes": ({"unit": "mag", "softening": tuple(SOFTENING.tolist())}, luptitudes),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_the_same_galaxies_are_the_same_whatever_they_are_measured_in(form):
    declared, measure = FORMS[form]
    flux, sigma, found = seen(survey(**declared), *measure(FLUX, SIGMA), pivot=PIVOT)
    np.testing.assert_allclose(flux, FLUX, rtol=1e-6)
    np.testing.assert_allclose(sigma, SIGMA, rtol=1e-6)
    assert found.photometry.mask.all()


@pytest.mark.parametrize("form", ["AB magnitudes", "luptitudes", "counts", "f_lambda"])
def test_corrections_come_after_the_conversion(form):
    declared, measure = FORMS[form]
    corrections = {
        "extinction": ("A", "A", "A"), "ab_offset": (0.1, 0.0, -0.1), "floor": (0.02, 0.01, 0.0), "model_error": 0.03,
    }  # fmt: skip
    extinction = np.full(FLUX.shape, 0.3)
    one = calibrate(survey(**corrections), FLUX, SIGMA, extinction, Z).photometry.arrays()
    other = calibrate(survey(**declared, **corrections), *measure(FLUX, SIGMA), extinction, Z, pivot=PIVOT)
    for name, values in other.photometry.arrays().items():
        np.testing.assert_allclose(values, one[name], rtol=1e-6)


def test_negative_fluxes_survive_as_luptitudes():
    flux, sigma = np.array([[-0.5, -0.02, 0.0]]), np.array([[0.3, 0.3, 0.3]])
    back, error, found = seen(survey(unit="mag", softening=tuple(SOFTENING.tolist())), *luptitudes(flux, sigma))
    np.testing.assert_allclose(back, flux, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(error, sigma, rtol=1e-6)
    assert flags_of(found) == {"NEGATIVE_FLUX"}


def test_units_that_were_known_before_are_bit_by_bit_what_they_were():
    assert [per_nanomaggy(unit) for unit in ("nanomaggy", "nJy", "maggy")] == [1.0, 3631.0, 1e-9]


def test_f_nu_is_f_lambda_by_the_pivot_wavelength_for_any_spectrum():
    """Means through a photon counter, of a steep spectrum, by quadrature."""
    band = Band.load("sdss2010-r")
    lam = np.linspace(*band.range, 40_001)
    weight, f_lambda = np.interp(lam, band.wavelength, band.response) * lam, (lam / 6000) ** 4
    mean_lambda = np.trapezoid(weight * f_lambda, lam) / np.trapezoid(weight, lam)
    f_nu_weight = weight / lam**2  # d nu / nu
    mean_nu = np.trapezoid(f_nu_weight * f_lambda * lam**2, lam) / np.trapezoid(f_nu_weight, lam)
    assert mean_nu == pytest.approx(mean_lambda * band.pivot**2, rel=1e-6)


# -- what holds no value ------------------------------------------------------------------------------------------------

RAIL = {
    "unit": "mag", "error_kind": "magnitude", "not_detected": (99.0,), "not_observed": (-99.0, np.nan), "limits": "error",
}  # fmt: skip


def test_not_detected_is_a_flux_of_zero_and_not_observed_is_no_band():
    """RAIL and BPZ: 99 with the magnitude of one sigma in the error's place; -99 or NaN were not observed."""
    declared = survey(
        **RAIL, bands=(*BANDS, "sdss2010-z"), labels=tuple("griz"), flux=tuple("abcd"), error=tuple("efgh")
    )
    flux, sigma, found = seen(declared, [[20.0, 99.0, -99.0, np.nan]], [[0.1, 27.5, -99.0, np.nan]])
    assert found.photometry.mask.tolist() == [[True, True, False, False]]
    np.testing.assert_allclose(flux[0, :2], [10.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(sigma[0, :2], [10.0 * 0.1 / POGSON, 0.01], rtol=1e-6)
    assert flags_of(found) == {"BAND_MISSING", "TOO_FEW_BANDS", "NEGATIVE_FLUX"}  # and nothing is bad
    assert found.limited.tolist() == [[False, True, False, False]]


@pytest.mark.parametrize(
    ("changed", "flux", "error", "sigma"),
    [
        ({"unit": "mag", "not_detected": (99.0,), "limits": (30.0, 27.5, 30.0), "limit_sigma": 5.0}, 99.0, 99.0, 0.002),
        ({"unit": "mag", "upper_limit": (-1.0, 0.0)}, 27.5, -1.0, 0.01),  # the column holds the limit
        ({"unit": "mag", "upper_limit": (-1.0, 0.0), "limit_sigma": 3.0}, 27.5, 0.0, 0.01 / 3),
        ({"upper_limit": (-1.0,), "limit_sigma": 3.0}, 0.6, -1.0, 0.2),
        ({"not_detected": (-99.0,), "limits": (1.0, 0.5, 1.0)}, -99.0, np.nan, 0.5),
        ({"unit": "nJy", "not_detected": (np.nan,), "limits": "error"}, np.nan, 363.1, 0.1),
        ({"zero_point": 25.0, "error_kind": "ivar", "upper_limit": (0.0,)}, 5.0, 0.0, 0.5),
        ({"unit": "mag", "system": "Vega", "ab_offset": (0.0, 2.5, 0.0), "upper_limit": (9.0,)}, 25.0, 9.0, 0.01),
        ({"unit": "mag", "not_detected": (50.0,), "limits": (30.0, 27.5, 30.0), "error": None, "error_fraction": 0.1}, 50.0, 0.0,
         0.01),
    ],
)  # fmt: skip
def test_limits_of_every_kind_become_uncertainties_of_nothing(changed, flux, error, sigma):
    fluxes, errors = np.full((1, 3), 20.0), np.full((1, 3), 0.1)
    fluxes[0, 1], errors[0, 1] = flux, error
    found_flux, found_sigma, found = seen(survey(**changed), fluxes, errors)
    assert found.photometry.mask.all()
    assert (found_flux[0, 1], found_sigma[0, 1]) == (0.0, pytest.approx(sigma, rel=1e-6))
    assert flags_of(found) & {"BAD_FLUX", "BAD_ERROR"} == set()
    assert found.limited.tolist() == [[False, True, False]]


@pytest.mark.parametrize("limit", [np.nan, -99.0, 99.0, 0.0, np.inf])
def test_a_limit_that_is_none_is_a_bad_error(limit):
    _, _, found = seen(survey(**RAIL), [[20.0, 99.0, 20.0]], [[0.1, limit, 0.1]])
    assert found.photometry.mask.tolist() == [[True, False, True]]
    assert flags_of(found) >= {"BAD_ERROR", "BAND_MISSING"}


@pytest.mark.parametrize("code", [99.0, 99.99, -99.0, -9.0, -1.0, 0.0, 50.0, 999.0, -9999.0, 1e30, np.inf])
@pytest.mark.parametrize("softening", [None, tuple(SOFTENING.tolist())])
def test_a_code_that_is_not_declared_is_no_magnitude(code, softening):
    """99 would be a flux of nearly nothing with hardly an error: a detection of no light."""
    _, _, found = seen(survey(unit="mag", softening=softening), [[20.0, code, 20.0]], [[0.1, 0.1, 0.1]])
    assert found.photometry.mask.tolist() == [[True, False, True]]
    assert flags_of(found) >= {"BAD_FLUX", "BAND_MISSING"}


@pytest.mark.parametrize("error", [np.nan, 0.0, -0.1, np.inf])
def test_a_bad_error_of_a_magnitude_masks_its_band(error):
    _, _, found = seen(survey(unit="mag"), [[20.0, 20.0, 20.0]], [[0.1, error, 0.1]])
    assert found.photometry.mask.tolist() == [[True, False, True]]
    assert flags_of(found) >= {"BAD_ERROR", "BAND_MISSING"}


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i4"])
def test_codes_are_compared_in_the_type_of_the_column(dtype):
    codes = (99.99, -99.0) if dtype != "i4" else (-99,)
    values = np.array([*codes, 20.0], dtype)
    assert is_coded(values, codes).tolist() == [True] * len(codes) + [False]
    hidden = np.ma.masked_array(values, [True] + [False] * len(codes))
    assert is_coded(hidden, codes).tolist() == [False] + [True] * (len(codes) - 1) + [False]
    assert is_coded(hidden, (np.nan,)).tolist() == [True] + [False] * len(codes)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("scale", ["0.01", "0.001", "0.1", "1e-4", "0.3", "1.7e5"])
def test_codes_are_found_where_integers_are_packed_and_the_values_beside_them_are_none(dtype, scale):
    """-9999 times 0.01 is -99.99000000000001 in float64."""
    for packed in (-9999, -32768, 9999, 99, -1, 32767, 0):
        code = float(Decimal(packed) * Decimal(scale))  # as it is written
        values = np.array([packed - 1, packed, packed + 1], dtype) * np.dtype(dtype).type(scale)
        assert is_coded(values, (code,)).tolist() == [False, True, False]


@pytest.mark.parametrize("code", [-99.0, 99.99, 1.0, 0.0, -1e9, np.inf])
def test_nothing_but_the_last_digits_of_a_type_is_overlooked_in_a_code(code):
    off = np.array([code * (1 + 1e-6), code * (1 - 1e-6), 1e-300, -1e-300, 1e300])
    assert not is_coded(off[np.isfinite(off) & (off != code)], (code,)).any()
    assert is_coded(np.array([code]), (code,)).all()


# -- errors that a catalog does not have, or that are too small -----------------------------------------------------------


def test_an_assumed_error_is_a_fraction_of_the_flux_where_there_is_no_column():
    none = np.full(FLUX.shape, np.nan)
    _, sigma, found = seen(survey(error=None, error_fraction=0.1), FLUX, none)
    np.testing.assert_allclose(sigma, 0.1 * FLUX, rtol=1e-6)
    assert found.photometry.mask.all()
    one = survey(error=("E_G", None, "E_I"), error_fraction=(0.3, 0.2, 0.3), unit="mag")
    values, errors = magnitudes(FLUX, SIGMA)
    _, sigma, _ = seen(one, values, np.where([True, False, True], errors, np.nan))
    np.testing.assert_allclose(sigma, np.where([True, False, True], SIGMA, 0.2 * FLUX), rtol=1e-6)
    for code in (0.0, np.nan):  # what an absent column holds is no code
        coded = calibrate(survey(error=None, error_fraction=0.1, no_data=code), FLUX, none, None, Z)
        assert coded.photometry.mask.all()
    assert one.required == ("F_G", "F_R", "F_I", "E_G", "E_I", "Z")


@pytest.mark.parametrize("model_error", [0.0, 0.04])
def test_signal_to_noise_has_a_cap(model_error):
    _, sigma, found = seen(survey(max_snr=20.0, model_error=model_error), FLUX, SIGMA)
    np.testing.assert_allclose(sigma, np.maximum(np.hypot(SIGMA, model_error * FLUX), FLUX / 20), rtol=1e-6)
    assert found.photometry.signal_to_noise.max() <= 20 * (1 + 1e-6)
    _, sigma, _ = seen(survey(max_snr=20.0), [[-400.0, 0.0, 1.0]], [[1.0, 1.0, 1.0]])
    np.testing.assert_allclose(sigma, [[20.0, 1.0, 1.0]], rtol=1e-6)


# -- declarations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"unit": "km"}, "no flux density"), ({"unit": "nonsense"}, "none that astropy knows"),
        ({"unit": "mag(AB)", "system": "Vega"}, "say mag, and system"), ({"unit": "luptitude"}, "say mag, and system or softening"),
        ({"unit": "STmag"}, "say mag, and system"), ({"unit": "vegamag"}, "need ab_offset"),
        ({"unit": "dex(Jy)"}, "no flux density"), ({"unit": "erg / s"}, "no flux density"),
        ({"unit": "count"}, "needs a zero_point"),
        ({"unit": "nJy", "zero_point": 25.0}, "has a zero point of its own"),
        ({"unit": "mag", "zero_point": 25.0}, "has a zero point of its own"),
        ({"zero_point": (25.0, 25.0)}, "zero_point has 2 entries for 3 bands"),
        ({"zero_point": np.nan}, "zero_point nan is not finite"),
        ({"unit": "mag", "system": "Vega"}, "need ab_offset"), ({"system": "Vega", "ab_offset": (0.0,) * 3}, "is absolute"),
        ({"softening": (1e-10,) * 3}, "softening belongs to asinh"),
        ({"unit": "mag", "softening": (1e-10, 0.0, 1e-10)}, "is positive"),
        ({"error": None}, "g, r, i have no uncertainty column: name one a band in error, or assume an error_fraction"),
        ({"error": ("E", None, "E")}, "r have no uncertainty column"), ({"error_fraction": 0.1}, "is assumed where there is no"),
        ({"error": None, "error_fraction": 0.0}, "is positive"), ({"not_detected": (99.0,)}, "limits belong together"),
        ({"limits": (1.0, 1.0, 1.0)}, "limits belong together"),
        ({"not_detected": (0.0,), "limits": (1.0, -1.0, 1.0)}, "limits .* of fluxes are positive"),
        ({"not_detected": (99.0,), "limits": "error", "error_kind": "ivar"}, "standard deviations"),
        ({"error": None, "error_fraction": 0.1, "upper_limit": (-1.0,)}, "have none"), ({"max_snr": 0.0}, "greater than 0"),
        ({"limit_sigma": -1.0}, "greater than 0"), ({"error_kind": "percent"}, "'ivar', 'sigma' or 'magnitude'"),
    ],
)  # fmt: skip
def test_contradictions_in_a_declaration_are_refused(changed, message):
    with pytest.raises(ValidationError, match=message):
        survey(**changed)


def test_a_declaration_equals_itself_after_a_store(tmp_path):
    """NaN is a code: JSON has none, and a store compares its settings with those of the next run."""
    declared = survey(**{**RAIL, "no_data": np.nan})
    content = declared.model_dump(mode="json")
    assert content == Survey.model_validate(content).model_dump(mode="json")
    assert Survey.model_validate_json(declared.model_dump_json()).model_dump(mode="json") == content
    assert np.isnan(Survey.model_validate(content).not_observed[1])


def test_every_flux_density_of_astropy_is_a_unit():
    for unit, per_jy in (
        ("Jy", 1),
        ("kJy", 1e-3),
        ("erg s-1 cm-2 Hz-1", 1e-23),
        ("W m-2 Hz-1", 1e-26),
        ("0.5 nJy", 2e9),
    ):
        assert per_nanomaggy(unit) == pytest.approx(3.631e-6 * per_jy, rel=1e-13), unit
    with pytest.raises(ValueError, match="a pivot wavelength is needed"):
        per_nanomaggy("W / (m2 um)")
    expected = (3.631e-6 * u.Jy).to_value("W / (m2 um)", u.spectral_density(1 * u.um))
    assert per_nanomaggy("W / (m2 um)", 1e4) == pytest.approx(expected, rel=1e-13)
