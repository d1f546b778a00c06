"""Labels on another grid, against SimpleITK's nearest neighbour."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from voxseg.data.grid_change import onto_grid
from voxseg.data.volume import read_label

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture
def label(tmp_path, rng):
    """A blocky map of 12 x 10 x 9 voxels, turned and flipped."""
    array = np.repeat(np.repeat(rng.integers(0, 6, (4, 5, 3)), 3, 0), 2, 1).repeat(3, 2)
    affine = np.array([[0, -1.3, 0.2, 9], [1.1, 0, 0, -4], [0, 0.2, 1.9, 3], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(array.astype(np.uint8), affine), tmp_path / "label.nii.gz")
    return read_label(tmp_path / "label.nii.gz")


def as_sitk(array, affine):
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(array.transpose(2, 1, 0))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    return image


@pytest.mark.parametrize("name", ["axial", "oblique", "left_handed", "coronal"])
def test_same_voxels_as_simpleitk(label, dicom, name):
    affine = getattr(dicom, name)(spacing=(0.7, 0.8, 0.9)) if name in ("axial", "oblique") else (
        getattr(dicom, name)()
    )  # fmt: skip
    shape = (20, 21, 19)
    # Both boxes share their middle.
    affine[:3, 3] += (label.affine @ [5.4, 4.6, 4.3, 1])[:3] - (affine @ [9.7, 10.2, 9.1, 1])[:3]
    moved, is_other = onto_grid(label, affine, shape)
    grid = as_sitk(np.zeros(shape, np.int32), affine)
    found = SimpleITK.Resample(
        as_sitk(label.array, label.affine), grid, SimpleITK.Transform(),
        SimpleITK.sitkNearestNeighbor,
    )  # fmt: skip
    assert is_other
    expected = SimpleITK.GetArrayFromImage(found).transpose(2, 1, 0)
    assert expected.any()
    np.testing.assert_array_equal(moved, expected)


def test_the_same_grid_is_not_touched(label):
    moved, is_other = onto_grid(label, label.affine + 1e-6, label.shape)
    assert not is_other
    assert moved is label.array


def test_the_same_box_in_another_order_keeps_every_voxel(label):
    turned = label.affine[:, [2, 0, 1, 3]] @ np.diag([-1, 1, 1, 1.0])
    turned[:3, 3] = (label.affine @ [0, 0, label.shape[2] - 1, 1])[:3]
    moved, is_other = onto_grid(label, turned, tuple(label.shape[a] for a in (2, 0, 1)))
    assert is_other
    np.testing.assert_array_equal(moved[::-1].transpose(1, 2, 0), label.array)


def test_beyond_the_map_there_is_nothing(label):
    far = label.affine.copy()
    far[:3, 3] += 1000
    assert not onto_grid(label, far, (5, 6, 7))[0].any()


def test_a_map_in_metres_lies_in_millimetres(tmp_path, label):
    header = label.header.copy()
    affine = label.affine.copy()
    affine[:3] /= 1000
    header.set_xyzt_units("meter")
    image = nib.Nifti1Image(label.array, affine, header)
    nib.save(image, tmp_path / "metres.nii.gz")
    moved, is_other = onto_grid(read_label(tmp_path / "metres.nii.gz"), label.affine, label.shape)
    assert not is_other
    np.testing.assert_array_equal(moved, label.array)
