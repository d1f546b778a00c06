"""Means and deviations over cases, with undefined scores counted."""

import json
import math

import numpy as np
import pytest

from voxseg.metrics.case import ABSENT, ClassScores, score_case
from voxseg.metrics.summary import (
    FOREGROUND,
    METRICS,
    WITH_BACKGROUND,
    case_rows,
    foreground_means,
    summarise,
)


def scores(dice, hd95_mm=2.0, **others):
    values = {"iou": dice / (2 - dice), "assd_mm": 1.0, "surface_dice": 0.9}
    volumes = {"volume_difference_ml": -1.5, "prediction_ml": 3.0, "truth_ml": 4.5}
    return ClassScores(dice=dice, hd95_mm=hd95_mm, **values | volumes | others)


BACKGROUND = scores(0.98, math.nan, assd_mm=math.nan, surface_dice=math.nan)
CASES = {
    "a": {0: BACKGROUND, 1: scores(0.8), 2: scores(0.6)},
    "b": {0: BACKGROUND, 1: scores(0.9), 2: scores(0.0, math.nan)},
    "c": {0: BACKGROUND, 1: scores(0.7), 2: ABSENT},
}


def row(summary, name):
    return next(row for row in summary.rows if row.name == name)


def test_summary_by_hand():
    summary = summarise(CASES, {1: "grey", 2: "white"})
    assert [r.name for r in summary.rows] == [
        "grey", "white", FOREGROUND, "background", WITH_BACKGROUND,
    ]  # fmt: skip
    grey = row(summary, "grey").statistics["dice"]
    assert grey.mean == pytest.approx(0.8)
    assert grey.deviation == pytest.approx(0.1)
    assert (grey.defined, grey.undefined) == (3, 0)
    white = row(summary, "white").statistics
    assert white["dice"].mean == pytest.approx(0.3)
    assert (white["dice"].defined, white["dice"].undefined) == (2, 1)
    assert (white["hd95_mm"].defined, white["hd95_mm"].undefined) == (1, 2)
    assert math.isnan(white["hd95_mm"].deviation)


def test_means_are_over_classes_then_cases():
    summary = summarise(CASES)
    per_case = [(0.8 + 0.6) / 2, (0.9 + 0.0) / 2, 0.7]
    assert foreground_means(CASES) == pytest.approx(dict(zip("abc", per_case, strict=True)))
    mean = row(summary, FOREGROUND).statistics["dice"]
    assert mean.mean == pytest.approx(np.mean(per_case)) == summary.foreground_dice
    assert mean.deviation == pytest.approx(np.std(per_case, ddof=1))
    with_background = [(0.98 + 1.4) / 3, (0.98 + 0.9) / 3, (0.98 + 0.7) / 2]
    mean = row(summary, WITH_BACKGROUND).statistics["dice"]
    assert mean.mean == pytest.approx(np.mean(with_background))


def test_background_has_no_surface_and_volumes_have_no_mean():
    summary = summarise(CASES)
    assert "hd95_mm" not in row(summary, "background").statistics
    assert set(row(summary, WITH_BACKGROUND).statistics) == {"dice", "iou"}
    assert "truth_ml" not in row(summary, FOREGROUND).statistics


def test_without_background_there_is_no_mean_with_it():
    summary = summarise({"a": {1: scores(0.5)}})
    assert [r.name for r in summary.rows] == ["class 1", FOREGROUND]


def test_no_case_at_all():
    summary = summarise({})
    assert summary.num_cases == 0
    assert math.isnan(summary.foreground_dice)


def test_rows_are_flat_and_valid_json():
    rows = summarise(CASES).to_rows() + case_rows(CASES, {1: "grey"})
    text = json.dumps(rows, allow_nan=False)
    assert json.loads(text) == rows
    last = case_rows(CASES, {1: "grey"})[-1]
    assert set(last) == {"case", "class", "label", *METRICS}
    assert last["dice"] is None
    assert last["volume_difference_ml"] == 0
    assert case_rows(CASES, {1: "grey"})[1]["class"] == "grey"


def test_the_policy_reaches_the_table():
    """A class missing from one prediction counts as 0, one missing from both does not count."""
    truth = np.zeros((5, 6, 7), np.uint8)
    truth[1:3, 2:4, 2:5] = 1
    empty = np.zeros_like(truth)
    cases = {
        "found": score_case(truth, truth, [1], (1, 1, 1)),
        "missed": score_case(empty, truth, [1], (1, 1, 1)),
        "absent": score_case(empty, empty, [1], (1, 1, 1)),
    }
    statistics = summarise(cases).rows[0].statistics
    assert statistics["dice"].mean == 0.5
    assert statistics["dice"].undefined == 1
    assert statistics["hd95_mm"].undefined == 2
    assert statistics["volume_difference_ml"].undefined == 0


def test_summary_rejects_uneven_classes():
    with pytest.raises(ValueError, match="same classes"):
        summarise({"a": {1: scores(0.5)}, "b": {2: scores(0.5)}})
