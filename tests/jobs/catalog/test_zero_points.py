"""sedflow zeropoints: what Dask streams is what the science says of all rows at once; what is printed, written and refused."""

import json

import numpy as np
import pytest
from astropy.table import Table

from jobs.catalog.zero_points import zero_points
from jobs.config import shipped
from jobs.config.run_file import RunFile
from jobs.config.sections import Inference
from jobs.infer import infer
from jobs.ingest.job import ingest_of
from jobs.observed import observed
from sedflow_dist import load_model
from sedflow_dist.inference import zero_points as science
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.inference.settings import Routing
from sedflow_dist.inference.zero_points import Assumptions
from sedflow_dist.photometry.surveys import SURVEYS
from storage_schemas.catalog.schema import open_catalog

DRAWS, ROWS = 64, 50
SETTINGS = Inference(
    n_draws=DRAWS, rows_per_shard=30, min_effective_fraction=0, routing=Routing(share=0.0, more_draws=1)
)


@pytest.fixture(scope="module")
def run(source, dask, tmp_path_factory):
    """50 real galaxies, seven of them spoilt, answered by the model that comes along."""
    root = tmp_path_factory.mktemp("zeropoints")
    Table.read(source)[:ROWS].write(root / "some.fits")
    content = {"name": "some", "root": str(root), "input": str(root / "some.fits"), "survey": "sdss"}
    run = RunFile.model_validate({**content, "engines": {"dask": {"address": dask}}})
    ingest_of(run)
    infer(run.store("photometry"), shipped.model("sdss"), run.store("catalog"), SETTINGS, 1, run.engines.dask)
    return run


@pytest.fixture(scope="module")
def found(run):
    return zero_points(run, run.store("zeropoints.json"), Assumptions(fixed="r"), n_draws=DRAWS, iterations=2)


def test_streamed_sums_are_those_of_all_rows_at_once(run, found):
    catalog = open_catalog(run.store("catalog")).load()
    posterior, offset = Posterior(load_model("sdss"), 1, DRAWS), np.zeros(5)
    for _ in range(found["iterations"]):
        sums = science.equation(
            posterior, observed(catalog), catalog["flags"].values, np.arange(ROWS), offset, Assumptions(fixed="r")
        )
        solution = science.solve(sums, offset, tuple("ugriz"), Assumptions(fixed="r"))
        offset = solution.offset
    assert found["rows_used"] == sums.rows and found["left_out"] == {
        **dict.fromkeys(science.LEFT_OUT, 0),
        **sums.left_out,
    }
    assert ROWS / 2 < sums.rows < ROWS and found["left_out"]["redshift"] >= 3  # those planted: none, 0.7, -1
    np.testing.assert_allclose(list(found["offset_mag"].values()), solution.offset, atol=1e-4)
    np.testing.assert_allclose(list(found["error_mag"].values()), solution.error, rtol=1e-2, atol=1e-6)
    assert found["offset_mag"]["r"] == 0 and found["rows"]["u"] <= sums.rows


def test_what_is_written_is_what_is_to_be_pasted(run, found):
    with open(run.store("zeropoints.json").url) as file:
        written = json.load(file)
    assert written == json.loads(json.dumps(found))
    assert written["applied_ab_offset"] == list(SURVEYS["sdss"].ab_offset)
    total = np.array(written["applied_ab_offset"]) + list(written["offset_mag"].values())
    np.testing.assert_allclose(written["ab_offset"], total, atol=5.1e-5)
    assert (written["release"], written["assumptions"]["fixed"]) == ("release-1", "r")


def test_the_table_says_what_is_held_and_what_to_paste(run, capsys):
    looked = zero_points(run, run.store("some.json"), Assumptions(), n_draws=DRAWS, most_rows=25, iterations=1)
    assert looked["rows_used"] + sum(looked["left_out"].values()) == 25 and not looked["converged"]
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].split() == ["band", "offset", "[mag]", "error", "rows"]
    assert [line.split()[0] for line in lines[1:6]] == list("ugriz")
    assert "held at zero: the mean of all bands" in said.out and "in which single galaxies scatter by" in said.out
    assert lines[-1] == f"  ab_offset: {looked['ab_offset']}"
    assert "not converged after 1 iterations" in said.err


def test_a_definition_that_is_not_the_catalogs_is_refused(run):
    changed = SURVEYS["sdss"].model_copy(update={"ab_offset": None})
    with pytest.raises(ValueError, match=r"ab_offset of the run file differ .*sedflow reprocess"):
        zero_points(run.model_copy(update={"survey": changed}), run.store("o.json"), Assumptions())


def test_a_band_that_is_none_is_refused(run):
    with pytest.raises(ValueError, match="fixed: 'y' is none of mean, u, g, r, i, z"):
        zero_points(run, run.store("o.json"), Assumptions(fixed="y"))
