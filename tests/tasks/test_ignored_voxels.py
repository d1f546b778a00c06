"""The segmentation loss where voxels do not count, classes weigh, and processes share a batch."""

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy, one_hot

from voxseg.data.grid import IGNORED
from voxseg.tasks.segmentation import SegmentationLoss

SHAPE = (3, 1, 6, 8)
WEIGHT = torch.tensor([0.5, 3.0, 0.0, 7.0])


@pytest.fixture
def label(generator):
    """Four classes, a third of the pixels ignored."""
    values = torch.randint(0, 6, SHAPE, generator=generator)
    return torch.where(values > 3, IGNORED, values)


@pytest.fixture
def logits(generator):
    return torch.randn((3, 4, 6, 8), generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("step", [1, 2])
def test_cross_entropy_is_torchs(label, generator, weight, step):
    logits = torch.randn((3, 4, 6 // step, 8 // step), generator=generator, requires_grad=True)
    label = label[..., 1 % step :: step, ::step]  # as split-merge pooling's shrink takes them
    loss = SegmentationLoss(4, "ce", weight=weight)(logits, [], label, 0.0)
    expected = cross_entropy(logits, label[:, 0], weight, ignore_index=IGNORED)
    torch.testing.assert_close(loss, expected)
    for one, other in zip(*(torch.autograd.grad(v, logits) for v in (loss, expected)), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", ["dice_ce", "ce", "dice"])
def test_what_lies_under_ignored_voxels_does_not_matter(label, logits, kind):
    loss = SegmentationLoss(4, kind, weight=WEIGHT)
    value = loss(logits, [logits[..., ::2, ::2]], label, 0.5)
    (gradient,) = torch.autograd.grad(loss(logits, [], label, 0.0), logits)
    ignored = (label == IGNORED).expand_as(logits)
    assert gradient[ignored].abs().max() == 0
    assert gradient[~ignored].abs().max() > 0
    other = torch.where(ignored, 5 - 2 * logits, logits)
    torch.testing.assert_close(loss(other, [logits[..., ::2, ::2]], label, 0.5), value)


def test_dice_of_what_counts_is_dice_of_the_rest(label, logits):
    kept = (label != IGNORED)[:, 0].flatten()
    rest = logits.movedim(1, -1).reshape(-1, 4)[kept].T[None, :, None]
    alone = SegmentationLoss(4, "dice")(rest, [], label.flatten()[kept].view(1, 1, 1, -1), 0.0)
    torch.testing.assert_close(SegmentationLoss(4, "dice")(logits, [], label, 0.0), alone)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_a_coarse_output_meets_the_shares_of_what_counts(label, generator, weight):
    coarse = torch.randn((3, 4, 3, 2), generator=generator)
    fine = torch.zeros(3, 4, 6, 8)
    loss = SegmentationLoss(4, "ce", weight=weight)
    value = loss(fine, [coarse], label, 2.0) - loss(fine, [], label, 0.0)
    # Each pixel that counts is one vote at its cell.
    votes = coarse.repeat_interleave(2, 2).repeat_interleave(4, 3)
    expected = cross_entropy(votes, label[:, 0], weight, ignore_index=IGNORED)
    torch.testing.assert_close(value, expected)


def test_without_ignored_voxels_a_coarse_output_is_torchs_mean(generator):
    label = torch.randint(0, 4, SHAPE, generator=generator)
    coarse = torch.randn((3, 4, 3, 4), generator=generator)
    shares = adaptive_avg_pool2d(one_hot(label[:, 0], 4).movedim(-1, 1).float(), (3, 4))
    loss = SegmentationLoss(4, "ce")
    fine = torch.zeros(3, 4, 6, 8)
    value = loss(fine, [coarse], label, 2.0) - loss(fine, [], label, 0.0)
    torch.testing.assert_close(value, cross_entropy(coarse, shares))


@pytest.mark.parametrize("kind", ["dice_ce", "ce", "dice"])
def test_nothing_that_counts_gives_no_loss_and_no_gradient(logits, kind):
    label = torch.full(SHAPE, IGNORED)
    loss = SegmentationLoss(4, kind, weight=WEIGHT)(logits, [logits[..., ::2, ::2]], label, 0.5)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize("kind", ["dice_ce", "ce", "dice"])
@pytest.mark.parametrize("empty", [False, True], ids=["both", "one has nothing"])
def test_parts_of_a_batch_add_up_to_the_whole(label, logits, kind, empty):
    if empty:
        label[:1] = IGNORED
    shares = [slice(0, 1), slice(1, 3)]
    coarse = torch.nn.functional.avg_pool2d(logits, 2)

    def part(share, add=lambda sums: sums):
        loss = SegmentationLoss(4, kind, add, WEIGHT)
        return loss(logits[share], [coarse[share]], label[share], 0.5)

    recorded = []
    for share in shares:
        part(share, lambda sums: recorded.append(sums) or sums)
    first, second = recorded[:2], recorded[2:]
    totals = [a + b for a, b in zip(first, second, strict=True)]
    parts = []
    for share in shares:
        answers = iter(totals)
        parts.append(part(share, lambda _, answers=answers: next(answers)))
    whole = part(slice(None))
    torch.testing.assert_close(sum(parts), whole)
    gradients = [torch.autograd.grad(v, logits, retain_graph=True)[0] for v in (sum(parts), whole)]
    torch.testing.assert_close(*gradients)


def test_weights_of_another_number_are_refused():
    with pytest.raises(ValueError, match=r"weight must be \(3,\), got \(4,\)"):
        SegmentationLoss(3, weight=WEIGHT)
