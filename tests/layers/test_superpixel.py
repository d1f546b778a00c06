"""The superpixel branch, the pooled scores of V1 and the last layer in its designs."""

import numpy as np
import pytest
import torch

from voxseg.layers.superpixel import SuperpixelBranch, SuperpixelClassifier, pool_scores

COUNT = 9
SIZES = pytest.mark.parametrize("size", [(5, 6, 7), (4, 7), (1, 1, 1)], ids=str)
REDUCE = pytest.mark.parametrize("reduce", ["max", "mean"])


def random_case(size, channels=4, seed=0):
    """Features (not contiguous) and superpixels with ignored voxels and an empty number."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(*size, channels, 2, generator=generator).movedim((-1, -2), (0, 1))
    superpixels = torch.randint(-1, COUNT - 1, (2, *size), generator=generator)
    return features, superpixels


def pooled_by_hand(features, superpixels, reduce):
    """(B, C, *S): each voxel's superpixel reduced, NaN in none; NumPy loops."""
    answer = np.full(features.shape, np.nan, dtype=np.float64)
    for b, labels in enumerate(superpixels.numpy()):
        for k in range(COUNT):
            inside = labels == k
            if inside.any():
                values = features[b].detach().numpy()[:, inside].astype(np.float64)
                reduced = values.max(1) if reduce == "max" else values.mean(1)
                answer[b][:, inside] = reduced[:, None]
    return answer


@SIZES
@REDUCE
@pytest.mark.parametrize("bias", [True, False])
def test_branch_matches_reference(size, reduce, bias):
    features, superpixels = random_case(size)
    branch = SuperpixelBranch(4, 3, reduce, bias=bias)
    offset = torch.tensor([1.0, -2.0, 3.0])
    with torch.no_grad():
        branch.linear.weight.normal_(generator=torch.Generator().manual_seed(1))
        if bias:
            branch.bias.copy_(offset)
        answer = branch(features, superpixels, COUNT).numpy()
    pooled = np.nan_to_num(pooled_by_hand(features, superpixels, reduce))
    weight = branch.linear.weight[..., 0].detach().numpy()
    expected = np.einsum("oc,bc...->bo...", weight, pooled)
    if bias:
        expected += offset.numpy().reshape(-1, *(1,) * len(size))
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-5)


@REDUCE
def test_branch_gradient(reduce):
    features, superpixels = random_case((2, 3, 2), channels=2)
    branch = SuperpixelBranch(2, 3, reduce).double()
    inputs = features.double().contiguous().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: branch(x, superpixels, COUNT), inputs)


def test_branch_does_not_mind_spare_numbers():
    features, superpixels = random_case((5, 6, 7))
    branch = SuperpixelBranch(4, 3)
    with torch.no_grad():
        torch.testing.assert_close(
            branch(features, superpixels, COUNT + 50), branch(features, superpixels, COUNT)
        )


def test_renaming_superpixels_changes_nothing():
    features, superpixels = random_case((5, 6, 7))
    names = torch.randperm(COUNT, generator=torch.Generator().manual_seed(2))
    renamed = torch.where(superpixels < 0, superpixels, names[superpixels.clamp_min(0)])
    branch = SuperpixelBranch(4, 3)
    with torch.no_grad():
        torch.testing.assert_close(
            branch(features, renamed, COUNT), branch(features, superpixels, COUNT)
        )


@SIZES
@REDUCE
def test_pool_scores_matches_reference(size, reduce):
    logits, superpixels = random_case(size)
    answer = pool_scores(logits, superpixels, COUNT, reduce=reduce).numpy()
    expected = pooled_by_hand(logits, superpixels, reduce)
    expected = np.where(np.isnan(expected), logits.numpy(), expected)
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6)


@REDUCE
def test_pool_scores_of_softmax_matches_reference(reduce):
    logits, superpixels = random_case((5, 6, 7))
    answer = pool_scores(logits, superpixels, COUNT, reduce=reduce, scores="softmax").exp().numpy()
    probabilities = logits.softmax(1)
    expected = pooled_by_hand(probabilities, superpixels, reduce)
    expected = np.where(np.isnan(expected), probabilities.numpy(), expected)
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6)


def test_pool_scores_of_softmax_can_choose_another_class():
    # Two voxels: class 0 has the larger logit, class 1 the larger probability.
    logits = torch.tensor([[[10.0, 0.0], [9.0, 8.0]]])
    superpixels = torch.zeros(1, 2, dtype=torch.int64)
    assert pool_scores(logits, superpixels, 1).argmax(1).tolist() == [[0, 0]]
    chosen = pool_scores(logits, superpixels, 1, scores="softmax").argmax(1)
    assert chosen.tolist() == [[1, 1]]


def test_pool_scores_of_hopeless_classes_stay_finite():
    logits = torch.tensor([[[500.0], [-500.0]]], requires_grad=True)
    superpixels = torch.zeros(1, 1, dtype=torch.int64)
    pooled = pool_scores(logits, superpixels, 1, scores="softmax")
    pooled.sum().backward()
    assert pooled.isfinite().all()
    assert logits.grad.isfinite().all()


@SIZES
def test_v3_is_the_sum_of_its_branches(size):
    features, superpixels = random_case(size)
    layer = SuperpixelClassifier(len(size), 4, 3, "V3")
    with torch.no_grad():
        torch.testing.assert_close(layer(features, superpixels, COUNT), layer.voxel(features))
        layer.superpixel.linear.weight.normal_(generator=torch.Generator().manual_seed(1))
        expected = layer.voxel(features) + layer.superpixel(features, superpixels, COUNT)
        torch.testing.assert_close(layer(features, superpixels, COUNT), expected)


@pytest.mark.parametrize(
    ("design", "names"),
    [
        ("V0", {"voxel.weight", "voxel.bias"}),
        ("V1", {"voxel.weight", "voxel.bias"}),
        ("V2", {"superpixel.linear.weight", "superpixel.bias"}),
        ("V3", {"voxel.weight", "voxel.bias", "superpixel.linear.weight"}),
    ],
)
def test_designs_share_names(design, names):
    assert set(SuperpixelClassifier(3, 4, 3, design).state_dict()) == names


@pytest.mark.parametrize("design", ["V2", "V3"])
def test_classifier_rejects_absent_superpixels(design):
    layer = SuperpixelClassifier(3, 4, 3, design)
    features, superpixels = random_case((5, 6, 7))
    with pytest.raises(ValueError, match="need superpixels"):
        layer(features)
    with pytest.raises(ValueError, match="need superpixels"):
        layer(features, superpixels)


def test_branch_rejects_other_reductions():
    with pytest.raises(ValueError, match="reduce must be 'max' or 'mean', got 'sum'"):
        SuperpixelBranch(4, 3, "sum")


def test_classifier_rejects_other_designs():
    with pytest.raises(ValueError, match="design must be one of"):
        SuperpixelClassifier(3, 4, 3, "v3")
