"""Mock surveys: how the share of galaxies that are selected depends on the flux, against counting them."""

from dataclasses import replace

import pytest
import torch

from sedflow_dist.photometry.noise import NoiseModel
from sedflow_dist.simulation.mocks import MockSurvey


def test_the_slope_of_the_selected_share_is_that_of_galaxies_counted(shapes, noise):
    """Fluxes of r 10 % up and down, the same draws: counts are normal to 1 %, the noise that the slope leaves out less.

    Both limits bite: fainter than 17 would be selected up to masses beyond the prior's, brighter than 14 hardly.
    """
    tables = (noise.magnitude, noise.mean, noise.scatter)
    survey = MockSurvey(NoiseModel(*tables, selection_band=2, selection=(14.0, 17.0)), (7.0, 12.5), 0.0)
    step, n, shares = 0.1, 200_000, []
    for sign in (-1, 1):
        generator = torch.Generator().manual_seed(3)
        index = torch.randint(len(shapes.phi), (n,), generator=generator)
        log_mstar = 7.0 + 5.5 * torch.rand(n, generator=generator)
        true = shapes.per_mass[index] * 10 ** log_mstar.unsqueeze(1)
        true[:, 2] *= 1 + sign * step
        shares.append(survey.noise.observe(true, generator)[2].double().mean().log())
    counted = float(shares[1] - shares[0]) / (2 * step)
    assert counted == pytest.approx(survey.selection_slope(shapes), rel=0.05)
    assert counted > 0.05


def test_a_selection_inside_the_prior_has_no_slope(shapes, noise):
    """However bright galaxies are, masses that the limits ask for are there: the share is the same."""
    wide = MockSurvey(noise, (-40.0, 60.0), 0.0)
    assert wide.selection_slope(shapes) == 0
    one = replace(shapes, per_mass=torch.full_like(shapes.per_mass, 1e-9))
    assert MockSurvey(noise, (-40.0, 60.0), 0.0).selection_slope(one) == 0
