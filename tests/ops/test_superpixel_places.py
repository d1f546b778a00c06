"""Centroids and sizes of superpixels, against SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from voxseg.ops.superpixel_places import superpixel_places

COUNT = 12
MAP = torch.zeros(1, 2, 2, dtype=torch.int32)


def by_scipy(labels, count, spacing):
    """(K, D + 1): centroids from the box's centre in mm, and volumes."""
    inside = np.argwhere(labels >= 0)
    expected = np.zeros((count, labels.ndim + 1))
    if not len(inside):
        return expected
    middle = (inside.min(0) + inside.max(0)) / 2
    for k in range(count):
        size = (labels == k).sum()
        if size:
            at = np.array(ndimage.center_of_mass(labels == k))
            expected[k] = [*((at - middle) * spacing), size * np.prod(spacing)]
    return expected


@pytest.mark.parametrize("size", [(9, 7, 11), (6, 5), (13,), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.int16])
def test_matches_scipy(size, dtype):
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, COUNT - 2, (3, *size))  # the last numbers have no voxel
    labels[:, :2] = -1  # so that the box is not the whole image
    labels[2] = -1
    spacing = (0.9, 1.5, 2.0)[: len(size)]
    found = superpixel_places(torch.from_numpy(labels).to(dtype), COUNT, spacing)
    assert found.shape == (3, COUNT, len(size) + 1)
    assert found.dtype == torch.float32
    for one, label in zip(found.numpy(), labels, strict=True):
        np.testing.assert_allclose(one, by_scipy(label, COUNT, spacing), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spacing_may_be_a_tensor(dtype):
    labels = torch.from_numpy(np.random.default_rng(3).integers(-1, COUNT, (2, 7, 6, 5)))
    spacing = (0.9, 1.5, 2.25)
    found = superpixel_places(labels, COUNT, torch.tensor(spacing, dtype=dtype))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, superpixel_places(labels, COUNT, spacing))


def test_voxels_have_one_mm_where_nothing_is_said():
    labels = torch.arange(8).view(1, 2, 2, 2)
    found = superpixel_places(labels, 8)
    assert found[0, 0].tolist() == [-0.5, -0.5, -0.5, 1.0]
    assert found[0, 7].tolist() == [0.5, 0.5, 0.5, 1.0]


def test_mirrored_labels_have_mirrored_places():
    labels = torch.from_numpy(np.random.default_rng(1).integers(-1, COUNT, (1, 7, 6, 5)))
    places, mirrored = superpixel_places(labels, COUNT), superpixel_places(labels.flip(2), COUNT)
    expected = places.clone()
    expected[..., 1] *= -1
    torch.testing.assert_close(mirrored, expected)


def test_a_slice_of_memory_is_read_right():
    labels = torch.from_numpy(np.random.default_rng(2).integers(-1, COUNT, (2, 8, 6, 10)))
    strided = labels[:, ::2, :, 1:].transpose(1, 3)
    torch.testing.assert_close(
        superpixel_places(strided, COUNT), superpixel_places(strided.contiguous(), COUNT)
    )


def test_far_from_the_corner_no_digit_is_lost():
    labels = torch.full((1, 3000, 2, 2), -1)
    labels[0, 1000:] = 0
    labels[0, 2999] = 1
    found = superpixel_places(labels, 2, (0.1, 1.0, 1.0))
    assert found[0, 1, 0].item() == pytest.approx(99.95, abs=1e-4)


@pytest.mark.parametrize(
    ("labels", "count", "spacing", "error", "message"),
    [
        (torch.zeros(1, 2, 2), 1, None, TypeError, "integer"),
        (torch.zeros(1, 2, 2, 2, 2, dtype=torch.int32), 1, None, ValueError, "spatial axes"),
        (torch.zeros(1, dtype=torch.int32), 1, None, ValueError, "spatial axes"),
        (MAP, 1, (1.0,), ValueError, "2 positive numbers"),
        (MAP, 1, (1.0, 0.0), ValueError, "positive numbers"),
        (MAP, 1, (1.0, math.nan), ValueError, "positive numbers"),
        (MAP, 1, torch.ones(3), ValueError, "2 positive numbers"),
        (MAP, 1, torch.ones(2, 2), ValueError, "2 positive numbers"),
        (MAP, 1, torch.tensor(1.0), ValueError, "2 positive numbers"),
        (MAP, 1, torch.tensor([-1.0, 1.0]), ValueError, "positive numbers"),
    ],
    ids=["floats", "four axes", "none", "spacing", "zero", "nan", "three", "table", "number",
         "negative"],
)  # fmt: skip
def test_bad_input(labels, count, spacing, error, message):
    with pytest.raises(error, match=message):
        superpixel_places(labels, count, spacing)
