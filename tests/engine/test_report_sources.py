"""Reading back what runs left, whole or in part."""

import json
import shutil

import numpy as np
import pytest

from voxseg.engine import report_tables
from voxseg.engine.case_report import MOST_PREDICTED, write_page
from voxseg.engine.evaluate import evaluate, write_evaluation
from voxseg.engine.inputs import Inputs
from voxseg.engine.report_commands import evaluation_source, prediction_source
from voxseg.engine.report_sources import EVALUATE_MANIFEST, PREDICT_MANIFEST, read_source
from voxseg.errors import DataError, UsageError
from voxseg.export import report
from voxseg.export.label_table import write_label_table
from voxseg.export.labels import plain_table
from voxseg.files import write_text


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(report, "draw_case", lambda *_: b"\x89PNG")
    for name in ("box_plots", "agreement_plots", "cohort_strip"):
        monkeypatch.setattr(report_tables, name, lambda *_, **__: b"\x89PNG")


def predicted(folder, sizes):
    """What ``predict`` leaves: masks of the finished run, and rows with these volumes."""
    out = folder / "out"
    rows = []
    for case, ml in sizes.items():
        source = folder / "cv" / "predictions" / f"{case}.nii.gz"
        target = out / f"{case}.nii.gz"
        out.mkdir(exist_ok=True)
        if source.is_file():
            shutil.copy(source, target)
        volume = {"label": 2, "name": "core", "ml": ml, "low_ml": None, "high_ml": None}
        row = {"case_id": case, "output": str(target), "seconds": 1.5, "error": ""}
        rows.append({**row, "memory": "whole", "volumes": [volume]})
    write_text(out / "predict.json", json.dumps(rows))
    write_label_table(out, plain_table({1: "shell", 2: "core"}))
    return out


def test_scores_read_back_are_those_that_were_written(finished_run, tmp_path):
    data, out = tmp_path / "data", tmp_path / "scores"
    before = evaluate(finished_run / "predictions", data, names={1: "shell"})
    write_evaluation(before, out)
    direct = evaluation_source(before, finished_run / "predictions", data, folder=out)
    after = read_source(out)
    assert after == direct
    assert after.evaluation.scores == before.scores
    assert after.evaluation.class_names == {0: "background", 1: "shell", 2: "class 2"}
    assert after.files["case1"].roles == {
        "image": data / "case1.nii.gz",
        "prediction": finished_run / "predictions/case1.nii.gz",
        "truth": data / "case1_seg.nii.gz",
    }
    assert set(after.files["case1"].hashes) == {"image", "prediction", "truth"}


def test_an_evaluation_beside_a_run_leaves_its_manifest_alone(finished_run, tmp_path):
    manifest = (finished_run / "manifest.json").read_bytes()
    scored = evaluate(finished_run, tmp_path / "data")
    evaluation_source(scored, finished_run, tmp_path / "data", folder=finished_run)
    assert (finished_run / "manifest.json").read_bytes() == manifest
    assert (finished_run / EVALUATE_MANIFEST).is_file()
    assert read_source(finished_run).kind == "crossval"


def test_of_several_seeds_the_first_is_drawn(finished_run):
    manifest = json.loads((finished_run / "manifest.json").read_text())
    write_text(finished_run / "manifest.json", json.dumps({**manifest, "seeds": [7, 8]}))
    (finished_run / "seed-7").mkdir()
    for name in ("predictions", "fold-0", "fold-1"):
        (finished_run / name).rename(finished_run / "seed-7" / name)
    source = read_source(finished_run)
    assert source.notes[0].startswith("scores are means over 2 seeds")
    assert source.files["case1"].prediction.is_file()
    assert [fold.steps for fold in source.folds] == [40, 41]


def test_scores_without_a_manifest_still_make_a_page(finished_run, tmp_path, read_page):
    (tmp_path / "old").mkdir()
    shutil.copy(finished_run / "metrics.json", tmp_path / "old")
    page = write_page(read_source(tmp_path / "old"), tmp_path / "page.html")
    assert any("does not say where its masks lie" in text for text in page.warnings)
    assert len([w for w in read_page(page.path).words if w.startswith("No picture:")]) == 5


def test_label_maps_alone_are_no_images(finished_run, tmp_path):
    truths = tmp_path / "truths"
    truths.mkdir()
    for file in (tmp_path / "data").glob("*_seg.nii.gz"):
        shutil.copy(file, truths / file.name.replace("_seg", ""))
    predictions = finished_run / "predictions"
    source = evaluation_source(evaluate(predictions, truths), predictions, truths)
    assert not any(one.images for one in source.files.values())
    assert all(one.truth for one in source.files.values())


def test_one_image_goes_with_one_mask_whatever_it_is_called(finished_run, tmp_path):
    mask, truth = finished_run / "predictions/case1.nii.gz", tmp_path / "data/case1_seg.nii.gz"
    image = tmp_path / "data/case2.nii.gz"
    source = evaluation_source(evaluate(mask, truth), mask, truth, images=image)
    assert source.files["case1"].images == (image,)


