"""Boundary scores against the benchmark's formulas in plain loops, by hand, and on known maps."""

import numpy as np
import pytest

from voxseg.metrics.boundaries import (
    case_scores,
    evaluate_annotators,
    find_boundary_errors,
    scores,
)
from voxseg.metrics.boundary_counts import BoundaryCounts, evaluate_boundaries
from voxseg.metrics.suppression import suppress_non_maxima

SHAPE = (150, 200)  # the diagonal is 250: pixels match up to 1.875 apart


@pytest.fixture
def person():
    """A rectangle and a line, as one person drew them."""
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[40, 51:119] = drawn[90, 51:119] = 1  # no corners: thin as the benchmark's maps are
    drawn[41:90, 50] = drawn[41:90, 119] = 1
    drawn[120, 20:180] = 1
    return drawn


def counts_of(found, true, right, predicted, best=None):
    table = [np.array(one, np.int64) for one in (found, true, right, predicted)]
    thresholds = np.arange(1, len(found) + 1) / (len(found) + 1)
    best = np.array([one[0] for one in table]) if best is None else np.array(best)
    return BoundaryCounts(thresholds, *table, best)


def test_a_map_scores_1_against_itself(person):
    counts = evaluate_boundaries(person.astype(float), person[None])
    assert (counts.recall == 1).all()
    assert (counts.precision == 1).all()
    found = scores(counts)
    assert (found.ods, found.ois) == (1, 1)
    assert case_scores(counts, found.ods_threshold).f == 1


def test_an_empty_map_scores_0(person):
    found = scores(evaluate_boundaries(np.zeros(SHAPE), person[None]))
    assert (found.ods, found.ois, found.ap) == (0, 0, 0)


def test_no_true_boundary_scores_0(person):
    found = scores(evaluate_boundaries(person.astype(float), np.zeros((1, *SHAPE))))
    assert (found.ods, found.ois, found.ap) == (0, 0, 0)


def test_a_shift_within_the_tolerance_scores_1(person):
    near = evaluate_boundaries(np.roll(person, 1, 1).astype(float), person[None])
    assert scores(near).ods == 1
    far = evaluate_boundaries(np.roll(person, (2, 2), (0, 1)).astype(float), person[None])
    assert scores(far).ods < 0.2


def test_thick_lines_are_thinned(person):
    thick = np.zeros(SHAPE)
    thick[119:122, 20:180] = 1
    truth = np.zeros((1, *SHAPE))
    truth[0, 120, 20:180] = 1
    counts = evaluate_boundaries(thick, truth)
    assert counts.predicted[0] < 165  # of 480
    assert scores(counts).ods > 0.98


def test_counts_by_hand_for_two_people():
    """Three lines; the first is drawn by both people, the second by one, the third by none."""
    strength = np.zeros(SHAPE)
    strength[20, 10:110], strength[60, 10:60], strength[100, 10:50] = 0.9, 0.5, 0.2
    people = np.zeros((2, *SHAPE))
    people[:, 20, 10:110] = people[1, 60, 10:60] = 1
    people[0, 140, 10:40] = 1  # missed
    counts = evaluate_boundaries(strength, people, num_thresholds=3)
    assert counts.thresholds.tolist() == [0.25, 0.5, 0.75]
    assert counts.true.tolist() == [280] * 3
    assert counts.found.tolist() == [250, 250, 200]
    assert counts.right.tolist() == [150, 150, 100]
    assert counts.predicted.tolist() == [150, 150, 100]
    assert counts.best.tolist() == [250, 280, 150, 150]  # of equal ones the first
    wide = evaluate_boundaries(strength, people, num_thresholds=9)
    assert wide.predicted.tolist() == [190] * 2 + [150] * 3 + [100] * 4


def test_thresholds_are_the_benchmarks(person):
    thresholds = evaluate_boundaries(person.astype(float), person[None]).thresholds
    np.testing.assert_allclose(thresholds, np.linspace(0.01, 0.99, 99))


def test_scores_by_hand():
    # Recall 1 and 0.5, precision 0.5 and 1: F is 2/3 at both, and 3/4 in the middle.
    counts = counts_of([10, 5], [10, 10], [10, 8], [20, 8], best=[5, 10, 8, 8])
    found = scores(counts)
    assert found.ods == pytest.approx(0.75, abs=1e-4)
    assert found.ods_threshold == pytest.approx(0.5, abs=1 / 99)
    assert found.best.recall + found.best.precision == pytest.approx(1.5)
    assert found.ois == pytest.approx(2 / 3)
    assert (found.ois_recall, found.ois_precision) == (0.5, 1)
    # Precision falls from 1 to 0.5 over recalls 0.5 to 1: 51 points, on average 0.75.
    assert found.ap == pytest.approx(51 * 0.75 / 100)
    assert found.recall.tolist() == [1, 0.5]


def test_average_precision_of_one_recall_is_0(person):
    assert scores(evaluate_boundaries(person.astype(float), person[None])).ap == 0


