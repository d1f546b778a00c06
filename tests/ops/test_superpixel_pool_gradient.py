"""Gradients of superpixel pooling, and its registration with torch."""

import pytest
import torch

from voxseg.ops import portable, superpixel_pool, superpixel_unpool
from voxseg.ops.cpu import superpixel_pool as cpu

OPS = torch.ops.voxseg


def random_case(shape, *, B=2, C=3, K=5, seed=0):
    """Distinct float64 features, and superpixels with ignored voxels and an empty superpixel."""
    generator = torch.Generator().manual_seed(seed)
    numel = B * C * torch.Size(shape).numel()
    features = torch.randperm(numel, generator=generator).double().view(B, C, *shape) / numel
    superpixels = torch.randint(-1, K, (B, *shape), generator=generator)
    superpixels[superpixels == 3] = 2
    return features, superpixels, K


@pytest.mark.parametrize("reduce", ["max", "mean"])
@pytest.mark.parametrize("shape", [(7,), (3, 2), (2, 1, 3)], ids=str)
def test_superpixel_pool_gradient(reduce, shape, device):
    features, superpixels, K = random_case(shape)
    features, superpixels = features.to(device).requires_grad_(), superpixels.to(device)

    def pool(x):
        return superpixel_pool(x, superpixels, K, reduce)

    assert torch.autograd.gradcheck(pool, features)
    assert torch.autograd.gradgradcheck(lambda x: pool(x.sin()), features)


@pytest.mark.parametrize("shape", [(7,), (3, 2), (2, 1, 3)], ids=str)
def test_superpixel_unpool_gradient(shape, device):
    _, superpixels, K = random_case(shape)
    values = torch.randn(2, 3, K, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values, superpixels = values.to(device).requires_grad_(), superpixels.to(device)

    def unpool(x):
        return superpixel_unpool(x, superpixels)

    assert torch.autograd.gradcheck(unpool, values)
    assert torch.autograd.gradgradcheck(lambda x: unpool(x.sin()), values)


def test_superpixel_sum_gradient(device):
    features, superpixels, K = random_case((3, 4))
    features, superpixels = features.to(device).requires_grad_(), superpixels.to(device)
    assert torch.autograd.gradcheck(lambda x: OPS.superpixel_sum(x, superpixels, K), features)


@pytest.mark.parametrize("B", [1, 3, 4])
def test_every_image_gets_its_max_gradient(B, device):
    features, superpixels, K = random_case((3, 4, 5), B=B)
    features, superpixels = features.to(device).requires_grad_(), superpixels.to(device)
    grad = torch.rand(B, 3, K, generator=torch.Generator().manual_seed(1)).double().to(device)
    (found,) = torch.autograd.grad(superpixel_pool(features, superpixels, K), features, grad)
    labels = superpixels[:, None].expand_as(found).flatten(2)
    for k in range(K):
        inside = labels == k
        filled = inside.any(2)
        per_superpixel = (found.flatten(2) * inside).sum(2)
        torch.testing.assert_close(per_superpixel, grad[..., k] * filled, rtol=0, atol=0)
        winners = ((found.flatten(2) != 0) & inside).sum(2)
        assert torch.equal(winners, filled.long())
    assert not found.flatten(2)[labels < 0].any()


def test_mean_gradient_is_shared_evenly(device):
    features, superpixels, K = random_case((3, 4, 5))
    features, superpixels = features.to(device).requires_grad_(), superpixels.to(device)
    pooled = superpixel_pool(features, superpixels, K, "mean")
    (found,) = torch.autograd.grad(pooled.sum(), features)
    for b, image in enumerate(superpixels):
        for k in range(K):
            inside = image == k
            share = found[b, :, inside]
            torch.testing.assert_close(share, torch.full_like(share, 1 / max(1, inside.sum())))
        assert not found[b, :, image < 0].any()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d], ids=str)
def test_tied_maxima_give_the_gradient_to_the_first(layout, device):
    features = torch.zeros(2, 5, 3, 4, 5, device=device).contiguous(memory_format=layout)
    features.requires_grad_()
    labels = torch.arange(3, device=device).repeat_interleave(20).view(1, 3, 4, 5)
    pooled = superpixel_pool(features, labels.expand(2, 3, 4, 5), 4)
    (grad,) = torch.autograd.grad(pooled.sum(), features)
    expected = torch.zeros(2, 5, 60, device=device)
    expected[..., ::20] = 1
    torch.testing.assert_close(grad.flatten(2), expected, rtol=0, atol=0)


