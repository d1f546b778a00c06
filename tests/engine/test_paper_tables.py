"""What is said about numbers that are made up."""

import math
from pathlib import Path

import pytest

from voxseg.engine.paper_report import draw_figure_8, markdown, write_tables
from voxseg.engine.paper_rows import PARTITIONS, Row
from voxseg.engine.paper_runs import FinishedRow, Score
from voxseg.engine.paper_tables import Difference, Tables, make_tables, mark_length

FACTS = {
    "folds": 3, "seed": 0, "split_hash": "ab" * 32, "device": {"type": "cpu", "name": "x"},
    "voxseg_version": "0.1.0", "git_commit": "",
}  # fmt: skip
V0 = Row("reduced8", "V0")
CONTROL = Row("reduced8", "control")
SLIC = Row("reduced8", "V3", "slic-large")
BLOCK = Row("reduced8", "V3", "block-large")
TOKENS = Row("reduced8", "V4", "slic-large")


def finished(row, dice, updates=100, folder=Path(), **changes):
    scores = tuple(
        Score(name, label, dice, 0.01)
        for name, label in (("CSF", 1), ("foreground mean", None), ("all-class mean", None))
    )
    size = PARTITIONS[row.partition].size_mm if row.partition else None
    facts = {
        "row": row, "folder": folder, "scores": scores, "updates": updates, "size_mm": size,
        "version": "0.1.0", "git_commit": "c", "device": "x", "cases": 10, "notes": (),
    }  # fmt: skip
    return FinishedRow(**(facts | changes))


def difference(row, reference, value, verdict, label=None):
    against = Row(row.network, reference).name
    return Difference(
        row.name, against, reference, "foreground mean", label, value, value - 0.01, value + 0.01,
        0.0123, 10, verdict,
    )  # fmt: skip


def tables(rows, differences=(), seconds=None):
    return Tables(
        facts=FACTS,
        finished={one.row.name: one for one in rows},
        differences=tuple(differences),
        seconds=seconds or {},
        notes=(),
    )


@pytest.mark.parametrize(
    ("verdicts", "words"),
    [
        (
            ("better", "better"),
            "better in 2 of 2 rows; the claim that V3 lifts Dice is shown in ev",
        ),
        (("worse", "inconclusive"), "inconclusive in 1 of 2 rows; the claim that V3 lifts Dice do"),
        (("worse", "inconclusive"), "does not hold here: the opposite is shown in some rows"),
        (("better", "worse"), "is shown in some rows here, and the opposite in others"),
        (("better", "inconclusive"), "is shown in some rows here, and not in others"),
        (("inconclusive", "too few cases"), "lifts Dice is neither shown nor refuted here"),
    ],
)
def test_the_first_sentence_follows_from_the_verdicts(verdicts, words):
    rows = [finished(V0, 0.8), finished(CONTROL, 0.8), finished(SLIC, 0.8), finished(BLOCK, 0.8)]
    found = tables(
        rows,
        [
            difference(row, "control", 0.01, verdict)
            for row, verdict in zip((SLIC, BLOCK), verdicts, strict=True)
        ],
    )
    first = found.conclusions[0]
    assert first.startswith("V3 against the control (the baseline trained on): ")
    assert words in first


def test_a_row_is_told_with_both_references_and_the_papers_gain():
    rows = [finished(V0, 0.8), finished(CONTROL, 0.81), finished(SLIC, 0.82)]
    sentence = tables(
        rows,
        [
            difference(SLIC, "V0", 0.02, "better"),
            difference(SLIC, "V0", 0.5, "worse", label=1),
            difference(SLIC, "control", -0.013, "inconclusive"),
        ],
    ).conclusions[-1]
    assert sentence == (
        "Reduced (/8), V3 on slic-large: mean foreground Dice 82.0%: +2.0 points against the "
        "baseline (better, Holm p 0.012), -1.3 points against the control "
        "(inconclusive, Holm p 0.012); the paper has +4.7 points over its baseline (Tables 1 and "
        "2)."
    )


def test_v4_is_told_against_v3_on_the_same_supervoxels():
    rows = [finished(V0, 0.8), finished(SLIC, 0.82), finished(TOKENS, 0.84)]
    told = tables(
        rows,
        [
            difference(SLIC, "V0", 0.02, "better"),
            difference(TOKENS, "V0", 0.04, "better"),
            Difference(
                TOKENS.name, SLIC.name, "V3", "foreground mean", None, 0.02, 0.0, 0.1, 0.2, 10,
                "inconclusive",
            ),
        ],
    ).conclusions  # fmt: skip
    assert told[1] == (
        "V4 against the baseline: better in 1 of 1 row; that V4, voxseg's own, lifts Dice is shown "
        "in every row here."
    )
    assert told[2].startswith("V4 against V3 on the same supervoxels: inconclusive in 1 of 1 row;")
    assert told[-1] == (
        "Reduced (/8), V4 on slic-large: mean foreground Dice 84.0%: +4.0 points against the "
        "baseline (better, Holm p 0.012), +2.0 points against V3 (inconclusive, Holm p 0.200)."
    )


def test_nothing_is_said_of_the_claim_without_v3():
    assert tables([]).conclusions == ("No row is finished.",)
    assert "nothing is said" in tables([finished(V0, 0.8)]).conclusions[-1]


def test_rows_trained_longer_than_the_control_are_marked():
    rows = {one.row.name: one for one in (finished(CONTROL, 0.8), finished(SLIC, 0.8, 150))}
    notes = mark_length(rows[SLIC.name], rows).notes
    assert notes == ("150 further updates, and the control 100",)
    assert mark_length(rows[CONTROL.name], rows).notes == ()
    assert mark_length(rows[SLIC.name], {}).notes == ()


def test_rows_of_several_commits_are_told():
    rows = {
        one.row.name: one
        for one in (finished(V0, 0.8), finished(Row("full", "V0"), 0.9, git_commit="d"))
    }
    assert "rows were made at different commits: c, d" in make_tables(rows, FACTS, {}).notes


def test_rows_that_were_not_run_are_there_and_empty(tmp_path, validate):
    found = tables([finished(V0, 0.8123), finished(SLIC, math.nan)], seconds={V0.name: 1.5})
    write_tables(found, tmp_path)
    content = validate((tmp_path / "tables.json").read_text())
    assert [row["finished"] for row in content["rows"][:4]] == [True, False, True, False]
    assert content["rows"][2]["dice"][0]["mean"] is None
    lines = (tmp_path / "tables.md").read_text().splitlines()
    assert "| Reduced (/8), V0 | 72.2 |  |  | 81.2 | 81.2 |  | 100 |" in lines
    assert "| Reduced (/8), V3 on block-large | 75.2 |  | 72.7 |  |  |  |  |" in lines
    assert "| Full network, V3 on slic-large |  | 88.97 | 87.8 |  |  |  |  |" in lines
    page = (tmp_path / "tables.html").read_text()
    assert "Reduced (/4), V3 on block-middle" in page
    assert "<img" in page


def test_figure_8_needs_a_time():
    assert draw_figure_8(tables([finished(V0, 0.8)])) == b""
    assert "Figure 8" not in markdown(tables([finished(V0, 0.8)])).partition("\n## ")[2]
