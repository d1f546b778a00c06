"""Split, merge, shrink and expand, and a convolution that splits instead of striding."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from voxseg.layers.split_merge import (
    Sampling,
    SplitConvolution,
    SplitPool,
    draw_offsets,
    every_offset,
    expand,
    merge,
    replace_subsampling,
    shrink,
    split,
    total_offset,
)

CASES = pytest.mark.parametrize(
    ("size", "window"),
    [((4, 6), 2), ((9, 3), 3), ((4, 9), (2, 3)), ((4, 2, 6), 2), ((2, 3, 8), (1, 3, 4))],
    ids=str,
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def per_axis(window, size):
    return (window,) * len(size) if isinstance(window, int) else window


def test_split_golden_equation_1():
    image = torch.arange(24).view(1, 1, 4, 6)
    parts = split(image, (2, 3))
    assert parts.shape == (6, 1, 2, 2)
    for number, (k, l) in enumerate((k, l) for k in range(2) for l in range(3)):
        for i in range(2):
            for j in range(2):
                assert parts[number, 0, i, j] == image[0, 0, i * 2 + k, j * 3 + l]


@CASES
def test_merge_undoes_split(size, window):
    features = random(2, 3, *size)
    parts = split(features, window)
    torch.testing.assert_close(merge(parts, window), features, rtol=0, atol=0)
    assert not torch.equal(parts.flatten(), features.flatten())


@CASES
def test_shrink_is_one_part_and_expand_its_place(size, window):
    features = random(2, 3, *size)
    window = per_axis(window, size)
    parts = split(features, window).chunk(torch.tensor(window).prod())
    total = torch.zeros_like(features)
    for (offset,), part in zip(every_offset([window]), parts, strict=True):
        sampled = shrink(features, window, offset)
        torch.testing.assert_close(sampled, part, rtol=0, atol=0)
        expanded = expand(sampled, window, offset)
        assert expanded.count_nonzero() == sampled.numel()
        total += expanded
    torch.testing.assert_close(total, features, rtol=0, atol=0)


def test_expand_gradient_is_of_the_sampled_elements():
    features = random(1, 2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f: expand(shrink(f, (3, 2), (1, 0)), 2, (0, 1)), features
    )


def test_total_offset_is_the_place_after_all_levels():
    windows = [(2, 3), (2, 1), (3, 2)]
    image = torch.arange(12 * 6).view(1, 1, 12, 6)
    for offsets in every_offset(windows):
        sampled = image
        for window, offset in zip(windows, offsets, strict=True):
            sampled = shrink(sampled, window, offset)
        row, column = total_offset(offsets, windows)
        assert sampled[0, 0, 0, 0] == image[0, 0, row, column]


def test_offsets_are_drawn_over_the_whole_window_and_repeat():
    windows = [(2, 1), (3, 2)]
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_offsets(windows, generator) for _ in range(300)]
    assert set(drawn) == set(every_offset(windows))
    assert draw_offsets(windows, torch.Generator().manual_seed(0)) == drawn[0]


CONVOLUTIONS = pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"kernel_size": 7, "stride": 2, "padding": 3}, (8, 6)),
        ({"kernel_size": 1, "stride": 2}, (4, 6)),
        ({"kernel_size": 2, "stride": 2, "bias": False}, (4, 6)),
        ({"kernel_size": 4, "stride": 2, "padding": 1, "groups": 2}, (8, 6)),
        ({"kernel_size": 3, "stride": (3, 2), "padding": 2, "dilation": 2}, (9, 6)),
        ({"kernel_size": 5, "stride": 2, "padding": "valid"}, (12, 8)),
        ({"kernel_size": 3, "stride": (2, 1, 2), "padding": 1}, (4, 3, 6)),
    ],
    ids=str,
)


@CONVOLUTIONS
def test_split_convolution_at_offset_0_is_the_strided_one(options, size):
    strided = (nn.Conv2d if len(size) == 2 else nn.Conv3d)(2, 4, **options).double()
    image = random(2, 2, *size)
    wanted = strided(image)
    layer = SplitConvolution(strided)
    assert list(layer.state_dict()) == list(strided.state_dict())
    torch.testing.assert_close(layer(image)[:2], wanted, rtol=0, atol=1e-14)
    layer.sampling.offsets = ((0,) * len(size),)
    torch.testing.assert_close(layer(image), wanted, rtol=0, atol=1e-14)


@CONVOLUTIONS
def test_split_convolution_shrinks_to_each_part(options, size):
    strided = (nn.Conv2d if len(size) == 2 else nn.Conv3d)(2, 4, **options).double()
    image = random(2, 2, *size)
    layer = SplitConvolution(strided)
    offsets = every_offset([layer.window])
    for offset, part in zip(offsets, layer(image).chunk(len(offsets)), strict=True):
        layer.sampling.offsets = offset
        torch.testing.assert_close(layer(image), part, rtol=0, atol=1e-14)


def test_two_levels_are_a_dilated_network():
    first = nn.Conv2d(2, 3, 3, stride=2, padding=1).double()
    second = nn.Conv2d(3, 4, 3, stride=2, padding=1).double()
    image = random(2, 2, 12, 8)
    wanted = functional.conv2d(image, first.weight, first.bias, padding=1)
    wanted = functional.conv2d(wanted, second.weight, second.bias, padding=2, dilation=2)
    parts = SplitConvolution(second)(SplitConvolution(first)(image))
    merged = merge(merge(parts, 2), 2)
    torch.testing.assert_close(merged, wanted, rtol=0, atol=1e-14)


def test_subsampling_is_replaced_and_nothing_else():
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2, padding=1),
        nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 1, 1), nn.AvgPool2d((2, 3))),
        nn.Conv2d(2, 2, 3, padding=1),
    )
    state = network.state_dict()
    replaced = replace_subsampling(network, Sampling())
    assert {name: layer.window for name, layer in replaced.items()} == {
        "0": (2, 2),
        "1.0": (2, 2),
        "1.2": (2, 3),
    }
    assert isinstance(network[1][1], nn.MaxPool2d)
    assert isinstance(network[2], nn.Conv2d)
    assert network.state_dict().keys() == state.keys()


def test_gflops_golden_table_5():
    # 2 operations for a multiplication and addition, plus bias and ReLU, which the counter leaves.
    def gflops(network, outputs):
        image = torch.empty(1, 3, 256, 256, device="meta")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.to("meta")(image)
        return (counter.get_total_flops() + 2 * outputs) / 1e9

    def conv(*channels, dilation=1):
        return nn.Conv2d(*channels, 3, padding=dilation, dilation=dilation)

    full, half = 256 * 256, 128 * 128
    pooled = nn.Sequential(conv(3, 64), nn.MaxPool2d(2), conv(64, 128))
    dilated = nn.Sequential(conv(3, 64), conv(64, 128, dilation=2))
    splitting = nn.Sequential(conv(3, 64), SplitPool((2, 2)), conv(64, 128))
    counts = [
        gflops(pooled, 64 * full + 128 * half),
        gflops(dilated, 192 * full),
        gflops(splitting, 192 * full),
    ]
    assert counts == pytest.approx([2.655, 9.915, 9.915], abs=2e-3)
    assert counts[1] == counts[2]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda x: split(x, 3), "does not divide"),
        (lambda x: shrink(x, (2, 4), (0, 0)), "does not divide"),
        (lambda x: split(x, (2,)), "must be 2 numbers"),
        (lambda x: split(x, 0), "at least 1"),
        (lambda x: merge(x, 2), "multiple of 4 sub-grids"),
        (lambda x: shrink(x, 2, (0, 2)), "lie in the window"),
        (lambda x: expand(x, 2, (0, -1)), "lie in the window"),
        (lambda x: expand(x, 2, (0,)), "lie in the window"),
        (SplitConvolution(nn.Conv2d(1, 1, 1, stride=3)), "does not divide"),
        (
            lambda _: SplitConvolution(nn.Conv2d(1, 1, 3, 2, 1, padding_mode="reflect")),
            "only zero padding",
        ),
    ],
)
def test_split_merge_rejects_what_does_not_fit(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(torch.zeros(2, 1, 4, 6))
