import numpy as np
import pytest
import torch

from voxseg.data.grid import IGNORED
from voxseg.tasks.pixels import draw_pixels, draw_valid

WAYS = pytest.mark.parametrize("sampling", ["uniform", "balanced", "positives"])


def generators(number, seed=0):
    return [np.random.default_rng([seed, image]) for image in range(number)]


def street(size=(9, 14)):
    """Two images: much of class 0, some of 1, five pixels of 3, a border that does not count."""
    label = torch.zeros(2, 1, *size, dtype=torch.uint8)
    label[:, :, :, 8:] = 1
    label[0, :, 4, 1:6] = 3
    label[1, :, 6, 1:6] = 3
    label[:, :, 0] = IGNORED
    return label


def classes_of(label, points):
    return label.flatten(1).gather(1, points)


@WAYS
def test_every_image_gives_as_many_pixels_and_none_that_is_ignored(sampling):
    label = street()
    for count in (1, 7, 60):
        points = draw_pixels(label, count, generators(2), sampling=sampling)
        assert points.shape == (2, count)
        assert points.dtype == torch.int64
        assert (classes_of(label, points) != IGNORED).all()


def test_uniform_takes_each_pixel_once_where_there_are_enough():
    label = street()
    valid = int((label[0] != IGNORED).sum())
    for image in draw_pixels(label, valid, generators(2)):
        assert len(image.unique()) == valid
    more = draw_pixels(label, valid + 40, generators(2))
    assert more.shape == (2, valid + 40)
    assert all(40 < len(image.unique()) <= valid for image in more)


def test_uniform_finds_every_pixel_equally_often():
    label = torch.zeros(1, 1, 3, 4, dtype=torch.int32)
    label[0, 0, 1, 1] = IGNORED
    rng = np.random.default_rng(0)
    found = torch.zeros(12)
    for _ in range(2000):
        found[draw_pixels(label, 4, [rng])[0]] += 1
    assert found[5] == 0
    # 8000 draws of 11 pixels: 727 each, with a standard deviation of 21.5.
    others = found[torch.arange(12) != 5]
    assert (others - 8000 / 11).abs().max() < 4 * 21.5


@pytest.mark.parametrize(("share", "positives"), [(0.0, 0), (0.25, 10), (0.5, 20), (0.75, 30)])
def test_the_share_of_positives_is_exact(share, positives):
    label = street()
    points = draw_pixels(label, 40, generators(2), sampling="positives", positive_share=share)
    assert ((classes_of(label, points) > 0).sum(1) == positives).all()


def test_balanced_gives_each_class_that_occurs_as_many():
    label = street()
    classes = classes_of(label, draw_pixels(label, 30, generators(2), sampling="balanced"))
    assert all((classes == value).sum(1).tolist() == [10, 10] for value in (0, 1, 3))
    # Chance deals out the remainder, so that over time no class has less.
    rng = np.random.default_rng(0)
    extra = torch.zeros(4)
    for _ in range(300):
        points = draw_pixels(label[:1], 31, [rng], sampling="balanced")
        extra += torch.bincount(classes_of(label[:1], points)[0].long(), minlength=4)
    assert extra[2] == 0
    assert (extra[[0, 1, 3]] - 3100).abs().max() < 40
    few = draw_pixels(label, 2, generators(2), sampling="balanced")
    assert all(len(image.unique()) == 2 for image in classes_of(label, few))


@WAYS
def test_equal_generators_draw_equal_pixels(sampling):
    label = street()
    draw = [draw_pixels(label, 20, generators(2, seed), sampling=sampling) for seed in (4, 4, 5)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])
    # An image's pixels do not depend on which others are in the batch.
    alone = draw_pixels(label[1:], 20, generators(2, 4)[1:], sampling=sampling)
    assert torch.equal(alone[0], draw[0][1])


@WAYS
def test_an_image_without_a_positive_gives_negatives(sampling):
    label = torch.zeros(1, 1, 4, 5, dtype=torch.uint8)
    label[0, 0, 0] = IGNORED
    points = draw_pixels(label, 8, generators(1), sampling=sampling)
    assert (classes_of(label, points) == 0).all()
    assert len(points.unique()) == 8
    positive = torch.ones_like(label)
    points = draw_pixels(positive, 8, generators(1), sampling=sampling, positive_share=0.25)
    assert points.shape == (1, 8)


@WAYS
def test_an_image_in_which_nothing_counts_gives_pixels_that_do_not_count(sampling):
    label = street()
    label[1] = IGNORED
    points = draw_pixels(label, 12, generators(2), sampling=sampling)
    classes = classes_of(label, points)
    assert (classes[0] != IGNORED).all()
    assert (classes[1] == IGNORED).all()


def test_without_an_ignored_value_255_is_a_class():
    label = torch.full((1, 1, 4, 4), 255, dtype=torch.int32)
    label[0, 0, 0] = 7
    classes = classes_of(
        label, draw_pixels(label, 10, generators(1), sampling="balanced", ignored=None)
    )
    assert sorted(classes[0].tolist()) == [7] * 5 + [255] * 5


def test_a_mask_is_drawn_from_evenly():
    valid = torch.zeros(2, 3, 4, 5, dtype=torch.bool)
    valid[0, 1] = True
    points = draw_valid(valid, 15, generators(2))
    assert valid.flatten(1).gather(1, points)[0].all()
    assert len(points[0].unique()) == 15
    assert ((points[1] >= 0) & (points[1] < 60)).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": 0}, "count must be at least 1"),
        ({"positive_share": 1.5}, r"positive_share must be in \[0, 1\]"),
        ({"generators": []}, "a generator for each of 2 images"),
        ({"label": torch.zeros(2, 2, 3, 3)}, r"label must be \(B, 1, \*S\)"),
    ],
    ids=str,
)
def test_rejects_what_is_out_of_range(options, words):
    given = {"label": street(), "count": 3, "generators": generators(2)} | options
    with pytest.raises(ValueError, match=words):
        draw_pixels(**given)
    with pytest.raises(ValueError, match="must be a mask"):
        draw_valid(street()[:, 0], 3, generators(2))
