"""FSPS on a miniature SPS_HOME, or on the real one where SPS_HOME is set: doctor, engine, agreement with the table.

FSPS runs in subprocesses only, each of which must print a token: its STOP ends a process with exit status 0, under
pytest too, so that an exit status proves nothing.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mini_sps_home
import numpy as np
import pytest
import reference_galaxy
import torch
from fsps_process import in_subprocess
from provabgs import PARAMETERS, SPACE

from sedflow_dist import keyed_random
from sedflow_dist.sps import cosmology, fsps_engine, fsps_home, fsps_tables
from sedflow_dist.sps.filters import Band
from sedflow_dist.sps.galaxy_model import GalaxyModel
from sedflow_dist.sps.ssp import SSPTable

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("fsps") is None, reason="python-fsps is not installed: pip install 'sedflow-dist[fsps]'"
)
SDSS = [f"sdss2010-{band}" for band in "ugriz"]
N_GALAXIES = 20
#: A galaxy with all that it can have: its burst is older than 10 Myr and mostly in its cloud by FSPS's rule.
GALAXY = {
    "log_mstar": 10.3, "beta1": 0.4, "beta2": 0.3, "beta3": 0.2, "beta4": 0.1, "f_burst": 0.02, "t_burst": 0.0103,
    "gamma1": 3e-3, "gamma2": 5e-3, "tau_bc": 1.2, "tau_ism": 0.7, "n_dust": -0.4,
}  # fmt: skip
REDSHIFT = 0.07


@pytest.fixture(scope="session")
def mini_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mini_sps_home.write(tmp_path_factory.mktemp("mini") / "sps_home")


@pytest.fixture(scope="session")
def home(mini_home: Path) -> Path:
    """The real home where there is one, else the miniature."""
    real = os.environ.get("SPS_HOME")
    return Path(real) if real else mini_home


@pytest.fixture(scope="session")
def draws() -> tuple[np.ndarray, np.ndarray]:
    """Parameters and redshifts of galaxies from the prior; the last galaxy is `GALAXY`."""
    u = keyed_random.uniforms(3, "tests/test_fsps", 0, N_GALAXIES, 12)
    theta = SPACE.from_unit(torch.as_tensor(u[:, :11])).numpy()
    redshift = 0.001 + 0.199 * u[:, 11]
    theta[-1], redshift[-1] = list(GALAXY.values()), REDSHIFT
    return theta, redshift


@pytest.fixture(scope="session")
def engine(home: Path, draws, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one FSPS says: grids of SSPs, galaxies, and what it refuses."""
    folder = tmp_path_factory.mktemp("engine")
    np.savez(folder / "draws.npz", theta=draws[0], redshift=draws[1])
    code = """
        import pickle
        from sedflow_dist.sps.fsps_engine import FSPS
        draws = np.load(folder / "draws.npz")
        theta, redshift = draws["theta"], draws["redshift"]
        no_cloud = theta.copy()
        no_cloud[:, 9] = 0
        engine = FSPS()
        galaxies = [engine.galaxy_spectrum(t, z)[1] for t, z in zip(theta, redshift)]
        galaxies_no_cloud = [engine.galaxy_spectrum(t, z)[1] for t, z in zip(no_cloud, redshift)]
        between = 0.37 * engine.metallicity[6] + 0.63 * engine.metallicity[7]
        one = engine.ssp_spectrum(1.234, between)
        spectra, surviving = zip(*map(engine.ssp_grid, engine.metallicity))
        np.savez(
            folder / "engine.npz", wavelength=engine.wavelength, age=engine.age, metallicity=engine.metallicity,
            spectra=spectra, surviving=surviving, galaxies=galaxies, galaxies_no_cloud=galaxies_no_cloud,
            between=between, one=one, youngest=engine.ssp_spectrum(0.0, 0.01),
        )

        def refusal(call):
            try:
                call()
            except Exception as error:
                return f"{type(error).__name__}: {error}"
            return "accepted"

        bad = theta[0].copy()
        bad[10] = np.nan
        answer = {"provenance": engine.provenance, "refused": {
            "NaN parameter": refusal(lambda: engine.galaxy_spectrum(bad, 0.1, row=4711)),
            "NaN redshift": refusal(lambda: engine.galaxy_spectrum(theta[0], np.nan, row=12)),
            "too few parameters": refusal(lambda: engine.galaxy_spectrum(theta[0, :11], 0.1, row=13)),
            "metal-rich": refusal(lambda: engine.ssp_grid(0.09)),
            "metal-poor": refusal(lambda: engine.ssp_spectrum(1.0, 1e-5)),
            "NaN metallicity": refusal(lambda: engine.ssp_spectrum(1.0, np.nan)),
            "too old": refusal(lambda: engine.ssp_spectrum(20.1, 0.01)),
            "negative dust": refusal(lambda: engine.ssp_spectrum(1.0, 0.01, tau_ism=-0.1)),
            "second engine": refusal(FSPS),
            "pickling": refusal(lambda: pickle.dumps(engine)),
        }}
    """
    answer = in_subprocess(home, code, folder)
    return {**answer, **np.load(folder / "engine.npz")}


