"""VGG-16 against a functional forward pass of torchvision's layers, and its files."""

import copy

import pytest
import torch
from torch.nn import functional

from voxseg.errors import DataError
from voxseg.models.vgg import LAYERS, TAPS, VGG16

WIDTHS = (4, 4, 6, 8, 8, 10)
# torchvision's cfgs["D"]: convolutions of each block, "M" a pooling behind each.
PLACES = {"1": (0, 2), "2": (5, 7), "3": (10, 12, 14), "4": (17, 19, 21), "5": (24, 26, 28)}
NORMED = {"1": (0, 3), "2": (7, 10), "3": (14, 17, 20), "4": (24, 27, 30), "5": (34, 37, 40)}


def small(seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = VGG16(**({"widths": WIDTHS} | options)).eval()
        for name, value in network.state_dict().items():
            if name.endswith(("bias", "running_mean")):
                value.normal_(0, 0.1)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 2)
    return network


def image(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator)


def published(network):
    """The state dict as torchvision would have saved it, matrices and a classifier of ImageNet."""
    state = copy.deepcopy(network.state_dict())
    for name in ("classifier.0.weight", "classifier.3.weight"):
        state[name] = state[name].flatten(1)
    return state | {
        "classifier.6.weight": torch.ones(5, WIDTHS[5]),
        "classifier.6.bias": torch.zeros(5),
    }


