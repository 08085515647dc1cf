"""Emission of gas: the library's light, the ionising photons that it costs, and what fixed and free parameters mean."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from jobs.simulate import ssp as ssp_job
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.sps import bagpipes_libraries
from sedflow_dist.sps.components import Composition
from sedflow_dist.sps.galaxy_model import GalaxyModel
from sedflow_dist.sps.libraries import LYMAN_LIMIT_A
from sedflow_dist.sps.ssp import SSPTable
from storage_schemas import ssp_table
from storage_schemas.backend.location import Location

GAS = ("stars", "nebular", "birth_cloud", "kriek_conroy")
BANDS = ["sdss2010-u", "sdss2010-r", "sdss2010-z", "wise2010-W1"]


@pytest.fixture(scope="module")
def table(ssp):
    return bagpipes_libraries.add(ssp, ["nebular", "dust"])


@pytest.fixture(scope="module")
def young(table):
    """The table with ages to 100 Myr: smaller."""
    n = int(np.searchsorted(table.age, 0.1)) + 1
    return replace(table, age=table.age[:n], spectra=table.spectra[:, :n], surviving=table.surviving[:, :n])


def test_h_alpha_is_what_the_stars_ionising_photons_make(table):
    """Case B (Osterbrock & Ferland 2006): 1.37e-12 erg an ionising photon at 10^4 K; 20 %, as gas is warmer where metals are few.

    Stars of 2 Myr, log U = -3, every metallicity up to Zsun.
    """
    gas, lam, edges = table.nebular, table.wavelength, table.edges
    width, lsun = np.diff(edges), 3.839e33
    u, a = int(np.argmin(abs(gas.log_u + 3))), int(np.argmin(abs(gas.age - 2e-3)))
    near = (lam > 6480) & (lam < 6650)
    off = ((lam > 6380) & (lam < 6480)) | ((lam > 6650) & (lam < 6700))
    for z in range(5):
        stars = table.spectra[z, int(np.argmin(abs(table.age - gas.age[a])))].astype(float)
        ionising = lam < LYMAN_LIMIT_A
        photons = (stars * lam * width)[ionising].sum() * lsun / (6.626e-27 * 2.998e18)
        spectrum = gas.spectra[u, z, a].astype(float)
        line = ((spectrum[near] - np.median(spectrum[off])) * width[near]).sum() * lsun
        assert line / photons == pytest.approx(1.37e-12, rel=0.2), f"Z = {table.metallicity[z]}"


def test_gas_takes_the_lyman_continuum_of_stars_in_clouds_and_of_no_others(young):
    composition = Composition.of(("stars", "nebular"), {"log_u": -2.0})
    with_gas = GalaxyModel(young, ["galex-fuv"], 3.0, composition)
    without = GalaxyModel(young, ["galex-fuv"], 3.0, Composition.of(("stars",)))
    space = composition.space
    theta = torch.zeros(2, len(space.names))
    values = space.values(theta)
    values["beta1"].fill_(1.0)
    values["f_burst"].fill_(1.0)
    values["gamma1"].fill_(3e-3)
    values["t_burst"].copy_(torch.tensor([0.003, 0.02]))
    redshift = torch.tensor([0.1, 0.1])
    gas, stars = with_gas.spectra(theta, redshift), without.spectra(theta, redshift)
    blue = with_gas.wavelength < 905
    assert float((gas[0, blue] / stars[0, blue]).max()) < 0.05
    assert torch.equal(gas[1], stars[1])


@pytest.mark.parametrize("log_u", [-3.7, -2.5, -1.2])
def test_sums_of_few_spectra_are_the_library(table, galaxies, log_u):
    """Log U free against log U fixed, which interpolates the library itself: 0.3 mmag for all of the prior, FUV to W4."""
    bands = ["galex-nuv", *BANDS, "wise2010-W4"]
    fixed = GalaxyModel(table, bands, 1.0, Composition.of(GAS, {"log_u": log_u}))
    free = GalaxyModel(table, bands, 1.0, Composition.of(GAS))
    theta, _ = galaxies(300, seed=31)
    theta[::2, 6] = theta[::2, 6] * 1e-3  # t_burst: within clouds
    redshift = torch.linspace(0.01, 1.0, 300)
    column = free.space.names.index("log_u")
    more = torch.cat([theta[:, :column], torch.full_like(theta[:, :1], log_u), theta[:, column:]], 1)
    found = (2.5 * torch.log10(free.fluxes(more, redshift) / fixed.fluxes(theta, redshift))).abs()
    assert float(found.nan_to_num().max()) < 3e-4, found.nan_to_num().amax(0)


# -- fixed parameters, refusals, round trips -----------------------------------------------------------------------------


def test_a_fixed_parameter_is_no_column():
    free, fixed = Composition.of(GAS).space, Composition.of(GAS, {"log_u": -2}).space
    assert [name for name in free.names if name not in fixed.names] == ["log_u"]
    assert "log_u" not in fixed.coordinates and fixed.fixed == {"log_u": -2.0}
    theta = fixed.from_unit(torch.full((3, len(fixed.coordinates)), 0.5))
    assert fixed.values(theta)["log_u"].tolist() == [-2.0, -2.0, -2.0]
    again = Composition.of(GAS, fixed.to_dict()).space
    assert again.names == fixed.names and again.fixed == fixed.fixed and again.to_dict() == fixed.to_dict()


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ({"log_u": 1.0}, "prior of log_u: 1 is not what log_u can be: -4 to 0"),
        ({"log_mstar": 10.0}, "prior of log_mstar: it cannot be fixed: it is the amplitude"),
        ({"gamma": 0.01}, "prior of gamma: it cannot be fixed: it is several"),
        ({"q_pah": 2.0}, "unknown parameters q_pah"),
    ],
)
def test_what_cannot_be_fixed_is_refused(prior, message):
    with pytest.raises(ValueError, match=message):
        Composition.of(GAS, prior)


@pytest.mark.parametrize(("names", "what"), [(GAS, "gas"), (("stars", "kriek_conroy", "dust_emission"), "dust")])
def test_a_table_without_a_library_is_refused(ssp, names, what):
    with pytest.raises(ValueError, match=rf"has no emission of {what}, which components of the galaxy model need"):
        GalaxyModel(ssp, BANDS, 0.2, Composition.of(names))


def test_energy_of_a_table_that_was_cut_is_refused(table):
    with pytest.raises(ValueError, match=r"the SSP table holds 1000-.*what dust absorbs is a sum over 100-350000 A"):
        table.cut(1000.0, 3e5).with_bolometric()


def assert_same(found: SSPTable, expected: SSPTable):
    assert found.checksum == expected.checksum and list(found.arrays) == list(expected.arrays)
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)


def test_tables_with_libraries_go_through_arrays_and_stores(young, tmp_path):
    assert {"nebular_spectra", "dust_power"} < set(young.arrays)
    assert_same(SSPTable.of_arrays(young.arrays, young.provenance), young)
    whole = young.with_bolometric()
    assert_same(SSPTable.of_arrays(whole.arrays, whole.provenance), whole)
    at = Location.parse(str(tmp_path / "ssp"))
    ssp_table.write(at, young.arrays, young.provenance, young.checksum)
    assert_same(ssp_job.load(at), young)


def test_arrays_that_are_no_table_are_refused(young):
    arrays = young.arrays
    with pytest.raises(ValueError, match="SSP table: its arrays are"):
        SSPTable.of_arrays({name: arrays[name] for name in arrays if name != "age"}, {})
    with pytest.raises(ValueError, match="SSP table: its arrays are"):
        SSPTable.of_arrays({name: arrays[name] for name in arrays if name != "dust_power"}, {})


def test_a_trained_model_keeps_the_libraries(flow, young):
    spec = flow.spec.model_copy(update={"components": GAS, "prior": {**flow.spec.prior, "log_u": -2.0}})
    parts = flow.network, flow.features, flow.noise, flow.colour_range, flow.novelty
    again = TrainedModel.from_bytes(*TrainedModel(spec, *parts, young).to_bytes())
    assert again.spec.components == GAS
    for name in ("log_u", "age", "spectra"):
        np.testing.assert_array_equal(getattr(again.ssp_table.nebular, name), getattr(young.nebular, name))
    np.testing.assert_array_equal(again.ssp_table.dust.power, young.dust.power)
