"""The CUDA twin of pooling: its kernels run on a CPU, through its own launcher.

On a GPU the same ops are tested through the ``device`` fixture, by the other files of this folder.
"""

import numpy as np
import pytest
import torch

from voxseg.ops import nvrtc, superpixel_plan, superpixel_pool
from voxseg.ops.cuda import superpixel_pool as cuda
from voxseg.ops.reference import superpixel_pool as reference
from voxseg.ops.superpixel_plan import Tiles, find_tiles_if_worth_it, make_tiles

KINDS = ["regions", "noise", "one", "none"]
# Vectors are read where rows are a multiple of 16 bytes; 17 and 33 leave tails in every tile.
SHAPES = [(17, 9, 33), (8, 16, 64), (40, 70), (32, 64), (2100,), (1, 1, 3)]


def case(shape, kind, *, B=2, C=5, seed=0, dtype=torch.float32, channels_last=False):
    """Features full of ties, and labels (B, *S) int32 with ignored voxels of both kinds."""
    rng = np.random.default_rng(seed)
    features = torch.from_numpy(rng.integers(-3, 4, (B, C, *shape)) / 2.0).to(dtype)
    if channels_last:
        features = features.movedim(1, -1).contiguous().movedim(-1, 1)
    K = {"regions": 12, "noise": 150, "one": 1, "none": 3}[kind]
    if kind == "regions":
        grid = np.indices(shape) // 6
        labels = np.stack([(grid * 3**b).sum(0) % K for b in range(B)])
        labels[rng.random(labels.shape) < 0.05] = -1
        labels[rng.random(labels.shape) < 0.05] = K
    else:
        low, high = {"noise": (-1, K + 1), "one": (0, 1), "none": (-1, 0)}[kind]
        labels = rng.integers(low, high, (B, *shape))
    return features, torch.from_numpy(labels).int(), K


def planned(labels, count):
    """Make later maxima go by tiles, as they do from the second use of a label map on."""
    return find_tiles_if_worth_it(labels, count)


@pytest.mark.parametrize("channels_last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels_match_the_reference(shape, kind, channels_last, cuda_on_cpu):
    features, labels, K = case(shape, kind, channels_last=channels_last)
    maxima, argmax = reference.superpixel_max(features.numpy(), labels.numpy(), K)
    with cuda_on_cpu.on_cpu(seed=1):
        for _ in range(2):  # by atomics, then by tiles
            values, winners = cuda.superpixel_max(features, labels, K)
            np.testing.assert_array_equal(winners, argmax)
            np.testing.assert_array_equal(values, maxima)
        means, sizes = cuda.superpixel_mean(features, labels, K)
        sums = cuda.superpixel_sum(features, labels, K)
        grad = torch.randn(2, 5, K, generator=torch.Generator().manual_seed(0))
        size = list(features.shape)
        scattered = cuda.superpixel_max_backward(grad, winners, size, channels_last)
        unpooled = cuda.superpixel_unpool(grad, labels, channels_last)
    inside = [image[(image >= 0) & (image < K)] for image in labels.numpy()]
    np.testing.assert_array_equal(sizes, [np.bincount(image, minlength=K) for image in inside])
    # Halves of small whole numbers add up without rounding.
    np.testing.assert_array_equal(
        sums, reference.superpixel_sum(features.numpy(), labels.numpy(), K)
    )
    expected = reference.superpixel_mean(features.double().numpy(), labels.numpy(), K)
    np.testing.assert_allclose(means, expected, rtol=1e-6, atol=1e-7)
    expected = reference.superpixel_max_backward(grad.numpy(), argmax, tuple(size))
    np.testing.assert_array_equal(scattered, expected)
    np.testing.assert_array_equal(
        unpooled, reference.superpixel_unpool(grad.numpy(), labels.numpy())
    )
    assert scattered.movedim(1, -1).is_contiguous() == channels_last


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(9, 8, 64), (5, 7, 31)], ids=str)
@pytest.mark.parametrize("channels_last", [False, True], ids=["first", "last"])
def test_half_types_accumulate_in_float32(dtype, shape, channels_last, cuda_on_cpu):
    features, labels, K = case(shape, "regions", C=6, dtype=dtype, channels_last=channels_last)
    wide = features.double().numpy()
    with cuda_on_cpu.on_cpu(seed=1):
        planned(labels, K)
        values, winners = cuda.superpixel_max(features, labels, K)
        means, _ = cuda.superpixel_mean(features, labels, K)
        scattered = cuda.superpixel_max_backward(
            values, winners, list(features.shape), channels_last
        )
        unpooled = cuda.superpixel_unpool(values, labels, channels_last)
    maxima, argmax = reference.superpixel_max(wide, labels.numpy(), K)
    np.testing.assert_array_equal(values.double(), maxima)
    np.testing.assert_array_equal(winners, argmax)
    expected = torch.from_numpy(reference.superpixel_mean(wide, labels.numpy(), K)).to(dtype)
    torch.testing.assert_close(means, expected, rtol=torch.finfo(dtype).eps, atol=0)
    expected = reference.superpixel_max_backward(maxima, argmax, features.shape)
    np.testing.assert_array_equal(scattered.double(), expected)
    expected = reference.superpixel_unpool(maxima, labels.numpy())
    np.testing.assert_array_equal(unpooled.double(), expected)


