"""Post-processing and calibration as a user meets them: crossval writes, predict applies."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from voxseg.data.cleaning import clean_label

TINY = (
    "--set", "train.patch_voxels=[16,16,16]", "--set", "train.steps_per_epoch=2",
    "--set", "supervoxels.size_mm=3", "--epochs", "1", "--device", "cpu", "--jobs", "0",
)  # fmt: skip


def write_data(folder):
    """Six small subjects with one bright ball each."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        label = np.zeros((14, 12, 11), np.uint8)
        label[4:10, 4:9, 3:8] = 1
        image = 40 + 60 * label + rng.normal(0, 5, label.shape)
        for array, name in ((image.astype(np.float32), ""), (label, "_seg")):
            path = folder / f"s{number}{name}.nii.gz"
            nib.save(nib.Nifti1Image(array, np.diag([1, 1, 1.5, 1.0])), path)
    return folder


def mask_of(path):
    return np.asarray(nib.load(path).dataobj)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Data and a finished cross-validation, as a place to copy from."""
    from typer.testing import CliRunner

    from voxseg.cli.main import app

    root = tmp_path_factory.mktemp("finished")
    data = write_data(root / "data")
    words = ["crossval", data, "-k", "2", "-o", root / "cv", *TINY]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return data, root / "cv", result.stdout


@pytest.fixture
def place(finished, tmp_path):
    """A copy of the finished cross-validation."""
    data, run, _ = finished
    shutil.copytree(run, tmp_path / "cv")
    return data, tmp_path / "cv"


@pytest.fixture
def chosen(place, voxseg):
    """A copy whose file says to keep the largest component of class 1."""
    data, run = place
    voxseg("crossval", data, "-k", "2", "-o", run, *TINY, "--resume", "--postprocess")
    path = run / "postprocessing.json"
    content = json.loads(path.read_text())
    content["classes"][1]["operations"] = ["largest_component"]
    path.write_text(json.dumps(content))
    return data, run


def test_crossval_measures_calibration(finished):
    _, run, said = finished
    assert "calibration near the foreground: ECE" in " ".join(said.split())
    document = json.loads((run / "calibration.json").read_text())
    assert sorted(document["cases"]) == [f"s{n}" for n in range(6)]
    parts = [json.loads((run / f"fold-{n}" / "calibration.json").read_text()) for n in (0, 1)]
    for name in ("near", "everywhere"):
        tops = [part["regions"][name]["top"] for part in (document, *parts)]
        total, *folds = (np.array(top["voxels"]) for top in tops)
        np.testing.assert_array_equal(total, sum(folds))
        # The share of right voxels is that of the masks: nothing was resampled.
        assert 0 < sum(tops[0]["correct"]) <= total.sum()
    assert total.sum() == 6 * 14 * 12 * 11
    right = sum(
        (mask_of(run / "predictions" / f"s{n}.nii.gz") == truth).sum()
        for n in range(6)
        for truth in [mask_of(run.parent / "data" / f"s{n}_seg.nii.gz")]
    )
    assert sum(document["regions"]["everywhere"]["top"]["correct"]) == right
    assert (run / "calibration.png").is_file()
    assert not (run / "postprocessing.json").exists()


def test_postprocess_works_on_a_finished_folder(place, voxseg):
    data, run = place
    before = (run / "metrics.csv").read_bytes()
    outcome = voxseg("crossval", data, "-k", "2", "-o", run, *TINY, "--resume", "--postprocess")
    assert outcome.code == 0
    assert "post-processing: " in outcome.out
    assert "metrics-postprocessed.csv" in outcome.out
    document = json.loads((run / "postprocessing.json").read_text())
    assert document["schema"] == "voxseg.postprocessing/1"
    assert document["num_cases"] == 6
    assert document["split_hash"] == json.loads((run / "split.json").read_text())["hash"]
    assert (run / "metrics.csv").read_bytes() == before
    head = before.decode().splitlines()[0]
    nested = (run / "metrics-postprocessed.csv").read_text().splitlines()
    assert (nested[0], len(nested)) == (head, 1 + 6 * 2)


def test_a_fold_that_is_repeated_takes_the_choice_with_it(chosen, voxseg):
    data, run = chosen
    (run / "fold-1" / "scores.json").unlink()
    outcome = voxseg("crossval", data, "-k", "2", "-o", run, *TINY, "--resume")
    assert outcome.code == 0
    assert not (run / "postprocessing.json").exists()
    assert not (run / "metrics-postprocessed.csv").exists()


def test_folds_of_an_earlier_version_have_no_calibration(place, voxseg):
    data, run = place
    (run / "fold-0" / "calibration.json").unlink()
    outcome = voxseg("crossval", data, "-k", "2", "-o", run, *TINY, "--resume")
    assert outcome.code == 0
    assert "an earlier version of voxseg finished some" in " ".join(outcome.out.split())


def test_predict_applies_the_choice_unless_told_not_to(chosen, voxseg, tmp_path):
    data, run = chosen
    image = data / "s0.nii.gz"
    said = voxseg("predict", run, image, "-o", tmp_path / "own", "--save-probabilities")
    raw = voxseg(
        "predict", run, image, "-o", tmp_path / "raw", "--no-postprocess", "--save-probabilities"
    )
    given = voxseg(
        "predict", run / "fold-0", image, "-o", tmp_path / "given",
        "--postprocess", run / "postprocessing.json",
    )  # fmt: skip
    assert [outcome.code for outcome in (said, raw, given)] == [0, 0, 0]
    line = "post-processing of the masks: class 1: keep the largest component"
    assert [line in outcome.out for outcome in (said, raw, given)] == [True, False, True]
    plain = mask_of(tmp_path / "raw" / "s0.nii.gz")
    cleaned = mask_of(tmp_path / "own" / "s0.nii.gz")
    assert (cleaned != plain).any()
    np.testing.assert_array_equal(cleaned, clean_label(plain, {1: ["largest_component"]}))
    maps = [mask_of(tmp_path / name / "s0_probability-1.nii.gz") for name in ("own", "raw")]
    np.testing.assert_array_equal(*maps)
    records = [
        json.loads((tmp_path / name / "predict.json").read_text())["cases"][0]
        for name in ("own", "raw")
    ]
    assert [record["postprocessing"] for record in records] == [line.split(": ", 1)[1], ""]
    for name, words in (("own", line.split(": ", 1)[1]), ("raw", "none")):
        assert voxseg("report", tmp_path / name, "--pictures", "0").code == 0
        page = (tmp_path / name / "report.html").read_text()
        assert f"<dt>Post-processing</dt><dd>{words}</dd>" in page.replace("\n", "").replace(
            "  ", ""
        )
    voxel = 1.5 / 1000
    for record, mask in zip(records, (cleaned, plain), strict=True):
        assert record["volumes"][0]["ml"] == pytest.approx((mask == 1).sum() * voxel)


def test_predict_rejects_in_one_sentence(chosen, voxseg, tmp_path):
    data, run = chosen
    words = ("predict", run, data / "s0.nii.gz", "-o", tmp_path / "out")
    path = run / "postprocessing.json"
    whole = path.read_text()
    both = voxseg(*words, "--postprocess", path, "--no-postprocess")
    assert (both.code, "exclude each other" in both.err) == (2, True)
    missing = voxseg(*words, "--postprocess", tmp_path / "none.json")
    assert (missing.code, "none.json" in missing.err) == (3, True)
    other = json.loads(whole)
    other["classes"].append({**other["classes"][1], "label": 9})
    (tmp_path / "other.json").write_text(json.dumps(other))
    labels = voxseg(*words, "--postprocess", tmp_path / "other.json")
    assert (labels.code, "chosen for the classes [0, 1, 9]" in labels.err) == (2, True)
    for damage in (whole[:40], whole.replace("largest_component", "shrink"), "[]"):
        path.write_text(damage)
        broken = voxseg(*words)
        assert broken.code == 3
        assert str(path) in broken.err
        assert "\n" not in broken.err.strip()
    assert voxseg(*words, "--no-postprocess").code == 0
