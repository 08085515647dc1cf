"""The batched forward model against the one-galaxy-at-a-time reference, and what it refuses."""

import math

import numpy as np
import pytest
import reference_galaxy
import torch
from astropy.cosmology import Planck13
from provabgs import PARAMETERS, SPACE

from sedflow_dist.curves import Curve
from sedflow_dist.sps import histories
from sedflow_dist.sps.galaxy_model import GalaxyModel, check
from sedflow_dist.sps.populations import BURST, PopulationModel

DESI_BANDS = ("decam2014-g", "decam2014-r", "decam2014-z", "wise2010-W1", "wise2010-W2")
#: A galaxy with all that it can have.
GALAXY = {
    "log_mstar": 10.3, "beta1": 0.4, "beta2": 0.3, "beta3": 0.2, "beta4": 0.1, "f_burst": 0.02, "t_burst": 0.5,
    "gamma1": 3e-3, "gamma2": 5e-3, "tau_bc": 1.2, "tau_ism": 0.7, "n_dust": -0.4,
}  # fmt: skip


def theta(**changed):
    """One row of parameters: `GALAXY` but for what is given."""
    values = {**GALAXY, **changed}
    return torch.tensor([[values[name] for name in PARAMETERS]])


def reference_fluxes(parameters, redshift, bands, ssp, **options):
    galaxies = zip(parameters.tolist(), redshift.tolist(), strict=True)
    named = [(dict(zip(PARAMETERS, row, strict=True)), z) for row, z in galaxies]
    return np.array([reference_galaxy.fluxes(row, z, bands, ssp, **options) for row, z in named])


def magnitudes_between(a, b):
    return np.abs(2.5 * np.log10(np.asarray(a, float) / np.asarray(b, float)))


# -- agreement --------------------------------------------------------------------------------------------------------


def test_sdss_fluxes_are_those_of_the_reference(model, reference_ssp, galaxies, sdss_bands):
    parameters, redshift = galaxies(80, seed=1)
    expected = reference_fluxes(parameters, redshift, sdss_bands, reference_ssp)
    assert magnitudes_between(model.fluxes(parameters, redshift), expected).max() <= 0.003  # measured 1.2 mmag


def test_fluxes_in_other_bands_are_those_of_the_reference(ssp, reference_ssp, galaxies):
    """DESI Legacy Surveys with WISE; tolerance 2 mmag (measured 0.84), the cost of pixels and of speclite's own sum."""
    parameters, redshift = galaxies(40, seed=2)
    fluxes = GalaxyModel(ssp, DESI_BANDS, 0.2).fluxes(parameters, redshift)
    expected = reference_fluxes(parameters, redshift, DESI_BANDS, reference_ssp)
    assert magnitudes_between(fluxes, expected).max() <= 0.002


def test_high_redshift_fluxes_are_those_of_the_reference(ssp, reference_ssp, galaxies, sdss_bands):
    """Beyond z = 0.21 the Universe is younger than the last fixed bin, which it cuts. Tolerance 3 mmag."""
    parameters, _ = galaxies(30, seed=3)
    redshift = torch.linspace(0.21, 0.6, 30)
    fluxes = GalaxyModel(ssp, sdss_bands, 0.6).fluxes(parameters, redshift)
    expected = reference_fluxes(parameters, redshift, sdss_bands, reference_ssp)
    assert magnitudes_between(fluxes, expected).max() <= 0.003


def test_birth_clouds_of_another_age_agree_with_the_reference(ssp, reference_ssp, galaxies, sdss_bands):
    parameters, redshift = galaxies(20, seed=4)
    fluxes = GalaxyModel(ssp, sdss_bands, 0.2, birth_cloud_age=0.1).fluxes(parameters, redshift)
    expected = reference_fluxes(parameters, redshift, sdss_bands, reference_ssp, birth_cloud_age_gyr=0.1)
    assert magnitudes_between(fluxes, expected).max() <= 0.003


def test_float32_is_float64_to_rounding(model, ssp, galaxies, sdss_bands):
    parameters, redshift = galaxies(500, seed=5)
    exact = GalaxyModel(ssp, sdss_bands, 0.2, dtype=torch.float64).fluxes(parameters.double(), redshift)
    assert exact.dtype == torch.float64
    assert magnitudes_between(model.fluxes(parameters, redshift), exact).max() <= 1e-4  # measured 1.4e-6


