"""The learned likelihood as a job: made beside the model, asked for by a setting, and without it nothing is different."""

import numpy as np
import pytest
import small
import tiny

from jobs import infer as infer_job
from jobs.catalog.draws import replay
from jobs.columns import asked
from jobs.config.run_file import RunFile
from jobs.config.sections import Inference
from jobs.export.rows import of_catalog
from jobs.likelihood import learn_likelihood
from jobs.on_worker import read_likelihood
from sedflow_dist.flow.likelihood_training import LikelihoodSettings
from storage_schemas import model as model_store
from storage_schemas import open_catalog

COLUMNS = ("log_bayes_factor", "log_bayes_factor_error")
TINY = LikelihoodSettings(transforms=1, hidden=4, n_galaxies=1000, steps=3, batch=64, warm_up=1)


@pytest.fixture(scope="module")
def run(filled_run, flow, tmp_path_factory):
    """A small catalog's run with a model of its own, and a learned likelihood beside it."""
    made = filled_run(tiny.location(tmp_path_factory.mktemp("likelihood")), 20)
    own = made.root / "model"
    model_store.write(own, *flow.to_bytes())
    learn_likelihood(run_file(made), own)
    return small.Small(made.root, own, made.dask, made.bands)


def run_file(run, **sections):
    return RunFile.load("sdss", root=run.root.url, likelihood=TINY.model_dump(), **sections)


def test_a_catalog_has_the_columns_that_were_asked_for_and_is_else_the_same(run):
    run.infer()
    run.infer(out=run.root / "compared", learned_likelihood=True)
    plain, compared = open_catalog(run.catalog), open_catalog(run.root / "compared")
    assert set(compared.data_vars) - set(plain.data_vars) == set(COLUMNS)
    for name in set(plain.data_vars) - {"shard_key"}:
        np.testing.assert_array_equal(plain[name].values, compared[name].values, err_msg=name)
    answered = compared["method"].values > 0
    for name in COLUMNS:
        np.testing.assert_array_equal(np.isfinite(compared[name].values), answered)
    exported = [column.name for column in of_catalog(compared).columns]
    assert set(COLUMNS) < set(exported)
    draws = [replay(catalog, [0, 3], 20)[0] for catalog in (plain, compared)]
    np.testing.assert_array_equal(*draws)


def test_the_same_run_gives_the_same_columns(run):
    run.infer(out=run.root / "again", learned_likelihood=True)
    one, other = (small.contents(run.root / name) for name in ("compared", "again"))
    small.assert_same(one, other)


def test_a_catalog_without_it_says_nothing_of_it(run):
    """Its identity, and that of each of its shards, is what it was before there was such a setting."""
    off, on = (
        infer_job.work(run.photometry, run.model, Inference(learned_likelihood=x), 1).answers for x in (False, True)
    )
    assert set(on) - set(off) == {"learned_likelihood", "likelihood"}
    assert on["likelihood"] == read_likelihood(run.model).id


def test_a_likelihood_that_is_there_is_not_made_again_and_no_other_in_its_place(run):
    where = model_store.likelihood_of(run.model)
    before = model_store.read(where)
    learn_likelihood(run_file(run), run.model)
    with pytest.raises(ValueError, match="trained with other settings or for another model; remove it"):
        learn_likelihood(run_file(run, seed=99), run.model)
    assert model_store.read(where) == before


def test_a_model_without_a_likelihood_is_told_how_to_get_one(filled_run, tmp_path):
    run = filled_run(tiny.location(tmp_path), 20)
    with pytest.raises(FileNotFoundError, match="no learned likelihood; `sedflow learn-likelihood RUN` makes it"):
        run.infer(learned_likelihood=True)


def test_without_the_certificate_there_is_nothing_to_compare():
    with pytest.raises(ValueError, match="compares evidences, which certificate: false does not compute"):
        Inference(certificate=False, learned_likelihood=True)
    assert {spec.name for spec in asked(Inference())} & {*COLUMNS, "draws"} == set()


def test_the_shipped_model_has_the_likelihood_of_its_run_file():
    from jobs.config import shipped
    from jobs.config.run_file import fingerprint

    likelihood, run = read_likelihood(shipped.model("sdss")), RunFile.load("sdss")
    assert likelihood.spec.training["key"] == fingerprint(run.likelihood, run.seed, likelihood.spec.model)
    assert len(likelihood.to_bytes()[0]) < 1_000_000
