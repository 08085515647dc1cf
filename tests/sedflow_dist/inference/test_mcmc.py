"""MCMC: the target against brute force, samplers on posteriors that are known, diagnostics against ArviZ and an AR(1)."""

import math
import sys
from dataclasses import replace

import arviz
import numpy as np
import pytest
import torch
from provabgs import N_SHAPE, SPACE
from scipy import stats

from sedflow_dist.inference import importance, likelihood, lockstep, mcmc
from sedflow_dist.inference.mcmc import State, Target
from sedflow_dist.parameters import unit
from sedflow_dist.sps.fixed_redshift import RedshiftModel

RNG = np.random.default_rng(12)


# -- the target -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def target(model, mocks):
    return Target(RedshiftModel(model), mocks.photometry[:12])


def brute_force(model, mocks, row, phi):
    """ln of prior and likelihood, the amplitude integrated out by a sum over 40,000 of its values, in float64.

    Fluxes are those of the full model, of galaxies of one solar mass, times the amplitude.
    """
    u = torch.cat([torch.full((len(phi), 1), 0.5), unit(torch.as_tensor(phi)).float()], dim=1)
    theta = SPACE.from_unit(u)
    theta[:, 0] = 0.0
    data = mocks.photometry[row]
    per_mass = model.fluxes(theta, data.redshift.expand(len(phi))).double()
    data = replace(data, flux=data.flux.double(), sigma=data.sigma.double())
    lo, hi = SPACE.amplitude.prior.range
    amplitudes = 10 ** torch.linspace(lo, hi, 40_001, dtype=torch.float64)
    values = []
    for shape in per_mass:
        log_l, _ = likelihood.gaussian((amplitudes[:, None] * shape).unsqueeze(0), data)
        trapezoid = log_l[0].logsumexp(0) - math.log(len(amplitudes) - 1)
        values.append(float(trapezoid))
    return np.array(values) + stats.norm.logpdf(phi).sum(-1)


def test_values_are_those_of_brute_force(target, model, mocks):
    """To 0.02 for the quadrature, and to what 0.1 mmag in every band does to chi^2: by as much the fast model differs.

    (Its largest difference from the full one, 0.9 mmag, is in u, whose errors are the largest.)
    """
    for row in range(8):
        start = target.start(row, 24, seed=1, row=row, n_draws=2048)  # where the likelihood is not hopeless
        expected = brute_force(model, mocks, row, start)
        (found,) = target([row], [start])
        data = mocks.photometry[row]
        errors = (1e-4 / 1.0857 * data.signal_to_noise)[data.mask].abs()
        chi = np.sqrt(2 * np.maximum(expected.max() - expected, 0) + 2 * len(errors))
        tolerance = 0.02 + chi * float(errors.norm())
        assert np.all(np.abs(found - expected) < tolerance), (row, np.abs(found - expected).max(), tolerance.min())
        assert np.ptp(expected) > 20 * np.abs(found - expected).max()


@pytest.mark.parametrize("n", range(1, 41))
def test_a_galaxy_among_others_has_the_values_it_has_alone(target, n):
    """Bit by bit, for every number of points, with others of any number of points before and behind."""
    points = RNG.standard_normal((n, N_SHAPE))
    (alone,) = target([5], [points])
    others = [RNG.standard_normal((k, N_SHAPE)) for k in (41 - n, 1, 17, 8)]
    among = target([2, 11, 5, 0, 7], [others[0], others[1], points, others[2], others[3]])
    assert [len(v) for v in among] == [41 - n, 1, n, 17, 8] and np.isfinite(alone).all()
    assert among[2].tobytes() == alone.tobytes()


def test_a_galaxy_has_the_same_values_in_another_block(target, model, mocks):
    points = RNG.standard_normal((13, N_SHAPE))
    (expected,) = target([5], [points])
    for rows, place in (([5], 0), ([300, 5], 1), (list(range(30)), 5)):
        (found,) = Target(RedshiftModel(model), mocks.photometry[rows])([place], [points])
        assert found.tobytes() == expected.tobytes()


def test_points_far_out_have_finite_values(target):
    """Beyond what float32 tells from the cube's edge: samplers step there, and zeus refuses a start that is not finite."""
    (found,) = target([3], [np.array([[-40.0] * N_SHAPE, [9.0] * N_SHAPE, [0.0] * N_SHAPE])])
    assert np.isfinite(found).all() and found.argmax() == 2


# -- walkers ----------------------------------------------------------------------------------------------------------