def special_case(C):
    """Features of NaN, infinities and zeros of both signs, labels for 38 superpixels."""
    rng = np.random.default_rng(C)
    specials = np.array([np.nan, -np.inf, np.inf, -0.0, 0.0, 1.0, -1.0], np.float32)
    features = torch.from_numpy(rng.choice(specials, (2, C, 3, 5, 40)))
    # Stripes of 16 voxels: regions long enough for tiles, small enough to differ in what they hold.
    labels = torch.arange(600).div(16, rounding_mode="floor").int().reshape(1, 3, 5, 40)
    labels = labels.repeat(2, 1, 1, 1)
    assert make_tiles(labels, 38).is_coherent
    return features, labels


def check_specials(features, labels, device):
    values, argmax = reference.superpixel_max(features.float().numpy(), labels.numpy(), 38)
    features, labels = features.to(device), labels.to(device)
    for _ in range(2):  # by atomics, then by tiles
        found = [part.cpu() for part in cuda.superpixel_max(features, labels, 38)]
        np.testing.assert_array_equal(found[1], argmax)
        np.testing.assert_array_equal(found[0].float(), values)
        np.testing.assert_array_equal(found[0].signbit(), np.signbit(values))


@pytest.mark.parametrize("channels_last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("C", [1, 7, 33, 70])
def test_special_values_and_many_channels(C, channels_last, cuda_on_cpu):
    features, labels = special_case(C)
    if channels_last:
        features = features.contiguous(memory_format=torch.channels_last_3d)
    with cuda_on_cpu.on_cpu(seed=3):
        check_specials(features, labels, "cpu")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_special_values_of_half_types(dtype, cuda_on_cpu):
    features, labels = special_case(9)
    with cuda_on_cpu.on_cpu(seed=3):
        check_specials(features.to(dtype), labels, "cpu")


@pytest.mark.cuda
@pytest.mark.parametrize("channels_last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_special_values_on_a_gpu(dtype, channels_last, cuda_device):
    features, labels = special_case(19)
    features = features.to(dtype)
    if channels_last:
        features = features.contiguous(memory_format=torch.channels_last_3d)
    check_specials(features, labels, cuda_device)


@pytest.mark.parametrize("channels_last", [False, True], ids=["first", "last"])
def test_a_tile_of_more_rows_than_warps_hold(channels_last, cuda_on_cpu, monkeypatch):
    features, _, _ = case((8, 8, 32), "noise", B=1, channels_last=channels_last)
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 1000, (1, 8, 8, 32))).int()
    monkeypatch.setattr(Tiles, "is_coherent", True)
    assert make_tiles(labels, 1000).rows.numel() > 32 * 8
    planned(labels, 1000)
    maxima, argmax = reference.superpixel_max(features.numpy(), labels.numpy(), 1000)
    with cuda_on_cpu.on_cpu(seed=1):
        values, winners = cuda.superpixel_max(features, labels, 1000)
        sums = cuda.superpixel_sum(features, labels, 1000)
    np.testing.assert_array_equal(winners, argmax)
    np.testing.assert_array_equal(values, maxima)
    expected = reference.superpixel_sum(features.numpy(), labels.numpy(), 1000)
    np.testing.assert_array_equal(sums, expected)


