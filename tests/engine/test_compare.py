"""Reading runs, refusing what cannot be compared, verdicts, and the files that are written."""

import csv
import json
import math

import numpy as np
import pytest
from matplotlib.image import imread

from voxseg.data.splits import Fold, kfold, write_split
from voxseg.engine.compare import CompareSettings, compare
from voxseg.engine.compare_files import OUTPUTS, write_comparison
from voxseg.engine.evaluate import Evaluation, write_evaluation
from voxseg.engine.run_scores import read_runs
from voxseg.errors import DataError, UsageError
from voxseg.metrics.case import ABSENT, ClassScores

CASES = tuple(f"case{number:02}" for number in range(10))
NAMES = {1: "grey", 2: "white"}


def scored(dice, **others):
    values = {"hd95_mm": 10 * (1 - dice), "assd_mm": 1.0, "surface_dice": 0.9}
    volumes = {"volume_difference_ml": 0.5 - dice, "prediction_ml": 3.0, "truth_ml": 4.5}
    return ClassScores(dice=dice, iou=dice / (2 - dice), **values | volumes | others)


def run(folder, gain=0.0, cases=CASES, *, labels=(0, 1, 2), names=NAMES, split=3, change=None):
    """Write a run as a cross-validation does; ``gain`` is what its Dice is above a first run's."""
    rng = np.random.default_rng(5)
    base = {case: rng.uniform(0.5, 0.8) for case in CASES}
    noise = {case: 0.2 * gain * rng.uniform(-1, 1) for case in CASES}
    scores = {
        case: {label: scored(base[case] + 0.05 * label + gain + noise[case]) for label in labels}
        for case in cases
    }
    for (case, label), score in (change or {}).items():
        scores[case][label] = score
    write_evaluation(Evaluation(scores, {}, names, 1.0), folder)
    if split:
        write_split(folder / "split.json", kfold(CASES, split, 0))
    return folder


def settings(**changes):
    return CompareSettings(**{"resamples": 199, **changes})


def verdicts(comparison):
    return {(row.other, row.name): row.verdict for row in comparison.rows}


@pytest.fixture
def runs(tmp_path):
    return run(tmp_path / "base"), run(tmp_path / "v3", 0.05)


def test_a_gain_in_every_case_is_better(runs):
    comparison = compare(runs, settings())
    assert verdicts(comparison) == {
        ("v3", "grey"): "better", ("v3", "white"): "better", ("v3", "foreground mean"): "better",
    }  # fmt: skip
    assert comparison.warnings == ()
    grey, _, mean = comparison.rows
    assert grey.test.p_permutation == 2 / 1024
    assert [row.p_holm for row in comparison.rows] == [pytest.approx(6 / 1024)] * 3
    assert mean.test.difference == pytest.approx(0.05, abs=0.01)
    assert mean.test.low < mean.test.difference < mean.test.high
    table = list(csv.DictReader((runs[0] / "summary.csv").read_text().splitlines()))
    assert mean.test.mean_a == pytest.approx(float(table[2]["dice_mean"]))


def test_the_other_way_round_is_worse_and_lower_can_be_better(runs):
    assert set(verdicts(compare(runs[::-1], settings())).values()) == {"worse"}
    comparison = compare(runs, settings(metric="hd95_mm"))
    assert comparison.better == "lower"
    assert set(verdicts(comparison).values()) == {"better"}
    assert comparison.rows[0].test.difference < 0


def test_volumes_are_compared_by_size_and_have_no_mean(runs):
    comparison = compare(runs, settings(metric="volume_difference_ml"))
    assert [row.name for row in comparison.rows] == ["grey", "white"]
    # 0.5 - Dice: the second run is further off.
    assert comparison.rows[1].test.difference > 0
    assert comparison.rows[1].verdict == "worse"
    other = compare(runs, settings(metric="prediction_ml"))
    assert other.better is None
    assert verdicts(other)["v3", "grey"] == "no case differs"


def test_a_metric_of_ones_own_has_no_better_direction(runs):
    for number, folder in enumerate(runs):
        lines = (folder / "metrics.csv").read_text().splitlines()
        body = [f"{line},{number + int(index) / 100}" for index, line in enumerate(lines[1:])]
        (folder / "metrics.csv").write_text("\n".join([f"{lines[0]},mine", *body]) + "\n")
    comparison = compare(runs, settings(metric="mine"))
    assert verdicts(comparison)["v3", "grey"] == "higher"
    assert comparison.better is None


def test_pairs_and_holm_over_all_of_them(runs, tmp_path):
    third = run(tmp_path / "v4", 0.001)
    first = compare([*runs, third], settings())
    assert first.pairs == (("base", "v3"), ("base", "v4"))
    every = compare([*runs, third], settings(all_pairs=True))
    assert every.pairs == (("base", "v3"), ("base", "v4"), ("v3", "v4"))
    assert every.rows[0].p_holm == pytest.approx(9 * 2 / 1024)
    assert first.rows[0].p_holm == pytest.approx(6 * 2 / 1024)


