"""The loss of boundaries: by hand, against HED's sum, at its edges, over processes."""

import math

import pytest
import torch

from voxseg.data.grid import IGNORED
from voxseg.tasks.answers import two_classes
from voxseg.tasks.boundaries import BoundaryLoss


def random_case(shape, seed, positives=0.1):
    """Logits, and labels of few boundaries, many others, and some that do not count."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    chance = torch.rand(shape, generator=generator)
    label = torch.where(chance < positives, 1, torch.where(chance > 0.8, IGNORED, 0))
    return logits, label


def hed(logits, label):
    """Equation 2 of HED pixel by pixel: the sum, and that of its weights, of one image."""
    pairs = [(z, y) for z, y in zip(logits.tolist(), label.tolist(), strict=True) if y != IGNORED]
    on, off = (sum(y == value for _, y in pairs) for value in (1, 0))
    total = mass = 0.0
    for z, y in pairs:
        chance = 1 / (1 + math.exp(-z))
        beta = off / (on + off)
        total -= beta * math.log(chance) if y else (1 - beta) * math.log(1 - chance)
        mass += beta if y else 1 - beta
    return total, mass


def loss(logits, label, **more):
    return BoundaryLoss(**more)(logits, [], label, 0.0)


def test_by_hand():
    """One boundary among four pixels that count weighs 3/4, each of the others 1/4."""
    label = torch.tensor([[[1, 0, 0, 0, IGNORED]]])
    logits = torch.tensor([[[math.log(3), 0, 0, -math.log(3), 50]]])
    entropies = 0.75 * math.log(4 / 3) + 0.25 * (2 * math.log(2) + math.log(4 / 3))
    assert float(loss(logits, label)) == pytest.approx(entropies / 1.5)


@pytest.mark.parametrize("shape", [(2, 1, 9, 11), (3, 1, 50), (1, 1, 3, 5, 7)], ids=str)
def test_loss_is_heds_sum_over_its_weights(shape):
    logits, label = random_case(shape, seed=len(shape))
    images = zip(logits.flatten(1), label.flatten(1), strict=True)
    totals, masses = zip(*(hed(*image) for image in images), strict=True)
    assert float(loss(logits, label)) == pytest.approx(sum(totals) / sum(masses), rel=1e-6)


def test_a_batch_can_be_balanced_as_one_image():
    logits, label = random_case((3, 1, 9, 11), seed=5)
    label[1] = 0  # an image without a boundary
    total, mass = hed(logits.flatten(), label.flatten())
    found = loss(logits, label, balance="batch")
    assert float(found) == pytest.approx(total / mass, rel=1e-6)


@pytest.mark.parametrize("positives", [0.01, 0.5])
@pytest.mark.parametrize("balance", ["image", "batch"])
def test_one_half_everywhere_costs_log_2(positives, balance):
    _, label = random_case((2, 1, 30, 31), seed=1, positives=positives)
    found = loss(torch.zeros(label.shape), label, balance=balance)
    assert float(found) == pytest.approx(math.log(2))


def test_it_is_the_cross_entropy_of_two_classes():
    """Where boundaries and others are equally many, weights are equal."""
    label = torch.tensor([[[1, 0, 1, 0]]])
    logits = torch.tensor([[[0.3, -2.0, 1.5, 4.0]]])
    both = torch.nn.functional.cross_entropy(two_classes(logits), label[:, 0])
    torch.testing.assert_close(loss(logits, label), both)


def test_large_logits_stay_finite():
    label = torch.tensor([[[1, 0]]])
    found = loss(torch.tensor([[[-200.0, 200.0]]]), label)
    assert float(found) == pytest.approx(200)


def test_what_does_not_count_passes_no_gradient():
    logits, label = random_case((2, 1, 8, 9), seed=2)
    loss(logits.requires_grad_(), label).backward()
    assert ((logits.grad != 0) == (label != IGNORED)).all()
    assert (logits.grad[label == 1] < 0).all()
    assert (logits.grad[label == 0] > 0).all()


def test_gradient(monkeypatch):
    """In float64, which ``float`` would round."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    logits, label = random_case((2, 1, 5, 4), seed=3, positives=0.3)
    assert torch.autograd.gradcheck(lambda one: loss(one, label), logits.requires_grad_())


@pytest.mark.parametrize("value", [0, 1, IGNORED])
def test_an_image_of_one_kind_gives_no_loss_and_no_gradient(value):
    logits, label = random_case((2, 1, 8, 9), seed=4)
    label[0] = value
    found = loss(logits.requires_grad_(), label)
    torch.testing.assert_close(found, loss(logits[1:], label[1:]))
    found.backward()
    assert logits.grad[0].abs().max() == 0
    alone = loss(logits[:1], label[:1])
    assert alone.item() == 0


def test_a_coarse_output_is_resized():
    logits, label = random_case((2, 1, 6, 8), seed=6)
    coarse = torch.full((2, 1, 3, 4), 1.7)
    found = BoundaryLoss()(logits, [coarse], label, 0.5) - loss(logits, label)
    torch.testing.assert_close(found, 0.25 * loss(torch.full((2, 1, 6, 8), 1.7), label))
    assert BoundaryLoss()(logits, [coarse], label, 0.0) == loss(logits, label)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    logits, label = random_case((1, 1, 300, 300), seed=7)
    found = loss(logits.to(dtype), label)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(logits.float(), label), rtol=1e-2, atol=0)


@pytest.mark.parametrize("balance", ["image", "batch"])
@pytest.mark.parametrize("value", [None, 0, IGNORED], ids=["both", "no boundary", "nothing"])
def test_parts_of_a_batch_add_up_to_the_whole(balance, value):
    logits, label = random_case((3, 1, 6, 8), seed=8)
    logits.requires_grad_()
    coarse = torch.nn.functional.avg_pool2d(logits, 2)
    if value is not None:
        label[:1] = value
    shares = [slice(0, 1), slice(1, 3)]

    def part(share, add=lambda sums: sums):
        return BoundaryLoss(add, balance)(logits[share], [coarse[share]], label[share], 0.5)

    recorded = [[], []]
    for share, sums in zip(shares, recorded, strict=True):
        part(share, lambda one, sums=sums: sums.append(one) or one)
    totals = [a + b for a, b in zip(*recorded, strict=True)]
    parts = []
    for share in shares:
        answers = iter(totals)
        parts.append(part(share, lambda _, answers=answers: next(answers)))
    whole = part(slice(None))
    torch.testing.assert_close(sum(parts), whole)
    gradients = [torch.autograd.grad(v, logits, retain_graph=True)[0] for v in (sum(parts), whole)]
    torch.testing.assert_close(*gradients)


def test_other_shapes_are_rejected():
    with pytest.raises(ValueError, match=r"logits \(2, 2, 5\) and label \(2, 1, 5\)"):
        loss(torch.zeros(2, 2, 5), torch.zeros(2, 1, 5))