@pytest.fixture(scope="session")
def table(engine) -> SSPTable:
    grids = list(zip(engine["spectra"], engine["surviving"], strict=True))
    return fsps_tables.table(engine["wavelength"], engine["age"], engine["metallicity"], grids, engine["provenance"])


def magnitude_differences(model: GalaxyModel, theta, redshift, wavelength, luminosities) -> np.ndarray:
    """Table minus FSPS, (galaxy, band) [mag]."""
    bands = [Band.load(name) for name in model.bands]
    direct = [
        fsps_engine.band_fluxes(wavelength, spectrum, z, bands)
        for spectrum, z in zip(luminosities, redshift, strict=True)
    ]
    ours = model.fluxes(torch.as_tensor(theta), torch.as_tensor(redshift)).double().numpy()
    return -2.5 * np.log10(ours / np.array(direct))


# -- the doctor --------------------------------------------------------------------------------------------------------


def test_a_good_home_has_no_problems_and_gives_a_spectrum(home):
    assert fsps_home.check_home(str(home)) == []
    result = fsps_home.probe(str(home))
    assert result.ok, result.message
    assert result.facts["libraries"] == ["mist", "c3k_lr", "DL07"]


def test_the_miniature_is_the_same_every_time(mini_home, tmp_path):
    again = mini_sps_home.write(tmp_path / "again")
    names = sorted(p.relative_to(mini_home) for p in mini_home.rglob("*") if p.is_file())
    assert len(names) > 90
    assert [n for n in names if (mini_home / n).read_bytes() != (again / n).read_bytes()] == []


def _shorten(path: Path, keep: Callable[[bytes], bytes]) -> None:
    data = path.read_bytes()
    path.unlink()  # it may be a link that other files share
    path.write_bytes(keep(data))