def test_nothing_shown_is_inconclusive(tmp_path):
    rng = np.random.default_rng(1)
    change = {(case, 1): scored(0.7 + 0.1 * rng.normal()) for case in CASES}
    pair = [run(tmp_path / "a", labels=(1,)), run(tmp_path / "b", labels=(1,), change=change)]
    comparison = compare(pair, settings())
    assert verdicts(comparison) == {("b", "grey"): "inconclusive"}, "one class needs no mean"


def test_the_verdict_follows_the_corrected_p(tmp_path):
    """Nine cases of ten better by as much as the tenth is worse: p = 2 * 11 / 1024, three tests."""
    first = {(case, label): scored(0.6) for case in CASES for label in (1, 2)}
    second = {(case, 1): scored(0.65 if case != "case04" else 0.55) for case in CASES}
    pair = [run(tmp_path / "a", change=first), run(tmp_path / "b", change=first | second)]
    comparison = compare(pair, settings())
    assert comparison.rows[0].test.p_permutation == pytest.approx(22 / 1024)
    assert comparison.rows[0].p_holm == pytest.approx(66 / 1024)
    assert list(verdicts(comparison).values()) == [
        "inconclusive",
        "no case differs",
        "inconclusive",
    ]


def test_too_few_cases_say_how_many_it_takes(tmp_path):
    pair = [run(tmp_path / "a", cases=CASES[:4]), run(tmp_path / "b", 0.05, cases=CASES[:4])]
    comparison = compare(pair, settings())
    assert set(verdicts(comparison).values()) == {"too few cases"}
    (warning,) = comparison.warnings
    assert "too few to conclude in 3 of 3 rows, with 4 cases that differ" in warning
    assert "7 cases that differ are needed" in warning  # 3 tests: 6 / 2**7 = 0.047
    seven = [run(tmp_path / "c", cases=CASES[:7]), run(tmp_path / "d", 0.05, cases=CASES[:7])]
    assert set(verdicts(compare(seven, settings())).values()) == {"better"}
    six = [run(tmp_path / "e", cases=CASES[:6]), run(tmp_path / "f", 0.05, cases=CASES[:6])]
    assert set(verdicts(compare(six, settings())).values()) == {"too few cases"}


def test_too_few_random_patterns(tmp_path, monkeypatch):
    monkeypatch.setattr("voxseg.metrics.comparison.MOST_EXACT", 9)
    pair = [run(tmp_path / "a"), run(tmp_path / "b", 0.05)]
    comparison = compare(pair, settings(alpha=0.01))
    assert "use --resamples 300 or more" in comparison.warnings[0]
    assert set(verdicts(compare(pair, settings(alpha=0.01, resamples=999))).values()) == {"better"}


def test_missed_classes_are_left_out_of_both_and_said(tmp_path):
    missed = scored(0.0, hd95_mm=math.nan)
    pair = [
        run(tmp_path / "a"),
        run(tmp_path / "b", 0.05, change={("case00", 2): missed, ("case01", 2): ABSENT}),
    ]
    comparison = compare(pair, settings(metric="hd95_mm"))
    white, mean = comparison.rows[1:]
    assert (white.test.num_cases, white.test.undefined_b) == (8, 2)
    assert mean.test.num_cases == 10
    lone = {run.name: run.scores["case00"][1]["hd95_mm"] for run in comparison.runs}
    differences = np.array(
        [
            np.mean([b.scores[case][k]["hd95_mm"] - a.scores[case][k]["hd95_mm"] for k in labels])
            for a, b in [comparison.runs]
            for case in CASES
            for labels in [(1,) if case in {"case00", "case01"} else (1, 2)]
        ]
    )
    assert differences[0] == pytest.approx(lone["b"] - lone["a"])
    assert mean.test.difference == pytest.approx(differences.mean())
    assert any("undefined in b only in 2 of 10 cases" in text for text in comparison.warnings)


def test_every_kind_of_run_gives_the_same(runs, tmp_path):
    expected = compare(runs, settings())
    files = compare([runs[0] / "metrics.csv", runs[1] / "metrics.json"], settings())
    assert [row.to_row() for row in files.rows] == [row.to_row() for row in expected.rows]
    alone = tmp_path / "copied.csv"
    # As a spreadsheet saves it.
    alone.write_text((runs[1] / "metrics.csv").read_text(), encoding="utf-8-sig")
    loose = compare([runs[0], alone], settings())
    assert loose.runs[1].name == "copied"
    assert [row.test for row in loose.rows] == [row.test for row in expected.rows]
    assert "without a split.json" in loose.warnings[0]


