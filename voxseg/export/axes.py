"""Which array axis runs where in the body, and arrays turned to run right, front and up.

Only permutations and flips; the affine goes along, so every voxel keeps its place in the world.
"""

from collections.abc import Mapping
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray


def cosines(affine: NDArray[Any]) -> NDArray[Any]:
    """Absolute cosines between world axes (rows) and array axes (columns)."""
    linear = np.asarray(affine, dtype=np.float64)[:3, :3]
    return np.asarray(np.abs(linear) / np.linalg.norm(linear, axis=0))


def nearest_axes(affine: NDArray[Any]) -> tuple[int, ...]:
    """Array axis nearest to each of right, anterior and superior, one for each."""
    found = cosines(affine)
    return max(
        permutations(range(3)), key=lambda axes: sum(found[i, a] for i, a in enumerate(axes))
    )


def to_ras(
    arrays: Mapping[str, NDArray[Any]], affine: NDArray[Any]
) -> tuple[dict[str, NDArray[Any]], NDArray[np.float64]]:
    """Permute and flip arrays of one grid to RAS+ order, and their affine with them.

    Args:
        arrays: (X, Y, Z) each, at least one.
        affine: (4, 4), voxel indices to world coordinates in RAS+.

    Returns:
        Views of the arrays, and their affine.
    """
    axes = nearest_axes(affine)
    shape = next(iter(arrays.values())).shape
    turned = np.asarray(affine, dtype=np.float64)[:, [*axes, 3]]
    flips = []
    for world, axis in enumerate(axes):
        is_flipped = turned[world, world] < 0
        flips.append(slice(None, None, -1 if is_flipped else 1))
        if is_flipped:
            turned[:, 3] += (shape[axis] - 1) * turned[:, world]
            turned[:, world] *= -1
    return {name: array.transpose(axes)[tuple(flips)] for name, array in arrays.items()}, turned
