"""Chosen columns against the full galaxy model's spectra, moved and integrated by speclite, and astropy's distances."""

from itertools import pairwise

import numpy as np
import pytest
import speclite.filters
import torch
from astropy.cosmology import Planck13
from provabgs import SPACE
from pydantic import ValidationError
from scipy.optimize import brentq

from sedflow_dist.sps import cosmology, derived
from sedflow_dist.sps.chosen import Chosen
from sedflow_dist.sps.chosen_columns import ChosenColumns, OwnBands, needed
from sedflow_dist.sps.fixed_redshift import RedshiftModel
from sedflow_dist.sps.galaxy_model import GalaxyModel

LABELS, LIMIT = tuple("ugriz"), 18.2
WANTED = {
    "predict": ["decam2014-r", "g"],
    "rest_frame": {"bands": ["r", "sdss2010-g"], "redshift": 0.1, "observed": ["r", "g"]},
    "selection": {"band": "r", "magnitude": LIMIT, "redshift": [0.02, 0.15]},
    "star_formation_history": [0, 0.1, 1, 3, 14],
    "specific_rates": True,
    "colours": ["observed", "unattenuated"],
}
MPC_CM = 3.0856775814913673e24


@pytest.fixture(scope="module")
def fast(model):
    return RedshiftModel(model)


@pytest.fixture(scope="module")
def compute(fast, ssp, sdss_bands):
    """Chosen columns of draws by name, as {column: (galaxy, draw)}."""

    def run(theta, redshift, wanted=WANTED):
        found = ChosenColumns(Chosen.model_validate(wanted), OwnBands(LABELS, sdss_bands), fast, ssp)
        values = found(fast(theta, redshift))
        assert values.shape == (*theta.shape[:2], len(found.quantities))
        return {quantity.name: values[..., i] for i, quantity in enumerate(found.quantities)}

    return run


@pytest.fixture(scope="module")
def cases(galaxies):
    """Galaxies of 10^8.5 to 10^12 solar masses, one draw each; the limit lies inside the model's reach for most."""
    theta, redshift = galaxies(30, seed=61)
    theta[:, SPACE.places["log_mstar"]] = torch.linspace(8.5, 12, 30)
    return theta, redshift


@pytest.fixture(scope="module")
def found(compute, cases):
    theta, redshift = cases
    return {name: values[:, 0].double().numpy() for name, values in compute(theta.unsqueeze(1), redshift).items()}


@pytest.fixture(scope="module")
def spectra(model, cases):
    """Rest-frame wavelengths [A] and spectra [erg/s/A] of the cases."""
    light = model.spectra(*cases).double().numpy() * cosmology.LSUN_ERG_S
    return model.wavelength.double().numpy(), light


def observed_magnitude(band, wavelength, light, z):
    """Of a spectrum at redshift z: astropy's distance, speclite's integral."""
    d_l = Planck13.luminosity_distance(z).value * MPC_CM
    flux = light / (4 * np.pi * d_l**2 * (1 + z))
    return float(speclite.filters.load_filter(band).get_ab_magnitude(flux, wavelength * (1 + z)))


def test_predicted_fluxes_are_those_of_the_full_model(found, cases, ssp):
    """2 mmag, as all fluxes of draws."""
    full = GalaxyModel(ssp, ["decam2014-r", "sdss2010-g"], 0.2).fluxes(*cases).numpy()
    for i, name in enumerate(("model_flux_decam2014_r", "model_flux_g")):
        assert found[name] == pytest.approx(full[:, i], rel=2e-3)


def test_magnitudes_in_a_shifted_band_are_those_of_the_spectrum_at_that_redshift(found, spectra):
    """A band blue-shifted by 1 + z0 sees at rest what the band sees at z0: m(z0) = M + DM(z0) - 2.5 log10(1 + z0)."""
    modulus = Planck13.distmod(0.1).value - 2.5 * np.log10(1.1)
    for name, band in (("absmag_z0p1_r", "sdss2010-r"), ("absmag_z0p1_sdss2010_g", "sdss2010-g")):
        expected = [observed_magnitude(band, spectra[0], light, 0.1) - modulus for light in spectra[1]]
        assert found[name] == pytest.approx(expected, abs=3e-3)