def torchvision_forward(state, x, places):
    """The forward pass of torchvision's VGG-16, written out with functions; pools may round up."""
    found = {}
    for block, convolutions in places.items():
        for number, place in enumerate(convolutions, start=1):
            name = f"features.{place}"
            x = functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)
            if f"features.{place + 1}.running_mean" in state:
                at = f"features.{place + 1}"
                x = functional.batch_norm(
                    x, *(state[f"{at}.{k}"] for k in ("running_mean", "running_var")),
                    *(state[f"{at}.{k}"] for k in ("weight", "bias")),
                )  # fmt: skip
            x = x.relu()
            found[f"{block}_{number}"] = x
        x = functional.max_pool2d(x, 2, 2, ceil_mode=True)
    return found, x


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("size", [(64, 32), (33, 50), (7, 3)], ids=str)
def test_taps_match_torchvision_behind_their_relus(size, batch_norm):
    taps = LAYERS[:13]
    network = small(taps=taps, batch_norm=batch_norm)
    x = image(2, 3, *size)
    with torch.no_grad():
        found = network(x)
        expected, _ = torchvision_forward(network.state_dict(), x, NORMED if batch_norm else PLACES)
    assert list(network.taps) == list(taps) == list(expected)
    for name, one in zip(taps, found, strict=True):
        torch.testing.assert_close(one, expected[name])
        stride = network.taps[name].stride
        assert one.shape[1] == network.taps[name].channels
        assert one.shape[2:] == tuple(-(-n // s) for n, s in zip(size, stride, strict=True))


def test_conv_6_and_7_are_the_fully_connected_layers():
    network = small(taps=("6", "7"))
    x = image(1, 3, 224, 224)
    state = published(network)
    with torch.no_grad():
        sixth, seventh = network(x)
        _, pooled = torchvision_forward(state, x, PLACES)
        assert pooled.shape[2:] == (7, 7)
        fc6 = functional.linear(
            pooled.flatten(1), state["classifier.0.weight"], state["classifier.0.bias"]
        ).relu()
        fc7 = functional.linear(
            fc6, state["classifier.3.weight"], state["classifier.3.bias"]
        ).relu()
    # The cell in the middle sees all of the 7 x 7, and no padding.
    torch.testing.assert_close(sixth[:, :, 3, 3], fc6)
    torch.testing.assert_close(seventh[:, :, 3, 3], fc7)
    assert {network.taps[n].stride for n in ("6", "7")} == {(32, 32)}


def test_taps_are_given_in_order_and_the_network_ends_at_the_deepest():
    network = small(taps=("3_3", "1_2"))
    assert list(network.taps) == ["1_2", "3_3"]
    assert len(network.features) == 16
    assert not len(network.classifier)
    assert [one.shape[1] for one in network(image(1, 3, 9, 9))] == [4, 6]


def test_receptive_fields_are_measured():
    # Known of VGG-16: 5, 14, 40, 92 and 196 pixels in the blocks' last layers.
    taps = VGG16(taps=(*TAPS, "7"), widths=WIDTHS).taps
    assert [taps[name].field[0] for name in taps] == [5, 14, 40, 92, 196, 404]
    network = small(taps=("3_3",), in_channels=1).double()
    x = image(1, 1, 1, 96).double().requires_grad_()
    cell = 11
    network(x)[0][0, :, 0, cell].sum().backward()
    seen = x.grad[0, 0, 0].nonzero().flatten()
    middle = (cell + 0.5) * 4 - 0.5
    assert seen[0] >= middle - 39 / 2
    assert seen[-1] <= middle + 39 / 2
    assert seen[-1] - seen[0] + 1 > 0.6 * 40


def test_dropout_is_behind_conv_6_and_7():
    network = small(taps=("5_3", "6", "7"), dropout=0.9).train()
    with torch.no_grad():
        fifth, sixth, seventh = network(torch.rand(1, 3, 160, 160))
    zeros = [float((one == 0).float().mean()) for one in (fifth, sixth, seventh)]
    assert zeros[0] < 0.9 < min(zeros[1:])


def test_three_axes():
    network = small(spatial_dims=3, in_channels=1, taps=("1_2", "7"))
    fine, coarse = network(image(1, 1, 5, 9, 40))
    assert fine.shape == (1, 4, 5, 9, 40)
    assert coarse.shape == (1, 10, 1, 1, 2)
    assert network.taps["7"].stride == (32, 32, 32)


@pytest.mark.parametrize("taps", [LAYERS, ("1_2", "7"), ("4_3",)], ids=str)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_imagenet_file_loads(tmp_path, taps, batch_norm):
    source = small(seed=5, taps=LAYERS, batch_norm=batch_norm)
    torch.save(published(source), tmp_path / "vgg16.pth")
    network = small(taps=taps, batch_norm=batch_norm)
    report = network.load_imagenet(tmp_path / "vgg16.pth")
    assert {"classifier.6.weight", "classifier.6.bias"} <= set(report.unexpected)
    assert not report.missing
    x = image(1, 3, 40, 33)
    with torch.no_grad():
        expected = dict(zip(LAYERS, source(x), strict=True))
        for name, one in zip(network.taps, network(x), strict=True):
            torch.testing.assert_close(one, expected[name], rtol=0, atol=0)


def test_one_channel_sees_grey_as_three_do(tmp_path):
    source, network = small(seed=5, taps=LAYERS), small(in_channels=1)
    torch.save(published(source), tmp_path / "vgg16.pth")
    network.load_imagenet(tmp_path / "vgg16.pth")
    x = image(1, 1, 20, 33)
    with torch.no_grad():
        expected = dict(zip(LAYERS, source(x.expand(-1, 3, -1, -1)), strict=True))
        torch.testing.assert_close(network(x)[-1], expected["5_3"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_norm": True}, r"not a VGG-16 with batch norm .* lacks features\.1\.weight.* more"),
        ({"widths": (8, 4, 6, 8, 8, 10)}, r"features\.0\.weight \(4, 3, 3, 3\) instead of \(8,"),
        ({"in_channels": 2}, "fit images of 3 channels"),
        ({"spatial_dims": 3, "in_channels": 1}, "or axes"),
    ],
    ids=str,
)
def test_imagenet_rejects_another_network(tmp_path, options, sentence):
    torch.save(published(small(taps=LAYERS)), tmp_path / "vgg16.pth")
    network = small(**options)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(DataError, match=sentence):
        network.load_imagenet(tmp_path / "vgg16.pth")
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_imagenet_rejects_layers_that_no_vgg_16_has(tmp_path):
    state = published(small(taps=LAYERS)) | {"features.34.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "vgg19.pth")
    with pytest.raises(DataError, match=r"vgg19\.pth is not a VGG-16 .* also has features\.34"):
        small().load_imagenet(tmp_path / "vgg19.pth")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"taps": ("1_2", "5_4")}, r"no layer 5_4; VGG-16 has 1_1, 1_2, .*, 5_3, 6, 7"),
        ({"taps": ()}, "each layer must be named once"),
        ({"taps": ("1_2", "1_2")}, "each layer must be named once"),
        ({"widths": (4, 4, 4, 4, 4)}, "widths must be 6 positive numbers"),
        ({"spatial_dims": 1}, "spatial_dims must be 2 or 3"),
    ],
    ids=str,
)
def test_vgg_rejects_options_out_of_range(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        small(**options)
    with pytest.raises(ValueError, match=r"must be \(B, 3, and 2 spatial axes\)"):
        small()(image(1, 1, 8, 8))
