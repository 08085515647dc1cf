"""The path of a notebook: a model by its name, photometry in, the posterior of one galaxy or some out."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import tiny

import sedflow_dist
from sedflow_dist import Photometry, load_model
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference.posterior import QUANTILES, Posterior
from sedflow_dist.notebook import Model
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.sps.chosen import Chosen
from storage_schemas import model as model_store

UNKNOWN, FAR, FEW = 3, 4, 5


@pytest.fixture(scope="module")
def small_model(flow):
    return Model.from_bytes(*flow.to_bytes())


@pytest.fixture(scope="module")
def photometry(mocks):
    """Six galaxies: the last three without a redshift, beyond all models, and with two bands."""
    seen = mocks.photometry[:6]
    redshift = seen.redshift.numpy().copy()
    redshift[UNKNOWN], redshift[FAR] = np.nan, 3.0
    mask = np.ones((6, 5), bool)
    mask[FEW, 2:] = False
    return Photometry.of(seen.flux.numpy(), np.maximum(seen.sigma.numpy(), 1e-3), redshift, mask)


@pytest.fixture(scope="module")
def post(small_model, photometry):
    return small_model.posterior(photometry, seed=1, n_draws=256, row=10)


def test_a_galaxy_takes_five_lines():
    """Those of ARCHITECTURE.md, with the model that comes along."""
    model = load_model("sdss")
    flux, sigma = [20.0, 60.0, 100.0, 130.0, 150.0], [1.0, 1.0, 1.0, 1.0, 3.0]
    post = model.posterior(Photometry.of(flux, sigma, redshift=0.05), seed=1, n_draws=512)
    low, middle, high = post.quantiles().sel(param="log_mstar_surviving", quantile=[0.16, 0.5, 0.84]).values[0]
    assert 9 < low < middle < high < 11
    assert post["log_weight"].shape == post["tau_ism"].shape == (1, 512)
    figure = post.plot()
    assert len(figure.axes) >= 29  # seven by seven, and the spectrum


def test_its_quantiles_are_a_catalogs(small_model, photometry, post):
    """Bit by bit: the same seed and rows, the same draws and weights."""
    flags = np.zeros(6, np.uint32)
    flags[FEW] |= int(Flag.TOO_FEW_BANDS)
    catalog = Posterior(small_model, seed=1, n_draws=256).summarise(photometry, flags, row=10)
    np.testing.assert_array_equal(post.quantiles().values, catalog.quantiles)
    for name in ("log_evidence", "log_evidence_error", "effective_fraction", "pareto_k"):
        np.testing.assert_array_equal(post[name].values.astype(np.float32), getattr(catalog, name))
    own = np.uint32(int(Flag.PRIOR_EDGE | Flag.NEGATIVE_FLUX))  # of summaries, and of the reading of a catalog
    np.testing.assert_array_equal(post.flags[:3] & ~own, catalog.flags[:3] & ~own)


def test_everything_is_there_by_name(post, small_model):
    data = post.to_xarray()
    assert dict(data.sizes) == {"galaxy": 6, "draw": 256}
    assert {
        *Posterior(small_model, seed=1).columns,
        "log_weight",
        "log_evidence",
        "effective_fraction",
        "flags",
    } <= set(data)
    assert data["galaxy"].values.tolist() == list(range(10, 16))
    assert data.attrs == {"model": small_model.id, "seed": 1}
    assert data["t_age_mw"].attrs == {"units": "Gyr", "long_name": "mass-weighted age"}
    np.testing.assert_allclose(np.exp(data["log_weight"].values[:3]).sum(1), 1, rtol=1e-9)
    assert post.quantiles().shape == (6, len(post.columns), len(QUANTILES))
    assert post.quantiles((0.5,)).shape == (6, len(post.columns), 1)


def test_galaxies_without_an_answer_are_nan_and_say_why(post):
    for galaxy, flag in ((UNKNOWN, Flag.BAD_REDSHIFT), (FAR, Flag.REDSHIFT_OUTSIDE_MODEL), (FEW, Flag.TOO_FEW_BANDS)):
        assert post.flags[galaxy] & int(flag)
        assert np.isnan(post.quantiles().values[galaxy]).all() and np.isnan(post["log_mstar"].values[galaxy]).all()
        with pytest.raises(ValueError, match=flag.name):
            post.plot(galaxy)
    assert np.isfinite(post.quantiles().values[:3]).all()


def test_no_galaxy_at_all_may_have_an_answer(small_model, photometry):
    post = small_model.posterior(photometry[[UNKNOWN, FEW]], seed=1, n_draws=64)
    assert post.to_xarray()["log_mstar"].isnull().all() and (post.flags != 0).all()
    assert post.quantiles().isnull().all()


def test_a_redshift_that_is_uncertain_is_not_taken_for_exact(small_model, photometry):
    exact = photometry[[0]]
    known, vague, bad = (replace(exact, redshift_sigma=x * exact.redshift) for x in (0.0, 0.2, 0.5))
    posts = [small_model.posterior(one, seed=1, n_draws=64) for one in (known, vague, bad)]
    assert posts[1].flags[0] & int(Flag.REDSHIFT_UNCERTAIN) and not posts[0].flags[0] & int(Flag.REDSHIFT_UNCERTAIN)
    assert (posts[1].quantiles() != posts[0].quantiles()).all()
    assert posts[2].flags[0] & int(Flag.BAD_REDSHIFT) and posts[2].quantiles().isnull().all()


def test_photometry_of_other_bands_is_refused_with_the_right_ones(small_model, photometry):
    four = Photometry.of(photometry.flux[:, :4].numpy(), np.ones((6, 4)), 0.1)
    with pytest.raises(
        ValueError, match="photometry of 4 bands; the model was trained on 5, in this order: sdss2010-u, "
    ):
        small_model.posterior(four, seed=1)


def test_resampled_draws_follow_the_weights(post):
    draws = post.resample(4000)
    assert draws.shape == (6, 4000, len(post.columns))
    expected = (post.weight[:3, :, None] * post.values[:3].astype(float)).sum(1)
    across = np.ptp(post.values[:3], axis=1)  # a draw is there as often as it should be, to one time
    assert (np.abs(draws[:3].mean(1) - expected) < 0.01 * across + 1e-6).all()


def test_models_are_found_by_folder_and_url(flow, tmp_path, s3_server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    for where in (str(tmp_path / "mine"), "s3://galaxies/notebook/model"):
        model_store.write(tiny.location(where), *flow.to_bytes())
        assert load_model(where).id == flow.id
    assert load_model(tmp_path / "mine").id == flow.id
    assert isinstance(load_model(tmp_path / "mine"), TrainedModel)


def test_a_model_that_is_not_there_is_an_error_that_says_what_is(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model at .*nowhere; the package comes with desi, rubin, sdss"):
        load_model(tmp_path / "nowhere")


def test_the_public_surface_is_documented():
    for name in sedflow_dist.__all__:
        assert inspect.getdoc(getattr(sedflow_dist, name)), name


def test_columns_of_ones_choice_come_with_the_draws(small_model, photometry):
    """Declared as in a run file; draws of what every posterior has are the same without them."""
    wanted = Chosen.model_validate({"predict": ["r"], "selection": {"band": "r", "magnitude": 17.7}})
    post = small_model.posterior(photometry[:2], seed=1, n_draws=64, columns=wanted)
    plain = small_model.posterior(photometry[:2], seed=1, n_draws=64)
    assert post.columns == (*plain.columns, "model_flux_r", "z_max", "v_max", "v_max_weight")
    assert post["v_max"].attrs["units"] == "Mpc3 / sr"
    assert np.allclose(post.values[..., : len(plain.columns)], plain.values, rtol=1e-4, equal_nan=True)
    assert float(post.quantiles().sel(param="z_max", quantile=0.5)[0]) > 0
