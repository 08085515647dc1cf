"""Densities of redshifts made of few weighted draws, against those that the draws are of."""

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import norm

from sedflow_dist.inference import redshift_density
from sedflow_dist.validation import photo_z

EDGES = np.linspace(0, 3, 301)
MIDDLE = (EDGES[1:] + EDGES[:-1]) / 2


def points(*peaks, n=64, each=8, seed=0):
    """Draws as inference has them: redshifts of equal probability, ``each`` draws with weights of their own at every one."""
    rng = np.random.default_rng(seed)
    level = (np.arange(n) + rng.random()) / n
    z = np.concatenate([mean + width * ndtri(level[i :: len(peaks)]) for i, (mean, width) in enumerate(peaks)])
    return np.repeat(z, each)[None], rng.gamma(2, size=n * each)[None]


@pytest.mark.parametrize("width", [0.02, 0.1, 0.3])
def test_one_peak_stays_as_wide_as_it_is(width):
    z, weight = points((1.2, width))
    found = redshift_density.in_bins(z, EDGES, weight)
    assert found.shape == (1, 300) and (found >= 0).all()
    assert (found * np.diff(EDGES)).sum() == pytest.approx(1, abs=1e-9)
    mean = (found[0] * MIDDLE).sum() / found[0].sum()
    spread = np.sqrt((found[0] * (MIDDLE - mean) ** 2).sum() / found[0].sum())
    assert mean == pytest.approx(1.2, abs=0.25 * width) and spread == pytest.approx(width, rel=0.25)


def test_the_loss_is_near_that_of_the_true_density():
    """CDE loss over 200 galaxies of width 0.05: within 8 % of the true density's, and better than that of a histogram."""
    rng = np.random.default_rng(1)
    truth = rng.uniform(0.5, 2.5, 200)
    seen = truth + 0.05 * rng.standard_normal(200)
    z, weight = (
        np.concatenate(x) for x in zip(*(points((mean, 0.05), seed=i) for i, mean in enumerate(seen)), strict=True)
    )
    weight /= weight.sum(1, keepdims=True)
    ideal = np.diff(norm.cdf(EDGES, seen[:, None], 0.05)) / np.diff(EDGES)
    losses = [
        photo_z.cde_loss(p, EDGES, truth)
        for p in (ideal, redshift_density.in_bins(z, EDGES, weight), photo_z.density(z, weight, EDGES))
    ]
    assert losses[0] == pytest.approx(-1 / (2 * np.sqrt(np.pi) * 0.05), rel=0.15)  # of 200 galaxies: 6 %
    assert losses[1] < 0.92 * losses[0] and losses[1] < losses[2]


def test_two_peaks_stay_two():
    z, weight = points((0.3, 0.02), (2.7, 0.05))
    found = redshift_density.in_bins(z, EDGES, weight)[0]
    assert found[(MIDDLE > 0.6) & (MIDDLE < 2.2)].max() < 1e-6
    low = (found * np.diff(EDGES))[MIDDLE < 1.5].sum()
    assert low == pytest.approx(weight[0][z[0] < 1.5].sum() / weight.sum(), abs=1e-6)


def test_one_redshift_is_one_bin_and_none_is_none():
    z = np.array([np.full(5, 0.505), np.full(5, np.nan), np.full(5, 7.0)])
    found = redshift_density.in_bins(z, EDGES)
    assert found[0, 50] == pytest.approx(100, rel=1e-6)
    assert np.isnan(found[1]).all()
    assert found[2].argmax() == 299  # beyond the bins


def test_peaks_are_counted_and_the_mode_is_the_highest():
    one, two = points((1.2, 0.05)), points((0.3, 0.03), (2.7, 0.08))
    known, none = np.full((1, 512), 0.4321), np.full((1, 512), np.nan)
    z = np.concatenate([one[0], two[0], known, none])
    weight = np.concatenate([one[1], two[1], np.ones((2, 512))])
    found = redshift_density.peaks(z, weight, (0.0, 3.2))
    assert found["redshift_peaks"].tolist() == [1, 2, 1, 0]
    mode, odds = found["redshift_mode"], found["redshift_odds"]
    assert mode[:2] == pytest.approx([1.2, 0.3], abs=0.05) and mode[2] == np.float32(0.4321) and np.isnan(mode[3])
    assert (
        odds[0] > 0.95 and odds[1] == pytest.approx(0.5, abs=0.1) and odds[2] == pytest.approx(1) and np.isnan(odds[3])
    )
    assert found["redshift_mode"].dtype == np.float32 and found["redshift_peaks"].dtype == np.uint8
