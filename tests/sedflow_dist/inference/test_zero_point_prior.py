"""A survey's floor is a Gaussian prior of its zero points, marginalised: against integrals over the zero points themselves."""

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from sedflow_dist.inference import likelihood
from sedflow_dist.magnitudes import POGSON
from sedflow_dist.photometry.calibrate import calibrate
from sedflow_dist.photometry.survey import Survey

FLOOR = (0.05, 0.02, 0.03)
FLUX, SIGMA, MODEL = np.array([[12.0, 30.0, -2.0]]), np.array([[0.6, 0.5, 3.0]]), np.array([[11.0, 30.5, 1.0]])


@pytest.fixture(scope="module")
def photometry():
    survey = Survey(
        name="three", bands=tuple(f"sdss2010-{b}" for b in "gri"), labels=tuple("gri"), flux=("G", "R", "I"),
        error=("E_G", "E_R", "E_I"), error_kind="sigma", model_error=0.0, floor=FLOOR,
    )  # fmt: skip
    return calibrate(survey, FLUX, SIGMA, None, np.array([0.1])).photometry


def test_the_floor_is_the_integral_over_zero_points(photometry):
    """1e-5 in ln p: float32. Each band's integral over d of p(x (1 + d) | model) p(d), by quadrature in float64."""
    found, _ = likelihood.gaussian(torch.as_tensor(MODEL[None]).float(), photometry)
    expected = 0.0
    for x, sigma, m, floor in zip(FLUX[0], SIGMA[0], MODEL[0], FLOOR, strict=True):
        s = floor / POGSON
        value, _ = integrate.quad(
            lambda d, x=x, sigma=sigma, m=m, s=s: stats.norm.pdf(x * (1 + d), m, sigma) * stats.norm.pdf(d, 0, s),
            -8 * s, 8 * s, epsabs=1e-13,
        )  # fmt: skip
        expected += np.log(value)
    assert float(found) == pytest.approx(expected, abs=1e-5)


def test_the_floor_is_what_woodbury_says(photometry):
    """The same as a dense Gaussian whose inverse is taken by Woodbury's identity, N^-1 - N^-1 U (S^-1 + U N^-1 U)^-1 U N^-1."""
    inverse, u = np.diag(SIGMA[0] ** -2), np.diag(FLUX[0])
    prior = np.diag((np.array(FLOOR) / POGSON) ** 2)
    inside = np.linalg.inv(prior) + u @ inverse @ u
    whole = inverse - inverse @ u @ np.linalg.inv(inside) @ u @ inverse
    log_det = np.log(SIGMA[0] ** 2).sum() + np.linalg.slogdet(prior)[1] + np.linalg.slogdet(inside)[1]
    residual = MODEL[0] - FLUX[0]
    chi2 = residual @ whole @ residual
    found, found_chi2 = likelihood.gaussian(torch.as_tensor(MODEL[None]).float(), photometry)
    assert float(found_chi2) == pytest.approx(chi2, rel=1e-5)
    assert float(found) == pytest.approx(-0.5 * (chi2 + log_det + 3 * np.log(2 * np.pi)), abs=1e-5)


@pytest.mark.parametrize("s", [0.02, 0.05])
def test_a_covariance_of_measured_fluxes_moves_the_mass_by_two_s_squared_at_most(s):
    """Five bands without other noise, 4,000 galaxies: the mean of ln a, against the model's fluxes in the covariance."""
    rng = np.random.default_rng(3)
    x = 1 + s * rng.standard_normal((4000, 1, 5))
    grid = np.linspace(-6 * s, 6 * s, 241)[None, :, None]
    a = np.exp(grid)

    def mean(width):
        log_p = (-0.5 * ((x - a) / width) ** 2 - np.log(width)).sum(-1)
        p = np.exp(log_p - log_p.max(1, keepdims=True))
        return ((p * grid[..., 0]).sum(1) / p.sum(1)).mean()

    shift = mean(s * x) - mean(s * a)
    assert -2.2 * s**2 < shift < 0
    assert abs(shift) < 5 * s * s / np.sqrt(5)  # in standard errors of ln a: 5 s
