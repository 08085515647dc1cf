"""The whole chain on a table of luptitudes with a curve of one's own, whose file is gone before the first job begins."""

import numpy as np
import pytest
import speclite.filters
import tiny
import yaml
import zarr
from astropy.table import Table

from jobs.config.run_file import RunFile
from jobs.containers.tables import resolve
from jobs.ingest.job import ingest_of
from jobs.run.job import run_all
from storage_schemas import photometry
from storage_schemas.catalog import schema as catalog

SOFTENING = (1.4e-10, 0.9e-10, 1.2e-10, 1.8e-10, 7.4e-10)
POGSON = 2.5 / np.log(10)


@pytest.mark.slow
def test_luptitudes_and_an_own_curve_go_through_the_whole_chain(tmp_path):
    given = Table.read(resolve("kcorrect-sample"))[: tiny.N_ROWS]
    flux, sigma = (
        1e-9 * np.asarray(given["MODELFLUX"], float),
        1e-9 / np.sqrt(np.asarray(given["MODELFLUX_IVAR"], float)),
    )
    x, b = flux / (2 * np.array(SOFTENING)), np.array(SOFTENING)
    table = Table({"z_spec": given["Z"], "ra": given["RA"], "dec": given["DEC"]})
    for i, band in enumerate("ugriz"):
        table[f"lupt_{band}"] = (-POGSON * (np.arcsinh(x) + np.log(b)))[:, i]
        table[f"err_{band}"] = (POGSON * sigma / (2 * b) / np.hypot(1, x))[:, i]
        table[f"a_{band}"] = given["EXTINCTION"][:, i]
    table.write(tmp_path / "a.csv")
    r = speclite.filters.load_filter("sdss2010-r")
    np.savetxt(tmp_path / "my-r.dat", np.c_[r.wavelength, r.response], "%.17g")
    sdss = RunFile.load("sdss").survey_definition
    survey = {
        "name": "mine", "bands": [*sdss.bands[:2], "my-r.dat", *sdss.bands[3:]], "labels": list("ugriz"),
        "flux": [f"lupt_{b}" for b in "ugriz"], "error": [f"err_{b}" for b in "ugriz"], "error_kind": "magnitude",
        "unit": "mag", "softening": list(SOFTENING), "extinction": [f"a_{b}" for b in "ugriz"],
        "ab_offset": list(sdss.ab_offset), "floor": list(sdss.floor), "redshift": "z_spec", "ra": "ra", "dec": "dec",
    }  # fmt: skip
    content = tiny.settings(tmp_path / "mine", tmp_path / "a.csv").model_dump(mode="json", exclude={"engines"})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**content, "survey": survey}))
    run = RunFile.load(tmp_path / "run.yaml")
    (tmp_path / "my-r.dat").unlink()
    run_all(run)

    given.write(tmp_path / "a.fits")
    plain = tiny.settings(tmp_path / "plain", tmp_path / "a.fits")
    ingest_of(plain)
    mine, theirs = (photometry.open(one.store("photometry")).group for one in (run, plain))
    np.testing.assert_array_equal(mine["mask"][:], theirs["mask"][:])
    for name in ("flux", "sigma"):
        np.testing.assert_allclose(mine[name][:], theirs[name][:], rtol=2e-6)
    method = zarr.open_group(catalog.store(run.store("catalog")), mode="r")["method"][:]
    assert np.sum(method > 0) > 0.9 * tiny.N_ROWS
