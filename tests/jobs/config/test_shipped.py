"""The model that comes with the package: it loads by its name and answers simulated galaxies well."""

import numpy as np
import pytest

from jobs.config import shipped
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.validation.mock_galaxies import mock_galaxies
from storage_schemas import model
from storage_schemas.backend.location import Location


@pytest.fixture(scope="module")
def flow():
    return TrainedModel.from_bytes(*model.read(shipped.model("sdss")))


def test_models_are_small_and_known_by_name():
    assert shipped.names() == ["sdss"]
    weights, spec = model.read(shipped.model("sdss"))
    assert len(weights) + len(spec) < 10_000_000


def test_other_names_are_locations(tmp_path):
    (tmp_path / "sdss").mkdir()
    assert shipped.model(str(tmp_path / "sdss")) == Location.parse(str(tmp_path / "sdss"))
    with pytest.raises(FileNotFoundError, match=r"no model nosuch: it is .* one that comes along: sdss"):
        shipped.model("nosuch")
    assert shipped.model("s3://bucket/sdss") == Location.parse("s3://bucket/sdss")


def test_it_answers_ugriz_at_low_redshift_with_the_models_error(flow):
    assert flow.spec.bands == tuple(f"sdss2010-{b}" for b in "ugriz")
    assert flow.spec.redshift == (0.0, 0.2)
    assert flow.reach >= 0.5  # rows a little beyond are weighed there, others go to MCMC


def test_weights_of_simulated_galaxies_are_good(flow):
    """1,000 galaxies gave a median effective fraction of 0.73; of 40 it lies above 0.6 with a probability of 99.9 %."""
    mocks = mock_galaxies(flow, 40, seed=5)
    found = Posterior(flow, seed=1, n_draws=512).summarise(mocks.photometry, np.zeros(40, np.uint32), 0)
    assert np.median(found.effective_fraction) > 0.6
    assert np.median(found.pareto_k) < 0.6
