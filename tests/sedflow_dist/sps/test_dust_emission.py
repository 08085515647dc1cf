"""Emission of dust: the library against its own physics, and the energy balance against sums over whole spectra."""

import energy_balance
import numpy as np
import pytest
import torch
from astropy.io import fits
from scipy.interpolate import RegularGridInterpolator

from sedflow_dist.sps import bagpipes_libraries, libraries
from sedflow_dist.sps.components import PROVABGS, Composition
from sedflow_dist.sps.dust import CALZETTI_BREAKS_A
from sedflow_dist.sps.galaxy_model import GalaxyModel
from sedflow_dist.sps.libraries import _PIECES_A
from sedflow_dist.sps.ssp import bagpipes_grids

GAS = ("stars", "nebular", "birth_cloud", "kriek_conroy")
ALL = (*GAS, "dust_emission", "igm")
LOG_U = -2.3


@pytest.fixture(scope="module")
def table(ssp):
    return bagpipes_libraries.add(ssp, ["nebular", "dust"])


def draws(space, n, seed, log_mstar=0.0):
    """Parameters of galaxies drawn from a composition's prior, float64."""
    unit = torch.rand(n, len(space.coordinates), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    theta = space.from_unit(unit)
    space.values(theta)["log_mstar"].fill_(log_mstar)
    return theta


# -- the library --------------------------------------------------------------------------------------------------------


def powers(kind):
    """What dust of each file's column emits per hydrogen atom, by its sum over wavelength: (q_PAH, column)."""
    with fits.open(bagpipes_grids() / f"dl07_grids_umin_{kind}_no_norm.fits") as hdus:
        columns = [hdus[f"QPAH_{q:.2f}"].data for q in libraries.Q_PAH]
        return np.stack([np.trapezoid(c[:, 1:].T, c[:, 0]) for c in columns])


def test_the_columns_are_the_intensities_that_they_are_taken_for():
    """Dust absorbs in proportion to the starlight; bagpipes' list, which has 10.0 as well, would be wrong by 20 % and more."""
    ratio = powers("only") / np.array(libraries.U_MIN)
    assert np.ptp(ratio, axis=1).max() / ratio.min() < 0.003


def test_many_intensities_emit_what_their_mean_intensity_would():
    """dM/dU as U^-2 from U_min to 10^6 has a mean of U_min ln(10^6 / U_min) / (1 - U_min / 10^6): gamma is not off by ten."""
    u_min = np.array(libraries.U_MIN)
    mean = np.log(1e6 / u_min) / (1 - u_min / 1e6)
    np.testing.assert_allclose(powers("umax") / powers("only"), np.broadcast_to(mean, (7, 22)), rtol=0.004)


def test_more_pahs_are_brighter_at_3_and_8_micron(table):
    """One sequence of dust: 3.3 and 7.7 micron rise with q_PAH, for the same energy; the continuum at 22 micron by no leaps."""
    library = table.dust
    at = [int(np.searchsorted(table.edges, lam)) - 1 for lam in (33_000.0, 77_000.0, 220_000.0)]
    three, eight, warm = np.moveaxis(library.spectra[0][..., at], -1, 0)
    assert np.all(np.diff(three, axis=0) > 0) and np.all(np.diff(eight, axis=0) > 0)
    assert np.abs(np.diff(np.log(warm), axis=0)).max() < 0.35


def test_a_mixture_is_the_files_own_spectra_mixed(table):
    """Against the sum of un-normalised spectra, normalised afterwards: as Draine & Li define gamma."""
    composition = Composition.of((*PROVABGS, "dust_emission"))
    theta = draws(composition.space, 50, 3)
    values, component, library = composition.space.values(theta), composition.reemission, table.dust
    rows, share = component.mixture(table, values)
    found = torch.einsum("gpk,gp->gk", torch.as_tensor(component.templates(table)).double()[rows], share).numpy()
    raw = library.spectra.astype(float) * library.power[..., None]  # per hydrogen atom
    at = np.stack([values["q_pah"].numpy(), values["u_min"].numpy()], -1)
    one, many = (RegularGridInterpolator((library.q_pah, library.u_min), kind)(at) for kind in raw)
    gamma = values["gamma_dust"].numpy()[:, None]
    power = np.stack([RegularGridInterpolator((library.q_pah, library.u_min), kind)(at) for kind in library.power])
    mixed = gamma * many + (1 - gamma) * one
    whole = gamma * power[1, :, None] + (1 - gamma) * power[0, :, None]
    np.testing.assert_allclose(found, mixed / whole, rtol=1e-4, atol=1e-12)


# -- energy -------------------------------------------------------------------------------------------------------------


def test_pieces_of_energy_end_where_the_dusts_curves_do():
    for at in CALZETTI_BREAKS_A:
        assert min(abs(end / at - 1) for end in _PIECES_A) < 1e-6


@pytest.mark.parametrize(("log_u", "kept"), [(-2.0, 1), (-2.3, 2), (-4.0, 1), (-1.0, 1)])
def test_gas_of_a_fixed_ionisation_needs_no_other(table, log_u, kept):
    """A model carries the library's nodes around it, at a node that alone, and its fluxes are those with all nodes."""
    composition = Composition.of(GAS, {"log_u": log_u})
    small = composition.table(table)
    assert len(small.nebular.log_u) == kept
    theta, z = draws(composition.space, 8, 3), torch.full((8,), 0.05, dtype=torch.float64)
    one, other = (
        GalaxyModel(t, ["galex-nuv", "sdss2010-g"], 0.1, composition).fluxes(theta, z) for t in (small, table)
    )
    assert (one > 0).all()
    torch.testing.assert_close(one, other, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("dust", "log_u"), [("kriek_conroy", None), ("kriek_conroy", LOG_U), ("smc", None)],
    ids=["log_u free", "log_u fixed", "the SMC's dust"],
)  # fmt: skip
@pytest.mark.parametrize("n", [150, pytest.param(2000, marks=pytest.mark.slow)])
def test_what_is_absorbed_is_emitted(table, monkeypatch, dust, log_u, n):
    """Half of 1e-4 of it and of 1e-6 of all light, where dust absorbs 2e-4 to all of the light (of 2,000 the worst is 0.21).

    The short test's log U lies between two nodes of the library, the long one's anywhere in its prior.
    """
    components = ("stars", "nebular", "birth_cloud", dust)
    composition = Composition.of(components, {} if n > 1000 else {"log_u": [-2.5, -2.0]})
    theta = energy_balance.draws(composition.space, n, 4)
    if log_u is not None:
        composition.space.values(theta)["log_u"].fill_(log_u)
    before, expected = energy_balance.absorbed(table, components, theta, composition.space, monkeypatch)
    monkeypatch.undo()
    assert float((expected / before).min()) < 2e-3 and float((expected / before).max()) > 0.99
    found = energy_balance.emitted(table, components, theta, composition.space, log_u)
    assert float(((found - expected).abs() / (1e-4 * expected + 1e-6 * before)).max()) < 0.5


def test_no_flux_is_negative_or_undefined_or_falls_with_mass(table):
    bands = ["galex-fuv", "sdss2010-u", "wise2010-W4"]
    composition = Composition.of(ALL)
    model = GalaxyModel(table, bands, 3.0, composition)
    theta = draws(composition.space, 300, 5, log_mstar=10.0).float()
    redshift = torch.linspace(0.003, 3.0, 300)
    # A third have all their light in birth clouds, whose gas leaves nothing below the Lyman limit.
    composition.space.values(theta)["f_burst"][::3] = 1.0
    composition.space.values(theta)["t_burst"][::3] = 0.005
    fluxes = model.fluxes(theta, redshift)
    assert bool(torch.isfinite(fluxes).all()) and bool((fluxes >= 0).all())
    heavier = theta.clone()
    composition.space.values(heavier)["log_mstar"].add_(0.3)
    assert torch.allclose(model.fluxes(heavier, redshift), fluxes * 10**0.3, rtol=2e-5)
