"""The check of a whole set: each thing that is wrong is found, with its file and a cure."""

import json

import numpy as np
import pytest

from voxseg.data.check import check_dataset
from voxseg.data.layouts import find_cases
from voxseg.errors import DataError


@pytest.fixture
def check(tmp_path):
    """Check the folder of the test."""
    return lambda: check_dataset(find_cases(tmp_path))


def only(report, severity, word):
    """Return the one finding of a severity, which must name its file and contain ``word``."""
    findings = report.errors if severity == "error" else report.warnings
    assert len(findings) == 1, findings
    assert word in findings[0].cause
    assert findings[0].cure
    return findings[0]


def test_a_good_set_has_no_findings(tmp_path, save_cases, check):
    save_cases(tmp_path, "a.nii.gz", "a_seg.nii.gz", "b.nii.gz", "b_seg.nii.gz")
    report = check()
    assert report.findings == ()
    report.raise_for_errors()
    assert [facts.case_id for facts in report.cases] == ["a", "b"]


def test_fingerprint_counts_and_orders_axes(tmp_path, save, phantom):
    image, label = phantom
    upright = np.diag([0.9, 1.5, 2.0, 1.0])
    turned = upright[[2, 0, 1, 3]]  # the third axis of the array runs to the right
    for name, affine, step in (("a", upright, 1), ("b", turned, 2)):
        save(tmp_path / f"{name}.nii.gz", image[::step], affine)
        save(tmp_path / f"{name}_seg.nii.gz", label[::step], affine)
    seen = []
    report = check_dataset(find_cases(tmp_path), on_case=seen.append)
    assert seen == ["a", "b"]
    a, b = report.cases
    assert (a.shape, b.shape) == ((5, 6, 7), (7, 3, 6))
    np.testing.assert_allclose(a.spacing, (0.9, 1.5, 2), rtol=1e-6)
    np.testing.assert_allclose(b.spacing, (2, 0.9, 1.5), rtol=1e-6)
    mark = report.fingerprint
    assert (mark.num_cases, mark.num_channels, mark.min_shape) == (2, 1, (5, 3, 6))
    np.testing.assert_allclose(mark.max_spacing, (2, 1.5, 2), rtol=1e-6)
    values, counts = np.unique(np.concatenate([label, label[::2]]), return_counts=True)
    assert mark.label_voxels == dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert mark.label_values == (0, 1, 4)
    assert mark.label_cases == {0: 2, 1: 2, 4: 1}
    inside = image[image != 0]
    np.testing.assert_allclose(a.percentiles[0], np.percentile(inside, [0.5, 50, 99.5]), rtol=1e-5)
    assert a.foreground_share == 1
    assert json.loads(json.dumps(report.as_dict()))["fingerprint"]["num_cases"] == 2


def test_foreground_box(tmp_path, save, phantom):
    image, label = phantom
    save(tmp_path / "a.nii.gz", image * (label > 0))
    save(tmp_path / "a_seg.nii.gz", label)
    facts = check_dataset(find_cases(tmp_path)).cases[0]
    assert facts.foreground_shape == (3, 3, 5)
    assert facts.foreground_share == (label > 0).mean()
    expected = np.percentile(image[label > 0], [0.5, 50, 99.5])
    np.testing.assert_allclose(facts.percentiles[0], expected, rtol=1e-5)


def test_unreadable_files_are_findings_and_the_rest_is_checked(tmp_path, save_cases, check):
    save_cases(tmp_path, "a.nii.gz", "a_seg.nii.gz", "b.nii.gz", "b_seg.nii.gz")
    (tmp_path / "a.nii.gz").write_bytes(b"\x89PNG" + bytes(400))
    report = check()
    finding = only(report, "error", "looks like a PNG image")
    assert (finding.case_id, finding.path) == ("a", tmp_path / "a.nii.gz")
    assert finding.cure.startswith("convert it")
    assert [facts.case_id for facts in report.cases] == ["b"]
    with pytest.raises(DataError, match=r"a PNG image.*; convert it"):
        report.raise_for_errors()


def test_grids_that_differ(tmp_path, save_cases, save, phantom, check):
    save_cases(tmp_path, "a.nii.gz")
    save(tmp_path / "a_seg.nii.gz", phantom[1], np.diag([0.9, 1.5, 2.2, 1]))
    assert only(check(), "error", "voxels away").path is not None
    save(tmp_path / "a_seg.nii.gz", phantom[1][1:])
    only(check(), "error", "4x6x7 voxels")