def test_walkers_are_different_draws_in_probit_space():
    """One draw has all the weight, and still every walker is another draw; the heaviest is among them."""
    u = torch.rand(4096, N_SHAPE, generator=torch.Generator().manual_seed(1))
    log_weight = torch.linspace(-5000, 0, 4096)
    log_weight[::3] = math.nan
    start = mcmc.choose(u, log_weight, 30, seed=1, row=7)
    assert start.shape == (30, N_SHAPE) and start.dtype == np.float64 and len(np.unique(start, axis=0)) == 30
    distance = np.abs(stats.norm.cdf(start)[:, None] - u.numpy()[None]).max(-1)
    chosen = distance.argmin(1)
    assert distance.min(1).max() < 1e-6  # float32
    assert not set(chosen) & set(range(0, 4096, 3)) and chosen.min() > 2000
    assert mcmc.choose(u, log_weight, 30, seed=1, row=7).tobytes() == start.tobytes()
    for seed, row in ((2, 7), (1, 8)):
        assert mcmc.choose(u, log_weight, 30, seed=seed, row=row).tobytes() != start.tobytes()


def test_walkers_of_good_weights_follow_them():
    """Weights that are worth more than ten draws a walker are not tempered: 2,000 walkers have their mean, to 4 errors."""
    u = torch.rand(100_000, N_SHAPE, generator=torch.Generator().manual_seed(1))
    phi = mcmc.choose(u, torch.log(u[:, 0]), 2000, seed=1, row=0)
    mean = stats.norm.cdf(phi).mean(0)
    assert mean[0] == pytest.approx(2 / 3, abs=4 * math.sqrt(1 / 18 / 2000))
    assert np.abs(mean[1:] - 0.5).max() < 4 * math.sqrt(1 / 12 / 2000)


def test_a_start_is_the_same_in_another_block(target, model, mocks):
    other = Target(RedshiftModel(model), mocks.photometry[[300, 5]])
    one, two = target.start(5, 22, seed=3, row=5, n_draws=1024), other.start(1, 22, seed=3, row=5, n_draws=1024)
    assert one.tobytes() == two.tobytes()


# -- samplers on a known posterior ------------------------------------------------------------------------------------

MEAN = RNG.uniform(-0.5, 0.5, N_SHAPE)
_AXES = np.linalg.qr(RNG.standard_normal((N_SHAPE, N_SHAPE)))[0]
LOG_Z = 3.0


def covariance(smallest):
    return (_AXES * np.linspace(smallest, 0.9, N_SHAPE) ** 2) @ _AXES.T


def gaussian(cov):
    """e^3 times a Gaussian: what stands for likelihood times prior, so that the evidence is e^3."""
    whiten = np.linalg.inv(np.linalg.cholesky(cov))
    constant = LOG_Z + np.linalg.slogdet(whiten)[1] - 0.5 * N_SHAPE * math.log(2 * math.pi)
    return lambda phi: constant - 0.5 * (((phi - MEAN) @ whiten.T) ** 2).sum(-1)


def check_moments(phi, cov):
    """Means and covariances to 5 standard errors, which 20 stretches of the chain tell, and they are small ones.

    An ensemble's walkers are not independent: their common spread changes slowly.
    """
    offset = (phi.astype(np.float64) - MEAN).reshape(20, -1, N_SHAPE)
    first, second = offset.mean(1), np.einsum("bni,bnj->bij", offset, offset) / offset.shape[1]
    std = np.sqrt(np.diag(cov))
    for stretches, truth, scale, worst in ((first, 0.0, std, 0.05), (second, cov, np.outer(std, std), 0.1)):
        error = stretches.std(0, ddof=1) / math.sqrt(20)
        assert (np.abs(stretches.mean(0) - truth) < 5 * error).all()
        assert (error < worst * scale).all()


