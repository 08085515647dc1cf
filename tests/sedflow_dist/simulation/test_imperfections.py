"""Mock observations gone wrong: each kind is what it says, in units of sigma, and nothing else."""

import numpy as np
import pytest
import torch
from provabgs import SPACE
from scipy import stats

from sedflow_dist.simulation.imperfections import ImperfectGalaxies, Imperfections, Kind, other_dust
from sedflow_dist.simulation.mocks import MockSurvey

N = 2000


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def galaxies(model):
    return ImperfectGalaxies.draw(model, other_dust(model, "smc"), (0.0, 0.2), 1, "test", 4000)


@pytest.fixture(scope="module")
def seen(galaxies, noise):
    return MockSurvey(noise, SPACE.amplitude.prior.range, drop_out=0.3).observe(galaxies.shapes, N, generator(1))


def residuals(galaxies, seen, kind, seed=2, **settings):
    return galaxies.residuals(seen, torch.full((N,), int(kind)), Imperfections(**settings), generator(seed))


def test_the_truth_is_what_the_data_scatter_about(galaxies, seen):
    truth = galaxies.truth(seen)
    scatter = ((seen.photometry.flux - truth.flux) * truth.inverse_sigma)[truth.mask]
    assert float(scatter.mean()) == pytest.approx(0, abs=0.05)
    assert float(scatter.std()) == pytest.approx(1, abs=0.05)
    assert torch.equal(truth.sigma, seen.photometry.sigma)


def test_tails_are_those_of_students_t(galaxies, seen):
    found = residuals(galaxies, seen, Kind.TAILS, degrees_of_freedom=4)
    assert torch.equal(torch.isnan(found), ~seen.photometry.mask)
    assert stats.kstest(found[seen.photometry.mask].numpy(), "t", args=(4,)).pvalue > 0.01


def test_a_line_is_in_one_measured_band_and_as_strong_as_it_says(galaxies, seen):
    """What remains beside the noise, which the same seed draws again."""
    strong, weak = (residuals(galaxies, seen, Kind.LINE, line=(x, x + 1e-6)) for x in (0.4, 0.1))
    truth = galaxies.truth(seen)
    light = ((strong - weak) / truth.inverse_sigma / truth.flux).nan_to_num(nan=0.0)
    assert ((light.abs() > 1e-3).sum(1) == 1).all()
    np.testing.assert_allclose(light.sum(1), 0.3, rtol=2e-3)
    whole = truth.mask.all(1)
    share = (light[whole].abs() > 1e-3).float().mean(0)
    assert ((share - 0.2).abs() < 0.05).all()  # any band


def test_another_dust_law_is_another_models_flux(galaxies, seen, model):
    """The difference from noise alone is that of the two models at the same parameters; without dust there is none."""
    found, clean = residuals(galaxies, seen, Kind.DUST), residuals(galaxies, seen, Kind.LINE, line=(0.0, 1e-9))
    truth = galaxies.truth(seen)
    expected = (galaxies.other / galaxies.shapes.per_mass - 1)[seen.number] * truth.flux * truth.inverse_sigma
    np.testing.assert_allclose((found - clean)[truth.mask], expected[truth.mask], atol=2e-3, rtol=1e-3)
    assert float(galaxies.other.log().sub(galaxies.shapes.per_mass.log()).abs().amax()) > 0.3


def test_without_dust_the_law_does_not_matter(model):
    theta = SPACE.from_unit(torch.rand(20, len(SPACE.coordinates), generator=generator(3)))
    SPACE.values(theta)["tau_ism"].zero_()
    other = other_dust(model, "smc")
    theirs = torch.stack([SPACE.values(theta)[name] for name in other.space.names], -1)
    z = torch.full((20,), 0.1)
    np.testing.assert_allclose(other.fluxes(theirs, z), model.fluxes(theta, z), rtol=2e-6)


@pytest.mark.parametrize(("name", "message"), [("birth_cloud", "named once"), ("nothing", "no component 'nothing'")])
def test_a_dust_law_that_cannot_stand_in_is_refused(model, name, message):
    with pytest.raises(ValueError, match=message):
        other_dust(model, name)


def test_a_range_of_lines_that_is_none_is_refused():
    with pytest.raises(ValueError, match="no range of fractions"):
        Imperfections(line=(0.4, 0.1))
