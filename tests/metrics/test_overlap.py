"""Overlap counts, Dice and IoU."""

import numpy as np
import pytest

from voxseg.metrics.overlap import OverlapCounts, count_overlap, dice, iou


def mask(text):
    return np.array([[letter == "#" for letter in row] for row in text.split()])


def test_overlap_by_hand():
    prediction, truth = mask("##.. ##.. ....#"[:9] + " ...."), mask(".##. .##. .##.")
    counts = count_overlap(prediction, truth)
    assert counts == OverlapCounts(both=2, predicted=4, true=6)
    assert counts.dice == pytest.approx(2 * 2 / 10)
    assert counts.iou == pytest.approx(2 / 8)


def test_equal_masks_score_one(rng):
    some = rng.random((5, 6, 7)) < 0.3
    assert dice(some, some.copy()) == 1
    assert iou(some, some.copy()) == 1


def test_empty_in_both_is_undefined_and_in_one_zero():
    empty, full = np.zeros((3, 5), bool), np.ones((3, 5), bool)
    assert np.isnan(dice(empty, empty))
    assert np.isnan(iou(empty, empty))
    assert dice(empty, full) == dice(full, empty) == 0
    assert iou(empty, full) == iou(full, empty) == 0


def test_iou_follows_from_dice(rng):
    prediction, truth = rng.random((2, 5, 6, 7)) < 0.4
    d = dice(prediction, truth)
    assert iou(prediction, truth) == pytest.approx(d / (2 - d))


def test_dice_matches_monai(rng):
    import torch
    from monai.metrics import compute_dice

    prediction, truth = rng.random((2, 5, 6, 7)) < 0.4
    expected = compute_dice(torch.tensor(prediction)[None, None], torch.tensor(truth)[None, None])
    assert dice(prediction, truth) == pytest.approx(expected.item(), abs=1e-6)


def test_overlap_rejects_other_shape_and_label_maps():
    with pytest.raises(ValueError, match="same shape"):
        dice(np.zeros((2, 3), bool), np.zeros((3, 2), bool))
    with pytest.raises(TypeError, match="boolean mask, got int64"):
        dice(np.zeros((2, 3), np.int64), np.zeros((2, 3), bool))
