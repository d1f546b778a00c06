"""``voxseg check`` as a user calls it."""

import nibabel as nib
import numpy as np
import pytest


@pytest.fixture
def data(tmp_path, rng):
    """Two small subjects; the label of the second is in floating point."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(2):
        label = np.zeros((9, 8, 7), np.float32 if number else np.uint8)
        label[2 : 6 + number, 2:6, 2:5] = 1
        image = (40 + 60 * label + rng.normal(0, 5, label.shape)).astype(np.float32)
        for array, name in ((image, ""), (label, "_seg")):
            nifti = nib.Nifti1Image(array, np.diag([1, 1, 1.5, 1.0]))
            nib.save(nifti, folder / f"s{number}{name}.nii.gz")
    return folder


def test_table(voxseg, data):
    outcome = voxseg("check", data)
    assert outcome.code == 0
    for words in (
        "s1_seg.nii.gz", "9x8x7", "1x1x1.5", "RAS", "right", "float32", "ok", "Class volumes",
        "intensities: ", "note: label ", "0 errors, 0 warnings",
    ):  # fmt: skip
        assert words in outcome.out, words


def test_json_has_a_schema(voxseg, data):
    document = voxseg("check", data, "--json").json
    assert (document["schema"], document["errors"], document["fix"]) == ("voxseg.check/1", 0, None)
    assert [pair["status"] for pair in document["pairs"]] == ["ok", "ok"]
    first = document["pairs"][0]["images"][0]
    assert (first["orientation"], first["spacing_mm"]) == ("RAS", [1, 1, 1.5])
    assert document["findings"][0]["kind"] == "float-label"
    assert document["findings"][0]["fix"] == "safe"
    assert document["cases"][0]["label_ml"]["1"] == pytest.approx(48 * 1.5 / 1000)
    assert document["fingerprint"]["label_ml"]["1"][2] == pytest.approx(60 * 1.5 / 1000)


def test_page(voxseg, data, tmp_path):
    outcome = voxseg("check", data, "--report", tmp_path / "page.html")
    assert outcome.code == 0
    assert "page: " in outcome.out
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Can be trained on." in page
    assert "Voxel sizes" in page


def test_fix_mends_and_says_so(voxseg, data, tmp_path):
    outcome = voxseg("check", data, "--fix", tmp_path / "out")
    assert outcome.code == 0
    for words in ("copied", "fixed", "from float32 to uint8", "checked again: 0 errors"):
        assert words in outcome.out, words
    again = voxseg("check", tmp_path / "out", "--json")
    assert (again.code, again.json["findings"]) == (0, [])
    refused = voxseg("check", data, "--fix", tmp_path / "out")
    assert (refused.code, "--overwrite" in refused.err) == (2, True)
    assert voxseg("check", data, "--fix", tmp_path / "out", "--overwrite", "--json").code == 0


def test_fix_leaves_out_what_cannot_be_mended(voxseg, data, tmp_path):
    (data / "s0.nii.gz").write_bytes(b"\x89PNG" + bytes(400))
    outcome = voxseg("check", data, "--fix", tmp_path / "out", "--json")
    assert outcome.code == 3
    assert [case["outcome"] for case in outcome.json["fix"]["cases"]] == ["left out", "fixed"]
    assert outcome.json["fix"]["errors"] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "fixes.json", "s1.nii.gz", "s1_seg.nii.gz",
    ]  # fmt: skip


def test_a_missing_label_is_an_error_beside_the_table(voxseg, data):
    (data / "s0_seg.nii.gz").unlink()
    outcome = voxseg("check", data)
    assert outcome.code == 3
    for words in ("no label", "1 image of 2 without label", "1 errors", "s1_seg.nii.gz"):
        assert words in outcome.out, words


def test_options_that_belong_to_fix(voxseg, data):
    for words in (("--fix-nan", "0"), ("--overwrite",)):
        outcome = voxseg("check", data, *words)
        assert (outcome.code, "--fix OUT" in outcome.err) == (2, True)


@pytest.mark.parametrize("command", ["train", "crossval"])
def test_training_stops_with_the_same_words_before_a_voxel_is_read(
    voxseg, data, tmp_path, command, monkeypatch
):
    nib.save(nib.Nifti1Image(np.ones((9, 8, 6), np.uint8), np.eye(4)), data / "s0_seg.nii.gz")
    sentence = voxseg("check", data, "--json").json["findings"][0]["cause"]
    monkeypatch.setattr("voxseg.engine.train.check_dataset", None)
    outcome = voxseg(command, data, "-o", tmp_path / "run")
    assert outcome.code == 3
    assert outcome.err.startswith(sentence)


def test_real_hippocampus(voxseg, real_data, tmp_path):
    words = ("--report", tmp_path / "page.html", "--fix", tmp_path / "out", "--json")
    outcome = voxseg("check", real_data / "msd_hippocampus", *words)
    assert outcome.code == 0
    document = outcome.json
    assert len(document["pairs"]) == len(document["fix"]["cases"]) == 60
    assert document["fix"]["errors"] == document["errors"] == 0
    assert {pair["images"][0]["dtype"] for pair in document["pairs"]} >= {"float32", "uint8"}
    assert {finding["kind"] for finding in document["findings"]} == {"intensity-outlier"}
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "1 \u00d7 1 \u00d7 1 in all cases" in page
