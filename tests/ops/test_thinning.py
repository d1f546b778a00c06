"""Thinning against scikit-image's, and what it must never do."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label
from skimage.morphology import thin

from voxseg.ops.cpu.thinning import thin_mask

EIGHT = np.ones((3, 3))


@pytest.mark.parametrize("sigma", [0, 0.7, 1.5, 4])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_thin_matches_scikit_image(sigma, share, rng):
    noise = gaussian_filter(rng.standard_normal((43, 61)), sigma)
    mask = noise > np.quantile(noise, 1 - share)
    np.testing.assert_array_equal(thin_mask(mask), thin(mask))


def test_a_bar_becomes_its_middle_line():
    mask = np.zeros((9, 12), bool)
    mask[3:6, 2:10] = True
    thinned = thin_mask(mask)
    assert np.flatnonzero(thinned.any(axis=1)).tolist() == [4]
    assert thinned[4, 4:8].all()


def test_pieces_stay_whole_and_thin_is_thin(rng):
    mask = gaussian_filter(rng.standard_normal((50, 40)), 2) > 0
    thinned = thin_mask(mask)
    assert not (thinned & ~mask).any()
    pieces, count = label(mask, EIGHT)
    again, _ = label(thinned, EIGHT)
    assert count == len({(a, b) for a, b in zip(pieces[thinned], again[thinned], strict=True)})
    np.testing.assert_array_equal(thin_mask(thinned), thinned)


def test_the_edge_of_the_image_is_no_mask():
    np.testing.assert_array_equal(thin_mask(np.ones((1, 1), bool)), [[True]])
    np.testing.assert_array_equal(thin_mask(np.ones((1, 6), bool)), np.ones((1, 6), bool))
    assert not thin_mask(np.zeros((4, 0), bool)).any()
    mask = np.ones((5, 7), bool)
    np.testing.assert_array_equal(thin_mask(mask), thin(mask))


def test_the_mask_is_left_alone():
    mask = np.ones((6, 5), bool)
    thin_mask(mask)
    assert mask.all()
