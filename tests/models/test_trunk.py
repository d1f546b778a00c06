import copy

import pytest
import torch
from torch import nn

from voxseg.models import FCN, PixelNet, TappedNetwork, VoxResNet, VoxResTaps, load_shared_weights
from voxseg.models.trunk import VOXRES_TAPS


def image(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator)


@pytest.mark.parametrize("size", [(9, 6, 11), (13, 7)], ids=str)
def test_voxres_taps_are_those_of_the_trunk(size):
    torch.manual_seed(0)
    options = {"spatial_dims": len(size), "width_divisor": 8}
    names = ("voxres6", "conv1b")
    taps = VoxResTaps(2, names, **options).eval()
    assert list(taps.taps) == ["conv1b", "voxres6"]
    assert len(taps.stages) == 2
    whole = VoxResNet(2, 3, stages=3, **options).eval()
    whole.trunk.load_state_dict(taps.state_dict(), strict=False)
    x = image(2, 2, *size)
    with torch.no_grad():
        expected = whole.trunk(x)
        found = taps(x)
    # Each fills the image up to its own deepest stride: what lies within agrees.
    for one, level in zip(found, (0, 2), strict=True):
        inside = tuple(slice(n // 4 // taps.strides[level][0] * 2) for n in size)
        torch.testing.assert_close(one[(..., *inside)], expected[level][(..., *inside)])
    assert [tap.channels for tap in taps.taps.values()] == [4, 8]
    assert [tap.stride[0] for tap in taps.taps.values()] == [1, 4]
    assert [tap.field[0] for tap in taps.taps.values()] == [5, 59]


def test_voxres_widths_and_strides_are_options():
    taps = VoxResTaps(
        1, ("conv1b", "voxres3"), widths=(4, 6), strides=((1, 2, 2),), norm="group"
    ).taps
    assert taps["conv1b"].channels == 4
    assert taps["voxres3"].stride == (1, 2, 2)
    deep = VoxResTaps(1, VOXRES_TAPS, width_divisor=8)
    assert deep.taps["voxres12"].stride == (16, 16, 16)


@pytest.mark.parametrize(
    ("taps", "options", "sentence"),
    [
        (("conv1b", "voxres4"), {}, r"no layer voxres4; VoxResNet has conv1b, voxres3, voxres6"),
        (("voxres6",), {"widths": (8, 8)}, "widths must be 3 numbers"),
        (("voxres3",), {"width_divisor": 5}, "that width_divisor 5 divides"),
    ],
    ids=str,
)
def test_voxres_rejects(taps, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        VoxResTaps(1, taps, **options)


def test_a_voxresnet_gives_its_trunk_to_a_hypercolumn_head():
    torch.manual_seed(0)
    source = VoxResNet(1, 3, stages=2, width_divisor=8)
    network = PixelNet(VoxResTaps(1, ("conv1b", "voxres6"), width_divisor=8), 3, hidden=(5,))
    report = load_shared_weights(network, source.state_dict())
    assert len(report.loaded) == len(network.trunk.state_dict())
    for name, value in network.trunk.state_dict().items():
        torch.testing.assert_close(value, source.trunk.state_dict()[name])


class Branches(nn.Module):
    """A network whose layers give maps of several sizes, a vector and a pair."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(2)
        self.second = nn.Conv2d(3, 5, 3, padding=1)
        self.answer = nn.AdaptiveAvgPool2d(1)
        self.vector = nn.Flatten()

    def forward(self, x):
        return self.vector(self.answer(self.second(self.pool(self.first(x)))))


def test_layers_of_any_network_are_read():
    torch.manual_seed(0)
    network = Branches().eval()
    trunk = TappedNetwork(network, 2, ("second", "first.0"))
    assert [tap.channels for tap in trunk.taps.values()] == [5, 3]
    x = image(2, 2, 7, 10)
    with torch.no_grad():
        deep, fine = trunk(x)
        first = network.first(x)
        torch.testing.assert_close(fine, first)  # behind the ReLU, which works in place
        torch.testing.assert_close(deep, network.second(network.pool(first)))
    assert not network.second._forward_hooks


def test_a_copy_reads_itself():
    torch.manual_seed(0)
    trunk = TappedNetwork(Branches().eval(), 2, ("first",))
    x = image(1, 2, 6, 6)
    with torch.no_grad():
        (before,) = trunk(x)
        other = copy.deepcopy(trunk)
        other.network.first[0].weight.zero_()
        torch.testing.assert_close(trunk(x)[0], before)
        assert not torch.equal(other(x)[0], before)


def test_published_backbones_are_trunks():
    torch.manual_seed(0)
    backbone = FCN(3, 4, widths=(4, 4, 6, 8)).backbone
    network = PixelNet(TappedNetwork(backbone, 3, ("layer1", "layer3")), 4, hidden=(6,)).eval()
    assert network.reach is None
    assert network.receptive_field is None
    with torch.no_grad():
        assert network(image(1, 3, 37, 41)).shape == (1, 4, 37, 41)


def test_layers_that_give_no_map_are_refused():
    with pytest.raises(ValueError, match=r"no layer third; there are first, first\.0, first\.1, p"):
        TappedNetwork(Branches(), 2, ("third",))
    with pytest.raises(ValueError, match="layer vector gives no map of 2 axes"):
        TappedNetwork(Branches(), 2, ("vector",))
