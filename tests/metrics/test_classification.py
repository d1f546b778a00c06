"""Top-1, top-5 and confusion against cases counted by hand."""

import math

import numpy as np
import pytest

from voxseg.metrics.classification import ClassCounts, count_classes

# Seven classes; six names of each of five photographs.
NAMED = np.array(
    [
        [0, 1, 2, 3, 4, 5],  # 0: the first
        [1, 0, 2, 3, 4, 5],  # 0: the second
        [1, 2, 3, 4, 5, 0],  # 0: the sixth, which is too late
        [6, 1, 2, 3, 4, 5],  # 4: the fifth
        [4, 1, 2, 3, 0, 5],  # 4: the first
    ]
)
TRUTH = np.array([0, 0, 0, 4, 4])


def test_counts_golden_by_hand():
    counts = count_classes(NAMED, TRUTH, 7)
    assert counts.total == 5
    assert counts.top1 == pytest.approx(2 / 5)
    assert counts.top5 == pytest.approx(4 / 5)
    expected = np.zeros((7, 7), int)
    expected[0, 0], expected[0, 1] = 1, 2
    expected[4, 6], expected[4, 4] = 1, 1
    np.testing.assert_array_equal(counts.confusion, expected)
    np.testing.assert_array_equal(counts.few, [2, 0, 0, 0, 2, 0, 0])
    nan = math.nan
    np.testing.assert_allclose(counts.class_accuracy, [1 / 3, nan, nan, nan, 1 / 2, nan, nan])
    np.testing.assert_allclose(counts.class_top5, [2 / 3, nan, nan, nan, 1, nan, nan])
    assert counts.class_mean == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_counts_add_up():
    whole = count_classes(NAMED, TRUTH, 7)
    parts = count_classes(NAMED[:2], TRUTH[:2], 7) + count_classes(NAMED[2:], TRUTH[2:], 7)
    np.testing.assert_array_equal(parts.confusion, whole.confusion)
    np.testing.assert_array_equal(parts.few, whole.few)


def test_with_one_name_the_first_is_all_there_is():
    counts = count_classes(np.array([[1], [0]]), np.array([1, 1]), 2)
    assert counts.top1 == counts.top5 == 0.5


def test_of_no_photographs_nothing_is_known():
    counts = count_classes(np.zeros((0, 3), int), np.zeros(0, int), 4)
    assert counts.total == 0
    assert all(math.isnan(value) for value in (counts.top1, counts.top5, counts.class_mean))


@pytest.mark.parametrize(
    ("named", "truth", "said"),
    [
        (np.zeros((2, 3), int), np.zeros(3, int), "truth"),
        (np.zeros(2, int), np.zeros(2, int), "named"),
        (np.zeros((2, 0), int), np.zeros(2, int), "at least 1"),
        (np.array([[4]]), np.array([0]), "in \\[0, 4\\)"),
        (np.array([[0]]), np.array([-1]), "in \\[0, 4\\)"),
    ],
    ids=str,
)
def test_count_classes_rejects_what_does_not_fit(named, truth, said):
    with pytest.raises(ValueError, match=said):
        count_classes(named, truth, 4)


def test_counts_reject_other_shapes():
    with pytest.raises(ValueError, match=r"must be \(3, 3\)"):
        ClassCounts(np.zeros((2, 2), np.int64), np.zeros(3, np.int64))
