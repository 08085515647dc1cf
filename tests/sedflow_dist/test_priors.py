"""One-dimensional priors: their maps, their densities and their plain values."""

import numpy as np
import pytest
import torch
from scipy import stats

from sedflow_dist import keyed_random
from sedflow_dist.priors import LogUniform, Normal, TruncatedNormal, Uniform, plain, replaced

PRIORS = (
    Uniform(low=-2, high=1), LogUniform(low=4.5e-5, high=1.5e-2), Normal(mean=0.3, sigma=0.2),
    TruncatedNormal(mean=0.3, sigma=0.2, low=0, high=3), TruncatedNormal(mean=-1.0, sigma=0.5, low=0, high=3),
)  # fmt: skip
U = torch.as_tensor(keyed_random.uniforms(1, "priors", 0, 5_000, 1)).flatten()


@pytest.mark.parametrize("prior", PRIORS, ids=repr)
def test_the_map_of_a_uniform_follows_the_density(prior):
    x = prior.from_unit(U).numpy()
    assert stats.kstest(x, prior.distribution.cdf).pvalue > 1e-3
    lo, hi = prior.range
    assert ((x >= lo) & (x <= hi)).all()


@pytest.mark.parametrize("prior", PRIORS, ids=repr)
def test_maps_are_inverse_to_each_other(prior):
    torch.testing.assert_close(prior.to_unit(prior.from_unit(U)), U, atol=1e-9, rtol=0)


@pytest.mark.parametrize("prior", PRIORS, ids=repr)
def test_the_map_is_the_quantile_function_of_the_density(prior):
    u = torch.linspace(1e-6, 1 - 1e-6, 101, dtype=torch.float64)
    np.testing.assert_allclose(prior.from_unit(u).numpy(), prior.distribution.ppf(u.numpy()), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("prior", PRIORS, ids=repr)
def test_ends_of_the_unit_interval_are_finite_in_single_precision(prior):
    """Draws keep half a float32 step from 0 and 1."""
    ends = prior.from_unit(torch.tensor([2.0**-24, 1 - 2.0**-24]))
    assert bool(torch.isfinite(ends).all())


@pytest.mark.parametrize("prior", PRIORS, ids=repr)
def test_plain_values_give_the_same_prior(prior):
    assert replaced(prior, plain(prior)) == prior


def test_a_range_keeps_the_kind_and_its_other_numbers():
    assert replaced(PRIORS[1], (1e-4, 1e-2)) == LogUniform(low=1e-4, high=1e-2)
    assert replaced(PRIORS[3], (0, 2)) == TruncatedNormal(mean=0.3, sigma=0.2, low=0, high=2)
    with pytest.raises(ValueError, match="normal, which has no range"):
        replaced(PRIORS[2], (0, 1))


def test_a_normal_far_from_its_range_is_refused():
    with pytest.raises(ValueError, match="next to nothing between 5 and 6"):
        TruncatedNormal(mean=0, sigma=0.1, low=5, high=6)
