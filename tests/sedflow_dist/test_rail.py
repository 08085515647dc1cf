"""Our stages through RAIL's own interfaces: a pipeline on a file of its kind, chunks, and what magnitudes may be."""

import os
import sys
from pathlib import Path

import ceci
import h5py
import numpy as np
import pytest
import qp
from rail.core.stage import RailPipeline

from sedflow_dist import load_model
from sedflow_dist.inference.settings import MASS_FUNCTION
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.rail import SedflowEstimator, SedflowInformer
from sedflow_dist.validation.mock_galaxies import mock_galaxies

#: cosmoDC2's galaxies as RAIL's examples have them; they come with no package.
DC2 = Path(__file__).parents[3] / "shared" / "reference" / "dc2" / "test_dc2_training_9816.hdf5"
LIMITS = {"u": 27.79, "g": 29.04, "r": 29.06, "i": 28.62, "z": 27.98, "y": 27.05}  # RAIL's own
N = 40


@pytest.fixture(scope="module")
def table():
    """Mock galaxies as RAIL writes them: magnitudes, 99 where the flux is below one standard deviation, true redshifts."""
    seen = mock_galaxies(load_model("rubin"), N, 3)
    flux, sigma = (x.double().numpy() for x in (seen.photometry.flux, seen.photometry.sigma))
    error = (
        2.5 / np.log(10) * np.sqrt(((sigma / flux) ** 2 - 0.025**2).clip(1e-5))
    )  # without the models' own, which is added
    made = {"redshift": seen.photometry.redshift.double().numpy(), "object_id": np.arange(N)}
    for i, (band, limit) in enumerate(LIMITS.items()):
        faint = flux[:, i] < sigma[:, i]
        with np.errstate(invalid="ignore"):
            made[f"mag_{band}_lsst"] = np.where(faint, 99.0, 22.5 - 2.5 * np.log10(flux[:, i]))
        made[f"mag_err_{band}_lsst"] = np.where(faint, limit, error[:, i])
    return made


def model():
    return SedflowInformer.make_stage(name="inform", hdf5_groupname="", output_mode="return").inform(
        {"redshift": np.zeros(1)}
    )


def estimate(table, **settings):
    """The ensemble of a table."""
    options = {
        "hdf5_groupname": "",
        "zmax": 3.2,
        "nzbins": 321,
        "n_draws": 128,
        "output_mode": "return",
        "mass_function": "",
    }
    options |= settings
    stage = SedflowEstimator.make_stage(name="estimate", model=model(), **options)
    return stage.estimate(table).data


def test_mock_galaxies_get_their_redshifts_back(table):
    """Of 40 galaxies the true redshift lies between the 1 and 99 % quantiles of all but three; densities are normalised."""
    found, truth = estimate(table), table["redshift"]
    grid = np.linspace(0, 3.2, 321)
    assert found.npdf == N and np.allclose(np.trapezoid(found.pdf(grid), grid), 1, atol=0.01)
    pit = found.cdf(truth[:, None]).ravel()
    assert ((pit > 0.01) & (pit < 0.99)).sum() >= N - 3
    ancil = found.ancil
    assert np.nanmedian(ancil["effective_fraction"]) > 0.1
    assert (ancil["log_mstar_surviving_p16"] < ancil["log_mstar_surviving_p84"]).all()
    assert (ancil["flags"] & int(Flag.REDSHIFT_INFERRED) != 0).all()
    assert np.array_equal(ancil["redshift"], truth) and np.array_equal(ancil["id"], table["object_id"])


def test_answers_do_not_depend_on_chunks(table):
    once, twice = (estimate(table, chunk_size=size) for size in (1000, 16))
    grid = np.linspace(0, 3.2, 321)
    assert np.allclose(once.pdf(grid), twice.pdf(grid), rtol=1e-4, atol=1e-6)


def test_what_was_not_observed_is_missing_and_what_was_not_detected_is_faint(table):
    """A u band that saw nothing says that a galaxy is red or far, one that was not looked at nothing. A galaxy, four times."""
    four = {name: np.repeat(values[:1], 4) for name, values in table.items()}
    four["mag_u_lsst"][1] = four["mag_err_u_lsst"][1] = np.nan
    four["mag_u_lsst"][2], four["mag_err_u_lsst"][2] = 99.0, np.nan  # the limit is RAIL's
    for band in "ugry":
        four[f"mag_{band}_lsst"][3] = -99.0
    found, grid = estimate(four), np.linspace(0, 3.2, 321)
    p = found.pdf(grid)
    assert all(np.abs(p[a] - p[b]).max() > 0.01 for a, b in ((0, 1), (1, 2)))
    assert np.allclose(p[3], 1 / 3.2, rtol=1e-3)
    fraction, flags = found.ancil["effective_fraction"].ravel(), found.ancil["flags"].ravel()
    assert np.isfinite(fraction[:3]).all() and np.isnan(fraction[3])
    assert [bool(flag & int(Flag.TOO_FEW_BANDS)) for flag in flags] == [False, False, False, True]
    assert [bool(flag & int(Flag.BAND_MISSING)) for flag in flags] == [False, True, False, True]


def test_what_cannot_be_meant_is_refused(table):
    with pytest.raises(ValueError, match="has no redshift head"):
        SedflowInformer.make_stage(name="plain", trained_model="sdss", hdf5_groupname="").inform(
            {"redshift": np.zeros(1)}
        )
    with pytest.raises(ValueError, match="bands: the model has 6, u, g, r, i, z, y"):
        estimate(table, bands=["mag_u_lsst"])


def pipeline(folder, file):
    """A pipeline of both stages, as RAIL's users write it."""
    made = RailPipeline()
    made.inform = SedflowInformer.build(hdf5_groupname="photometry")
    made.estimate = SedflowEstimator.build(
        connections={"model": made.inform.io.model}, hdf5_groupname="photometry", n_draws=64, chunk_size=16
    )
    made.initialize({"input": str(file)}, {"output_dir": str(folder), "log_dir": str(folder), "resume": False}, None)
    made.save(str(folder / "pipeline.yml"))
    return ceci.Pipeline.read(str(folder / "pipeline.yml"))


@pytest.mark.slow
def test_a_pipeline_runs_from_its_file(table, tmp_path, monkeypatch):
    """Both stages as ceci starts them, processes of their own, on an HDF5 file."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")  # which python3 it takes
    with h5py.File(tmp_path / "galaxies.hdf5", "w") as file:
        for name, values in table.items():
            file[f"photometry/{name}"] = values
    assert pipeline(tmp_path, tmp_path / "galaxies.hdf5").run() == 0
    found = qp.read(str(tmp_path / "output_estimate.hdf5"))
    assert found.npdf == N and "log_sfr_1gyr_p50" in found.ancil


@pytest.mark.skipif(not DC2.exists(), reason="cosmoDC2's galaxies are not here")
def test_galaxies_of_another_simulation():
    """300 of cosmoDC2's: most redshifts within 0.15 (1 + z), though its galaxies are not of our model."""
    with h5py.File(DC2) as file:
        galaxies = {name: values[:300] for name, values in file["photometry"].items()}
    found = estimate(galaxies, mass_function=MASS_FUNCTION, n_draws=512)
    e = (found.median().ravel() - galaxies["redshift"]) / (1 + galaxies["redshift"])
    assert np.mean(np.abs(e) > 0.15) < 0.25 and np.abs(np.median(e)) < 0.05
