"""Support: one training galaxy in a thousand is novel, rescaled or not, with or without all bands; strange ones are."""

import dataclasses

import numpy as np
import pytest
import torch
from provabgs import SPACE
from scipy.stats import multivariate_normal

from sedflow_dist import magnitudes
from sedflow_dist.flow import support
from sedflow_dist.flow.support import FALSE_ALARMS, Novelty
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.simulation.mocks import MockSurvey

OUTSIDE = (Flag.REDSHIFT_OUTSIDE_MODEL, Flag.NOISE_OUTSIDE_TRAINING, Flag.COLOUR_OUTSIDE_TRAINING, Flag.NOVEL)


@pytest.fixture(scope="module")
def fresh(noise, shapes):
    """100,000 mock galaxies with all bands that no fit has seen."""
    return (
        MockSurvey(noise, SPACE.amplitude.prior.range, drop_out=0.0).observe(shapes, 100_000, generator(77)).photometry
    )


@pytest.fixture(scope="module")
def few(fresh):
    """5,000 of them."""
    return fresh[:5_000]


def generator(seed):
    return torch.Generator().manual_seed(seed)


def changed(photometry, **values):
    return dataclasses.replace(photometry, **values)


def with_band(values, band, factor):
    """The same with one band multiplied."""
    out = values.clone()
    out[:, band] *= factor
    return out


def rates(flow, photometry):
    """Share of galaxies with each flag."""
    found = support.flags(flow.spec.redshift, flow.noise, flow.colour_range, flow.novelty, photometry)
    assert found.dtype == np.uint32
    return {flag: float(np.mean((found & int(flag)) != 0)) for flag in OUTSIDE}


# -- the score --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [[], [0], [1, 4]])
def test_the_score_is_the_density_of_the_contrasts(missing):
    """Two Gaussians, written out in differences to the last measured ln sigma instead of an orthonormal basis."""
    rng = np.random.default_rng(3)
    roots = 0.3 * rng.standard_normal((2, 11, 11)) + np.eye(11)
    weight, mean = np.array([0.3, 0.7]), rng.standard_normal((2, 11))  # of five ln fluxes, five ln sigmas, redshift
    covariance = roots @ roots.transpose(0, 2, 1)
    basis = torch.block_diag(support._helmert(10), torch.ones(1, 1, dtype=torch.float64)).numpy()
    mixture = weight, mean @ basis.T, basis @ covariance @ basis.T, np.zeros(3)
    flux, sigma, z = rng.lognormal(3, 1, (20, 5)), rng.lognormal(0, 0.5, (20, 5)), rng.uniform(0, 1, 20)
    flux[0, 2] = -1.0
    mask = torch.ones(20, 5, dtype=torch.bool)
    mask[:, missing] = False
    tensor = torch.as_tensor
    seen = Photometry(tensor(flux), tensor(sigma), mask, tensor(z), torch.zeros(20))  # float64
    found = Novelty(*map(tensor, mixture)).score(seen)

    x = np.concatenate([np.arcsinh(flux / (2 * sigma)) + np.log(2 * sigma), np.log(sigma), z[:, None]], axis=1)
    kept = [*np.flatnonzero(np.tile(mask[0].numpy(), 2)), 10]
    last = len(kept) - 2
    differences = np.eye(len(kept))
    differences[:last, last] = -1
    differences = np.delete(differences, last, axis=0)
    y, mean = x[:, kept] @ differences.T, mean[:, kept] @ differences.T
    covariance = differences @ covariance[:, kept][:, :, kept] @ differences.T
    density = sum(w * multivariate_normal(m, c).pdf(y) for w, m, c in zip(weight, mean, covariance, strict=True))
    whole = weight @ covariance.reshape(2, -1) + np.cov(mean.T, aweights=weight, ddof=0).ravel()
    expected = -np.log(density) - 0.5 * np.linalg.slogdet(whole.reshape(covariance[0].shape))[1]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("n_missing", [0, 1, 2])
