"""Plots of a report: they are drawn, the same each time, and show what they are given."""

import io
import math

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.image import imread

from voxseg.export.plots import Group, Panel, agreement_plots, box_plots, cohort_strip, spread

DICE = {"a": 0.9, "b": 0.7, "c": math.nan, "$x_1$ <&": 0.4, "d": 0.85}


def pixels(png):
    return imread(io.BytesIO(png), format="png")


def panel(values=None, **others):
    return Panel("Dice", [Group("CSF", values or DICE, (0, 114, 178))], **others)


@pytest.fixture
def written(monkeypatch):
    """Words that are written beside dots, with their places."""
    words = []

    def annotate(_, text, place, **style):
        words.append((text, place, style["ha"]))

    monkeypatch.setattr(Axes, "annotate", annotate)
    return words


def test_box_plots_name_the_worst_case(written):
    box_plots([panel(), panel(worst_is_low=False)])
    (low, place, side), (high, other, opposite) = written
    assert (low, place[0], side) == ("$x_1$ <&", 0.4, "right")
    assert (high, other[0], opposite) == ("a", 0.9, "left")


def test_a_name_at_the_end_of_the_axis_goes_to_the_right(written):
    box_plots([panel({"a": 0.0, "b": 0.9}, limits=(0, 1))])
    box_plots([panel({"a": 0.5, "b": 0.9}, limits=(0, 1))])
    assert [side for *_, side in written] == ["left", "right"]


def test_a_case_that_is_called_like_a_formula_is_drawn():
    assert pixels(box_plots([panel({"$\\frac{": 0.3, "b": 0.5})])).shape[1] == 1080


def test_plots_are_the_same_each_time():
    assert box_plots([panel()]) == box_plots([panel()])
    offsets = spread(50)
    assert -0.5 <= min(offsets) < max(offsets) < 0.5
    assert len(set(offsets)) == 50


def test_box_plots_grow_with_their_rows_and_take_nothing():
    few = box_plots([Panel("Dice", [Group(f"class {n}", DICE) for n in range(3)])])
    many = box_plots([Panel("Dice", [Group(f"class {n}", DICE) for n in range(20)])])
    assert pixels(many).shape[0] > 3 * pixels(few).shape[0]
    assert pixels(box_plots([Panel("Dice", [Group("none", {"a": math.nan})])])).size


def test_agreement_says_bias_and_limits(monkeypatch, written):
    titles, lines = [], []
    monkeypatch.setattr(Axes, "set_title", lambda _, text, **__: titles.append(text))
    monkeypatch.setattr(Axes, "axhline", lambda _, y=0, **__: lines.append(y))
    true = np.array([10.0, 20.0, 30.0, 40.0])
    off = np.array([1.0, 3.0, -1.0, 5.0])
    volumes = {f"c{n}": (t + d, t) for n, (t, d) in enumerate(zip(true, off, strict=True))}
    agreement_plots([("CSF", volumes)])
    reach = 1.96 * off.std(ddof=1)
    assert titles[0] == "CSF"
    assert titles[1].startswith("bias +2 ml")
    np.testing.assert_allclose(lines, [0, 2, 2 - reach, 2 + reach])
    assert [text for text, *_ in written] == ["c2"]  # 3 ml below the bias, the first of two


def test_agreement_of_two_cases_has_no_limits(monkeypatch):
    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda _, text, **__: titles.append(text))
    agreement_plots([("CSF", {"a": (1.0, 2.0), "b": (0.0, 0.0)}), ("none", {})])
    assert titles == ["CSF", "", "none", ""]


def test_cohort_strip_marks_the_case_in_percent_of_the_median(monkeypatch):
    marks = []
    plot = Axes.plot

    def watched(self, *places, **style):
        if style.get("markersize"):
            marks.append(places[0])
        return plot(self, *places, **style)

    monkeypatch.setattr(Axes, "plot", watched)
    cohort_strip([("CSF", [10.0, 20.0, 40.0, 50.0], 30.0, 15.0)], against="all")
    assert marks == [pytest.approx(100), pytest.approx(50)]
