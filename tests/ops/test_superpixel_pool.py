"""Values of superpixel pooling: reference, layouts, dtypes, edge cases and identities."""

import math

import numpy as np
import pytest
import torch

from voxseg.ops import portable, superpixel_pool, superpixel_unpool
from voxseg.ops.cpu import superpixel_pool as cpu
from voxseg.ops.reference import superpixel_pool as reference

SHAPES = [(11,), (5, 6), (3, 4, 5), (1, 7, 1)]
# Backends that run on CPU tensors; the public op is tested through the device fixture.
BACKENDS = pytest.mark.parametrize("backend", [cpu, portable], ids=["cpu", "portable"])


def random_case(shape, *, B=2, C=5, K=7, dtype=torch.float64, seed=0):
    """Features, and superpixels with ignored voxels and an empty superpixel."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn((B, C, *shape), generator=generator, dtype=torch.float64).to(dtype)
    superpixels = torch.randint(-1, K, (B, *shape), generator=generator)
    superpixels[superpixels == 3] = 2
    return features, superpixels, K


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("B", [1, 4])
@pytest.mark.parametrize("C", [1, 4, 7])
def test_superpixel_pool_matches_reference(shape, B, C, device):
    features, superpixels, K = random_case(shape, B=B, C=C)
    maxima, _ = reference.superpixel_max(features.numpy(), superpixels.numpy(), K)
    means = reference.superpixel_mean(features.numpy(), superpixels.numpy(), K)
    features, superpixels = features.to(device), superpixels.to(device)
    np.testing.assert_array_equal(superpixel_pool(features, superpixels, K).cpu(), maxima)
    found = superpixel_pool(features, superpixels, K, "mean").cpu()
    np.testing.assert_allclose(found, means, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_superpixel_unpool_matches_reference(shape, device):
    _, superpixels, K = random_case(shape)
    values = torch.randn(2, 5, K, generator=torch.Generator().manual_seed(1))
    expected = reference.superpixel_unpool(values.numpy(), superpixels.numpy())
    found = superpixel_unpool(values.to(device), superpixels.to(device))
    np.testing.assert_array_equal(found.cpu(), expected)


@BACKENDS
@pytest.mark.parametrize("shape", [*SHAPES, (33, 20, 31)], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_backends_match_reference(backend, shape, channels_last):
    # The largest shape is cut into slabs; its values repeat, so it is full of ties.
    features, superpixels, K = random_case(shape, C=11)
    features = features.mul(2).round()
    laid_out = features.movedim(1, -1).contiguous().movedim(-1, 1) if channels_last else features
    grad = torch.randn(2, 11, K, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    maxima, argmax = reference.superpixel_max(features.numpy(), superpixels.numpy(), K)
    scattered = reference.superpixel_max_backward(grad.numpy(), argmax, tuple(features.shape))
    sums = reference.superpixel_sum(features.numpy(), superpixels.numpy(), K)

    found = backend.superpixel_max(laid_out, superpixels, K)
    np.testing.assert_array_equal(found[0], maxima)
    np.testing.assert_array_equal(found[1], argmax)
    size = list(features.shape)
    np.testing.assert_array_equal(
        backend.superpixel_max_backward(grad, found[1], size, channels_last), scattered
    )
    np.testing.assert_array_equal(backend.superpixel_sum(laid_out, superpixels, K), sums)
    means, sizes = backend.superpixel_mean(laid_out, superpixels, K)
    np.testing.assert_array_equal(
        sizes, [np.bincount(image[image >= 0], minlength=K) for image in superpixels.numpy()]
    )
    np.testing.assert_allclose(
        means, reference.superpixel_mean(features.numpy(), superpixels.numpy(), K), rtol=1e-14
    )
    unpooled = backend.superpixel_unpool(grad, superpixels, channels_last)
    np.testing.assert_array_equal(
        unpooled, reference.superpixel_unpool(grad.numpy(), superpixels.numpy())
    )


@BACKENDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_superpixel_max_matches_reference_on_special_values(backend, dtype, channels_last, seed):
    # Every mixture of ties, infinities, zeros of both signs and NaN; 70 channels fill a whole row
    # of a table and start another.
    rng = np.random.default_rng(seed)
    C, P, K = [1, 7, 8, 17, 65, 70][seed], int(rng.integers(1, 60)), 9
    specials = np.array([np.nan, -np.inf, np.inf, -0.0, 0.0, 1.0, -1.0])
    features = rng.choice(specials[: rng.integers(2, 8)], (2, C, P, 1))
    superpixels = rng.integers(-2, K + 2, (2, P, 1))
    values, argmax = reference.superpixel_max(features, superpixels, K)
    x = torch.from_numpy(features).to(dtype)
    x = x.movedim(1, -1).contiguous().movedim(-1, 1) if channels_last else x
    found = backend.superpixel_max(x, torch.from_numpy(superpixels), K)
    np.testing.assert_array_equal(found[1], argmax)
    np.testing.assert_array_equal(found[0], values)


def layouts(features):
    """The same values, laid out in memory in every way that the op meets."""
    wide = torch.cat([features, features], dim=1)
    padded = torch.nn.functional.pad(features, (1, 2))
    return {
        "channels_last": features.contiguous(memory_format=torch.channels_last_3d),
        "channel slice": wide[:, : features.shape[1]],
        "channel slice, channels last": wide.contiguous(memory_format=torch.channels_last_3d)[
            :, : features.shape[1]
        ],
        "permuted axes": features.transpose(2, 4).contiguous().transpose(2, 4),
        "spatial crop": padded[..., 1:-2],
        "every other image": torch.stack([features, features], dim=1).flatten(0, 1)[::2],
    }


@BACKENDS
@pytest.mark.parametrize("name", list(layouts(torch.zeros(2, 5, 3, 4, 5))))
def test_superpixel_pool_accepts_any_layout(backend, name):
    features, superpixels, K = random_case((3, 4, 5))
    laid_out = layouts(features)[name]
    torch.testing.assert_close(laid_out, features, rtol=0, atol=0)
    for op in (backend.superpixel_max, backend.superpixel_mean):
        for found, expected in zip(
            op(laid_out, superpixels, K), op(features, superpixels, K), strict=True
        ):
            # Sums are added in another order channels last; all else is exact.
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)


def test_superpixel_pool_accepts_any_label_layout(device):
    features, superpixels, K = (
        part.to(device) if isinstance(part, torch.Tensor) else part
        for part in random_case((3, 4, 5))
    )
    expected = superpixel_pool(features, superpixels, K)
    transposed = superpixels.transpose(1, 3).contiguous().transpose(1, 3)
    for labels in (transposed, superpixels.to(torch.int32), superpixels.to(torch.int8)):
        torch.testing.assert_close(superpixel_pool(features, labels, K), expected)
    shared = superpixels[:1].expand(2, -1, -1, -1)
    torch.testing.assert_close(
        superpixel_pool(features, shared, K), superpixel_pool(features, shared.contiguous(), K)
    )
    unsigned = superpixels.clamp_min(0).to(torch.uint8)
    torch.testing.assert_close(
        superpixel_pool(features, unsigned, K), superpixel_pool(features, unsigned.long(), K)
    )


@pytest.mark.parametrize("reduce", ["max", "mean"])
@pytest.mark.parametrize("label", [-1, -(2**31), 7, 2**31 - 1, 2**32 + 2, -(2**32) + 2, 2**63 - 1])
def test_superpixel_pool_ignores_labels_outside(reduce, label, device):
    features, superpixels, K = random_case((5, 6))
    inside = superpixels >= 0
    superpixels[~inside] = label
    expected = superpixel_pool(features, superpixels.where(inside, -1), K, reduce)
    found = superpixel_pool(features.to(device), superpixels.to(device), K, reduce)
    # A device adds in another order.
    rtol = 1e-12 if reduce == "mean" and device.type != "cpu" else 0.0
    torch.testing.assert_close(found.cpu(), expected, rtol=rtol, atol=0)
    unpooled = superpixel_unpool(found, superpixels.to(device)).cpu()
    assert (unpooled.movedim(1, -1)[~inside] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 6), (31, 20, 33)], ids=str)
def test_superpixel_pool_accumulates_half_precision_in_float(dtype, shape, device, monkeypatch):
    # A small limit cuts the channels into several float32 copies.
    monkeypatch.setattr(cpu, "_HALF_VOXELS", 1000)
    features, superpixels, K = random_case(shape, C=9, dtype=dtype)
    superpixels = superpixels.to(device)
    for reduce in ("max", "mean"):
        found = superpixel_pool(features.to(device), superpixels, K, reduce)
        expected = superpixel_pool(features.to(device).float(), superpixels, K, reduce).to(dtype)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_superpixel_pool_means_do_not_overflow(device):
    ones = torch.full((1, 1, 70_001), 2.0, dtype=torch.float16, device=device)
    labels = torch.zeros(1, 70_001, dtype=torch.int32, device=device)
    assert superpixel_pool(ones, labels, 1, "mean").item() == 2.0


def test_superpixel_pool_means_keep_small_addends(device):
    # In float32, 2**24 + 1 = 2**24: plain float32 sums would lose every one of the ones, which is
    # 2.4e-4 of the mean; on a device those are lost that one lane of a warp adds up.
    features = torch.ones(1, 1, 4097, device=device)
    features[0, 0, 0] = 2.0**24
    labels = torch.zeros(1, 4097, dtype=torch.int64, device=device)
    expected = (2.0**24 + 4096) / 4097
    found = superpixel_pool(features, labels, 1, "mean").item()
    assert found == pytest.approx(expected, rel=1e-7 if device.type == "cpu" else 1e-5)


def test_superpixel_max_extreme_values(device):
    inf, nan = math.inf, math.nan
    features = torch.tensor([[[-inf, -inf, nan, 1.0, nan, inf, inf, -0.0, 0.0, -(2.0**90), 5.0]]])
    superpixels = torch.tensor([[0, 0, 1, 1, 1, 2, 2, 3, 3, 4, -1]])
    features, superpixels = features.to(device), superpixels.to(device)
    values, argmax = torch.ops.voxseg.superpixel_max(features, superpixels, 6)
    np.testing.assert_array_equal(values[0, 0].cpu(), [-inf, nan, inf, 0, -(2.0**90), 0])
    np.testing.assert_array_equal(argmax[0, 0].cpu(), [0, 2, 5, 7, 9, -1])
    assert torch.signbit(values[0, 0, 3]).item()
    for layout in (torch.contiguous_format, torch.channels_last):
        wide = features[..., None].expand(1, 3, 11, 2).contiguous(memory_format=layout)
        labels = superpixels[..., None].expand(1, 11, 2)
        values, argmax = torch.ops.voxseg.superpixel_max(wide, labels, 6)
        np.testing.assert_array_equal(argmax[0, 1].cpu(), [0, 4, 10, 14, 18, -1])
        np.testing.assert_array_equal(values[0, 2].cpu(), [-inf, nan, inf, 0, -(2.0**90), 0])


@pytest.mark.parametrize("channels_last", [False, True])
def test_superpixel_max_merges_slabs(channels_last):
    # Large enough to be cut into slabs, with the first NaN, the only -inf and ties in late ones.
    P, K = 40_000, 4
    features = torch.zeros(1, 2, P, 1)
    superpixels = torch.arange(P).div(P // 2, rounding_mode="floor")[None, :, None]
    superpixels[0, 39_990:] = 3
    features[0, :, 39_990:] = -math.inf
    features[0, :, 30_001] = features[0, :, 35_000] = math.nan
    features[0, :, 19_998:20_000] = 7.0
    layout = torch.channels_last if channels_last else torch.contiguous_format
    values, argmax = cpu.superpixel_max(
        features.contiguous(memory_format=layout), superpixels.to(torch.int32), K
    )
    np.testing.assert_array_equal(argmax[0, 1], [19_998, 30_001, -1, 39_990])
    np.testing.assert_array_equal(values[0, 0], [7.0, math.nan, 0.0, -math.inf])


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_superpixel_pool_is_the_same_for_any_number_of_threads(reduce):
    # In float64 another order of additions would show.
    features, superpixels, K = random_case((41, 40, 39), B=1, C=3, K=30)
    found = []
    before = torch.get_num_threads()
    try:
        for num_threads in (1, 2, 3):
            torch.set_num_threads(num_threads)
            for layout in (torch.contiguous_format, torch.channels_last_3d):
                x = features.contiguous(memory_format=layout).requires_grad_()
                pooled = superpixel_pool(x, superpixels, K, reduce)
                (grad,) = torch.autograd.grad(pooled.square().sum(), x)
                found.append((pooled.detach(), grad))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(found[:2] * 2, found[2:], strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=0)


def test_superpixel_max_offsets_beyond_two_to_the_31():
    # Zero pages of the system stand in for 8.6 GB of features: only what is written takes memory.
    C, P = 2**11 + 1, 2**20
    memory = np.zeros(C * P, np.float32)
    features = torch.from_numpy(memory).view(1, C, P)
    features[0, -1, -5] = 3.0
    labels = torch.full((1, P), -1, dtype=torch.int32)
    labels[0, -9:] = 1
    values, argmax = cpu.superpixel_max(features, labels, 2)
    assert features.numel() > 2**31
    assert values[0, -1].tolist() == [0.0, 3.0]
    assert argmax[0, -1].tolist() == [-1, P - 5]
    assert values[0, :-1].abs().sum() == 0


@pytest.mark.parametrize("channels_last", [False, True])
def test_superpixel_max_with_64_bit_indices(channels_last, monkeypatch):
    features, superpixels, K = random_case((3, 4, 5))
    if channels_last:
        features = features.contiguous(memory_format=torch.channels_last_3d)
    expected = reference.superpixel_max(features.numpy(), superpixels.numpy(), K)[1]
    monkeypatch.setattr(cpu, "index_dtype", lambda _: torch.int64)
    _, argmax = cpu.superpixel_max(features, superpixels, K)
    assert argmax.dtype == torch.int64
    np.testing.assert_array_equal(argmax, expected)
    grad = torch.ones(2, 5, K, dtype=torch.float64)
    found = cpu.superpixel_max_backward(grad, argmax, list(features.shape), channels_last)
    assert found.sum() == (argmax >= 0).sum()
    assert portable.index_dtype(2**31 - 1) == torch.int32
    assert portable.index_dtype(2**31) == torch.int64


@pytest.mark.parametrize("size", [(0, 2, 3, 4), (2, 0, 3, 4), (2, 2, 0, 4)], ids=str)
@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_superpixel_pool_of_nothing(size, reduce, device):
    features = torch.ones(size, device=device, requires_grad=True)
    labels = torch.zeros((size[0], *size[2:]), dtype=torch.int64, device=device)
    pooled = superpixel_pool(features, labels, 3, reduce)
    torch.testing.assert_close(pooled, torch.zeros(size[0], size[1], 3, device=device))
    (grad,) = torch.autograd.grad(pooled.sum(), features)
    assert grad.shape == features.shape
    assert superpixel_pool(features, labels, 0, reduce).shape == (size[0], size[1], 0)
    assert superpixel_unpool(pooled, labels).shape == features.shape


def test_no_superpixels_unpool_to_zero(device):
    labels = torch.zeros(2, 3, 4, dtype=torch.int64, device=device)
    unpooled = superpixel_unpool(torch.ones(2, 5, 0, device=device), labels)
    torch.testing.assert_close(unpooled, torch.zeros(2, 5, 3, 4, device=device))


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_one_voxel_per_superpixel_is_identity(reduce, device):
    features = random_case((3, 4, 5))[0].to(device)
    labels = torch.arange(60, device=device).flip(0).view(1, 3, 4, 5).expand(2, 3, 4, 5)
    pooled = superpixel_pool(features, labels, 60, reduce)
    torch.testing.assert_close(superpixel_unpool(pooled, labels), features, rtol=0, atol=0)


def test_one_superpixel_is_global_pooling(device):
    features = random_case((3, 4, 5))[0].to(device)
    labels = torch.zeros(2, 3, 4, 5, dtype=torch.int64, device=device)
    maxima = superpixel_pool(features, labels, 1)
    torch.testing.assert_close(maxima[..., 0], features.amax((2, 3, 4)), rtol=0, atol=0)
    means = superpixel_pool(features, labels, 1, "mean")
    torch.testing.assert_close(means[..., 0], features.mean((2, 3, 4)))


def test_blocks_are_strided_pooling(device):
    features = random_case((6, 4, 8))[0].to(device)
    z, y, x = torch.meshgrid(torch.arange(6), torch.arange(4), torch.arange(8), indexing="ij")
    labels = ((z // 2 * 2 + y // 2) * 4 + x // 2).expand(2, 6, 4, 8).to(device)
    maxima = superpixel_pool(features, labels, 24).view(2, 5, 3, 2, 4)
    expected = torch.nn.functional.max_pool3d(features, 2)
    torch.testing.assert_close(maxima, expected, rtol=0, atol=0)
    means = superpixel_pool(features, labels, 24, "mean").view(2, 5, 3, 2, 4)
    torch.testing.assert_close(means, torch.nn.functional.avg_pool3d(features, 2))


def test_unpooled_means_are_idempotent(device):
    features, superpixels, K = random_case((5, 6))
    superpixels = superpixels.to(device)
    once = superpixel_unpool(
        superpixel_pool(features.to(device), superpixels, K, "mean"), superpixels
    )
    twice = superpixel_unpool(superpixel_pool(once, superpixels, K, "mean"), superpixels)
    torch.testing.assert_close(twice, once)


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_renaming_superpixels_permutes_columns(reduce, device):
    features, superpixels, K = random_case((5, 6))
    names = torch.randperm(K, generator=torch.Generator().manual_seed(2))
    renamed = names[superpixels.clamp_min(0)].where(superpixels >= 0, -1)
    features = features.to(device)
    pooled = superpixel_pool(features, superpixels.to(device), K, reduce)
    found = superpixel_pool(features, renamed.to(device), K, reduce)
    torch.testing.assert_close(found[..., names.to(device)], pooled, rtol=0, atol=0)


def test_superpixel_unpool_lays_channels_last(device):
    _, superpixels, K = random_case((3, 4, 5))
    values = torch.randn(2, 5, K, generator=torch.Generator().manual_seed(1)).to(device)
    labels = superpixels.to(device)
    found = superpixel_unpool(values, labels, memory_format=torch.channels_last_3d)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(found, superpixel_unpool(values, labels), rtol=0, atol=0)
