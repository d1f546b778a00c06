"""ENet's blocks: pooling and unpooling, dilation, geometry, dropout."""

import pytest
import torch
from torch import nn

from voxseg.layers.enet import (
    Bottleneck,
    Details,
    Downsampling,
    ENetDecoder,
    ENetEncoder,
    InitialBlock,
    Upsampling,
    doubling,
    pool_windows,
    unpool_windows,
)


def random_maps(channels, *size, dtype=torch.float32):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(2, channels, *size, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_unpool_puts_maxima_back(dtype, layout):
    maps = random_maps(3, 6, 10, dtype=dtype).contiguous(memory_format=layout)
    values, indices = pool_windows(maps)
    restored = unpool_windows(values, indices)
    assert restored.dtype == dtype
    for b in range(2):
        for c in range(3):
            for i in range(0, 6, 2):
                for j in range(0, 10, 2):
                    window = maps[b, c, i : i + 2, j : j + 2]
                    kept = torch.where(window == window.max(), window, 0)
                    assert torch.equal(restored[b, c, i : i + 2, j : j + 2], kept)


def test_unpool_is_torchs_and_pooling_undoes_it():
    values, indices = pool_windows(random_maps(4, 4, 6))
    other = random_maps(4, 2, 3).abs()
    unpooled = unpool_windows(other, indices)
    assert torch.equal(unpooled, nn.functional.max_unpool2d(other, indices, 2))
    assert torch.equal(pool_windows(unpooled)[0], other)
    assert not torch.equal(other, values)


def test_ties_go_to_the_first_place():
    _, indices = pool_windows(torch.zeros(1, 1, 2, 4))
    assert indices.flatten().tolist() == [0, 2]


def test_unpool_passes_its_gradient_to_the_values():
    values, indices = pool_windows(random_maps(2, 4, 4).double())
    values = values.detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: unpool_windows(v, indices), values)


def test_unpool_refuses_indices_of_another_pooling():
    values, indices = pool_windows(random_maps(2, 4, 4))
    with pytest.raises(ValueError, match="one shape"):
        unpool_windows(values[:, :1], indices)


def test_dilations_are_the_papers():
    encoder = ENetEncoder(3, Details())
    for stage in (list(encoder.stage2)[1:], list(encoder.stage3)):
        convs = [
            [layer for layer in block.residual if isinstance(layer, nn.Conv2d)][1:-1]
            for block in stage
        ]
        kernels = [[conv.kernel_size for conv in pair] for pair in convs]
        pair = [(1, 5), (5, 1)]
        one = [(3, 3)]
        assert kernels == [one, one, pair, one, one, one, pair, one]
        dilations = [conv[0].dilation[0] for conv in convs]
        assert dilations == [1, 2, 1, 4, 1, 8, 1, 16]


@pytest.mark.parametrize("dilation", [1, 2, 4, 8, 16])
def test_dilated_bottleneck_reads_three_rows_that_far_apart(dilation):
    block = Bottleneck(8, Details(), dilation=dilation).double().eval()
    maps = random_maps(8, 41, 41).double().requires_grad_()
    block(maps)[0, :, 20, 20].sum().backward()
    seen = maps.grad[0].abs().sum(0).nonzero()
    steps = {-dilation, 0, dilation}
    assert {(i - 20, j - 20) for i, j in seen.tolist()} == {(i, j) for i in steps for j in steps}


@pytest.mark.parametrize("split", [False, True])
def test_asymmetric_bottleneck_reads_a_square_of_five(split):
    details = Details(split_asymmetric=split)
    block = Bottleneck(8, details, dilation=None).double().eval()
    maps = random_maps(8, 11, 11).double().requires_grad_()
    block(maps)[0, :, 5, 5].sum().backward()
    assert (maps.grad[0].abs().sum(0) > 0).sum() == 25


@pytest.mark.parametrize("pool", [2, 3])
def test_initial_block_keeps_the_pooled_image(pool):
    block = InitialBlock(3, Details(pool_kernel=pool)).eval()
    image = random_maps(3, 8, 6)
    maps = block(image)
    assert maps.shape == (2, 16, 4, 3)
    pooled = nn.functional.max_pool2d(image, pool, 2, padding=pool - 2)
    expected = nn.functional.prelu(pooled / (1 + 1e-3) ** 0.5, torch.tensor([0.25]))
    torch.testing.assert_close(maps[:, 13:], expected)


@pytest.mark.parametrize("channels", [1, 4, 15])
def test_initial_block_takes_other_channels(channels):
    assert InitialBlock(channels, Details())(random_maps(channels, 4, 4)).shape == (2, 16, 2, 2)


@pytest.mark.parametrize("channels", [0, 16])
def test_initial_block_rejects_channels(channels):
    with pytest.raises(ValueError, match="in_channels must be 1 to 15"):
        InitialBlock(channels, Details())


def test_details_are_checked():
    with pytest.raises(ValueError, match="pool_kernel must be 2 or 3"):
        InitialBlock(3, Details(pool_kernel=4))
    with pytest.raises(ValueError, match="kernel must be 2 or 3"):
        doubling(3, 3, 4, bias=True)


def test_downsampling_adds_zero_maps_to_the_pooled_ones():
    block = Downsampling(4, 8, Details(), dropout=0.0).eval()
    with torch.no_grad():
        block.residual[-1].weight.zero_()
        maps = random_maps(4, 6, 4).abs()
        features, indices = block(maps)
    assert torch.equal(features[:, :4], nn.functional.max_pool2d(maps, 2))
    assert not features[:, 4:].any()
    assert torch.equal(
        features[:, :4], maps.flatten(2).gather(2, indices.flatten(2)).view(2, 4, 3, 2)
    )


@pytest.mark.parametrize("kernel", [2, 3])
def test_upsampling_returns_to_the_places(kernel):
    block = Upsampling(8, 4, Details(up_kernel=kernel)).eval()
    _, indices = pool_windows(random_maps(4, 6, 10))
    with torch.no_grad():
        block.residual[-1].weight.zero_()
        answer = block(random_maps(8, 3, 5), indices)
    assert answer.shape == (2, 4, 6, 10)
    places = torch.zeros(2, 4, 60).scatter(2, indices.flatten(2), 1).view(2, 4, 6, 10)
    assert torch.equal(answer != 0, places > 0)


def test_dropout_drops_maps_in_training_alone():
    block = Bottleneck(8, Details(), dropout=0.5)
    nn.init.ones_(block.residual[-2].bias)
    nn.init.zeros_(block.residual[-2].weight)
    maps = torch.zeros(20, 8, 3, 3)
    torch.manual_seed(0)
    trained = block.train()(maps)
    assert set(trained.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(trained, trained[..., :1, :1].expand_as(trained))
    assert set(block.eval()(maps).unique().tolist()) == {1.0}


@pytest.mark.parametrize("prelu", [True, False])
def test_decoder_has_prelu_or_relu(prelu):
    decoder = ENetDecoder(Details(decoder_prelu=prelu))
    slopes = [module for module in decoder.modules() if isinstance(module, nn.PReLU)]
    assert len(slopes) == (15 if prelu else 0)


def test_early_blocks_drop_less():
    rates = [m.p for m in ENetEncoder(3, Details()).modules() if isinstance(m, nn.Dropout2d)]
    assert rates == [0.01] * 5 + [0.1] * 17
