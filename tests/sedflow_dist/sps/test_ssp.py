"""SSP tables: averaging spectra over pixels, checks, cuts and the BC03 + MILES library."""

import dataclasses
import importlib.util
from itertools import pairwise

import numpy as np
import pytest
import torch

from sedflow_dist.sps.galaxy_model import GalaxyModel
from sedflow_dist.sps.ssp import PIXEL, SSPTable, bc03_miles, pixel_edges, pixel_means


def photons(wavelength, values, lo, hi):
    """The integral of f(lambda) lambda for f linear between samples, by each piece's antiderivative."""
    total = 0.0
    for x0, x1, f0, f1 in zip(wavelength[:-1], wavelength[1:], values[:-1], values[1:], strict=True):
        a, b = max(x0, lo), min(x1, hi)
        if a < b:
            slope = (f1 - f0) / (x1 - x0)
            offset = f0 - slope * x0
            total += offset * (b**2 - a**2) / 2 + slope * (b**3 - a**3) / 3
    return total


def small_table(**changed):
    edges = pixel_edges(0.1, (1000.0, 3000.0))
    rng = np.random.default_rng(0)
    arrays = {
        "edges": edges, "age": np.array([0.1, 1.0, 10.0]), "metallicity": np.array([0.001, 0.02]),
        "spectra": rng.random((2, 3, len(edges) - 1)).astype(np.float32),
        "surviving": np.full((2, 3), 0.7, np.float32),
    }  # fmt: skip
    return SSPTable(**{**arrays, **changed})


# -- pixels -----------------------------------------------------------------------------------------------------------


def test_pixel_means_are_exact_in_every_pixel():
    """Samples finer than pixels, coarser than pixels, and on pixel edges; random spectra."""
    rng = np.random.default_rng(1)
    edges = pixel_edges(0.03, (1000.0, 2000.0))
    samples = np.concatenate([np.linspace(900, 1300, 300), np.linspace(1301, 2300, 9), edges[[4, 20]]])
    wavelength = np.unique(samples)
    spectra = rng.random((2, 3, len(wavelength)))
    means = pixel_means(wavelength, spectra, edges)
    assert means.shape == (2, 3, len(edges) - 1)
    for index in ((0, 0), (1, 2)):
        expected = [photons(wavelength, spectra[index], lo, hi) / (0.5 * (hi**2 - lo**2)) for lo, hi in pairwise(edges)]
        np.testing.assert_allclose(means[index], expected, rtol=1e-9)


def test_pixel_means_conserve_photons():
    wavelength = np.sort(np.random.default_rng(2).uniform(3000, 9000, 500))
    wavelength[[0, -1]] = 3000, 9000
    spectrum = np.random.default_rng(3).random(500)
    edges = np.geomspace(3000, 9000, 41)
    total = pixel_means(wavelength, spectrum, edges) @ (0.5 * np.diff(edges**2))
    assert total == pytest.approx(photons(wavelength, spectrum, 3000, 9000), rel=1e-12)


@pytest.mark.parametrize("edges", [(990.0, 1500.0), (1500.0, 2001.0)])
def test_pixels_beyond_the_spectra_are_refused(edges):
    with pytest.raises(ValueError, match="not covered by spectra from 1000 to 2000 A"):
        pixel_means(np.array([1000.0, 2000.0]), np.ones(2), np.array(edges))


def test_pixel_edges_cover_the_range_in_equal_steps():
    edges = pixel_edges(0.01, (900.0, 56_000.0))
    assert edges[0] == 900.0
    assert edges[-1] >= 56_000.0 > edges[-2]
    np.testing.assert_allclose(np.diff(np.log(edges)), 0.01, rtol=1e-9)


