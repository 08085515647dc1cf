"""Figures of inferred redshifts against their definitions, on redshifts whose errors are known."""

import numpy as np
import pytest

from sedflow_dist.validation import photo_z
from sedflow_dist.validation.photo_z import PointFigures


def test_figures_of_errors_that_are_known():
    rng = np.random.default_rng(1)
    truth = rng.uniform(0.1, 2, 200_000)
    e = 0.01 + 0.02 * rng.standard_normal(len(truth))
    e[:2000] = 0.1  # beyond 0.06, within 0.15
    e[2000:5000] = 0.3
    found = PointFigures.of(truth + e * (1 + truth), truth)
    assert found.sigma_iqr == pytest.approx(0.02, rel=0.05)
    assert found.bias == pytest.approx(0.01, abs=0.001)
    assert found.outliers == pytest.approx(0.025 + 0.975 * 0.0063, abs=0.002)  # and 2.5 sigma of the others
    assert found.far == pytest.approx(0.015, abs=1e-4)


def test_pit_is_uniform_where_posteriors_are_right_and_told_where_they_are_not():
    rng = np.random.default_rng(2)
    truth = rng.standard_normal(4000)
    draws = rng.standard_normal((4000, 200))
    weight = np.full(draws.shape, 1 / 200)
    assert photo_z.pit_distance(photo_z.pit(draws, weight, truth)) < 0.03
    assert photo_z.pit_distance(photo_z.pit(2 * draws, weight, truth)) > 0.1
    assert np.allclose(photo_z.pit(truth[:, None], np.ones((4000, 1)), truth), 0.5)
    halves = photo_z.pit(np.array([[0.0, 1.0]]), np.array([[0.9, 0.1]]), np.array([0.5]))
    assert halves[0] == pytest.approx(0.9)


def test_the_loss_of_densities_is_that_of_their_formula():
    """N(0, 1) in narrow bins, truths drawn from it: minus the integral of its square, -1 / (2 sqrt(pi))."""
    rng = np.random.default_rng(3)
    edges = np.linspace(-6, 6, 601)
    middles = 0.5 * (edges[1:] + edges[:-1])
    normal = np.exp(-0.5 * middles**2) / np.sqrt(2 * np.pi)
    truth = rng.standard_normal(100_000)
    loss = photo_z.cde_loss(np.broadcast_to(normal, (len(truth), 600)), edges, truth)
    assert loss == pytest.approx(-0.5 / np.sqrt(np.pi), abs=0.003)
    draws = rng.standard_normal((50, 20_000))
    found = photo_z.density(draws, np.full(draws.shape, 1 / 20_000), np.linspace(-3, 3, 13))
    assert found.shape == (50, 12)
    assert np.allclose((found * 0.5).sum(1), 1)
    assert found.mean(0)[6] == pytest.approx(0.383, abs=0.005)
