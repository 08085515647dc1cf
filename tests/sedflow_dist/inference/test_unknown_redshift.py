"""Rows without a redshift: their draws against the exact posterior, redshift by redshift, and what the catalog says of them."""

import dataclasses

import numpy as np
import pytest
import torch

from sedflow_dist import load_model
from sedflow_dist.flow import head_training
from sedflow_dist.flow.head_training import HeadSettings
from sedflow_dist.inference import likelihood, unknown_redshift
from sedflow_dist.inference.cascade import Router
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.inference.reweight import NewPrior
from sedflow_dist.inference.settings import Routing, TargetPrior
from sedflow_dist.inference.summary import Method
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.validation.mock_galaxies import mock_galaxies

N = 2048


@pytest.fixture(scope="module")
def sdss():
    """The shipped model: the small flow of other tests leaves one draw of a hundred."""
    return load_model("sdss")


@pytest.fixture(scope="module")
def headed(sdss):
    settings = HeadSettings(hidden=(64, 64), n_galaxies=20_000, steps=200, batch=512, learning_rate=0.003, warm_up=20)
    return head_training.train(sdss, settings, seed=2)


@pytest.fixture(scope="module")
def mocks(sdss):
    return mock_galaxies(sdss, 16, 5)


@pytest.fixture(scope="module")
def posterior(headed):
    return Posterior(headed, seed=1, n_draws=N)


def hidden(photometry):
    """The same without redshifts."""
    nan = torch.full_like(photometry.redshift, torch.nan)
    return dataclasses.replace(photometry, redshift=nan, redshift_sigma=nan)


def by_redshift(posterior, one, n=48):
    """Evidence of a galaxy, and mean and width of its redshift: evidences at exact redshifts, which the prior has alike."""
    lo, hi = posterior.flow.spec.redshift
    z = torch.linspace(lo, hi, n + 1).diff().cumsum(0) - 0.5 * (hi - lo) / n
    at = dataclasses.replace(one[[0] * n], redshift=z, redshift_sigma=torch.zeros(n))
    log_z = posterior.draw(at, np.zeros(n, int), 512).log_evidence
    weight = torch.softmax(log_z, 0)
    mean = float(weight @ z.double())
    return float(log_z.logsumexp(0)) - np.log(n), mean, float((weight @ (z.double() - mean) ** 2).sqrt())


def test_redshifts_and_evidence_are_those_of_an_integral_over_redshifts(posterior, mocks):
    """Evidences to 0.1 (both have errors of 0.03 to 0.05), redshifts to a tenth of their widths."""
    at = posterior.columns.index("redshift")
    rows = np.arange(6)
    found = posterior.draw(hidden(mocks.photometry[rows]), rows, N)
    z, weight = found.values[..., at].double(), found.weight
    mean = (weight * z).sum(1)
    width = (weight * (z - mean.unsqueeze(1)) ** 2).sum(1).sqrt()
    assert float(found.effective_fraction.min()) > 0.05  # of a head of 200 steps
    for i in rows.tolist():
        log_z, expected, spread = by_redshift(posterior, mocks.photometry[[i]])
        assert float(found.log_evidence[i]) == pytest.approx(log_z, abs=0.1)
        assert float(mean[i]) == pytest.approx(expected, abs=0.15 * spread)
        assert float(width[i]) == pytest.approx(spread, rel=0.15)


def test_each_draw_is_at_its_own_redshift(posterior, mocks):
    """What it says of the data is what the full galaxy model says there."""
    found = posterior.draw(hidden(mocks.photometry[[3]]), np.array([3]), 64)
    flow, space = posterior.flow, posterior.flow.space
    z = found.values[0, :, posterior.columns.index("redshift")]
    assert len(z.unique()) == 8  # eight draws at each
    flux = flow.redshift_model.model.fluxes(found.values[0, :, : len(space.names)], z)
    _, chi2 = likelihood.gaussian(flux.unsqueeze(0), mocks.photometry[[3]])
    torch.testing.assert_close(found.chi2, chi2, rtol=0.02, atol=0.02)


