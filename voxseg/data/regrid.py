"""Label maps brought onto another grid by their place in the world, and grids said in words.

``resample`` is for grids over the same box; here they may differ in size, place and direction.
"""

import math
from typing import Any

import numpy as np

from voxseg.data.orientation import orientation_of
from voxseg.data.volume import GRID_TOLERANCE_VOXELS, Volume, affine_distance
from voxseg.errors import DataError

_ROUNDING = 6  # decimals of a voxel; without, noise decides where a centre lies halfway
_AXIS_LETTERS = ("RL", "AP", "SI")


def grid_distance(volume: Volume, target: Volume) -> float:
    """How far apart two grids put a corner, in voxels of ``target``; infinite of other shapes.

    Unlike ``check_same_grid`` it compares in mm, whatever the files' units.
    """
    if volume.shape != target.shape:
        return math.inf
    return affine_distance(target.affine_mm, volume.affine_mm, target.shape)


def is_on_grid_of(volume: Volume, target: Volume) -> bool:
    """Tell whether two volumes have the same voxels of the world."""
    return grid_distance(volume, target) <= GRID_TOLERANCE_VOXELS


def other_grid(volume: Volume, image: Volume) -> DataError:
    """Say that a volume lies on another grid than its image, with both, and what to do."""
    apart = grid_distance(volume, image)
    far = "" if apart == math.inf else f" ({apart:.3g} voxels apart at most)"
    return DataError(
        f"{volume.path} lies on another grid than its image{far}: it has {describe_grid(volume)}, "
        f"and {image.path} {describe_grid(image)}; give the image that it was made from, or use "
        "--resample"
    )


def label_on_grid_of(label: Volume, target: Volume) -> np.ndarray[Any, Any]:
    """Take the nearest voxel of ``label`` at the centre of each voxel of ``target``.

    Args:
        label: What is moved.
        target: Gives the grid.

    Returns:
        (X, Y, Z) of ``target``, type of ``label``; 0 beyond it. A centre halfway between two voxels
        takes the one of higher index. Deterministic; memory for one layer of the first axis more.
    """
    matrix = np.linalg.solve(label.affine_mm, target.affine_mm)
    result = np.zeros(target.shape, label.array.dtype)
    rest = np.stack(np.meshgrid(*[np.arange(size) for size in target.shape[1:]], indexing="ij"))
    moved = np.tensordot(matrix[:3, 1:3], rest, 1) + matrix[:3, 3].reshape(3, 1, 1)
    sizes = np.array(label.shape).reshape(3, 1, 1)
    for first, layer in enumerate(result):
        places = moved + matrix[:3, :1].reshape(3, 1, 1) * first
        voxels = np.floor(np.round(places, _ROUNDING) + 0.5).astype(np.int64)
        inside = ((voxels >= 0) & (voxels < sizes)).all(0)
        layer[inside] = label.array[tuple(voxels[:, inside])]
    return result


def map_on_grid_of(volume: Volume, target: Volume) -> np.ndarray[Any, Any]:
    """Interpolate ``volume`` linearly at the centre of each voxel of ``target``; 0 beyond it."""
    from scipy.ndimage import affine_transform

    matrix = np.linalg.solve(volume.affine_mm, target.affine_mm)
    result: np.ndarray[Any, Any] = affine_transform(
        volume.array,
        matrix[:3, :3],
        matrix[:3, 3],
        output_shape=target.shape,
        order=1,
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
    first = ", ".join(f"{mm:.4g}" for mm in volume.affine_mm[:3, 3])
    size = "x".join(str(n) for n in volume.shape)
    spacing = "x".join(f"{mm:.4g}" for mm in volume.spacing)
    return f"{size} voxels of {spacing} mm, axes {''.join(letters)}, first voxel at ({first}) mm"