def test_predictions_without_a_manifest(finished_run, tmp_path, read_page):
    out = predicted(tmp_path, {f"case{n}": 1.0 + n / 10 for n in range(5)} | {"odd": 50.0})
    source = read_source(out)
    assert source.kind == "predict"
    page = write_page(source, tmp_path / "page.html")
    assert page.drawn[0] == "odd"
    assert any(
        text.startswith("odd has 50 ml of core (others: 1 to 1.4)") for text in page.warnings
    )
    assert any("does not say where its images lie" in text for text in page.warnings)
    read = read_page(page.path)
    assert read.row("odd", "50.0")[2] == "odd volume"
    assert any("No picture: none of its files could be read." in word for word in read.words)
    images = write_page(read_source(out, data=tmp_path / "data"), tmp_path / "page.html")
    assert not any("does not say where" in text for text in images.warnings)


def test_only_so_many_predictions_are_drawn(finished_run, tmp_path, read_page):
    out = predicted(tmp_path, {f"c{n:02d}": 1.0 for n in range(MOST_PREDICTED + 3)})
    page = write_page(read_source(out), tmp_path / "page.html")
    assert len(page.drawn) == MOST_PREDICTED
    said = f"{MOST_PREDICTED} of {MOST_PREDICTED + 3} predicted cases"
    assert any(said in word for word in read_page(page.path).words)


def test_masks_that_were_kept_are_measured(finished_run, tmp_path, read_page):
    out = predicted(tmp_path, {"case0": 1.0})
    row = {"case_id": "case0", "output": str(out / "case0.nii.gz"), "seconds": 0, "error": ""}
    write_text(out / "predict.json", json.dumps([{**row, "memory": "kept as it was"}]))
    read = read_page(write_page(read_source(out), tmp_path / "page.html").path)
    core = 4 * 6 * 3 * 1.0 * 1.5 * 2.0 / 1000
    shell = 11 * 12 * 9 * 1.0 * 1.5 * 2.0 / 1000 - core
    assert read.row("case0", f"{shell:.2f}", f"{core:.2f}")


def test_predict_keeps_a_manifest_in_a_folder_only(finished_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "masks"
    out.mkdir()
    checkpoint = tmp_path / "run/checkpoints/best.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"weights")
    write_text(tmp_path / "run/manifest.json", '{"git_commit": "abc", "data": {}}')
    rest = {
        "checkpoint": tmp_path / "run",
        "inputs": Inputs(places=(tmp_path / "data",)),
        "device": "cpu",
        "options": {"tta": True},
    }
    source = prediction_source([], output=out, **rest)
    stored = json.loads((out / PREDICT_MANIFEST).read_text())
    assert stored == source.manifest
    (network,) = stored["networks"]
    assert network["path"] == str(checkpoint)
    assert len(network["sha256"]) == 64
    assert network["git_commit"] == "abc"
    assert "data" not in network
    assert stored["device"]["type"] == "cpu"
    prediction_source([], output=tmp_path / "one.nii.gz", **rest)
    assert not (tmp_path / PREDICT_MANIFEST).exists()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("predict.json", '{"a": 1}', "lists no predicted cases"),
        ("predict.json", "[", "not valid JSON"),
        ("metrics.json", '{"cases": []}', "holds no scores"),
        ("metrics.json", "[1]", "holds no scores"),
        ("manifest.json", "[1]", "is no manifest"),
        ("predict.json", '{"schema": "voxseg.predict/2"}', "newer voxseg"),
        ("metrics.json", '{"schema": "voxseg.metrics/2"}', "newer voxseg"),
        ("manifest.json", '{"schema": "voxseg.manifest/2"}', "newer voxseg"),
        (EVALUATE_MANIFEST, '{"schema": "voxseg.evaluate-manifest/2"}', "no metrics.json"),
    ],
)
def test_read_source_rejects_damage(tmp_path, name, text, words):
    write_text(tmp_path / "run" / name, text)
    with pytest.raises(DataError, match=words):
        read_source(tmp_path / "run")


def test_read_source_rejects_other_data(finished_run, tmp_path):
    with pytest.raises(UsageError, match="is no folder"):
        read_source(finished_run / "metrics.json")
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(tmp_path / "data/case0.nii.gz", other / "stranger.nii.gz")
    with pytest.raises(DataError, match="no case of the run"):
        read_source(finished_run, data=other)
    shutil.copy(tmp_path / "data/case1.nii.gz", other / "case1.nii.gz")
    moved = read_source(finished_run, data=other)
    assert moved.files["case1"].images == (other / "case1.nii.gz",)
    assert moved.files["case0"].images == (tmp_path / "data/case0.nii.gz",)
    np.testing.assert_equal(moved.evaluation.scores, read_source(finished_run).evaluation.scores)
