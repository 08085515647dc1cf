"""Predictions in bands that were not shown: against normal distributions, whose answer is known, and through a flow."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.validation.predictions import Predictions, agreement, predict, quantile, ranks

N, DRAWS = 2000, 1000
MODEL_SIGMA, NOISE = 3.0, 4.0


def invented(shift=0.0, weighted=False):
    """Galaxies whose band 0 the posterior knows to 3 and the survey measured to 4 nanomaggies; band 1 is half unmeasured."""
    rng = np.random.default_rng(1)
    truth = rng.uniform(100, 200, N)
    believed = truth + MODEL_SIGMA * rng.standard_normal(N)
    drawn = believed[:, None] + MODEL_SIGMA * rng.standard_normal((N, DRAWS)) * (2 if weighted else 1)
    weight = np.full((N, DRAWS), 1 / DRAWS)
    if weighted:  # drawn twice as wide as the posterior, and weighed for it
        weight = np.exp(-1.5 * ((drawn - believed[:, None]) / (2 * MODEL_SIGMA)) ** 2)
        weight /= weight.sum(1, keepdims=True)
    measured = truth + shift + NOISE * rng.standard_normal(N)
    mask = np.stack([np.ones(N, bool), np.arange(N) % 2 == 0], 1)
    photometry = Photometry.of(np.stack([measured] * 2, 1), np.full((N, 2), NOISE), 0.1, mask)
    nothing = np.zeros(N)
    flux = np.stack([drawn] * 2, -1).astype(np.float32)
    return Predictions(flux, weight, nothing > -1, nothing, nothing, nothing, nothing), photometry, believed


@pytest.mark.parametrize("weighted", [False, True])
def test_the_predictive_distribution_is_draws_with_noise(weighted):
    """Normal draws and normal noise: their sum's cumulative distribution, to the draws' own scatter."""
    predictions, photometry, believed = invented(weighted=weighted)
    expected = stats.norm.cdf(photometry.flux[:, 0], believed, np.hypot(MODEL_SIGMA, NOISE))
    assert np.abs(ranks(predictions, photometry, 0) - expected).max() < 0.06
    assert np.array_equal(np.isnan(ranks(predictions, photometry, 1)), np.arange(N) % 2 == 1)


def test_coverage_is_nominal_where_model_and_noise_are_right():
    predictions, photometry, _ = invented()
    found = agreement(predictions, photometry, 0)
    assert found.galaxies == N
    assert found.within_68 == pytest.approx(0.683, abs=3 * np.sqrt(0.683 * 0.317 / N))
    assert found.within_95 == pytest.approx(0.9545, abs=3 * np.sqrt(0.9545 * 0.0455 / N))
    assert abs(found.offset) < 0.005
    assert found.error == pytest.approx(1.086 * NOISE / 145, rel=0.1)
    assert agreement(predictions, photometry, 1).galaxies == N // 2


def test_an_offset_is_told_in_magnitudes_and_costs_coverage():
    """8 nanomaggies too bright at 150: -0.056 mag, 1.6 standard deviations."""
    predictions, photometry, _ = invented(shift=8.0)
    found = agreement(predictions, photometry, 0)
    assert found.offset == pytest.approx(-2.5 * np.log10(158 / 150), abs=0.006)
    z = 8 / np.hypot(MODEL_SIGMA, NOISE)
    assert found.within_68 == pytest.approx(stats.norm.cdf(1 - z) - stats.norm.cdf(-1 - z), abs=0.04)


def some(predictions, rows):
    return Predictions(*(values[rows] for values in vars(predictions).values()))


def test_detections_alone_are_calibrated_once_the_limit_is_told():
    """Galaxies measured above 150 alone, predicted near it: they look too bright, until the predictions know of the limit.

    Coverage to three standard errors of a share; the conditional distribution against that of a truncated normal.
    """
    predictions, photometry, believed = invented()
    flux = photometry.flux[:, 0].double().numpy()
    at = np.flatnonzero((flux > 150) & (believed > 142) & (believed < 156))
    limit, shown, seen = np.full(len(at), 150.0), some(predictions, at), photometry[at]
    plain, told = agreement(shown, seen, 0), agreement(shown, seen, 0, limit)
    assert told.within_68 == pytest.approx(0.683, abs=3 * np.sqrt(0.683 * 0.317 / len(at)))
    assert plain.offset < -0.02 and abs(told.offset) < 0.007
    width = np.hypot(MODEL_SIGMA, NOISE)
    exact = stats.truncnorm((150 - believed[at]) / width, np.inf, loc=believed[at], scale=width)
    assert np.abs(ranks(shown, seen, 0, limit) - exact.cdf(flux[at])).max() < 0.1
    assert np.abs(quantile(shown, seen, 0, 0.5, limit) - exact.median()).max() < 0.6
    fainter = np.flatnonzero(flux < 150)[:20]
    assert np.isnan(ranks(some(predictions, fainter), photometry[fainter], 0, limit[:20])).all()


def test_a_quantile_is_the_flux_of_that_rank():
    predictions, photometry, _ = invented(weighted=True)
    predictions, photometry = some(predictions, slice(100)), photometry[:100]
    wanted = np.random.default_rng(3).random(100)
    drawn = quantile(predictions, photometry, 0, wanted)
    again = replace(photometry, flux=torch.as_tensor(np.stack([drawn] * 2, 1)))
    np.testing.assert_allclose(ranks(predictions, again, 0), wanted, atol=1e-4)
    assert np.array_equal(np.isnan(quantile(predictions, photometry, 1, 0.5)), np.arange(100) % 2 == 1)


def test_a_flow_predicts_a_band_that_it_was_not_shown(flow, mocks):
    """u from griz, of mock galaxies: their posterior's draws reach it, through the model's own fluxes."""
    whole = mocks.photometry[mocks.photometry.mask.all(1)][:40]
    shown = whole.with_bands(torch.tensor([False, True, True, True, True]))
    found = predict(Posterior(flow, seed=1, n_draws=256), shown, np.arange(40))
    np.testing.assert_allclose(found.weight.sum(1), 1, rtol=1e-5)
    u, r = agreement(found, whole, 0), agreement(found, whole, 2)
    assert u.galaxies == r.galaxies == 40
    assert u.within_95 > 0.75  # nominal but for the chance of 40
    assert abs(r.offset) < 0.02 < u.scatter
    both = predict(Posterior(flow, seed=1, n_draws=256), shown[20:], np.arange(20, 40))
    np.testing.assert_allclose(both.flux, found.flux[20:], rtol=1e-3)  # rows keep their draws in any block
