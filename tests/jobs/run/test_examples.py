"""The run files of docs/examples: a table in the layout that each declares is ingested as it is meant, and goes to a catalog."""

import h5py
import numpy as np
import pytest
import tiny
import zarr
from astropy.table import Table
from commands import sedflow
from paths import ROOT

from jobs.config.run_file import RunFile
from jobs.ingest.job import ingest_of
from jobs.run.job import run_all
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.sps.galaxy_model import GalaxyModel
from storage_schemas import photometry
from storage_schemas.catalog import schema as catalog

N = 500
EBV = 0.05
_MAG = 0.4 * np.log(10)


@pytest.fixture(scope="module")
def observed(ssp, galaxies):
    """Fluxes and sigma [nanomaggies] of galaxies of the model in the bands of a survey, and their redshifts."""

    def observe(survey):
        theta, redshift = galaxies(N, 8, 0.3)
        theta[:, 0] = 10 + 2 * theta[:, 0].sub(7).div(5.5)  # log M of 10 to 12: what a survey would see
        flux = GalaxyModel(ssp, survey.bands, 0.31).fluxes(theta, redshift).double().numpy()
        sigma = 0.03 * flux + 0.02
        noise = np.random.default_rng(3).standard_normal(flux.shape)
        return np.maximum(flux + noise * sigma, sigma), sigma, redshift.double().numpy()

    return observe


def magnitudes(flux, sigma):
    return 22.5 - 2.5 * np.log10(flux), sigma / flux / _MAG


# A writer returns the rows with one odd band (its number, and whether it counts as measured) and the rows that a cut hits.


def panstarrs(folder, survey, flux, sigma, redshift):
    dimmed = flux * 10 ** (-0.4 * EBV * np.array(survey.extinction_per_ebv))
    values, errors = magnitudes(dimmed, sigma * dimmed / flux)
    values[3, 1] = errors[3, 1] = -999
    table = Table(
        {"objID": np.arange(N) + 2**60, "raStack": np.linspace(0, 359, N), "decStack": np.linspace(-30, 89, N)}
    )
    for i, band in enumerate(survey.labels):
        table[f"{band}KronMag"], table[f"{band}KronMagErr"] = values[:, i], errors[:, i]
    table["primaryDetection"], table["specz"], table["ebv"] = np.arange(N) != 5, redshift, EBV
    table["primaryDetection"] = table["primaryDetection"].astype(int)
    table.write(folder / "panstarrs.csv")
    return {3: (1, False)}, [5]


def gama(folder, survey, flux, sigma, redshift):
    table = Table({"CATAID": np.arange(N) + 6000, "RA": np.linspace(130, 220, N), "DEC": np.linspace(-3, 3, N)})
    for i, band in enumerate(survey.labels):
        table[f"{band}_flux"], table[f"{band}_fluxerr"] = 3631e-9 * flux[:, i], 3631e-9 * sigma[:, i]
    table["u_flux"][3] = table["u_fluxerr"][3] = -999
    table.write(folder / "LambdarCat.fits")
    order = np.random.default_rng(1).permutation(N)
    spectra = Table({"SPECID": order, "CATAID": order + 6000, "Z": redshift[order], "NQ": np.where(order == 5, 2, 4)})
    spectra.write(folder / "SpecObj.fits")
    return {3: (0, False)}, [5]


def rail(folder, survey, flux, sigma, redshift):
    values, errors = magnitudes(flux, sigma)
    values[3, 0], errors[3, 0] = 99, 27.79
    with h5py.File(folder / "test_dc2.hdf5", "w") as file:
        for i, band in enumerate(survey.labels):
            file[f"photometry/mag_{band}_lsst"], file[f"photometry/mag_err_{band}_lsst"] = values[:, i], errors[:, i]
        file["photometry/redshift"] = redshift
    return {3: (0, True)}, []


LAYOUTS = {layout.__name__: layout for layout in (panstarrs, gama, rail)}


def test_every_example_is_tried():
    assert {path.stem for path in (ROOT / "docs" / "examples").glob("*.yaml")} == set(LAYOUTS)


def load(name, folder, **changes):
    path = ROOT / "docs" / "examples" / f"{name}.yaml"
    run = RunFile.load(path, root=str(folder / "run"), **changes)
    joined = run.join and run.join.model_copy(update={"file": str(folder / str(run.join.file))})
    return run.model_copy(update={"input": str(folder / str(run.input)), "join": joined})


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_table_in_the_layout_of_an_example_is_ingested_as_it_is_meant(name, tmp_path, observed):
    run = load(name, tmp_path)
    survey = run.survey_definition
    flux, sigma, redshift = observed(survey)
    odd, cut = LAYOUTS[name](tmp_path, survey, flux, sigma, redshift)
    ingest_of(run)
    group = photometry.open(run.store("photometry")).group
    found, error, mask = (group[key][:].astype(float) for key in ("flux", "sigma", "mask"))
    np.testing.assert_allclose(group["redshift"][:], redshift, rtol=1e-6)
    for row, (band, measured) in odd.items():
        assert bool(mask[row, band]) is measured
        if measured:  # nothing was seen: no flux, and the depth as its uncertainty
            assert found[row, band] == 0
            depth = 10 ** (0.4 * (22.5 - survey.limits[band]))
            np.testing.assert_allclose(error[row, band], depth, rtol=1e-6)
        mask[row, band], found[row, band], error[row, band] = True, flux[row, band], np.nan
    assert mask.all()
    np.testing.assert_allclose(found, flux, rtol=2e-6)
    wanted = np.sqrt(sigma**2 + (_MAG * np.array(survey.floor) * flux) ** 2 + (survey.model_error * flux) ** 2)
    np.testing.assert_allclose(error[np.isfinite(error)], wanted[np.isfinite(error)], rtol=2e-6)
    hit = np.flatnonzero(group["flags"][:] & Flag.QUALITY_CUT)
    assert hit.tolist() == cut


def test_a_run_file_as_survey_brings_its_join_along(tmp_path, observed):
    run = load("gama", tmp_path)
    flux, sigma, redshift = observed(run.survey_definition)
    gama(tmp_path, run.survey_definition, flux, sigma, redshift)
    example = ROOT / "docs" / "examples" / "gama.yaml"
    done = sedflow("ingest", "LambdarCat.fits", "--survey", example, "--out", "photometry", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = photometry.open(tiny.location(tmp_path / "photometry")).group["redshift"][:]
    np.testing.assert_allclose(found, redshift, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_an_example_runs_to_its_catalog(name, tmp_path, observed):
    sizes = tiny.settings(tmp_path, "x").model_dump(
        mode="json", include={"simulation", "flow", "training", "inference", "validation"}
    )
    run = load(name, tmp_path, **sizes)
    LAYOUTS[name](tmp_path, run.survey_definition, *observed(run.survey_definition))
    run_all(run)
    method = zarr.open_group(catalog.store(run.store("catalog")), mode="r")["method"][:]
    assert np.sum(method > 0) > 0.9 * N