def test_labels_that_are_no_labels(tmp_path, save_cases, save, phantom, check):
    save_cases(tmp_path, "a.nii.gz")
    save(tmp_path / "a_seg.nii.gz", phantom[1] * 0.3)
    finding = only(check(), "error", "not whole numbers")
    assert finding.path == tmp_path / "a_seg.nii.gz"
    with pytest.raises(DataError, match="not whole numbers"):
        check().raise_for_errors()


def test_nan_and_constant_images(tmp_path, save_cases, save, phantom, check):
    image = phantom[0].astype(np.float32)
    save_cases(tmp_path, "a_seg.nii.gz")
    image[1, 1, 1] = np.nan
    save(tmp_path / "a.nii.gz", image)
    only(check(), "error", "1 NaN")
    save(tmp_path / "a.nii.gz", np.full_like(image, 7))
    assert only(check(), "error", "is constant: every voxel is 7").path == tmp_path / "a.nii.gz"


def test_all_background_labels(tmp_path, save_cases, save, phantom, check):
    save_cases(tmp_path, "a.nii.gz", "b.nii.gz", "b_seg.nii.gz")
    save(tmp_path / "a_seg.nii.gz", np.zeros_like(phantom[1]))
    report = check()
    assert only(report, "warning", "but one value, 0").case_id == "a"
    assert report.errors == ()
    save(tmp_path / "b_seg.nii.gz", np.zeros_like(phantom[1]))
    assert len(check().warnings) == 2
    only(check(), "error", "none of the 2 labels has more than one value")


def test_the_same_image_under_two_names(tmp_path, save, phantom, check):
    for name, suffix in (("a", ".nii"), ("b", ".nii.gz")):
        save(tmp_path / f"{name}{suffix}", phantom[0])
        save(tmp_path / f"{name}_seg{suffix}", phantom[1])
    assert only(check(), "error", "has the same voxels as case a").case_id == "b"


def test_headers_worth_a_look(tmp_path, save, save_cases, phantom, check):
    save_cases(tmp_path, "a_seg.nii.gz")
    affine = np.diag([0.9, 1.5, 2.0, 1])

    def set_forms(qform, sform):
        def edit(header):
            header.set_qform(*qform)
            header.set_sform(*sform)

        return edit

    shifted = affine.copy()
    shifted[0, 3] = 10
    edit = set_forms((shifted, 1), (affine, 4))
    save(tmp_path / "a.nii.gz", phantom[0], edit=edit)
    only(check(), "warning", "11.1 voxels apart")

    def wrong_pixdim(header):
        header["pixdim"][1] = 1.0
        header["qform_code"] = 0

    save(tmp_path / "a.nii.gz", phantom[0], edit=wrong_pixdim)
    only(check(), "warning", "1 x 1.5 x 2 in pixdim and of 0.9 x 1.5 x 2")
    edit = set_forms((affine, 0), (affine, 0))
    for name, array in zip(("a.nii.gz", "a_seg.nii.gz"), phantom, strict=True):
        save(tmp_path / name, array, edit=edit)
    assert len(check().warnings) == 2
    assert "does not say how it lies" in check().warnings[0].cause


def test_channels_and_class_names(tmp_path, save_cases, check):
    save_cases(tmp_path, "a.nii.gz", "b.nii.gz", "c.nii.gz", "a_seg.nii.gz")
    rows = ["case,image,image2,label"]
    rows += [f"{case},{case}.nii.gz,,a_seg.nii.gz" for case in "ab"]
    (tmp_path / "list.csv").write_text("\n".join([*rows, "c,c.nii.gz,a.nii.gz,a_seg.nii.gz"]))
    report = check_dataset(find_cases(tmp_path / "list.csv"))
    only(report, "error", "case c has 2 channels where most have 1")
    entry = {"image": "a.nii.gz", "label": "a_seg.nii.gz"}
    content = {"training": [entry], "labels": {"0": "background", "1": "x"}}
    (tmp_path / "list.json").write_text(json.dumps(content))
    report = check_dataset(find_cases(tmp_path / "list.json"))
    only(report, "warning", "label values 4 have no name")


def test_real_hippocampus(real_data):
    report = check_dataset(find_cases(real_data / "msd_hippocampus"))
    assert report.findings == ()
    assert report.fingerprint.label_values == (0, 1, 2)
    assert report.fingerprint.median_spacing == (1, 1, 1)
