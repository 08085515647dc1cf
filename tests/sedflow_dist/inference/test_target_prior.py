"""A target prior as a factor of the weights: known distributions, known evidences, and rows that it leaves nothing of."""

from functools import cache

import numpy as np
import pytest
import torch
from provabgs import SPACE
from pydantic import ValidationError
from scipy import integrate, stats

from sedflow_dist.inference.cascade import Router, _Chain
from sedflow_dist.inference.interim_prior import prior_draws
from sedflow_dist.inference.mass_function import Leja2020
from sedflow_dist.inference.mass_metallicity import Gallazzi2005
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.inference.reweight import NewPrior
from sedflow_dist.inference.settings import InferenceSettings, Routing, TargetPrior
from sedflow_dist.inference.summary import Method
from sedflow_dist.parameters import probit
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.sps import derived

COLUMNS = tuple(q.name for q in derived.columns(SPACE, "ugriz"))
Z = 0.1  # a step of the estimates
LEJA, GALLAZZI = "log_mstar_surviving=leja2020(min=9)", "log_z_mw=gallazzi2005()"


@pytest.fixture(scope="module")
def target(flow):
    """Makes target priors of some densities; what one has estimated is kept."""
    return cache(lambda *texts, relative_to="implied": NewPrior.build(texts, flow, 1, relative_to))


@pytest.fixture(scope="module")
def interim(flow):
    """Draws of the interim prior, other ones than the estimates are made from."""
    return torch.as_tensor(prior_draws(flow, Z, seed=2, n=60_000))


def weigh(prior, draws):
    """Weights of draws of the interim prior under a target, and the mean of the factor."""
    factor = prior.log_factor(draws.unsqueeze(0), torch.tensor([Z]))[0].exp().numpy()
    return factor / factor.sum(), factor.mean()


def column(draws, name):
    return draws[:, COLUMNS.index(name)].double().numpy()


def distance(x, weight, cdf):
    """Kolmogorov-Smirnov distance of weighted draws from a distribution."""
    order = np.argsort(x)
    return np.abs(weight[order].cumsum() - cdf(x[order])).max()


# -- draws of the interim prior become draws of the target --------------------------------------------------------------


def leja_cdf(x):
    grid = np.linspace(9, 12.2, 2001)
    shares = integrate.cumulative_simpson(np.exp(Leja2020().log_phi(grid, Z)), x=grid, initial=0)
    return np.interp(x, grid, shares / shares[-1])


def test_masses_get_the_mass_function(target, interim):
    """KS distance below 0.02, where the weights are worth 10,000 draws; the factor's mean is one to 2 %."""
    weight, mean = weigh(target(LEJA), interim)
    effective = 1 / (weight**2).sum()
    assert effective > 5000
    assert distance(column(interim, "log_mstar_surviving"), weight, leja_cdf) < 0.02
    assert mean == pytest.approx(1, abs=0.03)
    assert distance(column(interim, "log_mstar_surviving"), np.full(60_000, 1 / 60_000), leja_cdf) > 0.2


def test_masses_and_metallicities_get_both_relations(target, interim):
    """The masses' distribution is that of the mass function all the same, and metallicities follow theirs in three bins."""
    weight, mean = weigh(target(LEJA, GALLAZZI), interim)
    mass, metallicity = column(interim, "log_mstar_surviving"), column(interim, "log_z_mw")
    assert mean == pytest.approx(1, abs=0.06)
    assert distance(mass, weight, leja_cdf) < 0.04
    solar = np.log10(0.02)
    for low, high in ((9.0, 9.2), (9.9, 10.1), (10.7, 11.0)):
        inside = (mass > low) & (mass < high)
        own = weight[inside] / weight[inside].sum()
        centre, sigma = Gallazzi2005().relation(np.asarray((own * mass[inside]).sum()))
        a, b = ((edge + solar - centre) / sigma for edge in (-1.98, 0.19))
        expected = stats.truncnorm(a, b, centre, sigma)
        error = expected.std() * np.sqrt((own**2).sum())
        assert (own * metallicity[inside]).sum() == pytest.approx(expected.mean(), abs=5 * error)


@pytest.mark.parametrize(("relative_to", "power"), [("implied", 0), ("unity", 1)])
def test_a_density_replaces_the_interim_one_or_multiplies_it(target, interim, relative_to, power):
    """gamma1, which is log-uniform: means by quadrature of the normal, and of the normal over gamma1, to 5 sigma."""
    text, x = "gamma1=norm(0.004,0.003)", column(interim, "gamma1")
    weight, mean = weigh(target(text, relative_to=relative_to), interim)
    grid = np.geomspace(4.5e-5, 1.5e-2, 4001)
    density = stats.norm(0.004, 0.003).pdf(grid) / grid**power
    expected = integrate.simpson(grid * density, x=grid) / integrate.simpson(density, x=grid)
    error = np.sqrt((weight**2 * (x - expected) ** 2).sum())
    assert (weight * x).sum() == pytest.approx(expected, abs=5 * error)
    assert mean == pytest.approx(1, abs=0.03)


def test_columns_that_depend_on_each_other_can_only_be_multiplied(target):
    texts = (LEJA, "log_sfr_1gyr=norm(0,1)")
    with pytest.raises(ValueError, match=r"depend on each other through .*relative to unity"):
        target(*texts)
    assert target(*texts, relative_to="unity").describe()[-1].endswith("that times, as it is, the interim one")


