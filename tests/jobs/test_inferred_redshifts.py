"""Redshifts inferred by a run: the shipped model with a redshift head, trained by `train`, on rows with a redshift and without."""

import shutil

import numpy as np
import pytest
import tiny
from astropy.table import Table
from pydantic import ValidationError

from jobs.catalog.draws import replay
from jobs.catalog.reweight import reweight
from jobs.config import shipped
from jobs.config.run_file import RunFile
from jobs.config.sections import Ingest
from jobs.containers.tables import resolve
from jobs.export import export
from jobs.export.rows import of_catalog
from jobs.infer import infer
from jobs.ingest.job import ingest
from jobs.report.galaxy import show
from jobs.train import train
from jobs.validate.job import validate
from jobs.validate.redshifts import judge
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference.settings import TargetPrior
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.validation.photo_z import PointFigures
from storage_schemas import model as model_store
from storage_schemas import open_catalog, validation

HEAD = {"hidden": [32], "n_galaxies": 4000, "steps": 30, "batch": 256, "warm_up": 5, "learning_rate": 0.003}
SECTIONS = {
    "flow": {"transforms": 8, "hidden": 128},
    "training": {"start": "sdss", "steps": 0, "threads": 1},
    "photo_z": HEAD,
    "inference": {
        "n_draws": 64, "rows_per_shard": 100, "keep_draws": 5, "redshift_peaks": True, "routing": {"share": 0.0, "more_draws": 1},
        "prior": {"densities": ["log_mstar_surviving=leja2020(min=7)"], "redshift": "leja2020(min=7)"},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def run(local, tmp_path_factory):
    """Photometry, SSP table and training set are those of the tiny run."""
    root = tmp_path_factory.mktemp("photo_z")
    for name in ("photometry", "ssp", "training"):
        shutil.copytree(f"{local.root}/{name}", root / name)
    made = RunFile.model_validate({**local.model_dump(exclude_unset=True), **SECTIONS, "root": str(root)})
    train(made)
    infer(
        made.store("photometry"), made.store("model"), made.store("catalog"), made.inference, made.seed,
        made.engines.dask,
    )  # fmt: skip
    return made


def test_the_model_is_the_shipped_one_with_a_head(run):
    model = TrainedModel.from_bytes(*model_store.read(run.store("model")))
    start = TrainedModel.from_bytes(*model_store.read(shipped.model("sdss")))
    assert model.head is not None and model.head.spec.training["steps"] == 30
    assert model.spec.training["start"] == start.id
    ours, theirs = model.network.state_dict(), start.network.state_dict()
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    before = model_store.read(run.store("model"))
    train(run)  # it is there already
    assert model_store.read(run.store("model")) == before


def test_rows_without_a_redshift_are_inferred_and_others_keep_theirs(run):
    catalog = open_catalog(run.store("catalog")).load()
    flags = catalog["flags"].values
    inferred = (flags & int(Flag.REDSHIFT_INFERRED)) != 0
    assert np.flatnonzero(inferred).tolist() == [tiny.NO_REDSHIFT, tiny.NEGATIVE_REDSHIFT]
    assert (catalog["method"].values[inferred] > 0).all()
    names = ["redshift_p16", "redshift_p50", "redshift_p84"]
    blocks = list(of_catalog(catalog, names).blocks())
    rows = {name: np.concatenate([np.ma.filled(block[name], np.nan) for block in blocks]) for name in names}
    known = (catalog["method"].values > 0) & ~inferred
    assert np.allclose(rows["redshift_p50"][known], catalog["redshift"].values[known], rtol=1e-6)
    assert (rows["redshift_p16"][inferred] < rows["redshift_p84"][inferred]).all()
    assert (rows["redshift_p50"][inferred] > 0).all() and (rows["redshift_p50"][inferred] < 0.2).all()


def test_where_densities_peak_is_told(run):
    """Of a known redshift that is it; of an inferred one it lies among its quantiles, and rows without an answer have none."""
    catalog = open_catalog(run.store("catalog")).load()
    mode, peaks = catalog["redshift_mode"].values, catalog["redshift_peaks"].values
    answered = catalog["method"].values > 0
    assert (peaks[answered] >= 1).all() and (peaks[~answered] == 0).all() and np.isnan(mode[~answered]).all()
    assert mode[0] == catalog["redshift"].values[0] and catalog["redshift_odds"].values[0] == pytest.approx(1)
    at = [str(name) for name in catalog["param"].values].index("redshift")
    low, high = catalog["quantiles"].values[tiny.NO_REDSHIFT, at, [0, -1]]
    assert low - 0.02 < mode[tiny.NO_REDSHIFT] < high + 0.02


def test_replayed_draws_have_redshifts_of_their_own(run):
    catalog = open_catalog(run.store("catalog"))
    drawn, names = replay(catalog, [tiny.NO_REDSHIFT, 0], 64)
    again, _ = replay(catalog, [tiny.NO_REDSHIFT], 64)
    assert drawn[:1].tobytes() == again.tobytes()
    redshift = drawn[..., names.index("redshift")]
    assert len(np.unique(redshift[0])) > 3
    assert np.allclose(redshift[1], catalog["redshift"].values[0])


def test_kept_draws_have_redshifts_and_p_of_z_is_made_of_them(run, tmp_path):
    """In the catalog, and as a qp ensemble on a grid: normalised, about the median, and a spike where the redshift is known."""
    import qp

    catalog = open_catalog(run.store("catalog")).load()
    kept, known = catalog["draw_redshift"].values, catalog["redshift"].values
    assert kept.shape == (catalog.sizes["galaxy"], 5)
    assert np.array_equal(kept[0], np.full(5, known[0]))
    assert len(np.unique(kept[tiny.NO_REDSHIFT])) > 1 and np.isnan(kept[catalog["method"].values == 0]).all()
    export(catalog, tmp_path / "p.qp.hdf5", ["redshift"])
    found = qp.read(str(tmp_path / "p.qp.hdf5"))
    grid = np.linspace(0, 0.6, 301)  # where the galaxy model ends
    assert np.allclose(found.metadata["xvals"].squeeze(), grid)
    rows = found.ancil["row"].tolist()
    assert rows == np.flatnonzero(catalog["method"].values > 0).tolist()
    assert np.allclose(np.trapezoid(found.pdf(grid), grid), 1, atol=0.02)
    at = [str(name) for name in catalog["param"].values].index("redshift")
    mine = rows.index(tiny.NO_REDSHIFT)
    low, high = catalog["quantiles"].values[tiny.NO_REDSHIFT, at, [0, -1]]
    assert low - 0.01 < float(found.median()[mine, 0]) < high + 0.01
    assert abs(grid[found.pdf(grid)[0].argmax()] - known[0]) < 0.002


def test_another_prior_meets_each_draw_at_its_own_redshift(run, tmp_path):
    """`catalog reweight` to a prior on a parameter, which is the same at all redshifts, and on a property, which is not."""
    rows = [tiny.NO_REDSHIFT, 0, 1]
    for prior in ("tau_ism=norm(0.3,0.2)", "log_sfr_1gyr=flat"):
        out = tmp_path / f"{prior[:6]}.csv"
        target = TargetPrior(densities=(prior,))
        assert reweight(run.store("catalog"), str(out), target, rows, 512, "main") == (3, 0)
        told = Table.read(out)
        assert np.isfinite(told["redshift_p50"]).all() and (told["effective_draws"] > 5).all()
        assert told["redshift_p16"][0] < told["redshift_p84"][0] and told["redshift_p16"][1] == told["redshift_p84"][1]


def test_a_galaxy_without_a_redshift_is_shown_at_its_draws_redshifts(run, tmp_path):
    out = tmp_path / "galaxy.png"
    assert show(run.store("catalog"), str(out), row=tiny.NO_REDSHIFT) == tiny.NO_REDSHIFT
    assert out.stat().st_size > 50_000


def test_a_table_without_redshifts_is_inferred_whole(run, tmp_path):
    """`--redshift none`; without it the column is missed, and the error says so."""
    table = Table.read(resolve("kcorrect-sample"))[:60]
    table.remove_column("Z")
    table.write(tmp_path / "galaxies.fits")
    survey, store = run.survey_definition, tiny.location(tmp_path / "photometry")
    with pytest.raises(ValueError, match="lacks Z"):
        ingest(tmp_path / "galaxies.fits", survey, store, 60)
    ingest(tmp_path / "galaxies.fits", Ingest(redshift="none").named(survey), store, 60)
    out = tiny.location(tmp_path / "catalog")
    infer(store, run.store("model"), out, run.inference, run.seed, run.engines.dask)
    catalog = open_catalog(out).load()
    answered = catalog["method"].values > 0
    inferred = (catalog["flags"].values & int(Flag.REDSHIFT_INFERRED)) != 0
    assert answered.mean() > 0.9 and inferred.all() and np.isnan(catalog["redshift"].values).all()
    at = [str(name) for name in catalog["param"].values].index("redshift")
    assert np.isfinite(catalog["quantiles"].values[answered, at]).all()


def test_inferred_redshifts_are_judged_by_true_ones(run, local, tmp_path, capsys):
    """By rows of the input and by an identifier: figures as of arrays, and what cannot be judged is told."""
    table = Table.read(resolve("kcorrect-sample"))[:60]
    truth = np.asarray(table["Z"], float)
    table["NUMBER"] = np.arange(60) + 1000
    table.write(tmp_path / "galaxies.fits")
    Table({"NUMBER": table["NUMBER"][::-1], "z_spec": truth[::-1]}).write(tmp_path / "truth.csv")
    survey = run.survey_definition.model_copy(update={"ids": ("NUMBER",)})
    ingest(
        tmp_path / "galaxies.fits", Ingest(redshift="none").named(survey), tiny.location(tmp_path / "photometry"), 60
    )
    out = tiny.location(tmp_path / "catalog")
    infer(tiny.location(tmp_path / "photometry"), run.store("model"), out, run.inference, run.seed, run.engines.dask)
    said = []
    for place, options in (("galaxies.fits", {"column": "Z"}), ("truth.csv", {"column": "z_spec", "on": "number"})):
        names = judge(out, str(tmp_path / place), tiny.location(tmp_path / place[:5]), **options)
        assert [name.rpartition("/")[2] for name in names] == [
            "redshifts.png",
            "pit.png",
            "n_of_z.png",
            "redshifts.csv",
        ]
        said.append(Table.read(names[-1]))
    assert said[0]["sigma_iqr"].tolist() == said[1]["sigma_iqr"].tolist()
    catalog = open_catalog(out).load()
    at = [str(name) for name in catalog["param"].values].index("redshift")
    median = catalog["quantiles"].values[:, at, 2].astype(float)
    known = np.isfinite(median) & (truth > 0)
    expected = PointFigures.of(median[known], truth[known])
    assert said[0]["n"][0] == known.sum() and said[0]["bias"][0] == pytest.approx(expected.bias, abs=1e-6)
    assert 0 < said[0]["pit_ks"][0] < 1 and np.isfinite(said[0]["cde_loss"][0])
    assert "of 60 rows have an inferred redshift and a true one" in capsys.readouterr().err
    with pytest.raises(ValueError, match="60 rows, which are those of the catalog's input"):
        judge(run.store("catalog"), str(tmp_path / "galaxies.fits"), tiny.location(tmp_path / "x"), "Z")
    with pytest.raises(ValueError, match="--on objid: the catalog has the identifiers number"):
        judge(out, str(tmp_path / "galaxies.fits"), tiny.location(tmp_path / "x"), "Z", "objid")
    with pytest.raises(ValueError, match="infers no redshifts: its model has no redshift head"):
        judge(local.store("catalog"), str(tmp_path / "galaxies.fits"), out, "Z")


def test_the_calibration_is_that_of_inferred_redshifts_too(run, capsys):
    """As many mock galaxies again with their redshifts hidden, whose redshift is ranked among its draws."""
    found = validate(run)
    arrays, _ = validation.read(run.store("validation"))
    n, inferred = run.validation.n_galaxies, arrays["inferred"]
    assert len(inferred) == 2 * n and inferred[n:].all() and not inferred[:n].any()
    assert np.isfinite(arrays["redshift_rank"][n:]).all() and np.isnan(arrays["redshift_rank"][:n]).all()
    assert np.array_equal(arrays["redshift"][n:], arrays["redshift"][:n])
    assert found["inferred"].inside.shape == (len(arrays["param"]) + 1,)
    assert (
        found["inferred"].pooled > 1e-4 and found["inferred tarp"].pooled > 1e-4
    )  # of 64 draws, a sixth of them effective
    assert "redshifts inferred: pooled KS p" in capsys.readouterr().err


def test_what_cannot_be_meant_is_refused(run, tmp_path):
    with pytest.raises(ValidationError, match="steps: 0 is the model of `start` as it is, and there is none"):
        tiny.settings(tmp_path, "galaxies.fits", training={"steps": 0})
    with pytest.raises(ValidationError, match="is no mass function such as leja2020"):
        tiny.settings(tmp_path, "galaxies.fits", inference={"prior": {"redshift": "norm(0.1,0.1)"}})
    plain = shipped.model("sdss")
    with pytest.raises(ValueError, match="redshift_peaks: this model infers no redshifts"):
        asked = run.inference.model_copy(update={"prior": TargetPrior()})
        infer(run.store("photometry"), plain, tiny.location(tmp_path / "y"), asked, run.seed, run.engines.dask)
    with pytest.raises(ValueError, match="this model has no redshift head"):
        infer(run.store("photometry"), plain, tiny.location(tmp_path / "x"), run.inference, run.seed, run.engines.dask)
