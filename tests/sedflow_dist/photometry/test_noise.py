"""The noise model: fitted to measured errors, drawn from, and what lies outside it."""

import numpy as np
import pytest
import torch

from sedflow_dist.photometry.noise import Depth, NoiseModel
from sedflow_dist.photometry.photometry import Photometry

POGSON = 2.5 / np.log(10)
BRIGHT, FAINT = 14.0, 20.0


def mean_error(magnitude):
    """Magnitude error of the invented survey: 0.02 mag, and 0.1 more at 20 mag, as of a sky background."""
    return 0.02 + 0.1 * 10 ** (0.4 * (magnitude - 20))


@pytest.fixture(scope="module")
def catalog():
    """40,000 galaxies in three bands with errors 15 % about the mean; a tenth of the last band missing."""
    rng = np.random.default_rng(0)
    magnitude = rng.uniform(BRIGHT, FAINT, (40_000, 3))
    flux = 10 ** (0.4 * (22.5 - magnitude))
    sigma = flux / POGSON * mean_error(magnitude) * (1 + 0.15 * rng.standard_normal(flux.shape))
    mask = np.ones_like(flux, bool)
    mask[::10, 2] = False
    flux[::10, 2] = sigma[::10, 2] = 0.0
    return Photometry.of(flux, sigma, mask=mask)


@pytest.fixture(scope="module")
def fitted(catalog):
    return NoiseModel.fit(catalog, selection_band=1)


def fluxes_at(*magnitudes):
    return torch.tensor([[10 ** (0.4 * (22.5 - m))] * 3 for m in magnitudes], dtype=torch.float32)


def test_the_fit_recovers_mean_and_scatter(fitted):
    magnitudes = np.linspace(14.5, 19.5, 11)
    flux = fluxes_at(*magnitudes)
    mean, scatter = fitted.moments(flux)
    expected = torch.as_tensor(mean_error(magnitudes)).float().unsqueeze(1) * flux / POGSON
    assert torch.allclose(mean, expected, rtol=0.06)
    assert torch.allclose(scatter, 0.15 * expected, rtol=0.35)


def test_the_selection_is_the_range_of_the_catalog(fitted):
    assert fitted.selection_band == 1
    assert fitted.selection == pytest.approx((BRIGHT, FAINT), abs=0.02)


def test_tables_are_increasing_and_positive(fitted):
    assert fitted.magnitude.shape == fitted.mean.shape == fitted.scatter.shape == (3, 16)
    assert bool((fitted.magnitude.diff(dim=1) > 0).all())
    assert bool((fitted.mean > 0).all())
    assert bool((fitted.scatter >= 0.0999 * fitted.mean).all())


def test_beyond_the_faintest_bin_sigma_is_constant(fitted):
    faintest = 10 ** (0.4 * (22.5 - fitted.magnitude[:, -1]))
    rows = torch.stack([faintest, 0.5 * faintest, 0.0 * faintest, -10 * faintest])
    for moment in fitted.moments(rows):
        assert torch.allclose(moment, moment[0].expand_as(moment), rtol=1e-5)
        assert bool((moment > 0).all())


def test_beyond_the_brightest_bin_the_magnitude_error_is_constant(fitted):
    brightest = 10 ** (0.4 * (22.5 - fitted.magnitude[:, 0]))
    mean, _ = fitted.moments(torch.stack([brightest, 100 * brightest]))
    assert torch.allclose(mean[1], 100 * mean[0], rtol=1e-4)


def test_sigma_is_continuous_in_flux(fitted):
    flux = torch.logspace(-2, 5, 20_000).unsqueeze(1).expand(-1, 3)
    mean, _ = fitted.moments(flux)
    assert float((mean[1:] / mean[:-1] - 1).abs().max()) < 2e-3


def test_observations_scatter_as_their_uncertainties_say(fitted):
    """A flux that came out high has the larger uncertainty: pulls have minus its slope with flux as their mean."""
    flux = fluxes_at(17.0).expand(50_000, -1)
    noisy, sigma, selected = fitted.observe(flux, torch.Generator().manual_seed(0))
    mean, scatter = fitted.moments(flux[:1])
    pull = (noisy - flux) / sigma
    low, high = (fitted.moments(flux[:1] * factor)[0] for factor in (0.97, 1.03))
    slope = (high - low) / (0.06 * flux[0])
    assert float(pull.mean()) == pytest.approx(-float(slope.mean()), abs=0.01)
    assert float(pull.std()) == pytest.approx(1, abs=0.02)
    assert torch.allclose(sigma.median(0).values, mean[0], rtol=0.01)
    assert torch.allclose(sigma.log().std(0), (scatter / mean)[0], rtol=0.03)
    assert bool(selected.all())


