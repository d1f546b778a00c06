"""What a report warns of, and what it does not."""

import math
from pathlib import Path

import numpy as np
import pytest

from voxseg.engine.evaluate import Evaluation
from voxseg.engine.report_sources import CaseFiles
from voxseg.engine.report_warnings import (
    TINY_VOXELS,
    changed_files,
    listed,
    missing_files,
    outliers,
    read_headers,
    score_warnings,
    volume_outliers,
)
from voxseg.export.nifti import plain_geometry, write_map
from voxseg.metrics import ABSENT, ClassScores

NAMES = {0: "background", 1: "CSF"}


def one(dice=0.8, predicted=10.0, true=10.0):
    return ClassScores(dice, dice, 1.0, 1.0, dice, predicted - true, predicted, true)


def warnings(scores, voxel_ml=None, **others):
    cases = {case: {0: one(), 1: scored} for case, scored in scores.items()}
    return score_warnings(Evaluation(cases, {}, NAMES, 1.0, **others), voxel_ml or {})


def test_nothing_odd_is_nothing_said():
    assert warnings({f"c{n}": one(0.8 + 0.01 * n) for n in range(8)}, {"c0": 0.001}) == []


def test_what_was_not_scored_comes_first():
    cases = {"a": {0: one(), 1: ABSENT}}
    found = score_warnings(
        Evaluation(cases, {"b": "it is broken."}, NAMES, 1.0, ("c", "d"), ("/x/e.nii.gz",)), {}
    )
    assert found[:3] == [
        "b failed: it is broken.",
        "2 cases without a prediction, not scored: c, d",
        "1 case without a truth, not scored: e.nii.gz",
    ]


@pytest.mark.parametrize(
    ("scored", "words"),
    [
        (ABSENT, "CSF is in neither mask of 1 case: odd"),
        (one(0.0, 0.0, 5.0), "CSF is not predicted at all in 1 case: odd"),
        (one(0.0, 5.0, 0.0), "CSF is predicted but not true in 1 case: odd"),
    ],
)
def test_absent_classes_are_told_apart(scored, words):
    assert warnings({"odd": scored, "fine": one()}) == [words]


def test_tiny_structures_are_counted_in_voxels():
    voxel = 0.002
    almost = one(true=(TINY_VOXELS - 1) * voxel)
    enough = one(true=TINY_VOXELS * voxel)
    (warning,) = warnings({"a": almost, "b": enough}, {"a": voxel, "b": voxel})
    assert warning.startswith(f"CSF has fewer than {TINY_VOXELS} true voxels in 1 case")
    assert warning.endswith(": a")


def test_outliers_are_low_ones_of_enough_cases():
    usual = {f"c{n}": 0.90 + 0.005 * n for n in range(6)}
    assert outliers({**usual, "best": 1.0, "none": math.nan}, "mean foreground Dice") == []
    (warning,) = outliers({**usual, "bad": 0.7}, "mean foreground Dice")
    assert warning.startswith("bad has a mean foreground Dice of 0.700, far below")
    assert outliers({"a": 0.9, "b": 0.9, "c": 0.9, "bad": 0.1}, "mean foreground Dice") == []


def test_volume_outliers_name_the_class_and_the_usual_range():
    usual = {f"c{n}": 10.0 + n for n in range(6)}
    found = volume_outliers({"CSF": {**usual, "odd": 90.0}, "grey": dict.fromkeys(usual, 5.0)})
    assert found == {"odd": "90 ml of CSF (others: 10 to 15)"}
    assert volume_outliers({"CSF": {"a": 1.0, "b": 100.0}}) == {}


def test_headers_are_read_and_remarked_on(tmp_path):
    files = {}
    for number in range(3):
        path = tmp_path / f"c{number}.nii.gz"
        spacing = (1.0, 1.0, 1.0 + number)
        geometry = plain_geometry(np.diag([-1.0, *spacing[1:], 1.0]), (4, 5, 6), code="mni")
        write_map(path, np.zeros((4, 5, 6), np.float32), geometry)
        files[f"c{number}"] = CaseFiles((path,))
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"nothing")
    files["bad"] = CaseFiles((broken,))
    files["mask"] = CaseFiles((), broken)
    headers = read_headers(files)
    assert headers.table.rows[0] == [
        "c0", "c0.nii.gz", "4 x 5 x 6", "1 x 1 x 1", "LAS", "mm", "4 mni", "4 mni", "float32",
    ]  # fmt: skip
    assert headers.table.rows[3][2] == "cannot be read"
    assert "not NIfTI" in headers.table.rows[4][2]
    assert headers.voxel_ml == pytest.approx({"c0": 0.001, "c1": 0.002, "c2": 0.003})
    text = "\n".join(headers.warnings)
    assert text.startswith("header: broken.nii.gz is not NIfTI")
    assert "voxel sizes differ" in text


def test_missing_and_changed_files(tmp_path):
    here = tmp_path / "a.nii.gz"
    here.write_bytes(b"1")
    gone = tmp_path / "gone.nii.gz"
    files = {"a": CaseFiles((here,), here, gone), "b": CaseFiles((), None, None)}
    found = missing_files(files, with_truth=True)
    assert [text.partition(":")[2] for text in found] == [
        " b",
        " b",
        f" a, b; {gone} is not there",
    ]
    assert len(missing_files(files, with_truth=False)) == 2
    assert changed_files("a", CaseFiles((here,), hashes={"image": ""})) == []
    (warning,) = changed_files("a", CaseFiles((here,), hashes={"image": "0" * 64}))
    assert "a.nii.gz, has changed" in warning
    assert changed_files("a", CaseFiles((Path("gone.nii"),), hashes={"image": "0" * 64})) == []


def test_at_most_five_are_named():
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdefg")) == "a, b, c, d, e and 2 more"
