"""DeepLabv3: its parts, its grid, and training it on little."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from voxseg.layers.aspp import ASPP
from voxseg.layers.vortex import VortexPooling
from voxseg.models import DeepLab, ResNet, build_deeplab
from voxseg.models.deeplab import CONTEXTS

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "deeplab_parameters.json").read_text())


def small(seed=0, **options):
    """A network of few channels in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        narrow = {"widths": (4, 4, 8, 8), "channels": 4, "projection": 8}
        return build_deeplab(1, 3, **(narrow | options)).eval()


def random_image(*size, batch=1, seed=1):
    return torch.randn(batch, 1, *size, generator=torch.Generator().manual_seed(seed))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("context", GOLDEN["context"])
def test_parts_golden(context):
    with torch.device("meta"):
        model = build_deeplab(GOLDEN["in_channels"], GOLDEN["num_classes"], context=context)
        direct = build_deeplab(3, 21, context=context, projection=None)
    assert count(model.backbone) == GOLDEN["backbone"]["50"]
    assert count(model.context) == GOLDEN["context"][context]
    assert count(model.projection) + count(model.classifier) == GOLDEN["head"]["projected"]
    assert count(direct.projection) + count(direct.classifier) == GOLDEN["head"]["direct"]


@pytest.mark.parametrize(
    ("output_stride", "rates", "dilations"),
    [(8, (12, 24, 36), (4, 8, 16)), (16, (6, 12, 18), (2, 4, 8))],
)
def test_dilations_are_those_of_the_papers(output_stride, rates, dilations):
    with torch.device("meta"):
        model = build_deeplab(3, 21, context="aspp", output_stride=output_stride)
    assert tuple(branch.conv.dilation[0] for branch in model.context.branches[1:]) == rates
    assert tuple(block.conv2.dilation[0] for block in model.backbone.layer4) == dilations
    assert [block.conv2.dilation[0] for block in model.backbone.layer3] == (
        [2] * 6 if output_stride == 8 else [1] * 6
    )


@pytest.mark.parametrize("context", CONTEXTS)
def test_context_is_the_one_that_was_asked_for(context):
    module = small(context=context).context
    kernels = [branch.conv.kernel_size[0] for branch in module.branches]
    pools = getattr(module, "pools", None)
    assert isinstance(module, ASPP if context.startswith("aspp") else VortexPooling)
    assert kernels == [3 if context in ("aspp+", "vortex") else 1, 3, 3, 3]
    if context.startswith("module"):
        assert pools == (int(context[8:]),) * 4
    elif context == "vortex":
        assert pools == (1, 3, 9, 27)


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("size", [(1, 1), (8, 30), (33, 49), (50, 17)], ids=str)
def test_any_size_and_cells_lie_on_their_pixels(size, output_stride):
    model, image = small(output_stride=output_stride), random_image(*size)
    with torch.no_grad():
        logits, coarse = model(image), model.coarse_logits(image)
    assert logits.shape == (1, 3, *size)
    for length, cells in zip(size, coarse.shape[2:], strict=True):
        assert cells == max(2, -(-(length - 1) // output_stride) + 1)
    on_cells = logits[..., ::output_stride, ::output_stride]
    expected = coarse[..., : on_cells.shape[2], : on_cells.shape[3]]
    torch.testing.assert_close(on_cells, expected)
    if size == (33, 49):
        # Halfway between two cells of a row.
        between = logits[..., 0, output_stride // 2 :: output_stride]
        row = coarse[..., 0, :]
        torch.testing.assert_close(between, (row[..., 1:] + row[..., :-1]) / 2)


def test_forward_is_its_parts():
    model, image = small(), random_image(17, 25)
    with torch.no_grad():
        context = model.context(model.backbone(image)[-1])
        assert context.shape == (1, 20, 3, 4)
        coarse = model.classifier(model.projection(context))
        expected = functional.interpolate(coarse, (17, 25), mode="bilinear", align_corners=True)
        torch.testing.assert_close(model(image), expected)
        main, auxiliary = model.supervise(image)
        torch.testing.assert_close(main, expected)
    assert auxiliary == []


def test_an_image_is_filled_up_with_its_last_pixels():
    model, image = small(), random_image(12, 20)
    filled = functional.pad(image, (0, 5, 0, 5), mode="replicate")
    with torch.no_grad():
        torch.testing.assert_close(model(image), model(filled)[..., :12, :20])


def test_convolving_first_gives_the_same_answer():
    plain = small(border="extend").double()
    fast = small(seed=1, border="extend", conv_first=True).double()
    fast.load_state_dict(plain.state_dict())
    image = random_image(30, 41).double()
    with torch.no_grad():
        torch.testing.assert_close(fast(image), plain(image))


@pytest.mark.parametrize("context", ["aspp", "vortex"])
@pytest.mark.parametrize("size", [(1, 1), (33, 20)], ids=str)
def test_a_batch_of_one_trains(context, size):
    model = small(context=context).train()
    before = copy.deepcopy(model.state_dict())
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    model(random_image(*size)).square().mean().backward()
    optimiser.step()
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert (model.classifier.weight != before["classifier.weight"]).any()
    assert (model.backbone.bn1.running_mean != before["backbone.bn1.running_mean"]).any()


def test_it_learns_which_half_is_bright():
    model = small().train()
    image = torch.zeros(2, 1, 33, 33)
    image[0, :, :, :17] = image[1, :, :, 17:] = 1
    labels = image[:, 0].long()
    optimiser = torch.optim.Adam(model.parameters(), 0.03)
    losses = []
    for _ in range(30):
        loss = functional.cross_entropy(model(image), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_receptive_field_adds_the_context():
    with torch.device("meta"):
        model = build_deeplab(3, 21, context="vortex")
    field = model.backbone.receptive_fields[-1][0]
    assert model.receptive_field == (field + 2 * (27 + 13) * 8,) * 2
    assert model.reach is None


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"spatial_dims": 3}, "spatial_dims=3"),
        ({"context": "psp"}, "context must be one of"),
        ({"context": "aspp", "border": "count"}, "aspp has none"),
        ({"context": "aspp+", "conv_first": True}, "has none"),
        ({"conv_first": True}, "needs border='extend'"),
        ({"output_stride": 4}, "output_stride"),
        ({"output_stride": 32}, "multi_grid"),
        ({"projection": 0}, "projection"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        small(**options)


def test_parts_that_do_not_fit_are_named():
    backbone = ResNet(1, depth=18, widths=(4, 4, 4, 4), spatial_dims=3)
    with pytest.raises(ValueError, match="must be 2D"):
        DeepLab(backbone, ASPP(4, channels=4), 3)


@pytest.mark.parametrize("shape", [(1, 2, 9, 9), (1, 1, 9, 9, 9)], ids=str)
def test_another_image_is_named(shape):
    with pytest.raises(ValueError, match=r"must be \(B, 1, H, W\)"):
        small()(torch.zeros(shape))
