import pytest
import torch
from torch import nn

from voxseg.engine.device import choose_compute
from voxseg.engine.shallow import ShallowInFloat32

BFLOAT16 = choose_compute(torch.device("cpu"), "bfloat16", "contiguous", 3)
FLOAT32 = choose_compute(torch.device("cpu"), "float32", "contiguous", 3)


def kind_of(layer, layers, compute=BFLOAT16):
    with compute.autocast():
        return layer(torch.randn(1, 8, layers, 3, 3)).dtype


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("kind", [nn.Conv3d, nn.ConvTranspose3d])
def test_fewer_layers_than_the_kernel_has_are_done_in_float32(kind, kernel):
    layer = kind(8, 8, kernel, padding=kernel // 2)
    assert kind_of(layer, kernel - 1) is torch.float32
    assert kind_of(layer, kernel) is torch.bfloat16
    with torch.no_grad():
        assert kind_of(layer, kernel - 1) is torch.bfloat16


def test_other_layers_keep_their_precision():
    assert kind_of(nn.Conv3d(8, 8, 1), 1) is torch.bfloat16
    with BFLOAT16.autocast():
        assert nn.Conv2d(8, 8, 3, padding=1)(torch.randn(1, 8, 1, 3)).dtype is torch.bfloat16
    assert kind_of(nn.Conv3d(8, 8, 3, padding=1), 2, FLOAT32) is torch.float32


def test_weights_get_the_gradient_of_float32():
    torch.manual_seed(0)
    layer, image = nn.Conv3d(16, 16, 3, padding=1), torch.randn(2, 16, 2, 3, 2)
    gradients = []
    for compute in (FLOAT32, BFLOAT16):
        layer.zero_grad(set_to_none=True)
        with compute.autocast():
            layer(
                image,
            ).square().sum().backward()
        gradients.append(layer.weight.grad)
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_keywords_and_strides_pass_through():
    layer, image = nn.Conv3d(2, 4, 3, stride=2, padding=1), torch.randn(1, 2, 2, 5, 4)
    expected = layer(image)
    with torch.autocast("cpu", torch.bfloat16), ShallowInFloat32():
        found = nn.functional.conv3d(image, layer.weight, bias=layer.bias, stride=2, padding=1)
    torch.testing.assert_close(found, expected)
