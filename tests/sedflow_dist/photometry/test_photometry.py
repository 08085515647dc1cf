"""One observation in one shape: made of anything, taken by rows and bands, with redshifts that may be unknown or uncertain."""

import numpy as np
import pytest
import torch

from sedflow_dist.photometry.photometry import Photometry

FLUX = np.array([[1.0, 2.0, 3.0], [4.0, -5.0, np.nan], [7.0, 8.0, 9.0], [1.0, 1.0, np.inf]])
SIGMA = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.0, -0.8, np.nan], [0.1, np.inf, 0.1]])
GOOD = [[True, True, True], [True, True, False], [False, False, False], [True, False, False]]


@pytest.fixture
def photometry():
    return Photometry.of(FLUX, SIGMA, [0.1, np.nan, 0.3, 0.4], redshift_sigma=[0.0, np.nan, 0.02, 0.0])


def same(found, expected):
    for name, values in expected.arrays().items():
        np.testing.assert_array_equal(found.arrays()[name], values, err_msg=name)


def test_what_is_not_measured_is_zero_and_masked(photometry):
    assert photometry.mask.tolist() == GOOD
    assert photometry.flux[~photometry.mask].tolist() == photometry.sigma[~photometry.mask].tolist() == [0] * 6
    assert photometry.n_bands.tolist() == [3, 2, 0, 1]
    assert photometry.flux[1].tolist() == [4, -5, 0]  # a negative flux is a measurement
    assert torch.isfinite(photometry.inverse_sigma).all() and (photometry.inverse_sigma[~photometry.mask] == 0).all()
    torch.testing.assert_close(photometry.signal_to_noise[1], torch.tensor([10.0, -10.0, np.nan]), equal_nan=True)


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f8", np.float32])
def test_any_numbers_make_it(photometry, dtype):
    """FITS columns are big-endian, columns of a table not contiguous; a galaxy alone needs no brackets."""
    flux, sigma = np.asfortranarray(FLUX.astype(dtype)), SIGMA.astype(dtype)[::-1][::-1]
    found = Photometry.of(flux, sigma, photometry.redshift, redshift_sigma=photometry.redshift_sigma)
    same(found, photometry)
    assert found.flux.dtype == found.sigma.dtype == found.redshift.dtype == torch.float32
    same(Photometry.of(FLUX[0].tolist(), SIGMA[0], redshift=0.1), photometry[0])


@pytest.mark.parametrize(
    "rows",
    [[2, 0], np.array([2, 0]), np.arange(4)[::-1], slice(1, 3), np.array([True, False, True, False]), [], np.array([], int),
     torch.tensor([3]), torch.tensor([False, True, True, False]), [True, False, False, True]],
)  # fmt: skip
def test_rows_are_taken_as_numpy_takes_them(photometry, rows):
    found, index = (
        photometry[rows],
        np.asarray(rows if len(rows) else np.zeros(0, int)) if not isinstance(rows, slice) else rows,
    )
    for name, values in photometry.arrays().items():
        np.testing.assert_array_equal(found.arrays()[name], values[index], err_msg=name)
    assert len(found) == len(np.arange(4)[index])


def test_one_galaxy_is_a_block_of_one(photometry):
    same(photometry[2], photometry[2:3])
    same(photometry[-1], photometry[3:])
    same(photometry[np.int64(1)], photometry[1:2])


def test_blocks_join_in_their_order(photometry):
    same(Photometry.concatenate([photometry[:1], photometry[1:3], photometry[[3]]]), photometry)


def test_bands_that_are_taken_away_leave_nothing_behind(photometry):
    """Zeros without a sign: a store of them is the same bytes whatever was there."""
    found = photometry.with_bands(torch.tensor([True, False, True]))
    assert found.mask.tolist() == [[a, False, c] for a, _, c in GOOD]
    assert found.flux[1].numpy().tobytes() == np.float32([4, 0, 0]).tobytes()
    each = photometry.with_bands(torch.tensor(GOOD)[[3, 3, 3, 3]])
    assert each.mask[:, 1:].any() == False and each.mask[0, 0]  # noqa: E712
    narrow = photometry.bands(torch.tensor([True, False, True]))
    assert narrow.flux.shape == (4, 2) and narrow.mask[0].all()
    assert photometry.mask.tolist() == GOOD  # as it was


def test_redshifts_may_be_unknown_or_uncertain(photometry):
    assert photometry.has_exact_redshift.tolist() == [True, False, False, True]
    none = Photometry.of(FLUX, SIGMA)
    assert none.redshift.isnan().all() and none.redshift_sigma.isnan().all() and not none.has_exact_redshift.any()
    one = Photometry.of(FLUX, SIGMA, redshift=0.2)
    assert one.redshift.tolist() == [pytest.approx(0.2)] * 4 and one.has_exact_redshift.all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": SIGMA[:, :2]}, r"flux has shape \(4, 3\) and sigma \(4, 2\)"),
        ({"mask": np.ones((4, 2), bool)}, r"mask has shape \(4, 2\) and flux \(4, 3\)"),
        ({"redshift": [0.1, 0.2]}, r"redshift has shape \(2,\) for 4 galaxies"),
        ({"redshift_sigma": [0.1] * 3}, r"redshift_sigma has shape \(3,\) for 4 galaxies"),
        ({"flux": FLUX[None], "sigma": SIGMA[None]}, r"expected \(galaxy, band\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Photometry.of(**{"flux": FLUX, "sigma": SIGMA, **arguments})


def test_a_device_keeps_it(photometry):
    same(photometry.to("cpu"), photometry)
    assert photometry.to("meta").flux.device.type == "meta"
