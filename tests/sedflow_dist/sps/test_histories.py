"""Basis functions of the histories: against the reference's knots and integrals, and against the published tables."""

import os
from pathlib import Path

import numpy as np
import pytest
import reference_galaxy

from sedflow_dist.sps import histories

TIMES = np.concatenate([[0.0, 1e-3, 0.067], np.linspace(0.1, 13.9, 200)])
NMF = os.environ.get("SEDFLOW_PROVABGS_NMF")


def test_sfh_basis_is_the_references():
    expected = np.stack([np.maximum(curve(TIMES), 0) for curve in reference_galaxy.SFH_BASIS], axis=-1)
    np.testing.assert_allclose(histories.sfh_basis(TIMES), expected, atol=1e-12)


def test_metallicity_basis_is_the_references():
    expected = np.stack([np.maximum(curve(TIMES), 0) for curve in reference_galaxy.METALLICITY_BASIS], axis=-1)
    np.testing.assert_allclose(histories.metallicity_basis(TIMES), expected, atol=1e-12)


def test_bases_are_nowhere_negative():
    times = np.linspace(0, 14, 20_001)
    assert histories.sfh_basis(times).min() >= 0
    assert histories.metallicity_basis(times).min() >= 0


@pytest.mark.parametrize("i", range(4))
def test_cumulative_integrals_are_exact(i):
    weights = {f"beta{j}": float(j == i + 1) for j in range(1, 5)}
    times = [0.0, 1e-4, 0.03, 0.067, 0.5, 1.0, 3.3, 6.156, 7.539, 9.99, 11.22, 13.628, 13.8]
    found = histories.sfh_cumulative(np.array(times))[:, i]
    expected = [reference_galaxy.smooth_mass(weights, 0.0, t) for t in times]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_cumulative_integrals_increase_to_one():
    """One unit of mass from 0.067 Gyr on, where the published tables begin; the first basis forms 1.7 % more before."""
    cumulative = histories.sfh_cumulative(np.linspace(0, 14, 5001))
    assert np.diff(cumulative, axis=0).min() >= 0
    start, end = histories.sfh_cumulative(np.array([0.067, 13.628]))
    np.testing.assert_allclose(end - start, 1, atol=2e-3)


@pytest.mark.parametrize("t", [-1e-9, 14.01])
def test_times_outside_the_table_are_refused(t):
    with pytest.raises(ValueError, match=r"lookback times must lie in \[0, 14\.0\] Gyr"):
        histories.sfh_cumulative(np.array([1.0, t]))


def test_bin_edges_are_those_of_provabgs():
    assert len(histories.BIN_EDGES_GYR) == 42
    assert histories.BIN_EDGES_GYR[0] == 0
    np.testing.assert_allclose(np.log10(histories.BIN_EDGES_GYR[1:] * 1e9), 6.05 + 0.1 * np.arange(41))


@pytest.mark.skipif(not NMF, reason="SEDFLOW_PROVABGS_NMF names no folder with PROVABGS's published tables")
@pytest.mark.parametrize(
    ("name", "basis"),
    [
        ("NMF_2basis_SFH_components_nowgt_lin_Nc4.txt", histories.sfh_basis),
        ("NMF_2basis_Z_components_nowgt_lin_Nc2.txt", histories.metallicity_basis),
    ],
)
def test_knots_reproduce_the_published_tables(name, basis):
    """To 1.1 % of each peak and 0.1 % of each integral. SFHs are normalised to 1, and in another order there."""
    folder = Path(NMF)
    time = np.loadtxt(folder / "sfh_t_int.txt")
    order = np.argsort(time)
    time, published = time[order], np.loadtxt(folder / name)[:, order]
    found = basis(time).T
    if basis is histories.sfh_basis:
        published = published / np.trapezoid(published, time, axis=1)[:, None]
    distance = np.abs(found[:, None] - published).max(axis=-1)
    partner = distance.argmin(axis=1)
    assert sorted(partner) == list(range(len(published)))
    published = published[partner]
    assert (np.abs(found - published) <= 0.0111 * published.max(axis=1, keepdims=True)).all()
    np.testing.assert_allclose(np.trapezoid(found, time), np.trapezoid(published, time), rtol=1e-3)
