"""Bring a label map onto another grid of the same world, which may be turned or flipped.

``resample.py`` is for grids over one box; here only millimetres count.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from voxseg.data.volume import GRID_TOLERANCE_VOXELS, Volume, affine_distance

_SLAB = 8  # slices at once


def onto_grid(
    label: Volume, affine: np.ndarray[Any, Any], shape: Sequence[int]
) -> tuple[np.ndarray[Any, Any], bool]:
    """Take the nearest voxel of a label map at each voxel centre of a grid.

    Args:
        label: A map whose affine is in mm, or says its unit.
        affine: (4, 4) of the grid, to mm in RAS.
        shape: (X, Y, Z) of the grid.

    Returns:
        Labels on the grid, 0 beyond the map, and whether the grids differ; where they do not, the
        voxels are those of ``label``. Deterministic.
    """
    own = label.affine.copy()
    own[:3] *= label.spacing[0] / float(np.linalg.norm(own[:3, 0]))  # its unit to mm
    shape = tuple(shape)
    if label.shape == shape and affine_distance(own, affine, shape) <= GRID_TOLERANCE_VOXELS:
        return label.array, False
    to_own = np.linalg.solve(own, affine)
    columns, rows = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    moved = np.zeros(shape, label.array.dtype)
    for start in range(0, shape[2], _SLAB):
        depths = np.arange(start, min(start + _SLAB, shape[2]))
        places = [
            columns[..., None] * to_own[axis, 0]
            + rows[..., None] * to_own[axis, 1]
            + depths * to_own[axis, 2]
            + to_own[axis, 3]
            for axis in range(3)
        ]
        # Half a voxel up, so that a place between two voxels goes the same way everywhere.
        indices = [np.floor(place + 0.5).astype(np.int64) for place in places]
        inside = np.logical_and.reduce(
            [(i >= 0) & (i < size) for i, size in zip(indices, label.shape, strict=True)]
        )
        found = np.zeros(inside.shape, label.array.dtype)
        found[inside] = label.array[tuple(i[inside] for i in indices)]
        moved[:, :, depths[0] : depths[-1] + 1] = found
    return moved, True
