"""Tables of a report: digits, missing scores, many classes."""

import math

import pytest

from voxseg.engine import report_tables
from voxseg.engine.evaluate import Evaluation
from voxseg.engine.report_sources import FoldFacts
from voxseg.engine.report_tables import (
    case_section,
    case_table,
    cohort_figure,
    fold_section,
    number,
    summary_section,
    volume_boxes,
    volume_section,
)
from voxseg.export.report_parts import ReportLink
from voxseg.metrics import ABSENT, EMPTY_POLICY, ClassScores


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    """What would have been drawn."""
    calls = {}
    for name in ("box_plots", "agreement_plots", "cohort_strip"):

        def draw(first, name=name, **_):
            calls[name] = first
            return b"\x89PNG"

        monkeypatch.setattr(report_tables, name, draw)
    return calls


def one(dice):
    return ClassScores(dice, dice / 2, 10 * dice, dice, dice, -1.5, 2.0, 3.5)


def evaluation(dices, labels=(0, 1)):
    scores = {
        case: {label: ABSENT if math.isnan(dice) else one(dice) for label in labels}
        for case, dice in dices.items()
    }
    return Evaluation(scores, {}, {label: f"class {label}" for label in labels}, 2.0)


def test_summary_has_both_kinds_of_average_and_counts_what_is_missing(drawn):
    section = summary_section(evaluation({"a": 0.5, "b": 0.7, "c": 0.9, "d": math.nan}), {})
    (table,) = section.tables
    row = next(row for row in table.rows if row[0] == "class 1")
    assert row[1] == "0.700 ± 0.200\n0.700 [0.600, 0.800]\n1 undefined"
    assert row[4] == "7.00 ± 2.00\n7.00 [6.00, 8.00]\n1 undefined"
    assert EMPTY_POLICY in table.note
    assert "within 2 mm" in table.columns[3]
    assert [panel.axis for panel in drawn["box_plots"]] == ["Dice", "HD95, mm"]
    mean = next(row for row in table.rows if row[0] == "all-class mean")
    assert mean[1].startswith("0.700 ± 0.200\n0.700")
    assert mean[4] == ""


def test_one_case_has_no_deviation_and_no_boxes(drawn):
    section = summary_section(evaluation({"a": 0.5}), {})
    assert next(row[1] for row in section.tables[0].rows) == "0.500\n0.500 [0.500, 0.500]"
    assert section.title == "Scores over 1 case"
    assert not section.figures
    assert not drawn


def test_a_class_that_no_case_has_is_a_dash():
    (table,) = summary_section(evaluation({"a": math.nan, "b": math.nan}), {}).tables
    assert table.rows[0][1] == "-\n\n2 undefined"


def test_cases_keep_their_order_and_fold():
    scored = evaluation({"a": 0.5, "b": 0.25})
    (table,) = case_section(scored, ["b", "a"], {"b": "case-1"}, {"a": 0, "b": 1}).tables
    assert table.rows[0] == [
        ReportLink("b", "case-1"), "1", "0.250", "0.250", "0.250", "2.50", "1.50",
    ]  # fmt: skip
    assert table.rows[1][0] == ReportLink("a", "")
    (plain,) = case_section(scored, ["b", "a"], {}, {}).tables
    assert "fold" not in plain.columns


def test_many_classes_are_left_to_other_tables(drawn):
    labels = tuple(range(40))
    scored = evaluation({"a": 0.5, "b": 0.25}, labels)
    (table,) = case_section(scored, ["b", "a"], {}, {}).tables
    assert len(table.columns) == len(table.rows[0]) == 5
    assert "24 of 39" in summary_section(scored, {}).figures[0].caption
    assert len(drawn["box_plots"][0].groups) == 1 + 24
    assert "8 of 39" in volume_section(scored).paragraphs[0]
    assert len(drawn["agreement_plots"]) == 8


def test_folds_average_what_they_held_out():
    scored = evaluation({"a": 0.5, "b": 0.7, "c": 0.9})
    folds = (FoldFacts(("a", "b"), 120, 90.0), FoldFacts(("c", "lost")), FoldFacts(()))
    (table,) = fold_section(scored, folds).tables
    assert table.rows[0] == ["0", "2", "0.600 ± 0.141", "0.600 ± 0.141", "120", "1.5"]
    assert table.rows[1] == ["1", "1", "0.900", "0.900", "-", "-"]
    assert table.rows[2][2] == "-"


def test_one_case_by_class():
    table = case_table({0: one(0.9), 1: one(0.5), 2: ABSENT}, {1: "CSF", 2: "grey"})
    assert table.rows == [
        ["CSF", "0.500", "0.500", "5.00", "0.50", "2", "3.50", "-1.5"],
        ["grey", "-", "-", "-", "-", "0", "0", "+0"],
    ]


def test_a_cohort_needs_others_and_a_volume(drawn):
    volumes = {"CSF": {"a": 1.0, "b": 2.0, "c": 3.0}, "none": {"a": 0.0, "b": 0.0, "c": 0.0}}
    assert cohort_figure(volumes, "a", {"CSF": 1.5, "none": 0.0}, "all") is not None
    assert drawn["cohort_strip"] == [("CSF", [2.0, 3.0], 1.0, 1.5)]
    assert cohort_figure({"CSF": {"a": 1.0, "b": 2.0}}, "a", None, "all") is None
    assert cohort_figure(volumes, "stranger", None, "all") is None


def test_volumes_are_drawn_in_percent_of_their_median(drawn):
    assert volume_boxes({"CSF": {"a": 1.0, "b": 2.0, "c": 4.0}, "none": {"a": 0.0}}, {}) is not None
    (panel,) = drawn["box_plots"]
    assert [group.values for group in panel.groups] == [{"a": 50.0, "b": 100.0, "c": 200.0}]
    assert volume_boxes({"CSF": {"a": 1.0}}, {}) is None


def test_undefined_is_a_dash():
    assert number(math.nan, 3) == "-"
    assert number(0.12345, 3) == "0.123"
