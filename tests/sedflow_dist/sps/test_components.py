"""Components of a galaxy model: how they are found, and that one more is evaluated the same in both evaluators."""

import numpy as np
import pytest
import torch
from provabgs import SPACE

from sedflow_dist.priors import Uniform
from sedflow_dist.quantities import Parameter
from sedflow_dist.sps import components
from sedflow_dist.sps.components import PROVABGS, Composition, Screen, Source
from sedflow_dist.sps.dust import drude
from sedflow_dist.sps.fixed_redshift import RedshiftModel
from sedflow_dist.sps.galaxy_model import GalaxyModel
from sedflow_dist.sps.populations import BURST


class Bump(Screen):
    """More of the 2175 A bump than the slope of the dust's curve brings."""

    name = "bump"
    parameters = (Parameter("bump", "1", "strength of the bump", "$b$", prior=Uniform(low=0, high=2)),)
    covers = "all stars"

    def curves(self, wavelength, piece):
        return (drude(wavelength),)

    def transmission(self, values, curves):
        return torch.exp(-values["bump"].unsqueeze(-1) * curves[0])


class Glow(Source):
    """A flat spectrum, as bright as the burst is massive."""

    name = "glow"
    parameters = (Parameter("glow", "1", "brightness", "$g$", prior=Uniform(low=0, high=1)),)

    def templates(self, wavelength):
        return np.full((1, len(wavelength)), 1e-4)

    def weights(self, values, populations, epoch):
        return (values["glow"] * populations.mass[..., BURST]).unsqueeze(-1)


class GlowInside(Glow):
    """The same from inside the birth clouds."""

    name = "glow_inside"
    inside = True


ALL = {component.name: component for component in (Bump, Glow, GlowInside)}


@pytest.fixture
def known(monkeypatch):
    """Components of this file are found by their names."""
    load = components.load
    monkeypatch.setattr(components, "load", lambda name: ALL.get(name) or load(name))


def with_one_more(theta, value):
    return torch.cat([theta, torch.full_like(theta[:, :1], value)], 1)


@pytest.mark.parametrize("name", ALL)
def test_a_component_that_does_nothing_changes_nothing(known, ssp, sdss_bands, galaxies, model, name):
    theta, redshift = galaxies(20, seed=5)
    more = GalaxyModel(ssp, sdss_bands, 0.2, Composition.of((*PROVABGS, name)))
    parameter = ALL[name].parameters[0].name
    assert more.space.names == (*SPACE.names, parameter)
    assert torch.equal(more.fluxes(with_one_more(theta, 0.0), redshift), model.fluxes(theta, redshift))


@pytest.mark.parametrize("name", ALL)
def test_both_evaluators_agree_on_one_more_component(known, ssp, sdss_bands, galaxies, model, name):
    """2 mmag, as for the others; and what the component does is far more than that."""
    theta, redshift = galaxies(40, seed=6)
    more = GalaxyModel(ssp, sdss_bands, 0.2, Composition.of((*PROVABGS, name)))
    theta = with_one_more(theta, 0.9)
    exact = more.fluxes(theta, redshift)
    fast = RedshiftModel(more)(theta.unsqueeze(1), redshift).flux[:, 0] * 10 ** theta[:, :1]
    assert float((2.5 * torch.log10(fast / exact)).abs().max()) < 2e-3
    plain = model.fluxes(theta[:, :-1], redshift)
    assert float((2.5 * torch.log10(exact / plain)).abs().max()) > 0.01


def test_the_surviving_mass_is_left_alone(known, ssp, sdss_bands, galaxies, model):
    theta, redshift = galaxies(5, seed=7)
    for name in ALL:
        more = RedshiftModel(GalaxyModel(ssp, sdss_bands, 0.2, Composition.of((*PROVABGS, name))))
        surviving = more(with_one_more(theta, 0.9).unsqueeze(1), redshift).surviving
        assert torch.equal(surviving, RedshiftModel(model)(theta.unsqueeze(1), redshift).surviving)


def test_light_from_inside_the_clouds_is_behind_them(known, ssp, sdss_bands, galaxies):
    theta, redshift = galaxies(5, seed=8)
    theta = with_one_more(theta, 1.0)
    SPACE.values(theta)["tau_bc"].fill_(2.0)
    SPACE.values(theta)["f_burst"].fill_(0.5)
    SPACE.values(theta)["t_burst"].fill_(1.0)
    inside, outside = (
        GalaxyModel(ssp, sdss_bands, 0.2, Composition.of((*PROVABGS, name))).fluxes(theta, redshift)
        for name in ("glow_inside", "glow")
    )
    assert bool((inside < outside).all())


def test_unknown_components_are_refused_and_the_known_ones_named():
    with pytest.raises(
        ValueError,
        match=r"no component .dust.*known are stars, nebular, birth_cloud, kriek_conroy, smc, dust_emission, igm, torus",
    ):
        Composition.of(("stars", "dust"))


@pytest.mark.parametrize(
    "names", [(), ("birth_cloud",), ("birth_cloud", "stars"), ("stars", "kriek_conroy", "kriek_conroy")]
)
def test_a_model_begins_with_stars_and_has_each_component_once(names):
    with pytest.raises(ValueError, match="the first is stars, and each is named once"):
        Composition.of(names)


def test_a_model_without_dust_has_fewer_parameters(ssp, sdss_bands, galaxies, model):
    theta, redshift = galaxies(5, seed=9)
    bare = GalaxyModel(ssp, sdss_bands, 0.2, Composition.of(("stars",)))
    values = SPACE.values(theta)
    values["tau_bc"].zero_()
    values["tau_ism"].zero_()
    assert torch.equal(bare.fluxes(theta[:, : len(bare.space.names)], redshift), model.fluxes(theta, redshift))
