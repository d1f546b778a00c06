"""The loss of surface normals: by hand, against a plain sum, at its edges, over processes."""

import math

import pytest
import torch

from voxseg.tasks.normals import SHORTEST, NormalsLoss, unit_vectors


def random_case(shape, seed, unknown=0.3):
    """Outputs of any length, and normals of length 1 or 0."""
    generator = torch.Generator().manual_seed(seed)
    outputs, normals = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    normals /= normals.norm(dim=1, keepdim=True)
    known = torch.rand((shape[0], 1, *shape[2:]), generator=generator) > unknown
    return outputs, normals * known


def slow(outputs, normals):
    """Mean of 1 - cosine, pixel by pixel."""
    total, number = 0.0, 0
    flat = (one.flatten(2).permute(0, 2, 1).reshape(-1, 3).tolist() for one in (outputs, normals))
    for output, normal in zip(*flat, strict=True):
        if not any(normal):
            continue
        length = math.sqrt(sum(part * part for part in output))
        total += 1 - sum(a * b for a, b in zip(output, normal, strict=True)) / length
        number += 1
    return total / number


def loss(outputs, normals, **more):
    return NormalsLoss(**more)(outputs, [], normals, 0.0)


def test_by_hand():
    """The same direction is 0, a right angle 1, the opposite 2; without a normal nothing counts."""
    normals = torch.tensor([[0.0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0]]).T[None]
    outputs = torch.tensor([[0.0, 0, 7], [0, 0, 0.5], [-3, 0, 0], [1, 2, 3]]).T[None]
    assert loss(outputs, normals) == pytest.approx((0 + 1 + 2) / 3)
    # 60 degrees apart: half of (1 - 1/2)^2 + 3/4.
    outputs = torch.tensor([[0, math.sqrt(3), 1.0]]).T[None]
    assert loss(outputs, normals[..., :1]) == pytest.approx(1 - math.cos(math.radians(60)))


@pytest.mark.parametrize("shape", [(2, 3, 5, 6), (3, 3, 11), (1, 3, 2, 3, 4)], ids=str)
def test_loss_matches_reference(shape):
    outputs, normals = random_case(shape, seed=len(shape))
    assert float(loss(outputs, normals)) == pytest.approx(slow(outputs, normals), rel=1e-6)


def test_length_of_an_output_does_not_matter():
    outputs, normals = random_case((2, 3, 5, 6), seed=0)
    torch.testing.assert_close(loss(100 * outputs, normals), loss(outputs, normals))


def test_gradient(monkeypatch):
    """In float64, which ``float`` would round."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    outputs, normals = random_case((2, 3, 3, 2), seed=1)
    assert torch.autograd.gradcheck(lambda one: loss(one, normals), outputs.requires_grad_())


def test_unknown_pixels_pass_no_gradient():
    outputs, normals = random_case((2, 3, 5, 6), seed=2)
    loss(outputs.requires_grad_(), normals).backward()
    has_gradient = outputs.grad.abs().sum(1) > 0
    assert (has_gradient == (normals != 0).any(1)).all()


def test_an_output_of_length_zero_is_drawn_to_the_truth():
    normals = torch.tensor([[0.0, 0.6, 0.8]]).T[None]
    outputs = torch.zeros(1, 3, 1, requires_grad=True)
    found = loss(outputs, normals)
    assert float(found.detach()) == pytest.approx(0.5)  # half of the truth's own length
    found.backward()
    torch.testing.assert_close(outputs.grad, -normals / SHORTEST)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    outputs, normals = random_case((1, 3, 300, 300), seed=3)
    found = loss(outputs.to(dtype), normals.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(outputs.float(), normals.float()), rtol=1e-3, atol=0)


def test_nothing_known_is_no_loss():
    outputs, normals = random_case((2, 3, 4), seed=4)
    found = loss(outputs.requires_grad_(), torch.zeros_like(normals))
    found.backward()
    assert float(found.detach()) == 0
    assert not outputs.grad.any()
    empty = torch.zeros(2, 3, 0)
    assert float(loss(empty, empty)) == 0


def test_processes_that_share_a_batch_add_up():
    """Also where one of them has nothing that counts."""
    outputs, normals = random_case((4, 3, 5, 6), seed=5)
    normals[3] = 0
    whole = outputs.clone().requires_grad_()
    expected = loss(whole, normals)
    expected.backward()
    number = (normals != 0).any(1).sum()
    parts = outputs.clone().requires_grad_()
    total = 0
    for share in (slice(0, 1), slice(1, 3), slice(3, 4)):
        own = (normals[share] != 0).any(1).sum()
        part = loss(parts[share], normals[share], add=lambda count, own=own: count + number - own)
        part.backward()
        total += float(part.detach())
    assert total == pytest.approx(float(expected.detach()), rel=1e-6)
    torch.testing.assert_close(parts.grad, whole.grad)


def test_coarser_outputs_are_compared_with_mean_normals():
    """A cell of one known normal has that one; of two, what lies between; of opposite ones none."""
    x, y, z, none = [1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0, 0, 0.0]
    rows = [[x, none, z, z], [none, none, y, y]]
    rows += [[x, [-1.0, 0, 0], none, none], [none, none, none, none]]
    normals = torch.tensor(rows).permute(2, 0, 1)[None]
    half = math.sqrt(0.5)
    coarse = torch.tensor([[x, [0, half, half]], [z, z]]).permute(2, 0, 1)[None]
    fine = normals + 1e-6
    found = NormalsLoss()(fine, [coarse.clone()], normals, 1.0)
    torch.testing.assert_close(found, loss(fine, normals))  # the coarse one is right: nothing more
    wrong = NormalsLoss()(fine, [-coarse], normals, 1.0) - loss(fine, normals)
    assert float(wrong) == pytest.approx(0.5 * 2)  # half the weight, opposite in both cells


def test_unit_vectors_have_length_1():
    outputs, _ = random_case((2, 3, 4, 5), seed=6)
    torch.testing.assert_close(unit_vectors(outputs).norm(dim=1), torch.ones(2, 4, 5))


def test_loss_rejects_other_shapes():
    with pytest.raises(ValueError, match=r"must both be \(B, 3, \*S\)"):
        loss(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match=r"\(1, 3, 4\)"):
        loss(torch.zeros(1, 3, 4), torch.zeros(1, 3, 5))