def test_slices_and_crops_are_read_right(cuda_on_cpu):
    wide, labels, K = case((9, 8, 33), "regions", C=8)
    views = {
        "channels": wide[:, 2:5],
        "crop": wide[..., 1:],
        "images": wide.repeat_interleave(2, 0)[::2],
        "transposed": wide.transpose(2, 3).contiguous().transpose(2, 3),
        "channels of channels last": wide.contiguous(memory_format=torch.channels_last_3d)[:, 1:4],
    }
    for name, features in views.items():
        own = labels[..., 1:] if name == "crop" else labels
        maxima, _ = reference.superpixel_max(features.numpy(), own.numpy(), K)
        with cuda_on_cpu.on_cpu(seed=1):
            for _ in range(2):
                found, _ = cuda.superpixel_max(features, own, K)
                np.testing.assert_array_equal(found, maxima, err_msg=name)


def test_no_schedule_changes_a_bit(cuda_on_cpu):
    features, labels, K = case((17, 9, 33), "regions", C=3)
    features = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    planned(labels, K)
    seen = set()
    for seed in (0, 1, 2):
        with cuda_on_cpu.on_cpu(seed=seed):
            values, winners = cuda.superpixel_max(features, labels, K)
            sums = cuda.superpixel_sum(features, labels, K)
        seen.add((values.numpy().tobytes(), winners.numpy().tobytes(), sums.numpy().tobytes()))
    assert len(seen) == 1


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels_last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("shape", [(9, 5, 33), (9, 5, 40), (5, 70)], ids=str)
def test_no_race_and_no_access_out_of_bounds(shape, channels_last, dtype, cuda_on_cpu):
    features, labels, K = case(shape, "regions", C=5, dtype=dtype, channels_last=channels_last)
    with cuda_on_cpu.on_cpu(seed=1, mode="race"):
        for _ in range(2):
            values, winners = cuda.superpixel_max(features, labels, K)
        cuda.superpixel_mean(features, labels, K)
        cuda.superpixel_max_backward(values, winners, list(features.shape), channels_last)
        cuda.superpixel_unpool(values, labels, channels_last)


