"""SUNet: the numbers of the paper, its strides, any image, and classifier to segmentation."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from voxseg.errors import VoxsegError
from voxseg.layers.stacked_unet import UNetModule
from voxseg.models import build_sunet, build_sunet_classifier, load_shared_weights
from voxseg.models.cost import count_flops
from voxseg.models.sunet_trunk import VARIANTS

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "sunet_parameters.json").read_text())
STRIDES = [2, 4, 8, 16, 32]
NARROW = {"filters": 4, "widths": (4, 6, 8, 8, 10, 12), "stacks": (1, 2, 1, 1)}


def small(seed=0, build=build_sunet, in_channels=2, **options):
    """A narrow network in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(in_channels, 3, **(NARROW | options)).eval()


def random_image(*size, batch=1, seed=1):
    return torch.randn(batch, 2, *size, generator=torch.Generator().manual_seed(seed))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("variant", VARIANTS)
def test_parts_golden(variant):
    with torch.device("meta"):
        network = build_sunet(3, 19, variant=variant)
    assert count(network) == GOLDEN["cityscapes"][variant]
    assert count(network.trunk) == GOLDEN["trunk"][variant]
    assert count(network.trunk.conv1) == GOLDEN["conv1"]
    assert count(network.trunk.residual) == GOLDEN["residual"]
    firsts = [count(block[0]) for block in network.trunk.blocks]
    assert firsts == GOLDEN["first_modules"][variant]


@pytest.mark.parametrize(("variant", "layers"), [("64", 110), ("128", 110), ("7-128", 170)])
def test_layers_golden_table_1(variant, layers):
    with torch.device("meta"):
        network = build_sunet_classifier(3, 1000, variant=variant)
    kinds = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
    found = [name for name, one in network.named_modules() if isinstance(one, kinds)]
    assert len([name for name in found if not name.endswith("skip")]) == layers


@pytest.mark.parametrize(
    ("variant", "at_224", "at_512"),
    [
        ("64", 2.53, (13.2, 14.0, 24.7)),
        ("128", 7.36, (38.4, 41.7, 84.3)),
        ("7-128", 10.17, (53.0, 57.6, 130.1)),
    ],
)
def test_products_golden_authors(variant, at_224, at_512):
    # Billions of multiplications: the classifier's, and the trunk's at output stride 32, 16, 8.
    with torch.device("meta"):
        classifier = build_sunet_classifier(3, 1000, variant=variant)
        trunks = [build_sunet(3, 1, variant=variant, output_stride=s).trunk for s in (32, 16, 8)]
    assert count_flops(classifier, (1, 3, 224, 224)) / 2e9 == pytest.approx(at_224, abs=6e-3)
    found = [count_flops(trunk, (1, 3, 512, 512)) / 2e9 for trunk in trunks]
    assert found == pytest.approx(at_512, abs=0.06)


def test_maps_golden_table_1():
    with torch.device("meta"):
        trunk = build_sunet_classifier(3, 1000).trunk
        image = torch.empty(1, 3, 224, 224)
    sizes = []
    for layer in (trunk.conv1, trunk.residual, *trunk.blocks):
        layer.register_forward_hook(lambda *found: sizes.append(found[-1].shape[1:]))
    trunk(image)
    widths = (64, 128, 256, 512, 768, 1024)
    cells = (112, 56, 56, 28, 14, 7)
    assert sizes == [(w, c, c) for w, c in zip(widths, cells, strict=True)]


@pytest.mark.parametrize(("output_stride", "cells"), [(32, 16), (16, 32), (8, 64), (4, 128)])
def test_cells_golden_512(output_stride, cells):
    with torch.device("meta"):
        network = build_sunet(3, 21, output_stride=output_stride)
        assert network.coarse_logits(torch.empty(2, 3, 512, 512)).shape == (2, 21, cells, cells)


def rates(network):
    """The rate of each block, and whether its modules halve the grid."""
    return [
        (block[0].encoder[0].conv1.conv.dilation[0], block[0].encoder[0].conv1.conv.stride[0])
        for block in network.trunk.blocks
    ]


