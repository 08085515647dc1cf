"""The prior: exact maps between parameters, the unit cube and probit space."""

import json
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from provabgs import COORDINATES, N_SHAPE, PARAMETERS, SPACE
from scipy import stats

from sedflow_dist import keyed_random
from sedflow_dist.parameters import ParameterSpace, probit, unit

RANGES = {
    "log_mstar": (7.0, 12.5), "f_burst": (0.0, 1.0), "t_burst": (0.01, 13.27), "gamma1": (4.5e-5, 1.5e-2),
    "gamma2": (4.5e-5, 1.5e-2), "tau_bc": (0.0, 3.0), "tau_ism": (0.0, 3.0), "n_dust": (-2.0, 1.0),
}  # fmt: skip
TINY = 2.0**-24
inside = st.floats(1e-6, 1 - 1e-6)
edges = st.sampled_from([0.0, TINY, 1e-7, 1e-3, 0.5, 1 - 1e-7, 1 - TINY, 1.0])
units = st.lists(inside, min_size=11, max_size=11)


def draws(n, dtype=torch.float64):
    return SPACE.from_unit(torch.as_tensor(keyed_random.uniforms(1, "test prior", 0, n, 11), dtype=dtype))


def assert_inside(theta):
    for name, (lo, hi) in RANGES.items():
        values = theta[..., PARAMETERS.index(name)]
        limits = torch.tensor([lo, hi], dtype=theta.dtype)  # rounded as the parameters are
        assert bool(((values >= limits[0]) & (values <= limits[1])).all()), name
    betas = theta[..., 1:5]
    assert bool(((betas >= 0) & (betas <= 1)).all())
    assert float((betas.sum(-1) - 1).abs().max()) < 1e-6


@given(units)
def test_unit_cube_round_trip(values):
    u = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(SPACE.to_unit(SPACE.from_unit(u)), u, atol=1e-9, rtol=0)


@given(units)
def test_parameter_round_trip(values):
    theta = SPACE.from_unit(torch.tensor(values, dtype=torch.float64))
    torch.testing.assert_close(SPACE.from_unit(SPACE.to_unit(theta)), theta, atol=1e-9, rtol=1e-9)


@given(st.lists(st.one_of(edges, inside), min_size=11, max_size=11), st.sampled_from([torch.float32, torch.float64]))
def test_every_edge_stays_inside_the_prior(values, dtype):
    theta = SPACE.from_unit(torch.tensor(values, dtype=dtype))
    assert_inside(theta)
    back = SPACE.to_unit(theta)
    assert bool(((back >= 0) & (back <= 1)).all())


@pytest.mark.parametrize("corner", [0.0, 1.0])
def test_corners_are_the_ends_of_the_ranges(corner):
    theta = SPACE.from_unit(torch.full((11,), corner, dtype=torch.float64))
    for name, limits in RANGES.items():
        assert float(theta[PARAMETERS.index(name)]) == pytest.approx(limits[int(corner)], rel=1e-12)


@pytest.mark.parametrize("i", range(1, 5))
def test_each_beta_is_that_of_a_flat_dirichlet(i):
    """The marginals of Dirichlet(1, 1, 1, 1) are Beta(1, 3); without the exponents of the sticks they are not."""
    assert stats.kstest(draws(20_000)[:, i].numpy(), stats.beta(1, 3).cdf).pvalue > 1e-3


def test_betas_are_jointly_a_flat_dirichlet():
    """Uniform on the simplex: covariances -1/80, and variances 3/80."""
    covariance = np.cov(draws(20_000)[:, 1:5].numpy().T)
    expected = np.full((4, 4), -1 / 80) + np.eye(4) * (3 / 80 + 1 / 80)
    np.testing.assert_allclose(covariance, expected, atol=1.5e-3)


@pytest.mark.parametrize("name", RANGES)
def test_the_others_are_uniform_or_log_uniform(name):
    lo, hi = RANGES[name]
    x = draws(20_000)[:, PARAMETERS.index(name)].numpy()
    u = np.log(x / lo) / np.log(hi / lo) if name.startswith("gamma") else (x - lo) / (hi - lo)
    assert stats.kstest(u, "uniform").pvalue > 1e-3


def test_every_parameter_depends_on_its_coordinate_alone():
    base = torch.full((11,), 0.4, dtype=torch.float64)
    for i, name in enumerate(COORDINATES):
        moved = base.clone()
        moved[i] = 0.6
        differs = SPACE.from_unit(moved) != SPACE.from_unit(base)
        changed = {PARAMETERS[j] for j in torch.nonzero(differs).flatten().tolist()}
        assert changed <= ({f"beta{k}" for k in range(1, 5)} if name.startswith("stick") else {name})
        assert changed


