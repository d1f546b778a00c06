"""The check of a whole set: each thing that is wrong is found, with its file and a cure."""

import json

import numpy as np
import pytest

from voxseg.data.check import check_dataset, check_headers, find_pairs
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


def test_a_good_set_has_no_findings(tmp_path, save_cases, save, phantom, check):
    save_cases(tmp_path, "a.nii.gz", "a_seg.nii.gz", "b.nii.gz")
    save(tmp_path / "b_seg.nii.gz", phantom[1][::-1])
    report = check()
    assert report.findings == ()
    report.raise_for_errors()
    assert [facts.case_id for facts in report.cases] == ["a", "b"]
    assert [report.status(pair) for pair in report.pairs] == ["ok", "ok"]
    row = report.pairs[1]
    np.testing.assert_allclose(row.images[0].spacing, (0.9, 1.5, 2), rtol=1e-6)
    assert (row.images[0].shape, row.images[0].orientation) == ((5, 6, 7), "RAS")
    assert (row.images[0].handedness, row.images[0].form) == ("right", "sform")
    assert (row.images[0].dtype, row.label.dtype, row.label.scaling) == ("int16", "uint8", None)


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
    ml = 0.9 * 1.5 * 2 / 1000
    ones = [(label == 1).sum() * ml, (label[::2] == 1).sum() * ml]
    np.testing.assert_allclose(mark.label_ml[1], (np.mean(ones), *sorted(ones)), rtol=1e-5)
    np.testing.assert_allclose(a.foreground_ml, label.size * ml, rtol=1e-5)
    inside = np.percentile(image[label != 0], [0.5, 50, 99.5])
    np.testing.assert_allclose(a.labelled_percentiles[0], inside, rtol=1e-5)


def test_volumes_heed_the_unit(tmp_path, save, phantom):
    for array, name in zip(phantom, ("a.nii", "a_seg.nii"), strict=True):
        microns = np.diag([900, 1500, 2000, 1.0])
        save(tmp_path / name, array, microns, edit=lambda header: header.set_xyzt_units("micron"))
    report = check_dataset(find_cases(tmp_path))
    np.testing.assert_allclose(report.cases[0].voxel_ml, 0.0027)
    np.testing.assert_allclose(report.pairs[0].label.spacing, (0.9, 1.5, 2))


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
    only(check(), "warning", "lie up to 10 mm (11.1 voxels) apart; voxseg uses the sform")

    def wrong_pixdim(header):
        header["pixdim"][1] = 1.0
        header["qform_code"] = 0

    save(tmp_path / "a.nii.gz", phantom[0], edit=wrong_pixdim)
    only(check(), "warning", "1 x 1.5 x 2 mm in pixdim and of 0.9 x 1.5 x 2 mm")
    edit = set_forms((affine, 0), (affine, 0))
    for name, array in zip(("a.nii.gz", "a_seg.nii.gz"), phantom, strict=True):
        save(tmp_path / name, array, edit=edit)
    assert len(check().warnings) == 2
    assert "does not say how it lies" in check().warnings[0].cause


def test_channels_and_class_names(tmp_path, save_cases, check):
    save_cases(tmp_path, "a.nii.gz", "b.nii.gz", "c.nii.gz", "d.nii.gz", "a_seg.nii.gz")
    rows = ["case,image,image2,label"]
    rows += [f"{case},{case}.nii.gz,,a_seg.nii.gz" for case in "ab"]
    (tmp_path / "list.csv").write_text("\n".join([*rows, "c,c.nii.gz,d.nii.gz,a_seg.nii.gz"]))
    report = check_dataset(find_cases(tmp_path / "list.csv"))
    only(report, "error", "case c has 2 channels where most have 1")
    entry = {"image": "a.nii.gz", "label": "a_seg.nii.gz"}
    content = {"training": [entry], "labels": {"0": "background", "1": "x"}}
    (tmp_path / "list.json").write_text(json.dumps(content))
    report = check_dataset(find_cases(tmp_path / "list.json"))
    only(report, "warning", "label values 4 have no name")


def test_geometry_in_one_file(tmp_path, save_cases, save, phantom, affine, check):
    save_cases(tmp_path, "a.nii.gz", "b.nii.gz", "b_seg.nii.gz")
    save(tmp_path / "a.nii.gz", phantom[0][..., None], affine)
    save(tmp_path / "a_seg.nii.gz", phantom[1][::-1], affine)
    report = check()
    assert [finding.kind for finding in report.warnings] == ["shear", "shear"]
    assert "programs built on ITK" in report.warnings[0].cause
    assert {finding.kind for finding in report.notes} == {"single-frame", "spacing", "orientation"}
    frame, spacing, orientation = report.notes
    assert "4 axes but holds one frame" in frame.cause
    assert "0.9 x 1.446 x 2 to 0.9179 x 1.5 x 2.105 mm" in spacing.cause
    assert "1 LAS, 1 RAS" in orientation.cause
    assert report.pairs[0].images[0].handedness == "left"
    assert report.errors == ()


