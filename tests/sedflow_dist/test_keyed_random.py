"""Counter-based random numbers: the same row gives the same numbers, however rows are split."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sedflow_dist import keyed_random
from sedflow_dist.keyed_random import torch_seed, uniforms

GOLDEN = [[0.539908046974628, 0.14428517265406587, 0.44086632774238793]]
GOLDEN_SEED = 8792672428139738825


@given(st.integers(0, 2**40), st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 13))
def test_any_split_of_the_rows_gives_the_same_numbers(first, sizes, n_columns):
    whole = uniforms(3, "split", first, sum(sizes), n_columns)
    starts = [first + s for s in itertools.accumulate([0, *sizes[:-1]])]
    parts = [uniforms(3, "split", start, size, n_columns) for start, size in zip(starts, sizes, strict=True)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_seeds_streams_and_rows_differ():
    base = uniforms(1, "a", 0, 50, 11)
    for other in (uniforms(2, "a", 0, 50, 11), uniforms(1, "b", 0, 50, 11), uniforms(1, "a", 50, 50, 11)):
        assert not np.intersect1d(base, other).size


def test_numbers_are_uniform_and_independent():
    u = uniforms(1, "statistics", 0, 20_000, 5)
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3
    correlation = np.corrcoef(np.concatenate([u, np.roll(u, 1, axis=0)], axis=1).T) - np.eye(10)
    assert np.abs(correlation).max() < 5 / np.sqrt(len(u))


def test_numbers_lie_strictly_inside_the_unit_interval(monkeypatch):
    class Extreme:
        def __init__(self, key): ...
        def advance(self, n): ...
        def random_raw(self, n):
            return np.resize(np.array([0, 2**64 - 1], np.uint64), n)

    monkeypatch.setattr(np.random, "Philox", Extreme)
    u = uniforms(1, "edge", 0, 2, 4)
    assert 0 < u.min() < u.max() < 1


def test_the_numbers_are_fixed_for_ever():
    """Catalogs name rows and seeds, and replay draws from them: these numbers must not change with a version."""
    np.testing.assert_allclose(uniforms(1, "a", 5, 1, 3), GOLDEN, rtol=1e-15)
    assert torch_seed(1, "train", 7) == GOLDEN_SEED


@given(st.integers(-(2**63), 2**63), st.text(max_size=20))
def test_torch_seeds_fit_63_bits(seed, name):
    assert 0 <= torch_seed(seed, name) < 2**63


def test_names_of_a_stream_are_kept_apart():
    keys = [keyed_random.key(1, "train", 12), keyed_random.key(1, "train", 1, 2), keyed_random.key(11, "train", 2)]
    assert len(set(keys)) == 3
    assert all(0 <= k < 2**128 for k in keys)


def test_no_rows_is_an_empty_array():
    assert uniforms(1, "a", 3, 0, 5).shape == (0, 5)


@pytest.mark.parametrize("n_columns", [1, 4, 5])
def test_shape_and_dtype(n_columns):
    u = uniforms(1, "a", 0, 3, n_columns)
    assert u.shape == (3, n_columns)
    assert u.dtype == np.float64
