"""What is particular to ENet: its counts, versions, field, branch and the loading of others'."""

import json
from pathlib import Path

import pytest
import torch

from voxseg.models import ENet, count_parameters, load_shared_weights

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "enet_parameters.json").read_text())
VERSIONS = pytest.mark.parametrize("version", ["released", "script", "port"])
SIZE = (18, 27)


def small(design="V0", seed=0, classes=4, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ENet(3, classes, design=design, **options).eval()


def random_image(size=SIZE, batch=2):
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(3))


def superpixels_of(edge, size=SIZE, batch=2):
    """Blocks of ``edge`` pixels, numbered in raster order."""
    height, width = ((length + edge - 1) // edge for length in size)
    rows, columns = (torch.arange(length) // edge for length in size)
    return (rows[:, None] * width + columns).expand(batch, *size), height * width


@VERSIONS
def test_published_parameters_golden(version):
    with torch.device("meta"):
        model = ENet(3, 20, version=version)
    assert count_parameters(model).inference == GOLDEN["published"][version]


@pytest.mark.parametrize("classes", [2, 19, 20])
def test_branch_has_16_k_weights_and_k_biases(classes):
    with torch.device("meta"):
        counts = {
            design: count_parameters(ENet(3, classes, design=design)).inference
            for design in ("V0", "V1", "V2", "V3")
        }
    assert counts["V1"] == counts["V0"]
    assert counts["V3"] - counts["V0"] == 16 * classes + classes
    assert counts["V2"] - counts["V0"] == 16 * classes * (1 - 4)


@VERSIONS
@pytest.mark.parametrize("size", [(8, 8), (16, 24), (9, 7), (1, 30), (23, 1)], ids=str)
def test_any_size(version, size):
    model = small("V3", version=version)
    image, (superpixels, count) = random_image(size), superpixels_of(5, size)
    with torch.no_grad():
        logits, (coarse,) = model.supervise(image, superpixels, count)
        assert logits.shape == (2, 4, *size)
        depth = [-(-length // 8) for length in size]
        if depth == [1, 1]:
            depth = [1, 2]  # no norm trains on one pixel
        assert coarse.shape == (2, 4, *depth)
        assert torch.equal(model.encoder_logits(image), coarse)


def test_size_that_8_divides_is_not_filled():
    model, image = small(), random_image((16, 24))
    with torch.no_grad():
        features, indices = model.trunk(image)
        expected = model.pixel(model.decoder(features, indices))
        assert torch.equal(model(image), expected)


@pytest.mark.parametrize("reduce", ["max", "mean"])
@VERSIONS
def test_zero_branch_is_enet(version, reduce):
    base = small(version=version)
    model = small("V3", seed=1, version=version, reduce=reduce)
    report = load_shared_weights(model, base.state_dict())
    assert report.missing == ("superpixel.bias", "superpixel.linear.weight")
    assert not report.unexpected
    image = random_image()
    with torch.no_grad():
        assert torch.equal(model(image, *superpixels_of(5)), base(image))
        model.superpixel.linear.weight.normal_()
        assert not torch.equal(model(image, *superpixels_of(5)), base(image))


@pytest.mark.parametrize("design", ["V1", "V2", "V3"])
def test_fine_tuning_copies_every_shared_tensor(design):
    base, model = small(), small(design, seed=1)
    report = load_shared_weights(model, base.state_dict())
    own = model.state_dict()
    for name, value in base.state_dict().items():
        if design == "V2" and name.startswith("pixel."):
            assert name in report.unexpected
        else:
            assert torch.equal(own[name], value), name


@pytest.mark.parametrize("design", ["V2", "V3"])
@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_pooling_on_blocks_is_pooling_of_the_map(design, reduce):
    """Superpixels of whole pixels of the 16 maps: nearest labels would give the same."""
    size = (16, 24)
    model = small(design, reduce=reduce)
    image, (superpixels, count) = random_image(size), superpixels_of(4, size)
    with torch.no_grad():
        model.superpixel.linear.weight.normal_(generator=torch.Generator().manual_seed(2))
        model.superpixel.bias.normal_(generator=torch.Generator().manual_seed(3))
        maps = model.decoder(*model.trunk(image))
        pool = torch.nn.functional.max_pool2d if reduce == "max" else torch.nn.functional.avg_pool2d
        table = model.superpixel.linear.weight[:, :, 0]
        blocks = torch.einsum("kf,bfhw->bkhw", table, pool(maps, 2))
        expected = blocks.repeat_interleave(4, 2).repeat_interleave(4, 3)
        expected = expected + model.superpixel.bias.view(-1, 1, 1)
        if design == "V3":
            expected = expected + model.pixel(maps)
        torch.testing.assert_close(model(image, superpixels, count), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scores", ["logits", "softmax"])
@pytest.mark.parametrize("design", ["V1", "V2", "V3"])
def test_answer_from_parts_is_the_whole_answer(design, scores):
    """Pool over two halves, then classify each with what both come to."""
    model, image = small(design, pooled_scores=scores), random_image(batch=1)
    superpixels, count = superpixels_of(7, batch=1)
    with torch.no_grad():
        if model.superpixel is not None:
            model.superpixel.linear.weight.normal_(generator=torch.Generator().manual_seed(2))
        features = model.features(image)
        values = model.to_pool(features)
        pooled = torch.stack([values[0][:, superpixels[0] == k].amax(1) for k in range(count)], 1)[
            None
        ]
        halves = [
            model.classify(features[..., cut], superpixels[..., cut], count, pooled)
            for cut in (slice(0, 11), slice(11, None))
        ]
        expected = model(image, superpixels, count)
    torch.testing.assert_close(torch.cat(halves, 3), expected)


def test_pixels_in_no_superpixel():
    image = random_image(batch=1)
    nowhere = torch.full((1, *SIZE), -1)
    base = small()
    with torch.no_grad():
        logits = base(image)
        for design in ("V1", "V2", "V3"):
            model = small(design, seed=1)
            load_shared_weights(model, base.state_dict())
            bias = torch.zeros(4, 1, 1)
            if model.superpixel is not None:
                model.superpixel.linear.weight.fill_(1)
                model.superpixel.bias.copy_(torch.tensor([1.0, -2.0, 3.0, 0.5]))
                bias = model.superpixel.bias.view(4, 1, 1)
            expected = {"V1": logits, "V2": bias.expand_as(logits), "V3": logits + bias}[design]
            torch.testing.assert_close(model(image, nowhere, 3), expected)


@VERSIONS
def test_field_and_reach_are_what_gradients_show(version):
    """A column of 1,504 pixels in double precision: where the image moves an answer."""
    model = small(version=version, classes=1).double()
    image = random_image((1504, 8), batch=1).double().requires_grad_()
    cell, start = 94, 94 * 8
    features, indices = model.trunk(image)
    (seen,) = torch.autograd.grad(features[0, :, cell].sum(), image, retain_graph=True)
    rows = seen.abs().sum((0, 1, 3)).nonzero()
    assert (start - rows.min(), rows.max() - start) == model.trunk.field
    assert model.receptive_field == (1 + sum(model.trunk.field),) * 2
    logits = model.pixel(model.decoder(features, indices))
    furthest = 0
    for pixel in range(start, start + 8):
        (seen,) = torch.autograd.grad(logits[0, 0, pixel].sum(), image, retain_graph=True)
        rows = seen.abs().sum((0, 1, 3)).nonzero()
        furthest = max(furthest, pixel - int(rows.min()), int(rows.max()) - pixel)
    assert model.reach == (furthest,) * 2


def test_tiles_with_a_margin_give_the_whole_answer():
    """A tile that starts at a multiple of the deepest stride, wide as the reach on both sides."""
    model, image = small(), random_image((1400, 5), batch=1)
    (stride, _), (reach, _) = model.trunk.strides[-1], model.reach
    low = (700 - reach) // stride * stride
    high = -(-(716 + reach) // stride) * stride
    assert low > 0
    assert high < 1400
    with torch.no_grad():
        part = model(image[:, :, low:high])[:, :, 700 - low : 716 - low]
        torch.testing.assert_close(part, model(image)[:, :, 700:716], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_trains(dtype):
    model = small("V3").train()
    image, (superpixels, count) = random_image(), superpixels_of(5)
    with torch.autocast("cpu", dtype):
        logits, (coarse,) = model.supervise(image, superpixels, count)
    assert coarse.dtype == dtype
    (logits.float().square().mean() + coarse.float().square().mean()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_training_and_evaluation_differ_by_dropout_and_norms_alone():
    model, image = small(), random_image()
    with torch.no_grad():
        expected = model(image)
        for module in model.train().modules():
            if isinstance(module, torch.nn.Dropout2d | torch.nn.BatchNorm2d):
                module.eval()
        assert torch.equal(model(image), expected)
        assert not torch.equal(model.train()(image), expected)


def test_two_steps_of_training_lower_their_losses():
    model = small("V3").train()
    image, (superpixels, count) = random_image(), superpixels_of(9)
    target = superpixels.remainder(4)
    coarse = target[:, 4::8, 4::8][..., :3]
    for step in ("encoder", "decoder"):
        optimiser = torch.optim.Adam(model.parameters(), 5e-3)
        losses = []
        for _ in range(5):
            optimiser.zero_grad()
            if step == "encoder":
                logits = model.encoder_logits(image)[:, :, : coarse.shape[1], : coarse.shape[2]]
                loss = torch.nn.functional.cross_entropy(logits, coarse)
            else:
                logits = model(image, superpixels, count)
                loss = torch.nn.functional.cross_entropy(logits, target)
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_dims": 3}, "spatial_dims must be"),
        ({"design": "V4"}, "design must be"),
        ({"reduce": "sum"}, "reduce must be"),
        ({"version": "tf"}, "version must be"),
        ({"pooled_scores": "argmax"}, "pooled_scores must be"),
        ({"classes": 0}, "num_classes must be at least 1"),
    ],
    ids=str,
)
def test_enet_rejects_options(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (1, 3, 8, 8, 8), (3, 8, 8)], ids=str)
def test_enet_rejects_images_of_another_kind(shape):
    with pytest.raises(ValueError, match="the image must be"):
        small()(torch.zeros(shape))
