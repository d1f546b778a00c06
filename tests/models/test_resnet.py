"""The ResNet backbone against a functional forward pass of torchvision's layers, and its files."""

import copy

import pytest
import torch
from torch.nn import functional

from voxseg.errors import DataError
from voxseg.models.resnet import ResNet

WIDTHS = (4, 4, 8, 8)
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def small(seed=0, **options):
    """A narrow network in eval mode whose batch norms do something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ResNet(**({"depth": 18, "widths": WIDTHS} | options)).eval()
        for name, value in network.state_dict().items():
            if name.endswith(("bias", "running_mean")):
                value.normal_()
            elif name.endswith("running_var"):
                value.uniform_(0.5, 2)
    return network


def image(*shape, seed=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def torchvision_forward(state, x, depth):
    """The forward pass of torchvision's ResNet, written out with functions."""

    def conv(name, x, **options):
        return functional.conv2d(x, state[f"{name}.weight"], **options)

    def norm(name, x):
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return functional.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"])

    x = norm("bn1", conv("conv1", x, stride=2, padding=3)).relu()
    x = functional.max_pool2d(x, 3, 2, 1)
    taps = []
    for layer, blocks in enumerate(BLOCKS[depth], start=1):
        for block in range(blocks):
            at, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            residual = x
            if depth < 50:
                y = norm(f"{at}.bn1", conv(f"{at}.conv1", x, stride=stride, padding=1)).relu()
                y = norm(f"{at}.bn2", conv(f"{at}.conv2", y, padding=1))
            else:
                y = norm(f"{at}.bn1", conv(f"{at}.conv1", x)).relu()
                y = norm(f"{at}.bn2", conv(f"{at}.conv2", y, stride=stride, padding=1)).relu()
                y = norm(f"{at}.bn3", conv(f"{at}.conv3", y))
            if f"{at}.downsample.0.weight" in state:
                residual = conv(f"{at}.downsample.0", x, stride=stride)
                residual = norm(f"{at}.downsample.1", residual)
            x = (y + residual).relu()
        taps.append(x)
    return taps