def test_runs_of_one_name_are_told_apart(tmp_path):
    paths = [run(tmp_path / part / "run", gain) for part, gain in (("a", 0), ("b", 0.1))]
    assert [one.name for one in read_runs(paths)] == ["a/run", "b/run"]


def test_missing_cases_and_classes(tmp_path):
    whole = run(tmp_path / "a")
    part = run(tmp_path / "b", 0.05, cases=CASES[2:])
    with pytest.raises(DataError, match=r"b/metrics.csv has no scores of 2 cases \(case00, case01"):
        compare([whole, part], settings())
    with pytest.raises(DataError, match="--allow-missing"):
        compare([part, whole], settings())
    comparison = compare([whole, part], settings(allow_missing=True))
    assert comparison.num_cases == comparison.rows[0].test.num_cases == 8
    assert "2 cases (case00, case01) left out" in comparison.warnings[0]
    single = run(tmp_path / "c", 0.05, labels=(0, 1))
    with pytest.raises(DataError, match=r"no scores of 1 class \(2\)"):
        compare([whole, single], settings())
    kept = compare([whole, single], settings(allow_missing=True))
    assert [row.name for row in kept.rows] == ["grey"]
    none = run(tmp_path / "d", cases=CASES[:2])
    with pytest.raises(DataError, match="no case in common"):
        compare([part, none], settings(allow_missing=True))


def test_other_splits_names_and_truths_are_said(runs, tmp_path):
    (other,) = compare([runs[0], run(tmp_path / "c", 0.05, split=5)], settings()).warnings
    assert "base and c were split differently" in other
    swapped = {1: "white", 2: "grey"}
    (names,) = compare([runs[0], run(tmp_path / "d", 0.05, names=swapped)], settings()).warnings
    assert "class 1 is called grey and white" in names
    change = {("case03", 1): scored(0.7, truth_ml=4.6)}
    (truth,) = compare([runs[0], run(tmp_path / "e", 0.05, change=change)], settings()).warnings
    assert "1 case (case03) differ" in truth
    change = {("case03", 1): scored(0.7, truth_ml=math.nan)}
    assert compare([runs[0], run(tmp_path / "f", 0.05, change=change)], settings()).warnings == ()


def test_folds_in_another_order_are_the_same_split(runs):
    folds = [Fold(fold.train, fold.val[::-1]) for fold in kfold(CASES, 3, 0)]
    write_split(runs[1] / "split.json", folds[::-1])
    assert compare(runs, settings()).warnings == ()


def test_other_tolerances_are_refused(runs):
    content = json.loads((runs[1] / "metrics.json").read_text())
    (runs[1] / "metrics.json").write_text(json.dumps(content | {"tolerance_mm": 2.0}))
    with pytest.raises(DataError, match="1 mm and 2 mm"):
        compare(runs, settings(metric="surface_dice"))
    assert compare(runs, settings()).rows


def test_files(runs, tmp_path):
    comparison = compare(runs, settings())
    folder = tmp_path / "out"
    write_comparison(comparison, folder)
    assert {path.name for path in folder.iterdir()} == set(OUTPUTS)
    rows = list(csv.DictReader((folder / "compare.csv").read_text().splitlines()))
    content = json.loads((folder / "compare.json").read_text())
    assert [row["class"] for row in rows] == [row["class"] for row in content["rows"]]
    assert float(rows[0]["p_holm"]) == content["rows"][0]["p_holm"] == comparison.rows[0].p_holm
    assert rows[2]["label"] == ""
    assert content["metric"] == "dice"
    assert imread(folder / "compare.png").ndim == 3
    with pytest.raises(UsageError, match="--overwrite"):
        write_comparison(comparison, folder)
    write_comparison(comparison, folder, overwrite=True)
    with pytest.raises(UsageError, match="is a file"):
        write_comparison(comparison, folder / "compare.csv")


def test_undefined_everywhere_still_gives_all_files(tmp_path):
    change = {(case, 2): ABSENT for case in CASES}
    pair = [run(tmp_path / "a", change=change), run(tmp_path / "b", 0.05)]
    comparison = compare(pair, settings())
    assert verdicts(comparison)["b", "white"] == "no case"
    # A test that cannot be made is not counted.
    assert comparison.rows[0].p_holm == pytest.approx(2 * 2 / 1024)
    write_comparison(comparison, tmp_path / "out")
    row = json.loads((tmp_path / "out/compare.json").read_text())["rows"][1]
    assert row["p_holm"] is row["difference"] is None


def test_same_seed_same_answer(runs):
    one, two = (compare(runs, settings(seed=4)) for _ in range(2))
    assert one.rows == two.rows
    assert compare(runs, settings(seed=5)).rows[0].test.low != one.rows[0].test.low
