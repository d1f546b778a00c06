"""``voxseg evaluate``: pairing, scores, tables, and what happens to broken cases."""

import csv
import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from voxseg.cli.evaluate import evaluate
from voxseg.engine.evaluate import evaluate as run
from voxseg.engine.pairs import find_pairs
from voxseg.errors import DataError, UsageError
from voxseg.export.nifti import plain_geometry, write_map, write_mask
from voxseg.metrics import score_case

SHAPE = (11, 13, 9)
SPACING = (1.0, 1.5, 2.0)

app = typer.Typer()
app.command()(evaluate)


@app.callback()
def root():
    """Keep ``evaluate`` a command of its own."""


def call(*words):
    result = CliRunner().invoke(app, ["evaluate", *map(str, words)], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def table(path):
    return csv.DictReader(path.read_text(encoding="utf-8").splitlines())


def geometry(shape=SHAPE, spacing=SPACING):
    return plain_geometry(np.diag([*spacing, 1.0]), shape)


def brain(inner=2):
    label = np.zeros(SHAPE, np.uint8)
    label[2:9, 2:10, 2:7] = 1
    label[4:7, 4:8, 3:6] = inner
    return label


@pytest.fixture
def folders(tmp_path):
    """Three cases; class 2 or 3 inside class 1, predictions one voxel off."""
    predictions, truths = {}, {}
    for name, inner in (("a", 2), ("b", 3), ("c", 3)):
        truths[name] = brain(inner)
        predictions[name] = np.roll(truths[name], 1, axis=0)
        write_mask(tmp_path / "true" / f"{name}.nii.gz", truths[name], geometry())
        write_mask(tmp_path / "pred" / f"{name}.nii.gz", predictions[name], geometry())
    return tmp_path, predictions, truths


def test_two_folders_score_as_their_arrays(folders):
    path, predictions, truths = folders
    evaluation = run(path / "pred", path / "true")
    assert list(evaluation.scores) == ["a", "b", "c"]
    for name, scores in evaluation.scores.items():
        assert list(scores) == [0, 1, 2, 3]
        expected = score_case(predictions[name], truths[name], [0, 1, 2, 3], SPACING)
        for label in scores:
            got, wanted = (list(vars(s[label]).values()) for s in (scores, expected))
            np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_tables_and_files(folders, tmp_path):
    path, *_ = folders
    result = call(path / "pred", path / "true", "-o", tmp_path / "out")
    assert result.exit_code == 0
    for word in ("foreground mean", "all-class mean", "HD95", "undefined", "Empty masks:"):
        assert word in result.stdout
    rows = list(table(tmp_path / "out/metrics.csv"))
    assert len(rows) == 3 * 4
    content = json.loads((tmp_path / "out/metrics.json").read_text(encoding="utf-8"))
    assert content["cases"][0]["case"] == rows[0]["case"] == "a"
    assert float(rows[1]["dice"]) == content["cases"][1]["dice"]
    undefined = [row for row in rows if row["dice"] == ""]
    counted = [row["dice_undefined"] for row in content["summary"]]
    assert len(undefined) == sum(counted[:3]) == 3
    summary = list(table(tmp_path / "out/summary.csv"))
    assert [row["class"] for row in summary][-1] == "all-class mean"


def test_json_is_one_object_on_stdout(folders):
    path, *_ = folders
    result = call(path / "pred", path / "true", "--json", "--labels", "1")
    content = json.loads(result.stdout)
    assert {row["label"] for row in content["cases"]} == {0, 1}
    assert content["policy"].startswith("Empty masks")
    assert content["failures"] == {}


def test_two_files_and_another_tolerance(folders):
    path, *_ = folders
    files = [path / part / "b.nii.gz" for part in ("pred", "true")]
    near = json.loads(call(*files, "--json", "--tolerance-mm", "0.5").stdout)
    far = json.loads(call(*files, "--json", "--tolerance-mm", "1").stdout)
    assert near["cases"][1]["surface_dice"] < far["cases"][1]["surface_dice"] == 1


def test_broken_cases_are_reported_and_others_finish(folders):
    path, *_ = folders
    whole = (path / "pred/a.nii.gz").read_bytes()
    (path / "pred/a.nii.gz").write_bytes(whole[: len(whole) // 2])
    write_mask(path / "pred/b.nii.gz", np.zeros((3, 4, 5), np.uint8), geometry((3, 4, 5)))
    result = call(path / "pred", path / "true")
    assert result.exit_code == 4
    assert "2 of 3 cases failed" in result.stderr
    assert "a: " in result.stderr
    assert "3x4x5 voxels" in result.stderr
    assert "foreground mean" in result.stdout


def test_another_affine_is_a_data_error(folders):
    path, predictions, _ = folders
    write_mask(path / "pred/a.nii.gz", predictions["a"], geometry(spacing=(1.0, 1.0, 2.0)))
    with pytest.raises(DataError, match="affine entry"):
        run(path / "pred/a.nii.gz", path / "true/a.nii.gz")


def test_missing_counterparts_are_named(folders):
    path, *_ = folders
    (path / "pred/a.nii.gz").unlink()
    (path / "true/c.nii.gz").rename(path / "true/d.nii.gz")
    result = call(path / "pred", path / "true")
    assert result.exit_code == 0
    assert "1 case without a truth, not scored" in result.stderr
    assert "2 cases without a prediction, not scored: a, d" in result.stderr


def test_truth_may_be_a_data_set(tmp_path):
    label = brain()
    for name in ("IBSR_01", "IBSR_02"):
        write_mask(tmp_path / f"data/{name}/{name}_seg.nii.gz", label, geometry())
        write_map(tmp_path / f"data/{name}/{name}.nii.gz", label + 1.0, geometry())
    write_mask(tmp_path / "run/predictions/IBSR_02.nii.gz", label, geometry())
    probability = tmp_path / "run/predictions/IBSR_02_probability-1.nii.gz"
    write_map(probability, label / 3, geometry())
    found = find_pairs(tmp_path / "run", tmp_path / "data")
    assert [one.case_id for one in found.pairs] == ["IBSR_02"]
    assert found.pairs[0].truth.name == "IBSR_02_seg.nii.gz"
    assert found.without_prediction == ("IBSR_01",)
    assert found.without_truth == ()
    evaluation = run(tmp_path / "run", tmp_path / "data")
    assert evaluation.class_names[1] == "CSF"
    assert evaluation.summary.foreground_dice == 1


def test_an_image_is_never_taken_for_a_truth(tmp_path):
    """One label is missing, so the folder is no data set; its image must not stand in."""
    label = brain()
    for name in ("x", "y"):
        write_mask(tmp_path / f"data/{name}.nii.gz", label, geometry())
        write_mask(tmp_path / f"pred/{name}.nii.gz", label, geometry())
    write_mask(tmp_path / "data/x_seg.nii.gz", label, geometry())
    found = find_pairs(tmp_path / "pred", tmp_path / "data")
    assert [one.truth.name for one in found.pairs] == ["x_seg.nii.gz"]


def test_labels_apart_with_a_word_in_their_names(tmp_path):
    write_mask(tmp_path / "pred/x.nii.gz", brain(), geometry())
    write_mask(tmp_path / "true/x_seg.nii.gz", brain(), geometry())
    found = find_pairs(tmp_path / "pred", tmp_path / "true")
    assert [(one.case_id, one.truth.name) for one in found.pairs] == [("x", "x_seg.nii.gz")]


def test_existing_scores_are_kept(folders, tmp_path):
    path, *_ = folders
    out = tmp_path / "out"
    call(path / "pred", path / "true", "-o", out)
    with pytest.raises(UsageError, match="--overwrite"):
        call(path / "pred", path / "true", "-o", out)
    assert call(path / "pred", path / "true", "-o", out, "--overwrite").exit_code == 0


def test_evaluate_rejects_what_cannot_be_scored(folders, tmp_path):
    path, *_ = folders
    with pytest.raises(DataError, match="there is no file or folder"):
        run(path / "nothing", path / "true")
    with pytest.raises(UsageError, match="two files or two folders"):
        run(path / "pred", path / "true/a.nii.gz")
    with pytest.raises(UsageError, match=r"--labels takes whole numbers"):
        call(path / "pred", path / "true", "--labels", "1,x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no"):
        run(tmp_path / "empty", path / "true")
    write_mask(tmp_path / "other/z.nii.gz", brain(), geometry())
    with pytest.raises(DataError, match="has the name of a case"):
        run(tmp_path / "other", path / "true")
    many = np.arange(np.prod(SHAPE), dtype=np.int32).reshape(SHAPE)
    write_mask(tmp_path / "many/a.nii.gz", many, geometry())
    with pytest.raises(DataError, match="no label map"):
        run(tmp_path / "many", path / "true")
