"""Derived properties against the one-galaxy reference."""

from itertools import pairwise

import pytest
import reference_galaxy
import torch
from provabgs import PARAMETERS, SPACE

from sedflow_dist.sps import derived
from sedflow_dist.sps.fixed_redshift import RedshiftModel

LABELS = tuple("ugriz")
NAMES = tuple(p.name for p in derived.properties(SPACE, LABELS))
#: [dex], and [Gyr] for the age.
TOLERANCE = dict.fromkeys(("log_mstar_surviving", "log_z_mw"), 1e-5)
TOLERANCE |= dict.fromkeys(("log_sfr_1gyr", "log_sfr_100myr", "t_age_mw"), 1e-4)


@pytest.fixture(scope="module")
def derive(model):
    fast = RedshiftModel(model)

    def run(parameters, redshift):
        """Properties (galaxy, property) of one draw a galaxy, and its photometry."""
        draws = parameters.unsqueeze(1)
        photometry = fast(draws, redshift)
        return derived.derive(model, draws, photometry)[:, 0], photometry

    return run


@pytest.fixture(scope="module")
def burst_cases(galaxies):
    """30 draws; the first have bursts inside both windows, inside one, outside, and before the big bang."""
    parameters, redshift = galaxies(30, seed=31)
    parameters[:6, PARAMETERS.index("t_burst")] = torch.tensor([0.02, 0.05, 0.5, 0.9, 1.5, 13.2])
    parameters[:6, PARAMETERS.index("f_burst")] = 0.3
    return parameters, redshift


@pytest.mark.parametrize("name", TOLERANCE)
def test_properties_are_those_of_the_reference(derive, burst_cases, reference_ssp, name):
    parameters, redshift = burst_cases
    found = derive(parameters, redshift)[0][:, NAMES.index(name)].tolist()
    for row, z, value in zip(parameters.tolist(), redshift.tolist(), found, strict=True):
        expected = reference_galaxy.properties(dict(zip(PARAMETERS, row, strict=True)), z, reference_ssp)[name]
        assert value == pytest.approx(expected, abs=TOLERANCE[name])


def test_absolute_magnitudes_and_colours_are_those_of_the_photometry(derive, burst_cases):
    parameters, redshift = burst_cases
    found, photometry = derive(parameters, redshift)
    magnitude = 22.5 - 2.5 * (torch.log10(photometry.absolute[:, 0]) + parameters[:, :1])
    for i, band in enumerate(LABELS):
        assert torch.allclose(found[:, NAMES.index(f"absmag_{band}")], magnitude[:, i], atol=1e-4)
    for i, (blue, red) in enumerate(pairwise(LABELS)):
        colour = found[:, NAMES.index(f"rest_{blue}_{red}")]
        assert torch.allclose(colour, magnitude[:, i] - magnitude[:, i + 1], atol=1e-4)


def test_columns_and_names_agree(derive, burst_cases):
    assert derive(*burst_cases)[0].shape == (30, len(NAMES))
    assert len(set(NAMES)) == len(NAMES) == 5 + 5 + 4


def test_no_recent_stars_is_a_finite_rate(derive, galaxies):
    """A galaxy of the fourth basis function alone forms nothing in 100 Myr: the rate is low, and finite."""
    parameters, redshift = galaxies(1, seed=32)
    parameters[0, 1:5] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    parameters[0, PARAMETERS.index("t_burst")] = 5.0
    rate = derive(parameters, redshift)[0][0, NAMES.index("log_sfr_100myr")]
    assert torch.isfinite(rate)
    assert float(rate) < float(parameters[0, 0]) - 11


def test_every_column_is_described():
    columns = {q.name: q for q in derived.columns(SPACE, LABELS)}
    assert tuple(columns) == (*PARAMETERS, *NAMES)
    assert all(q.unit and q.meaning and q.latex and q.ucd for q in columns.values())
    assert (columns["rest_g_r"].unit, columns["rest_g_r"].meaning) == ("mag", "rest-frame colour g - r")
    assert columns["log_mstar_surviving"].ucd == columns["log_mstar"].ucd == "phys.mass"
    assert columns["gamma2"].meaning == "weight of metallicity-history basis function 2"


@pytest.fixture(scope="module")
def moved(derive, galaxies):
    """By independent part of the prior, moved alone: the columns that move with it."""
    parameters, redshift = galaxies(40, seed=33)
    u = SPACE.to_unit(parameters.double()).clamp(0.02, 0.98)

    def values(u):
        theta = SPACE.from_unit(u).float()
        return torch.cat([theta, derive(theta, redshift)[0]], -1)

    parts = {}
    for block in SPACE.blocks:
        for i, coordinate in enumerate(block.coordinates):
            part = block.source(block.quantities[min(i, len(block.quantities) - 1)].name)
            parts.setdefault(part, []).append(SPACE.coordinates.index(coordinate))
    names, before, found = [q.name for q in derived.columns(SPACE, LABELS)], values(u), {}
    for part, coordinates in parts.items():
        other = u.clone()
        other[:, coordinates] = 1 - 0.9 * other[:, coordinates]
        change = (values(other) - before).abs().amax(0)
        found[part] = {name for name, by in zip(names, change.tolist(), strict=True) if by > 2e-5}
    return found


@pytest.mark.parametrize("name", [*PARAMETERS, *NAMES])
def test_a_column_depends_on_the_parts_of_the_prior_that_it_says_and_on_no_others(moved, name):
    assert {part for part, columns in moved.items() if name in columns} == derived.sources(SPACE, LABELS, name)
