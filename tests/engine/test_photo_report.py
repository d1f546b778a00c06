"""Pages about photographs: pooled scores first, no mm or ml, worst cases by IoU."""

import base64
import json
import re

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from voxseg.cli.evaluate import evaluate as command
from voxseg.cli.report import report
from voxseg.data.splits import kfold, write_split
from voxseg.engine import pairs, report_commands, report_sources
from voxseg.engine.case_report import rank, write_page
from voxseg.engine.evaluate import evaluate, write_evaluation
from voxseg.engine.manifest import write_manifest
from voxseg.engine.report_sources import CaseFiles, ReportSource, read_source
from voxseg.export.images import write_label_png
from voxseg.metrics import foreground_means

SHIFTS = {"good": 0, "bad": 9, "fair": 2, "poor": 5}

app = typer.Typer()
app.command("evaluate")(command)
app.command("report")(report)


def call(*words):
    result = CliRunner().invoke(app, [*map(str, words)], env={"COLUMNS": "100"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def streets(tmp_path, monkeypatch, photographs):
    dataset = photographs.write_streets(tmp_path, SHIFTS)
    for module in (pairs, report_commands):
        monkeypatch.setattr(module, "find_cases", lambda *_, **__: dataset)
    return dataset


def test_page_of_an_evaluation(streets, tmp_path, read_page):
    out, path = tmp_path / "out", tmp_path / "page.html"
    result = call("evaluate", tmp_path / "pred", tmp_path, "-o", out, "--report", path)
    assert result.exit_code == 0
    page = read_page(path)
    heads = [word for word in page.words if word in ("All pixels together", "Scores over 4 cases")]
    assert heads == ["All pixels together", "Scores over 4 cases"]
    pooled = json.loads((out / "metrics.json").read_text())["pooled"]
    car = next(one for one in pooled["classes"] if one["name"] == "car")
    row = page.row("car", "vehicle")
    assert row[2:5] == [f"{100 * car[key]:.2f}" for key in ("iou", "accuracy", "iiou")]
    assert page.row("vehicle")[1] == f"{100 * pooled['categories'][3]['iou']:.2f}"
    order = [row[0] for row in page.rows if row and row[0] in SHIFTS]
    assert order[:4] == ["bad", "poor", "fair", "good"]
    iou = foreground_means(evaluate(tmp_path / "pred", tmp_path).scores, "iou", background=None)
    assert f"mean IoU {iou['bad']:.3f}, number 1 of 4 from the worst" in page.words
    text = re.sub(r"base64,[^\"]*", "", page.text)
    for word in (" mm", " ml", "HD95", "Radiological", "Three planes", "surface"):
        assert word not in text
    assert "does not count" in page.words
    assert f"background: #{128:02x}{64:02x}{128:02x}" in page.text  # the road as it is painted
    assert len(page.all("img")) == 4 + 1  # every case, and the box plots


def test_page_is_made_again_from_its_folder(streets, tmp_path, read_page):
    call("evaluate", tmp_path / "pred", tmp_path, "-o", tmp_path / "out")
    assert call("report", tmp_path / "out").exit_code == 0
    source = read_source(tmp_path / "out")
    direct = evaluate(tmp_path / "pred", tmp_path)
    assert str(source.evaluation.pooled) == str(direct.pooled)
    assert source.evaluation.is_images
    assert source.evaluation.notes == direct.notes
    assert rank(source.evaluation) == ["bad", "poor", "fair", "good"]
    assert read_page(tmp_path / "out" / "report.html").row("car", "vehicle")


def test_missing_and_broken_pictures_are_said(streets, tmp_path, read_page):
    call("evaluate", tmp_path / "pred", tmp_path, "-o", tmp_path / "out")
    (tmp_path / "image" / "bad.png").unlink()
    (tmp_path / "pred" / "poor.png").write_bytes(b"no picture")
    write_label_png(tmp_path / "truth" / "fair.png", np.zeros((3, 4), int))
    call("report", tmp_path / "out")
    page = read_page(tmp_path / "out" / "report.html")
    text = " ".join(page.words)
    assert "pictures without the image, which was not found: bad" in text
    assert "The prediction is not drawn" in text
    assert "fair.png has another size" in text
    assert "has changed since the run" in text


def test_page_of_a_cross_validation(streets, tmp_path, monkeypatch, read_page):
    monkeypatch.setattr(report_sources, "find_cases", lambda *_, **__: streets)
    run = tmp_path / "cv"
    (tmp_path / "pred").rename(tmp_path / "moved")
    run.mkdir()
    (tmp_path / "moved").rename(run / "predictions")
    write_evaluation(evaluate(run, tmp_path), run)
    write_split(run / "split.json", kfold(tuple(sorted(SHIFTS)), 2, seed=0))
    facts = {"kind": "crossval", "data_folder": str(tmp_path), "label_folder": None, "data": {}}
    write_manifest(run / "manifest.json", {**facts, "finished": True})
    page = read_page(write_page(read_source(run), tmp_path / "page.html").path)
    assert any("mean IoU" in row for row in page.rows if row[:2] == ["fold", "cases"])
    assert not [word for word in page.words if "not found" in word]


def test_page_of_predictions(tmp_path, photographs, read_page):
    photographs.write_streets(tmp_path, {"a": 0, "b": 1})
    files = {
        case: CaseFiles((tmp_path / "image" / f"{case}.png",), tmp_path / "pred" / f"{case}.png")
        for case in ("a", "b")
    }
    rows = ({"case_id": "a", "error": ""}, {"case_id": "b", "error": "out of memory"})
    names = {7: "road", 11: "building", 24: "person", 26: "car", 3: "void"}
    source = ReportSource("predict", "out", {}, files, outcomes=rows, label_names=names)
    written = write_page(source, tmp_path / "page.html")
    page = read_page(written.path)
    assert written.drawn == ("a",)
    assert "b failed: out of memory" in page.words
    truth, _ = photographs.street(0)
    share = f"{100 * (truth == 26).mean():.2f}"
    assert any(share in row for row in page.rows if row[0] == "a")
    assert "Errors" not in page.words
    png = base64.b64decode(page.all("img")[0]["src"].partition(",")[2])
    assert png.startswith(b"\x89PNG")
