"""What is particular to VoxResNet: its counts, designs and options."""

import json
from pathlib import Path

import pytest
import torch

from voxseg.models import MODELS, VoxResNet, count_parameters, load_shared_weights
from voxseg.ops import superpixel_pool
from voxseg.ops.superpixel_places import superpixel_places

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden" / "voxresnet_parameters.json").read_text()
)
SIZE = (7, 5, 6)
OPTIONS = pytest.mark.parametrize(
    "options", [{}, {"fusion": "scores"}, {"fusion": "decoder"}, {"stages": 1}], ids=str
)


def small(design="V0", seed=0, **options):
    """A network of four maps that answers in milliseconds."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        settings = {"stages": 2, "width_divisor": 8} | options
        return VoxResNet(1, 4, design=design, **settings).eval()


def random_image(size=SIZE, batch=2):
    return torch.randn(batch, 1, *size, generator=torch.Generator().manual_seed(3))


def block_superpixels(size=SIZE, batch=2):
    """Blocks of two voxels, numbered in raster order."""
    labels, count = torch.zeros(size, dtype=torch.int64), 1
    for axis, length in enumerate(size):
        blocks = (length + 1) // 2
        shape = [1] * axis + [length] + [1] * (len(size) - axis - 1)
        labels = labels * blocks + (torch.arange(length) // 2).view(shape)
        count *= blocks
    return labels.expand(batch, *size), count


def single_voxels(size=SIZE, batch=2):
    voxels = torch.Size(size).numel()
    return torch.arange(voxels).view(size).expand(batch, *size), voxels


@pytest.mark.parametrize("name", GOLDEN["trunk"])
def test_trunk_parameters_golden(name):
    with torch.device("meta"):
        model = MODELS[name].build(1, 4)
    assert sum(p.numel() for p in model.trunk.parameters()) == GOLDEN["trunk"][name]


@pytest.mark.parametrize("name", GOLDEN["deconvolutions"])
def test_deconvolution_parameters_golden(name):
    with torch.device("meta"):
        model = MODELS[name].build(1, 4)
    counts = [sum(p.numel() for p in deconv.parameters()) for deconv in model.deconvs]
    assert counts == GOLDEN["deconvolutions"][name]


@OPTIONS
@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_designs_differ_by_the_last_layer(options, num_classes, spatial_dims):
    with torch.device("meta"):
        networks = {
            design: VoxResNet(1, num_classes, design=design, spatial_dims=spatial_dims, **options)
            for design in ("V0", "V1", "V2", "V3", "V4")
        }
    count = {design: count_parameters(model).inference for design, model in networks.items()}
    table = networks["V0"].feature_channels * num_classes
    assert count["V1"] == count["V0"]
    assert count["V2"] - count["V0"] == table * (1 - 3**spatial_dims)
    assert count["V3"] - count["V0"] == table
    heads = len(networks["V4"].heads)
    # Features, place and scores of a token of 32; two blocks of 32 points, each of two attentions,
    # a perceptron and three norms; the norm before the scores.
    embedding = networks["V4"].feature_channels * 32 + heads * 32 * (2 + 9 * spatial_dims)
    block = 32 * 32 + 2 * (4 * 32 * 32 + 2 * 32) + (4 * 32 * 32 + 3 * 32) + 6 * 32
    assert count["V4"] - count["V0"] == embedding + heads * (2 * block + 64 + 32 * num_classes)


def test_tap_receptive_fields_are_the_papers():
    with torch.device("meta"):
        model = VoxResNet(1, 4)
    assert [field[0] for field in model.tap_receptive_fields] == [5, 23, 59, 131]
    assert model.receptive_field == (131, 131, 131)


@pytest.mark.parametrize("reduce", ["max", "mean"])
@pytest.mark.parametrize("fusion", ["features", "scores", "decoder"])
def test_v1_with_one_voxel_supervoxels_is_the_base_network(reduce, fusion):
    image = random_image()
    base, pooled = small(fusion=fusion), small("V1", fusion=fusion, reduce=reduce)
    with torch.no_grad():
        expected = base(image)
        torch.testing.assert_close(pooled(image, *single_voxels()), expected)


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_v1_pools_the_class_scores(reduce):
    image, (superpixels, count) = random_image(), block_superpixels()
    with torch.no_grad():
        scores, answer = small()(image), small("V1", reduce=reduce)(image, superpixels, count)
    for k in range(count):
        inside = superpixels[0] == k
        values = scores[0][:, inside]
        pooled = values.amax(1) if reduce == "max" else values.mean(1)
        torch.testing.assert_close(answer[0][:, inside], pooled[:, None].expand_as(values))


def test_v1_of_softmax_orders_classes_by_pooled_probability():
    image, (superpixels, count) = random_image(), block_superpixels()
    with torch.no_grad():
        probabilities = small()(image).softmax(1)
        answer = small("V1", pooled_scores="softmax")(image, superpixels, count)
    inside = superpixels[1] == 4
    expected = probabilities[1][:, inside].amax(1)
    torch.testing.assert_close(answer[1][:, inside][:, 0].exp(), expected)


@OPTIONS
def test_v3_with_zero_voxel_branch_is_v2(options):
    image, (superpixels, count) = random_image(), block_superpixels()
    v2, v3 = small("V2", **options), small("V3", seed=1, **options)
    load_shared_weights(v3, v2.state_dict())
    with torch.no_grad():
        for head, other in zip(v3.heads, v2.heads, strict=True):
            head.voxel.weight.zero_()
            other.superpixel.bias.normal_()
            head.voxel.bias.copy_(other.superpixel.bias)
        expected = v2(image, superpixels, count)
        torch.testing.assert_close(v3(image, superpixels, count), expected)
    assert expected.std() > 0


@OPTIONS
def test_v3_starts_at_the_answer_of_its_baseline(options):
    image, (superpixels, count) = random_image(), block_superpixels()
    baseline, v3 = small(**options), small("V3", seed=1, **options)
    load_shared_weights(v3, baseline.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(v3(image, superpixels, count), baseline(image))


@OPTIONS
def test_v4_starts_at_the_answer_of_its_baseline(options):
    image, (superpixels, count) = random_image(), block_superpixels()
    baseline, v4 = small(**options), small("V4", seed=1, **options)
    load_shared_weights(v4, baseline.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(v4(image, superpixels, count), baseline(image))


@OPTIONS
@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_v4_of_exchanged_supervoxels_is_forward(options, reduce):
    image, (superpixels, count) = random_image(), block_superpixels()
    v4 = small("V4", reduce=reduce, **options)
    for head in v4.heads:
        torch.nn.init.normal_(head.tokens.scores.weight)
    places = superpixel_places(superpixels, count, (1.0, 2.0, 0.5))
    with torch.no_grad():
        expected = v4(image, superpixels, count, places)
        features = v4.features(image)
        exchanged = v4.exchange(
            superpixel_pool(v4.to_pool(features), superpixels, count, reduce), places
        )
        found = v4.classify(features, superpixels, count, exchanged)
        torch.testing.assert_close(found, expected)
        supervised, _ = v4.supervise(image, superpixels, count, places)
        torch.testing.assert_close(supervised, expected)
        assert not torch.allclose(v4(image, superpixels, count), expected)  # in voxels of 1 mm


@pytest.mark.parametrize("design", ["V1", "V2"])
def test_hard_designs_give_one_class_a_supervoxel(design):
    image, (superpixels, count) = random_image(), block_superpixels()
    with torch.no_grad():
        classes = small(design)(image, superpixels, count).argmax(1)
    for k in range(count):
        assert len(classes[superpixels == k].view(2, -1).unique(dim=1).T) == 1


@pytest.mark.parametrize("design", ["V1", "V2"])
@pytest.mark.parametrize("seed", range(5))
def test_oracle_bounds_the_accuracy_of_hard_designs(design, seed):
    # Accuracy, which the majority label maximises exactly; Dice only nearly so.
    image, (superpixels, count) = random_image(batch=1), block_superpixels(batch=1)
    truth = torch.randint(0, 4, SIZE, generator=torch.Generator().manual_seed(seed))
    votes = torch.bincount(superpixels[0].flatten() * 4 + truth.flatten(), minlength=4 * count)
    oracle = votes.view(count, 4).amax(1).sum()
    with torch.no_grad():
        classes = small(design, seed=seed)(image, superpixels, count).argmax(1)[0]
    assert (classes == truth).sum() <= oracle


@pytest.mark.parametrize("design", ["V1", "V3"])
def test_voxels_in_no_superpixel_keep_the_voxel_answer(design):
    image = random_image()
    superpixels, count = block_superpixels()
    superpixels = superpixels.clone()
    superpixels[:, 2:4] = -1
    base, pooled = small(), small(design, seed=1)
    load_shared_weights(pooled, base.state_dict())
    with torch.no_grad():
        for head in pooled.heads:
            if head.superpixel is not None:
                head.superpixel.linear.weight.normal_()
        expected, answer = base(image), pooled(image, superpixels, count)
    torch.testing.assert_close(answer[:, :, 2:4], expected[:, :, 2:4])
    assert (answer[:, :, 0] - expected[:, :, 0]).abs().max() > 1e-4


def test_v2_in_no_superpixel_answers_with_its_bias():
    image, model = random_image(), small("V2")
    bias = torch.tensor([3.0, 1.0, -2.0, 0.5])
    with torch.no_grad():
        model.heads[0].superpixel.bias.copy_(bias)
        answer = model(image, torch.full((2, *SIZE), -1), 3)
    torch.testing.assert_close(answer, bias.view(1, 4, 1, 1, 1).expand_as(answer))


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_norm_trains_on_a_single_voxel_and_answers(norm):
    model = small(norm=norm, stages=3).train()
    main, auxiliary = model.supervise(random_image((1, 1, 1), batch=1))
    main.sum().backward()
    assert main.shape == (1, 4, 1, 1, 1)
    assert len(auxiliary) == 4
    assert main.isfinite().all()


def test_strides_and_widths_by_stage():
    model = small(strides=((1, 2, 2), 2), widths=(8, 16, 32), width_divisor=2)
    assert model.trunk.widths == (4, 8, 16)
    assert model.trunk.strides == ((1, 1, 1), (1, 2, 2), (2, 4, 4))
    assert model.receptive_field == (5 + 2 + 8 + 2 + 16, 59, 59)
    assert model(random_image((3, 9, 7))).shape == (2, 4, 3, 9, 7)


def test_auxiliary_answers_train_their_taps():
    image = random_image()
    for fusion in ("features", "scores"):
        main, auxiliary = small(fusion=fusion).supervise(image)
        assert [answer.shape for answer in auxiliary] == [main.shape] * 3
    torch.testing.assert_close(auxiliary[0] + auxiliary[1] + auxiliary[2], main)
    assert small(stages=1).supervise(image)[1] == []


@pytest.mark.parametrize("design", ["V0", "V1", "V2", "V3"])
def test_training_lowers_the_loss(design):
    model = small(design).train()
    image, (superpixels, count) = random_image(), block_superpixels()
    target = superpixels.remainder(4)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(5):
        optimiser.zero_grad()
        main, _ = model.supervise(image, superpixels, count)
        loss = torch.nn.functional.cross_entropy(main, target)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("size", [(9, 7, 10), (1, 1, 1), (13, 6)], ids=str)
@pytest.mark.parametrize("stages", [1, 3])
def test_decoder_fits_any_size_and_trains_every_parameter(size, stages):
    model = small("V3", fusion="decoder", spatial_dims=len(size), stages=stages)
    image, (superpixels, count) = random_image(size), block_superpixels(size)
    main, auxiliary = model.supervise(image, superpixels, count)
    assert main.shape == (2, 4, *size)
    assert len(auxiliary) == stages
    with torch.no_grad():
        torch.testing.assert_close(model(image, superpixels, count), main)
    weights = torch.randn(main.shape, generator=torch.Generator().manual_seed(1))
    ((weights * main).sum() + sum(answer.sum() for answer in auxiliary)).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": 5}, "stages must be 1 to 4"),
        ({"width_divisor": 3}, "width_divisor must divide"),
        ({"design": "V5"}, "design must be"),
        ({"design": "V4", "token_width": 30}, "heads divide width"),
        ({"design": "V2", "reduce": "sum"}, "reduce must be"),
        ({"fusion": "concat"}, "fusion must be"),
        ({"norm": "layer"}, "norm must be"),
        ({"pooled_scores": "argmax"}, "pooled_scores must be"),
        ({"spatial_dims": 1}, "spatial_dims must be 2 or 3"),
        ({"widths": (8, 8)}, "widths needs 3 numbers"),
        ({"strides": (2,)}, "widths needs one number"),
        ({"strides": (2, (2, 2))}, "stride must be 3 numbers"),
    ],
    ids=str,
)
def test_voxresnet_rejects_options(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


@pytest.mark.parametrize("shape", [(1, 2, 5, 5, 5), (1, 1, 5, 5), (1, 5, 5, 5)], ids=str)
def test_voxresnet_rejects_images_of_another_kind(shape):
    with pytest.raises(ValueError, match="the image must be"):
        small()(torch.zeros(shape))


def test_voxresnet_rejects_no_classes():
    with pytest.raises(ValueError, match="at least 1"):
        VoxResNet(1, 0)


@pytest.mark.parametrize(
    ("options", "reach"),
    [
        ({"stages": 1, "width_divisor": 8}, 14),
        ({}, 74),
        ({"fusion": "scores"}, 74),
        ({"norm": "instance"}, None),
    ],
    ids=str,
)
def test_reach(options, reach):
    expected = None if reach is None else (reach,) * 3
    assert VoxResNet(1, 2, **options).reach == expected
