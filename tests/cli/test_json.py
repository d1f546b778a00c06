"""Every document of a whole work flow, file or ``--json``, held against its schema."""

import nibabel as nib
import numpy as np
import pytest

from voxseg import schemas
from voxseg.schemas import read_schema, schema_names

pytestmark = pytest.mark.slow  # a whole work flow, once for all tests of this file

TINY = (
    "--set", "train.patch_voxels=[16,16,16]", "--set", "train.steps_per_epoch=1",
    "--set", "supervoxels.size_mm=3", "--epochs", "1", "--device", "cpu",
)  # fmt: skip
# Their documents are tested in tests/bench, test_demo.py, test_data.py, test_dicom.py,
# test_tasks.py and engine/test_pooled.py, those of exported networks in
# engine/test_export_models.py.
ELSEWHERE = {
    "bench", "confusion", "convert", "demo", "demo-settings", "exported", "gpu", "ibsr-plan",
    "ibsr-tables", "network", "series", "task-metrics",
}  # fmt: skip


def write_case(folder, name, seed, value=1):
    folder.mkdir(exist_ok=True)
    label = np.zeros((18, 16, 14), np.uint8)
    label[5:12, 5:11, 4:10] = 1
    label[6:9, 6:9, 5:8] = value
    image = 40 + 60 * label + np.random.default_rng(seed).normal(0, 5, label.shape)
    for array, ending in ((image.astype(np.float32), ""), (label, "_seg")):
        path = folder / f"{name}{ending}.nii.gz"
        nib.save(nib.Nifti1Image(array, np.diag([1, 1, 1.5, 1.0])), path)


