"""The run file uv-ir and the table that it reads: catalogs of three surveys as fluxes of one system, and nothing else."""

import sys

import numpy as np
import pytest
from astropy.table import Table
from paths import ROOT

from jobs.config.run_file import RunFile
from jobs.containers.tables import resolve

sys.path.insert(0, str(ROOT / "examples"))
import uv_ir_table
from uv_ir_table import BANDS


@pytest.fixture(scope="module")
def rows():
    """The galaxies of kcorrect's sample."""
    return Table.read(resolve("kcorrect-sample"))


@pytest.fixture(scope="module")
def table(rows):
    return uv_ir_table.table(rows)


def test_bands_are_those_of_the_run_file():
    run = RunFile.load(ROOT / "jobs" / "runs" / "uv-ir.yaml")
    assert run.survey_definition.labels == BANDS
    assert sorted(sum(run.training.instruments, ())) == sorted(BANDS)
    assert set(run.training.depth) == {"w1", "w2", "w3", "w4"}


@pytest.mark.parametrize(("band", "column", "zero"), [("fuv", "FUV", 18.82), ("nuv", "NUV", 20.08)])
def test_counts_of_galex_become_magnitudes_of_its_zero_points(rows, table, band, column, zero):
    flux = table["FLUX"][:, BANDS.index(band)]
    seen = (rows[f"{column}_FLUXERR_AUTO"] > 0) & (rows[f"{column}_FLUX_AUTO"] > 0)
    magnitude = zero - 2.5 * np.log10(rows[f"{column}_FLUX_AUTO"][seen])
    np.testing.assert_allclose(22.5 - 2.5 * np.log10(flux[seen]), magnitude, atol=1e-5)
    assert (table["IVAR"][:, BANDS.index(band)] > 0).sum() == (rows[f"{column}_FLUXERR_AUTO"] > 0).sum()


@pytest.mark.parametrize(("band", "column", "vega"), [("j", "J", 0.91), ("h", "H", 1.39), ("ks", "K", 1.85)])
def test_magnitudes_of_2mass_become_fluxes_with_the_same_relative_errors(rows, table, band, column, vega):
    at = BANDS.index(band)
    flux, ivar = table["FLUX"][:, at].astype(float), table["IVAR"][:, at].astype(float)
    seen = ivar > 0
    assert 0 < seen.sum() < len(rows)
    np.testing.assert_allclose(22.5 - 2.5 * np.log10(flux[seen]), rows[f"{column}_M_EXT"][seen] + vega, atol=1e-5)
    error = 2.5 / np.log(10) / (flux[seen] * np.sqrt(ivar[seen]))
    np.testing.assert_allclose(error, rows[f"{column}_MSIG_EXT"][seen], rtol=1e-5)


def test_what_was_not_observed_weighs_nothing(rows, table):
    assert np.isfinite(table["FLUX"]).all() and np.isfinite(table["IVAR"]).all()
    assert (table["IVAR"][:, BANDS.index("w1") :] == 0).all()
    sdss = slice(BANDS.index("u"), BANDS.index("z") + 1)
    np.testing.assert_array_equal(table["FLUX"][:, sdss], rows["MODELFLUX"])


def test_extinction_of_all_bands_is_of_the_same_dust(rows, table):
    """A / A_r by band: NUV 8.20 / 2.751, Ks 0.367 / 2.751."""
    by_r = table["EXTINCTION"] / table["EXTINCTION"][:, [BANDS.index("r")]]
    for band, per_ebv in (("nuv", 8.20), ("ks", 0.367)):
        np.testing.assert_allclose(by_r[:, BANDS.index(band)], per_ebv / 2.751, rtol=1e-5)
