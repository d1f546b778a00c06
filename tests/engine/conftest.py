"""Small simulated subjects on disk, and settings that train on them in seconds."""

import nibabel as nib
import numpy as np
import pytest

# Two classes whose values are not consecutive, on a left-handed, anisotropic grid.
LABELS = (0, 2, 5)


def write_subject(folder, name, seed, shape=(22, 19, 17), spacing=(1.0, 1.5, 1.0)):
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    shift = rng.uniform(-0.15, 0.15, 3)
    radius = np.sqrt(sum((a - s) ** 2 for a, s in zip(axes, shift, strict=True)))
    label = np.zeros(shape, np.int16)
    label[radius < 0.75] = 2
    label[radius < 0.4] = 5
    image = np.choose(np.searchsorted(LABELS, label), [30.0, 90.0, 150.0])
    image = image * rng.uniform(0.8, 1.3) + rng.normal(0, 6, shape)
    image[radius > 0.95] = 0
    affine = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    affine[:3, 3] = [40, -12, 7]
    nib.save(nib.Nifti1Image(image.astype(np.float32), affine), folder / f"{name}.nii.gz")
    nib.save(nib.Nifti1Image(label, affine), folder / f"{name}_seg.nii.gz")


def write_subjects(folder, count, seed=0):
    folder.mkdir(parents=True)
    for number in range(count):
        write_subject(folder, f"case{number}", seed=seed + number)
    return folder


@pytest.fixture(scope="session")
def make_subjects():
    """Write a number of subjects with labels into a new folder, and return it."""
    return write_subjects


@pytest.fixture
def subjects(tmp_path):
    """A folder of four subjects with labels."""
    return write_subjects(tmp_path / "data", 4)


@pytest.fixture(scope="session")
def quick_settings():
    """Nested settings: a tiny V3, a few steps."""
    return {
        "model": {"design": "V3", "stages": 1, "width_divisor": 8},
        "supervoxels": {"method": "slic", "size_mm": 3.0},
        "train": {
            "epochs": 4,
            "steps_per_epoch": 3,
            "patch_voxels": [16, 16, 16],
            "validate_every": 2,
            "learning_rate": 5e-3,
            "precision": "float32",
        },
    }


@pytest.fixture
def quick(quick_settings):
    """The quick settings, for tests that use no other scope."""
    return quick_settings
