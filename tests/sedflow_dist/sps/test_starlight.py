"""Compiled sums over the stars of draws against PyTorch's operators, and these against the full model elsewhere."""

import math

import pytest
import torch
from provabgs import PARAMETERS

from sedflow_dist import load_model
from sedflow_dist.sps import bagpipes_libraries, ladder, starlight
from sedflow_dist.sps.components import Composition
from sedflow_dist.sps.fixed_redshift import RedshiftModel
from sedflow_dist.sps.galaxy_model import GalaxyModel
from sedflow_dist.sps.ladder import BetweenRungs, room, runs
from sedflow_dist.sps.starlight import Starlight

#: Bands, birth-cloud rule, largest redshift. The last one's cells are more than a pass of registers holds.
MODELS = {
    "ugriz": (tuple(f"sdss2010-{b}" for b in "ugriz"), "star", 0.2),
    "by node": (tuple(f"sdss2010-{b}" for b in "ugriz"), "node", 0.2),
    "z = 3": (("lsst2023-u", "lsst2023-y"), "star", 3.0),
    "FUV to W2": (
        ("galex-fuv", "galex-nuv", *(f"sdss2010-{b}" for b in "ugriz"), "twomass-J", "twomass-Ks", "wise2010-W2"), "star", 0.2,
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=MODELS)
def fast(request, ssp):
    bands, rule, z_max = MODELS[request.param]
    return RedshiftModel(GalaxyModel(ssp, bands, z_max, birth_cloud_rule=rule))


@pytest.fixture(params=["AVX512", "AVX2", "DEFAULT"])
def processor(request, monkeypatch):
    """The processor that the library takes this one for, from the best that this is on."""
    names = ["DEFAULT", "AVX2", "AVX512"]
    if names.index(request.param) > names.index(torch.backends.cpu.get_cpu_capability()):
        pytest.skip(f"this processor has no {request.param}")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: request.param)


def draws(galaxies, z_max):
    """Six galaxies of 50 draws: bursts in birth clouds, at their edge, before the Universe and none; metallicities to the ends."""
    parameters, _ = galaxies(300, seed=31)
    at = PARAMETERS.index
    parameters[::7, at("t_burst")] = 0.003
    parameters[1::7, at("t_burst")] = 0.01
    parameters[2::7, at("t_burst")] = 13.2
    parameters[3::11, at("f_burst")] = 0.0
    parameters[4::11, at("f_burst")] = 1.0
    for row, value in ((5, 4.5e-5), (6, 1.5e-2), (7, 1e-7), (8, 0.5)):
        parameters[row::13, at("gamma1")] = parameters[row::13, at("gamma2")] = value
    return parameters.view(6, 50, -1), torch.linspace(0.003, 0.99 * z_max, 6)


def by_operators(model, theta, redshift, monkeypatch):
    with monkeypatch.context() as patch:
        for module in (starlight, ladder):
            patch.setattr(module, "library_for", lambda *_: None)
        patch.setattr(model, "_starlight", Starlight(model.model))
        assert not model._starlight.compiled
        return model(theta, redshift)


def test_light_is_that_of_the_operators(fast, galaxies, processor, monkeypatch):
    """To 2e-6 of each flux, twenty roundings of float32."""
    theta, redshift = draws(galaxies, fast.model.z_max)
    monkeypatch.setattr(fast, "_starlight", Starlight(fast.model))
    assert fast._starlight.compiled
    found, expected = fast(theta, redshift), by_operators(fast, theta, redshift, monkeypatch)
    for name in ("flux", "absolute", "surviving"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), rtol=2e-6, atol=1e-36
        )  # below, float32 has fewer digits


def test_a_model_with_light_of_its_own_in_clouds(monkeypatch):
    """`desi` has gas of a fixed ionisation, whose light is part of young stars' rows, and dust that emits what it absorbs."""
    flow = load_model("desi")
    model, generator = flow.redshift_model, torch.Generator().manual_seed(4)
    assert model.model.stars.cloud_rows and not model.model.sources
    theta = flow.space.from_unit(torch.rand(5, 40, len(flow.space.coordinates), generator=generator))
    redshift = torch.linspace(0.01, 0.59, 5)
    found, expected = model(theta, redshift), by_operators(model, theta, redshift, monkeypatch)
    for name in ("flux", "absolute", "surviving"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-5, atol=0)


def test_a_model_with_sources(ssp, sdss_bands, processor, monkeypatch):
    """Gas of any ionisation adds light to that of young stars, 80 templates of each galaxy's at its redshift."""
    composition = Composition.of(("stars", "nebular", "birth_cloud", "kriek_conroy"))
    table = bagpipes_libraries.add(ssp, ["nebular"])
    model = RedshiftModel(GalaxyModel(table, sdss_bands, 0.2, composition))
    assert model.model.sources and model._starlight.compiled
    generator = torch.Generator().manual_seed(4)
    theta = model.model.space.from_unit(torch.rand(4, 30, len(model.model.space.coordinates), generator=generator))
    redshift = torch.linspace(0.01, 0.19, 4)
    found, expected = model(theta, redshift), by_operators(model, theta, redshift, monkeypatch)
    for name in ("flux", "absolute", "surviving"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-5, atol=0)


