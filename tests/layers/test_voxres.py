"""VoxRes modules, the trunk and its deconvolutions."""

import math

import pytest
import torch

from voxseg.layers.voxres import (
    Deconvolution,
    VoxRes,
    VoxResTrunk,
    convolution,
    normalisation,
    per_axis,
)


def linear_trunk(spatial_dims, strides):
    """A trunk in which every voxel that can matter does: positive weights, no normalisation."""
    trunk = VoxResTrunk(spatial_dims, 1, (1,) * (len(strides) + 1), strides).eval().double()
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.fill_(1.0)
    return trunk


@pytest.mark.parametrize(
    ("strides", "size"),
    [((2, 2, 2), (272, 8)), ((2, (1, 2)), (101, 67)), (((2, 1), (3, 1), 1), (211, 41))],
    ids=str,
)
def test_receptive_fields_are_what_the_gradient_shows(strides, size):
    trunk = linear_trunk(2, strides)
    image = torch.ones(1, 1, *size, dtype=torch.float64, requires_grad=True)
    for tap, field in zip(trunk(image), trunk.receptive_fields, strict=True):
        centre = tuple(length // 2 for length in tap.shape[2:])
        (gradient,) = torch.autograd.grad(tap[(0, 0, *centre)], image, retain_graph=True)
        for axis, seen in enumerate(field):
            along = gradient[0, 0].any(1 - axis)
            assert int(along.sum()) == min(seen, size[axis])


@pytest.mark.parametrize("size", [(9, 7, 10), (17, 1, 2), (5, 6)], ids=str)
def test_trunk_taps_and_deconvolutions_fit_any_size(size):
    dims = len(size)
    trunk = VoxResTrunk(dims, 2, (4, 6, 8), (2, (3, 2, 1)[:dims])).eval()
    image = torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        taps = trunk(image)
        deepest = trunk.strides[-1]
        filled = [math.ceil(n / step) * step for n, step in zip(size, deepest, strict=True)]
        for tap, width, stride in zip(taps, trunk.widths, trunk.strides, strict=True):
            reduced = [length // step for length, step in zip(filled, stride, strict=True)]
            assert tap.shape == (2, width, *reduced)
            back = Deconvolution(dims, width, 3, stride)(tap, size)
            assert back.shape == (2, 3, *size)


def test_trunk_fills_the_grid_with_the_last_voxels():
    trunk = VoxResTrunk(3, 1, (2, 2, 2), (2, 2)).eval()
    # One voxel on the deepest map would be nothing to normalise.
    assert trunk(torch.zeros(1, 1, 4, 3, 2))[-1].shape == (1, 2, 1, 1, 2)
    assert trunk(torch.zeros(1, 1, 4, 3, 5))[-1].shape == (1, 2, 1, 1, 2)
    assert trunk(torch.zeros(1, 1, 4, 3, 5))[0].shape == (1, 2, 4, 4, 8)
    image = torch.randn(1, 1, 8, 7, 5, generator=torch.Generator().manual_seed(0))
    last = image[:, :, :, -1:]
    filled = torch.cat([image, last], 3)
    filled = torch.cat([filled, *[filled[..., -1:]] * 3], 4)
    with torch.no_grad():
        for found, expected in zip(trunk(image), trunk(filled), strict=True):
            torch.testing.assert_close(found, expected)


def test_trunk_commutes_with_shifts_by_its_stride():
    trunk = VoxResTrunk(2, 1, (3, 4, 5), (2, 2)).eval()
    image = torch.zeros(1, 1, 96, 8)
    image[0, 0, 44:49, 2:6] = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        still, moved = trunk(image)[-1], trunk(image.roll(4, 2))[-1]
    torch.testing.assert_close(moved[:, :, 8:-7], still[:, :, 7:-8])


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_voxres_with_a_silent_second_convolution_is_the_identity(norm):
    module = VoxRes(3, 6, norm)
    features = torch.randn(2, 6, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert (module(features) - features).abs().max() > 0.1
    with torch.no_grad():
        module.conv2.weight.zero_()
    torch.testing.assert_close(module(features), features, rtol=0, atol=0)


def test_voxres_keeps_its_input():
    features = torch.randn(1, 4, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    before = features.clone()
    VoxRes(3, 4)(features)
    torch.testing.assert_close(features, before, rtol=0, atol=0)


def test_voxres_gradient():
    features = torch.randn(
        1, 2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    module = VoxRes(2, 2).double().eval()
    assert torch.autograd.gradcheck(module, features.requires_grad_())


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_deconvolution_starts_with_unit_gain(stride):
    torch.manual_seed(0)
    layer = Deconvolution(2, 32, 32, stride)
    size = (8 * stride, 8 * stride)
    features = torch.randn(4, 32, 8, 8, generator=torch.Generator().manual_seed(0))
    inner = layer(features, size)[..., stride:-stride, stride:-stride]
    assert 0.9 < inner.std().item() / math.sqrt(2) < 1.1


def test_deconvolution_centres_a_voxel_on_its_own():
    layer = Deconvolution(2, 1, 1, 2)
    with torch.no_grad():
        layer.deconv.weight.fill_(1.0)
        features = torch.zeros(1, 1, 5, 5)
        features[0, 0, 2, 2] = 1.0
        spread = layer(features, (9, 10))[0, 0]
    expected = torch.zeros(9, 10)
    expected[3:7, 3:7] = 1.0
    torch.testing.assert_close(spread, expected)


def test_convolution_starts_he_normal_without_bias():
    torch.manual_seed(0)
    layer = convolution(3, 16, 64)
    assert abs(layer.weight.std().item() / math.sqrt(2 / (16 * 27)) - 1) < 0.05
    assert not layer.bias.any()


def test_group_norm_divides_every_width():
    assert [normalisation("group", 3, c).num_groups for c in (4, 6, 32, 7)] == [4, 2, 8, 1]


@pytest.mark.parametrize("stride", [0, (2, 2), (2, 2, 0)], ids=str)
def test_per_axis_rejects_strides(stride):
    with pytest.raises(ValueError, match="stride must be 3 numbers"):
        per_axis(stride, 3)
