import math

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss

from voxseg.data.grid import IGNORED
from voxseg.tasks.segmentation import SegmentationLoss, count_dice


def perfect(label, num_classes, certainty=20.0):
    hot = torch.nn.functional.one_hot(label[:, 0], num_classes).movedim(-1, 1).float()
    return (hot * 2 - 1) * certainty


@pytest.fixture
def label(generator):
    return torch.randint(0, 3, (2, 1, 5, 6, 7), generator=generator)


@pytest.mark.parametrize("kind", ["dice_ce", "ce", "dice"])
def test_loss_is_zero_for_the_truth_and_larger_for_a_lie(kind, label):
    loss = SegmentationLoss(3, kind)
    right = loss(perfect(label, 3), [], label, 0.0)
    wrong = loss(perfect((label + 1) % 3, 3), [], label, 0.0)
    torch.testing.assert_close(right.item(), 0.0, atol=1e-4, rtol=0)
    assert wrong > 0.9


@pytest.mark.parametrize("num_classes", [1, 3])
def test_dice_is_monais(num_classes, label, generator):
    label = label.clamp_max(num_classes - 1)
    logits = torch.randn((2, num_classes, 5, 6, 7), generator=generator)
    hot = torch.nn.functional.one_hot(label[:, 0], num_classes).movedim(-1, 1)
    peer = DiceLoss(include_background=num_classes == 1, batch=True)(logits.softmax(1), hot)
    torch.testing.assert_close(SegmentationLoss(num_classes, "dice")(logits, [], label, 0.0), peer)


def test_loss_by_hand_for_even_scores(label):
    loss = SegmentationLoss(3, "ce")(torch.zeros(2, 3, 5, 6, 7), [], label, 0.0)
    assert loss.item() == pytest.approx(math.log(3))


def test_auxiliary_outputs_count_with_their_weight(label, generator):
    loss = SegmentationLoss(3)
    logits = torch.randn((2, 3, 5, 6, 7), generator=generator)
    other = torch.randn((2, 3, 5, 6, 7), generator=generator)
    alone, both = (loss(logits, [other], label, w) for w in (0.0, 0.25))
    expected = alone + 0.25 * loss(other, [], label, 0.0)
    torch.testing.assert_close(both, expected)


def test_a_coarse_output_meets_the_label_at_its_voxels(generator):
    coarse = torch.randint(0, 3, (1, 1, 3, 4, 2), generator=generator)
    fine = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
    loss = SegmentationLoss(3)
    even = torch.zeros(1, 3, 6, 8, 4)
    value = loss(even, [perfect(coarse, 3)], fine, 1.0) - loss(even, [], fine, 0.0)
    torch.testing.assert_close(value.item(), 0.0, atol=1e-4, rtol=0)


def test_a_coarse_output_meets_the_share_of_each_class(generator):
    # One coarse voxel over three fine ones of class 1 and one of class 0, in two dimensions.
    label = torch.tensor([[[[1, 1], [1, 0]]]])
    coarse = torch.tensor([0.2, 0.8]).reshape(1, 2, 1, 1)
    fine = torch.zeros(1, 2, 2, 2)
    loss = SegmentationLoss(2, "ce")
    value = loss(fine, [coarse], label, 2.0) - loss(fine, [], label, 0.0)
    logs = coarse.log_softmax(1).flatten()
    torch.testing.assert_close(value, -(0.25 * logs[0] + 0.75 * logs[1]))


def test_an_absent_class_gives_a_finite_loss_and_gradient():
    label = torch.zeros(1, 1, 4, 4, 4, dtype=torch.long)
    logits = torch.zeros(1, 3, 4, 4, 4, requires_grad=True)
    SegmentationLoss(3)(logits, [], label, 0.0).backward()
    assert logits.grad.isfinite().all()


def test_dice_counts_by_hand_and_add_up():
    predicted = torch.tensor([0, 1, 1, 2])
    truth = torch.tensor([0, 1, 2, 2])
    counts = count_dice(predicted, truth, 4)
    np.testing.assert_allclose(counts.dice[:3], [1, 2 / 3, 2 / 3])
    assert counts.dice[3].isnan()
    assert counts.foreground_mean == pytest.approx(2 / 3)
    np.testing.assert_allclose((counts + counts).dice[:3], counts.dice[:3])


def test_nothing_but_background_scores_zero():
    zeros = torch.zeros(5, dtype=torch.long)
    assert count_dice(zeros, zeros, 3).foreground_mean == 0.0


def test_auxiliary_weight_is_halved_for_a_grid_of_half_the_size():
    logits = torch.zeros(1, 3, 4, 4, 4)
    label = torch.zeros(1, 1, 4, 4, 4, dtype=torch.long)
    loss = SegmentationLoss(3, "ce")
    coarse = loss(logits, [torch.zeros(1, 3, 2, 2, 2)], label, 1.0)
    torch.testing.assert_close(coarse, 1.5 * loss(logits, [], label, 0.0))


def test_iou_by_hand():
    predicted = torch.tensor([0, 1, 1, 2, 2])
    truth = torch.tensor([0, 1, 2, 2, IGNORED], dtype=torch.uint8)
    counts = count_dice(predicted, truth, 4)
    np.testing.assert_allclose(counts.iou[:3], [1, 1 / 2, 1 / 2])
    assert counts.iou[3].isnan()
    assert counts.mean_iou == pytest.approx(2 / 3)
    nothing = count_dice(predicted, torch.full((5,), IGNORED), 4)
    assert nothing.mean_iou == 0.0
    assert nothing.predicted.sum() == 0


def test_many_classes_leave_no_room_for_ignored_voxels():
    label = torch.tensor([IGNORED, 0])
    assert count_dice(label, label, 300).both.tolist()[IGNORED] == 1
    logits = torch.zeros(1, 300, 1, 2)
    loss = SegmentationLoss(300, "ce")(logits, [], label.view(1, 1, 1, 2), 0.0)
    assert loss.item() == pytest.approx(math.log(300))
