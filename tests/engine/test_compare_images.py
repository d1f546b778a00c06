"""``voxseg compare`` on photographs: IoU of each, all classes alike, and the files it leaves."""

import csv
import json
import shutil

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from voxseg.cli.compare import compare as command
from voxseg.engine import pairs
from voxseg.engine.compare import CompareSettings, compare
from voxseg.engine.evaluate import Evaluation, evaluate, write_evaluation
from voxseg.engine.run_scores import read_runs
from voxseg.errors import DataError, UsageError
from voxseg.export.images import write_label_png
from voxseg.metrics.case import ClassScores

SHIFTS = {f"street{number}": 1 + number % 3 for number in range(8)}

app = typer.Typer()
app.command()(command)


@app.callback()
def root():
    """Keep ``compare`` a command of its own."""


def call(*words):
    result = CliRunner().invoke(app, ["compare", *map(str, words)], env={"COLUMNS": "100"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def runs(tmp_path, monkeypatch, photographs):
    """Two evaluations of eight photographs; the second one is off by fewer pixels."""
    made = []
    for name, shifts in (("base", SHIFTS), ("better", dict.fromkeys(SHIFTS, 1))):
        dataset = photographs.write_streets(tmp_path / name, shifts)
        monkeypatch.setattr(pairs, "find_cases", lambda *_, found=dataset, **__: found)
        evaluation = evaluate(tmp_path / name / "pred", tmp_path / name)
        write_evaluation(evaluation, tmp_path / "runs" / name)
        made.append(tmp_path / "runs" / name)
    return made


def test_iou_is_the_default_of_photographs(runs, validate):
    content = validate(call(*runs, "--json").stdout)
    assert content["metric"] == "iou"
    rows = {row["class"]: row for row in content["rows"]}
    assert list(rows) == ["road", "building", "person", "car", "all-class mean"]
    mean = rows["all-class mean"]
    assert mean["difference"] > 0
    scores = [json.loads((one / "metrics.json").read_text()) for one in runs]
    iou = [
        np.mean([row["iou"] for row in one["cases"] if row["iou"] is not None]) for one in scores
    ]
    assert (mean["mean_a"], mean["mean_b"]) == pytest.approx(tuple(iou))
    pooled = [f"{100 * one['pooled']['mean_iou']:.2f}%" for one in scores]
    assert f"{pooled[0]} base, {pooled[1]} better" in content["notes"][-1]
    assert validate(call(*runs, "--json", "--metric", "dice").stdout)["metric"] == "dice"


def test_tables_and_files(runs, tmp_path):
    result = call(*runs, "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert "IoU from base to better; higher is better" in result.stdout
    assert (tmp_path / "out" / "compare.png").stat().st_size > 0
    rows = csv.DictReader((tmp_path / "out" / "compare.csv").read_text().splitlines())
    assert [row["class"] for row in rows][-1] == "all-class mean"


def test_class_zero_is_compared(tmp_path):
    for name in ("a", "b"):
        for case in ("x", "y"):
            write_label_png(tmp_path / "true" / f"{case}.png", np.array([[0, 0, 1, 1]]))
            wrong = [[0, 1, 1, 1]] if name == "a" else [[0, 0, 0, 1]]
            write_label_png(tmp_path / name / f"{case}.png", np.array(wrong))
        named = evaluate(tmp_path / name, tmp_path / "true", names={0: "sky", 1: "road"})
        write_evaluation(named, tmp_path / "runs" / name)
    comparison = compare([tmp_path / "runs" / name for name in "ab"], CompareSettings())
    assert [(row.name, row.label) for row in comparison.rows] == [
        ("sky", 0), ("road", 1), ("all-class mean", None),
    ]  # fmt: skip


def test_json_of_a_run_has_the_same_scores_as_its_table(runs):
    (runs[0] / "metrics.csv").rename(runs[0] / "kept.csv")
    by_json, _ = read_runs(runs)
    assert by_json.metrics == ("dice", "iou", "prediction_pixels", "truth_pixels")
    (runs[0] / "kept.csv").rename(runs[0] / "metrics.csv")
    by_csv, _ = read_runs(runs)
    assert by_csv.metrics == by_json.metrics
    assert str(by_csv.scores) == str(by_json.scores)
    assert by_csv.is_images


def test_other_truths_are_told_by_their_pixels(runs):
    table = runs[1] / "metrics.csv"
    rows = list(csv.DictReader(table.read_text().splitlines()))
    rows[0]["truth_pixels"] = "7"
    with table.open("w") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (warning,) = compare(runs, CompareSettings(allow_missing=True)).warnings[:1]
    assert "numbers of true pixels of 1 case (street0)" in warning


def test_volumes_and_photographs_are_not_compared(runs, tmp_path):
    volume = ClassScores(0.5, 0.4, 1.0, 1.0, 0.9, 0.0, 1.0, 1.0)
    scores = {case: {0: volume, 7: volume} for case in SHIFTS}
    write_evaluation(Evaluation(scores, {}, {7: "road"}, 1.0), tmp_path / "volumes")
    with pytest.raises(DataError, match=r"scores photographs but .* volumes"):
        compare([runs[0], tmp_path / "volumes"], CompareSettings())


def test_a_metric_that_photographs_lack(runs, tmp_path):
    with pytest.raises(UsageError, match="no column hd95_mm; --metric can be dice, iou"):
        compare(runs, CompareSettings(metric="hd95_mm"))
    shutil.copytree(runs[0], tmp_path / "cut")
    (tmp_path / "cut" / "metrics.csv").write_text("case,class,label,dice\na,road,7\n")
    with pytest.raises(DataError, match="as many fields"):
        compare([runs[0], tmp_path / "cut"], CompareSettings())
