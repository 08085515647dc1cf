"""What the flow is conditioned on: scale-free, blind to bands that were not measured, finite for any flux."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sedflow_dist.flow import features
from sedflow_dist.flow.features import COLOURS, MAGNITUDES, Features, raw
from sedflow_dist.photometry.photometry import Photometry

MODES = (COLOURS, MAGNITUDES)


def times(photometry, factor):
    """The same galaxies, brighter."""
    return replace(photometry, flux=factor * photometry.flux, sigma=factor * photometry.sigma)


@pytest.fixture
def photometry():
    """200 galaxies in five bands, a fifth of the bands masked, some fluxes negative."""
    generator = torch.Generator().manual_seed(0)
    flux = 10 ** (3 * torch.rand(200, 5, generator=generator))
    sigma = flux * (0.02 + 0.1 * torch.rand(200, 5, generator=generator)) + 0.1
    flux[::17, 0] = -2.0
    mask = torch.rand(200, 5, generator=generator) > 0.2
    mask[:, :3] |= mask.sum(1, keepdim=True) < 3
    return Photometry.of(flux, sigma, 0.2 * torch.rand(200, generator=generator), mask)


@pytest.fixture
def standardised(photometry):
    return {mode: Features.fit(mode, photometry) for mode in MODES}


@pytest.mark.parametrize("factor", [1e-4, 0.3, 1e5])
def test_colours_do_not_depend_on_brightness(photometry, factor):
    scaled = raw(times(photometry, factor), COLOURS)
    torch.testing.assert_close(scaled, raw(photometry, COLOURS), rtol=1e-4, atol=1e-5)


def test_magnitudes_depend_on_brightness(photometry):
    change = raw(times(photometry, 10), MAGNITUDES) - raw(photometry, MAGNITUDES)
    bright = photometry.flux > 10
    assert float(change[:, :5][bright].min()) == pytest.approx(2.3026, abs=1e-3)  # one dex, in natural logarithms


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode[0])
@pytest.mark.parametrize("value", [0.0, 1e6, -5.0, 1e-20])
def test_bands_that_were_not_measured_have_no_influence(photometry, standardised, mode, value):
    mask = photometry.mask
    flux = torch.where(mask, photometry.flux, value)
    other = raw(replace(photometry, flux=flux, sigma=torch.where(mask, photometry.sigma, value)), mode)
    assert torch.equal(other, raw(photometry, mode))
    found = standardised[mode](photometry)
    other = standardised[mode](replace(photometry, flux=flux, sigma=torch.where(mask, photometry.sigma, 7.0)))
    assert torch.equal(other, found)
    unmeasured = torch.cat([~mask, ~mask], dim=1)
    assert bool((found[:, :10][unmeasured] == 0).all())


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode[0])
def test_any_flux_gives_finite_features(standardised, mode):
    flux = torch.tensor([[-1e6] * 5, [0.0] * 5, [1e12] * 5, [1e-12] * 5, [-1.0, 1e9, 0.0, 5.0, -3.0]])
    for sigma in (1e-12, 1.0, 1e9):
        for keep in (True, False):
            seen = Photometry.of(flux, torch.full_like(flux, sigma), redshift=0.1)
            found = standardised[mode](seen.with_bands(torch.full((5,), keep)))
            assert bool(torch.isfinite(found).all())


def test_features_grow_with_flux_through_zero():
    """Asinh magnitudes are monotone and smooth where a logarithm ends."""
    flux = torch.full((201, 5), 10.0)
    flux[:, 0] = torch.linspace(-2, 2, 201)
    found = raw(Photometry.of(flux, torch.ones_like(flux), redshift=0), MAGNITUDES)
    steps = found[:, 0].diff()
    assert bool((steps > 0).all())
    assert float(steps.max()) < 0.11


def test_standardised_features_have_mean_zero_and_unit_spread(photometry, standardised):
    for mode in MODES:
        found = standardised[mode](photometry)
        for band in range(5):
            for column in (band, 5 + band):
                values = found[:, column][photometry.mask[:, band]]
                assert float(values.mean()) == pytest.approx(0, abs=1e-4)
                assert float(values.std(correction=0)) == pytest.approx(1, abs=1e-3)
        assert found[:, 10:15].unique().tolist() == [-1.0, 1.0]
        assert float(found[:, 15].std(correction=0)) == pytest.approx(1, abs=1e-3)


def test_a_constant_feature_is_not_divided_by_zero():
    flux = torch.full((50, 3), 10.0)
    constant = Photometry.of(flux, torch.ones_like(flux), redshift=0.1)
    fitted = Features.fit(COLOURS, constant)
    assert bool(torch.isfinite(fitted(constant)).all())


def test_size_is_the_number_of_columns(photometry):
    assert raw(photometry, COLOURS).shape == (200, features.size(COLOURS, 5)) == (200, 16)


def test_inputs_are_not_changed(photometry, standardised):
    before = {name: values.copy() for name, values in photometry.arrays().items()}
    standardised[COLOURS](photometry)
    for name, values in photometry.arrays().items():
        np.testing.assert_array_equal(values, before[name])


def test_log_colours_resolve_a_band_a_thousand_times_fainter_than_the_rest():
    """A tenth of its flux changes ln flux by 0.095 in any band; asinh colours, linear there, hardly see it."""
    flux = torch.tensor([[1.0, 1000.0, 3000.0], [1.1, 1000.0, 3000.0], [-0.5, 1000.0, 3000.0]])
    seen = Photometry.of(flux, torch.tensor([[0.05, 20.0, 60.0]]).expand(3, 3), 0.1)
    logs, colours = raw(seen, ("log_colours",)), raw(seen, ("colours",))
    assert float(logs[1, 0] - logs[0, 0]) == pytest.approx(np.log(1.1), rel=0.03)
    assert abs(float(colours[1, 0] - colours[0, 0])) < 0.005
    assert float(logs[0, 1] - logs[0, 2]) == pytest.approx(np.log(1 / 3), abs=1e-3)
    assert bool(torch.isfinite(logs).all())
    torch.testing.assert_close(raw(times(seen, 1e4), ("log_colours",)), logs, rtol=1e-5, atol=1e-5)
