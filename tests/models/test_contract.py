"""What every entry of MODELS promises."""

import copy
import functools
import io
import json
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from voxseg.layers.superpixel_tokens import SuperpixelTokens
from voxseg.models import MODELS, count_parameters

GOLDEN = {
    name: golden
    for path in sorted((Path(__file__).parents[1] / "golden").glob("*_parameters.json"))
    for golden in [json.loads(path.read_text())]
    for name in golden["inference"]
}
COUNT = 11
SIZES = [(9, 7, 10), (1, 1, 1), (13, 6), (1, 1)]
EVERY = pytest.mark.parametrize("name", MODELS)
# Published widths where only they are counted; narrower where a network is run.
NARROW = {
    "deeplab-": {"widths": (4, 4, 8, 8), "channels": 8, "projection": 8},
    "fcn": {"widths": (8, 8, 16, 16)},
    "smp-": {"widths": (8, 8, 16, 16)},
    "pixelnet-vgg16-3-fc1": {"widths": (4, 4, 8, 8, 8, 8)},
    "pixelnet-vgg16": {"widths": (4, 4, 8, 8, 8, 8), "hidden": (8, 8)},
    "pixelnet-voxresnet": {"width_divisor": 8, "hidden": (8, 8)},
    # So many that no layer is silent on a map of one cell.
    "sunet-": {"filters": 16, "widths": (8, 16, 24, 24, 24, 24)},
}
# They have no features of every pixel that could be pooled.
PLAIN = ("deeplab-", "fcn", "smp-", "pixelnet-", "sunet-")


def size_of(name, size=(5, 6, 7)):
    """As much of ``size`` as the paper's network has axes."""
    return size[: MODELS[name].spatial_dims[0]]


def answered(name, size):
    """Shape of the answer for two images of ``size``."""
    return (2, 3) if MODELS[name].is_classifier else (2, 3, *size)


def random_case(size, batch=2, seed=0):
    """An image of two channels and superpixels with ignored voxels and an empty number."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, 2, *size, generator=generator)
    superpixels = torch.randint(-1, COUNT - 1, (batch, *size), generator=generator)
    return image, superpixels


@functools.cache
def build(name, spatial_dims=None):
    """The network in eval mode, the same object each time: no test may change it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dims = spatial_dims or MODELS[name].spatial_dims[0]
        options = [NARROW[start] for start in NARROW if name.startswith(start)]
        return MODELS[name].build(2, 3, spatial_dims=dims, **(options[0] if options else {})).eval()


@pytest.mark.parametrize(
    ("name", "size"),
    [(name, size) for name in MODELS for size in SIZES if len(size) in MODELS[name].spatial_dims],
    ids=str,
)
def test_logits_have_the_image_grid_or_are_one(name, size):
    image, superpixels = random_case(size)
    with torch.no_grad():
        logits = build(name, len(size))(image, superpixels, COUNT)
    assert logits.shape == answered(name, size)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith(PLAIN)])
def test_forward_is_classified_features(name):
    model = build(name)
    image, superpixels = random_case(size_of(name))
    with torch.no_grad():
        features = model.features(image)
        logits = model(image, superpixels, COUNT)
        assert features.shape == (2, model.feature_channels, *size_of(name))
        torch.testing.assert_close(
            model.classify(features, superpixels, COUNT), logits, rtol=0, atol=0
        )
        main, _ = model.supervise(image, superpixels, COUNT)
        torch.testing.assert_close(main, logits)


