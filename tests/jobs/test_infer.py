"""What a shard's key knows, and that a catalog is replayed by what made it."""

import gc
import json
import weakref
from itertools import pairwise

import numpy as np
import pytest
import tiny
from pydantic import Field

from jobs import infer as job
from jobs import on_worker
from jobs.catalog.draws import engine, replay
from jobs.config.sections import Inference
from jobs.on_worker import router
from sedflow_dist.curves import Curve
from sedflow_dist.inference.settings import InferenceSettings, Routing, TargetPrior
from sedflow_dist.inference.summary import Method
from sedflow_dist.sps.chosen import Chosen, RestFrame, Selection
from storage_schemas import open_catalog


@pytest.fixture(scope="module")
def run(filled_run, tmp_path_factory):
    return filled_run(tiny.location(tmp_path_factory.mktemp("infer")), 40)


class Newer(Inference):
    """A setting that a later version has."""

    temperature: float = Field(1.0)


def keys(run, settings, seed=1):
    return job.work(run.photometry, run.model, settings, seed).keys


def test_every_setting_is_part_of_the_key_but_how_work_is_cut(run):
    """A new one, too: a catalog made with another value of it is stale."""
    settings = Newer(rows_per_shard=20)
    first = keys(run, settings)
    assert keys(run, settings.model_copy(update={"commit_every": 3})) == first
    changes = {
        "n_draws": 128, "keep_draws": 3, "min_effective_fraction": 0.5, "certificate": False, "temperature": 2.0,
        "routing": settings.routing.model_copy(update={"walkers": 30}),
        "prior": TargetPrior(densities=("tau_ism=norm(0.3,0.2)",)), "band_tension": True, "leave_out": "tension",
        "predict": ("sdss2010-r",), "rest_frame": RestFrame(bands=("r",)), "selection": Selection(band="r", magnitude=17.6),
        "star_formation_history": (0.0, 1.0, 3.0), "specific_rates": True, "colours": ("observed",),
        "redshift_peaks": True,
    }  # fmt: skip
    # tests/jobs/test_likelihood.py has the one setting that needs a likelihood beside the model
    assert {*changes, "learned_likelihood"} == set(Newer.model_fields) - job._NOT_OF_AN_ANSWER
    for name, value in changes.items():
        assert not set(keys(run, settings.model_copy(update={name: value}))) & set(first), name
    assert not set(keys(run, settings, seed=2)) & set(first)


def test_chosen_columns_stand_in_the_catalog_and_its_replay_beside_the_others(run):
    """The others are what they are without, to rounding, as blocks are of another size; none chosen: no trace in the run."""
    run.infer(keep_draws=2)
    plain = open_catalog(run.catalog)
    wanted = {
        "predict": ("sdss2010-r",),
        "selection": Selection(band="r", magnitude=17.6),
        "colours": ("unattenuated",),
    }
    run.infer(out=run.root / "chosen", keep_draws=2, **wanted)
    chosen, n = open_catalog(run.root / "chosen"), plain.sizes["param"]
    names = [str(name) for name in chosen["param"].values]
    assert names[:n] == plain["param"].values.tolist()
    colours = [f"unattenuated_{a}_{b}" for a, b in pairwise("ugriz")]
    assert names[n:] == ["model_flux_sdss2010_r", "z_max", "v_max", "v_max_weight", *colours]
    assert [chosen.attrs["param_units"][n + i] for i in (0, 2)] == ["nanomaggy", "Mpc3 / sr"]
    for name in ("quantiles", "mean", "std"):
        np.testing.assert_allclose(chosen[name][:, :n].values, plain[name].values, rtol=1e-3, atol=1e-4)
    for name in ("flags", "method"):
        np.testing.assert_array_equal(chosen[name].values, plain[name].values)
    assert not set(plain.attrs["run"]) & set(Chosen.model_fields)
    rows = np.flatnonzero(chosen["method"].values == Method.WEIGHTED)[:2].tolist()
    draws, columns = replay(chosen, rows, 500)
    assert list(columns) == names
    middle = chosen["quantiles"].sel(quantile=0.5).values[rows, n]
    assert np.median(draws[:, :, n], 1) == pytest.approx(
        middle, rel=0.1
    )  # 64 draws there and 500 here, few of them effective


def test_a_band_beyond_the_model_is_refused_before_any_row(run):
    far = Curve(name="far", wavelength=(6e5, 7e5, 8e5), response=(0.0, 1.0, 0.0))
    with pytest.raises(
        ValueError, match=r"inference.predict: band far needs rest wavelengths \d+-800000 A .* table holds"
    ):
        run.infer(out=run.root / "refused", predict=(far,))
    assert not (run.root / "refused").exists()


def test_what_is_left_out_of_the_key_is_a_setting_and_none_of_the_science():
    assert set(Inference.model_fields) - set(InferenceSettings.model_fields) == job._NOT_OF_AN_ANSWER


def test_a_catalog_is_replayed_by_what_made_it(run):
    """Settings, none of them the default, come back from the catalog."""
    routing = {"effective_draws": 7, "more_draws": 3, "walkers": 24, "short_steps": 60, "long_steps": 120, "share": 0.0}
    changes = {"n_draws": 32, "keep_draws": 2, "min_effective_fraction": 0.2, "routing": routing, "certificate": True}
    settings = Inference.model_validate({"rows_per_shard": 20, **changes})
    run.infer(**{name: getattr(settings, name) for name in changes})
    made = router(run.model, open_catalog(run.catalog).attrs["run"]["model"], 7, settings)
    again = engine(open_catalog(run.catalog))
    assert again.routing == made.routing == settings.routing
    for name in ("seed", "n_draws", "min_effective_fraction", "n_keep", "certificate", "columns", "batch"):
        assert getattr(again.posterior, name) == getattr(made.posterior, name), name
    rows = np.array([0, 3])
    assert again.posterior.base_points(rows, 32).equal(made.posterior.base_points(rows, 32))


def test_a_shard_that_samples_is_heard_of_before_it_is_done(run, monkeypatch, capfd):
    """At once, and then every few seconds: minutes of silence look like a job that hangs."""
    monkeypatch.setenv("SEDFLOW_LOG", "json")
    routing = Routing(effective_draws=10_000, more_draws=1, walkers=22, short_steps=60, long_steps=60, share=0.2)
    run.infer(out=run.root / "sampled", routing=routing)
    said = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    events = [line["event"] for line in said]
    assert "sampling" in events and events.index("sampling") < events.index("chunk")
    for line in said:
        if line["event"] == "sampling":
            assert line["chunk"] in (0, 1) and 1 <= line["galaxies"] <= 4
            assert 0 <= line["steps"] <= line["most"] == line["galaxies"] * 60


def test_a_worker_lets_models_go_that_it_no_longer_uses(run):
    """On a cluster that runs for months every release with another model would stay in memory otherwise."""
    run.infer()
    model_id = open_catalog(run.catalog).attrs["run"]["model"]
    first = weakref.ref(router(run.model, model_id, 1, Inference()))
    for seed in range(2, 2 + on_worker.KEPT):
        router(run.model, model_id, seed, Inference())
    gc.collect()
    assert first() is None
