"""The U-Net module of stacked U-nets against a plain reading of Figure 1, and what it sees."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from voxseg.layers.stacked_unet import (
    NormReLUConv,
    NormReLUDeconv,
    ResidualStride,
    UNetModule,
    convolution,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "sunet_parameters.json").read_text())
WIDTHS = {
    "64": (64, (128, 256, 512, 768, 1024)),
    "128": (128, (128, 512, 1024, 1536, 2048)),
    "7-128": (128, (128, 512, 1280, 2048, 2304)),
}


def module(*, spatial_dims=2, channels=(3, 4), seed=0, **options):
    """A narrow module in float64 and eval mode whose norms do something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        built = UNetModule(spatial_dims, channels[0], 5, channels[1], **options).double().eval()
        for name, value in built.state_dict().items():
            if name.endswith(("bias", "running_mean")):
                value.normal_()
            elif name.endswith("running_var"):
                value.uniform_(0.5, 2)
    return built


def positive(layers):
    """Make all that is read add up: norms that do nothing and weights above 0."""
    for layer in layers.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            with torch.no_grad():
                layer.weight.abs_().add_(0.1)
                layer.bias.abs_()
    return layers.double().eval()


def features(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(built, x):
    """Figure 1 with two levels, written out for two axes, by the weights of ``built``."""
    weights = built.state_dict()

    def active(name, x):
        mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
        shape = (1, -1, 1, 1)
        normal = (x - mean.view(shape)) / torch.sqrt(var.view(shape) + 1e-5)
        return torch.relu(normal * scale.view(shape) + shift.view(shape))

    def conv(name, x, stride=1):
        weight = weights[f"{name}.weight"]
        padding = weight.shape[-1] // 2
        return functional.conv2d(x, weight, weights[f"{name}.bias"], stride, padding)

    def deconv(name, x, size):
        """Put a zero between every two cells and convolve with the mirrored kernel."""
        spread = x.new_zeros(*x.shape[:2], 2 * x.shape[2] - 1, 2 * x.shape[3] - 1)
        spread[:, :, ::2, ::2] = x
        spread = functional.pad(spread, (1, 2, 1, 2))
        weight = weights[f"{name}.weight"].flip(2, 3).transpose(0, 1)
        answer = functional.conv2d(spread, weight, weights[f"{name}.bias"])
        return answer[:, :, : size[0], : size[1]]

    first = active("norm", x)
    skip = conv("skip", first) if "skip.weight" in weights else x
    bottleneck = conv("bottleneck", first)

    def down(level, x):
        x = conv(f"{level}.conv1.conv", active(f"{level}.conv1.norm", x), stride=2)
        return conv(f"{level}.conv2.conv", active(f"{level}.conv2.norm", x))

    def up(level, x, size):
        x = deconv(f"{level}.deconv.conv", active(f"{level}.deconv.norm", x), size)
        return conv(f"{level}.conv.conv", active(f"{level}.conv.norm", x))

    e1 = down("encoder.0", bottleneck)
    e2 = down("encoder.1", e1)
    d2 = up("decoder.1", e2, e1.shape[2:])
    d1 = up("decoder.0", torch.cat([d2, e1], 1), bottleneck.shape[2:])
    return conv("expansion.conv", active("expansion.norm", d1)) + skip


@pytest.mark.parametrize("channels", [(3, 4), (4, 4)], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (8, 14)], ids=str)
def test_module_matches_reference(size, channels):
    built = module(channels=channels)
    x = features(2, channels[0], *size)
    with torch.no_grad():
        expected = plain(built, x)
        torch.testing.assert_close(built(x), expected, rtol=0, atol=1e-12 * expected.abs().max())


@pytest.mark.parametrize("variant", GOLDEN["first_modules"])
def test_parameters_golden(variant):
    filters, widths = WIDTHS[variant]
    for block, expected in enumerate(GOLDEN["first_modules"][variant]):
        with torch.device("meta"):
            levels = 1 if block == 3 else 2
            built = UNetModule(2, widths[block], filters, widths[block + 1], levels=levels)
        assert sum(parameter.numel() for parameter in built.parameters()) == expected
        kinds = nn.Conv2d | nn.ConvTranspose2d
        # 10 convolutions and 6 in U-Net+, the one of the skip aside.
        convolutions = [one for one in built.modules() if isinstance(one, kinds)]
        assert len(convolutions) - 1 == (6 if block == 3 else 10)