@EVERY
def test_gradient_reaches_every_parameter(name):
    # In eval mode: a bias right before a batch norm has no gradient in training.
    model = copy.deepcopy(build(name))
    for module in model.modules():
        if isinstance(module, SuperpixelTokens):  # starts from zero, and lets nothing through yet
            torch.nn.init.normal_(module.scores.weight)
    # A PReLU with one slope learns from negative values only: a deep map needs several pixels.
    size = (5, 3, 4) if MODELS[name].spatial_dims[0] == 3 else (13, 21)
    image, superpixels = random_case(size, batch=1)
    main, auxiliary = model.supervise(image, superpixels, COUNT)
    generator = torch.Generator().manual_seed(1)
    # Each answer has its own shape: a decoder's auxiliary ones lie on their level's grid.
    weighted = [torch.randn(a.shape, generator=generator) * a for a in (main, *auxiliary)]
    sum(answer.sum() for answer in weighted).backward()
    silent = [
        key
        for key, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert not silent


@EVERY
def test_eval_is_deterministic(name):
    model = build(name)
    image, superpixels = random_case(size_of(name))
    with torch.no_grad():
        first = model(image, superpixels, COUNT)
        torch.testing.assert_close(model(image, superpixels, COUNT), first, rtol=0, atol=0)


@EVERY
def test_state_dict_round_trip(name):
    model = build(name)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for value in other.state_dict().values():
            value.zero_()
    image, superpixels = random_case(size_of(name))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    with torch.no_grad():
        expected = model(image, superpixels, COUNT)
        assert not torch.equal(other(image, superpixels, COUNT), expected)
        other.load_state_dict(torch.load(file, weights_only=True))
        torch.testing.assert_close(other(image, superpixels, COUNT), expected, rtol=0, atol=0)


@EVERY
def test_channels_last_gives_the_same_answer(name):
    image, superpixels = random_case(size_of(name))
    layout = torch.channels_last_3d if image.ndim == 5 else torch.channels_last
    with torch.no_grad():
        expected = build(name)(image, superpixels, COUNT)
        model = copy.deepcopy(build(name)).to(memory_format=layout)
        answer = model(image.contiguous(memory_format=layout), superpixels, COUNT)
    # Untrained deep networks answer in thousands: rounding goes with the largest of them.
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-5 * scale)


@EVERY
def test_pooled_designs_ask_for_superpixels(name):
    model = build(name)
    image, _ = random_case(size_of(name))
    assert model.needs_superpixels == name.endswith(("-v1", "-v2", "-v3", "-v4"))
    if model.needs_superpixels:
        with pytest.raises(ValueError, match="need superpixels"):
            model(image)
    else:
        assert model(image).shape == answered(name, size_of(name))


class Scored(TorchDispatchMode):
    """Note how many places each map of class scores has that a layer makes."""

    def __init__(self):
        super().__init__()
        self.places = [0]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        scores = (
            torch.ops.aten.convolution.default,
            torch.ops.aten.addmm.default,
            torch.ops.voxseg.superpixel_unpool.default,
        )
        if func in scores and result.shape[1] == 3:
            self.places.append(result.numel() // 3)
        return result


@pytest.mark.parametrize("name", [name for name in MODELS if not MODELS[name].is_classifier])
def test_output_stride_is_that_of_the_finest_scores(name):
    axes = MODELS[name].spatial_dims[0]
    size = {2: 256, 3: 32}[axes]
    image = torch.empty(1, 2, *(size,) * axes, device="meta")
    superpixels = torch.empty(1, *(size,) * axes, dtype=torch.int32, device="meta")
    model = copy.deepcopy(build(name)).to("meta")
    with torch.no_grad(), Scored() as scored:
        model(image, superpixels, COUNT)
    # DeepLab's grid begins and ends on a cell, so that it has one more than size / stride.
    assert model.output_stride == round(size / max(scored.places) ** (1 / axes))


@EVERY
def test_parameters_golden(name):
    golden = GOLDEN[name]
    dims = MODELS[name].spatial_dims[0]
    with torch.device("meta"):
        model = MODELS[name].build(golden["in_channels"], golden["num_classes"], spatial_dims=dims)
    count = count_parameters(model)
    assert count.inference == golden["inference"][name]
    assert count.auxiliary == golden["auxiliary"].get(name, 0)


@EVERY
def test_entry_is_complete(name):
    entry = MODELS[name]
    assert "arXiv:" in entry.paper
    assert entry.description
    assert entry.spatial_dims
    assert set(entry.spatial_dims) <= {2, 3}
    assert len(entry.size) == entry.spatial_dims[0]
