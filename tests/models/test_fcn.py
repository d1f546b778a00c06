"""FCN32s, FCN8s and SMP on small ResNets, and the papers' numbers on the real ones."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from voxseg.layers.split_merge import total_offset
from voxseg.models import FCN, SplitMergeFCN, count_parameters

WIDTHS = (4, 4, 6, 8)


def image(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def fcn(seed=0, **options):
    """A narrow FCN in float64 and eval mode whose batch norms do something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = FCN(2, 3, **({"widths": WIDTHS} | options)).double().eval()
        for name, value in network.state_dict().items():
            if name.endswith(("bias", "running_mean")):
                value.normal_()
            elif name.endswith("running_var"):
                value.uniform_(0.5, 2)
    return network


def split_fcn(source, depth=18, spatial_dims=2):
    network = SplitMergeFCN(2, 3, depth=depth, spatial_dims=spatial_dims, widths=WIDTHS)
    network.double().eval().network.load_state_dict(source.state_dict())
    return network


def dilate(network):
    """Turn every stride into dilations, and leave max-pooling out."""
    backbone = copy.deepcopy(network.backbone)
    backbone.maxpool = nn.Identity()
    backbone.conv1.stride = (1, 1)
    step = 4
    for stage in backbone.stages:
        for module in stage.modules():
            if isinstance(module, nn.Conv2d):
                stride, module.stride = module.stride[0], (1, 1)
                if module.kernel_size[0] == 3:
                    module.dilation = module.padding = (step, step)
                    step *= stride
    return nn.Sequential(backbone, Deepest(), network.heads[0])


class Deepest(nn.Module):
    def forward(self, taps):
        return taps[-1]


class Sampled(nn.Module):
    """The strided network's max-pooling without the maximum."""

    def forward(self, x):
        return x[:, :, ::2, ::2]


def strided(network):
    backbone = copy.deepcopy(network.backbone)
    backbone.maxpool = Sampled()
    return nn.Sequential(backbone, Deepest(), network.heads[0])


@pytest.mark.parametrize("depth", [18, 50])
def test_smp_is_the_dilated_network(depth):
    source = fcn(depth=depth)
    x = image(1, 2, 64, 32)
    with torch.no_grad():
        expected = dilate(source)(x)
        assert expected.abs().max() > 0.1
        scaled = expected.abs().max().item()
        answer = split_fcn(source, depth)(x)
    torch.testing.assert_close(answer, expected, rtol=0, atol=1e-12 * max(1, scaled))


@pytest.mark.parametrize("depth", [18, 50])
def test_shrunk_at_0_is_the_strided_network_exactly(depth):
    source = fcn(depth=depth)
    x = image(2, 2, 64, 96)
    with torch.no_grad():
        smp = split_fcn(source, depth)
        answer = smp.sampled(x, [(0, 0)] * 5)
        torch.testing.assert_close(answer, strided(source)(x), rtol=0, atol=0)


def test_shrunk_is_smp_at_the_offset():
    smp = split_fcn(fcn())
    x = image(1, 2, 32, 64)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        everywhere = smp(x)
        for _ in range(4):
            offsets = smp.draw_offsets(generator)
            row, column = total_offset(offsets, smp.windows)
            wanted = everywhere[:, :, row::32, column::32]
            torch.testing.assert_close(smp.sampled(x, offsets), wanted, rtol=0, atol=1e-12)


def test_smp_in_three_axes():
    smp = split_fcn(fcn(spatial_dims=3), spatial_dims=3)
    assert smp.windows == ((2, 2, 2),) * 5
    x = image(1, 2, 5, 3, 2)
    offsets = [(1, 0, 0), (0, 1, 1), (1, 0, 0), (0, 0, 0), (0, 0, 0)]
    with torch.no_grad():
        answer = smp(x)
        assert answer.shape == (1, 3, 5, 3, 2)
        wanted = smp.sampled(x, [(0, 0, 0)] * 5)
        torch.testing.assert_close(answer[:, :, :1, :1, :1], wanted, rtol=0, atol=1e-12)
        # At 5, 2, 2: beyond the image, so the answer there is cut.
        assert smp.sampled(x, offsets).shape == (1, 3, 1, 1, 1)


