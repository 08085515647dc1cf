"""Bands in tension: predictions are those of a sum over the prior, a spoilt band is found and left out, clean ones are not."""

import dataclasses

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import special

from sedflow_dist import load_model
from sedflow_dist.inference.cascade import Router
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.inference.settings import InferenceSettings, Routing
from sedflow_dist.inference.summary import COLUMNS
from sedflow_dist.inference.tension import FALSE_ALARMS, BandTension, Tension
from sedflow_dist.keyed_random import uniforms
from sedflow_dist.parameters import probit, unit
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.validation.mock_galaxies import mock_galaxies

ROWS = np.arange(400)
ROUTING = Routing(effective_draws=10, more_draws=1, share=0.0)
OF_BANDS = {"band_p", "band_log_predictive", "left_out"}


@pytest.fixture(scope="module")
def sdss():
    """The model that comes along, whose draws serve nearly everywhere; the small flow's seldom do without a band."""
    return load_model("sdss")


@pytest.fixture(scope="module")
def whole(sdss):
    """Mock galaxies with all bands."""
    return mock_galaxies(sdss, 24, seed=8).photometry


@pytest.fixture(scope="module")
def wide(whole):
    """A galaxy whose data say so little that draws of the prior serve as draws of the posterior."""
    return dataclasses.replace(whole[:1], sigma=whole[:1].flux.abs() * 0.3)


def brightened(data, band, factor):
    return dataclasses.replace(data, flux=data.flux * torch.ones(5).index_fill(0, torch.tensor(band), factor))


def by_prior(flow, one, band, n=10_000):
    """p and ln of the predictive density of a band by sums over draws of the prior and a grid of masses, in float64."""
    phi = probit(torch.as_tensor(uniforms(3, "prior", 0, n, len(flow.space.coordinates) - 1)).float()).unsqueeze(0)
    theta = flow.space.from_unit(flow.space.join_any(unit(phi)))
    per_mass = flow.redshift_model.flux(theta, flow.redshift_model.at(one.redshift))[0].double().numpy()
    data, sigma = (x[0].double().numpy() for x in (one.flux, one.sigma))
    below = above = every = rest = 0.0
    for log_mass in np.arange(*flow.space.amplitude.prior.range, 0.03):  # a sum of terms so smooth is an integral
        residual = (data - per_mass * 10**log_mass) / sigma
        density = np.exp(-0.5 * residual**2) / sigma / np.sqrt(2 * np.pi)
        others = np.delete(density, band, 1).prod(1)
        rest += others.sum()
        every += (others * density[:, band]).sum()
        below += (others * special.ndtr(residual[:, band])).sum()
        above += (others * special.ndtr(-residual[:, band])).sum()
    return 2 * min(below, above) / rest, np.log(every / rest)


@pytest.mark.parametrize(("band", "factor"), [(0, 1.0), (2, 1.0), (4, 3.0), (1, 0.3)])
def test_predictions_are_those_of_a_sum_over_the_prior(sdss, wide, band, factor):
    """10 %: some hundred effective draws on either side. Factors put the band far from what the others predict."""
    data = brightened(wide, band, factor)
    found = BandTension(Posterior(sdss, 1, 4096), 100)(data, ROWS[:1])
    p, log_predictive = by_prior(sdss, data, band)
    assert found.p[0, band] == pytest.approx(p, rel=0.1, abs=1e-4)
    assert found.log_predictive[0, band] == pytest.approx(log_predictive, abs=0.1)


def test_predictions_of_a_flow_that_draws_the_mass_too(learnt_flow, whole):
    """Data that say less still: it is hardly trained."""
    data = dataclasses.replace(whole[:1], sigma=whole[:1].flux.abs())
    found = BandTension(Posterior(learnt_flow, 1, 4096), 100)(data, ROWS[:1])
    p, log_predictive = by_prior(learnt_flow, data, 1)
    assert found.p[0, 1] == pytest.approx(p, rel=0.1)
    assert found.log_predictive[0, 1] == pytest.approx(log_predictive, abs=0.1)


def test_where_the_own_draws_starve_the_flow_without_the_band_draws(sdss, whole, monkeypatch):
    """A band five times too bright: draws with it never see what the others say."""
    posterior, asked = Posterior(sdss, 1, 512), []
    propose = posterior.propose
    monkeypatch.setattr(
        posterior, "propose", lambda data, *a: (asked.append(data.n_bands.tolist()), propose(data, *a))[1]
    )
    found = BandTension(posterior, 10)(brightened(whole[:1], 3, 5.0), ROWS[:1])
    assert asked[0] == [5]
    assert {n for bands in asked[1:] for n in bands} == {4}
    assert found.p[0, 3] < 1e-3