@pytest.mark.parametrize("reduce", ["max", "mean"])
@pytest.mark.parametrize("shape", [(5, 6), (3, 4, 5)], ids=str)
def test_gradients_keep_channels_last(reduce, shape, device):
    layout = torch.channels_last if len(shape) == 2 else torch.channels_last_3d
    features, superpixels, K = random_case(shape)
    superpixels = superpixels.to(device)
    grads = []
    for memory_format in (torch.contiguous_format, layout):
        x = features.to(device).contiguous(memory_format=memory_format).requires_grad_()
        pooled = superpixel_pool(x, superpixels, K, reduce)
        grads += torch.autograd.grad(pooled.square().sum(), x)
    torch.testing.assert_close(grads[1], grads[0], rtol=0, atol=1e-12)
    assert grads[0].is_contiguous()
    assert grads[1].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_large_gradients_are_allocated_aligned_and_zero(dtype, channels_last, monkeypatch):
    monkeypatch.setattr(cpu, "_HUGE_BYTES", 1)
    features, superpixels, K = random_case((3, 4, 5))
    _, argmax = cpu.superpixel_max(features, superpixels, K)
    grad = torch.rand(2, 3, K, generator=torch.Generator().manual_seed(1)).to(dtype)
    arguments = (argmax, list(features.shape), channels_last)
    for _ in range(3):
        found = cpu.superpixel_max_backward(grad, *arguments)
        expected = portable.superpixel_max_backward(grad, *arguments)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        assert found.stride() == expected.stride()
        assert found.data_ptr() % 64 == 0
        found.add_(1)  # what is freed now must not come back as zeros


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_gradients_have_the_dtype_of_features(dtype, reduce, device):
    features, superpixels, K = random_case((3, 4, 5))
    superpixels = superpixels.to(device)
    exact = features.to(dtype).double().to(device).requires_grad_()
    rounded = features.to(device, dtype).requires_grad_()
    (expected,) = torch.autograd.grad(superpixel_pool(exact, superpixels, K, reduce).sum(), exact)
    pooled = superpixel_pool(rounded, superpixels, K, reduce)
    (found,) = torch.autograd.grad(pooled.sum(), rounded)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected.to(dtype))
    unpooled = superpixel_unpool(pooled, superpixels)
    assert unpooled.dtype == dtype


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d], ids=str)
@pytest.mark.parametrize("labels_dtype", [torch.int32, torch.int64])
def test_pool_opcheck(layout, labels_dtype, device):
    features, superpixels, K = random_case((3, 4, 5))
    features = features.to(device).contiguous(memory_format=layout).requires_grad_()
    superpixels = superpixels.to(device, labels_dtype)
    for op in (OPS.superpixel_max, OPS.superpixel_mean, OPS.superpixel_sum):
        torch.library.opcheck(op.default, (features, superpixels, K))


@pytest.mark.parametrize("channels_last", [False, True])
def test_unpool_and_backward_opcheck(channels_last, device):
    features, superpixels, K = random_case((3, 4, 5))
    superpixels = superpixels.to(device, torch.int32)
    values, argmax = OPS.superpixel_max(features.to(device), superpixels, K)
    values = values.detach().requires_grad_()
    torch.library.opcheck(OPS.superpixel_unpool.default, (values, superpixels, channels_last))
    arguments = (values, argmax, list(features.shape), channels_last)
    torch.library.opcheck(OPS.superpixel_max_backward.default, arguments)


# Torch's own tracing warns about its own internals; what it warns of differs between releases.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_compiled_gradient_equals_eager(reduce, device):
    features, superpixels, K = random_case((3, 4, 5))
    superpixels = superpixels.to(device)

    def loss(x, count):
        pooled = superpixel_pool(x * 2, superpixels, count, reduce)
        return superpixel_unpool(pooled, superpixels).square().sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for count in (K, K + 2):
        x = features.to(device).requires_grad_()
        (expected,) = torch.autograd.grad(loss(x, count), x)
        (found,) = torch.autograd.grad(compiled(x, count), x)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("backend", [cpu, portable], ids=["cpu", "portable"])
def test_fake_results_describe_real_ones(backend):
    features, superpixels, K = random_case((3, 4, 5))
    for x in (features, features.half().contiguous(memory_format=torch.channels_last_3d)):
        for name in ("superpixel_max", "superpixel_mean"):
            fakes = getattr(OPS, name)(x.to("meta"), superpixels.to("meta"), K)
            for fake, real in zip(fakes, getattr(backend, name)(x, superpixels, K), strict=True):
                assert (fake.shape, fake.dtype, fake.stride()) == (
                    real.shape,
                    real.dtype,
                    real.stride(),
                )
