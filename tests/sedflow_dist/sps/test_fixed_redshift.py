"""The forward model for many draws at one redshift against the full one, and its rest-frame quantities."""

import numpy as np
import pytest
import reference_galaxy
import speclite.filters
import torch
from provabgs import PARAMETERS

from sedflow_dist.sps import cosmology
from sedflow_dist.sps.fixed_redshift import RedshiftModel
from sedflow_dist.sps.galaxy_model import GalaxyModel

REDSHIFTS = (0.004, 0.03, 0.08, 0.14, 0.1999)
#: Bands beyond ugriz, with z_max: ultraviolet, near infrared, and the one in which Calzetti's curve reaches zero (W1).
OTHER_BANDS = {
    "desi": (("decam2014-g", "decam2014-r", "decam2014-z", "wise2010-W1", "wise2010-W2"), 0.2),
    "galex": (("galex-fuv", "galex-nuv"), 0.2),
    "twomass": (("twomass-J", "twomass-H", "twomass-Ks"), 0.2),
    "lsst, z = 1": (("lsst2023-u", "lsst2023-g", "lsst2023-r", "lsst2023-i"), 1.0),
    "u, z = 3": (("sdss2010-u", "wise2010-W4"), 3.0),
}


@pytest.fixture(scope="module")
def redshift_model(model):
    return RedshiftModel(model)


def differences(model, redshift_model, parameters, z):
    """|difference| from the full model [mag] and attenuation [mag], each (draw, band)."""
    full = model.fluxes(parameters, torch.full((len(parameters),), z))
    flux = redshift_model(parameters.unsqueeze(0), torch.tensor([z])).flux[0] * 10 ** parameters[:, :1]
    bare = parameters.clone()
    bare[:, [PARAMETERS.index("tau_bc"), PARAMETERS.index("tau_ism")]] = 0.0
    bare = model.fluxes(bare, torch.full((len(parameters),), z))
    return 2.5 * torch.log10(flux / full).abs(), 2.5 * torch.log10(bare / full)


@pytest.mark.parametrize("z", REDSHIFTS)
def test_sdss_fluxes_are_those_of_the_full_model(model, redshift_model, galaxies, z):
    parameters, _ = galaxies(3000, seed=21)
    found, _ = differences(model, redshift_model, parameters, z)
    assert float(found.max()) <= 0.002  # measured 0.9 mmag (u); griz 0.13
    assert float(found[:, 1:].max()) <= 0.0005


@pytest.mark.parametrize("name", OTHER_BANDS)
def test_other_bands_are_those_of_the_full_model(ssp, galaxies, name):
    """Where dust leaves more than 1/1600 of the light (8 mag): fainter than that, nobody measures the band."""
    bands, z_max = OTHER_BANDS[name]
    model = GalaxyModel(ssp, bands, z_max)
    fast = RedshiftModel(model)
    parameters, _ = galaxies(1000, seed=22)
    for z in (0.004, 0.1, 0.999 * z_max):
        found, attenuation = differences(model, fast, parameters, z)
        worst = torch.where(attenuation < 8, found, 0.0).amax(0)
        assert float(worst.max()) <= 0.002, f"z = {z}: {dict(zip(bands, worst.tolist(), strict=True))} mag"


def test_many_galaxies_at_once_are_single_ones(redshift_model, galaxies):
    parameters, redshift = galaxies(60, seed=23)
    parameters[::5, PARAMETERS.index("t_burst")] = 0.005
    draws, z = parameters.view(6, 10, 12), redshift[:6]
    together = redshift_model(draws, z)
    for row in range(6):
        alone = redshift_model(draws[row : row + 1], z[row : row + 1])
        for name in ("flux", "absolute", "surviving"):
            assert torch.allclose(getattr(together, name)[row], getattr(alone, name)[0], rtol=1e-5), name


def test_the_amplitude_is_not_used(redshift_model, galaxies):
    parameters, redshift = galaxies(20, seed=24)
    lighter = parameters.clone()
    lighter[:, 0] = 0.0
    z = redshift[:1]
    assert torch.equal(redshift_model(parameters[None], z).flux, redshift_model(lighter[None], z).flux)


def test_surviving_mass_is_the_references(redshift_model, reference_ssp, galaxies):
    parameters, redshift = galaxies(30, seed=25)
    found = redshift_model(parameters.unsqueeze(1), redshift).surviving.squeeze(1)
    for row, z, fraction in zip(parameters.tolist(), redshift.tolist(), found.tolist(), strict=True):
        values = dict(zip(PARAMETERS, row, strict=True))
        expected = reference_galaxy.properties(values, z, reference_ssp)["log_mstar_surviving"]
        assert np.log10(fraction) + row[0] == pytest.approx(expected, abs=1e-5)


def test_absolute_magnitudes_are_the_references(redshift_model, reference_ssp, sdss_bands, galaxies):
    """The reference's rest-frame spectrum at 10 pc through speclite: 3 mmag, as for the fluxes."""
    parameters, redshift = galaxies(20, seed=26)
    found = redshift_model(parameters.unsqueeze(1), redshift).absolute.squeeze(1) * 10 ** parameters[:, :1]
    at_10_pc = cosmology.LSUN_ERG_S / (4 * np.pi * 3.0856775814913673e19**2)
    for row, z, fluxes in zip(parameters.tolist(), redshift.tolist(), found, strict=True):
        wavelength, light = reference_galaxy.spectrum(dict(zip(PARAMETERS, row, strict=True)), z, reference_ssp)
        for band, flux in zip(sdss_bands, fluxes.tolist(), strict=True):
            expected = 1e9 * speclite.filters.load_filter(band).get_ab_maggies(at_10_pc * light, wavelength)
            assert 2.5 * np.log10(flux / expected) == pytest.approx(0, abs=0.003)