def test_given_the_observed_flux_an_uncertainty_says_nothing_of_the_true_one():
    """With errors of 15 to 25 %, uncertainties that followed true fluxes would tell these as well as the observed ones do."""
    tables = torch.tensor([[12.0, 24.0]] * 3), torch.full((3, 2), 0.2), torch.full((3, 2), 0.02)
    noise = NoiseModel(*tables, 0, (10.0, 26.0))
    flux = fluxes_at(18.0) * torch.logspace(-0.3, 0.3, 200_000).unsqueeze(1)
    noisy, sigma, _ = noise.observe(flux, torch.Generator().manual_seed(3))
    alike = (noisy[:, 0] / fluxes_at(18.0)[0, 0] - 1).abs() < 0.05
    relative = (sigma / noise.moments(noisy)[0])[alike, 0]
    assert alike.sum() > 5000
    together = torch.stack([relative, flux[alike, 0]])
    assert abs(float(torch.corrcoef(together)[0, 1])) < 0.05  # 3 standard errors


def test_the_noise_of_a_galaxy_is_told_by_its_uncertainty_and_its_true_flux(fitted):
    """What `observe` scattered fluxes by, from what it states: pulls are N(0, 1), and their mean is 0 to 3 standard errors."""
    flux = fluxes_at(19.0).expand(50_000, -1)
    noisy, stated, _ = fitted.observe(flux, torch.Generator().manual_seed(0))
    inverse = fitted.inverse_sigma(flux.unsqueeze(1), Photometry.of(noisy, stated))[:, 0]
    pull = (noisy - flux) * inverse
    assert abs(float(pull.mean())) < 3 / 150_000**0.5
    assert float(pull.std()) == pytest.approx(1, abs=0.01)
    assert abs(float(torch.corrcoef(torch.stack([inverse[:, 0], pull[:, 0]]))[0, 1])) < 0.02
    assert float(((noisy - flux) / stated).mean()) < -0.02  # unlike those that are stated


def test_selection_acts_on_the_observed_flux(fitted):
    """Galaxies right at the faint limit are scattered in and out; an hour from it in magnitude, none."""
    bright, faint = fitted.selection
    flux = fluxes_at(faint).expand(20_000, -1)
    noisy, _, selected = fitted.observe(flux, torch.Generator().manual_seed(1))
    magnitude = 22.5 - 2.5 * torch.log10(noisy[:, 1].clamp(min=1e-9))
    expected = (magnitude <= faint) & (magnitude >= bright)
    assert float((selected != expected).float().mean()) < 1e-3  # float32 right on the limit
    assert 0.45 < float(selected.float().mean()) < 0.55
    for magnitude in (bright - 1, faint + 1.5):
        assert not fitted.observe(fluxes_at(magnitude).expand(1000, -1), torch.Generator().manual_seed(2))[2].any()


def test_uncertainties_are_positive_however_much_they_scatter():
    """With a scatter as large as the mean a normal distribution has 16 % below zero, and others that are next to nothing."""
    tables = torch.tensor([[15.0, 18.0]] * 3), torch.full((3, 2), 0.02), torch.full((3, 2), 0.02)
    noise, flux = NoiseModel(*tables, 0, (14.0, 20.0)), fluxes_at(17.0).expand(20_000, -1)
    noisy, sigma, selected = noise.observe(flux, torch.Generator().manual_seed(0))
    logarithm = (sigma / noise.moments(noisy)[0]).log()
    assert float(logarithm.median()) == pytest.approx(0, abs=0.02)
    assert float(logarithm.std()) == pytest.approx(1, abs=0.02)
    assert bool(selected.all())
    inverse = noise.inverse_sigma(flux.unsqueeze(1), Photometry.of(noisy, sigma))[:, 0]
    assert float(((noisy - flux) * inverse).std()) == pytest.approx(1, abs=0.01)


