"""What pages and screens say about volumes."""

from types import SimpleNamespace

import pytest

from voxseg.engine.evaluate import Evaluation
from voxseg.engine.outcomes import DISCLAIMER, UNKNOWN, Measured, Uncertainty
from voxseg.engine.report_facts import ClassVolume, Outcome
from voxseg.engine.volume_report import (
    case_table,
    error_table,
    measure_table,
    outside_warnings,
    paragraphs,
    volume_table,
)
from voxseg.engine.volume_words import (
    interval_sentences,
    shown,
    uncertainty_from_json,
    with_interval,
)
from voxseg.export.report_parts import ReportLink

CONFORMAL = Uncertainty("conformal", 1.5, 2.25, 9 / 11, 10, 0, -6.04)
MEMBERS = Uncertainty("members", 1.5, 2.25, members=4)


def outcome(case, *ml, error="", known=UNKNOWN, measures=(), note=""):
    volumes = tuple(ClassVolume(n, f"class {n}", one, known) for n, one in enumerate(ml, 1))
    return Outcome(case, error, 2.0, "whole", volumes, measures, note)


def test_failed_and_odd_cases_stand_first():
    outcomes = [outcome("a", 1.0), outcome("b", error="broken"), outcome("c", 90.0)]
    table = volume_table(outcomes, {"c": "case-1"}, {"c": "odd"})
    assert [row[0] for row in table.rows] == [
        ReportLink("b", ""), ReportLink("c", "case-1"), ReportLink("a", ""),
    ]  # fmt: skip
    rows = [row[1:3] for row in table.rows]
    assert rows == [["-", "failed"], ["90.0", "odd volume"], ["1.00", ""]]
    assert "No interval: predict with the folder of a cross-validation" in table.note


def test_brackets_are_explained_as_what_they_are():
    table = volume_table([outcome("a", 2.0, known=CONFORMAL)], {}, {})
    assert table.rows[0][1] == "2.00 [1.50, 2.25]"
    assert "81 % confidence by the errors of 10 held-out cases" in table.note
    assert "not corrected for: class 1 -6.0 %." in table.note
    table = volume_table([outcome("a", 2.0, known=MEMBERS)], {}, {})
    assert "the range of 4 members (folds, flips)" in table.note
    assert "conformal" not in table.note
    mixed = interval_sentences([CONFORMAL, MEMBERS, UNKNOWN])
    assert [text.split(":")[0] for text in mixed] == [
        "In brackets", "An interval that lies to one side of its value tells of a bias.",
        "Of others, in brackets",
    ]  # fmt: skip
    assert interval_sentences([]) == ()


def test_sums_and_shares_have_a_table_of_their_own():
    measures = (
        Measured("structure", "hippocampus", "ml", (1, 2), 3.0, MEMBERS),
        Measured("fraction", "tissue", "%", (1,), None),
    )
    one = outcome("a", 1.0, 2.0, measures=measures, note="Half a head.")
    table = measure_table([one, outcome("b", 1.0)], {}, {})
    assert table.columns == ("case", "hippocampus\nml", "tissue\n%")
    assert [row[1:] for row in table.rows] == [["3.00 [1.50, 2.25]", "-"], ["-", "-"]]
    assert measure_table([outcome("b", 1.0)], {}, {}) is None
    assert paragraphs([one, one]) == ("Half a head.", DISCLAIMER)


def test_one_case_has_all_its_figures_below_each_other():
    measures = (Measured("asymmetry", "sides", "%", (1,), -12.5, UNKNOWN),)
    found = case_table(outcome("a", 2.0, known=CONFORMAL, measures=measures))
    assert found.columns == ("structure", "unit", "value", "from", "to", "interval")
    assert [tuple(row) for row in found.rows] == [
        ("class 1", "ml", "2.00", "1.50", "2.25", "81 %, 10 held-out cases"),
        ("sides", "%", "-12.5", "-", "-", "-"),
    ]  # fmt: skip
    soft = Outcome("a", "", 1.0, "", (ClassVolume(1, "grey", 600.0, UNKNOWN, 598.76),))
    found = case_table(soft)
    assert found.columns[-1] == "soft volume\nml"
    assert tuple(found.rows[0]) == ("grey", "ml", "600.0", "-", "-", "-", "598.8")


def test_volumes_outside_their_interval_are_a_warning():
    inside, below = outcome("a", 2.0, known=CONFORMAL), outcome("b", 1.4, known=CONFORMAL)
    ranges = outcome("c", 1.4, known=MEMBERS)  # says nothing of the truth
    (text,) = outside_warnings([inside, below, ranges])
    assert text.startswith("class 1 has a volume outside its own interval in 1 case (b), for")
    assert text.endswith("not corrected for: class 1 -6.0 %.")
    assert outside_warnings([inside, ranges]) == []


def test_what_has_no_column_is_said():
    one = outcome("a", *map(float, range(1, 14)))
    table = volume_table([one], {}, {})
    assert len(table.columns) == 1 + 12 + 3
    assert "The first 12 of 13; volumes.csv has all." in table.note
    assert len(case_table(one).rows) == 13


def test_errors_of_a_cohort_as_multiples():
    truths = {"a": 2.0, "b": 2.2, "c": 3.0}
    scores = {
        case: {k: SimpleNamespace(prediction_ml=2.0 if k == 1 else k - 2, truth_ml=truth)
               for k in (0, 1, 2)}
        for case, truth in truths.items()
    }  # fmt: skip
    table = error_table(Evaluation(scores, {}, {0: "background", 1: "core", 2: "rare"}, 1.0))
    assert [tuple(row) for row in table.rows] == [
        ("core", "3", "-9.1", "50 %", "1.000", "1.500"),
    ]  # fmt: skip
    del scores["c"]
    assert error_table(Evaluation(scores, {}, {1: "core", 2: "rare"}, 1.0)) is None


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"low_ml": 1.0, "high_ml": 2.0}, Uncertainty("members", 1.0, 2.0)),
        ({"low_ml": None, "high_ml": None}, UNKNOWN),
        ({}, UNKNOWN),
        ({"uncertainty": {"interval": "", "of a later version": 1}}, UNKNOWN),
    ],
)
def test_what_earlier_versions_wrote_is_read(row, found):
    assert uncertainty_from_json(row) == found


def test_digits():
    texts = [shown(value) for value in (None, 0.0, 1.234, -9.994, 12.34, 1234.56)]
    assert texts == ["-", "0.00", "1.23", "-9.99", "12.3", "1234.6"]
    assert shown(3.456, "%") == "3.5"
    assert with_interval(9.5, Uncertainty("members", 1.0, 20.0)) == "9.50 [1.00, 20.00]"
    assert with_interval(95, Uncertainty("members", 1.0, 200.0)) == "95.0 [1.0, 200.0]"


def test_a_range_of_earlier_versions_has_no_number_of_members():
    assert "the range of several members" in interval_sentences([Uncertainty("members", 1, 2)])[0]