@pytest.mark.parametrize("depth", [18, 50])
def test_taps_match_torchvisions_forward(depth):
    network = small(depth=depth)
    x = image(2, 3, 45, 38)
    with torch.no_grad():
        taps = network(x)
        expected = torchvision_forward(network.state_dict(), x, depth)
    for tap, wanted, channels, stride in zip(
        taps, expected, network.channels, network.strides, strict=True
    ):
        torch.testing.assert_close(tap, wanted)
        assert tap.shape == (2, channels, -(-45 // stride), -(-38 // stride))


@pytest.mark.parametrize(
    ("depth", "parameters", "entries"),
    # torchvision's 11,689,512, 21,797,672, 25,557,032 and 44,549,160 without the classifier.
    [
        (18, 11_689_512 - 513_000, 122 - 2),
        (34, 21_797_672 - 513_000, 218 - 2),
        (50, 25_557_032 - 2_049_000, 320 - 2),
        (101, 44_549_160 - 2_049_000, 626 - 2),
    ],
)
def test_parameters_golden_torchvision(depth, parameters, entries):
    with torch.device("meta"):
        network = ResNet(depth=depth)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(network.state_dict()) == entries


@pytest.mark.parametrize(("stride", "step"), [(8, 4), (16, 2)])
def test_dilated_sampled_is_strided(stride, step):
    strided, dilated = small().double(), small(output_stride=stride).double()
    # The convolution that lost its stride sees the grid before it.
    for first, dilation in {8: [(3, 1), (4, 2)], 16: [(4, 1)]}[stride]:
        conv = dilated.stages[first - 1][0].conv1
        conv.dilation = conv.padding = (dilation, dilation)
    x = image(1, 3, 70, 65, dtype=torch.float64)
    with torch.no_grad():
        wanted, tap = strided(x)[-1], dilated(x)[-1]
    torch.testing.assert_close(tap[:, :, ::step, ::step], wanted, rtol=0, atol=1e-12)


def test_output_stride_sets_every_dilation():
    network = small(depth=50, output_stride=8, multi_grid=(1, 2, 4))
    assert network.strides == (4, 8, 8, 8)
    assert {block.conv2.dilation for block in network.layer3} == {(2, 2)}
    assert [block.conv2.dilation for block in network.layer4] == [(4, 4), (8, 8), (16, 16)]
    network = small(depth=50, output_stride=16, multi_grid=(1, 2, 4))
    assert {block.conv2.dilation for block in network.layer3} == {(1, 1)}
    assert [block.conv2.dilation for block in network.layer4] == [(2, 2), (4, 4), (8, 8)]


def test_receptive_fields_golden():
    # Araujo, Norris and Sim, 2019, Distill, doi:10.23915/distill.00021: 483 and 1027 for ResNet-50
    # and 101 that stride in a 1x1; striding in the 3x3 takes 2 x (4 + 8 + 16) off.
    with torch.device("meta"):
        assert ResNet(depth=50).receptive_fields[-1] == (483 - 56, 483 - 56)
        assert ResNet(depth=101).receptive_fields[-1] == (1027 - 56, 1027 - 56)
        assert ResNet(depth=18).receptive_fields == tuple((f,) * 2 for f in (43, 99, 211, 435))


def test_three_axes():
    network = small(in_channels=1, spatial_dims=3)
    with torch.no_grad():
        taps = network(image(1, 1, 33, 9, 1))
    assert [tuple(tap.shape[2:]) for tap in taps] == [(9, 3, 1), (5, 2, 1), (3, 1, 1), (2, 1, 1)]


@pytest.mark.parametrize(
    "options",
    [
        {"in_channels": 0},
        {"depth": 20},
        {"spatial_dims": 1},
        {"output_stride": 4},
        {"widths": (4, 4)},
        {"multi_grid": (1, 2)},
        {"output_stride": 8, "multi_grid": (1, 2, 4)},
    ],
    ids=str,
)
def test_resnet_rejects_options_out_of_range(options):
    with pytest.raises(ValueError, match=next(reversed(options))):
        small(**options)


def test_resnet_rejects_another_image():
    with pytest.raises(ValueError, match=r"\(B, 3, and 2 spatial axes\)"):
        small()(image(1, 1, 8, 8))


def imagenet_file(folder, network, *, old=False):
    """What torchvision would have saved: a classifier too, and in old files no batch counts."""
    state = {
        name: value
        for name, value in network.state_dict().items()
        if not (old and name.endswith("num_batches_tracked"))
    }
    state |= {"fc.weight": torch.zeros(1000, 8), "fc.bias": torch.zeros(1000)}
    torch.save(state, folder / "resnet.pth")
    return folder / "resnet.pth"


@pytest.mark.parametrize("old", [False, True], ids=["new", "old"])
def test_imagenet_file_loads(tmp_path, old):
    source, network = small(seed=5), small()
    report = network.load_imagenet(imagenet_file(tmp_path, source, old=old))
    assert report.unexpected == ("fc.weight", "fc.bias")
    assert bool(report.missing) == old
    assert all(name.endswith("num_batches_tracked") for name in report.missing)
    x = image(1, 3, 33, 40)
    with torch.no_grad():
        for tap, wanted in zip(network(x), source(x), strict=True):
            torch.testing.assert_close(tap, wanted, rtol=0, atol=0)


def test_one_channel_sees_grey_as_three_do(tmp_path):
    source, network = small(seed=5), small(in_channels=1)
    network.load_imagenet(imagenet_file(tmp_path, source))
    x = image(1, 1, 33, 40)
    with torch.no_grad():
        torch.testing.assert_close(network(x)[-1], source(x.expand(-1, 3, -1, -1))[-1])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"depth": 34}, r"not a ResNet-34 .* it lacks layer1\.2\.conv1\.weight.* more; give"),
        ({"widths": (8, 8, 8, 8)}, r"conv1\.weight \(4, 3, 7, 7\) instead of \(8, 3, 7, 7\)"),
        ({"in_channels": 2}, "fit images of 3 channels"),
        ({"spatial_dims": 3, "in_channels": 1}, "or axes"),
    ],
    ids=str,
)
def test_imagenet_rejects_another_network(tmp_path, options, sentence):
    network = small(**options)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(DataError, match=sentence):
        network.load_imagenet(imagenet_file(tmp_path, small(seed=5)))
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_imagenet_rejects_more_layers(tmp_path):
    with pytest.raises(DataError, match=r"it also has layer1\.2"):
        small().load_imagenet(imagenet_file(tmp_path, small(depth=34)))


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"model": {"a": 1}}], ids=str)
def test_imagenet_rejects_what_is_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(DataError, match=r"file\.pth holds more than named tensors"):
        small().load_imagenet(tmp_path / "file.pth")


def test_imagenet_rejects_damaged_and_missing_files(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        small().load_imagenet(tmp_path / "none.pth")
    path = imagenet_file(tmp_path, small())
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"resnet\.pth cannot be read as weights"):
        small().load_imagenet(path)


def test_imagenet_rejects_code_in_a_file(tmp_path):
    torch.save(small(), tmp_path / "module.pth")
    with pytest.raises(DataError, match="cannot be read as weights"):
        small().load_imagenet(tmp_path / "module.pth")
