"""The coarse-to-fine decoder."""

import pytest
import torch

from voxseg.layers.decoder import CoarseToFine, pointwise


def random_taps(widths, sizes):
    generator = torch.Generator().manual_seed(0)
    pairs = zip(widths, sizes, strict=True)
    return [torch.randn(2, width, *size, generator=generator) for width, size in pairs]


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
@pytest.mark.parametrize(
    ("widths", "sizes"),
    [((3, 5, 4), ((9, 7, 5), (5, 4, 3), (3, 2, 2))), ((4, 6), ((1, 7), (1, 4)))],
    ids=str,
)
def test_levels_keep_the_grids_of_the_taps(widths, sizes, norm):
    taps = random_taps(widths, sizes)
    levels = CoarseToFine(len(sizes[0]), widths, norm).eval()(taps)
    assert [level.shape for level in levels] == [tap.shape for tap in taps]


def test_deepest_tap_reaches_the_finest_level_by_interpolation():
    decoder = CoarseToFine(2, (1, 1))
    with torch.no_grad():
        for layer in (decoder.lateral[1], decoder.project[0]):
            layer.weight.fill_(1.0)
        decoder.lateral[0].weight.zero_()
        coarse = torch.tensor([[1.0, 3.0]]).view(1, 1, 1, 2)
        finest = decoder([torch.ones(1, 1, 1, 4), coarse])[0]
    torch.testing.assert_close(finest.flatten(), torch.tensor([1.0, 1.5, 2.5, 3.0]))


def test_a_silent_decoder_gives_the_finest_tap_its_own_projection():
    taps = random_taps((3, 5, 4), ((9, 7), (5, 4), (3, 2)))
    decoder = CoarseToFine(2, (3, 5, 4)).eval()
    with torch.no_grad():
        for layer in decoder.project:
            layer.weight.zero_()
        torch.testing.assert_close(decoder(taps)[0], decoder.lateral[0](taps[0]))


def test_pointwise_starts_without_bias():
    layer = pointwise(3, 4, 7)
    assert layer.weight.shape == (7, 4, 1, 1, 1)
    assert not layer.bias.any()
