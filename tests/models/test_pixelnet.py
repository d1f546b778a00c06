"""PixelNet: chosen pixels as in the whole, boxes as at once, memory, and what the paper says."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from voxseg.layers.depth_first import LiveBytes
from voxseg.models import VGG16, PixelNet, VoxResTaps, build_pixelnet, count_parameters
from voxseg.models.vgg import TAPS

WIDTHS = (4, 4, 6, 8, 8, 10)


def image(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def small(kind="vgg", seed=0, taps=None, **options):
    """A narrow network in float64 and eval mode whose batch norms do something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "vgg":
            trunk = VGG16(2, taps or (*TAPS, "7"), widths=WIDTHS)
        else:
            dims = {"volume": 3, "slice": 2}[kind]
            trunk = VoxResTaps(
                2, taps or ("conv1b", "voxres3", "voxres6"), spatial_dims=dims, width_divisor=8
            )
        network = PixelNet(trunk, 3, **({"hidden": (7, 5), "std": 0} | options)).double().eval()
        for name, value in network.state_dict().items():
            if name.endswith("running_mean"):
                value.normal_(0, 0.1)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 2)
    return network


SIZES = [("vgg", (37, 70)), ("vgg", (5, 3)), ("slice", (13, 9)), ("volume", (9, 6, 11))]


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize(("kind", "size"), SIZES, ids=str)
def test_sampled_equals_dense_in_values_and_gradients(kind, size, normalise):
    network = small(kind, normalise_taps=normalise).train()
    network.dropout = 0.0
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    x = image(2, 2, *size)
    points = torch.randint(x[0, 0].numel(), (2, 9), generator=torch.Generator().manual_seed(2))
    answers = []
    for sampled in (False, True):
        network.zero_grad()
        if sampled:
            answer = network.sampled(x, points)
        else:
            whole, _ = network.supervise(x)
            answer = whole.flatten(2).gather(2, points[:, None].expand(-1, 3, -1))
        answer.square().sum().backward()
        answers.append((answer.detach(), [p.grad.clone() for p in network.parameters()]))
    (dense, wanted), (sparse, found) = answers
    torch.testing.assert_close(sparse, dense, rtol=1e-12, atol=1e-12)
    # A bias before a batch norm has no gradient but rounding.
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("kind", "size"), SIZES, ids=str)
def test_boxes_answer_as_the_whole_at_once(kind, size):
    network = small(kind)
    x = image(2, 2, *size)
    expected = network(x).detach()
    assert expected.shape == (2, 3, *size)
    with torch.no_grad():
        for network.block_bytes in (1, 50_000, 2**27):
            torch.testing.assert_close(network(x), expected, rtol=1e-12, atol=1e-12)


def test_linear_head_by_hand():
    # One tap of stride 1: the head is a 1x1 convolution.
    network = small(taps=("1_2",), hidden=(), std=0.5, normalise_taps=True)
    x = image(1, 2, 6, 5)
    (features,) = network.trunk(x)
    norm = network.norms[0]
    assert list(norm.parameters()) == []
    features = functional.batch_norm(features, norm.running_mean, norm.running_var)
    (layer,) = network.mlp
    expected = functional.conv2d(features, layer.weight[:, :, None, None], layer.bias)
    torch.testing.assert_close(network(x), expected)