def benchmark(counts):
    """The benchmark's collection of results, in plain loops."""
    found, true, right, predicted = (
        one.astype(float) for one in (counts.found, counts.true, counts.right, counts.predicted)
    )
    recall, precision = found / (true + (true == 0)), right / (predicted + (predicted == 0))

    def f(r, p):
        return 2 * p * r / (p + r + (p + r == 0))

    best = (f(recall[0], precision[0]), counts.thresholds[0])
    for i in range(1, len(recall)):
        for d in np.linspace(0, 1, 100):
            t, r, p = (
                one[i] * d + one[i - 1] * (1 - d) for one in (counts.thresholds, recall, precision)
            )
            if f(r, p) > best[0]:
                best = (f(r, p), t)
    area = 0.0
    for at in np.arange(101) / 100:
        for i in range(1, len(recall)):
            low, high = recall[i], recall[i - 1]
            if low < high and low <= at <= high and not (at == low and i < len(recall) - 1):
                weight = (at - low) / (high - low)
                area += (1 - weight) * precision[i] + weight * precision[i - 1]
    return *best, area / 100


def test_scores_match_plain_loops(rng):
    predicted = np.sort(rng.integers(100, 20_000, 99))[::-1]
    right = np.floor(predicted * np.sort(rng.uniform(0.1, 0.99, 99))).astype(int)
    found = np.sort(rng.choice(8000, 99, replace=False))[::-1]  # falls, with no recall twice
    counts = counts_of(found, [9001] * 99, right, predicted)
    ods, threshold, area = benchmark(counts)
    result = scores(counts)
    assert result.ods == pytest.approx(ods, abs=1e-12)
    assert result.ods_threshold == pytest.approx(threshold)
    assert result.ap == pytest.approx(area, abs=1e-9)


def test_counts_add_up_over_cases(person, rng):
    noisy = np.clip(person * 0.6 + rng.uniform(0, 0.5, SHAPE) * (rng.random(SHAPE) < 0.05), 0, 1)
    one = evaluate_boundaries(noisy, person[None], num_thresholds=9)
    other = evaluate_boundaries(person * 0.3, person[None], num_thresholds=9)
    both = one + other
    assert both.true[0] == 2 * person.sum()
    np.testing.assert_array_equal(both.right, one.right + other.right)
    # Each case at its own best threshold: the second is perfect, though not at the first's.
    assert scores(both).ois > scores(both).ods
    assert both.best.tolist() == (one.best + other.best).tolist()
    own = case_scores(other, scores(both).ods_threshold)
    assert own.best.f == 1


def test_a_cases_f_is_at_the_threshold_of_all(person):
    counts = evaluate_boundaries(person * 0.305, person[None])
    assert case_scores(counts, 0.2).f == 1
    assert case_scores(counts, 0.8).f == 0
    between = case_scores(counts, 0.305).f  # half way from all to nothing
    assert between == pytest.approx(0.5)


def test_counts_survive_json(person):
    counts = evaluate_boundaries(person * 0.4, person[None], num_thresholds=5)
    again = BoundaryCounts.from_json(counts.to_json())
    assert again.to_json() == counts.to_json()
    assert again.found.dtype == np.int64
    assert scores(again).ods == scores(counts).ods


def test_what_does_not_fit_is_rejected(person):
    with pytest.raises(ValueError, match="maps"):
        evaluate_boundaries(person.astype(float), person)
    with pytest.raises(ValueError, match="maps"):
        evaluate_boundaries(person.astype(float), np.zeros((0, *SHAPE)))
    for wrong in (255.0, -0.1, np.nan):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            evaluate_boundaries(person * wrong, person[None])
    with pytest.raises(ValueError, match="at least 1"):
        evaluate_boundaries(person.astype(float), person[None], num_thresholds=0)
    with pytest.raises(ValueError, match="different thresholds"):
        counts_of([1], [1], [1], [1]) + counts_of([1, 1], [1, 1], [1, 1], [1, 1])
    with pytest.raises(ValueError, match="one length"):
        counts_of([1, 1], [1], [1], [1])


def test_the_whole_way_from_a_soft_map(person):
    """A blurred drawing, suppressed, is as good as the drawing, but at the border of the image."""
    from scipy.ndimage import gaussian_filter

    soft = gaussian_filter(person.astype(float), 1.5)
    ridges = suppress_non_maxima(soft / soft.max())
    assert scores(evaluate_boundaries(ridges, person[None])).ods > 0.97


def test_people_who_agree_and_one_who_does_not(person):
    """Two draw the same, the third nothing of it."""
    other = np.zeros(SHAPE, np.uint8)
    other[10, 20:180] = 1
    counts = evaluate_annotators(np.stack([person, person, other]))
    size, extra = int(person.sum()), 160
    assert counts.thresholds.tolist() == [0.5]
    assert counts.found.tolist() == [2 * size]
    assert counts.true.tolist() == [2 * (size + extra) + 2 * size]
    assert counts.right.tolist() == [2 * size]
    assert counts.predicted.tolist() == [2 * size + extra]
    with pytest.raises(ValueError, match="at least 2 annotators"):
        evaluate_annotators(person[None])


def test_errors_are_where_they_are(person):
    strength = person * 0.8
    strength[120] = 0  # the long line is missed
    strength[10, 20:60] = 0.6  # imagined
    strength[5, 20:60] = 0.1  # too weak to count
    one = np.zeros(SHAPE)
    one[120, 20:180] = 1
    found = find_boundary_errors(strength, np.stack([person, one]), 0.5)
    np.testing.assert_array_equal(found.right, strength == 0.8)
    np.testing.assert_array_equal(found.wrong, strength == 0.6)
    expected = np.zeros(SHAPE)
    expected[120, 20:180] = 1  # by both
    np.testing.assert_array_equal(found.missed, expected)
    alone = find_boundary_errors(np.zeros(SHAPE), np.stack([person, one]), 0.5)
    assert np.unique(alone.missed).tolist() == [0, 0.5, 1]