# The text of the kernel file, what replaces it, and how many channels it takes to matter.
PLANTED = {
    "no barrier before loading": ("__syncthreads();  // the last round has been read", "", 5),
    "no barrier after loading": (
        "__syncthreads();  // this one is there",
        "",
        5,
    ),
    "no barrier in pass 2": (
        "part[warp * 32 + lane] = joined;\n  __syncthreads();",
        "part[warp * 32 + lane] = joined;",
        1,
    ),
    "a plain maximum for an atomic": (
        "atomicMax(&table[current], best);\n      current",
        "table[current] = best;\n      current",
        1,
    ),
    "a row's end off by one": (
        "row_end = int(stretch >> 16);",
        "row_end = int(stretch >> 16) + 1;",
        1,
    ),
    "no bound of the tile": ("if (!tile.holds(i)) continue;", "", 1),
    "no bound of the last channels": ("&& mine < reader.end", "", 1),
    "channels of another voxel": ("staged[mixed(i)] = pack.raw", "staged[i] = pack.raw", 1),
    "a NaN is not noticed": ("return is_nan(part_of(best, 0)) ||", "return false &&", 1),
    "no bound of a tail": ("if (begin + q < voxels) line[q]", "line[q]", 1),
    "no bound of the slots": ("if (index >= slots) return;", "", 1),
    "a lane leaves before an exchange": (
        "typename Op::Value value[ROUND];",
        "if (row_begin >= TILE / 32) return;\n      typename Op::Value value[ROUND];",
        1,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found(name, cuda_on_cpu, monkeypatch):
    old, new, C = PLANTED[name]
    # One block works through all channels, as it does where there are tiles enough.
    monkeypatch.setattr(cuda, "_ENOUGH_BLOCKS", 1)
    features, labels, K = case((9, 5, 33), "regions", C=C, B=1)
    features.view(-1)[::7] = torch.nan
    messages = []
    for mode in ("race", "plain"):
        with cuda_on_cpu.on_cpu(seed=2, mode=mode, mutate=(old, new)):
            try:
                _check_all(features, labels.clone(), K)
            except AssertionError as error:  # LaunchError is one
                messages.append(str(error))
        if messages:
            break
    assert messages, "nobody noticed"


def test_without_a_planted_bug_nothing_is_found(cuda_on_cpu, monkeypatch):
    monkeypatch.setattr(cuda, "_ENOUGH_BLOCKS", 1)
    features, labels, K = case((9, 5, 33), "regions", C=40, B=1)
    features.view(-1)[::7] = torch.nan
    with cuda_on_cpu.on_cpu(seed=2, mode="race"):
        _check_all(features, labels, K)


def _check_all(features, labels, K):
    maxima, argmax = reference.superpixel_max(features.numpy(), labels.numpy(), K)
    for _ in range(2):
        values, winners = cuda.superpixel_max(features, labels, K)
        np.testing.assert_array_equal(values, maxima)
        np.testing.assert_array_equal(winners, argmax)
    sums = cuda.superpixel_sum(features, labels, K)
    np.testing.assert_array_equal(
        sums, reference.superpixel_sum(features.numpy(), labels.numpy(), K)
    )
    unpooled = cuda.superpixel_unpool(values, labels, channels_last=False)
    np.testing.assert_array_equal(unpooled, reference.superpixel_unpool(maxima, labels.numpy()))
    scattered = cuda.superpixel_max_backward(values, winners, list(features.shape), False)
    expected = reference.superpixel_max_backward(maxima, argmax, features.shape)
    np.testing.assert_array_equal(scattered, expected)


@pytest.mark.parametrize(("B", "C", "K"), [(0, 3, 4), (2, 0, 4), (2, 3, 0)], ids=str)
def test_nothing_gives_nothing(B, C, K, cuda_on_cpu):
    features = torch.zeros(B, C, 3, 4)
    labels = torch.zeros(B, 3, 4, dtype=torch.int32)
    with cuda_on_cpu.on_cpu():
        for _ in range(2):
            assert cuda.superpixel_max(features, labels, K)[0].shape == (B, C, K)
        assert cuda.superpixel_mean(features, labels, K)[1].shape == (B, K)
        assert cuda.superpixel_unpool(torch.zeros(B, C, K), labels, False).shape == (B, C, 3, 4)


def test_plain_torch_on_demand(cuda_on_cpu, monkeypatch):
    features, labels, K = case((4, 5, 6), "regions")
    expected = reference.superpixel_max(features.numpy(), labels.numpy(), K)[0]
    monkeypatch.setenv("VOXSEG_KERNELS", "torch")
    # Without the shim: a launch would fail here.
    np.testing.assert_array_equal(cuda.superpixel_max(features, labels, K)[0], expected)
    monkeypatch.delenv("VOXSEG_KERNELS")
    wide = cuda.superpixel_max(features.double(), labels, K)[0]
    np.testing.assert_array_equal(wide, expected)


def test_an_image_too_large_is_refused():
    labels = torch.zeros(1, dtype=torch.int32).expand(1, 2**16, 2**16)
    features = torch.zeros(1).expand(1, 1, 2**16, 2**16)
    with pytest.raises(ValueError, match="4294967296 voxels is too large"):
        cuda.check_size(features[0, 0].numel())
    with pytest.raises(ValueError, match="4294967296 voxels is too large"):
        make_tiles(labels, 1)


@pytest.mark.cuda
@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_a_graph_is_captured_and_replayed(reduce, real_cuda_device):
    features, labels, K = case((16, 16, 64), "regions")
    features, labels = features.to(real_cuda_device), labels.clamp_max(K - 1).to(real_cuda_device)
    plan = superpixel_plan(labels, K)
    for _ in range(2):  # compiles, and makes torch's own preparations
        superpixel_pool(features, plan, K, reduce)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        pooled = superpixel_pool(features, plan, K, reduce)
    features.neg_()
    graph.replay()
    expected = superpixel_pool(features.cpu(), labels.cpu(), K, reduce)
    torch.testing.assert_close(pooled.cpu(), expected)


@pytest.mark.cuda
def test_a_plan_is_not_made_during_capture(real_cuda_device):
    features, labels, K = case((8, 8, 32), "regions")
    features, labels = features.to(real_cuda_device), labels.to(real_cuda_device)
    superpixel_pool(features, labels.clone(), K, "mean")
    torch.cuda.synchronize()
    with (
        pytest.raises(RuntimeError, match="superpixel_plan"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        superpixel_pool(features, labels, K, "mean")


@pytest.mark.cuda
@pytest.mark.parametrize("reduce", ["max", "mean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_kernels_agree_with_the_cpu_and_plain_torch(reduce, dtype, cuda_device, monkeypatch):
    features, labels, K = case((33, 40, 70), "regions", C=9, dtype=dtype)
    here, there = features.to(cuda_device).requires_grad_(), features.requires_grad_()
    grad = torch.randn(2, 9, K, generator=torch.Generator().manual_seed(0)).to(dtype)
    labels_here = labels.to(cuda_device)
    expected = superpixel_pool(there, labels, K, reduce)
    (expected_grad,) = torch.autograd.grad(expected, there, grad)
    for _ in range(2):  # without a plan, then with one
        found = superpixel_pool(here, labels_here, K, reduce)
        (found_grad,) = torch.autograd.grad(found, here, grad.to(cuda_device))
        torch.testing.assert_close(found.cpu(), expected)
        torch.testing.assert_close(found_grad.cpu(), expected_grad)
    again = superpixel_pool(here, labels_here, K, reduce)
    assert torch.equal(again.view(torch.uint8), found.view(torch.uint8))
    monkeypatch.setenv("VOXSEG_KERNELS", "torch")
    torch.testing.assert_close(superpixel_pool(here, labels_here, K, reduce), found)


def test_the_paper_s_design_computes_the_same(cuda_on_cpu):
    features, labels, K = case((9, 5, 33), "regions", B=2, C=3)
    _, argmax = reference.superpixel_max(features.numpy(), labels.numpy(), K)
    voxels = labels[0].numel()
    keys = torch.empty(2, 3, K, dtype=torch.int64)
    sums = torch.empty(2, 3, K)
    with cuda_on_cpu.on_cpu(seed=1):
        run = nvrtc.kernels("superpixel_pool_paper", labels.device, torch.float32)
        arguments = [features, labels, keys, 3, K, voxels]
        run("paper_max", (6,), 1024, arguments, K * 8)
        run("paper_sum", (6,), 1024, [features, labels, sums, 3, K, voxels], K * 4)
    winners = torch.where(keys == 0, -1, 0xFFFFFFFF - (keys & 0xFFFFFFFF))
    np.testing.assert_array_equal(winners, argmax)
    expected = reference.superpixel_sum(features.numpy(), labels.numpy(), K)
    np.testing.assert_array_equal(sums, expected)
