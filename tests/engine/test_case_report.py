"""The page about a finished run: its numbers, its order, and what it says of missing files."""

import csv
import gzip
import json
from dataclasses import replace

import numpy as np
import pytest

from voxseg.data.check_header import read_content
from voxseg.data.volume import read_label
from voxseg.engine import report_tables
from voxseg.engine.case_report import WORST, choose, rank, write_page
from voxseg.engine.evaluate import evaluate
from voxseg.engine.page import check_page
from voxseg.engine.report_commands import evaluation_source
from voxseg.engine.report_sources import read_source
from voxseg.errors import UsageError
from voxseg.export import report
from voxseg.export.nifti import plain_geometry, write_map, write_mask
from voxseg.export.report import ReportFigure, ReportSection


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Leave the drawing out: it has tests of its own, and the command line's draw all of it."""
    monkeypatch.setattr(report, "draw_case", lambda *_: b"\x89PNG")
    for name in ("box_plots", "agreement_plots", "cohort_strip"):
        monkeypatch.setattr(report_tables, name, lambda *_, **__: b"\x89PNG")


@pytest.fixture
def page_of(tmp_path, read_page):
    """Write and read the page of a run."""

    def write(run, **options):
        data = options.pop("data", None)
        source = read_source(run, data=data)
        source = replace(source, sections=options.pop("sections", source.sections))
        found = write_page(source, tmp_path / "page.html", **options)
        return found, read_page(found.path)

    return write


def warned(page, text):
    return [warning for warning in page.warnings if text in warning]


