"""Bands in tension as a catalog has them: columns that were asked for, replayed draws without what was left out, exports."""

import numpy as np
import pytest
import small
import tiny
import torch

from jobs import infer as infer_job
from jobs.catalog.average import Source, check
from jobs.catalog.draws import engine, replay
from jobs.config import shipped
from jobs.config.sections import Inference
from jobs.export.rows import of_catalog
from sedflow_dist import load_model
from sedflow_dist.inference.settings import Routing
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.validation.mock_galaxies import mock_galaxies
from storage_schemas import open_catalog
from storage_schemas.photometry import OBSERVED

COLUMNS = {"band_p", "band_log_predictive", "left_out"}
ASKED = {"band_tension": True, "routing": Routing(share=0.0, more_draws=1, effective_draws=5)}
SPOILT = 2


@pytest.fixture(scope="module")
def run(small_run, tmp_path_factory):
    """Catalogs of ten galaxies by the model that comes along; one has a band four times too bright."""
    made = small_run(tiny.location(tmp_path_factory.mktemp("tension")))
    values = small.rows_of(mock_galaxies(load_model("sdss"), 10, seed=8), 10)
    values["flux"][SPOILT, 3] *= 4
    made.write(values)
    made = small.Small(made.root, shipped.model("sdss"), made.dask, made.bands)
    made.infer()
    made.infer(out=made.root / "looked", **ASKED)
    made.infer(out=made.root / "left", leave_out="tension", **ASKED)
    return made


@pytest.fixture(scope="module")
def catalogs(run):
    return [open_catalog(run.root / name) for name in ("catalog", "looked", "left")]


def test_a_catalog_has_the_columns_that_were_asked_for_and_is_else_the_same(catalogs):
    plain, looked, left = catalogs
    assert set(looked.data_vars) - set(plain.data_vars) == COLUMNS - {"left_out"}
    assert set(left.data_vars) - set(plain.data_vars) == COLUMNS
    for name in set(plain.data_vars) - {"shard_key", "flags", "effective_draws"}:
        np.testing.assert_array_equal(plain[name].values, looked[name].values, err_msg=name)
    tense = (left["flags"].values & int(Flag.BAND_IN_TENSION)) != 0
    assert tense[SPOILT]
    assert left["left_out"].values[SPOILT].tolist() == [False, False, False, True, False]
    assert left["n_bands"].values[SPOILT] == 4
    np.testing.assert_array_equal(left["mask"].values, plain["mask"].values)
    np.testing.assert_array_equal(left["quantiles"].values[~tense], plain["quantiles"].values[~tense])


def test_draws_are_replayed_without_what_was_left_out(catalogs):
    _, looked, left = catalogs
    rows = [SPOILT, SPOILT + 1]
    draws, names = replay(left, rows, 64)
    part = left.isel(galaxy=rows)
    data = Photometry.of(**{name: part[name].values for name in OBSERVED})
    kept = data.with_bands(~torch.as_tensor(part["left_out"].values))
    np.testing.assert_array_equal(draws, engine(left).draws(kept, np.array(rows), part["method"].values, 64))
    assert (draws[0] != replay(looked, rows, 64)[0][0]).any()
    mean, std = (left[name].values[SPOILT, names.index("log_mstar")] for name in ("mean", "std"))
    assert abs(draws[0, :, names.index("log_mstar")].mean() - mean) < std


def test_an_export_has_a_column_for_each_band(catalogs):
    for catalog, names in zip(catalogs, (set(), COLUMNS - {"left_out"}, COLUMNS), strict=True):
        columns = {column.name: column for column in of_catalog(catalog).columns if column.array in COLUMNS}
        assert set(columns) == {f"{name}_{band}" for name in names for band in small.LABELS}
    rows = next(of_catalog(catalogs[2], ["left_out_i", "band_p_u"]).blocks())
    np.testing.assert_array_equal(rows["left_out_i"], catalogs[2]["left_out"].values[:, 3])
    np.testing.assert_array_equal(rows["band_p_u"], catalogs[2]["band_p"].values[:, 0])


def test_evidences_of_some_of_the_bands_are_not_averaged_over_models(run, catalogs):
    sources = [Source.of(run.root / name) for name in ("catalog", "left")]
    with pytest.raises(ValueError, match=r"made with inference\.leave_out: evidences of its rows are of some bands"):
        check(sources, [catalogs[0], catalogs[2]])


def test_a_catalog_without_it_says_nothing_of_it(run):
    """Its identity, and that of each of its shards, is what it was before there were such settings."""
    off, on = (
        infer_job.work(run.photometry, run.model, Inference.model_validate(asked), 1).answers
        for asked in ({}, {"band_tension": True, "leave_out": "tension"})
    )
    assert set(on) - set(off) == {"band_tension", "leave_out"}