def test_a_batch_gives_the_rows_that_single_galaxies_give(model, galaxies):
    """600 galaxies span three internal blocks; young bursts in some rows must not touch the others."""
    parameters, redshift = galaxies(600, seed=6)
    parameters[::7, PARAMETERS.index("t_burst")] = 0.004
    together = model.fluxes(parameters, redshift)
    for row in (0, 1, 254, 255, 256, 257, 511, 512, 599):
        alone = model.fluxes(parameters[row : row + 1], redshift[row : row + 1])
        assert torch.allclose(together[row], alone[0], rtol=1e-6, atol=0)


def test_observed_spectra_carry_the_fluxes(model, galaxies):
    """Photon-weighted means of the observed spectra through the bands are the fluxes; sums over pixels: 3 mmag."""
    parameters, redshift = galaxies(10, seed=7)
    spectra = model.spectra(parameters, redshift)
    wavelength, f_nu = (x.double().numpy() for x in model.observed(spectra, redshift))
    fluxes = model.fluxes(parameters, redshift).numpy()
    for i, band in enumerate(model.weights.bands):
        for row in range(10):
            fine = np.linspace(*band.range, 20_000)
            response = np.interp(fine, band.wavelength, band.response) / fine
            mean = np.sum(response * np.interp(fine, wavelength[row], f_nu[row])) / np.sum(response)
            assert mean == pytest.approx(fluxes[row, i], rel=0.003)


# -- bursts and bins --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t_burst", [0.0, 0.005, 0.00999, 0.0101, 0.5])
def test_bursts_younger_than_the_cloud_are_behind_it(model, t_burst):
    redshift = torch.tensor([0.05])
    bare = model.spectra(theta(f_burst=1.0, t_burst=t_burst, tau_bc=0.0), redshift)
    behind = model.spectra(theta(f_burst=1.0, t_burst=t_burst, tau_bc=2.0), redshift)
    cloud = torch.exp(-2.0 * 5500.0 / model.wavelength) if t_burst < 0.01 else torch.ones_like(model.wavelength)
    assert torch.allclose(behind / bare, cloud.expand_as(bare), rtol=1e-4)


def test_a_burst_before_the_big_bang_has_no_effect(model):
    z = torch.tensor([0.15])
    t_age = float(Planck13.age(0.15).value)
    without = model.fluxes(theta(f_burst=0.0, t_burst=0.1), z)
    assert torch.equal(model.fluxes(theta(f_burst=0.9, t_burst=t_age + 0.01), z), without)
    assert not torch.allclose(model.fluxes(theta(f_burst=0.9, t_burst=t_age - 0.01), z), without, rtol=0.01)


def test_flux_is_proportional_to_mass(model):
    z = torch.tensor([0.08])
    ratio = model.fluxes(theta(log_mstar=11.0), z) / model.fluxes(theta(log_mstar=8.0), z)
    assert torch.allclose(ratio, torch.full_like(ratio, 1000.0), rtol=1e-5)


def test_masses_sum_to_one_at_every_epoch(galaxies):
    """Also where the age of the Universe falls on the edge of a bin, which float32 cannot tell from its neighbours."""
    model = PopulationModel(z_max=3.0, metallicity_range=(1e-4, 0.1))
    redshifts = [np.linspace(0.001, 3.0, 500)]
    for edge in histories.BIN_EDGES_GYR[histories.BIN_EDGES_GYR > 2.2]:
        root = np.interp(-edge, -model._age_grid, model._z_grid)  # where the model's own ages meet the edge
        redshifts.append(root + 2e-8 * np.arange(-60, 61))
    z = torch.as_tensor(np.concatenate(redshifts)).float()
    parameters, _ = galaxies(len(z), seed=8)
    populations = model(SPACE.values(parameters), model.epoch(z))
    worst = (populations.mass.sum(1) - 1).abs()
    assert bool((populations.mass >= 0).all())
    assert float(worst.max()) < 1e-5, f"z = {z[worst.argmax()]:.9f}"