ISOCHRONES = "ISOCHRONES/MIST/isoc_feh_m025_afe_p0_vvcrit0.4_full.dat"
SPECTRA = "SPECTRA/C3K/c3k_lr/c3k_lr_feh-1.00_afe+0.0.spec.bin"
BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing file": (lambda home: (home / "SPECTRA/xrb/xsp.lambda").unlink(), "xsp.lambda is missing"),
    "truncated spectra": (
        lambda home: _shorten(home / SPECTRA, lambda data: data[:8_000_000]),
        "8,000,000 bytes instead of 8,673,280",
    ),
    "wrong isochrone count": (
        lambda home: _shorten(home / ISOCHRONES, lambda data: data[: data.rindex(b"#")]),
        "106 isochrones instead of 107",
    ),
    "truncated nebular lines": (
        lambda home: _shorten(home / "nebular/ZAU_ND_mist.lines", lambda data: data[: len(data) // 2]),
        "numbers of the 130,296",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_home_gets_one_sentence_with_the_remedy(mini_home, tmp_path, name):
    home = tmp_path / "home"
    shutil.copytree(mini_home, home, symlinks=True)
    break_it, sentence = BREAKS[name]
    break_it(home)
    problems = fsps_home.check_home(str(home))
    assert len(problems) == 1
    assert sentence in problems[0]
    assert "git clone https://github.com/cconroy20/fsps" in problems[0] and "export SPS_HOME=" in problems[0]


@pytest.mark.parametrize("name", ["unset", "relative", "not a directory", "too long"])
def test_a_path_that_cannot_be_a_home_gets_one_sentence(mini_home, tmp_path, name):
    deep = tmp_path / ("x" * 130) / ("y" * 130)
    deep.parent.mkdir()
    deep.symlink_to(mini_home)
    path, sentence = {
        "unset": (None, "is not set"),
        "relative": ("fsps", "other processes"),
        "not a directory": (str(mini_home / "data/imf.dat"), "not a directory"),
        "too long": (str(deep), f"has {len(str(deep))} characters"),
    }[name]
    problems = fsps_home.check_home(path)
    assert len(problems) == 1
    assert sentence in problems[0] and "export SPS_HOME=" in problems[0]


def test_the_probe_is_not_fooled_by_a_stop_and_passes_on_what_fsps_says(mini_home, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(mini_home, home, symlinks=True)
    (home / "ISOCHRONES/MIST/zlegend.dat").unlink()
    result = fsps_home.probe(str(home))
    assert not result.ok
    assert "exit status 0" in result.message  # this is why the status must not count
    assert "SPS_SETUP ERROR: zlegend.dat cannot be opened" in result.message and "git clone" in result.message


# -- the process -------------------------------------------------------------------------------------------------------


def test_a_stop_cannot_look_like_success_and_leaves_its_last_words(home, tmp_path):
    code = """
        from sedflow_dist.sps.fsps_engine import FSPS
        engine = FSPS(log=folder / "log")
        theta = np.array([10, 0.25, 0.25, 0.25, 0.25, 0, 1, 1e-3, 1e-3, 0.5, 0.5, 0])
        engine.galaxy_spectrum(theta, 0.1, row=6)
        engine._population.params["uvb"] = -1.0  # FSPS stops at this
        engine.galaxy_spectrum(theta, 0.1, row=7)
        answer = {}
    """
    with pytest.raises(AssertionError, match=r"no token \(exit status 0\)"):
        in_subprocess(home, code, tmp_path)
    words = fsps_engine.last_words(tmp_path / "log")
    assert "row 7" in words and "'n_dust': 0.0" in words and "ADD_DUST ERROR: pset%uvb<0!" in words


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NaN parameter", "ValueError: row 4711: tau_ism = nan is outside [0, inf]"),
        ("NaN redshift", "ValueError: row 12: redshift = nan is outside"),
        ("too few parameters", "ValueError: row 13: parameters have shape (1, 11)"),
        ("metal-rich", "ValueError: metallicity = 0.09 is outside [6.01e-05, 0.0601]"),
        ("metal-poor", "ValueError: metallicity = 1e-05 is outside"),
        ("NaN metallicity", "ValueError: metallicity = nan is outside"),
        ("too old", "ValueError: age = 20.1 is outside [0, 19.9526]"),
        ("negative dust", "ValueError: tau_ism = -0.1 is outside"),
        ("second engine", "RuntimeError: this process has an FSPS already"),
        ("pickling", "TypeError: FSPS cannot be pickled"),
    ],
)
def test_what_fsps_would_get_wrong_in_silence_is_refused(engine, name, expected):
    assert engine["refused"][name].startswith(expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: fsps_engine.Nebula(log_u=0.0),
        lambda: fsps_engine.Nebula(log_z_gas=0.5),
        lambda: fsps_engine.FSPSSettings(z_solar=1.0),
        lambda: fsps_engine.FSPSSettings(birth_cloud_age=1e-4),
    ],
)
def test_settings_without_meaning_are_refused(make):
    with pytest.raises(ValueError, match="is outside"):
        make()


def test_an_engine_is_not_made_on_a_home_with_problems(tmp_path):
    with pytest.raises(ValueError, match="git clone"):
        fsps_engine.FSPS(home=str(tmp_path))


# -- the spectra -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def plain_fsps(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """python-fsps without any of our code: SSPs of two metallicities in another order, and `GALAXY` step by step."""
    folder = tmp_path_factory.mktemp("plain")
    limits = reference_galaxy.SSP(
        np.empty(0), np.empty(0), 0.019 * 10 ** np.array([-2.5, 0.5]), np.empty(0), np.empty(0)
    )
    stars = reference_galaxy.populations(GALAXY, REDSHIFT, limits)
    np.savez(folder / "stars.npz", mass=stars.mass, age=stars.age_gyr, metallicity=stars.metallicity)
    code = f"""
        import fsps
        population = fsps.StellarPopulation(zcontinuous=1, imf_type=1, dust_type=4, sfh=0, add_dust_emission=False)
        grids = []
        for i in (10, 2):
            population.params["logzsol"] = np.log10(population.zlegend[i] / population.solar_metallicity)
            wavelength, grid = population.get_spectrum(tage=0)
            grids.append(grid * (2.9979e18 / wavelength**2))
        population.params["dust1"] = {GALAXY["tau_bc"]}
        population.params["dust2"] = {GALAXY["tau_ism"]}
        population.params["dust_index"] = {GALAXY["n_dust"]}
        stars = np.load(folder / "stars.npz")
        galaxy = np.zeros_like(wavelength)
        for mass, age, metallicity in zip(stars["mass"], stars["age"], stars["metallicity"]):
            population.params["logzsol"] = np.log10(metallicity / 0.019)
            _, per_hertz = population.get_spectrum(tage=age)
            galaxy += mass * per_hertz
        np.savez(folder / "plain.npz", grids=grids, galaxy=galaxy * 2.9979e18 / wavelength**2)
        answer = dict(n=len(stars["mass"]))
    """
    assert in_subprocess(home, code, folder)["n"] == 43
    return dict(np.load(folder / "plain.npz"))


def test_grids_are_the_same_bytes_in_every_process_and_order(engine, plain_fsps):
    assert np.array_equal(engine["spectra"][[10, 2]], plain_fsps["grids"])


def test_a_galaxy_equals_a_direct_computation(engine, plain_fsps):
    ours, direct = engine["galaxies"][-1], plain_fsps["galaxy"]
    np.testing.assert_allclose(ours, direct, rtol=1e-7, atol=1e-12 * direct.max())


def test_between_nodes_fsps_is_linear_in_log_age_and_log_metallicity(engine):
    log_age, log_z = np.log(engine["age"]), np.log(engine["metallicity"])
    a = np.searchsorted(engine["age"], 1.234) - 1
    t = (np.log(1.234) - log_age[a]) / (log_age[a + 1] - log_age[a])
    u = (np.log(engine["between"]) - log_z[6]) / (log_z[7] - log_z[6])
    low, high = ((1 - t) * engine["spectra"][m][a] + t * engine["spectra"][m][a + 1] for m in (6, 7))
    np.testing.assert_allclose(engine["one"], (1 - u) * low + u * high, rtol=1e-9)


def test_the_youngest_ssp_holds_below_its_age(engine):
    log_z = np.log(engine["metallicity"])
    m = np.searchsorted(engine["metallicity"], 0.01) - 1
    u = (np.log(0.01) - log_z[m]) / (log_z[m + 1] - log_z[m])
    expected = (1 - u) * engine["spectra"][m][0] + u * engine["spectra"][m + 1][0]
    np.testing.assert_allclose(engine["youngest"], expected, rtol=1e-9)


def test_the_table_holds_fsps_own_nodes(engine, table):
    np.testing.assert_allclose(np.log10(table.age) + 9, 5 + 0.05 * np.arange(107), atol=1e-9)
    np.testing.assert_allclose(np.log10(table.metallicity / 0.019), -2.5 + 0.25 * np.arange(13), atol=1e-7)
    expected = {"isochrones": "mist", "stellar_library": "c3k_lr", "z_solar": 0.019, "nebular_emission": False}
    assert expected.items() <= table.provenance.items()
    assert json.loads(json.dumps(table.provenance)) == table.provenance
    assert table.surviving[:, -1].min() > 0.3 and table.surviving.max() <= 1.001


def test_band_fluxes_equal_a_fine_integration(engine, draws):
    z, spectrum = draws[1][0], engine["galaxies"][0]
    bands = [Band.load(name) for name in SDSS]
    ours = fsps_engine.band_fluxes(engine["wavelength"], spectrum, z, bands)
    for band, flux in zip(bands, ours, strict=True):
        lam = np.linspace(*band.range, 200_001)
        density = np.interp(lam, engine["wavelength"] * (1 + z), spectrum)
        response = np.interp(lam, band.wavelength, band.response)
        factor = cosmology.flux_factor(z, cosmology.comoving_distance_mpc(z))
        maggies = np.trapezoid(density * factor * response * lam, lam) / np.trapezoid(response / lam, lam)
        assert flux == pytest.approx(maggies / (3.631e-20 * 2.99792458e18), rel=1e-7)


def test_the_table_model_equals_fsps_in_every_band(engine, table, draws):
    theta, redshift = draws
    no_cloud = theta.copy()
    no_cloud[:, PARAMETERS.index("tau_bc")] = 0
    model = GalaxyModel(table, SDSS, z_max=0.2)
    difference = magnitude_differences(model, no_cloud, redshift, engine["wavelength"], engine["galaxies_no_cloud"])
    assert np.abs(difference).max() <= 0.002


def test_the_table_model_equals_fsps_with_birth_clouds(engine, table, draws):
    theta, redshift = draws
    model = GalaxyModel(table, SDSS, z_max=0.2)
    assert model.stars.birth_cloud_rule == "node"  # from the table's provenance
    difference = magnitude_differences(model, theta, redshift, engine["wavelength"], engine["galaxies"])
    assert np.abs(difference).max() <= 0.002
    # The test can fail: telling stars apart by their own ages misses this by an order of magnitude.
    other = GalaxyModel(table, SDSS, z_max=0.2, birth_cloud_rule="star")
    difference = magnitude_differences(other, theta, redshift, engine["wavelength"], engine["galaxies"])
    assert np.abs(difference).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("imf", "number"), [("Salpeter", 0), ("Kroupa", 2)])
