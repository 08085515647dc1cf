"""A survey in small: 100,000 galaxies ingested, answered by quantiles alone and exported, no worker above 2 GB."""

import resource

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tiny

from cluster import dask_engine
from cluster.settings import DaskSettings
from jobs.config.sections import Inference, Ingest
from jobs.export import export
from jobs.infer import infer
from jobs.ingest.job import ingest
from sedflow_dist.inference.summary import Method
from sedflow_dist.photometry.survey import Survey
from storage_schemas import model as model_store
from storage_schemas import open_catalog

N_ROWS, N_FILES, LIMIT = 100_000, 5, 2e9


def write_input(folder, mocks):
    """Mock galaxies, each many times with more noise, anywhere on the sky."""
    rng = np.random.default_rng(1)
    labels, n = "ugriz", N_ROWS // N_FILES
    folder.mkdir()
    for number in range(N_FILES):
        seen = mocks.photometry[rng.integers(0, len(mocks), n)]
        sigma = np.where(seen.mask, seen.sigma, np.nan)
        flux = seen.flux.numpy() + 0.1 * np.nan_to_num(sigma) * rng.standard_normal(sigma.shape)
        table = {f"f_{b}": flux[:, i] for i, b in enumerate(labels)} | {
            f"e_{b}": sigma[:, i] for i, b in enumerate(labels)
        }
        table |= {"z": seen.redshift.numpy(), "ra": rng.uniform(0, 360, n), "id": np.arange(n) + n * number}
        table["dec"] = np.rad2deg(np.arcsin(rng.uniform(-1, 1, n)))
        pa.parquet.write_table(pa.table(table), folder / f"{number}.parquet", row_group_size=5_000)


@pytest.mark.slow
def test_a_hundred_thousand_galaxies(mocks, learnt_flow, tmp_path):
    """Every row is answered in the order of positions, and all of it is in the export."""
    write_input(tmp_path / "in", mocks)
    bands = learnt_flow.spec.bands
    survey = Survey(
        name="made", bands=bands, labels=tuple("ugriz"), flux=tuple(f"f_{b}" for b in "ugriz"),
        error=tuple(f"e_{b}" for b in "ugriz"), error_kind="sigma", model_error=0.0, redshift="z", ra="ra", dec="dec",
        ids=("id",),
    )  # fmt: skip
    photometry, model, out = (tiny.location(tmp_path / name) for name in ("photometry", "model", "catalog"))
    model_store.write(model, *learnt_flow.to_bytes())
    with dask_engine.client(DaskSettings(workers=2)) as client:
        engine = DaskSettings(address=client.scheduler.address)
        ingest(str(tmp_path / "in/*.parquet"), survey, photometry, 16_384, Ingest(rows_per_piece=25_000), engine)
        settings = Inference(n_draws=64, certificate=False, rows_per_shard=16_384)
        counts = infer(photometry, model, out, settings, 1, engine)
        memory = client.run(lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    assert max(memory.values()) < LIMIT
    data = open_catalog(out)
    assert counts["rows"] == data.sizes["galaxy"] == N_ROWS
    assert (np.diff(data["healpix_29"].values) >= 0).all()
    assert sorted(data["id"].values) == list(range(N_ROWS))
    answered = data["method"].values != Method.NONE
    assert answered.mean() > 0.99
    np.testing.assert_array_equal(np.isfinite(data["quantiles"].values).all((1, 2)), answered)
    export(data, tmp_path / "out.parquet", [])
    written = pa.parquet.ParquetFile(tmp_path / "out.parquet")
    assert written.metadata.num_rows == N_ROWS
    np.testing.assert_array_equal(written.read(["id"])["id"].to_numpy(), data["id"].values)