def test_a_galaxys_numbers_are_its_rows_in_any_company_and_few_bands_say_nothing(sdss, mocks):
    tension, data = BandTension(Posterior(sdss, 1, 256), 10), mocks.photometry[:12]
    together = tension(data, ROWS[:12])
    alone = tension(data[7], ROWS[7:8])
    np.testing.assert_array_equal(together.p[7], alone.p[0])
    np.testing.assert_array_equal(together.log_predictive[7], alone.log_predictive[0])
    told, measured = np.isfinite(together.p), data.mask.numpy()
    assert told.any()
    assert not told[~measured | (measured.sum(1) <= 3)[:, None]].any()
    np.testing.assert_array_equal(told, np.isfinite(together.log_predictive))


def test_false_alarms_are_as_many_as_is_said_however_many_bands_are_told():
    p = np.random.default_rng(1).random((200_000, 8))
    for n in (1, 5, 8):
        some = np.where(np.arange(8) < n, p, np.nan)
        rate = Tension(some, np.log(some)).found().mean()
        assert rate == pytest.approx(FALSE_ALARMS, abs=4 * (FALSE_ALARMS / 200_000) ** 0.5)
    assert not Tension.unknown(3, 5).found().any()


def test_the_worst_band_is_told_where_probabilities_are_zero(whole):
    log_predictive = np.full((1, 5), -200.0)
    log_predictive[0, 2], log_predictive[0, 4] = -300.0, np.nan
    worst = Tension(np.zeros((1, 5)), log_predictive).worst(whole[:1])
    assert worst.tolist() == [[False, False, True, False, False]]


# -- answers -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spoilt(whole):
    """Galaxies of which the first twelve have a band five times too bright, each its own."""
    factor = torch.ones(24, 5)
    factor[torch.arange(12), torch.arange(12) % 5] = 5.0
    return dataclasses.replace(whole, flux=whole.flux * factor)


def routed(flow, data, **asked):
    settings = InferenceSettings(n_draws=256, routing=ROUTING, **asked)
    return Router.of(flow, 1, settings).summarise(data, np.zeros(len(data), np.uint32), 0)


@pytest.fixture(scope="module")
def looked(sdss, spoilt):
    return routed(sdss, spoilt, band_tension=True)


@pytest.fixture(scope="module")
def left(sdss, spoilt):
    return routed(sdss, spoilt, band_tension=True, leave_out="tension")


def flagged(summary):
    return (summary.flags & int(Flag.BAND_IN_TENSION)) != 0


def test_spoilt_bands_are_flagged_and_nothing_else_is_changed(sdss, spoilt, looked):
    plain = routed(sdss, spoilt)
    for column in COLUMNS:
        if column.name not in OF_BANDS:
            assert getattr(looked, column.name).tobytes() == getattr(plain, column.name).tobytes(), column.name
    np.testing.assert_array_equal(looked.flags & ~np.uint32(int(Flag.BAND_IN_TENSION)), plain.flags)
    assert np.isnan(plain.band_p).all()
    assert flagged(looked)[:12].sum() >= 10
    assert flagged(looked)[12:].sum() <= 2
    assert not looked.left_out.any()


def test_what_is_left_out_is_the_spoilt_band_and_the_answer_is_that_of_the_others(sdss, spoilt, looked, left):
    np.testing.assert_array_equal(left.band_p, looked.band_p)
    np.testing.assert_array_equal(flagged(left), flagged(looked))
    np.testing.assert_array_equal(left.left_out.any(1), flagged(left))
    right = left.left_out[np.arange(12), np.arange(12) % 5]
    assert right.sum() >= 9
    kept = spoilt.with_bands(~torch.as_tensor(left.left_out))
    alone = routed(sdss, kept)
    for name in ("quantiles", "n_bands", "log_evidence", "chi2", "method", "effective_draws"):
        np.testing.assert_array_equal(getattr(left, name), getattr(alone, name), err_msg=name)
    assert (left.n_bands == 5 - left.left_out.sum(1)).all()


def test_the_two_evidences_differ_by_the_predictive_density(sdss, spoilt, looked, left):
    """Of rows with one band left out: ln Z of all bands, of the flow's own draws, less that without; where both are worth it."""
    checked = 0
    for i in np.flatnonzero(left.left_out.sum(1) == 1):
        error = np.hypot(left.log_evidence_error[i], looked.log_evidence_error[i])
        difference = looked.band_log_predictive[i][left.left_out[i]][0] - (
            looked.log_evidence[i] - left.log_evidence[i]
        )
        assert difference > -5 * error - 0.01  # draws that starve find less
        checked += 1
    assert checked >= 5


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValidationError, match="band_tension weighs draws, which certificate: false does not do"):
        InferenceSettings(band_tension=True, certificate=False)
    with pytest.raises(ValidationError, match="leaves out what band_tension: true finds; set that as well"):
        InferenceSettings(leave_out="tension")
