"""enforce_connectivity and renumber: components, merging, and the order of labels."""

import numpy as np
import pytest
from scipy import ndimage

from voxseg.ops import enforce_connectivity
from voxseg.ops.reference import slic as reference
from voxseg.ops.slic import renumber

SHAPES = [(1, 1, 1), (1, 37, 41), (7, 11, 13), (40, 3, 1), (3, 1, 50), (30, 90, 11)]


@pytest.mark.parametrize("min_voxels", [0, 1, 2, 7.5, 60, 1e9])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_enforce_connectivity_matches_reference(shape, min_voxels, rng):
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), 1.5)
    labels = np.digitize(smooth, np.quantile(smooth, [0.2, 0.4, 0.6, 0.8])) - 1
    expected, _ = reference.merge_small(labels.astype(np.int32), min_voxels)
    np.testing.assert_array_equal(enforce_connectivity(labels, min_voxels=min_voxels), expected)


@pytest.mark.parametrize("min_voxels", [0, 2, 9])
def test_enforce_connectivity_of_noise(min_voxels, rng):
    # Nearly every voxel is a component: the most merging there can be.
    labels = rng.integers(-1, 4, (9, 12, 11)).astype(np.int32)
    expected, _ = reference.merge_small(labels, min_voxels)
    np.testing.assert_array_equal(enforce_connectivity(labels, min_voxels=min_voxels), expected)


def test_enforce_connectivity_across_slabs(rng):
    # Lines are shared out in slabs of 1024; components that cross many of them come together.
    labels = np.zeros((1, 5000, 3), np.int32)
    labels[0, :, 1] = 1
    labels[0, 4999, 1] = 0
    expected = labels.copy()
    np.testing.assert_array_equal(enforce_connectivity(labels), expected)
    volume = np.zeros((90, 40, 5), np.int32)
    volume[:, 20:, :] = 1
    volume[45, 20:, 2] = 0
    np.testing.assert_array_equal(enforce_connectivity(volume), volume)


def test_enforce_connectivity_golden():
    # The 7 touches 0 on one side and 5 on three; the lone 5 at the end touches nothing but 9.
    labels = np.array([[0, 0, 0, 5, 5], [0, 0, 7, 5, 5], [0, 0, 5, 5, 9], [-3, -3, -3, 9, 5]])
    split = enforce_connectivity(labels)
    expected = [[0, 0, 0, 1, 1], [0, 0, 2, 1, 1], [0, 0, 1, 1, 3], [-1, -1, -1, 4, 5]]
    np.testing.assert_array_equal(split, expected)
    merged = enforce_connectivity(labels, min_voxels=2)
    # Component 2 has two faces with 0 and two with 1: the earlier of the larger ones gets it.
    # Voxel 3 goes to 1; voxel 4 has one face with each of 1 and 5, and 1 is the larger; voxel 5
    # has one with 3 and one with 4, joins 3, and goes with it.
    expected = [[0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [0, 0, 1, 1, 1], [-1, -1, -1, 1, 1]]
    np.testing.assert_array_equal(merged, expected)


def test_enforce_connectivity_keeps_its_input(rng):
    labels = rng.integers(0, 3, (5, 6)).astype(np.int32)
    before = labels.copy()
    enforce_connectivity(labels, min_voxels=4)
    np.testing.assert_array_equal(labels, before)


def test_enforce_connectivity_rejects():
    with pytest.raises(TypeError, match="integer"):
        enforce_connectivity(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="axes"):
        enforce_connectivity(np.zeros((3,), int))
    assert enforce_connectivity(np.zeros((0, 4), int)).shape == (0, 4)


def test_renumber_golden():
    labels = np.array([[9, 9, -4], [3, 9, 0]], np.int32)
    assert renumber(labels) == 3
    np.testing.assert_array_equal(labels, [[0, 0, -1], [1, 0, 2]])
    large = np.array([[-7, 2_000_000_000], [5, -1]], np.int32)
    assert renumber(large) == 2
    np.testing.assert_array_equal(large, [[-1, 0], [1, -1]])
    nothing = np.full((2, 2), -1, np.int32)
    assert renumber(nothing) == 0
