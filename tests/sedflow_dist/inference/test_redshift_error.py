"""Redshifts with errors: left out where they do not matter, bit by bit; integrated over where they do; refused where too large."""

import dataclasses

import numpy as np
import pytest
import torch

from sedflow_dist.inference import importance, redshift_error
from sedflow_dist.inference.cascade import Router
from sedflow_dist.inference.mcmc import Target
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.inference.settings import Routing
from sedflow_dist.inference.summary import Method
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.photometry.photometry import EXACT, Photometry
from sedflow_dist.simulation.shapes import draw_parameters

Z = 0.1


def with_errors(photometry, sigma):
    """The same with these errors of the redshifts."""
    return dataclasses.replace(
        photometry, redshift_sigma=torch.as_tensor(sigma, dtype=torch.float32).expand(len(photometry))
    )


@pytest.fixture(scope="module")
def posterior(flow):
    return Posterior(flow, seed=1, n_draws=256)


@pytest.fixture(scope="module")
def vague(flow):
    """A galaxy whose fluxes are known to 25 %, so that many galaxies of the prior fit it."""
    theta = flow.space.from_unit(torch.full((1, len(flow.space.coordinates)), 0.5))
    flux = flow.redshift_model.model.fluxes(theta, torch.tensor([Z]))
    return Photometry.of(flux.numpy(), 0.25 * flux.numpy(), redshift=Z)


def brute_force(flow, photometry, sigma_z, n=4000):
    """Mean and width of the log mass, and effective draws: draws of the prior, each at a redshift of its own and through the
    full model; masses on a grid."""
    _, theta, _ = draw_parameters(flow.space, (Z, Z), 3, "brute", 0, n)
    z = Z + sigma_z * np.random.default_rng(3).standard_normal(n).clip(-3, 3)
    per_mass = flow.redshift_model.model.fluxes(theta, torch.as_tensor(z).float()).double().numpy()
    log_mass = np.linspace(*flow.space.amplitude.prior.range, 301)
    flux, sigma = (x[0].double().numpy() for x in (photometry.flux, photometry.sigma))
    log_l = -0.5 * (((per_mass[:, None] * 10 ** log_mass[:, None] - flux) / sigma) ** 2).sum(-1)
    weight = np.exp(log_l - log_l.max())
    weight /= weight.sum()
    mean = weight.sum(0) @ log_mass
    return mean, np.sqrt(weight.sum(0) @ (log_mass - mean) ** 2), 1 / (weight.sum(1) ** 2).sum()


def test_mean_and_width_of_the_mass_are_those_of_a_joint_inference_by_brute_force(flow, vague):
    """With an error of 30 % of the redshift, 0.3 dex of the mass, about as much as 25 % errors of the fluxes leave."""
    mean, width, effective = brute_force(flow, vague, 0.03)
    n = 32_768  # no training saw such errors of fluxes: of a hundred draws one counts
    draws = Posterior(flow, seed=1, n_draws=n).draw(with_errors(vague, 0.03), np.array([0]), n)
    mass, weight = draws.values[0, :, 0].double(), draws.weight[0]
    found = float(weight @ mass)
    spread = float((weight @ (mass - found) ** 2).sqrt())
    ours = n * float(draws.effective_fraction)
    assert effective > 200 and ours > 200
    error = np.hypot(width / effective**0.5, spread / ours**0.5)
    assert abs(found - mean) < 3 * error
    assert spread == pytest.approx(width, rel=3 * np.hypot((2 * effective) ** -0.5, (2 * ours) ** -0.5))
    exact = Posterior(flow, seed=1, n_draws=4096).draw(vague, np.array([0]), 4096)
    (alone,) = importance.summarise(exact.values[..., :1], exact.weight, (0.5,))[2][0].tolist()
    assert spread > 1.3 * alone


def test_errors_that_do_not_matter_change_nothing_bit_by_bit(posterior, mocks):
    data = mocks.photometry[:4]
    small = with_errors(data, EXACT * data.redshift)
    router = Router(posterior, Routing(share=0.0))
    flags = np.zeros(4, np.uint32)
    found, expected = router.summarise(small, flags, 0), router.summarise(data, flags, 0)
    for field in dataclasses.fields(expected):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name), err_msg=field.name)


def test_an_uncertain_row_is_flagged_and_has_the_same_answer_alone_and_beside_others(posterior, mocks):
    data = mocks.photometry[:3]
    sigma = torch.tensor([0.0, 0.1, 0.0]) * data.redshift
    mixed = with_errors(data, sigma)
    draws = posterior.draw(mixed, np.arange(3), 200)  # no multiple of the redshifts
    alone = posterior.draw(mixed[1], np.array([1]), 200)
    exact = posterior.draw(data, np.arange(3), 200)
    assert draws.values.shape[1] == 200
    assert torch.equal(draws.values[1], alone.values[0]) and torch.equal(draws.weight[1], alone.weight[0])
    torch.testing.assert_close(draws.values[[0, 2]], exact.values[[0, 2]], rtol=1e-4, atol=1e-4)
    summary = Router(
        posterior, Routing(share=1.0, more_draws=1, effective_draws=10**6, short_steps=60, long_steps=60)
    ).summarise(mixed[1], np.zeros(1, np.uint32), 1)
    assert summary.flags[0] & int(Flag.REDSHIFT_UNCERTAIN) and summary.method[0] in (Method.FLOW, Method.WEIGHTED)


@pytest.mark.parametrize("sigma", [0.04, -1.0, np.nan, np.inf, 0.2])
def test_an_error_that_is_impossible_or_reaches_zero_or_beyond_the_model_leaves_no_answer(posterior, vague, sigma):
    bad = with_errors(vague, sigma)
    found = posterior.summarise(bad, np.zeros(1, np.uint32), 0)
    assert found.method[0] == Method.NONE and found.flags[0] & int(Flag.BAD_REDSHIFT)
    assert not found.flags[0] & int(Flag.REDSHIFT_UNCERTAIN)
    with pytest.raises(
        ValueError, match=r"MCMC: exact redshifts are needed, and that of galaxy 0 is 0.1 \+- .* up to 0.5%"
    ):
        Target(posterior.flow.redshift_model, bad)


def test_redshifts_have_the_mean_and_width_that_are_stated(vague):
    """Of 32 in equal parts, over many rows: exact but for the Monte Carlo error of 200 shifts."""
    one = with_errors(vague, 0.02)
    z = torch.stack([redshift_error.redshifts(one, row, 1, 0.6) for row in range(200)]).double()
    assert float(z.mean()) == pytest.approx(Z, abs=1e-4)  # half a hundredth of the error
    assert float((z - Z).square().mean().sqrt()) == pytest.approx(0.02, rel=0.01)