def test_dropout_acts_on_hidden_values_and_hypercolumns_in_training_alone():
    network = small("slice", hidden=(4000,), dropout=0.75, input_dropout=0.0)
    network.mlp[1].weight.data.fill_(1.0)
    x = image(1, 2, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(network(x), network(x))
        network.train()
        assert not torch.equal(network(x), network(x))
        network.mlp[0].weight.zero_()
        network.mlp[0].bias.fill_(1.0)
        network.mlp[1].bias.zero_()
        answer = network(x)
    # 4000 ones, a quarter of them kept and multiplied by 4: variance 4000 * 3.
    assert abs(float(answer[:, 0].mean()) - 4000) < 5 * (12_000 / 64) ** 0.5
    assert 0.5 * 12_000 < float(answer[:, 0].var()) < 2 * 12_000
    # Without hidden layers what varies is the hypercolumn.
    linear = small("slice", hidden=(), input_dropout=0.5).train()
    with torch.no_grad():
        assert not torch.equal(linear(x), linear(x))
        linear.input_dropout = 0.0
        torch.testing.assert_close(linear(x), linear(x))


def test_first_weights_follow_the_paper():
    torch.manual_seed(0)
    network = build_pixelnet(3, 21, widths=(8, 8, 8, 8, 8, 8), hidden=(300, 300))
    for layer in network.mlp:
        assert float(layer.weight.detach().std()) == pytest.approx(1e-3, rel=0.05)
        assert not layer.bias.any()
    he = PixelNet(network.trunk, 21, hidden=(300,), std=0)
    assert float(he.mlp[0].weight.detach().std()) == pytest.approx((2 / 40) ** 0.5, rel=0.05)


def test_the_perceptrons_parameters_are_the_heads():
    network = small(normalise_taps=True)
    named = {id(parameter): name for name, parameter in network.named_parameters()}
    assert {named[id(p)] for p in network.head_parameters()} == {
        f"mlp.{layer}.{what}" for layer in range(3) for what in ("weight", "bias")
    }


def test_memory_of_a_prediction_is_bounded():
    torch.manual_seed(0)
    network = build_pixelnet(2, 3, taps=("1_2", "2_2"), widths=WIDTHS, hidden=(512, 512)).eval()
    network.block_bytes = 2**21
    peaks = {}
    for edge in (96, 192):
        x = torch.randn(1, 2, edge, edge)
        with torch.no_grad(), LiveBytes("cpu") as trunk:
            network.trunk(x)
        with torch.no_grad(), LiveBytes("cpu") as memory:
            network(x)
        peaks[edge] = memory.peak - trunk.peak
    # Beside the trunk: a box, and three logits for every pixel.
    logits = {edge: 4 * 3 * edge**2 for edge in peaks}
    for edge, peak in peaks.items():
        assert peak < 2**21 + logits[edge]
    assert 192**2 * 4 * 512 > 8 * 2**21


def test_memory_of_sampled_training_does_not_grow_with_a_hidden_map():
    torch.manual_seed(0)
    network = build_pixelnet(2, 3, taps=("1_2",), widths=WIDTHS, hidden=(256,)).train()
    x = torch.randn(1, 2, 96, 96)
    peaks = []
    for sampled in (True, False):
        with LiveBytes("cpu") as memory:
            answer = network.sampled(x, torch.arange(200)[None]) if sampled else network(x)
            answer.sum().backward()
        peaks.append(memory.peak)
    assert peaks[0] * 5 < peaks[1]


@pytest.mark.parametrize("kind", ["vgg", "slice"])
def test_reach_is_as_far_as_answers_depend(kind):
    network = small(kind, seed=3, taps=TAPS[:3] if kind == "vgg" else None)
    (reach, _) = network.reach
    edge = 2 * reach + 33
    x = image(1, 2, 1, edge).requires_grad_()
    middle = edge // 2
    network(x)[0, :, 0, middle].sum().backward()
    seen = x.grad[0].abs().sum((0, 1)).nonzero().flatten()
    assert middle - int(seen[0]) <= reach
    assert int(seen[-1]) - middle <= reach
    assert int(seen[-1] - seen[0]) > 0.8 * 2 * reach


def test_parameters_golden_sizes_of_table_4():
    # Sizes in MB of float32, rounded down as the paper prints them.
    counts = {
        (): 14_764_668,
        (4096,): 18_372_476,
        (4096, 4096): 35_153_788,
    }
    for hidden, expected in counts.items():
        with torch.device("meta"):
            network = build_pixelnet(3, 60, taps=("1_2", "3_3", "5_3"), hidden=hidden)
        assert count_parameters(network).inference == expected
    assert round(4 * counts[()] / 1e6) == 59
    assert round(4 * counts[(4096,)] / 1e6) == 73


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"hidden": (0,)}, "num_classes and hidden must be positive"),
        ({"dropout": 1.0}, r"must be in \[0, 1\)"),
        ({"input_dropout": -0.1}, r"must be in \[0, 1\)"),
        ({"std": -1.0}, "std not negative"),
    ],
    ids=str,
)
def test_pixelnet_rejects_options_out_of_range(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        small(**options)
    with pytest.raises(ValueError, match="must be"):
        small()(image(1, 3, 8, 8))
