"""What the flow is conditioned on: scale-free, blind to bands that were not measured, finite for any flux."""

import pytest
import torch

from sedflow_dist.flow import features
from sedflow_dist.flow.features import COLOURS, MAGNITUDES, Features, raw

MODES = (COLOURS, MAGNITUDES)


@pytest.fixture
def photometry():
    """200 galaxies in five bands, a fifth of the bands masked, some fluxes negative."""
    generator = torch.Generator().manual_seed(0)
    flux = 10 ** (3 * torch.rand(200, 5, generator=generator))
    sigma = flux * (0.02 + 0.1 * torch.rand(200, 5, generator=generator)) + 0.1
    flux[::17, 0] = -2.0
    mask = torch.rand(200, 5, generator=generator) > 0.2
    mask[:, :3] |= mask.sum(1, keepdim=True) < 3
    return flux * mask, sigma * mask, mask, 0.2 * torch.rand(200, generator=generator)


@pytest.fixture
def standardised(photometry):
    return {mode: Features.fit(mode, *photometry) for mode in MODES}


@pytest.mark.parametrize("factor", [1e-4, 0.3, 1e5])
def test_colours_do_not_depend_on_brightness(photometry, factor):
    flux, sigma, mask, z = photometry
    scaled = raw(factor * flux, factor * sigma, mask, z, COLOURS)
    torch.testing.assert_close(scaled, raw(*photometry, COLOURS), rtol=1e-4, atol=1e-5)


def test_magnitudes_depend_on_brightness(photometry):
    flux, sigma, mask, z = photometry
    change = raw(10 * flux, 10 * sigma, mask, z, MAGNITUDES) - raw(*photometry, MAGNITUDES)
    bright = mask & (flux > 10)
    assert float(change[:, :5][bright].min()) == pytest.approx(2.3026, abs=1e-3)  # one dex, in natural logarithms


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode[0])
@pytest.mark.parametrize("value", [0.0, 1e6, -5.0, 1e-20])
def test_bands_that_were_not_measured_have_no_influence(photometry, standardised, mode, value):
    flux, sigma, mask, z = photometry
    other = raw(torch.where(mask, flux, value), torch.where(mask, sigma, value), mask, z, mode)
    assert torch.equal(other, raw(*photometry, mode))
    found = standardised[mode](*photometry)
    other = standardised[mode](torch.where(mask, flux, value), torch.where(mask, sigma, 7.0), mask, z)
    assert torch.equal(other, found)
    unmeasured = torch.cat([~mask, ~mask], dim=1)
    assert bool((found[:, :10][unmeasured] == 0).all())


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode[0])
def test_any_flux_gives_finite_features(standardised, mode):
    flux = torch.tensor([[-1e6] * 5, [0.0] * 5, [1e12] * 5, [1e-12] * 5, [-1.0, 1e9, 0.0, 5.0, -3.0]])
    for sigma in (1e-12, 1.0, 1e9):
        for keep in (True, False):
            mask = torch.full_like(flux, keep, dtype=torch.bool)
            found = standardised[mode](flux, torch.full_like(flux, sigma), mask, torch.full((5,), 0.1))
            assert bool(torch.isfinite(found).all())


def test_features_grow_with_flux_through_zero():
    """Asinh magnitudes are monotone and smooth where a logarithm ends."""
    flux = torch.full((201, 5), 10.0)
    flux[:, 0] = torch.linspace(-2, 2, 201)
    found = raw(flux, torch.ones_like(flux), torch.ones_like(flux, dtype=torch.bool), torch.zeros(201), MAGNITUDES)
    steps = found[:, 0].diff()
    assert bool((steps > 0).all())
    assert float(steps.max()) < 0.11


def test_standardised_features_have_mean_zero_and_unit_spread(photometry, standardised):
    _, _, mask, _ = photometry
    for mode in MODES:
        found = standardised[mode](*photometry)
        for band in range(5):
            for column in (band, 5 + band):
                values = found[:, column][mask[:, band]]
                assert float(values.mean()) == pytest.approx(0, abs=1e-4)
                assert float(values.std(correction=0)) == pytest.approx(1, abs=1e-3)
        assert found[:, 10:15].unique().tolist() == [-1.0, 1.0]
        assert float(found[:, 15].std(correction=0)) == pytest.approx(1, abs=1e-3)


def test_a_constant_feature_is_not_divided_by_zero():
    flux = torch.full((50, 3), 10.0)
    arguments = (flux, torch.ones_like(flux), torch.ones_like(flux, dtype=torch.bool), torch.full((50,), 0.1))
    fitted = Features.fit(COLOURS, *arguments)
    assert bool(torch.isfinite(fitted(*arguments)).all())


def test_size_is_the_number_of_columns(photometry):
    assert raw(*photometry, COLOURS).shape == (200, features.size(COLOURS, 5)) == (200, 16)


def test_inputs_are_not_changed(photometry, standardised):
    before = [x.clone() for x in photometry]
    standardised[COLOURS](*photometry)
    assert all(torch.equal(a, b) for a, b in zip(before, photometry, strict=True))
