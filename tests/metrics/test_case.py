"""Scores of one case."""

import math
import time

import numpy as np
import pytest

from voxseg.metrics.case import ABSENT, score_case
from voxseg.metrics.overlap import dice
from voxseg.metrics.surface import surface_distances

SPACING = (0.9, 1.5, 1.1)


@pytest.fixture
def pair(rng):
    truth = np.zeros((13, 11, 12), np.int16)
    truth[2:9, 2:8, 3:9] = 4
    truth[4:7, 4:7, 4:8] = 250
    prediction = np.roll(truth, 1, axis=1)
    prediction[0, 0, 0] = 4
    return prediction, truth


def test_score_case_matches_its_parts(pair):
    scores = score_case(*pair, [4, 250], SPACING, tolerance_mm=1.2)
    assert list(scores) == [4, 250]
    for label, score in scores.items():
        masks = [array == label for array in pair]
        distances = surface_distances(*masks, SPACING)
        assert score.dice == dice(*masks)
        assert score.hd95_mm == pytest.approx(distances.hd95_mm)
        assert score.assd_mm == pytest.approx(distances.assd_mm)
        assert score.surface_dice == pytest.approx(distances.surface_dice(1.2))
        voxel_ml = 0.9 * 1.5 * 1.1 / 1000
        assert score.truth_ml == pytest.approx(masks[1].sum() * voxel_ml)
        assert score.volume_difference_ml == pytest.approx(
            (masks[0].sum() - masks[1].sum()) * voxel_ml
        )


def test_volume_difference_is_signed(pair):
    prediction, truth = pair
    prediction[prediction == 250] = 0
    scores = score_case(prediction, truth, [4, 250], SPACING)
    assert scores[4].volume_difference_ml > 0
    assert scores[250].volume_difference_ml == -scores[250].truth_ml < 0


def test_background_has_overlap_but_no_surface(pair):
    score = score_case(*pair, [0, 4], SPACING)[0]
    prediction, truth = pair
    assert score.dice == dice(prediction == 0, truth == 0)
    assert math.isnan(score.hd95_mm)
    assert math.isnan(score.surface_dice)


def test_another_background(pair):
    prediction, truth = (np.where(array == 0, 7, array) for array in pair)
    scores = score_case(prediction, truth, [7, 4], SPACING, background=7)
    assert scores[4] == score_case(*pair, [4], SPACING)[4]
    assert math.isnan(scores[7].hd95_mm)


def test_empty_masks_follow_the_policy(pair):
    prediction, truth = pair
    scores = score_case(prediction, truth, [9], SPACING)
    np.testing.assert_equal(scores[9].__dict__, ABSENT.__dict__)
    truth = np.where(truth == 250, 0, truth)
    one = score_case(prediction, truth, [250], SPACING)[250]
    assert one.dice == one.iou == one.surface_dice == 0
    assert math.isnan(one.hd95_mm)
    assert math.isnan(one.assd_mm)


def test_nothing_anywhere():
    empty = np.zeros((3, 4, 5), np.uint8)
    scores = score_case(empty, empty, [0, 1], (1, 1, 1))
    assert scores[0].dice == 1
    assert math.isnan(scores[1].dice)


def test_a_mask_of_one_layer_keeps_its_surface():
    """Cropping to one layer must not turn a volume into a slice."""
    truth = np.zeros((9, 8, 7), np.uint8)
    truth[2:7, 4, 1:6] = 1
    prediction = np.roll(truth, 1, axis=0)
    score = score_case(prediction, truth, [1], (1, 1, 1))[1]
    distances = surface_distances(prediction == 1, truth == 1, (1, 1, 1))
    assert distances.from_truth.size == 25
    assert score.assd_mm == distances.assd_mm


def test_score_case_rejects_float_labels_and_other_shapes():
    label = np.zeros((3, 4, 5), np.uint8)
    with pytest.raises(TypeError, match="integer label map, got float64"):
        score_case(label, label.astype(float), [1], (1, 1, 1))
    with pytest.raises(ValueError, match="same shape"):
        score_case(label, label[:2], [1], (1, 1, 1))


@pytest.mark.slow
def test_a_brain_sized_case_takes_seconds():
    """256x128x256 with three nested classes; the bound is wide, for shared machines."""
    axes = [(np.arange(n) - n / 2) * s for n, s in zip((256, 128, 256), SPACING, strict=True)]
    radius = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij", sparse=True)))
    ripple = 3 * np.sin(axes[0] / 3)[:, None, None]
    truth = np.digitize(-(radius + ripple), [-75, -60, -20]).astype(np.int32)
    prediction = np.roll(truth, 2, axis=2)
    start = time.perf_counter()
    scores = score_case(prediction, truth, [0, 1, 2, 3], SPACING)
    assert time.perf_counter() - start < 60
    assert 0.8 < scores[2].dice < 1
