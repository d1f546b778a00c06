"""Superpixels as tokens: the exchange against NumPy, and what it must not depend on."""

import math

import numpy as np
import pytest
import torch

from voxseg.layers.superpixel import SuperpixelClassifier
from voxseg.layers.superpixel_tokens import (
    REACH_MM,
    WAVES,
    Attention,
    InducedBlock,
    SuperpixelTokens,
)
from voxseg.ops import superpixel_pool, superpixel_unpool
from voxseg.ops.superpixel_places import superpixel_places

COUNT = 10


def tokens_of(dims=3, features=5, classes=4, **options):
    """A layer whose last weights are not zero, with few tokens' numbers."""
    torch.manual_seed(0)
    layer = SuperpixelTokens(dims, features, classes, width=8, heads=2, inducing=3, **options)
    torch.nn.init.normal_(layer.scores.weight)
    return layer.eval()


def random_tokens(dims=3, features=5, batch=2, empty=2, seed=1):
    """Pooled features and places; the last ``empty`` slots hold no superpixel."""
    generator = torch.Generator().manual_seed(seed)
    pooled = torch.randn(batch, features, COUNT, generator=generator)
    places = 60 * torch.randn(batch, COUNT, dims + 1, generator=generator)
    places[..., -1] = 200 + 100 * torch.rand(batch, COUNT, generator=generator)
    if empty:
        places[:, -empty:] = 0
    return pooled, places


def softmax(values):
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def attention_by_hand(layer, queries, sources, is_there):
    """One image: NumPy, head by head, query by query."""
    state = {k: v.detach().double().numpy() for k, v in layer.state_dict().items()}
    query = queries @ state["query.weight"].T
    key = sources @ state["key.weight"].T
    value = sources @ state["value.weight"].T + state["value.bias"]
    size = query.shape[1] // layer.heads
    mixed = np.zeros_like(query)
    for head in range(layer.heads):
        part = slice(head * size, (head + 1) * size)
        for number, one in enumerate(query[:, part]):
            weights = np.array(
                [one @ k / math.sqrt(size) if t else -np.inf
                 for k, t in zip(key[:, part], is_there, strict=True)]
            )  # fmt: skip
            mixed[number, part] = softmax(weights) @ value[:, part]
    return mixed @ state["out.weight"].T + state["out.bias"]


def norm_by_hand(layer, tokens):
    weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    centred = tokens - tokens.mean(-1, keepdims=True)
    return centred / np.sqrt(tokens.var(-1, keepdims=True) + layer.eps) * weight + bias


def linear_by_hand(layer, tokens):
    answer = tokens @ layer.weight.detach().double().numpy().T
    return answer if layer.bias is None else answer + layer.bias.detach().double().numpy()


def block_by_hand(block, tokens, is_there):
    heard = norm_by_hand(block.before, tokens)
    points = block.points.detach().double().numpy()
    points = points + attention_by_hand(block.gather, points, heard, is_there)
    everyone = [True] * len(points)
    said = norm_by_hand(block.between, points)
    tokens = tokens + attention_by_hand(block.hand_out, heard, said, everyone)
    inner = linear_by_hand(block.widen, norm_by_hand(block.after, tokens))
    inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
    return tokens + linear_by_hand(block.narrow, inner)


def described_by_hand(place):
    at = [value / REACH_MM for value in place[:-1]]
    angles = [math.pi * 2**k * value for value in at for k in range(WAVES)]
    waves = [*map(math.sin, angles), *map(math.cos, angles)]
    return [*at, *waves, math.log(1 + place[-1]) / 10]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("blocks", [1, 2])
def test_matches_numpy(dims, blocks):
    layer = tokens_of(dims, blocks=blocks)
    pooled, places = random_tokens(dims)
    with torch.no_grad():
        found = layer(pooled, places).numpy()
    assert found.shape == (2, 4, COUNT)
    for one, features, place in zip(found, pooled.double().numpy(), places.tolist(), strict=True):
        is_there = [values[-1] > 0 for values in place]
        described = np.array([described_by_hand(values) for values in place])
        tokens = linear_by_hand(layer.of_features, features.T)
        tokens = tokens + linear_by_hand(layer.of_place, described)
        for block in layer.blocks:
            tokens = block_by_hand(block, tokens, is_there)
        expected = linear_by_hand(layer.scores, norm_by_hand(layer.norm, tokens)).T
        np.testing.assert_allclose(one[:, is_there], expected[:, is_there], rtol=1e-4, atol=1e-4)


def test_the_last_layer_starts_from_zero():
    assert not SuperpixelTokens(3, 5, 4)(*random_tokens()).any()