@pytest.fixture(scope="module")
def documents(voxseg, forms, tmp_path_factory):
    """What the commands printed and wrote: where -> content."""
    here = tmp_path_factory.mktemp("json")
    data, run, cv = here / "data", here / "run", here / "cv"
    for number in range(4):
        write_case(data, f"s{number}", number, value=2 if number % 2 else 1)
    found = {}

    def call(code, *words):
        outcome = voxseg(*words, "--json")
        assert outcome.code == code, outcome.err
        found[f"stdout of {' '.join(map(str, words[:2]))} {len(found)}"] = forms.parse(outcome.out)

    call(0, "train", data, "-o", run, *TINY, "--dry-run")
    call(0, "train", data, "-o", run, *TINY)
    call(0, "train", data, "-o", here / "all", *TINY, "--val-fraction", "0")
    cross = ("crossval", data, "-k", "2", "-o", cv, *TINY, "--set", "train.validate_every=1")
    call(0, *cross, "--jobs", "0", "--seeds", "2", "--postprocess")
    call(0, *cross, "--jobs", "1", "--resume")  # writes folds.json
    call(0, "report", cv, "--pictures", "0")
    call(0, "compare", cv / "seed-0", cv / "seed-1", "-o", here / "compared")
    call(0, "reproduce", run, "-o", here / "again")
    (data / "broken.nii.gz").write_bytes(b"nothing")
    call(4, "predict", cv, data / "s0.nii.gz", data / "broken.nii.gz", "-o", here / "masks")
    call(0, "predict", run, data / "s1.nii.gz", "-o", here / "mask.nii.gz")
    (data / "broken.nii.gz").unlink()
    (here / "masks" / "s1.nii.gz").write_bytes(b"nothing")
    (here / "masks" / "stranger.nii.gz").write_bytes((data / "s0.nii.gz").read_bytes())
    call(4, "evaluate", here / "masks", data, "-o", here / "scores")
    call(0, "split", data, "-o", here / "split.json", "-k", "2")
    call(0, "supervoxels", data, "-o", here / "maps", "--size-mm", "4", "--sweep")
    call(0, "supervoxels", data / "s0.nii.gz", "-o", here / "map.nii.gz", "--size-mm", "4")
    call(0, "check", data)
    bad = here / "bad"
    for number in range(3):
        write_case(bad, f"s{number}", number)
    label = nib.load(bad / "s0_seg.nii.gz")
    nib.save(nib.Nifti1Image(label.get_fdata(), label.affine), bad / "s0_seg.nii.gz")
    (bad / "s1.nii.gz").write_bytes(b"nothing")
    call(3, "check", bad, "--fix", here / "fixed")
    for command in ("models", "recipes", "doctor", "schemas", "cache"):
        call(0, command)
    call(0, "cache", "--clear", "--kind", "supervoxels")
    for path in sorted(here.rglob("*.json")):
        found[str(path.relative_to(here))] = forms.parse(path.read_text(encoding="utf-8"))
    for path in sorted(here.rglob("log.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
            found[f"{path.relative_to(here)}:{number}"] = forms.parse(line)
    return found


def test_every_form_was_written(documents):
    written = {content["schema"] for content in documents.values()}
    expected = {read_schema(name)["$id"] for name in schema_names() if name not in ELSEWHERE}
    assert written == expected


def test_every_document_fits_and_has_no_other_field(documents, validate):
    for where, content in documents.items():
        try:
            validate(content)
        except Exception as error:
            raise AssertionError(f"{where}: {error}") from error


def test_files_have_the_form_that_their_name_says(documents):
    forms = {
        "run/split.json": schemas.SPLIT,
        "run/manifest.json": schemas.MANIFEST,
        "run/metrics.json": schemas.TRAIN_METRICS,
        "run/log.jsonl:0": schemas.LOG,
        "cv/manifest.json": schemas.MANIFEST,
        "cv/metrics.json": schemas.METRICS,
        "cv/seeds.json": schemas.SEEDS,
        "cv/seed-1/folds.json": schemas.FOLDS,
        "cv/seed-1/fold-0/scores.json": schemas.SCORES,
        "cv/seed-1/fold-0/calibration.json": schemas.CALIBRATION,
        "cv/seed-1/calibration.json": schemas.CALIBRATION,
        "cv/seed-1/postprocessing.json": schemas.POSTPROCESSING,
        "masks/predict.json": schemas.PREDICT,
        "masks/predict_manifest.json": schemas.PREDICT_MANIFEST,
        "scores/evaluate_manifest.json": schemas.EVALUATE_MANIFEST,
        "scores/metrics.json": schemas.METRICS,
        "compared/compare.json": schemas.COMPARE,
        "fixed/fixes.json": schemas.FIXES,
        "split.json": schemas.SPLIT,
    }
    assert {where: documents[where]["schema"] for where in forms} == forms


def test_rare_parts_of_documents_occurred(documents):
    """A form that was only seen empty proves little."""
    masks, scores = documents["masks/predict.json"], documents["scores/metrics.json"]
    assert any(case["error"] for case in masks["cases"])
    assert any(v["low_ml"] is not None for case in masks["cases"] for v in case["volumes"])
    assert scores["failures"]
    assert scores["without_prediction"]
    assert scores["without_truth"]
    checks = [one for one in documents.values() if one["schema"] == schemas.CHECK]
    assert any(one["fix"] and one["findings"] for one in checks)
    assert any(one["fingerprint"] and one["cases"] for one in checks)
    crossvals = [one for one in documents.values() if "seeds" in one and "summary" in one]
    assert all(one["seeds"]["schema"] == schemas.SEEDS for one in crossvals)
    assert crossvals
    logged = [one for one in documents.values() if one["schema"] == schemas.LOG]
    assert any("class_dice" in one for one in logged)
    divided = [one for one in documents.values() if one["schema"] == schemas.SUPERVOXELS]
    assert {bool(one["sweep"]) for one in divided} == {True, False}


def test_damaged_documents_do_not_fit(documents, forms):
    faults = 0
    for where, content in documents.items():
        for copied, fault in forms.damaged(content):
            assert not forms.is_valid(copied), f"{where}: {fault}"
            faults += 1
    assert faults > 1000


def test_stdout_and_file_of_one_command_say_the_same(documents):
    pairs = {
        schemas.COMPARE: "compared/compare.json",
        schemas.PREDICT: "masks/predict.json",
    }
    for form, path in pairs.items():
        printed = [
            one
            for where, one in documents.items()
            if where.startswith("stdout") and one["schema"] == form
        ]
        assert documents[path] in printed
