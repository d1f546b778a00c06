"""Random and central crops of photographs: reproducible, inside, and by hand."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from voxseg.data.class_crops import (
    CropSampler,
    CropSettings,
    centre_crop,
    draw_box,
    jittered,
    lit,
    random_crop,
)
from voxseg.data.grid import Grid
from voxseg.data.normalise import colours_of, of_colours
from voxseg.data.orientation import Orientation
from voxseg.data.prepare import Prepared
from voxseg.errors import UsageError

STILL = {"flips": False, "jitter": (0.0, 0.0, 0.0), "lighting": 0.0}


def settings(**options):
    return CropSettings(**{"pixels": (6, 8), "normalise": "unit", **options})


def photograph(number=0, size=(20, 30), category=None):
    rng = np.random.default_rng(number)
    image = rng.random((3, *size, 1)).astype(np.float32)
    shape = (*size, 1)
    box = tuple((0, n) for n in shape)
    grid = Grid(shape, Orientation((0, 1, 2), (False,) * 3), shape, box)
    return Prepared(
        f"p{number}", image, None, None, box, (1.0,) * 3, grid, is_image=True, category=category
    )


def sampler(number=7, seed=0, share=(0, 1), **options):
    cases = [photograph(n, category=n % 3) for n in range(number)]
    return CropSampler(cases, settings(**options), seed=seed, share=share)


def test_a_batch_depends_on_seed_and_step_alone():
    first, second = sampler(), sampler()
    for step in (0, 1, 5):
        second.batch(17, 4)
        a, b = first.batch(step, 4), second.batch(step, 4)
        torch.testing.assert_close(a.image, b.image, rtol=0, atol=0)
        assert a.image.shape == (4, 3, 6, 8)
        assert a.label.tolist() == b.label.tolist()
        assert a.label.dtype is torch.int64
        assert a.superpixels is None
    assert not torch.equal(sampler(seed=1).batch(0, 4).image, first.batch(0, 4).image)


def test_shares_of_a_batch_are_the_batch():
    whole = sampler().batch(3, 5)
    for rank in (0, 1):
        part = sampler(share=(rank, 2)).batch(3, 5)
        torch.testing.assert_close(part.image, whole.image[rank::2], rtol=0, atol=0)
        assert part.label.tolist() == whole.label[rank::2].tolist()


def test_each_photograph_comes_once_before_any_comes_again():
    one = sampler(number=7)
    names = [name for step in range(7) for name in one.names(step, 4).split(", ")]
    assert Counter(names) == {f"p{n}": 4 for n in range(7)}
    dealt = [one._dealt(place) for place in range(21)]
    for turn in range(3):
        assert sorted(dealt[7 * turn : 7 * turn + 7]) == list(range(7))
    assert dealt[:7] != dealt[7:14]


def test_a_crop_is_a_box_of_the_photograph():
    case = photograph(size=(40, 50))
    image = torch.from_numpy(case.image[..., 0])
    still = settings(**STILL)
    top, left, height, width = draw_box((40, 50), still, np.random.default_rng(4))
    found = random_crop(image, still, np.random.default_rng(4))
    cut = image[:, top : top + height, left : left + width]
    expected = torch.nn.functional.interpolate(
        cut[None], (6, 8), mode="bilinear", align_corners=False, antialias=True
    )[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_boxes_have_the_areas_and_ratios_that_were_asked_for():
    rng = np.random.default_rng(0)
    size = (300, 400)
    boxes = np.array([draw_box(size, settings(), rng) for _ in range(2000)])
    top, left, height, width = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= size[0]).all()
    assert (left + width <= size[1]).all()
    area, ratio = height * width / math.prod(size), width / height
    assert 0.075 < area.min() < 0.1
    assert area.max() > 0.95
    assert 0.73 < ratio.min() < 0.77
    assert 1.3 < ratio.max() < 1.36
    # Half of the ratios lie below 1: the draw is even on a logarithmic scale.
    small = area < 0.4
    assert abs((ratio[small] < 1).mean() - 0.5) < 0.06


@pytest.mark.parametrize(
    ("size", "expected"),
    [((10, 200), (0, 93, 10, 13)), ((200, 10), (93, 0, 13, 10)), ((1, 1), (0, 0, 1, 1))],
)
def test_where_nothing_fits_it_is_the_largest_in_the_middle(size, expected):
    whole = settings(area=(1.0, 1.0), ratio=(3 / 4, 4 / 3))
    if size == (1, 1):
        whole = settings()
    assert draw_box(size, whole, np.random.default_rng(0)) == expected


def test_half_of_the_crops_are_mirrored():
    image = torch.arange(8.0).expand(3, 6, 8).contiguous()
    whole = settings(area=(1.0, 1.0), ratio=(8 / 6, 8 / 6), **(STILL | {"flips": True}))
    mirrored = 0
    for seed in range(200):
        found = random_crop(image, whole, np.random.default_rng(seed))
        is_mirrored = bool(found[0, 0, 0] == 7)
        torch.testing.assert_close(found, image.flip(2) if is_mirrored else image)
        mirrored += is_mirrored
    assert 70 < mirrored < 130


class Drawn:
    """Numbers and an order that are known beforehand."""

    def __init__(self, numbers, order=(0, 1, 2)):
        self._numbers = iter(numbers)
        self._order = order

    def uniform(self, low, high):
        number = next(self._numbers)
        assert low <= number <= high
        return number

    def permutation(self, _):
        return np.array(self._order)


PIXELS = torch.tensor([[[1.0, 0.0]], [[0.5, 0.0]], [[0.0, 1.0]]])  # two pixels
GREY = (0.299 + 0.5 * 0.587, 0.114)


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ((0.8, 1, 1), [[0.8, 0], [0.4, 0], [0, 0.8]]),
        (
            (1, 0.6, 1),
            [
                [0.6 * value + 0.4 * (GREY[0] + GREY[1]) / 2 for value in row]
                for row in ((1, 0), (0.5, 0), (0, 1))
            ],
        ),
        (
            (1, 1, 1.4),
            [
                [1.4 * value - 0.4 * GREY[column] for column, value in enumerate(row)]
                for row in ((1, 0), (0.5, 0), (0, 1))
            ],
        ),
    ],
    ids=["brightness", "contrast", "saturation"],
)
def test_jitter_golden_by_hand(factors, expected):
    found = jittered(PIXELS, (0.4, 0.4, 0.4), Drawn(factors))
    torch.testing.assert_close(found[:, 0], torch.tensor(expected))


def test_jitter_keeps_its_order():
    # Halved before or after the contrast is taken from a mean that is not 0: the same, for both
    # are linear; saturation after contrast is not.
    one = jittered(PIXELS, (0.5, 0.5, 0.5), Drawn((0.5, 0.6, 1.4), (0, 1, 2)))
    by_hand = PIXELS * 0.5
    mean = (GREY[0] + GREY[1]) / 4
    by_hand = mean + 0.6 * (by_hand - mean)
    grey = (by_hand * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0, keepdim=True)
    torch.testing.assert_close(one, grey + 1.4 * (by_hand - grey))


def test_lighting_golden_by_hand():
    found = lit(torch.zeros(3, 1, 1), np.array([1.0, -2.0, 0.5]))[:, 0, 0]
    expected = [
        0.2175 * row[0] - 2 * 0.0188 * row[1] + 0.5 * 0.0045 * row[2]
        for row in (
            (-0.5675, 0.7192, 0.4009),
            (-0.5808, -0.0045, -0.8140),
            (-0.5836, -0.6948, 0.4203),
        )
    ]
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize("how", ["imagenet", "unit"])
def test_colours_are_varied_before_they_are_normalised(how):
    colours = torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(0))
    image = of_colours(colours, how)
    torch.testing.assert_close(colours_of(image, how), colours)
    whole = {"area": (1.0, 1.0), "ratio": (8 / 6, 8 / 6), "flips": False}
    found = random_crop(image, settings(normalise=how, **whole), np.random.default_rng(3))
    plain = random_crop(colours, settings(normalise="unit", **whole), np.random.default_rng(3))
    torch.testing.assert_close(colours_of(found, how), plain, rtol=0, atol=1e-5)
    assert (plain - colours).abs().max() > 0.01


def test_imagenet_constants_golden():
    middle = of_colours(torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), "imagenet")
    torch.testing.assert_close(middle, torch.zeros(3, 1, 1))
    above = of_colours(torch.tensor([0.714, 0.680, 0.631]).view(3, 1, 1), "imagenet")
    torch.testing.assert_close(above, torch.ones(3, 1, 1))


@pytest.mark.parametrize(
    ("size", "pixels", "larger"),
    [
        ((256, 256), (224, 224), (256, 256)),
        ((512, 768), (224, 224), (256, 384)),
        ((64, 64), (64, 64), (73, 73)),
        ((10, 500), (14, 7), (16, 800)),
    ],
)
def test_centre_crop_is_seven_eighths(size, pixels, larger):
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    whole = torch.nn.functional.interpolate(
        image[None], larger, mode="bilinear", align_corners=False, antialias=True
    )[0]
    top, left = ((n - p) // 2 for n, p in zip(larger, pixels, strict=True))
    expected = whole[:, top : top + pixels[0], left : left + pixels[1]]
    found = centre_crop(image, pixels)
    assert found.shape == (3, *pixels)
    torch.testing.assert_close(found, expected)


def test_other_normalisations_cannot_vary_colours():
    with pytest.raises(UsageError, match=r"data.normalise=zscore.*augment.jitter"):
        sampler(normalise="zscore")
    assert sampler(normalise="zscore", **STILL).batch(0, 2).image.shape == (2, 3, 6, 8)


def test_a_photograph_without_class_is_refused():
    cases = [photograph(0)]
    with pytest.raises(ValueError, match="p0 has no class"):
        CropSampler(cases, settings(), seed=0).batch(0, 1)