def test_a_label_without_a_place_is_told_apart_in_mm(tmp_path, save_cases, save, phantom, check):
    save_cases(tmp_path, "a.nii.gz")

    def no_form(header):
        header.set_qform(np.diag([0.9, 1.5, 2.0, 1]), 0)
        header.set_sform(np.diag([0.9, 1.5, 2.0, 1]), 0)

    save(tmp_path / "a_seg.nii.gz", phantom[1], edit=no_form)
    finding = only(check(), "error", "a_seg.nii.gz does not say how it lies in the world")
    assert " mm)" in finding.cause
    assert "copy the right header" in finding.cure


def test_a_label_slightly_off_is_noted(tmp_path, save_cases, save, phantom, check):
    save_cases(tmp_path, "a.nii.gz")
    near = np.diag([0.9, 1.5, 2.0, 1])
    near[0, 3] = 0.003
    save(tmp_path / "a_seg.nii.gz", phantom[1], near)
    report = check()
    assert [finding.kind for finding in report.findings] == ["label-offset"]
    assert "0.0033 voxels away" in report.notes[0].cause


def test_values_of_labels(tmp_path, save_cases, save, phantom, check):
    save_cases(tmp_path, "a.nii.gz")
    label = phantom[1].astype(np.float32)
    save(tmp_path / "a_seg.nii.gz", label)
    assert [finding.kind for finding in check().findings] == ["float-label"]
    save(tmp_path / "a_seg.nii.gz", label + np.float32(5e-4) * (label > 0))
    finding = only(check(), "error", "none is further than 0.0005 from one")
    assert finding.kind == "not-whole-nearly"
    save(tmp_path / "a_seg.nii.gz", phantom[1].astype(np.int16) - 1)
    assert only(check(), "warning", "negative voxels, down to -1").kind == "negative-label"


def test_nan_has_a_place_and_does_not_hide_the_label(tmp_path, save, phantom, check):
    image = phantom[0].astype(np.float32)
    image[4, 2, 3] = np.inf
    image[1, 5, 6] = np.nan
    save(tmp_path / "a.nii.gz", image)
    save(tmp_path / "a_seg.nii.gz", phantom[1] * 0.3)
    first, second = check().errors
    assert (first.kind, second.kind) == ("not-finite", "not-whole")
    assert "1 NaN and 1 infinite voxels of 210, the first at voxel (1, 5, 6)" in first.cause


def test_an_image_that_is_its_label(tmp_path, save, phantom, check):
    save(tmp_path / "a.nii.gz", phantom[1].astype(np.float32))
    save(tmp_path / "a_seg.nii.gz", phantom[1])
    assert only(check(), "error", "the answer is in the input").kind == "image-is-label"


def test_headers_alone_stop_what_they_can(tmp_path, save_cases, save, phantom):
    save_cases(tmp_path, "a.nii.gz", "b.nii.gz", "b_seg.nii.gz", "c.nii.gz", "c_seg.nii.gz")
    save(tmp_path / "a_seg.nii.gz", phantom[1][1:])
    (tmp_path / "b.nii.gz").write_bytes(b"\x89PNG" + bytes(400))
    damaged = (tmp_path / "c.nii.gz").read_bytes()
    (tmp_path / "c.nii.gz").write_bytes(damaged[:-20])
    dataset = find_cases(tmp_path)
    cheap, whole = check_headers(dataset), check_dataset(dataset)
    assert cheap.findings == whole.findings[:2]
    assert [finding.case_id for finding in whole.errors] == ["a", "b", "c"]
    assert "truncated or damaged" in whole.errors[2].cause
    with pytest.raises(DataError, match=r"4x6x7 voxels but .*\(1 more: `voxseg check`"):
        cheap.raise_for_errors()


def test_pairs_without_a_partner_are_listed(tmp_path, save_cases):
    save_cases(tmp_path, "a.nii.gz", "a_seg.nii.gz", "b.nii.gz", "c_seg.nii.gz")
    dataset, known = find_pairs(tmp_path)
    report = check_dataset(dataset, known=known)
    assert [(pair.case_id, report.status(pair)) for pair in report.pairs] == [
        ("a", "ok"),
        ("b", "no label"),
    ]
    assert "label without image, the first" in report.errors[0].cause
    with pytest.raises(DataError) as stopped:
        find_cases(tmp_path)
    assert str(report.errors[0]) == str(stopped.value)
    assert any("c_seg.nii.gz, a label without an image" in note for note in dataset.notes)
    with pytest.raises(DataError, match="no file or folder"):
        find_pairs(tmp_path / "nothing")


def test_real_hippocampus(real_data):
    report = check_dataset(find_cases(real_data / "msd_hippocampus"))
    assert report.errors == ()
    assert {finding.kind for finding in report.warnings} == {"intensity-outlier"}
    assert any("213,574" in finding.cause for finding in report.warnings)
    assert report.fingerprint.label_values == (0, 1, 2)
    assert report.fingerprint.median_spacing == (1, 1, 1)


def test_real_ibsr(real_data):
    dataset = find_cases(real_data / "ibsr18")
    report = check_dataset(dataset)
    assert (len(report.cases), len(dataset.unlabelled)) == (10, 1)
    assert (report.errors, report.warnings) == ((), ())
    assert {finding.kind for finding in report.notes} == {"single-frame", "spacing"}
    assert len(report.notes) == 21
    assert len({facts.spacing for facts in report.cases}) == 3
    mean, low, high = report.fingerprint.label_ml[1]  # CSF: ventricles only, 9-32 ml
    assert 8.5 < low < mean < high < 32.5