def test_a_row_is_the_same_in_any_block(posterior, mocks):
    photometry = mocks.photometry[:5]
    unknown = hidden(photometry)
    mixed = type(photometry).concatenate([photometry[:2], unknown[2:4], photometry[4:]])
    rows = np.arange(5)
    whole, alone = posterior.draw(mixed, rows, 256), posterior.draw(unknown[[3]], rows[3:4], 256)
    torch.testing.assert_close(whole.values[3], alone.values[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(whole.log_evidence[3], alone.log_evidence[0], rtol=1e-5, atol=1e-5)
    exact = posterior.draw(photometry[:2], rows[:2], 256)
    assert torch.equal(whole.values[:2], exact.values)
    given = exact.values[..., posterior.columns.index("redshift")]
    assert torch.equal(given, photometry.redshift[:2].unsqueeze(1).expand_as(given))


def test_a_peak_that_the_head_misses_is_found_by_the_defensive_share(posterior, mocks, monkeypatch):
    """A head that is sure of the wrong half of the redshifts: with the share the evidence is right, without it is lost."""
    one, row = mocks.photometry[[0]], np.array([0])
    log_z, expected, _ = by_redshift(posterior, one)
    head = posterior.flow.head
    wrong = torch.linspace(0, -40, len(head.edges) - 1) * (1 if expected > 0.1 else -1)
    monkeypatch.setattr(type(head), "log_bins", lambda *_: torch.log_softmax(wrong, 0).unsqueeze(0))
    monkeypatch.setattr(unknown_redshift, "POWER", 0.0)  # flat
    found = posterior.draw(hidden(one), row, 4 * N)
    assert float(found.log_evidence[0]) == pytest.approx(log_z, abs=0.3)
    monkeypatch.setattr(unknown_redshift, "DEFENSIVE", 0.0)
    lost = posterior.draw(hidden(one), row, 4 * N)
    z = lost.values[0, :, posterior.columns.index("redshift")].double()
    missed = abs(float((lost.weight[0] * z).sum()) - expected)
    kept = found.values[0, :, posterior.columns.index("redshift")].double()
    assert missed > 3 * abs(float((found.weight[0] * kept).sum()) - expected)


def test_the_catalog_says_which_redshifts_are_inferred(headed, sdss, mocks):
    photometry = type(mocks.photometry).concatenate([mocks.photometry[:3], hidden(mocks.photometry[3:6])])
    flags = np.zeros(6, np.uint32)
    flags[3:] = int(Flag.BAD_REDSHIFT)  # as ingest says of rows without one
    routing = Routing(share=1.0, more_draws=1, effective_draws=1, walkers=22, short_steps=60, long_steps=60)
    summary = Router(Posterior(headed, 1, 256), routing).summarise(photometry, flags, 0)
    inferred, bad = (summary.flags & int(flag) != 0 for flag in (Flag.REDSHIFT_INFERRED, Flag.BAD_REDSHIFT))
    assert inferred.tolist() == [False] * 3 + [True] * 3 and not bad.any()
    assert (summary.method != Method.NONE).all()
    at = Posterior(headed, 1, 256).columns.index("redshift")
    low, middle, high = summary.quantiles[:, at, [0, 2, 4]].T
    assert np.allclose(middle[:3], photometry.redshift[:3]) and np.allclose(low[:3], high[:3])
    assert (low[3:] < middle[3:]).all() and (middle[3:] < high[3:]).all()
    without = Router(Posterior(sdss, 1, 256), routing).summarise(photometry, flags, 0)
    assert (without.method[3:] == Method.NONE).all() and (without.flags[3:] & int(Flag.BAD_REDSHIFT) != 0).all()
    assert not (without.flags & int(Flag.REDSHIFT_INFERRED)).any()


def test_a_table_of_redshifts_acts_as_a_factor_of_the_weights(headed, mocks):
    """Three times as many galaxies beyond the median: the odds of the upper half are multiplied by three."""
    one, rows = hidden(mocks.photometry[[1]]), np.array([1])
    flat = Posterior(headed, seed=1, n_draws=N).draw(one, rows, N)
    z = flat.redshift[0]
    middle = float(z.sort().values[len(z) // 2])
    table = {"edges": [0.0, middle, 0.2], "number": [middle, 3 * (0.2 - middle)]}
    target = NewPrior.of(TargetPrior(redshift=table), headed, 1)
    found = Posterior(headed, seed=1, n_draws=N, target=target).draw(one, rows, N)
    upper = [float(draws.weight[0][z >= middle].sum()) for draws in (flat, found)]
    odds = [share / (1 - share) for share in upper]
    assert 0.01 < upper[0] < 0.99 and odds[1] == pytest.approx(3 * odds[0], rel=0.01)  # tails are smoothed