def test_superpixels_know_of_each_other_and_of_no_empty_slot():
    layer = tokens_of()
    pooled, places = random_tokens(empty=2)
    with torch.no_grad():
        before = layer(pooled, places)
        changed = pooled.clone()
        changed[:, :, -2:] += 100  # empty slots
        torch.testing.assert_close(layer(changed, places)[..., :-2], before[..., :-2])
        changed = pooled.clone()
        changed[0, :, 3] += 1
        after = layer(changed, places)
    assert ((after - before)[0].abs().amax(0)[:-2] > 1e-5).all()
    torch.testing.assert_close(after[1], before[1])  # images do not meet


def test_spare_slots_and_other_numbers_change_nothing():
    layer = tokens_of()
    pooled, places = random_tokens(empty=0)
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = layer(pooled, places)
        torch.testing.assert_close(
            layer(pooled[..., order], places[:, order]), expected[..., order]
        )
        more = (
            torch.nn.functional.pad(pooled, (0, 5)),
            torch.nn.functional.pad(places, (0, 0, 0, 5)),
        )
        torch.testing.assert_close(layer(*more)[..., :COUNT], expected)


def test_place_and_size_matter():
    layer = tokens_of()
    pooled, places = random_tokens()
    with torch.no_grad():
        before = layer(pooled, places)
        for column in range(4):
            moved = places.clone()
            moved[0, 0, column] += 30
            assert not torch.allclose(layer(pooled, moved)[0, :, 0], before[0, :, 0], atol=1e-5)


def test_an_image_without_superpixels_is_finite_and_trains_nothing_wrong():
    layer = tokens_of()
    pooled, places = random_tokens()
    places[0] = 0
    layer(pooled, places).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_gradient():
    layer = tokens_of(2, features=3, classes=2, blocks=1).double()
    pooled, places = random_tokens(2, features=3, batch=1)
    pooled = pooled.double()[..., :4].contiguous().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: layer(x, places[:, :4]), pooled)
    assert torch.autograd.gradgradcheck(lambda x: layer(x, places[:, :4]), pooled)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(dtype):
    layer = tokens_of()
    pooled, places = random_tokens(empty=0)
    with torch.no_grad():
        expected = layer(pooled, places)
        found = layer.to(dtype)(pooled.to(dtype), places)
    assert found.dtype == dtype
    assert (found.float() - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("reduce", ["max", "mean"])
@pytest.mark.parametrize("size", [(5, 6, 7), (6, 7)], ids=str)
def test_v4_is_the_voxel_branch_and_unpooled_tokens(size, reduce):
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(2, 4, *size, generator=generator)
    superpixels = torch.randint(-1, COUNT, (2, *size), generator=generator)
    layer = SuperpixelClassifier(len(size), 4, 3, "V4", reduce)
    with torch.no_grad():
        start = layer(features, superpixels, COUNT)
        torch.testing.assert_close(start, layer.voxel(features))
        torch.nn.init.normal_(layer.tokens.scores.weight)
        places = superpixel_places(superpixels, COUNT, (2.0, 1.0, 3.0)[: len(size)])
        pooled = superpixel_pool(features, superpixels, COUNT, reduce)
        scores = layer.tokens(pooled, places)
        found = layer(features, superpixels, COUNT, places=places)
        torch.testing.assert_close(found, start + superpixel_unpool(scores, superpixels))
        outside = (superpixels < 0)[:, None].expand_as(found)
        torch.testing.assert_close(found[outside], start[outside])
        exchanged = layer.exchange(pooled, places)
        torch.testing.assert_close(layer(features, superpixels, COUNT, exchanged), found)
        of_one_mm = layer(
            features, superpixels, COUNT, places=superpixel_places(superpixels, COUNT)
        )
        torch.testing.assert_close(layer(features, superpixels, COUNT), of_one_mm)
    assert not torch.allclose(of_one_mm, found)


def test_v4_asks_for_places():
    layer = SuperpixelClassifier(3, 4, 3, "V4")
    with pytest.raises(ValueError, match="places"):
        layer.exchange(torch.zeros(1, 4, 2), None)
    assert (
        SuperpixelClassifier(3, 4, 3, "V3").exchange(features := torch.zeros(1, 4, 2), None)
        is features
    )


@pytest.mark.parametrize(
    "options", [{"width": 6, "heads": 4}, {"blocks": 0}, {"inducing": 0}, {"heads": 0}], ids=str
)
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match="width, blocks, heads and inducing"):
        SuperpixelTokens(3, 5, 4, **options)


def test_places_of_other_superpixels_are_refused():
    pooled, places = random_tokens()
    with pytest.raises(ValueError, match="places must be"):
        tokens_of()(pooled, places[:, 1:])
    with pytest.raises(ValueError, match="places must be"):
        tokens_of()(pooled, places[..., 1:])


def test_parts_can_be_used_alone():
    block, attention = InducedBlock(8, 2, 3), Attention(8, 2)
    tokens = torch.randn(2, 5, 8)
    assert block(tokens, torch.ones(2, 5, dtype=torch.bool)).shape == (2, 5, 8)
    assert attention(tokens, tokens[:, :3]).shape == (2, 5, 8)
