import nibabel as nib
import numpy as np
import pytest

from voxseg.data.check import check_dataset
from voxseg.data.layouts import find_cases
from voxseg.engine.planning import complete
from voxseg.errors import DataError, UsageError


def plan(folder, settings=None, planned=True):
    said = []
    dataset = find_cases(folder)
    config = complete(
        settings or {}, dataset, check_dataset(dataset), planned=planned, say=said.append
    )
    return config, said


def test_defaults_follow_the_data_and_are_announced(subjects):
    config, said = plan(subjects)
    assert config.model.design == "V3"
    assert config.labels.values == (0, 2, 5)
    assert config.labels.names == ("background", "class 2", "class 5")
    assert config.data.spacing_mm == ()
    assert all(p % 8 == 0 and p <= 64 for p in config.train.patch_voxels)
    assert config.supervoxels.size_mm == pytest.approx(5 * 1.5 ** (1 / 3), abs=0.01)
    assert "SLIC" in said[0]
    assert "own spacing" in said[0]


def test_uneven_spacings_are_resampled(subjects):
    source = nib.load(subjects / "case0.nii.gz")
    label = nib.load(subjects / "case0_seg.nii.gz")
    for image, name in ((source, "case0"), (label, "case0_seg")):
        affine = image.affine @ np.diag([2, 1, 1, 1.0])
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), subjects / f"{name}.nii.gz")
    config, said = plan(subjects)
    assert config.data.spacing_mm == (1.0, 1.5, 1.0)
    assert "resampled to" in said[0]


def test_settings_win_over_the_plan(subjects):
    config, _ = plan(subjects, {"model": {"design": "V0"}, "labels": {"names": ["bg", "a", "b"]}})
    assert config.model.design == "V0"
    assert config.labels.names == ("bg", "a", "b")


def test_pixelnet_is_trained_on_drawn_voxels(subjects):
    model = {"network": "pixelnet", "trunk": "voxresnet"}
    config, said = plan(subjects, {"model": model})
    assert config.train.pixels == 2000
    assert "pixelnet, patches of" in said[0]
    config, _ = plan(subjects, {"model": model, "train": {"pixels": 0}})
    assert config.train.pixels == 0


def test_a_recipe_is_not_replanned(subjects):
    config, said = plan(subjects, {"train": {"patch_voxels": [10, 10, 10]}}, planned=False)
    assert config.train.patch_voxels == (10, 10, 10)
    assert said == []


def test_names_must_match_values(subjects):
    with pytest.raises(UsageError, match="2 entries for 3"):
        plan(subjects, {"labels": {"names": ["a", "b"]}})


def test_labels_the_configuration_lacks_are_refused(subjects):
    with pytest.raises(DataError, match=r"\[5\]"):
        plan(subjects, {"labels": {"values": [0, 2]}})
