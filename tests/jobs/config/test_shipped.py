"""The models that come with the package: they load by their names and answer simulated galaxies well."""

import numpy as np
import pytest

from jobs.config import shipped
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.photometry import surveys
from sedflow_dist.validation.mock_galaxies import mock_galaxies
from storage_schemas import model
from storage_schemas.backend.location import Location

NAMES = ["desi", "rubin", "sdss"]


@pytest.fixture(scope="module")
def flows():
    return {name: TrainedModel.from_bytes(*model.read(shipped.model(name))) for name in NAMES}


def test_models_are_small_and_known_by_name():
    assert shipped.names() == NAMES
    assert all(sum(map(len, model.read(shipped.model(name)))) < 10_000_000 for name in NAMES)


def test_other_names_are_locations(tmp_path):
    (tmp_path / "sdss").mkdir()
    assert shipped.model(str(tmp_path / "sdss")) == Location.parse(str(tmp_path / "sdss"))
    with pytest.raises(FileNotFoundError, match=r"no model nosuch: it is .* one that comes along: desi, rubin, sdss"):
        shipped.model("nosuch")
    assert shipped.model("s3://bucket/sdss") == Location.parse("s3://bucket/sdss")


@pytest.mark.parametrize(
    ("name", "survey", "redshift"),
    [("sdss", "sdss", 0.2), ("desi", "desi-legacy", 0.6), ("rubin", "rubin", 3.2), ("rubin", "rail", 3.2)],
)
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
    """1,000 galaxies gave median effective fractions of 0.73 and 0.44; those of 40 lie above these with a probability of 99.9 %."""
    mocks = mock_galaxies(flows[name], 40, seed=5)
    found = Posterior(flows[name], seed=1, n_draws=512).summarise(mocks.photometry, np.zeros(40, np.uint32), 0)
    assert np.median(found.effective_fraction) > least
    assert np.median(found.pareto_k) < tail