def test_what_the_target_has_in_common_with_the_interim_prior_is_told(target):
    assert target("tau_ism=uniform(0,1.5)").overlap(Z) == pytest.approx(65_536 / 2, rel=0.02)
    assert target("log_mstar=uniform(20,1)").overlap(Z) == 0


# -- posteriors -----------------------------------------------------------------------------------------------------------


def test_evidence_is_that_of_the_target_prior(flow, mocks, target):
    """Of two halves of tau_ism's range: their mean is the interim prior's, to 1.5 % (its half, from 65,536 draws: 0.4 %)."""
    some, rows = mocks.photometry[:20], np.arange(20)
    plain = Posterior(flow, seed=3).draw(some, rows, 256)
    halves = [
        Posterior(flow, seed=3, target=target(f"tau_ism=uniform({low},1.5)")).draw(some, rows, 256)
        for low in (0.0, 1.5)
    ]
    for low, found in zip((0.0, 1.5), halves, strict=True):
        torch.testing.assert_close(found.values, plain.values, rtol=0, atol=0)
        torch.testing.assert_close(found.interim.weight, plain.weight, rtol=0, atol=0)
        tau = found.values[..., COLUMNS.index("tau_ism")]
        assert bool((found.weight[(tau < low) | (tau > low + 1.5)] == 0).all())
    mean = torch.stack([found.log_evidence - plain.log_evidence for found in halves]).exp().mean(0)
    np.testing.assert_allclose(mean, 1, atol=0.015)


def test_rows_that_the_target_leaves_nothing_of_say_so(flow, mocks, target):
    """No answer and its flag; what the prior has taken of the others stands in their columns."""
    flags = np.zeros(40, np.uint32)

    def infer(prior):
        posterior = Posterior(flow, seed=3, n_draws=512, target=prior)
        return Router(posterior, Routing(share=0.0, more_draws=1)).summarise(mocks.photometry[:40], flags, 0)

    before, some = infer(None), infer(target("tau_ism=norm(0.6,0.5)"))
    answered = before.method > 0
    same = (some.method == before.method) & answered
    assert same.sum() > 30
    np.testing.assert_array_equal(some.interim_effective_draws[same], before.effective_draws[same])
    assert np.median((some.effective_draws / some.interim_effective_draws)[answered]) < 0.9
    none = infer(target("tau_ism=norm(2.99,1e-4)"))
    assert (none.method == Method.NONE).all() and np.isnan(none.quantiles).all()
    assert ((none.flags[answered] & int(Flag.PRIOR_TOO_FAR)) > 0).all()
    assert not ((before.flags | some.flags[some.method > 0].max()) & int(Flag.PRIOR_TOO_FAR)).any()
    assert not ((none.flags | some.flags) & int(Flag.FAILED)).any()


def test_chains_are_weighed_by_the_target_too(flow, mocks, target, monkeypatch):
    """A chain of draws of the interim posterior gives what weighted draws give, and is replayed so, to 0.2 of the width."""
    prior, tau = target("tau_ism=norm(0.6,0.3)"), COLUMNS.index("tau_ism")
    some, rows, own = mocks.photometry[:20], np.arange(20), Posterior(flow, seed=3, target=prior)
    draws = own.draw(some, rows, 2048)
    row = int(draws.effective_fraction.argmax())
    one, flags, at = some[np.array([row])], np.zeros(1, np.uint32), np.array([row])
    pick = own.resample(draws.interim.weight[[row]], at, 1280)[0]
    phi = probit(SPACE.split(draws.unit[row][pick])[1]).numpy().reshape(40, 32, -1)
    router = Router(own, Routing(share=1.0, more_draws=1, effective_draws=1_000_000))
    monkeypatch.setattr(router, "_chains", lambda *_: [_Chain(phi, 1.0, 1280.0, Method.SHORT_MCMC)])
    expected, found = own.summarise(one, flags, row), router.summarise(one, flags, row)
    width, median = float(expected.std[0, tau]), float(expected.quantiles[0, tau, 2])
    assert (expected.method[0], found.method[0]) == (Method.WEIGHTED, Method.SHORT_MCMC)
    assert float(found.quantiles[0, tau, 2]) == pytest.approx(median, abs=0.2 * width)
    assert found.effective_draws[0] < 0.9 * found.interim_effective_draws[0] == 0.9 * 1280
    replayed = router.draws(one, at, found.method, 1000)[0, :, tau]
    assert float(np.median(replayed)) == pytest.approx(median, abs=0.2 * width)


# -- settings -------------------------------------------------------------------------------------------------------------


def test_settings_read_densities_when_they_are_read():
    assert TargetPrior(densities=(LEJA, GALLAZZI)).relative_to == "implied"
    with pytest.raises(ValidationError, match="'leja' is none of flat, leja2020"):
        TargetPrior(densities=("log_mstar_surviving=leja(8)",))
    with pytest.raises(ValidationError, match="'implied' or 'unity'"):
        TargetPrior(densities=(LEJA,), relative_to="flat")
    with pytest.raises(ValidationError, match="without the certificate draws have no weights"):
        InferenceSettings(certificate=False, prior=TargetPrior(densities=(LEJA,)))
