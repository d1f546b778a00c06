"""Small volumes on disk, shared by the tests of the data room."""

import nibabel as nib
import numpy as np
import pytest

OBLIQUE_LEFT_HANDED = np.array(
    [[-0.9, 0.2, 0.1, 12.5], [0.15, 1.4, -0.1, -7.25], [0.1, 0.3, 2.1, 3.5], [0, 0, 0, 1]]
)


@pytest.fixture
def affine():
    """An oblique, left-handed, anisotropic affine: nothing about it is symmetric."""
    return OBLIQUE_LEFT_HANDED.copy()


@pytest.fixture
def phantom(rng):
    """Image and label (5, 6, 7) without any symmetry."""
    label = np.zeros((5, 6, 7), np.uint8)
    label[1:3, 2:5, 1:6] = 1
    label[3, 4, 2:4] = 4
    image = (label * 100 + rng.integers(1, 30, label.shape)).astype(np.int16)
    return image, label


@pytest.fixture
def save():
    """Write an array as NIfTI; folders are made."""

    def write(path, array, affine=None, edit=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        image = nib.Nifti1Image(array, np.diag([0.9, 1.5, 2.0, 1.0]) if affine is None else affine)
        if edit is not None:
            edit(image.header)
            image = nib.Nifti1Image(array, None, image.header)
        nib.save(image, path)
        return path

    return write


@pytest.fixture
def save_cases(save, phantom):
    """Write a label or image under each of the names given, all on one grid."""

    def write(root, *names):
        image, label = phantom
        for number, name in enumerate(names):
            is_label = any(word in name for word in ("seg", "label", "mask"))
            save(root / name, label if is_label else image + np.int16(number))
        return root

    return write
