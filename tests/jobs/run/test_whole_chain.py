"""The whole chain at tiny size: nothing lost, nothing invented, the same everywhere, and after every interruption."""

import json
import shutil

import numpy as np
import pytest
import tiny
from astropy.table import Table
from counting_s3 import BUCKET, serve

from cluster.settings import DaskSettings
from jobs import train
from jobs.catalog.draws import engine, replay
from jobs.checkpoint import latest
from jobs.config.sections import Inference
from jobs.infer import infer
from jobs.ingest.job import ingest
from jobs.observed import observed
from jobs.run.job import run_all
from jobs.simulate.job import simulate
from jobs.simulate.ssp import build_ssp
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.inference.settings import Routing
from sedflow_dist.inference.summary import Method
from sedflow_dist.photometry.flags import REASONS, Flag
from storage_schemas import model, open_catalog
from storage_schemas.catalog import releases
from storage_schemas.catalog import schema as catalog

CERTIFICATE = (
    "effective_fraction",
    "effective_draws",
    "log_evidence",
    "log_evidence_error",
    "pareto_k",
    "chi2",
    "p_value",
)


@pytest.fixture(scope="session")
def local_contents(local):
    return tiny.contents(local)


@pytest.fixture(scope="module")
def s3():
    """A bucket on a real S3 server on loopback."""
    with pytest.MonkeyPatch.context() as patch, serve(patch):
        yield f"s3://{BUCKET}"


def test_every_row_is_answered_or_flagged_with_the_reason(local):
    data = open_catalog(local.store("catalog"))
    flags, method = data["flags"].values, data["method"].values
    beyond = data["redshift"].values > engine(data).posterior.flow.reach
    unanswered = (flags & int(REASONS & ~Flag.REDSHIFT_OUTSIDE_MODEL) != 0) | beyond
    assert (flags[beyond] & int(Flag.REDSHIFT_OUTSIDE_MODEL) != 0).all()
    trained = (flags & int(Flag.REDSHIFT_OUTSIDE_MODEL)) == 0  # others are answered where their weights serve, as here
    assert (~trained & ~unanswered).any()
    assert data.sizes["galaxy"] == tiny.N_ROWS
    np.testing.assert_array_equal(unanswered, method == 0)
    for name in ("quantiles", "mean", "std", *CERTIFICATE):
        finite = np.isfinite(data[name].values.reshape(tiny.N_ROWS, -1))
        np.testing.assert_array_equal(finite.all(1), ~unanswered)
        np.testing.assert_array_equal(finite.any(1), ~unanswered)
    expected = {
        tiny.NAN_FLUX: Flag.BAD_FLUX | Flag.BAND_MISSING, tiny.NO_ERRORS: Flag.BAD_ERROR | Flag.TOO_FEW_BANDS,
        tiny.NO_REDSHIFT: Flag.BAD_REDSHIFT, tiny.FAR: Flag.REDSHIFT_OUTSIDE_MODEL,
        tiny.NEGATIVE_REDSHIFT: Flag.BAD_REDSHIFT, tiny.NEGATIVE_FLUX: Flag.NEGATIVE_FLUX,
        tiny.INFINITE: Flag.BAD_ERROR | Flag.BAND_MISSING,
    }  # fmt: skip
    for row, wanted in expected.items():
        assert flags[row] & int(wanted) == int(wanted), (row, flags[row])
    assert np.flatnonzero(beyond).tolist() == [tiny.FAR]
    assert not unanswered[[tiny.NAN_FLUX, tiny.NEGATIVE_FLUX, tiny.INFINITE]].any()


def test_the_model_is_made_of_the_checkpoint_and_not_of_the_photometry(local, tmp_path):
    """Photometry that changed after the training would give another noise and other features than the weights know."""
    weights, spec = model.read(local.store("model"))
    key = json.loads(spec)["training"]["key"]
    for name in ("training", "ssp", "checkpoints"):
        shutil.copytree(local.store(name).url, tmp_path / name)
    alone = tiny.settings(tmp_path, local.input)  # a root without photometry
    checkpoint = latest(alone.store("checkpoints") / key)
    assert train.assemble(alone, checkpoint, key).to_bytes() == (weights, spec)


def test_rows_keep_the_order_of_the_input(local, source):
    from astropy.table import Table

    data, table = open_catalog(local.store("catalog")), Table.read(source)
    np.testing.assert_array_equal(data["ra"].values, np.asarray(table["RA"], float))


def test_columns_hold_what_their_names_say(local):
    """Every summary of a shard computed here, in one process, is the stored one, bit by bit."""
    from sedflow_dist.flow.trained_model import TrainedModel
    from storage_schemas.catalog.schema import model_bytes

    data = open_catalog(local.store("catalog"))
    part = data.isel(galaxy=slice(100, 200))
    settings = local.inference
    posterior = Posterior(
        TrainedModel.from_bytes(*model_bytes(data)), local.seed, settings.n_draws, settings.min_effective_fraction, 5
    )
    answer = posterior.summarise(observed(part), np.zeros(100, np.uint32), 100)
    for name in ("quantiles", "mean", "std", *CERTIFICATE, "rhat", "method", "draws"):
        assert part[name].values.tobytes() == getattr(answer, name).tobytes(), name
    assert list(data["param"].values) == list(posterior.columns)
    quantiles = part["quantiles"].values
    assert (np.diff(quantiles[np.isfinite(quantiles).all((1, 2))], axis=2) >= 0).all()