def test_pixels_cost_a_millimagnitude(model, sdss_bands, galaxies):
    """Against pixels four times as fine, all of the prior: rms below 0.5 mmag, 99 % below 1.5, none above 2.5 (u)."""
    fine = GalaxyModel(bc03_miles(PIXEL / 4), sdss_bands, 0.2)
    parameters, redshift = galaxies(1500, seed=1)
    cost = 2500 * torch.log10(model.fluxes(parameters, redshift) / fine.fluxes(parameters, redshift)).abs()
    assert bool((cost.square().mean(0).sqrt() < 0.5).all())
    assert bool((cost.quantile(0.99, dim=0) < 1.5).all())
    assert bool((cost < 2.5).all())
    assert bool((cost[:, 2:] < 0.6).all())


# -- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"spectra": np.ones((2, 3, 4), np.float32)}, "spectra have shape"),
        ({"surviving": np.ones((3, 2), np.float32)}, "shape"),
        ({"age": np.array([0.1, 10.0, 1.0])}, "age must be positive and increasing"),
        ({"age": np.array([0.0, 1.0, 10.0])}, "age must be positive and increasing"),
        ({"metallicity": np.array([0.02, 0.02])}, "metallicity must be positive and increasing"),
        ({"edges": pixel_edges(0.1, (1000.0, 3000.0))[::-1]}, "edges must be positive and increasing"),
        ({"surviving": np.array([[0.7, 0.7, 0.7], [0.7, -0.1, 0.7]], np.float32)}, r"surviving .*\(.*1.*, .*1.*\)"),
    ],
)
def test_bad_tables_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        small_table(**changed)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_a_bad_spectrum_is_located(bad):
    spectra = small_table().spectra.copy()
    spectra[1, 2, 5] = bad
    with pytest.raises(ValueError, match=r"spectra not finite or negative at \(metallicity, age\) \(.*1.*, .*2.*\)"):
        small_table(spectra=spectra)


def test_cut_keeps_whole_pixels_and_no_more():
    table = small_table()
    cut = table.cut(1200.0, 2500.0)
    assert cut.edges[0] <= 1200.0 < cut.edges[1]
    assert cut.edges[-2] < 2500.0 <= cut.edges[-1]
    first = int(np.flatnonzero(table.edges == cut.edges[0])[0])
    np.testing.assert_array_equal(cut.spectra, table.spectra[..., first : first + len(cut.wavelength)])
    assert cut.surviving is table.surviving
    assert cut.provenance == table.provenance


def test_cut_on_edges_is_exact_and_beyond_the_table_keeps_all_of_it():
    table = small_table()
    assert (table.cut(table.edges[3], table.edges[7]).edges == table.edges[3:8]).all()
    assert table.cut(1.0, 1e9).checksum == table.checksum


@pytest.mark.parametrize("name", ["edges", "age", "metallicity", "spectra", "surviving"])
def test_the_checksum_depends_on_every_array(name):
    table = small_table()
    changed = getattr(table, name).copy()
    changed.flat[0] *= 0.999
    assert dataclasses.replace(table, **{name: changed}).checksum != table.checksum
    assert small_table().checksum == table.checksum


def test_bc03_miles_is_the_library_of_the_reference(ssp, reference_ssp):
    np.testing.assert_allclose(ssp.age, reference_ssp.age_gyr)
    np.testing.assert_allclose(ssp.metallicity, reference_ssp.metallicity)
    np.testing.assert_allclose(ssp.surviving, reference_ssp.surviving, rtol=1e-6)
    assert ssp.spectra.dtype == ssp.surviving.dtype == np.float32
    assert ssp.provenance["stellar_library"] == "MILES"
    # A broad-band sum of one spectrum, the 10 Gyr Sun-like one.
    m, a = 4, int(np.argmin(np.abs(ssp.age - 10)))
    lo, hi = ssp.edges[[300, 500]]
    expected = photons(reference_ssp.wavelength, reference_ssp.luminosity[m, a], lo, hi)
    assert ssp.spectra[m, a, 300:500] @ (0.5 * np.diff(ssp.edges[300:501] ** 2)) == pytest.approx(expected, rel=1e-6)


def test_a_missing_library_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install 'sedflow-dist\[bc03\]'"):
        bc03_miles()