def test_the_same_generator_gives_the_same_observations(fitted):
    flux = fluxes_at(16.0, 17.0, 18.0)
    first, second = (fitted.observe(flux, torch.Generator().manual_seed(4)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_uncertainties_above_the_noise_model_are_outside(fitted):
    flux = fluxes_at(17.0).expand(4, -1)
    mean, scatter = fitted.moments(flux)
    sigma = mean.clone()
    sigma[1, 2] += 2.9 * scatter[1, 2]
    sigma[2, 2] += 3.1 * scatter[2, 2]
    sigma[3, 2] = 1e6
    mask = torch.ones(4, 3, dtype=torch.bool)
    mask[3, 2] = False
    assert fitted.outside(Photometry.of(flux, sigma, mask=mask)).tolist() == [False, False, True, False]


def test_few_galaxies_make_fewer_bins_and_too_few_are_refused(catalog):
    small = NoiseModel.fit(catalog[:40], 1)
    assert small.magnitude.shape == (3, 16)
    assert bool(torch.isfinite(small.moments(catalog.flux[:40])[0]).all())
    with pytest.raises(ValueError, match="band 0: only 0 fluxes above 1 sigma"):
        NoiseModel.fit(catalog[:40].with_bands(torch.tensor([False, True, True])), 1)


def test_a_depth_that_is_told_is_the_noise_of_its_band(catalog):
    """A fifth of the flux at the depth from the sky, the fraction beside it, in a band of which nothing was measured."""
    without = catalog.with_bands(torch.tensor([True, True, False]))
    told = NoiseModel.fit(without, 1, depths={2: Depth(19.0, 0.1)})
    flux = fluxes_at(13.0, 19.0, 22.0)
    mean, scatter = told.moments(flux)
    sky = 0.2 * float(fluxes_at(19.0)[0, 2])
    expected = np.hypot(sky, 0.1 * flux[:2, 2])
    np.testing.assert_allclose(mean[:2, 2], expected, rtol=0.06)  # linear between bins 0.7 mag apart
    assert float(mean[2, 2]) == pytest.approx(
        np.hypot(sky, 0.1 * 5 * sky * 0.2), rel=0.03
    )  # below the sky, its noise alone
    assert bool((scatter[:, 2] > 0.09 * mean[:, 2]).all())
    fitted = NoiseModel.fit(catalog, 1)
    for band in range(2):
        assert torch.equal(told.mean[band], fitted.mean[band])


TEN_YEARS = {"u": 26.1, "g": 27.4, "r": 27.5}


@pytest.fixture(scope="module")
def years():
    """A survey's noise from one year's images to ten years', 1.25 mag apart, with errors of 1 % that no image makes less."""
    return NoiseModel.told([Depth(magnitude, 0.01) for magnitude in TEN_YEARS.values()], 1, (16.0, 25.5), 1.25)


def test_galaxies_are_observed_as_deep_as_some_year_has_it_in_all_bands_alike(years):
    """Sigma of the faint, fields apart, is uniform in its logarithm over 1.25 mag; of the bright it is 1 %."""
    faint, bright = fluxes_at(28.0).expand(40_000, -1), fluxes_at(17.0).expand(1000, -1)
    _, sigma, _ = years.observe(faint, torch.Generator().manual_seed(0))
    depth = 22.5 - 2.5 * torch.log10(5 * sigma)
    expected = torch.tensor([*TEN_YEARS.values()]) - 1.25 / 2
    assert torch.allclose(depth.mean(0), expected, atol=0.05)  # 3 % of the error follows noisy fluxes
    together = torch.corrcoef(depth.T)[0, 1]  # fields differ by 0.33 mag band by band, years by 1.25 / sqrt(12) = 0.36
    assert float(together) == pytest.approx(0.36**2 / (0.36**2 + 0.33**2), abs=0.05)
    noisy, sigma, selected = years.observe(bright, torch.Generator().manual_seed(1))
    assert torch.allclose((sigma / noisy).median(0).values, torch.tensor(0.01), rtol=0.05)
    assert bool(selected.all())


def test_the_noise_of_a_galaxy_of_any_year_is_told_by_its_uncertainties(years):
    flux = fluxes_at(24.5).expand(50_000, -1) * torch.tensor([1.0, 0.3, 3.0])
    noisy, stated, _ = years.observe(flux, torch.Generator().manual_seed(2))
    pull = (noisy - flux) * years.inverse_sigma(flux.unsqueeze(1), Photometry.of(noisy, stated))[:, 0]
    assert float(pull.std()) == pytest.approx(1, abs=0.02)
    assert abs(float(pull.mean())) < 0.01


def test_no_year_is_outside_and_a_shallower_one_is(years):
    flux = fluxes_at(24.5).expand(5000, -1)
    noisy, sigma, _ = years.observe(flux, torch.Generator().manual_seed(3))
    assert float(years.outside(Photometry.of(noisy, sigma)).float().mean()) < 0.01
    assert bool(years.outside(Photometry.of(noisy, 10 * sigma)).all())
    again = years.selecting((20.0, 24.0))
    assert again.shallower == years.shallower and again.selection == (20.0, 24.0)