def test_rescaling_a_galaxy_leaves_its_score(flow, few, n_missing):
    """To 1e-9 in float64; float32 rounds fluxes to 1e-7, of which the sharpest component (some 1e-2 wide) makes 1e-3."""
    mask = support.drop(few.mask, n_missing, generator(1))
    double = changed(few, mask=mask, flux=few.flux.double(), sigma=few.sigma.double())
    expected = flow.novelty.score(double)
    for factor in (1e-6, 0.3, 7.0, 1e8):
        found = flow.novelty.score(changed(double, flux=factor * double.flux, sigma=factor * double.sigma))
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
        single = changed(few, mask=mask, flux=factor * few.flux, sigma=factor * few.sigma)
        torch.testing.assert_close(flow.novelty.score(single), expected, atol=1e-3, rtol=1e-4)


def test_a_score_does_not_depend_on_the_block(flow, few):
    mixed = changed(few, mask=support.drop(few.mask, 1, generator(2)) | (torch.arange(5_000) % 3 == 0).unsqueeze(1))
    expected = flow.novelty.score(mixed)
    for rows in (slice(0, 1), slice(100, 107), slice(250, 1_300)):
        torch.testing.assert_close(flow.novelty.score(mixed[rows]), expected[rows], atol=1e-9, rtol=1e-9)
    order = torch.randperm(5_000, generator=generator(3))
    torch.testing.assert_close(flow.novelty.score(mixed[order]), expected[order], atol=1e-9, rtol=1e-9)


def test_what_a_missing_band_holds_does_not_count(flow, few):
    mask = support.drop(few.mask, 2, generator(4))
    zero = changed(few, mask=mask, flux=few.flux * mask, sigma=few.sigma * mask)
    assert torch.equal(flow.novelty.score(zero), flow.novelty.score(changed(few, mask=mask)))


def test_rows_without_a_redshift_or_enough_bands_have_no_score(flow, few):
    rows = changed(few[:2], mask=few.mask[:2].clone(), redshift=few.redshift[:2].clone())
    rows.mask[0, 1:4] = False
    rows.redshift[1] = torch.nan
    assert bool(flow.novelty.score(rows).isnan().all())
    assert rates(flow, rows)[Flag.NOVEL] == 0


def test_negative_and_absurd_fluxes_have_a_score(flow, few):
    flux = few.flux[:4].clone()
    flux[0, 0], flux[1], flux[2, 4], flux[3, 1] = -1.0, -flux[1], 1e30, 0.0
    found = flow.novelty.score(changed(few[:4], flux=flux))
    assert not bool(found.isnan().any())
    assert bool((found[[1, 2]] > flow.novelty.limit[0]).all())


# -- false alarms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_missing", [0, 1, 2])
def test_one_in_a_thousand_training_galaxies_is_novel(flow, fresh, n_missing):
    """Within 4 sigma of two binomials: the limit rests on 100,000 galaxies too. Averaged over which bands miss."""
    found = rates(flow, changed(fresh, mask=support.drop(fresh.mask, n_missing, generator(5))))[Flag.NOVEL]
    assert abs(found - FALSE_ALARMS) < 4 * (2 * FALSE_ALARMS / len(fresh)) ** 0.5


@pytest.mark.parametrize("missing", [[0], [1], [2], [3], [4], [0, 1], [1, 3], [3, 4]])
def test_no_set_of_missing_bands_has_far_more_or_fewer_false_alarms(flow, fresh, missing):
    """A limit is that of all sets of so many bands: a single set lies within a factor of three."""
    mask = fresh.mask.clone()
    mask[:, missing] = False
    assert FALSE_ALARMS / 3 < rates(flow, changed(fresh, mask=mask))[Flag.NOVEL] < 3 * FALSE_ALARMS