def test_k_corrections_bring_the_observed_to_the_absolute_magnitude(found, cases, spectra, compute):
    theta, redshift = cases
    z = redshift.double().numpy()
    seen = [observed_magnitude("sdss2010-g", spectra[0], *one) for one in zip(spectra[1], z, strict=True)]
    expected = seen - Planck13.distmod(z).value - found["absmag_z0p1_sdss2010_g"]
    assert found["kcorr_g_z0p1_sdss2010_g"] == pytest.approx(expected, abs=3e-3)
    at_the_shift = compute(theta.unsqueeze(1), torch.full_like(redshift, 0.1))["kcorr_r_z0p1_r"]
    assert at_the_shift.numpy() == pytest.approx(-2.5 * np.log10(1.1), abs=3e-3)  # of every spectrum


def test_unshifted_bands_have_the_magnitudes_that_every_catalog_has(compute, cases, model, fast):
    theta, redshift = cases[0].unsqueeze(1), cases[1]
    own = compute(theta, redshift, {"rest_frame": {"bands": ["r"]}})["absmag_z0_r"]
    names = [quantity.name for quantity in derived.properties(SPACE, LABELS)]
    assert torch.allclose(
        own, derived.derive(model, theta, fast(theta, redshift))[..., names.index("absmag_r")], atol=2e-3
    )


def test_the_greatest_redshift_is_that_of_a_search(found, spectra):
    """Brute force: the last of 50 redshifts that is bright enough, refined; 1 % was asked for, 0.2 % is kept."""
    grid, inside = np.linspace(1e-3, 0.2, 50), 0
    for i, light in enumerate(spectra[1]):

        def excess(z, light=light):
            return observed_magnitude("sdss2010-r", spectra[0], light, z) - LIMIT

        bright = np.flatnonzero([excess(z) < 0 for z in grid])
        if bright[-1] == len(grid) - 1:
            assert found["z_max"][i] == pytest.approx(0.2, rel=1e-6)
            continue
        inside += 1
        expected = brentq(excess, grid[bright[-1]], grid[bright[-1] + 1])
        assert found["z_max"][i] == pytest.approx(expected, rel=2e-3)
    assert 15 <= inside < 30


def test_volumes_are_between_the_surveys_redshifts_per_steradian(found):
    z = np.clip(found["z_max"], 0.02, 0.15)
    expected = (Planck13.comoving_volume(z) - Planck13.comoving_volume(0.02)).value / (4 * np.pi)
    assert found["v_max"] == pytest.approx(expected, rel=1e-3, abs=1e-4 * expected.max())
    seen = found["v_max"] > 0
    assert (found["v_max_weight"][seen] * found["v_max"][seen]) == pytest.approx(1, rel=1e-5)
    assert not found["v_max_weight"][~seen].any()


def test_a_galaxy_too_faint_anywhere_has_no_volume(compute, cases):
    theta = cases[0].unsqueeze(1).clone()
    theta[..., SPACE.places["log_mstar"]] = -20.0
    found = compute(theta, cases[1])
    assert float(found["z_max"].max()) < 2e-5
    assert not found["v_max"].any() and not found["v_max_weight"].any()


def test_mean_rates_times_their_times_are_the_mass(found, cases, model):
    theta, redshift = cases
    age = Planck13.age(redshift.double().numpy()).value
    edges = [np.minimum(edge, age) for edge in WANTED["star_formation_history"]]
    rates = [found[name] for name in ("sfr_0_0p1_gyr", "sfr_0p1_1_gyr", "sfr_1_3_gyr", "sfr_3_14_gyr")]
    formed = sum(rate * (b - a) * 1e9 for rate, a, b in zip(rates, edges[:-1], edges[1:], strict=True))
    assert formed == pytest.approx(10 ** theta[:, SPACE.places["log_mstar"]].double().numpy(), rel=1e-4)


def test_a_burst_is_in_its_own_bin_and_nothing_forms_before_the_big_bang(compute, galaxies):
    theta, redshift = galaxies(2, seed=5)
    theta[:, SPACE.places["f_burst"]], theta[:, SPACE.places["t_burst"]] = 1.0, 2.0
    found = compute(theta.unsqueeze(1), redshift, {"star_formation_history": [0, 1.5, 2.5, 13.85, 14]})
    mass = 10 ** theta[:, SPACE.places["log_mstar"]]
    assert torch.allclose(found["sfr_1p5_2p5_gyr"][:, 0], mass / 1e9, rtol=1e-4)
    assert not any(found[name].any() for name in ("sfr_0_1p5_gyr", "sfr_2p5_13p85_gyr", "sfr_13p85_14_gyr"))


