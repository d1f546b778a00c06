"""What shows only over a whole set: leaks, missing classes, outliers."""

import json
from pathlib import Path

import numpy as np
import pytest

from voxseg.data.check import check_dataset
from voxseg.data.check_set import robust_distances, usual_values
from voxseg.data.layouts import find_cases


@pytest.fixture
def check(tmp_path):
    """Check the folder of the test."""
    return lambda: check_dataset(find_cases(tmp_path))


@pytest.fixture
def save_set(tmp_path, save, rng):
    """Write cases of one kind: an edit may change image and label of each by its number."""

    def write(count, edit=lambda number, image, label: (image, label)):
        for number in range(count):
            label = np.zeros((9, 8, 7), np.uint8)
            label[1 : 5 + number % 2, 2:6, 1:5] = 1
            label[6:8, 2:5, 2:4] = 2
            label[6, 5, 2 : 2 + number % 3] = 2
            label[0, 0, number % 7] = 1
            image = (100 + 50 * label + rng.integers(0, 20, label.shape)).astype(np.float32)
            image, label = edit(number, image, label)
            save(tmp_path / f"c{number}.nii.gz", image)
            save(tmp_path / f"c{number}_seg.nii.gz", label)

    return write


def kinds(report):
    return [(finding.kind, finding.case_id) for finding in report.findings]


def test_alike_cases_have_no_outliers(save_set, check):
    save_set(7)
    assert kinds(check()) == []


def test_an_odd_scale_and_an_odd_volume_stick_out(save_set, check):
    def edit(number, image, label):
        if number == 2:
            image = image * 40
        if number == 4:
            label[label == 2] = 0
            label[7, 3, 3] = 2
        return image, label

    save_set(7, edit)
    report = check()
    assert kinds(report) == [("intensity-outlier", "c2"), ("volume-outlier", "c4")]
    intensity, volume = report.warnings
    for words in ("a median intensity of 4", "and a contrast", "usual in this set: 1"):
        assert words in intensity.cause
    assert "label value 2 in a volume of 0.0027 ml (usual in this set: 0.0324 to" in volume.cause
    assert volume.path.name == "c4.nii.gz"


def test_four_cases_have_no_usual(save_set, check):
    save_set(4, lambda number, image, label: (image * (1 + 99 * (number == 1)), label))
    assert kinds(check()) == []


def test_usual_values():
    values = np.array([10.0, 11, 9, 10, 10.5, 200])
    assert usual_values(values).tolist() == [True] * 5 + [False]
    assert usual_values(np.array([-5.0, 5, 0, 1, -1])).all()  # some are not positive
    tail = np.r_[np.full(20, 10.0), 10 * 1.045 ** np.arange(1, 9)]
    assert np.abs(robust_distances(tail)).max() > 7
    assert usual_values(tail).all()  # for the tail is unbroken
    assert (robust_distances(np.zeros(5)) == 0).all()


def test_missing_and_rare_classes(save_set, check):
    def edit(number, image, label):
        if number == 1:
            label[label == 2] = 0
        if number == 3:
            label[8, 7, 6] = 9
        return image, label

    save_set(4, edit)
    report = check()
    assert kinds(report) == [("class-missing", "c1"), ("class-rare", "")]
    missing, rare = report.warnings
    assert "case c1 lacks label value 2, which 3 of 4 cases have" in missing.cause
    assert missing.path.name == "c1_seg.nii.gz"
    assert "label value 9 occurs in only 1 of 4 cases (c3), 1 voxels in all" in rare.cause


def test_a_named_class_that_nobody_has(tmp_path, save_set, check):
    save_set(2)
    entries = [{"image": f"c{n}.nii.gz", "label": f"c{n}_seg.nii.gz"} for n in range(2)]
    labels = {"0": "background", "1": "left", "2": "right", "3": "tail"}
    (tmp_path / "list.json").write_text(json.dumps({"training": entries, "labels": labels}))
    report = check_dataset(find_cases(tmp_path / "list.json"))
    assert kinds(report) == [("class-absent", "")]
    assert "no label has the value 3 (tail)" in report.warnings[0].cause


def test_leaks_are_found_whatever_the_header_says(tmp_path, save_set, save, phantom, check):
    save_set(3)
    image, label = phantom
    save(tmp_path / "x.nii.gz", image)
    save(tmp_path / "x_seg.nii.gz", label)
    moved = np.diag([1, 1.5, 2.0, 1])
    save(tmp_path / "y.nii.gz", image, moved)
    save(tmp_path / "y_seg.nii.gz", label[::-1], moved)
    report = check()
    assert [finding.kind for finding in report.errors] == ["duplicate"]
    leak = report.errors[0]
    assert (leak.case_id, leak.path.name) == ("y", "y.nii.gz")
    assert "under another header and another label: one subject counts as two" in leak.cause


def test_a_label_under_two_names(tmp_path, save_set, check):
    save_set(2)
    (tmp_path / "c1_seg.nii.gz").write_bytes((tmp_path / "c0_seg.nii.gz").read_bytes())
    report = check()
    assert kinds(report) == [("duplicate-label", "c1")]
    assert "is voxel for voxel the label of case c0" in report.warnings[0].cause


def test_equal_channels(tmp_path, save_set):
    save_set(2)
    rows = "case,image,image2,label\na,c0.nii.gz,c0.nii.gz,c0_seg.nii.gz"
    Path(tmp_path / "list.csv").write_text(rows)
    report = check_dataset(find_cases(tmp_path / "list.csv"))
    assert kinds(report) == [("equal-channels", "a")]
