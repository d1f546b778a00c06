"""Resampling keeps the box of the world; classes come back without holding them all."""

import numpy as np
import pytest
import scipy.ndimage
import torch

from voxseg.data import resample
from voxseg.data.resample import argmax_on_grid, resample_image, resample_label


def centres(size, length):
    """World positions of ``size`` voxel centres in a box from 0 to ``length``."""
    return (np.arange(size) + 0.5) * length / size


def plane(shape, box=(7.0, 5.0, 6.0)):
    """Return a function that is linear in the world, sampled on a grid over ``box``."""
    x, y, z = np.meshgrid(*map(centres, shape, box), indexing="ij")
    return (2 * x - 3 * y + 0.5 * z + 1).astype(np.float32)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("shape", [(28, 18, 22), (10, 14, 12), (14, 22, 9)], ids=str)
def test_resample_image_keeps_world_positions(order, shape):
    result = resample_image(plane((14, 16, 18)), shape, order)
    inner = tuple(slice(n // 3, n - n // 3) for n in shape)
    np.testing.assert_allclose(result[inner], plane(shape)[inner], atol=2e-5)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous


def test_resample_image_matches_scipy_and_torch(rng):
    image = rng.random((7, 5, 6), dtype=np.float32)
    expected = scipy.ndimage.zoom(
        image, (9 / 7, 11 / 5, 1), order=1, grid_mode=True, mode="nearest"
    )
    np.testing.assert_allclose(resample_image(image, (9, 11, 6)), expected, atol=1e-6)
    tensor = torch.from_numpy(image)[None]
    for shape in ((10, 6), (5, 4)):
        theirs = torch.nn.functional.interpolate(tensor, shape, mode="bilinear", antialias=True)
        for ours, slab in zip(image, theirs[0].numpy(), strict=True):
            # Beyond the border PyTorch drops taps where voxseg repeats the outermost voxel, and
            # it leaves the centre of mass of a widened kernel where sampling moved it.
            inner = (slice(1, -1), slice(1, -1))
            np.testing.assert_allclose(resample_image(ours, shape)[inner], slab[inner], atol=0.02)


def test_resample_image_does_not_alias():
    stripes = np.tile([0.0, 1.0], 12)[:, None] * np.ones((24, 3))
    thin = resample_image(stripes, (7, 3))
    assert np.ptp(thin[1:-1]) < 0.2  # without a wider kernel, the stripes come back as others
    np.testing.assert_allclose(thin.mean(), 0.5, atol=0.05)


@pytest.mark.parametrize("order", [1, 3])
def test_resample_image_keeps_constants_and_equal_shapes(order, rng):
    constant = np.full((5, 1, 7), 3.25)
    np.testing.assert_allclose(resample_image(constant, (8, 3, 4), order), 3.25, rtol=1e-6)
    image = rng.random((5, 6, 7), dtype=np.float32)
    np.testing.assert_array_equal(resample_image(image, (5, 6, 7), order), image)


def test_there_and_back_recovers_a_smooth_image():
    shape = (21, 18, 23)
    x, y, z = np.meshgrid(*[np.linspace(0, 2 * np.pi, n) for n in shape], indexing="ij")
    image = (np.sin(x) * np.cos(y) + np.cos(z)).astype(np.float32)
    for order, tolerance in ((1, 0.12), (3, 0.05)):
        back = resample_image(resample_image(image, (29, 27, 31), order), shape, order)
        np.testing.assert_allclose(back, image, atol=tolerance)


def test_resample_label_takes_the_nearest_voxel(rng):
    label = rng.integers(0, 5, (5, 6, 7)).astype(np.int16)
    thrice = resample_label(label, (15, 18, 21))
    np.testing.assert_array_equal(thrice, label.repeat(3, 0).repeat(3, 1).repeat(3, 2))
    np.testing.assert_array_equal(resample_label(thrice, (5, 6, 7)), label)
    sizes = zip((5, 6, 7), (4, 3, 9), strict=True)
    nearest = [np.floor((np.arange(m) + 0.5) * n / m).astype(int) for n, m in sizes]
    fewer = resample_label(label, (4, 3, 9))
    np.testing.assert_array_equal(fewer, label[np.ix_(*nearest)], strict=True)


def reference_argmax(scores, box, working, target):
    """Interpolate every class at full size, then compare: what argmax_on_grid must equal."""
    margins = [(start, size - stop) for (start, stop), size in zip(box, working, strict=True)]
    padded = np.pad(scores, [(0, 0), *margins], mode="edge")
    label = np.stack([resample_image(one, target) for one in padded]).argmax(0)
    for axis, ((start, stop), size, goal) in enumerate(zip(box, working, target, strict=True)):
        position = (np.arange(goal) + 0.5) * size / goal
        outside = (position < start) | (position >= stop)
        label[(slice(None),) * axis + (outside,)] = 0
    return label


@pytest.mark.parametrize("target", [(9, 14, 11), (4, 5, 6), (8, 7, 20), (10, 9, 8)], ids=str)
@pytest.mark.parametrize("slab_bytes", [1, 700, 2**24])
def test_argmax_on_grid_matches_reference(target, slab_bytes, rng, monkeypatch):
    monkeypatch.setattr(resample, "_SLAB_BYTES", slab_bytes)
    working, box = (10, 9, 8), ((1, 8), (0, 9), (3, 7))
    scores = rng.random((4, 7, 9, 4), dtype=np.float32)
    label = argmax_on_grid(scores, box, working, target)
    np.testing.assert_array_equal(label, reference_argmax(scores, box, working, target))
    assert label.dtype == np.uint8
    assert len(np.unique(label)) == 4


def test_argmax_on_grid_puts_a_shape_back_where_it_was():
    truth = np.zeros((20, 24, 22), int)
    truth[4:12, 6:18, 8:20] = 1
    truth[8:12, 12:18, 8:14] = 2
    working = (30, 18, 33)
    scores = np.stack([resample_image((truth == c).astype(float), working) for c in range(3)])
    box = ((3, 27), (2, 17), (9, 33))
    cut = scores[:, 3:27, 2:17, 9:33]
    back = argmax_on_grid(cut, box, working, truth.shape)
    assert (back != truth).mean() < 0.01  # corners get rounder; a shift of a voxel would be 0.08
    for c in (1, 2):
        np.testing.assert_allclose(
            np.argwhere(back == c).mean(0), np.argwhere(truth == c).mean(0), atol=0.1
        )


def test_argmax_on_grid_ties_types_and_empty_boxes():
    even = np.ones((3, 4, 5, 6), np.float16)
    box = ((0, 4), (0, 5), (0, 6))
    np.testing.assert_array_equal(argmax_on_grid(even, box, (4, 5, 6), (7, 8, 9)), 0)
    many = np.zeros((300, 1, 2, 1), np.float32)
    many[299] = 1
    label = argmax_on_grid(many, ((0, 1), (0, 2), (0, 1)), (1, 2, 1), (2, 2, 2))
    np.testing.assert_array_equal(label, np.full((2, 2, 2), 299, np.int32), strict=True)
    thin = argmax_on_grid(even[:, :1], ((0, 1), (0, 5), (0, 6)), (9, 5, 6), (2, 5, 6))
    np.testing.assert_array_equal(thin, 0)  # no centre of a target voxel lies in the box


def test_argmax_on_grid_holds_one_class_at_a_time():
    import tracemalloc

    scores = np.random.default_rng(0).random((12, 24, 25, 26), dtype=np.float32)
    target = (96, 100, 104)
    full = int(np.prod(target))
    tracemalloc.start()
    argmax_on_grid(scores, ((0, 24), (0, 25), (0, 26)), (24, 25, 26), target)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * 12 * 4 * full  # all classes at full size, half once


def test_resampling_rejects_wrong_shapes():
    image = np.zeros((4, 5, 6))
    with pytest.raises(ValueError, match="3 positive sizes"):
        resample_image(image, (4, 5))
    with pytest.raises(ValueError, match="3 positive sizes"):
        resample_label(image, (4, 5, 0))
    with pytest.raises(ValueError, match="order must be 1"):
        resample_image(image, (8, 5, 6), order=2)
    with pytest.raises(ValueError, match="does not have the size"):
        argmax_on_grid(image[None], ((0, 3), (0, 5), (0, 6)), (4, 5, 6), (4, 5, 6))
