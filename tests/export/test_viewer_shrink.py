"""What a page's volumes lose: never their place."""

import numpy as np
import pytest

from voxseg.export.viewer_shrink import (
    Greys,
    body_box,
    fewer,
    grey_range,
    moved_affine,
    thinned,
    thinned_affine,
    to_bytes,
    told_apart,
)

AFFINE = np.array([[1.9, 0.3, 0, -20], [-0.2, 1.1, 0.1, 7], [0, 0.2, 3.1, 40], [0, 0, 0, 1.0]])


def test_box_holds_the_body_the_mask_and_a_margin():
    image = np.zeros((80, 90, 100), np.float32)
    image[30:40, 20:60, 50:70] = 100
    image[79, 89, 99] = 100  # a spark in the air is no body
    mask = np.zeros(image.shape, np.uint8)
    mask[45, 30, 60] = 1
    assert body_box(image, [mask], (1, 2, 5)) == (slice(20, 56), slice(15, 65), slice(48, 72))
    assert body_box(image[28:42, 18:62, 48:72], [], (1, 2, 5)) == (
        slice(0, 14), slice(0, 44), slice(0, 24),
    )  # fmt: skip
    assert body_box(None, [mask], (1, 2, 5)) == (slice(35, 56), slice(25, 36), slice(58, 63))
    assert body_box(None, [mask * 0], (1, 1, 1))[0] == slice(0, 80)


def test_few_whole_numbers_are_kept_exactly():
    image = np.array([[[-3.0, 0.0, 250.0]]], np.float32)
    greys = grey_range(image, None)
    assert greys.is_exact
    assert (to_bytes(image, greys) * greys.step + greys.low).tolist() == image.tolist()


def test_intensities_are_off_by_half_a_step_at_most(rng):
    image = rng.normal(500, 200, (20, 21, 22)).astype(np.float32)
    image[0, 0, 0] = 1e6
    greys = grey_range(image, None)
    assert not greys.is_exact
    assert greys.high < 2000
    kept = np.clip(image, greys.low, greys.high)
    back = to_bytes(image, greys) * greys.step + greys.low
    assert np.abs(back - kept).max() <= 0.51 * greys.step
    assert grey_range(image, (-5, 80)) == Greys(-5, 80)
    flat = grey_range(np.full((3, 4, 5), 0.5, np.float32), None)
    assert flat.high > flat.low


def test_the_finest_axes_are_thinned_first():
    assert fewer(1.5, (1, 1, 3), (1, 1, 1)) == (2, 1, 1)
    assert fewer(3, (1, 1, 3), (1, 1, 1)) == (2, 2, 1)
    assert fewer(1.01, (1, 1, 3), (2, 2, 1)) == (3, 2, 1)
    assert fewer(0.5, (1, 1, 3), (2, 2, 1)) == (3, 2, 1)  # at least one step


@pytest.mark.parametrize("factors", [(1, 1, 1), (2, 1, 3), (4, 5, 2)], ids=str)
def test_thinned_voxels_stay_where_they_are(factors, rng):
    labels = rng.integers(0, 200, (15, 18, 12)).astype(np.uint8)
    few = thinned(labels, factors, is_smooth=False)
    affine = thinned_affine(AFFINE, labels.shape, factors)
    for voxel in np.ndindex(few.shape):
        place = np.linalg.solve(AFFINE, affine @ [*voxel, 1])[:3]
        np.testing.assert_allclose(place, np.rint(place), atol=1e-9)
        assert few[voxel] == labels[tuple(np.rint(place).astype(int))]


def test_smoothing_moves_nothing():
    grid = np.zeros((31, 31, 31), np.uint8)
    grid[15, 15, 15] = 255
    few = thinned(grid, (3, 3, 3), is_smooth=True).astype(float)
    affine = thinned_affine(np.eye(4), grid.shape, (3, 3, 3))
    places = np.argwhere(few > 0) @ affine[:3, :3].T + affine[:3, 3]
    centre = (places * few[few > 0][:, None]).sum(0) / few.sum()
    np.testing.assert_allclose(centre, [15, 15, 15], atol=1e-6)
    step = np.zeros((30, 30, 30), np.uint8)
    step[15:] = 200
    half = thinned(step, (2, 2, 2), is_smooth=True)[:, 5, 5]
    assert half[0] == 0
    assert half[-1] == 200


def test_a_crop_keeps_its_place():
    moved = moved_affine(AFFINE, (3, 4, 5))
    np.testing.assert_allclose(moved @ [1, 2, 3, 1], AFFINE @ [4, 6, 8, 1])


def test_neighbouring_regions_differ(rng):
    regions = np.repeat(np.repeat(rng.permutation(6 * 7 * 5).reshape(6, 7, 5), 3, 0), 2, 1)
    regions = regions * 1000  # sparse numbers
    regions[:4, :4] = -1
    numbers = told_apart(regions)
    assert (numbers[regions < 0] == 0).all()
    assert (numbers[regions >= 0] > 0).all()
    assert numbers.max() < 12
    for axis in range(3):
        one, other = (np.moveaxis(a, axis, 0) for a in (regions, numbers))
        borders = one[1:] != one[:-1]
        assert ((other[1:] != other[:-1]) == borders).all()
