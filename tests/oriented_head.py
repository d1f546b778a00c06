"""A head that no flip, turn or swap of axes leaves alike, on grids of every orientation.

Letters lie where they say: L at the patient's left, A in front, S on top; each is a label of its
own, and no two are of one size. All is defined in mm, so the same voxels of the world carry the
same label on each grid.
"""

import itertools

import nibabel as nib
import numpy as np

LABELS = {1: "L", 2: "A", 5: "S"}
CENTRE = np.array([12.0, -7.0, 21.0])  # of the head in mm, RAS; not the origin, on purpose
# Centre from that of the head, and half sizes, in mm.
_BOXES = {
    1: ((-14, 0, -4), (6, 9, 5)),
    2: ((0, 17, 0), (10, 5, 7)),
    5: ((3, -3, 18), (5, 12, 4)),
}
_SPACING = np.array([2.0, 2.5, 3.0])
_SHAPE = np.array([28, 26, 20])  # before axes are swapped


def oriented_affines():
    """All eight directions of three axes, and one oblique, by name: each 4 x 4 and a shape."""
    found = {}
    for signs in itertools.product((1, -1), repeat=3):
        name = "".join("RL"[s < 0] if a == 0 else "AP"[s < 0] if a == 1 else "SI"[s < 0]
                       for a, s in enumerate(signs))  # fmt: skip
        found[name] = _affine(np.diag(signs).astype(float))
    tilt, turn = np.radians([17, -23])
    first = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    second = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    found["oblique"] = _affine(first @ second @ np.diag([-1.0, 1, 1])[:, [2, 0, 1]])
    return found


def _affine(directions):
    affine = np.eye(4)
    affine[:3, :3] = directions * _SPACING
    affine[:3, 3] = CENTRE - affine[:3, :3] @ ((_SHAPE - 1) / 2)
    # As the header will store it.
    return affine.astype(np.float32).astype(np.float64)


def phantom(affine):
    """Return image (float32) and label (uint8) on the grid of ``affine``."""
    voxels = np.stack(np.meshgrid(*[np.arange(n) for n in _SHAPE], indexing="ij"), -1)
    place = voxels @ affine[:3, :3].T + affine[:3, 3] - CENTRE
    label = np.zeros(tuple(_SHAPE), np.uint8)
    for value, (middle, half) in _BOXES.items():
        label[(np.abs(place - middle) <= half).all(-1)] = value
    image = 20.0 + 80 * (np.linalg.norm(place / [24, 28, 26], axis=-1) < 1) + 10.0 * label
    return image.astype(np.float32), label


def write_phantom(folder, affine, name="head"):
    """Write ``NAME.nii.gz`` and ``NAME_seg.nii.gz``; return both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"{name}.nii.gz", folder / f"{name}_seg.nii.gz"
    for path, array in zip(paths, phantom(affine), strict=True):
        nib.save(nib.Nifti1Image(array, affine), path)
    return paths


def centroids(path):
    """Mean place in mm (RAS) of every label of a NIfTI file, by nibabel alone."""
    image = nib.load(path)
    label = np.asarray(image.dataobj)
    return {
        int(value): nib.affines.apply_affine(image.affine, np.argwhere(label == value).mean(0))
        for value in np.unique(label[label > 0])
    }
