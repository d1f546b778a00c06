"""Bytes and operations counted without numbers."""

import pytest
import torch
from torch import nn

from voxseg.layers.depth_first import LiveBytes
from voxseg.models import ENet, ResNet, SplitMergeFCN, VoxResNet, build_deeplab
from voxseg.models.cost import count_flops, flops_a_superpixel, live_bytes

CHAIN = (nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))
PIXELS = 5 * 7
COUNT = 11


@pytest.mark.parametrize(
    ("second", "channels"),
    [(nn.ReLU(), 8), (nn.ReLU(inplace=True), 3), (nn.Dropout(), 3)],
    ids=["relu", "in-place", "dropout"],
)
def test_live_bytes_golden_chain(second, channels):
    network = nn.Sequential(CHAIN[0], second, CHAIN[2])
    # Image, what the first layer made, and what the next one that makes something makes of it.
    peak = 2 + 8 + channels
    assert live_bytes(network, (1, 2, 5, 7)) == 4 * peak * PIXELS
    assert live_bytes(network, (3, 2, 5, 7), dtype=torch.float16) == 2 * 3 * peak * PIXELS
    assert network.training


def test_count_flops_golden_chain():
    products = 2 * 8 * 9 + 8 * 3
    assert count_flops(nn.Sequential(*CHAIN), (1, 2, 5, 7)) == 2 * products * PIXELS
    assert count_flops(nn.Linear(4, 6), (5, 4)) == 2 * 4 * 6 * 5


@pytest.mark.parametrize(
    ("depth", "billions"), [(18, 1.814), (34, 3.664), (50, 4.089), (101, 7.801)]
)
def test_count_flops_golden_torchvision(depth, billions):
    # Multiplications at 224x224 as torchvision lists them, with its classifier of 1000 classes.
    with torch.device("meta"):
        network = ResNet(3, depth=depth)
    products = count_flops(network, (1, 3, 224, 224)) // 2 + 1000 * network.channels[-1]
    assert products / 1e9 == pytest.approx(billions, abs=6e-4)


def test_count_flops_golden_port():
    # Counted in davidtvs/PyTorch-ENet itself, 19 classes.
    with torch.device("meta"):
        network = ENet(3, 19, version="port")
    assert count_flops(network, (1, 3, 360, 640)) / 1e9 == pytest.approx(3.55, abs=5e-3)


def test_count_flops_includes_the_superpixels_layer():
    v0, v3 = ENet(3, 5), ENet(3, 5, design="V3")
    difference = count_flops(v3, (1, 3, 16, 24), superpixels=COUNT)
    difference -= count_flops(v0, (1, 3, 16, 24))
    assert difference == 2 * 16 * 5 * COUNT
    least = count_flops(v3, (1, 3, 16, 24)) - count_flops(v0, (1, 3, 16, 24))
    assert least == 2 * 16 * 5


def test_flops_a_superpixel_golden():
    v4 = VoxResNet(2, 3, stages=1, width_divisor=8, design="V4", token_width=12, token_blocks=1)
    width, inducing, features = 12, 32, 64 // 8
    # Of features and places (9 numbers an axis, one volume); of a block: keys and values for
    # inducing points that listen, queries and answers, a layer of twice the width and back, and
    # the two products of each attention; scores.
    block = 4 * width**2 + 2 * width * 2 * width + 4 * inducing * width
    products = features * width + (3 * 9 + 1) * width + block + width * 3
    assert flops_a_superpixel(v4, 2, 3) == 2 * products
    several = count_flops(v4, (1, 2, 9, 10, 11), superpixels=COUNT)
    assert several - count_flops(v4, (1, 2, 9, 10, 11)) == (COUNT - 1) * 2 * products
    assert flops_a_superpixel(ENet(3, 5, design="V3"), 3, 2) == 2 * 16 * 5
    assert flops_a_superpixel(ENet(3, 5, design="V1"), 3, 2) == 0
    assert flops_a_superpixel(ENet(3, 5), 3, 2) == 0


@pytest.mark.parametrize(
    ("build", "size"),
    [
        (lambda: VoxResNet(2, 3, stages=1, width_divisor=8, design="V1"), (9, 10, 11)),
        (lambda: VoxResNet(2, 3, stages=2, width_divisor=16, design="V3"), (9, 10, 11)),
        (lambda: VoxResNet(2, 3, stages=1, width_divisor=8, design="V4"), (9, 10, 11)),
        (lambda: ENet(2, 3, design="V3"), (40, 53)),
        (lambda: SplitMergeFCN(2, 3, widths=(8, 8, 16, 16)), (64, 33)),
        (lambda: build_deeplab(2, 3, widths=(4, 4, 8, 8), channels=8, projection=8), (33, 41)),
    ],
    ids=["voxresnet-v1", "voxresnet-v3", "voxresnet-v4", "enet-v3", "smp", "vortex"],
)
def test_live_bytes_are_those_of_the_cpu(build, size):
    network = build().eval()
    with torch.no_grad(), LiveBytes("cpu") as memory:
        inputs = [torch.zeros(2, 2, *size)]
        if network.needs_superpixels:
            inputs += [torch.zeros(2, *size, dtype=torch.int32), COUNT]
        network(*inputs)
    assert live_bytes(network, (2, 2, *size), superpixels=COUNT) == memory.peak


def test_costs_leave_the_network_alone():
    network = ENet(2, 3, design="V1").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    live_bytes(network, (1, 2, 16, 16), dtype=torch.float64, superpixels=COUNT)
    count_flops(network, (1, 2, 16, 16), superpixels=COUNT)
    assert all(module.training for module in network.modules())
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in network.parameters())