def test_no_draw_lies_outside_the_prior(local):
    data = open_catalog(local.store("catalog"))
    rows = np.flatnonzero(data["method"].values > 0)[:5]
    draws, names = replay(data, rows.tolist(), 500)
    mass, t_burst = draws[..., names.index("log_mstar")], draws[..., names.index("t_burst")]
    assert 7.0 <= mass.min() <= mass.max() <= 12.5
    assert 0.01 <= t_burst.min() <= t_burst.max() <= 13.27
    np.testing.assert_allclose(draws[..., 1:5].sum(-1), 1, atol=1e-5)


def test_a_second_run_finds_nothing_to_do(local):
    assert run_all(local)["shards"] == 0
    assert catalog.repository(local.store("catalog")).list_tags() == {"release-1"}


@pytest.mark.slow
def test_a_catalog_with_every_row_answered_is_the_same_from_one_worker_and_two(local, source, tmp_path):
    table = Table.read(source)[:36]
    table["Z"][tiny.FAR] = 0.5  # within the galaxy model
    table.write(tmp_path / "some.fits")
    ingest(tmp_path / "some.fits", local.survey_definition, local.location / "some_photometry", 12)
    routing = Routing(effective_draws=3, more_draws=4, walkers=22, short_steps=60, long_steps=120, share=1.0)
    settings = Inference(n_draws=64, rows_per_shard=12, keep_draws=5, routing=routing)
    catalogs = []
    for workers in (1, 2):
        out = local.location / f"routed_{workers}"
        counts = infer(
            local.location / "some_photometry", local.store("model"), out, settings, 7, DaskSettings(workers=workers)
        )
        catalogs.append(open_catalog(out))
    one, two = catalogs
    for name in one.data_vars:
        if one[name].dtype.kind != "T":
            assert one[name].values.tobytes() == two[name].values.tobytes(), name
    method = one["method"].values
    unanswered = [tiny.NO_ERRORS, tiny.NO_REDSHIFT, tiny.NEGATIVE_REDSHIFT]
    assert np.flatnonzero(method == Method.NONE).tolist() == unanswered
    assert counts["answered"] == 36 - len(unanswered)
    assert counts["SHORT_MCMC"] + counts["MCMC"] == (method >= Method.SHORT_MCMC).sum() > 1
    assert np.isfinite(one["quantiles"].values[method > Method.NONE]).all()
    rows = [tiny.FAR, *np.flatnonzero((method == Method.MCMC) | (method == Method.MORE_DRAWS))[:2].tolist()]
    draws, _ = replay(one, rows, 100)
    assert draws.tobytes() == replay(two, rows, 100)[0].tobytes()


@pytest.mark.slow
def test_the_chain_on_s3_with_one_worker_of_each_kind_equals_the_local_one_with_two(s3, source, local, local_contents):
    """Its own Dask worker and one Ray actor: neither the storage nor the number of workers is in the content."""
    run = tiny.settings(f"{s3}/whole-chain", source, engines={"ray": {"actors": 1}, "dask": {"workers": 1}})
    run_all(run)
    tiny.assert_same(local_contents, tiny.contents(run))
    data = open_catalog(run.store("catalog"))
    rows = np.flatnonzero(data["method"].values > 0)[:2].tolist()
    draws, _ = replay(data, rows, 300)
    assert draws.tobytes() == replay(open_catalog(local.store("catalog")), rows, 300)[0].tobytes()


@pytest.mark.slow
def test_killed_jobs_go_on_and_end_in_the_same_content(local_contents, source, tmp_path):
    """SIGKILL driver and workers of simulate, train and infer once each has written something, and run again."""
    run = tiny.settings(tmp_path / "run", source)
    build_ssp("bc03", run.store("ssp"))
    ingest(source, run.survey_definition, run.store("photometry"), run.inference.rows_per_shard)

    process = tiny.start("simulate", run, tmp_path)
    written = run.location / "training"
    tiny.kill_when(process, lambda: any(n.startswith("chunk_digest/c/") for n in written.list()))
    simulate(run)

    process = tiny.start("train", run, tmp_path)
    checkpoints = run.store("checkpoints")
    tiny.kill_when(process, lambda: any(n.endswith("state.json") for n in checkpoints.list()))
    process = tiny.start("run", run, tmp_path)

    def committed():
        try:
            repo = catalog.repository(run.store("catalog"))
            return any("shards" in message for _, _, message in releases.unpublished(repo))
        except Exception:
            return False

    tiny.kill_when(process, committed)
    with pytest.raises(ValueError, match="no release yet"):
        open_catalog(run.store("catalog"))
    run_all(run)
    tiny.assert_same(local_contents, tiny.contents(run))