def test_specific_rates_are_rates_over_the_surviving_mass(found, cases, model, fast):
    theta, redshift = cases[0].unsqueeze(1), cases[1]
    properties = derived.derive(model, theta, fast(theta, redshift))[:, 0].double().numpy()
    of = {quantity.name: properties[:, i] for i, quantity in enumerate(derived.properties(SPACE, LABELS))}
    for window in ("1gyr", "100myr"):
        expected = of[f"log_sfr_{window}"] - of["log_mstar_surviving"]
        assert found[f"log_ssfr_{window}"] == pytest.approx(expected, abs=1e-5)


def test_colours_are_the_models_and_without_dust_those_of_no_optical_depth(found, cases, model, compute):
    theta, redshift = cases
    magnitude = -2.5 * np.log10(model.fluxes(theta, redshift).double().numpy())
    clean = theta.clone()
    clean[:, SPACE.places["tau_bc"]] = clean[:, SPACE.places["tau_ism"]] = 0.0
    rest = {"rest_frame": {"bands": list(LABELS)}}
    absolute = {name: m[:, 0].numpy() for name, m in compute(clean.unsqueeze(1), redshift, rest).items()}
    for i, (a, b) in enumerate(pairwise(LABELS)):
        assert found[f"observed_{a}_{b}"] == pytest.approx(magnitude[:, i] - magnitude[:, i + 1], abs=4e-3)
        assert found[f"unattenuated_{a}_{b}"] == pytest.approx(
            absolute[f"absmag_z0_{a}"] - absolute[f"absmag_z0_{b}"], abs=4e-3
        )


def test_many_draws_at_once_are_the_same_as_few(compute, galaxies):
    """Draws are worked on a thousand at a time."""
    theta, redshift = galaxies(1, seed=8)
    many = compute(theta.expand(1030, -1).unsqueeze(0), redshift)
    for name, values in compute(theta.unsqueeze(0), redshift).items():
        assert values.expand(1, 1030).numpy() == pytest.approx(many[name].numpy(), rel=1e-4, abs=1e-4), name


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"predict": ["wise2010-W4"]}, r"predict: band wise2010-W4 needs rest .* 150917-280500 A for z = 0 to 0.2; the SSP "
         r"table holds 2446-11186 A\. .*when it was trained"),
        ({"selection": {"band": "wise2010-W3", "magnitude": 15}}, "selection: band wise2010-W3 needs"),
        ({"rest_frame": {"bands": ["galex-nuv"], "redshift": 1.0}}, "rest_frame: band galex-nuv blue-shifted by 2 needs .* 8"),
        ({"rest_frame": {"bands": ["r"], "observed": ["y"]}}, "rest_frame.observed: 'y' is none of the bands u, g, r, i, z"),
        ({"predict": ["no-such"]}, "no band named 'no-such'"),
        ({"selection": {"band": "r", "magnitude": 18, "redshift": [0, 0.6]}}, "0.6 is beyond .* reaches redshift 0.2"),
    ],
)  # fmt: skip
def test_what_the_table_or_the_survey_has_not_is_refused_with_the_numbers(fast, model, sdss_bands, wanted, message):
    with pytest.raises(ValueError, match=message):
        ChosenColumns(Chosen.model_validate(wanted), OwnBands(LABELS, sdss_bands), fast, model.ssp)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"predict": ["sdss2010-r", "sdss2010-r"]}, "model_flux_sdss2010_r is asked for twice"),
        ({"selection": {"band": "r"}}, "both or none"),
        ({"selection": {"band": "r", "magnitude": 18, "redshift": [0.2, 0.1]}}, "not increasing"),
        ({"rest_frame": {"bands": ["g", "r"], "observed": ["r"]}}, "1 labels for 2 bands"),
        ({"star_formation_history": [1, 0.1]}, "increasing lookback times from 0 to 14 Gyr"),
        ({"star_formation_history": [0]}, "two or more"),
        ({"colours": ["observed", "observed"]}, "asked for twice"),
        ({"colours": ["bluer"]}, "observed"),
        ({"predicted": []}, "predicted"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(wanted, message):
    with pytest.raises(ValidationError, match=message):
        Chosen.model_validate(wanted)


def test_training_keeps_the_wavelengths_of_chosen_bands(ssp, sdss_bands):
    own = OwnBands(LABELS, sdss_bands)
    plain = needed(Chosen(), own, 0.2, ssp.edges)
    wide = needed(
        Chosen.model_validate({"predict": ["wise2010-W1"], "rest_frame": {"bands": ["galex-nuv"]}}), own, 0.2, ssp.edges
    )
    assert wide[0] < 1720 < plain[0] and wide[1] > 38_000 > plain[1]


def test_nothing_chosen_leaves_no_trace():
    assert Chosen().is_empty and Chosen().model_dump() == {}
    assert not Chosen.model_validate(WANTED).is_empty