def test_depth_first_needs_less_memory():
    smp = split_fcn(fcn())
    x = image(1, 2, 64, 64)
    # The map at full resolution (4 channels), its copy in sub-grids, and the scores.
    budget = 8 * 64 * 64 * (4 + 4 + 3 * 4)
    with torch.no_grad():
        torch.testing.assert_close(smp(x, memory_budget=budget), smp(x), rtol=0, atol=1e-12)
        with pytest.raises(ValueError, match="more are needed"):
            smp(x, memory_budget=8 * 64 * 64 * 8)


def test_a_budget_holds_under_autocast_whose_types_change_between_stages():
    torch.manual_seed(0)
    smp = SplitMergeFCN(3, 5, depth=18, widths=(8, 8, 8, 8)).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole = smp(x)
        parts = smp(x, memory_budget=400 * 2**10)
    assert parts.dtype is whole.dtype
    torch.testing.assert_close(parts.float(), whole.float(), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("finest", [8, 32])
def test_fcn_scores_are_resized_and_added(finest):
    network = fcn(finest_stride=finest)
    x = image(1, 2, 64, 96)
    with torch.no_grad():
        _, second, third, last = network.backbone(x)

        def resized(scores, size):
            return functional.interpolate(scores, size, mode="bilinear", align_corners=False)

        scores = network.heads[0](last)
        if finest == 8:
            scores = resized(scores, (8, 12)) + network.heads[2](second)
            scores = scores + resized(network.heads[1](third), (8, 12))
        torch.testing.assert_close(network(x), resized(scores, (64, 96)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (33, 7), (5, 3, 2)], ids=str)
@pytest.mark.parametrize("finest", [8, 32])
def test_fcn_answers_for_any_size(size, finest):
    network = fcn(finest_stride=finest, spatial_dims=len(size))
    x = image(1, 2, *size)
    pads = [pad for length in reversed(size) for pad in (0, -length % 32)]
    with torch.no_grad():
        whole = network(functional.pad(x, pads, mode="replicate"))
        cut = whole[(..., *(slice(length) for length in size))]
        torch.testing.assert_close(network(x), cut, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("depth", "fcn32s", "fcn8s"),
    # arXiv:2006.07742, tables 1 and 2: 11.186M, 21.29M, 42.54M and 11.193M, 21.30M, 42.56M (cut).
    [
        (18, 11_186_259, 11_193_593),
        (34, 21_294_419, 21_301_753),
        (101, 42_539_091, 42_568_313),
    ],
)
def test_parameters_golden_tables_1_and_2(depth, fcn32s, fcn8s):
    with torch.device("meta"):
        networks = [
            FCN(3, 19, depth=depth),
            SplitMergeFCN(3, 19, depth=depth),
            FCN(3, 19, depth=depth, finest_stride=8),
        ]
    counts = [count_parameters(network).inference for network in networks]
    assert counts == [fcn32s, fcn32s, fcn8s]


def test_receptive_field_of_smp_is_measured():
    smp = split_fcn(fcn(seed=3))
    field = smp.receptive_field[0]
    size = 448
    x = image(1, 2, 1, size).requires_grad_()
    smp.sampled(x, [(0, 0)] * 5)[0, :, 0, size // 64].sum().backward()
    seen = x.grad[0].abs().sum((0, 1)).nonzero().flatten()
    assert field == 431
    assert seen[-1] - seen[0] + 1 <= field
    assert seen[-1] - seen[0] + 1 > 0.9 * field


@pytest.mark.parametrize(
    "options", [{"num_classes": 0}, {"finest_stride": 16}, {"depth": 19}], ids=str
)
def test_fcn_rejects_options_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        FCN(2, **({"num_classes": 3} | options))
