"""The precision-recall plot: where curves, dots and points stand, and that nothing is cut off."""

import io

import numpy as np
import pytest
from matplotlib.image import imread

from voxseg.export.precision_recall import (
    PrecisionRecallCurve,
    PrecisionRecallPoint,
    draw_precision_recall,
)

FIRST = np.array([0x00, 0x72, 0xB2]) / 255
SECOND = np.array([0xD5, 0x5E, 0x00]) / 255
INK = np.array([0x22, 0x22, 0x22]) / 255
FALLING = np.linspace(0.95, 0.4, 50)


def curve(name="net", recall=FALLING, precision=1.3 - FALLING):
    return PrecisionRecallCurve(name, recall.tolist(), precision.tolist(), 0.65, 0.7, 0.6)


def draw(*arguments, **more):
    png = draw_precision_recall(*arguments, **more)
    assert png.startswith(b"\x89PNG")
    return imread(io.BytesIO(png))[..., :3]


def places(picture, colour):
    """Rows and columns of one colour in the upper right half, where there is no legend."""
    found = np.argwhere(np.abs(picture - colour).max(axis=-1) < 0.02)
    return found[(found[:, 1] > 0.4 * picture.shape[1]) | (found[:, 0] < 0.6 * picture.shape[0])]


def test_higher_precision_stands_higher():
    tops = [places(draw([curve(precision=FALLING * 0 + p)]), FIRST)[:, 0].min() for p in (0.5, 0.9)]
    assert tops[0] > tops[1] + 150


def test_the_dot_stands_where_f_is_best():
    recall = np.array([0.95, 0.7, 0.3])
    left = draw([curve(recall=recall, precision=np.array([0.3, 0.7, 0.9]))])
    right = draw([curve(recall=recall, precision=np.array([0.9, 0.7, 0.9]))])
    white = places(left, np.ones(3)), places(right, np.ones(3))
    assert len(white[0])
    # The dot is the widest stretch of the colour in any row.
    widths = []
    for picture in (left, right):
        found = places(picture, FIRST)
        rows, counts = np.unique(found[:, 0], return_counts=True)
        row = rows[np.argmax(counts)]
        widths.append(np.median(found[found[:, 0] == row, 1]))
    assert widths[1] > widths[0] + 80


def test_thresholds_without_a_prediction_are_left_out():
    ended = curve(recall=np.array([0.9, 0.8, 0]), precision=np.array([0.8, 0.85, 0]))
    found = places(draw([ended]), FIRST)
    assert found[:, 0].max() < 350  # no line down to the corner


def test_curves_and_points_are_told_apart():
    picture = draw([curve("a"), curve("b", precision=1.2 - FALLING)])
    assert len(places(picture, FIRST)) > 300
    assert len(places(picture, SECOND)) > 200
    bare = places(draw([]), INK)
    with_point = places(draw([], [PrecisionRecallPoint("people", 0.73, 0.91)]), INK)
    assert len(with_point) > len(bare) + 30


def test_f_of_a_point():
    assert PrecisionRecallPoint("people", 0.75, 0.5).f == pytest.approx(0.6)
    assert PrecisionRecallPoint("nothing", 0, 0).f == 0


@pytest.mark.parametrize("count", [0, 1, 12])
def test_nothing_is_cut_off(count):
    name = "left $ventricle$ with a name that goes on and on for quite a while"
    picture = draw([curve(f"{name} {k}") for k in range(count)], title="$ODS$ of 5%")
    rim = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert (rim > 0.97).all()


def test_one_strength_alone_is_a_dot():
    assert len(
        places(draw([curve(recall=np.array([0.8] * 9), precision=np.array([0.9] * 9))]), FIRST)
    )


def test_lengths_that_differ_are_rejected():
    with pytest.raises(ValueError, match="net has 50 recalls and 1 precisions"):
        draw([curve(precision=np.ones(1))])
