"""The forest plot: where marks stand, and that nothing is cut off."""

import math

import numpy as np
import pytest
from matplotlib.image import imread

from voxseg.export.forest import ForestGroup, ForestRow, draw_forest

BLUE = np.array([0x00, 0x72, 0xB2]) / 255
ORANGE = np.array([0xD5, 0x5E, 0x00]) / 255


def row(name="grey matter", mean=0.2, shown="better", is_mean=False, width=0.1):
    return ForestRow(name, mean, mean - width, mean + width, shown, is_mean, "+0.2 [0.1, 0.3] 0.01")


def draw(path, *groups):
    draw_forest(groups, path / "forest.png", axis="difference in Dice", caption="filled: shown")
    return imread(path / "forest.png")[..., :3]


def columns(picture, colour):
    """Columns of a picture in which a colour occurs."""
    return np.flatnonzero((np.abs(picture - colour).max(axis=-1) < 0.02).any(axis=0))


def test_marks_stand_on_their_side_in_their_colour(tmp_path):
    rows = (row(mean=0.5), row(mean=-0.5, shown="worse"), row(mean=0, shown="inconclusive"))
    picture = draw(tmp_path, ForestGroup("b - a", rows))
    assert columns(picture, ORANGE).max() < columns(picture, BLUE).min()


@pytest.mark.parametrize("count", [1, 30])
def test_nothing_is_cut_off(tmp_path, count):
    """Names and numbers of any length leave a margin of white on every side."""
    name = "left $lateral_ventricle$ with a name that goes on and on for quite a while"
    groups = [
        ForestGroup("a/long/path/to/a/run - b", tuple(row(name) for _ in range(count)), "heading")
    ]
    picture = draw(tmp_path, *groups, ForestGroup("second", (row(is_mean=True),)))
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert (edge == 1).all()
    assert picture.shape[0] > 40 * count


def test_undefined_rows_stay_empty(tmp_path):
    empty = ForestRow("none", math.nan, math.nan, math.nan, "inconclusive", False, "-")
    lone = ForestRow("one case", 0.1, math.nan, math.nan, "inconclusive", False, "+0.1")
    assert columns(draw(tmp_path, ForestGroup("b - a", (empty, lone))), BLUE).size == 0


def test_very_many_rows_are_drawn_smaller(tmp_path, monkeypatch):
    monkeypatch.setattr("voxseg.export.forest._MOST_PIXELS", 500)
    group = ForestGroup("b - a", tuple(row() for _ in range(20)))
    assert draw(tmp_path, group).shape[0] <= 501
