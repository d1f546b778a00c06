"""The reliability diagram: where bars and lines stand, and that nothing is cut off."""

import io
import math

import numpy as np
import pytest
from matplotlib.image import imread

from voxseg.export.reliability import ReliabilityCurve, draw_reliability

BAR = np.array([0x00, 0x72, 0xB2]) / 255
GAP = np.array([0xD5, 0x5E, 0x00]) / 255
SECOND = np.array([0xE6, 0x9F, 0x00]) / 255
BINS = 10
MIDDLES = tuple((index + 0.5) / BINS for index in range(BINS))


def curve(name="grey matter", accuracy=MIDDLES, voxels=(1000,) * BINS, ece=0.1):
    return ReliabilityCurve(name, voxels, MIDDLES, accuracy, ece)


def draw(top, classes, title="Calibration"):
    png = draw_reliability(top, classes, title=title)
    assert png.startswith(b"\x89PNG")
    return imread(io.BytesIO(png))[..., :3]


def places(picture, colour):
    """Rows and columns of the pixels of one colour, without the legends above the diagrams."""
    return np.argwhere(np.abs(picture - colour).max(axis=-1) < 0.02)


def test_bars_end_at_the_accuracy():
    empty = curve(voxels=(0,) * BINS, accuracy=(math.nan,) * BINS)
    tops = []
    for right in (0.5, 0.9):
        picture = draw(curve(accuracy=(right,) * BINS), [empty])
        found = places(picture, BAR)
        below_legend = found[(found[:, 1] > 300) & (found[:, 1] < 560)]
        tops.append(below_legend[:, 0].min())
    assert tops[0] > tops[1] + 100


def test_gaps_are_drawn_only_where_there_are_some():
    far = draw(curve(accuracy=(0.1,) * BINS), [curve()])
    near = draw(curve(), [curve()])
    assert len(places(far, GAP)) > 3 * len(places(near, GAP))


def test_lines_of_classes_stand_in_the_right_half():
    picture = draw(curve(voxels=(0,) * BINS), [curve("a"), curve("b", accuracy=(0.5,) * BINS)])
    found = places(picture, SECOND)
    assert len(found) > 200
    assert found[:, 1].min() > picture.shape[1] / 2


@pytest.mark.parametrize("count", [1, 40])
def test_nothing_is_cut_off(count):
    name = "left $lateral_ventricle$ with a name that goes on and on for quite a while"
    picture = draw(curve(name), [curve(name, ece=k / 50) for k in range(count)], title=name)
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert (edge == 1).all()


def test_the_worst_of_many_classes_are_drawn():
    """The only class that leaves the diagonal is the last; it has the largest error."""
    classes = [curve(f"class {k}", ece=0.01) for k in range(20)]
    wrong = curve("wrong", accuracy=(0.02,) * BINS, ece=0.5)
    eighth = np.array([0x4D, 0x4D, 0x4D]) / 255
    found = places(draw(curve(), [*classes, wrong]), eighth)
    low = found[(found[:, 0] > 450) & (found[:, 0] < 515)]
    assert len(low) > 500


def test_nothing_counted_draws_an_empty_diagram():
    empty = curve(voxels=(0,) * BINS, accuracy=(math.nan,) * BINS, ece=math.nan)
    picture = draw(empty, [empty])
    assert len(places(picture, BAR)) < 600  # the legends alone


def test_marks_of_classes_stand_at_probability_and_accuracy():
    """One bin of the second class is filled; its mark is below the legend, at the far right."""
    voxels = (0,) * (BINS - 1) + (1000,)
    one = curve("b", voxels=voxels, accuracy=(0.2,) * BINS)
    found = places(draw(curve(), [curve("a"), one]), SECOND)
    mark = found[(found[:, 0] > 300) & (found[:, 0] < 515)]
    assert 1080 < mark[:, 1].mean() < 1110
    assert 400 < mark[:, 0].mean() < 440
