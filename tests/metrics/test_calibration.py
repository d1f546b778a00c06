"""Calibration: by hand, against a slow and obvious reference, and parts that add up."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxseg.metrics import calibration
from voxseg.metrics.calibration import (
    NUM_BINS,
    Reliability,
    calibrate,
    reliability_from_json,
    reliability_to_json,
)

SPACING = (1.0, 2.0, 5.0)


def reliability(*filled, squared=0.0):
    """Fill some bins: (bin, voxels, sum of probabilities, right)."""
    voxels, sums, right = [0] * NUM_BINS, [0.0] * NUM_BINS, [0] * NUM_BINS
    for index, n, total, hits in filled:
        voxels[index], sums[index], right[index] = n, total, hits
    return Reliability(tuple(voxels), tuple(sums), tuple(right), squared)


def predictions(seed, shape=(5, 6, 7), count=3):
    """Probabilities of many sizes, and a truth that follows them loosely."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, *shape))
    shares = np.exp(logits) / np.exp(logits).sum(0)
    truth = (logits + rng.normal(0, 2, logits.shape)).argmax(0)
    return shares.astype(np.float32), truth.astype(np.uint8)


def slow_tally(shares, hits):
    """Count voxel by voxel."""
    voxels, sums, right = [0] * NUM_BINS, [0.0] * NUM_BINS, [0] * NUM_BINS
    squared = 0.0
    for share, hit in zip(shares, hits, strict=True):
        index = min(int(float(share) * NUM_BINS), NUM_BINS - 1)
        voxels[index] += 1
        sums[index] += float(share)
        right[index] += bool(hit)
        squared += (float(share) - float(hit)) ** 2
    return Reliability(tuple(voxels), tuple(sums), tuple(right), squared)


def slow_near(predicted, truth, spacing, margin_mm):
    """Look around every foreground voxel."""
    near = np.zeros(truth.shape, bool)
    reach = [round(margin_mm / size) for size in spacing]
    for place in np.argwhere((predicted > 0) | (truth > 0)):
        box = [slice(max(0, p - r), p + r + 1) for p, r in zip(place, reach, strict=True)]
        near[tuple(box)] = True
    return near


def assert_same(found, expected):
    assert found.voxels == expected.voxels
    assert found.correct == expected.correct
    np.testing.assert_allclose(found.confidence, expected.confidence, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.squared_error, expected.squared_error, rtol=1e-10, atol=1e-12)


def assert_all_same(found, expected):
    for one, other in (
        (found.near, expected.near), (found.everywhere, expected.everywhere)
    ):  # fmt: skip
        for a, b in zip((one.top, *one.classes), (other.top, *other.classes), strict=True):
            assert_same(a, b)


def test_errors_by_hand():
    # 10 voxels at 0.9, 6 of them right; 30 voxels at 0.5, 18 right.
    one = reliability((13, 10, 9.0, 6), (7, 30, 15.0, 18), squared=8.0)
    np.testing.assert_allclose(one.ece, (10 * 0.3 + 30 * 0.1) / 40)
    np.testing.assert_allclose(one.mce, 0.3)
    np.testing.assert_allclose(one.overconfidence, (24 - 24) / 40, atol=1e-15)
    np.testing.assert_allclose(one.brier, 0.2)
    np.testing.assert_allclose([one.accuracy[13], one.mean_confidence[13]], [0.6, 0.9])
    assert math.isnan(one.accuracy[0])


def test_nothing_counted_is_nan():
    empty = reliability()
    for value in (empty.ece, empty.mce, empty.brier, empty.overconfidence):
        assert math.isnan(value)


def test_sure_and_right_is_perfect_and_sure_and_wrong_is_worst():
    truth = np.zeros((3, 4, 5), np.uint8)
    truth[1, 2, 3] = 1
    shares = np.stack([truth == 0, truth == 1]).astype(np.float32)
    right, wrong = (calibrate(p, truth, SPACING) for p in (shares, shares[::-1]))
    assert (right.everywhere.top.ece, right.everywhere.brier) == (0, 0)
    assert (wrong.everywhere.top.ece, wrong.everywhere.brier) == (1, 2)
    assert (wrong.everywhere.top.overconfidence, wrong.everywhere.top.mce) == (1, 1)
    assert right.everywhere.top.voxels[-1] == 60  # a probability of 1 has the last bin
    assert right.everywhere.classes[1].voxels[0] == 59  # and 0 has the first


@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 4, 9), (6, 5)], ids=str)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_calibrate_matches_reference(shape, count, monkeypatch):
    monkeypatch.setattr(calibration, "_BLOCK_VOXELS", 2 * math.prod(shape[1:]))
    shares, truth = predictions(0, shape, count)
    shares[0] += np.float32(0.6)  # background wins often
    shares /= shares.sum(0)
    spacing = SPACING[: len(shape)]
    found = calibrate(shares, truth, spacing, margin_mm=2.4)
    winner = shares.argmax(0)
    near = slow_near(winner, truth, spacing, 2.4)
    assert count == 1 or 0 < near.sum() <= near.size
    for region, mask in ((found.near, near), (found.everywhere, np.ones(shape, bool))):
        assert_same(region.top, slow_tally(shares.max(0)[mask], (winner == truth)[mask]))
        for k, one in enumerate(region.classes):
            assert_same(one, slow_tally(shares[k][mask], (truth == k)[mask]))
        if mask.any():
            errors = sum((shares[k] - (truth == k)) ** 2 for k in range(count))
            np.testing.assert_allclose(region.brier, errors[mask].mean(), rtol=1e-6, atol=1e-12)
            mean = np.mean([one.ece for one in region.classes])
            np.testing.assert_allclose(region.classwise_ece, mean)