@pytest.mark.parametrize("n", [0, 1, 2])
def test_bands_are_dropped_evenly(n):
    left = support.drop(torch.ones(4_096, 5, dtype=torch.bool), n, generator(6))
    assert bool((left.sum(1) == 5 - n).all())
    assert float((left.float().mean(0) - (1 - n / 5)).abs().max()) < 0.1


# -- what is caught ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("band", "least"), [(0, 0.6), (1, 0.99), (2, 0.99), (3, 0.99), (4, 0.99)])
def test_one_flux_three_times_too_high_is_novel(flow, few, band, least):
    """In u a young population may look like that."""
    found = rates(flow, changed(few, flux=with_band(few.flux, band, 3)))
    assert found[Flag.NOVEL] > least
    assert found[Flag.NOVEL] >= found[Flag.COLOUR_OUTSIDE_TRAINING]


@pytest.mark.parametrize("band", [None, 0, 1, 2, 3, 4])
def test_uncertainties_far_too_small_are_novel(flow, few, band):
    """A thirtieth, in all bands or in one: neither colours nor upper limits of uncertainties can tell."""
    sigma = few.sigma / 30 if band is None else with_band(few.sigma, band, 1 / 30)
    found, before = rates(flow, changed(few, sigma=sigma)), rates(flow, few)
    assert found[Flag.NOVEL] > 0.9
    assert found[Flag.NOISE_OUTSIDE_TRAINING] <= before[Flag.NOISE_OUTSIDE_TRAINING]
    assert found[Flag.COLOUR_OUTSIDE_TRAINING] == before[Flag.COLOUR_OUTSIDE_TRAINING]


def test_colours_each_in_range_that_no_galaxy_has_together_are_novel(flow, few):
    """Every colour comes from another mock galaxy; uncertainties are those of the noise model."""
    colour, _ = magnitudes.colours(few.flux, few.mask)
    colour = torch.stack([colour[torch.randperm(5_000, generator=generator(i)), i] for i in range(4)], dim=1)
    ratio = 10 ** (0.4 * torch.cat([torch.zeros(5_000, 1), colour.cumsum(1)], dim=1))
    flux = few.flux[:, 2:3] * ratio / ratio[:, 2:3]
    found = rates(flow, changed(few, flux=flux, sigma=flow.noise.moments(flux)[0]))
    assert found[Flag.NOVEL] > 0.5
    assert found[Flag.COLOUR_OUTSIDE_TRAINING] < 0.01
    assert found[Flag.NOISE_OUTSIDE_TRAINING] == 0


# -- flags stay separate ----------------------------------------------------------------------------------------------


def test_each_reason_has_its_own_flag(flow, few):
    """Uncertainties somewhat too large, a redshift just outside, one odd colour: each flag is that of its reason."""
    usual = rates(flow, few)
    noisy = rates(flow, changed(few, sigma=few.sigma * 20))
    assert noisy[Flag.NOISE_OUTSIDE_TRAINING] > 0.99
    far = rates(flow, changed(few, redshift=torch.full_like(few.redshift, flow.spec.redshift[1] + 1e-3)))
    assert far[Flag.REDSHIFT_OUTSIDE_MODEL] == 1
    red = rates(flow, changed(few, flux=with_band(few.flux, 4, 3)))
    assert red[Flag.COLOUR_OUTSIDE_TRAINING] > 0.9
    for found, own in ((noisy, OUTSIDE[1]), (far, OUTSIDE[0]), (red, OUTSIDE[2])):
        for flag in set(OUTSIDE[:3]) - {own}:
            assert found[flag] <= usual[flag] + 0.01


# -- the fit ----------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_mixture(flow, noise, shapes):
    """Bit by bit, on another number of threads."""
    survey, threads = MockSurvey(noise, SPACE.amplitude.prior.range, drop_out=0.2), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        again = Novelty.fit(survey, shapes, seed=5)
    finally:
        torch.set_num_threads(threads)
    assert again.state_dict().keys() == flow.novelty.state_dict().keys()
    for name, values in again.state_dict().items():
        assert torch.equal(values, getattr(flow.novelty, name)), name
