"""Bring a label map onto another grid of the world, by the nearest voxel.

Unlike ``resample``, grids may differ in everything: size, place, direction.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROUNDING = 6  # decimals of a voxel; without, noise decides where a centre lies halfway


def label_on_grid(
    label: NDArray[Any],
    affine: NDArray[np.float64],
    shape: tuple[int, ...],
    onto: NDArray[np.float64],
) -> NDArray[Any]:
    """Take the nearest voxel of ``label`` at each voxel centre of another grid.

    Args:
        label: (X, Y, Z).
        affine: (4, 4), its voxel indices to mm.
        shape: Of the other grid.
        onto: (4, 4), voxel indices of the other grid to the same mm.

    Returns:
        ``shape``, type of ``label``; 0 beyond it. A centre halfway between two voxels takes the one
        of higher index. Deterministic; extra memory of one layer of the first axis.
    """
    matrix = np.linalg.solve(affine, onto)
    result = np.zeros(shape, label.dtype)
    rest = np.stack(np.meshgrid(*[np.arange(size) for size in shape[1:]], indexing="ij"))
    moved = np.tensordot(matrix[:3, 1:3], rest, 1) + matrix[:3, 3].reshape(3, 1, 1)
    sizes = np.array(label.shape).reshape(3, 1, 1)
    for first, layer in enumerate(result):
        places = moved + matrix[:3, :1].reshape(3, 1, 1) * first
        voxels = np.floor(np.round(places, _ROUNDING) + 0.5).astype(np.int64)
        inside = ((voxels >= 0) & (voxels < sizes)).all(0)
        layer[inside] = label[tuple(voxels[:, inside])]
    return result