@given(st.lists(st.floats(1e-7, 1 - 1e-7), min_size=1, max_size=20))
def test_probit_and_unit_are_inverse(values):
    u = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(unit(probit(u)), u, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probit_is_finite_and_unit_strictly_inside_everywhere(dtype):
    u = torch.tensor([0.0, TINY / 2, TINY, 0.5, 1 - TINY, 1.0], dtype=dtype)
    assert bool(torch.isfinite(probit(u)).all())
    inside = unit(torch.tensor([-math.inf, -50.0, 0.0, 50.0, math.inf], dtype=dtype))
    assert bool(((inside > 0) & (inside < 1)).all())
    assert_inside(SPACE.from_unit(unit(torch.full((3, 11), 40.0, dtype=dtype))))
    assert_inside(SPACE.from_unit(unit(torch.full((3, 11), -40.0, dtype=dtype))))


def test_probit_space_is_standard_normal():
    phi = probit(torch.as_tensor(keyed_random.uniforms(2, "probit", 0, 20_000, 1)))
    assert stats.kstest(phi.flatten().numpy(), "norm").pvalue > 1e-3


def test_batches_keep_their_shape():
    u = torch.rand(3, 4, 11, dtype=torch.float64)
    theta = SPACE.from_unit(u)
    assert theta.shape == (3, 4, 12)
    assert torch.equal(theta[1, 2], SPACE.from_unit(u[1, 2]))


def test_priors_round_trip_through_json():
    wanted = {
        "t_burst": (0.02, 10.0), "gamma": (1e-4, 1e-2),
        "tau_ism": {"kind": "truncated_normal", "mean": 0.3, "sigma": 0.2, "low": 0, "high": 3},
    }  # fmt: skip
    space = SPACE.with_priors(wanted)
    again = SPACE.with_priors(json.loads(json.dumps(space.to_dict())))
    assert again == space != SPACE
    theta = space.from_unit(torch.ones(11, dtype=torch.float64))
    assert float(theta[PARAMETERS.index("t_burst")]) == 10.0
    assert space.values(theta)["gamma"].tolist() == [1e-2, 1e-2]


def test_names_are_consistent():
    assert len(COORDINATES) == 11 == N_SHAPE + 1
    assert COORDINATES[0] == PARAMETERS[0] == SPACE.amplitude.name == "log_mstar"
    assert SPACE.shapes == COORDINATES[1:]


def test_parameters_are_found_by_name_one_by_one_and_in_blocks():
    theta = draws(5)
    values = SPACE.values(theta)
    for i, name in enumerate(PARAMETERS):
        assert torch.equal(values[name], theta[:, i])
    assert torch.equal(values["beta"], theta[:, 1:5])
    assert torch.equal(values["gamma"], torch.stack([values["gamma1"], values["gamma2"]], -1))
    values["log_mstar"].zero_()  # a view: what is set by name is set
    assert bool((theta[:, 0] == 0).all())


def test_amplitude_and_shapes_are_split_and_joined():
    u = torch.rand(4, 3, 11)
    amplitude, shapes = SPACE.split(u)
    assert torch.equal(amplitude, u[..., 0])
    assert torch.equal(SPACE.join(amplitude, shapes), u)
    last = ParameterSpace((*SPACE.blocks[1:], SPACE.blocks[0]))  # wherever the amplitude stands
    assert torch.equal(last.join(*last.split(u)), u)
    assert torch.equal(last.split(u)[0], u[..., 10])


def test_density_of_the_prior_is_that_of_its_maps():
    """ln |du/dtheta| by finite differences, each parameter against its own coordinate; betas against the sticks."""
    u = torch.as_tensor(keyed_random.uniforms(3, "density", 0, 20, 11)).clamp(0.05, 0.95)
    free = [i for i, name in enumerate(PARAMETERS) if name != "beta4"]
    expected = []
    for row in u:
        jacobian = torch.autograd.functional.jacobian(SPACE.from_unit, row)[free]
        expected.append(-torch.linalg.slogdet(jacobian).logabsdet)
    torch.testing.assert_close(SPACE.log_prob(SPACE.from_unit(u)), torch.stack(expected), atol=1e-8, rtol=0)
    outside = SPACE.from_unit(u)
    SPACE.values(outside)["tau_bc"].fill_(3.5)
    assert bool(torch.isneginf(SPACE.log_prob(outside)).all())


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"tau": (0, 1)}, "unknown parameters tau; known are log_mstar, beta, "),
        ({"beta": (0, 1)}, "beta: beta has a flat Dirichlet"),
        ({"tau_ism": (1, 1)}, "tau_ism: .*not increasing"),
        ({"tau_ism": (-1, 1)}, "tau_ism: .*leaves what tau_ism can be"),
        ({"gamma": (0, 1)}, "gamma: .*above 0"),
        ({"log_mstar": {"kind": "normal", "mean": 10, "sigma": 1}}, "log_mstar: .*uniform in its logarithm"),
        ({"tau_ism": {"kind": "cauchy"}}, "tau_ism: .*kind"),
        ({"tau_ism": (0, 1, 2)}, "tau_ism: .*no range"),
    ],
)
def test_priors_that_mean_nothing_are_refused_by_name(wanted, said):
    with pytest.raises(ValueError, match=re.compile(said, re.DOTALL)):
        SPACE.with_priors(wanted)


def test_a_space_has_one_amplitude_and_each_name_once():
    with pytest.raises(ValueError, match="one is the amplitude, not 0"):
        ParameterSpace(SPACE.blocks[1:])
    with pytest.raises(ValueError, match="tau_bc is declared twice"):
        ParameterSpace((*SPACE.blocks, next(b for b in SPACE.blocks if b.name == "tau_bc")))


def test_parameters_outside_their_domain_are_refused_by_row_and_name():
    theta = draws(4)
    SPACE.check(theta)
    SPACE.values(theta)["tau_bc"][2] = -0.1
    with pytest.raises(ValueError, match=r"row 2: tau_bc = -0.1 is outside \[0, inf\] \(1 of 4 rows are bad\)"):
        SPACE.check(theta)
    theta = draws(4)
    SPACE.values(theta)["beta2"][1] += 0.2
    with pytest.raises(ValueError, match=r"row 1: beta1 \+ beta2 \+ beta3 \+ beta4 = 1.2"):
        SPACE.check(theta)
