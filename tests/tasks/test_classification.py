"""The cross-entropy of whole photographs, in parts and by hand, and the places of true classes."""

import math

import pytest
import torch

from voxseg.metrics.classification import count_classes
from voxseg.tasks.classification import ClassificationLoss, TopCounts, count_top, places

SCORES = torch.tensor([[0.1, 0.5, 0.4], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.2, 0.6, 0.2]])
CATEGORY = torch.tensor([1, 2, 1, 0])


def test_loss_by_hand():
    loss = ClassificationLoss()
    even = loss(torch.zeros(3, 4), [], torch.tensor([0, 3, 1]), 0.0)
    assert even.item() == pytest.approx(math.log(4))
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    value = loss(logits, [], torch.tensor([0, 1]), 0.0)
    assert value.item() == pytest.approx((math.log(4) + math.log(2)) / 2)


def test_loss_counts_auxiliary_answers_with_their_weight(generator):
    loss = ClassificationLoss()
    logits, other = torch.randn(2, 4, 3, generator=generator)
    category = torch.tensor([0, 1, 2, 0])
    alone, both = (loss(logits, [other], category, weight) for weight in (0.0, 0.3))
    torch.testing.assert_close(both, alone + 0.3 * loss(other, [], category, 0.0))


def test_parts_of_processes_add_up_to_the_loss(generator):
    logits = torch.randn(5, 3, generator=generator, requires_grad=True)
    category = torch.tensor([0, 2, 1, 1, 0])
    whole = ClassificationLoss()(logits, [], category, 0.0)
    (expected,) = torch.autograd.grad(whole, logits)
    # Two processes with shares of 3 and 2: what one adds up is the sum over both.
    shared = ClassificationLoss(lambda count: count * 0 + 5)
    parts = [shared(logits[own], [], category[own], 0.0) for own in ([0, 2, 4], [1, 3])]
    torch.testing.assert_close(sum(parts), whole)
    (found,) = torch.autograd.grad(sum(parts), logits)
    torch.testing.assert_close(found, expected)


def test_half_precision_is_summed_in_float32():
    logits = torch.tensor([[12.0, -12.0]], dtype=torch.bfloat16)
    loss = ClassificationLoss()(logits, [], torch.tensor([1]), 0.0)
    assert loss.dtype is torch.float32
    assert loss.item() == pytest.approx(24)


def test_loss_rejects_maps():
    with pytest.raises(ValueError, match=r"must be \(B, N\) and classes \(B,\)"):
        ClassificationLoss()(torch.zeros(2, 3, 4, 4), [], torch.zeros(2, dtype=torch.long), 0.0)


def test_places_by_hand_and_ties_go_to_the_lower_index():
    assert places(SCORES, CATEGORY).tolist() == [0, 2, 2, 1]
    tied = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    assert places(tied, torch.tensor([0, 1])).tolist() == [0, 1]


def test_counts_by_hand_and_added():
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]]).repeat(3, 1)
    counts = count_top(scores, torch.tensor([0, 4, 5]))
    assert counts == TopCounts(1, 2, 3)
    assert (counts.top1, counts.top5) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert counts + TopCounts(1, 1, 1) == TopCounts(2, 3, 4)
    assert TopCounts().top1 == TopCounts().top5 == 0


def test_counts_are_those_of_the_metrics(generator):
    scores = torch.randn(50, 9, generator=generator)
    category = torch.randint(0, 9, (50,), generator=generator)
    counts = count_top(scores, category)
    named = scores.argsort(1, descending=True).numpy()
    expected = count_classes(named, category.numpy(), 9)
    assert (counts.top1, counts.top5) == (expected.top1, expected.top5)
    assert counts.total == expected.total
