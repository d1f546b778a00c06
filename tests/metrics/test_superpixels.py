"""Quality of superpixels: hand-made answers, and brute force on random maps."""

import numpy as np
import pytest

from voxseg.metrics.superpixels import (
    boundary_recall,
    explained_variance,
    oracle_dice,
    oracle_label,
    undersegmentation_error,
)

SUPERPIXELS = np.array([[0, 0, 0, 1], [0, 2, 2, 1], [-1, 2, 3, 3]])
LABEL = np.array([[5, 5, 0, 7], [0, 7, 7, 0], [7, 0, 5, 5]])


def test_oracle_label_golden():
    # Superpixel 0: two 5 and two 0, the lower wins; 1: one 7 and one 0; 2: 7; 3: 5.
    expected = [[0, 0, 0, 0], [0, 7, 7, 0], [0, 7, 5, 5]]
    np.testing.assert_array_equal(oracle_label(SUPERPIXELS, LABEL), expected)


def test_oracle_dice_golden():
    # 5: two of four found, nothing wrong: 2 * 2 / (2 + 4). 7: two of four, one wrong: 4 / (3 + 4).
    assert oracle_dice(SUPERPIXELS, LABEL) == pytest.approx({5: 4 / 6, 7: 4 / 7})
    chosen = oracle_dice(SUPERPIXELS, LABEL, (7, 0))
    # 0: seven voxels, the outside one included, of which three are; and one of the truth is lost.
    assert chosen == pytest.approx({7: 4 / 7, 0: 2 * 3 / (7 + 4)})
    assert np.isnan(oracle_dice(SUPERPIXELS, LABEL, (9,))[9])


def test_oracle_dice_is_that_of_oracle_label(rng):
    superpixels = rng.integers(-1, 20, (7, 8, 9))
    superpixels[superpixels == 3] = 4  # an empty superpixel
    label = rng.integers(0, 4, (7, 8, 9)).astype(np.uint8)
    oracle = oracle_label(superpixels, label)
    assert oracle.dtype == label.dtype
    for value, score in oracle_dice(superpixels, label, range(4)).items():
        both = np.sum((oracle == value) & (label == value))
        assert score == pytest.approx(2 * both / (np.sum(oracle == value) + np.sum(label == value)))


def test_oracle_of_voxels_and_of_the_truth_is_perfect(rng):
    label = rng.integers(0, 3, (5, 6, 7))
    every = np.arange(label.size).reshape(label.shape)
    np.testing.assert_array_equal(oracle_label(every, label), label)
    assert oracle_dice(label, label) == {1: 1.0, 2: 1.0}
    assert undersegmentation_error(label, label) == 0
    assert boundary_recall(label, label, 0) == 1


def test_oracle_without_superpixels():
    nothing = np.full((2, 3), -1)
    label = np.array([[0, 1, 1], [0, 0, 2]])
    np.testing.assert_array_equal(oracle_label(nothing, label), np.zeros((2, 3)))
    assert oracle_dice(nothing, label) == {1: 0.0, 2: 0.0}
    assert np.isnan(undersegmentation_error(nothing, label))


def test_explained_variance_golden():
    image = np.array([[1.0, 3.0], [5.0, 7.0]])
    # Mean 4, variance 5; within the rows 1.
    assert explained_variance(image, np.array([[0, 0], [1, 1]])) == pytest.approx(1 - 1 / 5)
    assert explained_variance(image, np.zeros((2, 2), int)) == pytest.approx(0)
    assert explained_variance(image, np.arange(4).reshape(2, 2)) == pytest.approx(1)
    assert np.isnan(explained_variance(np.ones((2, 2)), np.zeros((2, 2), int)))


def test_explained_variance_channels_and_outside(rng):
    superpixels = rng.integers(-1, 5, (6, 7))
    image = rng.standard_normal((3, 6, 7)).astype(np.float32)
    inside = superpixels >= 0
    within = total = 0.0
    for channel in image:
        total += channel[inside].var() * inside.sum()
        for k in range(5):
            values = channel[superpixels == k]
            within += values.var() * values.size
    assert explained_variance(image, superpixels) == pytest.approx(1 - within / total, rel=1e-5)


def test_undersegmentation_error_golden():
    superpixels = np.array([[0, 0, 0, 0, 1, 1, 1, 1]])
    label = np.array([[0, 0, 0, 1, 1, 1, 1, 1]])
    # Superpixel 0 has three voxels of class 0 and one of class 1: one leaks, seen from both sides.
    assert undersegmentation_error(superpixels, label) == pytest.approx(2 / 8)


def test_boundary_recall_golden():
    label = np.array([[0, 0, 0, 1, 1, 1, 1, 1]])
    superpixels = np.array([[0, 0, 0, 0, 0, 1, 1, 1]])
    # The truth's boundary is voxels 2 and 3, that of the superpixels 4 and 5.
    assert boundary_recall(superpixels, label, 0) == 0
    assert boundary_recall(superpixels, label, 1) == pytest.approx(1 / 2)
    assert boundary_recall(superpixels, label, 2) == 1
    assert np.isnan(boundary_recall(superpixels, np.zeros((1, 8), int)))


def test_superpixel_metrics_reject():
    with pytest.raises(TypeError, match="label must be integer"):
        oracle_dice(SUPERPIXELS, LABEL.astype(float))
    with pytest.raises(ValueError, match="same shape"):
        oracle_label(SUPERPIXELS, LABEL.T)
    with pytest.raises(ValueError, match="tolerance"):
        boundary_recall(SUPERPIXELS, LABEL, -1)
