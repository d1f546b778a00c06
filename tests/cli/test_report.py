"""``voxseg report``, and ``--report`` of the commands whose work it shows."""

import json

import nibabel as nib
import numpy as np
import pytest

TINY = (
    "--set", "train.patch_voxels=[16,16,16]", "--set", "train.steps_per_epoch=2",
    "--set", "supervoxels.size_mm=3", "--epochs", "1", "--device", "cpu", "--jobs", "0",
)  # fmt: skip


@pytest.fixture
def finished_run(finish_run):
    """Fewer cases than elsewhere: these tests draw them."""
    return finish_run({"case0": 0, "case1": 1, "case2": 3})


@pytest.fixture
def places(finished_run, tmp_path):
    """Data, predictions, and a page that is not there yet."""
    return tmp_path / "data", finished_run / "predictions", tmp_path / "page.html"


def test_report_of_a_finished_cross_validation(voxseg, finished_run, read_page):
    outcome = voxseg("report", finished_run)
    assert outcome.code == 0
    assert "3 of 3 cases drawn" in outcome.out
    page = read_page(finished_run / "report.html")
    assert sum("Three planes" in image["alt"] for image in page.all("img")) == 3
    assert (finished_run / "report.html").stat().st_size < 5_000_000
    again = voxseg("report", finished_run)
    assert again.code == 2
    assert "--overwrite" in again.err
    fewer = voxseg("report", finished_run, "--overwrite", "--pictures", "0", "--json")
    assert fewer.json["cases"] == 3
    assert fewer.json["drawn"] == []
    assert isinstance(fewer.json["warnings"], list)
    assert "page: " in fewer.err


def test_evaluate_writes_the_page_that_report_makes_later(voxseg, places, tmp_path, read_page):
    data, predictions, page = places
    out = tmp_path / "scores"
    outcome = voxseg("evaluate", predictions, data, "-o", out, "--report", page)
    assert outcome.code == 0
    assert f"page: {page} (3 of 3 cases drawn" in outcome.out
    assert voxseg("report", out, "-o", tmp_path / "later.html").code == 0
    assert (tmp_path / "later.html").read_bytes() == page.read_bytes()
    found = read_page(page)
    assert "Evaluation: predictions" in found.words
    assert any("image; prediction filled, truth outlined; errors" in word for word in found.words)
    manifest = json.loads((out / "evaluate_manifest.json").read_text())
    assert set(manifest["files"]) == {f"case{n}" for n in range(3)}


def test_evaluate_draws_images_that_lie_apart(voxseg, places, tmp_path, read_page):
    data, predictions, page = places
    (tmp_path / "truth").mkdir()
    (tmp_path / "images").mkdir()
    for file in list(data.iterdir()):
        if file.name.endswith("_seg.nii.gz"):
            file.rename(tmp_path / "truth" / file.name.replace("_seg", ""))
        else:
            file.rename(tmp_path / "images" / file.name)
    words = ("evaluate", predictions, tmp_path / "truth", "--report", page)
    assert voxseg(*words).code == 0
    assert any("no image: masks on black" in word for word in read_page(page).words)
    images = ("--images", tmp_path / "images")
    assert voxseg(*words, *images, "--overwrite").code == 0
    assert not any("masks on black" in word for word in read_page(page).words)
    lonely = voxseg(*words[:3], *images)
    assert lonely.code == 2
    assert "--report" in lonely.err
    nowhere = voxseg(*words[:3], "--images", tmp_path / "nothing", "--report", page)
    assert nowhere.code == 3
    assert "nothing" in nowhere.err


def test_a_page_that_is_there_is_kept_before_any_work(voxseg, places, tmp_path):
    data, predictions, page = places
    page.write_text("mine")
    for words in (
        ("evaluate", predictions, data, "-o", tmp_path / "out"),
        ("crossval", data, "-o", tmp_path / "new"),
        ("predict", tmp_path, data, "-o", tmp_path / "out"),
    ):
        outcome = voxseg(*words, "--report", page)
        assert outcome.code == 2
        assert "page.html exists" in outcome.err
    assert page.read_text() == "mine"
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "new").exists()


