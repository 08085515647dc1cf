"""Bands: exact moments, AB fluxes of known spectra, weights at any redshift, interpolation of smooth factors."""

import numpy as np
import pytest
import speclite.filters
from scipy import integrate

from sedflow_dist.sps.filters import Band, BandWeights, rest_range
from sedflow_dist.sps.ssp import pixel_edges, pixel_means

BANDS = ("sdss2010-u", "sdss2010-r", "decam2014-z", "galex-nuv", "wise2010-W1")
EDGES = pixel_edges(0.005, (900.0, 56_000.0))
#: f_lambda lambda^2 of an AB source of 0 mag [erg/s/cm2 A].
AB_FLUX = 3.631e-20 * 2.99792458e18


def pixel_weighted_means(f, edges):
    """Photon-weighted means of f(lambda) over pixels."""
    fine = np.geomspace(edges[0], edges[-1], 60_001)
    fine[0], fine[-1] = edges[0], edges[-1]
    return pixel_means(fine, f(fine), edges)


@pytest.mark.parametrize("name", BANDS)
@pytest.mark.parametrize("power", [-1, 1, 2])
def test_moments_are_integrals(name, power):
    band = Band.load(name)
    lo, hi = band.range
    for end in (lo + 0.3 * (hi - lo), hi):
        x = np.linspace(lo, end, 200_001)
        expected = integrate.simpson(np.interp(x, band.wavelength, band.response) * x**power, x=x)
        assert band.moment(np.array([end]), power)[0] == pytest.approx(expected, rel=1e-5)


def test_a_moment_of_a_triangle_is_analytic():
    band = Band("triangle", np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 0.0]))
    assert band.moment(np.array([2.0]), 1)[0] == pytest.approx(5 / 6, rel=1e-14)
    assert band.moment(np.array([3.0]), 1)[0] == pytest.approx(2.0, rel=1e-14)
    assert band.moment(np.array([9.0]), -1)[0] == pytest.approx(3 * np.log(3) - 4 * np.log(2), rel=1e-13)
    assert band.moment(np.array([0.5]), 1)[0] == 0.0


@pytest.mark.parametrize("name", BANDS)
@pytest.mark.parametrize("z", [0.0, 0.07, 0.2])
def test_a_flat_source_has_its_ab_magnitude(name, z):
    """f_nu constant: f_lambda proportional to lambda^-2. Weights take the rest-frame spectrum, so stretch it."""
    weights = BandWeights.build([name], EDGES, 0.2)
    flux = 10 ** (-0.4 * 17.3)
    spectrum = pixel_weighted_means(lambda rest: flux * AB_FLUX / (rest * (1 + z)) ** 2, EDGES)
    position = np.log1p(z) / weights.step
    left = int(position)
    table = (1 - position + left) * weights.table[left, 0] + (position - left) * weights.table[left + 1, 0]
    assert -2.5 * np.log10(table @ spectrum) == pytest.approx(17.3, abs=2e-5)


@pytest.mark.parametrize("name", BANDS)
def test_fluxes_are_those_of_speclite_for_a_sloped_spectrum(name):
    """To 1 mmag: speclite sums over samples of the response, which in u lie 25 A apart (4e-4)."""
    weights = BandWeights.build([name], EDGES, 0.0)
    spectrum = lambda lam: 1e-15 * (lam / 5000) ** -1.3  # noqa: E731
    fine = np.geomspace(1000, 55_000, 40_000)
    expected = speclite.filters.load_filter(name).get_ab_maggies(spectrum(fine), fine)
    assert weights.table[0, 0] @ pixel_weighted_means(spectrum, EDGES) == pytest.approx(expected, rel=1e-3)


def test_the_effective_wavelength_is_those_of_speclite():
    for name in BANDS:
        expected = speclite.filters.load_filter(name).effective_wavelength.value
        assert Band.load(name).effective_wavelength == pytest.approx(expected, rel=2e-3)


def test_the_ladder_of_redshifts_shifts_by_half_a_pixel():
    weights = BandWeights.build(["sdss2010-g"], EDGES, 0.2)
    assert weights.step == pytest.approx(0.0025)
    assert (len(weights.table) - 1) * weights.step >= np.log1p(0.2)
    # Two steps are a pixel: the same weights one pixel further, times the wavelength squared of d(lambda) lambda.
    np.testing.assert_allclose(weights.table[2, 0, :-1], weights.table[0, 0, 1:], rtol=1e-7, atol=1e-16)


def test_smooth_factors_are_interpolated_from_nodes():
    """Weights per node with the factor 1 are the band's own; with a smooth factor, its integral."""
    names = ["sdss2010-u", "sdss2010-r"]
    weights = BandWeights.build(names, EDGES, 0.2)
    nodes = weights.with_smooth_factor((6300.0,))
    spectrum = pixel_weighted_means(lambda lam: 1e-15 * (lam / 5000) ** -1.3, EDGES)
    centre = np.sqrt(EDGES[1:] * EDGES[:-1])
    for shift in (0, 30, len(weights.table) - 1):
        stretch = np.exp(weights.step * shift)
        per_node = nodes.table[shift] @ spectrum
        for band in (0, 1):
            mine = nodes.band == band
            assert per_node[mine].sum() == pytest.approx(weights.table[shift, band] @ spectrum, rel=1e-9)
            rest = nodes.wavelength[mine] / stretch
            # A factor with a jump at the break.
            factor = np.exp(-1.2 * (rest / 5500) ** -0.9) * np.where(nodes.piece[mine] == 1, 0.7, 1.0)
            on_pixels = np.exp(-1.2 * (centre / 5500) ** -0.9) * np.where(centre >= 6300.0, 0.7, 1.0)
            expected = weights.table[shift, band] @ (spectrum * on_pixels)
            assert per_node[mine] @ factor == pytest.approx(expected, rel=3e-4)


def test_only_bands_that_meet_the_break_have_nodes_on_both_sides():
    nodes = BandWeights.build(["sdss2010-g", "sdss2010-r"], EDGES, 0.2).with_smooth_factor((6300.0,))
    assert set(nodes.piece[nodes.band == 0]) == {0}
    assert set(nodes.piece[nodes.band == 1]) == {0, 1}


def test_rest_range_covers_all_bands():
    lo, hi = rest_range(["sdss2010-u", "sdss2010-z"], 0.25, EDGES)
    assert lo == pytest.approx(Band.load("sdss2010-u").range[0] / 1.25)
    assert hi == Band.load("sdss2010-z").range[1]


def test_an_unknown_band_names_the_families():
    with pytest.raises(ValueError, match=r"no band named 'sdss-r'; speclite's families are .*sdss2010"):
        Band.load("sdss-r")


def test_bands_beyond_the_pixels_are_refused():
    with pytest.raises(ValueError, match=r"band galex-fuv needs rest wavelengths .* the SSP table holds 200.-"):
        rest_range(["galex-fuv"], 0.1, pixel_edges(0.005, (2000.0, 9000.0)))
