"""Training, prediction and cross-validation as a user calls them, with what goes wrong."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

TINY = (
    "--set", "train.patch_voxels=[16,16,16]", "--set", "train.steps_per_epoch=2",
    "--set", "supervoxels.size_mm=3", "--epochs", "1", "--device", "cpu",
)  # fmt: skip


@pytest.fixture
def data(tmp_path, rng):
    """Four small subjects with one bright ball each."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(4):
        label = np.zeros((18, 16, 14), np.uint8)
        label[5:12, 5:11, 4:10] = 1
        image = 40 + 60 * label + rng.normal(0, 5, label.shape)
        for array, name in ((image.astype(np.float32), ""), (label, "_seg")):
            path = folder / f"s{number}{name}.nii.gz"
            nib.save(nib.Nifti1Image(array, np.diag([1, 1, 1.5, 1.0])), path)
    return folder


def test_train_then_predict_then_evaluate(voxseg, data, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    trained = voxseg("train", data, "-o", run, *TINY, "--json")
    assert trained.code == 0
    assert trained.json["steps"] == 2
    assert "chosen from the data" in trained.err
    predicted = voxseg("predict", run, data / "s0.nii.gz", data / "s1.nii.gz", "-o", out, "--json")
    assert predicted.code == 0
    assert [c["case_id"] for c in predicted.json["cases"]] == ["s0", "s1"]
    assert "s0: needs about " in predicted.err
    assert "GB free" in predicted.err
    assert nib.load(out / "s0.nii.gz").shape == (18, 16, 14)
    scored = voxseg("evaluate", out, data, "--json")
    assert len(scored.json["cases"]) == 4


def test_crossval_prints_the_papers_kind_of_table(voxseg, data, tmp_path):
    run = tmp_path / "cv"
    outcome = voxseg("crossval", data, "-k", "2", "-o", run, *TINY, "--jobs", "2")
    assert outcome.code == 0
    for words in ("foreground mean", "all-class mean", "s3", "Empty masks", "fold 2 of 2: s"):
        assert words in outcome.out
    again = voxseg("crossval", data, "-k", "2", "-o", run, *TINY)
    assert again.code == 2
    assert "--resume" in again.err
    resumed = voxseg("crossval", data, "-k", "2", "-o", run, *TINY, "--resume", "--json")
    assert {row["case"] for row in resumed.json["cases"]} == {"s0", "s1", "s2", "s3"}


def test_crossval_with_seeds_prints_their_spread(voxseg, data, tmp_path):
    run = tmp_path / "cv"
    words = ("crossval", data, "-k", "2", "-o", run, *TINY, "--jobs", "0")
    assert "Dice over 2 seeds" in voxseg(*words, "--seeds", "2").out
    chosen = voxseg(*words, "--resume", "--postprocess")
    assert "seed 1: post-processing: nothing is chosen; 4 cases are too few" in chosen.out
    assert (run / "seed-1" / "postprocessing.json").is_file()
    assert (run / "seed-0" / "calibration.json").is_file()
    fewer = voxseg(*words, "--seeds", "1", "--resume")
    assert (fewer.code, "begun with 2 seeds" in fewer.err) == (2, True)
    assert voxseg("predict", run, data / "s0.nii.gz", "-o", tmp_path / "masks").code == 0
    manifest = json.loads((tmp_path / "masks" / "predict_manifest.json").read_text())
    assert len({network["sha256"] for network in manifest["networks"]}) == 4  # 2 seeds, 2 folds


@pytest.mark.slow
def test_the_number_of_workers_may_change_on_the_way(voxseg, data, tmp_path):
    run = tmp_path / "run"
    assert voxseg("train", data, "-o", run, *TINY, "--workers", "1").code == 0
    assert "workers = 1" in (run / "config.toml").read_text()
    assert voxseg("train", data, "-o", run, *TINY, "--resume", "--workers", "0").code == 0
    assert "workers = 0" in (run / "config.toml").read_text()


def test_a_number_of_workers_that_is_none_is_refused(voxseg, data, tmp_path):
    for command in ("train", "crossval"):
        outcome = voxseg(command, data, "-o", tmp_path / "run", "--workers", "-2")
        assert (outcome.code, "--workers" in outcome.err) == (2, True)
    outcome = voxseg("train", data, "-o", tmp_path / "run", "--set", "train.workers=-2")
    assert (outcome.code, "train.workers must be -1" in outcome.err) == (2, True)


def test_dry_run_prints_the_settings_and_writes_nothing(voxseg, data, tmp_path):
    outcome = voxseg("train", data, "-o", tmp_path / "run", *TINY, "--dry-run")
    assert outcome.code == 0
    assert "[train]" in outcome.out
    assert "steps_per_epoch = 2" in outcome.out
    assert not (tmp_path / "run").exists()
    found = voxseg("train", data, "-o", tmp_path / "run", *TINY, "--dry-run", "--json").json
    assert found["settings"]["train"]["steps_per_epoch"] == 2


def test_check_lists_cases_and_fails_on_errors(voxseg, data):
    good = voxseg("check", data)
    assert good.code == 0
    assert "0 errors" in good.out
    whole = (data / "s2.nii.gz").read_bytes()
    (data / "s2.nii.gz").write_bytes(whole[: len(whole) // 2])
    bad = voxseg("check", data, "--json")
    assert bad.code == 3
    assert any("s2.nii.gz" in str(f["path"]) for f in bad.json["findings"])


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--recipe", "ibsr-cpuu"), 2, "did you mean ibsr-cpu"),
        (("--set", "train.epoch=3"), 2, "did you mean epochs"),
        (("--set", "epochs"), 2, "SECTION.KEY=VALUE"),
        (("--config", "no-such.toml"), 2, "does not exist"),
        (("--split", "no-such.json"), 3, "no-such.json"),
        (("--init-from", "no-such.pt"), 3, "does not exist"),
        (("--device", "gpuu"), 2, "--device"),
        (("--set", "model.stages=9"), 2, "stages must be 1 to 4"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_train_rejects_in_one_sentence(voxseg, data, tmp_path, words, code, sentence):
    outcome = voxseg("train", data, "-o", tmp_path / "run", *TINY, *words)
    assert (outcome.code, sentence in outcome.err) == (code, True), outcome.err


def test_an_empty_folder_is_a_data_error(voxseg, tmp_path):
    (tmp_path / "empty").mkdir()
    for command in ("train", "crossval"):
        outcome = voxseg(command, tmp_path / "empty", "-o", tmp_path / command)
        assert outcome.code == 3
        assert "empty" in outcome.err
    assert voxseg("check", tmp_path / "empty").code == 3


def test_some_broken_inputs_end_predict_with_4(voxseg, data, tmp_path):
    run = tmp_path / "run"
    voxseg("train", data, "-o", run, *TINY)
    (data / "s9.nii.gz").write_bytes(b"nothing")
    inputs = (data / "s0.nii.gz", data / "s9.nii.gz")
    outcome = voxseg("predict", run, *inputs, "-o", tmp_path / "out")
    assert outcome.code == 4
    assert "s9.nii.gz" in outcome.err
    assert (tmp_path / "out" / "s0.nii.gz").is_file()
    alone = voxseg("predict", run, data / "s9.nii.gz", "-o", tmp_path / "out2")
    assert alone.code == 1


def test_recipes_and_doctor(voxseg):
    assert "ibsr-reduced8-v3-block" in voxseg("recipes").out
    assert "IBSR" in voxseg("recipes", "--json").json["recipes"]["ibsr-cpu"]
    findings = {f["what"]: f["state"] for f in voxseg("doctor", "--json").json["findings"]}
    assert findings["torch"]
    assert "torch" in voxseg("doctor").out
    assert json.dumps(findings)


def test_split_writes_folds_that_crossval_takes(voxseg, data, tmp_path):
    path = tmp_path / "split.json"
    outcome = voxseg("split", data, "-o", path, "--strata", "volume", "-k", "2")
    assert outcome.code == 0
    assert "held out" in outcome.out
    assert len(json.loads(path.read_text())["folds"]) == 2
    assert voxseg("split", data, "-o", path).code == 2
    found = voxseg("split", data, "-o", path, "--overwrite", "--leave-one-out", "--json").json
    assert found["folds"] == 4
    assert voxseg("split", data, "-o", tmp_path / "b.json", "--groups", "none.csv").code == 3
    words = ("crossval", data, "-o", tmp_path / "cv", *TINY)
    outcome = voxseg(*words, "--split", path, "--leave-one-out")
    assert outcome.code == 2
    assert "exclude each other" in outcome.err


def test_reproduce_runs_again_and_compares(voxseg, data, tmp_path):
    run = tmp_path / "run"
    assert voxseg("train", data, "-o", run, *TINY).code == 0
    outcome = voxseg("reproduce", run, "-o", tmp_path / "again", "--json")
    assert outcome.code == 0
    assert outcome.json["reproduced"] is True
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {"steps": 1000}))
    outcome = voxseg("reproduce", run, "-o", tmp_path / "third")
    assert outcome.code == 1
    assert "not reproduced: 1 of" in outcome.out
    assert voxseg("reproduce", tmp_path / "none", "-o", tmp_path / "x").code == 2


def test_deterministic_reaches_the_run(voxseg, data, tmp_path):
    run = tmp_path / "run"
    assert voxseg("train", data, "-o", run, *TINY, "--deterministic").code == 0
    assert "deterministic = true" in (run / "config.toml").read_text()
    assert not torch.are_deterministic_algorithms_enabled()