def test_rows_of_draws_may_be_of_any_galaxies(fast, galaxies, monkeypatch):
    """What a sampler asks for: some galaxies several times, some not at all, without a copy of their tables."""
    theta, redshift = draws(galaxies, fast.model.z_max)
    whole, rows = fast.flux(theta, fast.at(redshift)), torch.tensor([4, 0, 4, 2])
    at = fast.at(redshift)[rows]
    assert len(at.tables.bins) == len(redshift)
    assert torch.equal(fast.flux(theta[rows], at), whole[rows])
    assert torch.equal(fast.flux(theta[[2, 4]], at[torch.tensor([3, 0])]), whole[[2, 4]])
    for module in (starlight, ladder):
        monkeypatch.setattr(module, "library_for", lambda *_: None)
    monkeypatch.setattr(fast, "_starlight", Starlight(fast.model))
    torch.testing.assert_close(fast.flux(theta[rows], fast.at(redshift)[rows]), whole[rows], rtol=2e-6, atol=0)


def test_what_is_not_a_number_stays_so(fast, galaxies):
    """A draw that is no number in any parameter of the stars has no flux that could pass for one; its neighbours have theirs."""
    theta, redshift = draws(galaxies, fast.model.z_max)
    whole = fast(theta, redshift).flux
    for row, name in enumerate(("f_burst", "beta1", "gamma1")):
        broken = theta.clone()
        broken[2, row, PARAMETERS.index("t_burst")] = 1.0  # a burst before the Universe, of whatever mass, is none
        broken[2, row, PARAMETERS.index(name)] = math.nan
        found = fast(broken, redshift).flux
        assert bool(torch.isnan(found[2, row]).all()), name
        keep = torch.ones(6, 50, dtype=torch.bool)
        keep[2, row] = False
        assert torch.equal(found[keep], whole[keep])


def test_tables_straight_from_the_ladder_are_those_of_their_own(fast, galaxies, monkeypatch):
    """Of a few draws at each of many redshifts; by operators, too."""
    theta, redshift = draws(galaxies, fast.model.z_max)
    whole, at = fast.flux(theta, fast.at(redshift)), fast.at(redshift, own_tables=False)
    assert isinstance(at.tables.bins, BetweenRungs)
    torch.testing.assert_close(fast.flux(theta, at), whole, rtol=2e-6, atol=1e-36)
    rows = torch.tensor([5, 1, 1])
    torch.testing.assert_close(fast.flux(theta[rows], at[rows]), whole[rows], rtol=2e-6, atol=1e-36)
    for module in (starlight, ladder):
        monkeypatch.setattr(module, "library_for", lambda *_: None)
    monkeypatch.setattr(fast, "_starlight", Starlight(fast.model))
    torch.testing.assert_close(fast.flux(theta[rows], at[rows]), whole[rows], rtol=2e-6, atol=1e-36)


def test_a_band_of_few_cells(ssp, galaxies, monkeypatch):
    """Tables are filled up to what compiled sums take at once: one band, and bands of one cell before any dust."""
    model = RedshiftModel(GalaxyModel(ssp, ["sdss2010-r"], 0.2))
    theta, redshift = draws(galaxies, 0.2)
    found, expected = model(theta, redshift), by_operators(model, theta, redshift, monkeypatch)
    torch.testing.assert_close(found.flux, expected.flux, rtol=2e-6, atol=0)
    torch.testing.assert_close(found.surviving, expected.surviving, rtol=2e-6, atol=0)
    no_dust = theta.clone()
    no_dust[..., [PARAMETERS.index("tau_bc"), PARAMETERS.index("tau_ism")]] = 0.0
    before = model.absolute(found.drawn, model.rest_frame_without_dust)
    torch.testing.assert_close(before, model(no_dust, redshift).absolute, rtol=2e-6, atol=0)


def test_tables_between_rungs_are_interpolated(processor, monkeypatch):
    """Of all galaxies, and of some; columns in runs, to the last of the ladder."""
    steps = room(torch.rand(4, 30, 21, generator=torch.Generator().manual_seed(5)))
    rung, fraction, kept = (
        torch.tensor([0, 2, 1, 2]),
        torch.tensor([0.0, 1.0, 0.3, 0.7]),
        torch.tensor([0, 3, 4, 5, 20]),
    )
    between = BetweenRungs(steps, rung, fraction, runs(kept))
    assert between.runs.tolist() == [[0, 1], [3, 3], [20, 1]]
    found = between.tables()
    assert torch.equal(found[0], steps[0][:, kept])
    some = torch.tensor([3, 0, 3])
    assert torch.equal(between[some].tables(), found[some])
    monkeypatch.setattr(ladder, "library_for", lambda *_: None)
    torch.testing.assert_close(found, between.tables(), rtol=1e-6, atol=1e-7)
    shared = BetweenRungs.shared(steps[:1])
    assert torch.equal(shared.tables(), steps[:1]) and shared[some] is shared