def test_another_imf_is_python_fsps_own(home, engine, tmp_path, imf, number):
    """Bit by bit; and Salpeter's many small stars weigh and do not shine: old populations are fainter by about 0.2 dex."""
    ours = f"""
        from sedflow_dist.sps.fsps_engine import FSPS, FSPSSettings
        engine = FSPS(FSPSSettings(imf="{imf}"))
        np.save(folder / "ours.npy", engine.ssp_grid(engine.metallicity[10])[0])
        answer = engine.provenance["imf"]
    """
    plain = f"""
        import fsps
        population = fsps.StellarPopulation(zcontinuous=1, imf_type={number}, dust_type=4, sfh=0, add_dust_emission=False)
        population.params["logzsol"] = np.log10(population.zlegend[10] / population.solar_metallicity)
        wavelength, grid = population.get_spectrum(tage=0)
        np.save(folder / "plain.npy", grid * (2.9979e18 / wavelength**2))
        answer = 0
    """
    assert in_subprocess(home, ours, tmp_path) == imf
    in_subprocess(home, plain, tmp_path)
    found = np.load(tmp_path / "ours.npy")
    assert np.array_equal(found, np.load(tmp_path / "plain.npy"))
    old, red = np.argmin(np.abs(engine["age"] - 8.0)), np.argmin(np.abs(engine["wavelength"] - 6200))
    fainter = float(np.log10(engine["spectra"][10, old, red] / found[old, red]))
    assert (0.1 < fainter < 0.3) if imf == "Salpeter" else (abs(fainter) < 0.1)


