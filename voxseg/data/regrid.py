"""Volumes brought onto the grid of another one, by their place in the world in mm.

Source: ``scipy.ndimage.affine_transform``. ``resample`` is for grids over the same box; here they
may lie anywhere.
"""

from typing import Any

import numpy as np

from voxseg.data.orientation import orientation_of
from voxseg.data.volume import Volume

_AXIS_LETTERS = ("RL", "AP", "SI")


def affine_mm(volume: Volume) -> np.ndarray[Any, Any]:
    """Affine (4, 4) to world coordinates in mm, whatever the file's unit."""
    affine = volume.affine.copy()
    affine[:3] *= volume.spacing[0] / float(np.linalg.norm(volume.affine[:3, 0]))
    return affine


def on_grid_of(volume: Volume, target: Volume, order: int = 0) -> np.ndarray[Any, Any]:
    """Take the value of ``volume`` at the centre of each voxel of ``target``.

    Args:
        volume: What is moved.
        target: Gives the grid.
        order: 0 takes the nearest voxel (for labels), 1 interpolates linearly.

    Returns:
        (X, Y, Z) of ``target``, type of ``volume``; 0 outside of ``volume``. Deterministic.
    """
    from scipy.ndimage import affine_transform

    between = np.linalg.solve(affine_mm(volume), affine_mm(target))
    result: np.ndarray[Any, Any] = affine_transform(
        volume.array,
        between[:3, :3],
        between[:3, 3],
        output_shape=target.shape,
        order=order,
        mode="grid-constant",
        cval=0,
    )
    return result


def describe_grid(volume: Volume) -> str:
    """Say where a volume lies: size, spacing, directions of its axes, and its first voxel."""
    orientation = orientation_of(volume.affine)
    letters = [""] * 3
    for world, (axis, flipped) in enumerate(
        zip(orientation.axes, orientation.flipped, strict=True)
    ):
        letters[axis] = _AXIS_LETTERS[world][int(flipped)]
    first = ", ".join(f"{mm:.4g}" for mm in affine_mm(volume)[:3, 3])
    size = "x".join(str(n) for n in volume.shape)
    spacing = "x".join(f"{mm:.4g}" for mm in volume.spacing)
    return f"{size} voxels of {spacing} mm, axes {''.join(letters)}, first voxel at ({first}) mm"
