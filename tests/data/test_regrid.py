"""Label maps on other grids, against SimpleITK's resampling in the same millimetres."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from voxseg.data.regrid import (
    describe_grid,
    grid_distance,
    is_on_grid_of,
    label_on_grid_of,
    map_on_grid_of,
    other_grid,
)
from voxseg.data.volume import read_image, read_label

TURN = np.array([[0.96, -0.28, 0, 3], [0.28, 0.96, 0, -7], [0, 0, 1, 2], [0, 0, 0, 1.0]])


def rng():
    return np.random.default_rng(0)


def saved(path, array, affine):
    image = nib.Nifti1Image(array, affine)
    image.set_qform(affine, "scanner")  # ITK wants more digits of an oblique sform than it holds
    image.set_sform(None, 0)
    nib.save(image, path)
    return path


def places(tmp_path, target_affine, shape=(7, 9, 8)):
    """Write a label map and an image on another grid."""
    blocks = rng().integers(0, 4, (4, 3, 5)).astype(np.uint8)
    label = np.kron(blocks, np.ones((3, 3, 2), np.uint8))
    source = TURN @ np.diag([1.1, 0.9, 2.0, 1])
    one = saved(tmp_path / "label.nii.gz", label, source)
    other = saved(tmp_path / "image.nii.gz", np.zeros(shape, np.float32), target_affine)
    return one, other


MIRRORED = np.array([[-0.8, 0, 0.6, 7], [0, 1, 0, 1], [0.6, 0, 0.8, -3], [0, 0, 0, 1.0]])
SOURCE = TURN @ np.diag([1.1, 0.9, 2.0, 1])


@pytest.mark.parametrize(
    "target",
    [
        SOURCE @ np.array([[1.6, 0, 0, 0.1], [0, 1.31, 0, -1], [0, 0, 0.9, 2], [0, 0, 0, 1.0]]),
        SOURCE @ np.diag([1 / 1.1, 1 / 0.9, 0.5, 1]) @ MIRRORED @ np.diag([1.3, 1.1, 1.7, 1]),
        SOURCE @ np.array([[0, 1.3, 0, 1], [0, 0, 1.2, -2], [0.9, 0, 0, 2.2], [0, 0, 0, 1.0]]),
    ],
    ids=["bigger voxels", "oblique and left-handed", "axes in another order"],
)
def test_label_on_grid_matches_simpleitk(tmp_path, target):
    one, other = places(tmp_path, target)
    moved = SimpleITK.Resample(
        SimpleITK.ReadImage(str(one)), SimpleITK.ReadImage(str(other)), SimpleITK.Transform(),
        SimpleITK.sitkNearestNeighbor, 0,
    )  # fmt: skip
    expected = SimpleITK.GetArrayFromImage(moved).transpose(2, 1, 0)
    found = label_on_grid_of(read_label(one), read_image(other))
    assert len(np.unique(expected)) > 2
    np.testing.assert_array_equal(found, expected)


def test_its_own_grid_changes_nothing(tmp_path):
    one, _ = places(tmp_path, np.eye(4))
    label = read_label(one)
    np.testing.assert_array_equal(label_on_grid_of(label, label), label.array)


def test_beyond_the_map_is_nothing(tmp_path):
    far = np.eye(4)
    far[:3, 3] = 500
    one, other = places(tmp_path, far)
    assert not label_on_grid_of(read_label(one), read_image(other)).any()


def test_map_on_grid_is_linear(tmp_path):
    """A map that is linear in the world stays so, inside of its box."""
    affine = TURN @ np.diag([1.1, 0.9, 2.0, 1])
    indices = np.stack(np.meshgrid(*[np.arange(n) for n in (12, 13, 9)], indexing="ij"), -1)
    world = nib.affines.apply_affine(affine, indices)
    one = saved(tmp_path / "map.nii.gz", (world @ [1, 2, 3]).astype(np.float32), affine)
    inner = affine @ np.array([[0.5, 0, 0, 3], [0, 0.7, 0, 2], [0, 0, 0.4, 2], [0, 0, 0, 1.0]])
    other = saved(tmp_path / "image.nii.gz", np.zeros((4, 5, 6), np.float32), inner)
    found = map_on_grid_of(read_image(one), read_image(other))
    indices = np.stack(np.meshgrid(*[np.arange(n) for n in (4, 5, 6)], indexing="ij"), -1)
    expected = nib.affines.apply_affine(inner, indices) @ [1, 2, 3]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_grid_is_said_in_words(tmp_path):
    affine = np.array([[0, 2.0, 0, 5], [-1.5, 0, 0, 6], [0, 0, 1.0, 7.25], [0, 0, 0, 1]])
    path = saved(tmp_path / "a.nii.gz", np.zeros((3, 4, 5), np.float32), affine)
    words = "3x4x5 voxels of 1.5x2x1 mm, axes PRS, first voxel at (5, 6, 7.25) mm"
    assert describe_grid(read_image(path)) == words


def test_units_other_than_mm(tmp_path):
    image = nib.Nifti1Image(np.zeros((3, 4, 5), np.uint8), np.diag([0.001, 0.002, 0.003, 1]))
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "m.nii.gz")
    volume = read_label(tmp_path / "m.nii.gz")
    np.testing.assert_allclose(volume.affine_mm, np.diag([1, 2, 3, 1]), rtol=1e-6)


def test_grids_are_compared_in_mm(tmp_path):
    voxels = np.zeros((3, 4, 5), np.uint8)
    one = read_label(saved(tmp_path / "mm.nii.gz", voxels, np.diag([1.0, 2, 3, 1])))
    image = nib.Nifti1Image(voxels, np.diag([0.001, 0.002, 0.003, 1]))
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "m.nii.gz")
    assert is_on_grid_of(read_label(tmp_path / "m.nii.gz"), one)
    moved = np.diag([1.0, 2, 3, 1])
    moved[1, 3] = 1.0
    other = read_label(saved(tmp_path / "moved.nii.gz", voxels, moved))
    assert grid_distance(other, one) == pytest.approx(0.5)
    assert not is_on_grid_of(other, one)
    assert "0.5 voxels apart at most" in str(other_grid(other, one))
    smaller = read_label(saved(tmp_path / "small.nii.gz", voxels[1:], np.diag([1.0, 2, 3, 1])))
    assert grid_distance(smaller, one) == np.inf
    assert "2x4x5 voxels" in str(other_grid(smaller, one))