def test_region_reaches_as_far_in_mm_along_every_axis():
    truth = np.zeros((31, 21, 11), np.int32)
    truth[15, 10, 5] = 1
    shares = np.stack([np.ones(truth.shape), np.zeros(truth.shape)])
    near = calibrate(shares, truth, (1.0, 2.5, 5.0), margin_mm=5.0).near
    assert near.top.num_voxels == 11 * 5 * 3


def test_region_holds_what_is_wrongly_found_elsewhere():
    truth = np.zeros((20, 3, 3), np.uint8)
    truth[0] = 1
    shares = np.stack([np.ones(truth.shape), np.zeros(truth.shape)])
    shares[:, 15] = [[[0.2]], [[0.8]]]
    near = calibrate(shares, truth, (1, 1, 1), margin_mm=0).near
    assert near.top.num_voxels == 18
    assert near.classes[1].voxels[12] == 9


def test_blocks_make_no_difference(monkeypatch):
    shares, truth = predictions(3)
    whole = calibrate(shares, truth, SPACING)
    monkeypatch.setattr(calibration, "_BLOCK_VOXELS", 1)
    assert_all_same(calibrate(shares, truth, SPACING), whole)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    seed=st.integers(0, 1000), cut=st.integers(1, 5), count=st.integers(1, 4), flat=st.booleans()
)
def test_parts_add_up_to_the_whole(seed, cut, count, flat):
    shares, truth = predictions(seed, (6, 4, 3), count)
    if flat:
        shares = np.round(shares * 3) / 3  # many ties, and probabilities on the bins' edges
    spacing = (1e9, 1e9, 1e9)  # no margin: the cut changes no region
    whole = calibrate(shares, truth, spacing)
    parts = [calibrate(shares[:, c], truth[c], spacing) for c in (slice(cut), slice(cut, None))]
    assert_all_same(parts[0] + parts[1], whole)
    assert_all_same(parts[1] + parts[0], whole)
    for region in (whole.near, whole.everywhere):
        for one in (region.top, *region.classes):
            assert math.isnan(one.ece) or 0 <= abs(one.overconfidence) <= one.ece + 1e-12
            assert math.isnan(one.ece) or one.ece <= one.mce + 1e-12 <= 1 + 1e-12


def test_counts_survive_json():
    one = reliability((13, 10, 9.1, 6), squared=2.5)
    stored = reliability_to_json(one)
    assert reliability_from_json(stored) == one
    assert reliability_to_json(reliability())["ece"] is None
    with pytest.raises(ValueError, match="15 bins"):
        reliability_from_json({**stored, "voxels": [1]})
    with pytest.raises(ValueError, match="more right"):
        reliability_from_json({**stored, "voxels": [0] * NUM_BINS})


def test_calibrate_rejects_what_does_not_fit():
    shares, truth = predictions(1)
    with pytest.raises(ValueError, match="must be"):
        calibrate(shares, truth[:-1], SPACING)
    with pytest.raises(ValueError, match="must be"):
        calibrate(shares, truth, SPACING[:2])
    with pytest.raises(ValueError, match="from 0 to 3"):
        calibrate(shares, np.where(truth == 2, 3, truth), SPACING)
    with pytest.raises(ValueError, match="float"):
        calibrate(shares, truth.astype(float), SPACING)
    for bad in (shares * 2, shares - 1, shares * np.nan):
        with pytest.raises(ValueError, match="softmax"):
            calibrate(bad, truth, SPACING)
    with pytest.raises(ValueError, match="do not add"):
        _ = calibrate(shares, truth, SPACING) + calibrate(shares[:2], truth % 2, SPACING)


def test_of_equal_probabilities_the_lowest_class_wins():
    truth = np.zeros((2, 2, 2), np.uint8)
    truth[0] = 1
    even = calibrate(np.full((2, 2, 2, 2), 0.5), truth, (1, 1, 1)).everywhere.top
    assert (even.num_voxels, sum(even.correct)) == (8, 4)
    truth[0] = 0
    assert calibrate(np.full((2, 2, 2, 2), 0.5), truth, (1, 1, 1)).everywhere.top.accuracy[7] == 1


def test_ignored_voxels_do_not_count():
    rng = np.random.default_rng(3)
    shares = rng.dirichlet(np.ones(3), (5, 6)).transpose(2, 0, 1)
    truth = rng.integers(0, 3, (5, 6))
    marked = truth.copy()
    marked[:, 4:] = 255
    found = calibrate(shares, marked, (1.0, 1.0), ignored=255)
    cut = calibrate(shares[:, :, :4], truth[:, :4], (1.0, 1.0), margin_mm=100.0)
    assert found.everywhere.top.voxels == cut.everywhere.top.voxels
    np.testing.assert_allclose(found.everywhere.top.squared_error, cut.everywhere.top.squared_error)
    with pytest.raises(ValueError, match="classes from 0 to 255"):
        calibrate(shares, marked, (1.0, 1.0))
