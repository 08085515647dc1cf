"""Plans: what they say grows as it must, holds what was measured, and what cannot fit is refused."""

import resource
from itertools import pairwise

import pytest
import small
import tiny
from astropy.table import Table
from counting_s3 import BUCKET, serve
from dask.utils import parse_bytes

from cluster import dask_engine
from cluster.settings import DaskSettings
from jobs.config import shipped
from jobs.config.run_file import RunFile
from jobs.containers.tables import resolve
from jobs.infer import infer
from jobs.ingest.job import ingest, ingest_of
from jobs.run import plan
from jobs.validate.job import validate
from sedflow_dist.photometry import surveys
from storage_schemas import Location
from storage_schemas import model as model_store


def stages(run, rows=None):
    return {stage.name: stage for stage in plan.plan(run, rows)}


@pytest.mark.parametrize("name", ["demo", "nsa", "sdss"])
def test_all_but_memory_grows_with_the_rows(tmp_path, name):
    run = RunFile.load(name, root=str(tmp_path))
    seen = [stages(run, 10**power) for power in range(4, 11)]
    for few, many in pairwise(seen):
        for stage in ("ingest", "infer"):
            assert many[stage].rows == 10 * few[stage].rows
            for what in ("read", "written", "hours"):
                assert getattr(many[stage], what) == pytest.approx(10 * getattr(few[stage], what), rel=1e-6), (
                    stage,
                    what,
                )
            if few[stage].rows >= 10**7:  # below, shards and commits are few and whole numbers
                assert many[stage].requests == pytest.approx(10 * few[stage].requests, rel=0.02)
        assert many["infer"].memory == few["infer"].memory
        assert many["train"] == few["train"] and many["simulate"] == few["simulate"]
    assert seen[-1]["ingest"].memory == seen[-2]["ingest"].memory


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("inference", "n_draws", 500_000),
        ("inference", "rows_per_shard", 10_000_000),
        ("ingest", "rows_per_piece", 10**8),
    ],
)
def test_what_cannot_fit_is_refused_with_what_would(tmp_path, section, key, value):
    run = tiny.settings(tmp_path, "none.fits")
    plan.refuse_what_cannot_fit(run)
    changed = {
        **getattr(run, section).model_dump(),
        key: value,
        **({"keep_draws": 0} if key == "rows_per_shard" else {}),
    }
    large = run.model_validate({**run.model_dump(), section: changed})
    with pytest.raises(ValueError, match=rf"{section}.{key}.*{value:,}") as refused:
        plan.refuse_what_cannot_fit(large)
    fits = int(str(refused.value).rsplit(" ", 1)[1].replace(",", ""))
    assert 0 < fits < value
    for size, good in ((fits, True), (int(1.01 * fits) + 1, False)):
        changed = large.model_validate(
            {**large.model_dump(), section: {**getattr(large, section).model_dump(), key: size}}
        )
        if good:
            plan.refuse_what_cannot_fit(changed)
        else:
            with pytest.raises(ValueError, match="memory"):
                plan.refuse_what_cannot_fit(changed)


def test_a_job_whose_workers_cannot_hold_their_part_is_refused_before_it_begins(source, filled_run, tmp_path):
    """Each alone, without the run that would have planned it: workers would be ended and started again without end."""
    small_run, little = filled_run(tiny.location(tmp_path / "small"), small.SHARD), DaskSettings(memory_limit="0.5 GiB")
    out = tiny.location(tmp_path / "photometry")
    refused = r"would take \d+\.\d+ MiB of memory a worker and engines.dask.memory_limit is 512.00 MiB; .*nothing fits"
    with pytest.raises(ValueError, match=f"ingest {refused}: give workers more"):
        ingest([source, source.with_name("*.fits")], surveys.get("sdss"), out, 100, None, little)
    with pytest.raises(
        ValueError, match=r"of ingest.rows_per_piece, now 500,000, what fits is at most \d{5,6}$|\d{3},\d{3}$"
    ):
        ingest(source, surveys.get("sdss"), out, 100, None, DaskSettings(memory_limit="800 MB"))
    assert not out.exists()
    with pytest.raises(ValueError, match=r"infer would take .* engines.dask.memory_limit is 512.00 MiB"):
        infer(small_run.photometry, small_run.model, small_run.catalog, small.SETTINGS, 7, little)
    assert not small_run.catalog.exists()
    run = tiny.settings(tmp_path, "unused", engines={"dask": {"memory_limit": "0.5 GiB"}})
    model_store.write(run.store("model"), *model_store.read(small_run.model))
    with pytest.raises(ValueError, match=r"engines.dask.memory_limit is 512.00 MiB"):
        validate(run)


@pytest.mark.slow
def test_a_worker_holds_no_more_than_planned_and_not_much_less(tmp_path):
    """The whole product with the model that comes along, on real galaxies of which some need MCMC."""
    galaxies = Table.read(resolve("kcorrect-sample"))[:60]
    galaxies.write(tmp_path / "input.fits")
    content = tiny.settings(tmp_path, tmp_path / "input.fits").model_dump()
    content["inference"] = {"n_draws": 2048, "rows_per_shard": 40, "routing": {"effective_draws": 1200, "share": 0.05}}
    run = RunFile.model_validate(content)
    ingest_of(run)
    with dask_engine.client(DaskSettings(workers=1)) as client:
        settings = run.inference.model_copy(update={"commit_every": 1})
        engine = DaskSettings(address=client.scheduler.address)
        photometry = run.store("photometry")
        infer(photometry, shipped.model("sdss"), run.store("catalog"), settings, 1, engine)
        (measured,) = client.run(lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024).values()
    planned = stages(run)["infer"].memory
    assert 0.4 * planned < measured < planned < parse_bytes(run.engines.dask.memory_limit), (measured, planned)


@pytest.mark.slow
def test_requests_are_about_as_many_as_planned(monkeypatch, mocks, flow, tmp_path):
    n_rows = 8 * small.SHARD
    with serve(monkeypatch) as counted, dask_engine.client(DaskSettings(workers=1)) as client:
        root, model = Location.parse(f"s3://{BUCKET}/planned"), tiny.location(tmp_path / "model")
        model_store.write(model, *flow.to_bytes())
        run = small.Small(root, model, client.scheduler.address, flow.spec.bands)
        run.write(small.rows_of(mocks, n_rows))
        with counted.watch() as seen:
            run.infer()
    content = tiny.settings("unused", "unused").model_dump()
    content["inference"] = small.SETTINGS.model_dump()
    planned = stages(RunFile.model_validate(content), n_rows)["infer"].requests
    assert 0.5 * planned < len(seen) < planned, (len(seen), planned)
