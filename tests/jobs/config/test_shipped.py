"""The models that come with the package: they load by their names and answer simulated galaxies well."""

import numpy as np
import pytest
from scipy.stats import kstest

from jobs.config import shipped
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference.cascade import Router
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.inference.settings import InferenceSettings
from sedflow_dist.inference.summary import Method
from sedflow_dist.photometry import surveys
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.validation.mock_galaxies import mock_galaxies
from storage_schemas import model
from storage_schemas.backend.location import Location

NAMES = ["desi", "sdss"]


@pytest.fixture(scope="module")
def flows():
    return {name: TrainedModel.from_bytes(*model.read(shipped.model(name))) for name in NAMES}


def test_models_are_small_and_known_by_name():
    assert shipped.names() == NAMES
    assert all(sum(map(len, model.read(shipped.model(name)))) < 10_000_000 for name in NAMES)


def test_other_names_are_locations(tmp_path):
    (tmp_path / "sdss").mkdir()
    assert shipped.model(str(tmp_path / "sdss")) == Location.parse(str(tmp_path / "sdss"))
    with pytest.raises(FileNotFoundError, match=r"no model nosuch: it is .* one that comes along: desi, sdss"):
        shipped.model("nosuch")
    assert shipped.model("s3://bucket/sdss") == Location.parse("s3://bucket/sdss")


@pytest.mark.parametrize(("name", "survey", "redshift"), [("sdss", "sdss", 0.2), ("desi", "desi-legacy", 0.6)])
def test_they_answer_their_surveys_photometry(flows, name, survey, redshift):
    flow, declared = flows[name], surveys.get(survey)
    assert (flow.spec.bands, flow.spec.labels, flow.spec.band_sets) == (
        declared.bands,
        declared.labels,
        declared.band_sets,
    )
    assert flow.spec.redshift == (0.0, redshift)
    assert flow.reach == pytest.approx(redshift + 0.4)  # rows a little beyond are weighed there, others go to MCMC


@pytest.mark.parametrize(("name", "least", "tail"), [("sdss", 0.6, 0.6), ("desi", 0.25, 0.7)])
def test_weights_of_simulated_galaxies_are_good(flows, name, least, tail):
    """1,000 galaxies gave median effective fractions of 0.73 and 0.39; those of 40 lie above these with a probability of 99.9 %."""
    mocks = mock_galaxies(flows[name], 40, seed=5)
    found = Posterior(flows[name], seed=1, n_draws=512).summarise(mocks.photometry, np.zeros(40, np.uint32), 0)
    assert np.median(found.effective_fraction) > least
    assert np.median(found.pareto_k) < tail


THREE = (("g", "r", "z"), ("r", "z", "w1"), ("r", "w1", "w2"))
UNSURE = Flag.LOW_EFFECTIVE_FRACTION | Flag.NOT_CONVERGED | Flag.FAILED


@pytest.mark.slow
def test_desi_beyond_its_training_is_as_good_as_its_weights_say(flows):
    """Redshifts 0.6 to 1 and r of 20.2 to 21.5, all bands and three alone (benchmarks/beyond_training.py has more of them).

    Every row says that it lies beyond the training, none has the flow's draws as they are, and ranks of the true mass are
    uniform where nothing says that the answer is unsure: p > 0.001.
    """
    flow = flows["desi"]
    patterns = [tuple(label in bands for label in flow.spec.labels) for bands in THREE]
    mocks = mock_galaxies(flow, 12, 7, patterns, redshift=(0.6, flow.reach), selection=(20.2, 21.5))
    router = Router.of(flow, 1, InferenceSettings(n_draws=1024, keep_draws=256))
    found = router.summarise(mocks.photometry, np.zeros(len(mocks), np.uint32), 0)
    assert ((found.flags & int(Flag.REDSHIFT_OUTSIDE_MODEL)) != 0).all()
    assert (found.method != Method.FLOW).all() and np.isnan(found.mean[found.method == Method.NONE]).all()
    sure = (found.method != Method.NONE) & ((found.flags & int(UNSURE)) == 0)
    assert sure.mean() > 0.5 and (found.effective_draws[sure] >= 0.01 * 1024).all()
    low, high = flow.space.amplitude.prior.range
    true = (mocks.log_mstar.numpy() - low) / (high - low)
    ranks = (found.draws[:, :, 0] < true[:, None] * 2**16).mean(1)
    assert kstest(ranks[sure], "uniform").pvalue > 0.001
