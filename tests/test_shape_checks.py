"""The test run checks the shapes that annotations promise: in functions, in methods, in dataclasses, in what they return."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from paths import ROOT

from sedflow_dist.inference import likelihood
from sedflow_dist.parameters import probit
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.sps import cosmology


def test_a_wrong_shape_is_refused():
    bands, ones = torch.ones(3, 5), torch.ones(3)
    photometry = Photometry(bands, bands, bands.bool(), ones, 0 * ones)
    assert likelihood.gaussian(torch.ones(3, 4, 5), photometry)[0].shape == (3, 4)
    with pytest.raises(TypeCheckError, match="model"):
        likelihood.gaussian(torch.ones(3, 5), photometry)
    with pytest.raises(TypeCheckError, match="photometry"):
        likelihood.gaussian(torch.ones(3, 4, 5), bands)


def test_a_wrong_shape_in_a_dataclass_is_refused():
    two = torch.ones(2, 5)
    with pytest.raises(TypeCheckError):
        Photometry(two, two, torch.ones(2, 5, dtype=torch.bool), torch.ones(3), torch.zeros(3))


def test_other_types_than_arrays_are_refused_where_arrays_are_taken():
    with pytest.raises(TypeCheckError):
        probit(np.full(3, 0.5))
    with pytest.raises(TypeCheckError):
        cosmology.age_gyr("0.1")


def test_outside_the_test_run_nothing_is_checked():
    """What users run is as fast as it was, and needs no beartype."""
    code = "import sys, jobs.cli.main; print('beartype' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