def test_a_table_with_nebulae_equals_fsps_and_has_lines(home, engine, draws, tmp_path):
    theta, redshift = (values[-3:] for values in draws)
    theta = theta.copy()
    theta[:, PARAMETERS.index("tau_bc")] = 0
    np.savez(tmp_path / "draws.npz", theta=theta, redshift=redshift)
    code = """
        from sedflow_dist.sps.fsps_engine import FSPS, FSPSSettings, Nebula
        draws = np.load(folder / "draws.npz")
        engine = FSPS(FSPSSettings(nebula=Nebula(log_u=-2.5, log_z_gas=-0.3)))
        spectra, surviving = zip(*map(engine.ssp_grid, engine.metallicity))
        galaxies = [engine.galaxy_spectrum(t, z)[1] for t, z in zip(draws["theta"], draws["redshift"])]
        np.savez(folder / "nebula.npz", spectra=spectra, surviving=surviving, galaxies=galaxies)
        answer = engine.provenance
    """
    provenance = in_subprocess(home, code, tmp_path)
    assert provenance["nebular_emission"] == {"log_u": -2.5, "log_z_gas": -0.3}
    nebula = np.load(tmp_path / "nebula.npz")
    h_alpha = np.argmin(np.abs(engine["wavelength"] - 6564.6))
    assert nebula["spectra"][10, 0, h_alpha] > 2 * engine["spectra"][10, 0, h_alpha]
    grids = list(zip(nebula["spectra"], nebula["surviving"], strict=True))
    table = fsps_tables.table(engine["wavelength"], engine["age"], engine["metallicity"], grids, provenance)
    model = GalaxyModel(table, SDSS, z_max=0.2)
    difference = magnitude_differences(model, theta, redshift, engine["wavelength"], nebula["galaxies"])
    assert np.abs(difference).max() <= 0.002