def test_burst_mass_is_the_last_population():
    model = PopulationModel(0.2, (1e-4, 0.1))
    parameters = theta(f_burst=0.3, t_burst=2.0)
    mass = model(SPACE.values(parameters), model.epoch(torch.tensor([0.1]))).mass
    assert float(mass[0, BURST]) == pytest.approx(0.3)


def test_metallicity_weights_reproduce_log_z(model, galaxies):
    """Linear in log Z: weights sum to the mass, and their mean log Z is the population's (clipped) own."""
    parameters, redshift = galaxies(100, seed=9)
    populations = model.stars.populations(SPACE.values(parameters), model.stars.populations.epoch(redshift))
    weights = model.stars.metallicity_weights(populations)
    nodes = torch.as_tensor(np.log(model.ssp.metallicity)).float()
    assert bool((weights >= -1e-7).all())
    assert torch.allclose(weights.sum(-1), populations.mass, atol=1e-6)
    expected = populations.mass * torch.log(populations.metallicity)
    assert torch.allclose((weights * nodes).sum(-1), expected, atol=1e-5)


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"log_mstar": math.nan}, "log_mstar = nan"),
        ({"t_burst": math.inf}, "t_burst = inf"),
        ({"tau_ism": -0.1}, r"tau_ism = -0\.1 is outside \[0, inf\]"),
        ({"tau_bc": -1.0}, "tau_bc = -1"),
        ({"f_burst": 1.5}, r"f_burst = 1\.5 is outside \[0, 1\]"),
        ({"gamma1": -1e-3}, "gamma1"),
        ({"beta1": -0.1, "beta2": 0.8}, "beta1"),
        ({"beta1": 0.5}, r"beta1 \+ beta2 \+ beta3 \+ beta4 = 1\.1"),
    ],
)
def test_bad_parameters_are_named(model, changed, message):
    rows = torch.cat([theta(), theta(), theta(**changed), theta()])
    with pytest.raises(ValueError, match=rf"row 2: {message}.*1 of 4 rows are bad"):
        model.fluxes(rows, torch.full((4,), 0.1))


@pytest.mark.parametrize("z", [0.2001, 0.0, -0.1, math.nan])
def test_redshifts_outside_the_model_are_named(model, z):
    with pytest.raises(ValueError, match=r"row 1: redshift = .* is outside \[0, 0\.2\]"):
        model.fluxes(theta().expand(2, -1), torch.tensor([0.1, z]))


def test_the_edge_of_the_redshift_range_is_inside(model):
    assert bool(torch.isfinite(model.fluxes(theta(), torch.tensor([0.2]))).all())


def test_wrong_shapes_are_refused(model):
    with pytest.raises(ValueError, match="the parameters are log_mstar"):
        check(SPACE, theta()[:, :11], torch.tensor([0.1]), 0.2)
    with pytest.raises(Exception, match="redshift"):  # jaxtyping's error where annotations are checked
        model.spectra(theta(), torch.tensor([0.1, 0.1]))


@pytest.mark.parametrize("wavelength", [(340_000.0, 380_000.0), (600_000.0, 800_000.0)])
def test_a_band_outside_the_table_is_refused(ssp, wavelength):
    """The table ends at 35 micron."""
    lam = np.linspace(*wavelength, 5)
    curve = Curve(name="far", wavelength=tuple(lam), response=(0, 1, 1, 1, 0))
    with pytest.raises(ValueError, match=r"band far needs rest wavelengths .*; the SSP table holds 101-35"):
        GalaxyModel(ssp, [curve], 0.2)


def test_bands_of_the_mid_infrared_are_served(ssp, galaxies):
    parameters, redshift = galaxies(5, seed=10)
    fluxes = GalaxyModel(ssp, ["wise2010-W3", "wise2010-W4"], 0.2).fluxes(parameters, redshift)
    assert bool((fluxes > 0).all())


def test_a_redshift_that_pushes_a_band_off_the_table_is_refused(ssp):
    GalaxyModel(ssp, ["galex-fuv"], 3.0)
    with pytest.raises(ValueError, match=r"band galex-fuv needs .* for z = 0 to 13; the SSP table holds"):
        GalaxyModel(ssp, ["galex-fuv"], 13.0)