def test_field_of_view_golden_figure_1():
    layers = [layer for down in positive(module()).encoder for layer in (down.conv1, down.conv2)]
    found = []
    for count in range(1, 5):
        x = torch.ones(1, 5, 1, 64, dtype=torch.float64, requires_grad=True)
        answer = x
        for layer in layers[:count]:
            answer = layer(answer)
        answer[0, 0, 0, answer.shape[3] // 2].backward()
        seen = x.grad[0].abs().sum((0, 1)).nonzero().flatten()
        found.append(int(seen[-1] - seen[0] + 1))
    assert found == [3, 7, 11, 19]


def rates(built):
    """(kernel, stride, dilation) are those of the first axis; encoder, then decoder reversed."""
    wide = [
        layer
        for layer in built.modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.kernel_size[0] == 3
    ]
    assert all(layer.dilation == layer.padding for layer in wide)
    half = len(wide) // 2
    decoder = [wide[i : i + 2] for i in range(half, len(wide), 2)]
    order = wide[:half] + [layer for pair in reversed(decoder) for layer in pair]
    return [layer.dilation[0] for layer in order], [layer.stride[0] for layer in order]


@pytest.mark.parametrize(
    ("options", "dilations", "strides"),
    [
        # Blocks 3 and 4 at output stride 8, block 4 at 16: Figure 2's inset and section 5.2.
        ({"rate": 2}, [2, 4, 4, 8, 8, 4, 4, 2], [1] * 8),
        ({"rate": 4, "levels": 1}, [4, 8, 8, 4], [1] * 4),
        ({"rate": 2, "levels": 1}, [2, 4, 4, 2], [1] * 4),
        ({}, [1] * 8, [2, 1, 2, 1, 2, 1, 2, 1]),
        ({"rate": 2, "dilation": "strided"}, [2] * 8, [2, 1, 2, 1, 2, 1, 2, 1]),
    ],
    ids=str,
)
def test_dilations_golden_figure_2(options, dilations, strides):
    assert rates(module(**options)) == (dilations, strides)


def test_multigrid_sees_what_the_strided_module_sees():
    strided, dilated = module(), module(seed=1, rate=2)
    dilated.load_state_dict(strided.state_dict())
    fine = features(1, 5, 23, 30)
    coarse = fine[..., ::2, ::2]
    step = 2
    with torch.no_grad():
        for down, wide in zip(strided.encoder, dilated.encoder, strict=True):
            coarse, fine = down(coarse), wide(fine)
            step *= 2
            torch.testing.assert_close(fine[..., ::step, ::step], coarse, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "reach"),
    [
        ({}, 15),
        ({"levels": 1}, 5),
        ({"rate": 2}, 36),
        ({"rate": 4, "levels": 1}, 24),
        ({"rate": 2, "dilation": "strided"}, 30),
    ],
    ids=str,
)
def test_reach_is_measured(options, reach):
    built = positive(module(**options))
    assert built.reach == reach
    size = 2 * reach + 17
    widest = 0
    for place in range(reach + 4, reach + 12):
        x = torch.ones(1, 3, 1, size, dtype=torch.float64, requires_grad=True)
        built(x)[0, 0, 0, place].backward()
        seen = x.grad[0].abs().sum((0, 1)).nonzero().flatten()
        widest = max(widest, place - int(seen[0]), int(seen[-1]) - place)
    assert widest == reach


@pytest.mark.parametrize("options", [{}, {"rate": 2}, {"rate": 2, "dilation": "strided"}], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (5, 8), (1, 1, 1), (3, 2, 5)], ids=str)
def test_answer_has_the_size_of_its_input(size, options):
    built = module(spatial_dims=len(size), **options)
    with torch.no_grad():
        answer = built(features(2, 3, *size))
    assert answer.shape == (2, 4, *size)
    assert answer.isfinite().all()


def test_volume_of_equal_slices_is_the_slice():
    flat, solid = positive(module()), module(spatial_dims=3).eval()
    with torch.no_grad():
        for value, target in zip(flat.parameters(), solid.parameters(), strict=True):
            # All weight on the middle of the further axis, which then changes nothing.
            target.zero_()
            target[..., target.shape[-1] // 2 if target.ndim > 4 else ...] = value
        for value, target in zip(flat.buffers(), solid.buffers(), strict=True):
            target.copy_(value)
        x = features(1, 3, 6, 9)
        # A single slice: halved it is still one, and comes back as one.
        torch.testing.assert_close(solid(x[..., None])[..., 0], flat(x))


def test_skip_is_the_input_or_its_convolution():
    same, other = module(channels=(4, 4)), module()
    for built in (same, other):
        nn.init.zeros_(built.expansion.conv.weight)
        nn.init.zeros_(built.expansion.conv.bias)
    x = features(1, 4, 6, 6)
    torch.testing.assert_close(same(x), x, rtol=0, atol=0)
    active = functional.relu(other.norm(x[:, :3]))
    torch.testing.assert_close(other(x[:, :3]), other.skip(active))


def test_residual_block_is_its_parts():
    block = ResidualStride(2, 3, 4).double().eval()
    x = features(1, 3, 7, 10)
    with torch.no_grad():
        active = torch.relu(block.norm(x))
        inner = torch.relu(block.conv2.norm(block.conv1(active)))
        torch.testing.assert_close(block(x), block.conv2.conv(inner) + block.skip(active))
        assert block(x).shape == (1, 4, 4, 5)
    kept = ResidualStride(2, 3, 4, stride=1).double().eval()
    kept.load_state_dict(block.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(kept(x)[..., ::2, ::2], block(x))
    with torch.device("meta"):
        real = ResidualStride(2, 64, 128)
    assert sum(parameter.numel() for parameter in real.parameters()) == GOLDEN["residual"]


@pytest.mark.parametrize("dims", [2, 3])
def test_weights_start_as_he_by_fan_out(dims):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [
            (convolution(dims, 24, 32, 3), 32 * 3**dims),
            (convolution(dims, 256, 128, 1), 128),
            (NormReLUDeconv(dims, 48, 24, stride=2, dilation=1).conv, 24 * 3**dims),
        ]
    for layer, fan_out in layers:
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
        assert not layer.bias.any()


def test_norms_remember_for_a_hundred_batches():
    layer = NormReLUConv(2, 3, 4).train()
    x = features(2, 3, 4, 4).float() + 5
    layer(x)
    torch.testing.assert_close(layer.norm.running_mean, 0.01 * x.mean((0, 2, 3)))


@pytest.mark.parametrize(
    "options",
    [{"spatial_dims": 1}, {"levels": 0}, {"rate": 0}, {"dilation": "grid"}],
    ids=str,
)
def test_module_rejects_options_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        module(**options)