def test_report_rejects_what_is_no_finished_run(voxseg, finished_run, tmp_path):
    (tmp_path / "empty").mkdir()
    for run, words in (
        (tmp_path / "nothing", "is no folder"),
        (tmp_path / "empty", "holds no finished run"),
    ):
        outcome = voxseg("report", run)
        assert outcome.code == 2
        assert words in outcome.err
    elsewhere = voxseg("report", finished_run, "--data", tmp_path / "cv/fold-0")
    assert elsewhere.code == 3
    manifest = finished_run / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "finished": False}))
    unfinished = voxseg("report", finished_run)
    assert unfinished.code == 3
    assert "--resume" in unfinished.err
    manifest.write_text(json.dumps({**content, "kind": "train"}))
    training = voxseg("report", finished_run)
    assert training.code == 2
    assert "training run" in training.err
    manifest.write_text(json.dumps(content))
    (finished_run / "metrics.json").write_text('{"cases": [{"case": "a"}]}')
    damaged = voxseg("report", finished_run)
    assert damaged.code == 3
    assert "metrics.json" in damaged.err
    assert not (finished_run / "report.html").exists()


@pytest.mark.slow
def test_crossval_and_predict_write_pages(voxseg, tmp_path, rng, read_page):
    data = tmp_path / "data"
    data.mkdir()
    for number in range(4):
        label = np.zeros((18, 16, 14), np.uint8)
        label[5:12, 5:11, 4:10] = 1
        image = 40 + 60 * label + rng.normal(0, 5, label.shape)
        for array, name in ((image.astype(np.float32), ""), (label, "_seg")):
            path = data / f"s{number}{name}.nii.gz"
            nib.save(nib.Nifti1Image(array, np.diag([1, 1, 1.5, 1.0])), path)
    run, out, page = tmp_path / "cv", tmp_path / "out", tmp_path / "page.html"
    outcome = voxseg("crossval", data, "-k", "2", "-o", run, *TINY, "--report", page)
    assert outcome.code == 0
    assert f"page: {page}" in outcome.out
    before = page.read_bytes()
    assert voxseg("report", run, "-o", tmp_path / "later.html").code == 0
    assert (tmp_path / "later.html").read_bytes() == before
    words = ("crossval", data, "-k", "2", "-o", run, *TINY, "--report", page, "--resume", "--json")
    assert len(voxseg(*words).json["cases"]) == 8
    assert "Folds" in read_page(page).words

    (data / "s9.nii.gz").write_bytes(b"no volume")
    words = ("predict", run, data, "-o", out, "--save-uncertainty", "--device", "cpu")
    assert voxseg(*words, "--report", page, "--overwrite").code == 4
    found = read_page(page)
    assert any(word.startswith("s9 failed: ") for word in found.words)
    assert "Uncertainty" in found.words
    listed = json.loads((out / "predict.json").read_text())
    ml = listed["cases"][0]["volumes"][0]
    interval = ml["uncertainty"]  # by the errors of the four cases that the folds held out
    assert (interval["interval"], interval["level"]) == ("conformal", 0.6)
    assert ml["low_ml"] is not None
    wanted = f"{ml['ml']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"
    assert found.row("s0", wanted)
    assert found.row("s9", "-")[2] == "failed"
    assert voxseg("report", out, "-o", tmp_path / "later.html", "--overwrite").code == 0
    assert (tmp_path / "later.html").read_bytes() == page.read_bytes()
    again = voxseg(*words, "--report", page, "--skip-existing")
    assert again.code == 4
    kept = read_page(page)
    assert any("masks were there before and kept" in word for word in kept.words)
    assert kept.row("s0", wanted)

    parts = tmp_path / "parts"
    for part in ("0", "1"):
        one = ("predict", run, data, "-o", parts, "--num-parts", "2", "--part-id", part)
        assert voxseg(*one, "--device", "cpu").code in (0, 4)  # the broken file is in one of them
    assert "4 of 5 cases drawn" in voxseg("report", parts).out
    assert voxseg(*one, "--part-id", "2").code == 2