@pytest.mark.parametrize(
    ("output_stride", "expected"),
    [
        (32, [1, 1, 1, 1]),
        (16, [1, 1, 1, 2]),
        (8, [1, 1, 2, 4]),
        (4, [1, 2, 4, 8]),
        (2, [2, 4, 8, 16]),
    ],
)
def test_dilations_golden_section_5(output_stride, expected):
    multigrid = small(output_stride=output_stride)
    assert rates(multigrid) == [(rate, 2 if rate == 1 else 1) for rate in expected]
    strided = small(output_stride=output_stride, dilation="strided")
    assert rates(strided) == [(rate, 2) for rate in expected]


@pytest.mark.parametrize("dilation", ["multigrid", "strided"])
@pytest.mark.parametrize("output_stride", STRIDES)
@pytest.mark.parametrize(
    "size", [(224, 224), (500, 513), (7, 9), (1, 1), (9, 34, 5), (1, 1, 1)], ids=str
)
def test_any_size(size, output_stride, dilation):
    network = small(output_stride=output_stride, dilation=dilation, spatial_dims=len(size))
    image = random_image(*size)
    if len(size) == 2:
        network, image = network.to("meta"), image.to("meta")
    with torch.no_grad():
        coarse = network.coarse_logits(image)
        assert coarse.shape[2:] == tuple(-(-length // output_stride) for length in size)
        assert network(image).shape == (1, 3, *size)


@pytest.mark.parametrize("size", [(64, 96), (37, 50)], ids=str)
def test_logits_are_resized_and_cut(size):
    network, image = small(), random_image(*size)
    with torch.no_grad():
        coarse = network.coarse_logits(image)
        covered = [16 * cells for cells in coarse.shape[2:]]
        whole = functional.interpolate(coarse, covered, mode="bilinear", align_corners=False)
        expected = whole[..., : size[0], : size[1]]
        torch.testing.assert_close(network(image), expected, rtol=0, atol=0)
        main, auxiliary = network.supervise(image)
        torch.testing.assert_close(main, expected, rtol=0, atol=0)
    assert auxiliary == []


def test_pooling_is_the_mean_of_what_is_there():
    x = random_image(5, 8)
    expected = functional.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    torch.testing.assert_close(small().trunk._halved(x), expected)
    one = random_image(1, 1, 1)
    torch.testing.assert_close(small(spatial_dims=3).trunk._halved(one), one)


@pytest.mark.parametrize("degridding", [0, 5])
def test_weights_fit_at_every_stride(degridding):
    state = small(degridding=degridding).state_dict()
    image = random_image(64, 64)
    answers = []
    for stride in STRIDES:
        other = small(seed=1, output_stride=stride, degridding=degridding)
        other.load_state_dict(state)
        with torch.no_grad():
            answers.append(other(image))
    assert all(answer.isfinite().all() for answer in answers)
    assert not torch.equal(answers[0], answers[-1])


def test_classifier_starts_a_segmentation():
    classifier = small(build=build_sunet_classifier)
    network = small(seed=1, degridding=5)
    report = load_shared_weights(network, classifier.state_dict())
    assert report.loaded == tuple(f"trunk.{name}" for name in classifier.trunk.state_dict())
    assert set(report.unexpected) == {"fc.weight", "fc.bias"}
    heads = dict(network.named_parameters())
    assert {name for name in report.missing if name in heads} == {
        name for name in heads if name.startswith(("degridding.", "classifier."))
    }
    for name, value in classifier.trunk.state_dict().items():
        torch.testing.assert_close(network.trunk.state_dict()[name], value, rtol=0, atol=0)
    with pytest.raises(VoxsegError, match="widths"):
        load_shared_weights(small(filters=5), classifier.state_dict())


def test_classifier_is_the_mean_of_its_cells():
    network, image = small(build=build_sunet_classifier), random_image(70, 33, batch=2)
    with torch.no_grad():
        cells = network.trunk(image)
        assert cells.shape == (2, 12, 3, 2)
        torch.testing.assert_close(network(image), network.fc(cells.mean((2, 3))))
        assert network.supervise(image)[1] == []


def test_head_is_what_comes_after_the_trunk():
    for network in (small(degridding=5), small(), small(build=build_sunet_classifier)):
        head = {id(one) for one in network.head_parameters()}
        trunk = {id(one) for one in network.trunk.parameters()}
        assert not head & trunk
        assert head | trunk == {id(one) for one in network.parameters()}


def test_degridding_golden_section_5_3():
    with torch.device("meta"):
        network = build_sunet(3, 21, variant="7-128", output_stride=8, degridding=512)
    layers = [one for one in network.degridding.modules() if isinstance(one, nn.Conv2d)]
    assert [(one.out_channels, one.dilation[0]) for one in layers] == [(512, 2), (512, 1)]
    assert network.receptive_field[0] - network.trunk.receptive_field[0] == 8 * 2 * (2 + 1)


@pytest.mark.parametrize("output_stride", [2, 8, 32])
def test_receptive_field_is_measured(output_stride):
    network = small(output_stride=output_stride, stacks=(1, 1, 1, 1)).double()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            with torch.no_grad():
                layer.weight.abs_().add_(0.1)
    field = network.receptive_field[0]
    size = -(-2 * field // 64) * 64
    widest = 0
    for cell in range(4):
        x = torch.ones(1, 2, 1, size, dtype=torch.float64, requires_grad=True)
        network.coarse_logits(x)[0, 0, 0, size // output_stride // 2 + cell].backward()
        seen = x.grad[0].abs().sum((0, 1)).nonzero().flatten()
        widest = max(widest, int(seen[-1] - seen[0]) + 1)
    assert widest <= field
    assert widest > 0.9 * field


@pytest.mark.parametrize(
    ("options", "coarsest"),
    [
        ({}, 64),
        ({"output_stride": 32}, 64),
        ({"output_stride": 8}, 32),
        ({"output_stride": 2}, 2),
        ({"output_stride": 2, "dilation": "strided"}, 8),
    ],
    ids=str,
)
def test_one_cell_does_not_train(options, coarsest):
    network = small(**options).train()
    with pytest.raises(ValueError, match=f"more than {coarsest} pixels"):
        network(random_image(coarsest, 1))
    network(random_image(coarsest + 1, 1))
    network(random_image(coarsest, 1, batch=2))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    network(random_image(coarsest, 1))


def test_it_learns_which_half_is_bright():
    network = small(in_channels=1, output_stride=8).train()
    image = torch.zeros(2, 1, 64, 64)
    image[0, :, :, :32] = image[1, :, :, 32:] = 1
    labels = image[:, 0].long()
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    losses = []
    for _ in range(30):
        loss = functional.cross_entropy(network(image), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_norms_stand_where_the_paper_has_them():
    trunk = small().trunk
    # None after the first convolution: the residual block's own comes first.
    assert not any(isinstance(one, nn.BatchNorm2d) for one in trunk.conv1.modules())
    assert isinstance(trunk.residual.norm, nn.BatchNorm2d)
    modules = [one for one in trunk.modules() if isinstance(one, UNetModule)]
    assert [one.skip is None for one in modules] == [False, True, True, False, False]


def test_norms_can_remember_less():
    for build in (build_sunet, build_sunet_classifier):
        network = small(build=build, norm_momentum=0.1)
        found = {one.momentum for one in network.modules() if isinstance(one, nn.BatchNorm2d)}
        assert found == {0.1}
        assert small(build=build).trunk.norm.momentum == 0.01


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"variant": "256"}, "variant must be one of"),
        ({"output_stride": 1}, "output_stride"),
        ({"filters": 0}, "filters"),
        ({"widths": (1, 2, 3, 4)}, "widths must be 6"),
        ({"stacks": (1, 1, 1)}, "stacks must be 4"),
        ({"dilation": "none"}, "dilation"),
        ({"degridding": -1}, "degridding"),
        ({"norm_momentum": 0.0}, "norm_momentum"),
        ({"spatial_dims": 1}, "spatial_dims"),
        ({"in_channels": 0}, "in_channels"),
    ],
    ids=str,
)
def test_options_out_of_range_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        small(**options)


@pytest.mark.parametrize("shape", [(1, 3, 9, 9), (1, 2, 9, 9, 9)], ids=str)
def test_another_image_is_named(shape):
    with pytest.raises(ValueError, match=r"must be \(B, 2, and 2 spatial axes\)"):
        small()(torch.zeros(shape))


def test_classes_are_at_least_one():
    for build in (build_sunet, build_sunet_classifier):
        with pytest.raises(ValueError, match="num_classes"):
            build(1, 0, **NARROW)