@pytest.mark.parametrize(("sampler", "steps"), [("zeus", 1200), ("emcee", 8000)])
def test_ensembles_sample_a_gaussian(sampler, steps):
    """Through lockstep, in two segments, from a start that is too wide."""
    cov = covariance(0.1)
    log_prob = gaussian(cov)
    start = State(1.5 * RNG.standard_normal((30, N_SHAPE)))

    def task(ask):
        burn_in = mcmc.segment(sampler, ask, start, steps // 4, 5, seed=1)
        return mcmc.segment(sampler, ask, burn_in.end, steps, 5, seed=2)

    (found,) = lockstep.run([task], lambda _, points: [log_prob(p) for p in points])
    assert found.phi.shape == (steps // 5, 30, N_SHAPE)
    np.testing.assert_allclose(found.log_prob, gaussian(cov)(found.phi), atol=1e-2)  # float32 phi, 0.1 wide
    np.testing.assert_array_equal(found.phi[-1], found.end.position.astype(np.float32))
    assert mcmc.split_rhat(found.phi).max() < 1.05
    check_moments(found.phi, cov)


@pytest.mark.slow
def test_nested_sampling_of_a_gaussian_gives_its_evidence():
    """Evidence to 4 of its errors, which is 1.5 %; draws are equally weighted, shuffled, and as good as independent."""
    cov = covariance(0.5)
    found = mcmc.nested(gaussian(cov), N_SHAPE, 200, 22, seed=3, n_live=300)
    assert found.phi.shape == (200, 22, N_SHAPE) and found.log_prob.shape == (200, 22)
    assert abs(found.log_evidence - LOG_Z) < 4 * found.log_evidence_error
    assert found.log_evidence_error < 0.0155
    np.testing.assert_allclose(found.log_prob, gaussian(cov)(found.phi), atol=1e-3)
    check_moments(found.phi, cov)
    assert mcmc.split_rhat(found.phi).max() < 1.05


def test_an_unknown_sampler_is_refused():
    with pytest.raises(ValueError, match="no sampler 'gibbs'; ensembles are zeus, emcee"):
        mcmc.segment("gibbs", gaussian(covariance(0.5)), State(np.zeros((22, N_SHAPE))), 10, 1, 1)


@pytest.mark.parametrize("name", ["zeus", "nautilus"])
def test_a_sampler_that_is_not_installed_is_named_with_the_remedy(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)  # importing it raises ImportError
    with pytest.raises(ValueError, match=rf"{name} is not installed: pip install 'sedflow-dist\[mcmc\]'"):
        if name == "zeus":
            mcmc.segment(name, pytest.fail, State(np.zeros((22, N_SHAPE))), 10, 1, 1)
        else:
            mcmc.nested(pytest.fail, N_SHAPE, 10, 22, 1)


def test_importance_sampling_and_the_target_agree_on_the_evidence(target):
    """The prior's draws weighed by the likelihood, and by the target over the prior: the same weights, to rounding 1e-3."""
    phi = np.random.default_rng(1).standard_normal((512, N_SHAPE))
    (value,) = target([1], [phi])
    fit = target.fit(torch.tensor([1]), unit(torch.as_tensor(phi).float()).unsqueeze(0)).log_evidence
    one = importance.certify(torch.as_tensor(value - stats.norm.logpdf(phi).sum(-1)).unsqueeze(0))
    other = importance.certify(fit)
    assert float(one.log_evidence) == pytest.approx(float(other.log_evidence), abs=1e-3)
    assert float(one.log_evidence) > -100


# -- diagnostics ------------------------------------------------------------------------------------------------------


def ar1(tau, steps, chains):
    """Chains x_t = r x_(t-1) + e_t in equilibrium: their autocorrelation time is (1 + r) / (1 - r)."""
    r = (tau - 1) / (tau + 1)
    x = np.empty((steps, chains, len(r)))
    x[0] = RNG.standard_normal((chains, len(r)))
    for t in range(1, steps):
        x[t] = r * x[t - 1] + np.sqrt(1 - r**2) * RNG.standard_normal((chains, len(r)))
    return x


@pytest.mark.parametrize("steps", [40, 501])  # an odd number: the last step has no half
def test_split_rhat_is_arvizs(steps):
    """To 1e-10, rounding of float64; chains that mix, that drift and that stand apart."""
    x = ar1(np.array([1.0, 3.0, 20.0, 2.0, 2.0]), steps, 6)
    x[..., 3] += np.linspace(0, 6, steps)[:, None]
    x[..., 4] += np.arange(6)
    expected = [arviz.rhat(x[: steps // 2 * 2, :, i].T, method="split") for i in range(5)]
    found = mcmc.split_rhat(x)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert found[0] < 1.1 and found[3] > 1.3 and found[4] > 1.3


def test_split_rhat_of_chains_that_do_not_move_is_no_sign_of_convergence():
    x = np.broadcast_to(RNG.standard_normal((1, 6, 2)), (40, 6, 2))
    assert (mcmc.split_rhat(x) > 100).all()


def test_autocorrelation_time_is_that_of_an_ar1():
    """8,000 steps of 30 chains: to 8 %, the estimator's own window (5 tau) taking 1 %, its scatter 3 %."""
    tau = np.array([1.0, 4.0, 10.0, 30.0])
    np.testing.assert_allclose(mcmc.autocorrelation_time(ar1(tau, 8000, 30)), tau, rtol=0.08)
