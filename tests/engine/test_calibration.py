"""Calibration of a cross-validation: counted on the prepared grid, stored, added up, told."""

import json
import math

import nibabel as nib
import numpy as np
import pytest

from voxseg.data.layouts import Case
from voxseg.data.prepare import PrepareSettings, prepare_case
from voxseg.data.volume import read_label
from voxseg.engine.calibration import (
    calibrate_case,
    merge_folds,
    read_calibration,
    report_section,
    sentence,
    write_calibration,
)
from voxseg.engine.config import LabelConfig
from voxseg.errors import DataError
from voxseg.metrics.calibration import calibrate

LABELS = LabelConfig(values=(0, 3, 7), names=("background", "shell", "core"))


@pytest.fixture
def case(tmp_path, rng):
    """A subject on a permuted, left-handed grid, with a stripped background."""
    label = np.zeros((14, 11, 9), np.int16)
    label[3:9, 2:8, 2:7] = 3
    label[4:6, 3:7, 3:5] = 7
    image = np.where(label > 0, 50 + 20 * label + rng.normal(0, 2, label.shape), 0)
    affine = np.array([[0, 2.0, 0, 5], [-1.0, 0, 0, 6], [0, 0, 1.5, 7], [0, 0, 0, 1]])
    paths = tmp_path / "a.nii.gz", tmp_path / "a_seg.nii.gz"
    nib.save(nib.Nifti1Image(image.astype(np.float32), affine), paths[0])
    nib.save(nib.Nifti1Image(label, affine), paths[1])
    return Case("a", (paths[0],), paths[1])


def shares_of(shape, seed=0):
    logits = np.random.default_rng(seed).normal(0, 2, (3, *shape))
    return (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)


def stored_of(case, name="a", seed=0):
    prepared = prepare_case(case, PrepareSettings(), LABELS.values)
    found = calibrate_case(
        prepared, read_label(case.label), shares_of(prepared.shape, seed), LABELS
    )
    (ece,) = found.case_ece.values()
    return type(found)(found.labels, found.names, found.regions, {name: ece})


@pytest.mark.parametrize("spacing", [(), (0.9, 1.3, 0.7)], ids=["own grid", "resampled"])
def test_truth_is_brought_to_the_grid_of_the_probabilities(case, spacing):
    prepared = prepare_case(case, PrepareSettings(spacing_mm=spacing), LABELS.values)
    shares = shares_of(prepared.shape)
    found = calibrate_case(prepared, read_label(case.label), shares, LABELS)
    assert found.regions == calibrate(shares, prepared.label, prepared.spacing)
    assert found.case_ece == {"a": found.regions.near.top.ece}


def test_a_value_that_is_no_class_is_refused(case):
    prepared = prepare_case(case, PrepareSettings(), LABELS.values)
    two = LabelConfig(values=(0, 3), names=("background", "shell"))
    with pytest.raises(DataError, match=r"\[7\]"):
        calibrate_case(prepared, read_label(case.label), shares_of(prepared.shape)[:2], two)


def test_folds_add_up_in_the_folder(case, tmp_path):
    parts = [stored_of(case, name, seed) for seed, name in enumerate("abc")]
    for number, part in enumerate((parts[0], parts[1] + parts[2])):
        write_calibration(tmp_path / f"fold-{number}" / "calibration.json", part)
    total = merge_folds(tmp_path, 2)
    assert total == parts[0] + (parts[1] + parts[2])
    assert read_calibration(tmp_path / "calibration.json") == total
    document = json.loads((tmp_path / "calibration.json").read_text())
    assert document["schema"] == "voxseg.calibration/1"
    near = document["regions"]["near"]
    assert near["top"]["ece"] == total.regions.near.top.ece
    assert sum(near["top"]["voxels"]) == 3 * parts[0].regions.near.top.num_voxels
    assert document["mean_case_ece"] == pytest.approx(
        np.mean([part.regions.near.top.ece for part in parts])
    )
    assert (tmp_path / "calibration.png").read_bytes().startswith(b"\x89PNG")


def test_a_fold_without_counts_leaves_the_folder_without(case, tmp_path):
    write_calibration(tmp_path / "fold-0" / "calibration.json", stored_of(case))
    assert merge_folds(tmp_path, 2) is None
    assert not (tmp_path / "calibration.json").exists()


def test_damaged_counts_are_data_errors(case, tmp_path):
    path = tmp_path / "fold-0" / "calibration.json"
    write_calibration(path, stored_of(case))
    whole = path.read_text()
    for change in (
        lambda d: d.update(schema="voxseg.calibration/0"),
        lambda d: d.update(bins=10),
        lambda d: d["regions"].pop("near"),
        lambda d: d["regions"]["near"]["top"]["voxels"].pop(),
        lambda d: d["regions"]["near"]["classes"].pop(),
        lambda d: d.update(cases=["a"]),
    ):
        document = json.loads(whole)
        change(document)
        path.write_text(json.dumps(document))
        with pytest.raises(DataError, match="is not calibration that this version wrote"):
            merge_folds(tmp_path, 1)
    path.write_text("null")
    with pytest.raises(DataError, match="is not calibration"):
        read_calibration(path)
    path.write_text(json.dumps({"schema": "voxseg.calibration/9"}))
    with pytest.raises(DataError, match="was written by a newer voxseg"):
        read_calibration(path)


def test_folds_of_other_classes_are_refused(case, tmp_path):
    one = stored_of(case)
    write_calibration(tmp_path / "fold-0" / "calibration.json", one)
    other = type(one)((0, 3, 8), one.names, one.regions, one.case_ece)
    write_calibration(tmp_path / "fold-1" / "calibration.json", other)
    with pytest.raises(DataError, match="other classes"):
        merge_folds(tmp_path, 2)


def test_words_and_table_for_a_report(case):
    stored = stored_of(case) + stored_of(case, "b", 1)
    section = report_section(stored)
    assert section.title == "Calibration"
    assert section.figures[0].png.startswith(b"\x89PNG")
    assert "2 cases" in section.paragraphs[-1]
    assert [row[1] for row in section.tables[0].rows] == ["winning class", *LABELS.names] * 2
    assert section.tables[0].rows[0][3] == f"{stored.regions.near.top.ece:.4f}"
    assert all(len(row) == len(section.tables[0].columns) for row in section.tables[0].rows)
    # Random answers with sure words are far too high.
    assert "too high by" in sentence(stored)


def test_a_case_without_foreground_has_no_error_of_its_own(case, tmp_path):
    prepared = prepare_case(case, PrepareSettings(), LABELS.values)
    label = nib.load(case.label)
    empty = nib.Nifti1Image(np.zeros(label.shape, np.int16), label.affine)
    nib.save(empty, tmp_path / "empty.nii.gz")
    shares = np.zeros((3, *prepared.shape), np.float32)
    shares[0] = 1
    stored = calibrate_case(prepared, read_label(tmp_path / "empty.nii.gz"), shares, LABELS)
    assert math.isnan(stored.case_ece["a"])
    assert math.isnan(stored.mean_case_ece)
    write_calibration(tmp_path / "a.json", stored)
    assert math.isnan(read_calibration(tmp_path / "a.json").case_ece["a"])
    assert "not defined" in sentence(stored)
    assert report_section(stored).tables[0].rows[0][3] == "-"
