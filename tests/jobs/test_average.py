"""Two catalogs of the same photometry under two SSP tables: their average, row by row, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import small
import torch

from cluster.settings import DaskSettings
from jobs.catalog import average as job
from jobs.catalog.average import average_catalogs
from jobs.catalog.draws import engine, replay
from jobs.config.run_file import fingerprint
from jobs.export.rows import of_catalog
from jobs.observed import observed
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference.summary import QUANTILES, Method
from sedflow_dist.photometry.flags import Flag
from storage_schemas import model as model_store
from storage_schemas import open_catalog

N, DRAWS = 50, 256


@pytest.fixture(scope="module")
def run(filled_run, tmp_path_factory):
    from storage_schemas.backend.location import Location

    return filled_run(Location.parse(str(tmp_path_factory.mktemp("average"))), N)


@pytest.fixture(scope="module")
def catalogs(run, flow, ssp):
    """The same rows under the flow's own table and under one with redder stars."""
    other = replace(
        ssp, spectra=(ssp.spectra * (ssp.wavelength / 5500) ** 0.1).astype(np.float32), provenance={"x": "redder"}
    )
    spec = flow.spec.model_copy(update={"ssp": other.provenance})
    redder = TrainedModel(spec, flow.network, flow.features, flow.noise, flow.colour_range, flow.novelty, other)
    model_store.write(run.root / "redder-model", *redder.to_bytes())
    run.infer(out=run.root / "a", n_draws=DRAWS)
    run.infer(out=run.root / "b", n_draws=DRAWS, model=run.root / "redder-model")
    return [run.root / "a", run.root / "b"]


@pytest.fixture(scope="module")
def averaged(run, catalogs):
    found = average_catalogs(catalogs, run.root / "average", [3, 1], DaskSettings(address=run.dask))
    assert (found["rows"], found["shards"], found["release"]) == (N, 3, "release-1")
    return open_catalog(run.root / "average")


def test_rows_are_weighed_by_evidence_and_odds(averaged, catalogs):
    parts = [open_catalog(catalog) for catalog in catalogs]
    log_evidence = np.stack([part["log_evidence"].values.astype(float) for part in parts], 1)
    joint = np.array([3, 1]) * np.exp(log_evidence - log_evidence.max(1, keepdims=True))
    p = joint / joint.sum(1, keepdims=True)
    answered = np.isfinite(log_evidence).all(1)
    assert answered.sum() > 40
    for i in (0, 1):
        np.testing.assert_allclose(averaged[f"model_probability_{i + 1}"].values[answered], p[answered, i], atol=1e-5)
    mean = sum(p[:, i, None] * parts[i]["mean"].values for i in (0, 1))
    np.testing.assert_allclose(averaged["mean"].values[answered], mean[answered], rtol=1e-4, atol=1e-4)
    assert (averaged["method"].values[answered] == Method.AVERAGE).all()
    np.testing.assert_array_equal(averaged["flux"].values, parts[0]["flux"].values)
    np.testing.assert_array_equal(averaged["OBJID"].values, parts[0]["OBJID"].values)
    unreliable = averaged["flags"].values & int(Flag.MODEL_UNRELIABLE) > 0
    k = np.stack([part["pareto_k"].values for part in parts], 1)
    error = np.stack([part["log_evidence_error"].values for part in parts], 1)
    np.testing.assert_array_equal(unreliable[answered], ~((k <= 0.7) & (error <= 0.5)).all(1)[answered])


def test_quantiles_are_those_of_all_draws_together(averaged, catalogs):
    """Replayed draws of both models, 200,000 picked by probability and weight: to 3 % of the width (40 rows' largest: 5 %)."""
    parts, rng = [open_catalog(catalog) for catalog in catalogs], np.random.default_rng(5)
    p = averaged["model_probability_1"].values.astype(float)
    row = int(np.nanargmin(np.abs(p - 0.5)))
    assert 0.05 < p[row] < 0.95
    pooled = []
    for part, share in zip(parts, (p[row], 1 - p[row]), strict=True):
        one, at = part.isel(galaxy=[row]), np.array([row])
        values, weight = engine(part).weighted(observed(one), at, one["method"].values, DRAWS)
        pick = rng.choice(DRAWS, round(200_000 * share), p=(weight[0] / weight[0].sum()).numpy())
        pooled.append(values[0].numpy()[pick])
    expected = np.quantile(np.concatenate(pooled), QUANTILES, axis=0).T
    found, width = averaged["quantiles"].values[row], averaged["std"].values[row][:, None]
    off = np.abs(found - expected) / width
    assert np.median(off) < 0.03
    assert off[:, 1:4].max() < 0.3  # a step between two draws of much weight


def test_an_average_that_is_there_is_not_computed_again(averaged, catalogs, run):
    again = average_catalogs(catalogs, run.root / "average", [3, 1], DaskSettings(address=run.dask))
    assert (again["shards"], again["release"]) == (0, "release-1")


def test_an_average_that_was_interrupted_goes_on(averaged, catalogs, run, monkeypatch):
    """One shard is there already; the content is that of an average without interruption."""
    out, dask = run.root / "interrupted", DaskSettings(address=run.dask)
    whole = job.releases.missing
    monkeypatch.setattr(job.releases, "missing", lambda *a: whole(*a)[:1])
    monkeypatch.setattr(job.releases, "publish", lambda *_: "nothing")
    average_catalogs(catalogs, out, [3, 1], dask)
    monkeypatch.undo()
    assert average_catalogs(catalogs, out, [3, 1], dask)["shards"] == 2
    small.assert_same(small.contents(out), small.contents(run.root / "average"))


def test_what_is_no_average_of_one_input_is_refused(averaged, catalogs, run, filled_run):
    dask = DaskSettings(address=run.dask)
    shorter = filled_run(run.root / "shorter", 40)
    shorter.infer()
    with pytest.raises(ValueError, match="not of the same input: number of rows is 40 in the one, 50 in the other"):
        average_catalogs([catalogs[0], shorter.catalog], run.root / "x", None, dask)
    brighter = filled_run(run.root / "brighter", N)
    brighter.brighten(1)
    brighter.infer()
    with pytest.raises(ValueError, match=r"flux of row 23 is .* \(1 rows of this shard\)"):
        average_catalogs([catalogs[0], brighter.catalog], run.root / "y", None, dask)
    with pytest.raises(ValueError, match="two catalogs at least"):
        average_catalogs(catalogs[:1], run.root / "z", None, dask)
    with pytest.raises(ValueError, match="2 positive numbers are expected"):
        average_catalogs(catalogs, run.root / "z", [1, -1], dask)
    with pytest.raises(ValueError, match="is an average itself"):
        average_catalogs([catalogs[0], run.root / "average"], run.root / "z", None, dask)
    with pytest.raises(ValueError, match="is an average over models and has no draws of its own"):
        replay(averaged, [0], 10)


def test_an_average_is_exported_with_its_probabilities(averaged):
    rows = of_catalog(averaged)
    names = [column.name for column in rows.columns]
    assert {"model_probability_1", "model_probability_2", "model_probability_error", "log_mstar_p50"} <= set(names)
    block = next(rows.blocks(["model_probability_1", "flags"]))
    np.testing.assert_array_equal(block["model_probability_1"], averaged["model_probability_1"].values)
    run = averaged.attrs["run"]
    assert [one["odds"] for one in run["averaged"]] == [0.75, 0.25]
    assert run["averaged"][1]["ssp"] == {"x": "redder"}
    assert torch.get_num_threads() == 1 and fingerprint(run)