def test_numbers_are_those_of_metrics_csv(finished_run, page_of):
    _, page = page_of(finished_run)
    with (finished_run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    folds = json.loads((finished_run / "split.json").read_text())["folds"]
    for case in {row["case"] for row in rows}:
        one = {row["class"]: row for row in rows if row["case"] == case}
        dice = [float(one[name]["dice"]) for name in ("shell", "core")]
        fold = next(n for n, f in enumerate(folds) if case in f["val"])
        error = sum(abs(float(one[name]["volume_difference_ml"])) for name in ("shell", "core"))
        shown = page.row(case, str(fold))
        assert shown[2:5] == [*(f"{v:.3f}" for v in (np.mean(dice), *dice))]
        assert shown[-1] == f"{error:.2f}"
    core = [float(row["dice"]) for row in rows if row["class"] == "core"]
    low, middle, high = np.percentile(core, (25, 50, 75))
    summary = next(row for row in page.rows if row[0] == "core" and "±" in row[1])
    assert summary[1] == (
        f"{np.mean(core):.3f} ± {np.std(core, ddof=1):.3f}\n{middle:.3f} [{low:.3f}, {high:.3f}]"
    )
    last = f"{float(rows[-1]['dice']):.3f}"
    assert any(row[0] == rows[-1]["class"] and row[1] == last for row in page.rows)


def test_worst_case_is_first(finished_run, page_of):
    found, page = page_of(finished_run)
    worst_first = ["case4", "case3", "case2", "case1", "case0"]
    assert found.drawn == tuple(worst_first)
    assert [row[0] for row in page.rows if len(row) == 8 and row[0] in worst_first] == worst_first
    assert [link["href"] for link in page.all("a")] == [f"#case-{n}" for n in range(1, 6)]
    pictures = [image["alt"] for image in page.all("img") if "Three planes" in image["alt"]]
    assert [alt.split()[3].rstrip(".") for alt in pictures] == worst_first
    assert "errors, planes through the place of most error" in pictures[0]


def test_facts_and_folds_are_said(finished_run, page_of):
    _, page = page_of(finished_run)
    assert "Cross-validation: cv" in page.words
    assert "design V3" in page.words
    folds = json.loads((finished_run / "split.json").read_text())["folds"]
    assert page.row("1", str(len(folds[1]["val"])))[-2:] == ["41", "1.5"]
    assert page.row("case0", "case0.nii.gz")[2:6] == [
        "17 x 21 x 13", "1 x 1.5 x 2", "RAS", "mm",
    ]  # fmt: skip
    assert any("Empty masks:" in word for word in page.words)
    assert any('"kind": "crossval"' in word for word in page.words)


def test_choose_takes_the_worst_the_median_and_the_best():
    many = [f"c{n:02d}" for n in range(20)]
    assert choose(many, None) == (*many[:WORST], many[10], many[19])
    assert choose(many, 2) == (many[0], many[1], many[10], many[19])
    assert choose(many, 0) == ()
    assert choose(many[:9], None) == tuple(many[:9])


def test_the_page_says_how_many_are_drawn(finish_run, page_of):
    run = finish_run({f"c{n:02d}": n % 7 for n in range(13)})
    found, page = page_of(run)
    assert len(found.drawn) == WORST + 2
    assert any("8 of 13 cases" in word for word in page.words)
    assert len(page.all("a")) == WORST + 2


def test_without_pictures_no_image_leaves_the_place(finished_run, page_of):
    found, page = page_of(finished_run, pictures=0)
    assert found.drawn == ()
    assert not [image for image in page.all("img") if "Three planes" in image["alt"]]
    assert "pass it on" not in page.text


def test_sections_of_others_come_before_the_files(finished_run, page_of):
    section = ReportSection("Calibration", figures=(ReportFigure(b"\x89PNG", "Reliability"),))
    _, page = page_of(finished_run, sections=(section,))
    words = page.words
    assert words.index("Pictures") < words.index("Calibration") < words.index("Files")


def test_a_case_called_like_a_tag_breaks_nothing(finish_run, page_of):
    found, page = page_of(finish_run({'<b>x&"': 3, "$y_{": 1, "c": 0}))
    assert found.drawn == ('<b>x&"', "$y_{", "c")
    assert '<b>x&"' in page.words
    assert "<b>x" not in page.text
    assert page.all("a")[0]["href"] == "#case-1"


def test_missing_images_are_said_and_masks_drawn(finished_run, page_of, tmp_path):
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    found, page = page_of(finished_run)
    assert warned(found, "the images of the run are not drawn")
    assert warned(found, "without the image")
    assert warned(found, "without the truth")
    assert any("no image: masks on black" in word for word in page.words)
    again, page = page_of(finished_run, data=tmp_path / "elsewhere")
    assert not warned(again, "not found")
    assert not any("masks on black" in word for word in page.words)


def test_missing_and_broken_predictions_are_said(finished_run, page_of):
    predictions = finished_run / "predictions"
    (predictions / "case1.nii.gz").unlink()
    whole = (predictions / "case2.nii.gz").read_bytes()
    (predictions / "case2.nii.gz").write_bytes(whole[: len(whole) // 2])
    other = plain_geometry(np.eye(4), (3, 4, 5))
    write_mask(predictions / "case3.nii.gz", np.ones((3, 4, 5), np.uint8), other)
    found, page = page_of(finished_run)
    (warning,) = warned(found, "without the prediction")
    assert warning.startswith("pictures without the prediction, which was not found: case1; ")
    text = " ".join(page.words)
    assert "the prediction is not drawn" in text  # damaged
    assert "the truth is not drawn" in text  # it does not lie on the mask's grid
    assert page.row("case1", "case1.nii.gz")


def test_nothing_at_all_to_draw_is_said(finished_run, page_of, tmp_path):
    for folder in (finished_run / "predictions", tmp_path / "data"):
        for file in folder.iterdir():
            file.unlink()
    found, page = page_of(finished_run)
    assert len(found.drawn) == 5
    assert sum("No picture: " in word for word in page.words) == 5


def test_an_image_that_has_changed_is_said(finished_run, page_of, tmp_path):
    assert not warned(page_of(finished_run)[0], "changed")
    image = read_label(tmp_path / "data/case1_seg.nii.gz")
    geometry = plain_geometry(image.affine, image.shape)
    write_map(tmp_path / "data/case1.nii.gz", image.array * 2.5, geometry)
    (warning,) = warned(page_of(finished_run)[0], "changed")
    assert warning.startswith("the image of case1, case1.nii.gz, has changed since the run")


def test_cases_without_a_score_come_last(finished_run):
    evaluation = read_source(finished_run).evaluation
    absent = {
        label: type(one)(*(float("nan"),) * 5, 0.0, 0.0, 0.0)
        for label, one in evaluation.scores["case4"].items()
    }
    scores = {**evaluation.scores, "case4": absent}
    ranked = rank(type(evaluation)(scores, {}, evaluation.class_names, 1.0))
    assert ranked == ["case3", "case2", "case1", "case0", "case4"]


@pytest.fixture
def drawn(monkeypatch):
    """The cases that would be drawn."""
    cases = []
    monkeypatch.setattr(report, "draw_case", lambda case, _: cases.append(case) or b"\x89PNG")
    return cases


def test_classes_that_were_not_scored_are_not_drawn(finished_run, tmp_path, drawn):
    predictions, data = finished_run / "predictions", tmp_path / "data"
    scored = evaluate(predictions, data, labels=[2])
    write_page(evaluation_source(scored, predictions, data), tmp_path / "page.html")
    assert {tuple(np.unique(one.prediction)) for one in drawn} == {(0, 2)}
    assert {tuple(np.unique(one.truth)) for one in drawn} == {(0, 2)}


def test_pictures_are_in_mm_whatever_the_unit(finish_run, tmp_path, drawn):
    run = finish_run({"case0": 1, "case1": 0})
    for folder in (run / "predictions", tmp_path / "data"):
        for file in folder.glob("*.nii.gz"):
            header, content = read_content(file)
            header.fields["xyzt_units"] = 3  # micron
            file.write_bytes(gzip.compress(bytes(content)))
    write_page(read_source(run), tmp_path / "page.html")
    assert len(drawn) == 2
    for one in drawn:
        np.testing.assert_allclose(np.diag(one.affine), [0.001, 0.0015, 0.002, 1])


def test_check_page_keeps_what_is_there(tmp_path):
    page = tmp_path / "page.html"
    check_page(page, overwrite=False)
    page.write_text("mine")
    with pytest.raises(UsageError, match="--overwrite"):
        check_page(page, overwrite=False)
    check_page(page, overwrite=True)
    with pytest.raises(UsageError, match="is a folder"):
        check_page(tmp_path, overwrite=True)
