"""What 3D Slicer looks at when a scene opens: where slices lie, how large, how bright."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PERCENTILES = (0.5, 99.5)  # of what is above the image's minimum
_MOST_BLACK = 0.05
_MOST_SAMPLES = 2**22


@dataclass(frozen=True)
class View:
    """A place and sizes, in mm of the world (RAS)."""

    centre: tuple[float, float, float]
    """Where the three slices cut each other: a voxel of the mask, if it has one."""
    middle: tuple[float, float, float]
    """Of the whole image."""
    extent: tuple[float, float, float]
    """Of the whole image along right, anterior, superior."""
    radius: float
    """Of a ball around ``centre`` that holds the mask; the image, where the mask is empty."""


def view_of(label: NDArray[Any], affine: NDArray[np.float64]) -> View:
    """Find where to look at a mask.

    The centre is the voxel of the mask next to its centroid, for that may lie between left and
    right, where no slice shows anything; or better the middle of the label there, if it holds its
    own middle.

    Args:
        label: (X, Y, Z); 0 is background.
        affine: (4, 4), voxel indices to mm, RAS.
    """
    whole = _corners([(0, size - 1) for size in label.shape], affine)
    extent, middle = whole.max(0) - whole.min(0), whole.mean(0)
    box, centroid = _box_and_centroid(label)
    if box is None:
        centre, corners = middle, whole
    else:
        voxel = _middle(label, _nearest(label, centroid, affine[:3, :3]))
        centre, corners = affine[:3, :3] @ voxel + affine[:3, 3], _corners(box, affine)
    radius = float(np.linalg.norm(corners - centre, axis=1).max())
    return View(_three(centre), _three(middle), _three(extent), radius)


def window_of(image: NDArray[Any]) -> tuple[float, float]:
    """Find the intensities to be black and white, which a few bright voxels do not move.

    Args:
        image: (X, Y, Z) finite; of a large one, evenly spaced voxels are looked at.
    """
    flat = image.reshape(-1)
    sample = flat[:: max(1, flat.size // _MOST_SAMPLES)]
    inside = sample[sample > sample.min()]
    if not inside.size:
        return float(sample[0]), float(sample[0]) + 1
    low, high = (float(value) for value in np.percentile(inside, _PERCENTILES))
    if np.count_nonzero(inside <= low) > _MOST_BLACK * inside.size:  # few values, as of a phantom
        low = float(sample.min())
    return low, high


def _corners(box: list[tuple[int, int]], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the eight outer corners (8, 3) in mm of voxels from first to last on each axis."""
    sides = [(first - 0.5, last + 0.5) for first, last in box]
    voxels = np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, 3)
    corners: NDArray[np.float64] = voxels @ affine[:3, :3].T + affine[:3, 3]
    return corners


def _box_and_centroid(
    label: NDArray[Any],
) -> tuple[list[tuple[int, int]] | None, NDArray[np.float64]]:
    """Return first and last voxel on each axis, None if there are none, and the mean voxel."""
    counts = [np.zeros(size, np.int64) for size in label.shape]
    for first, layer in enumerate(label):
        mask = layer != 0
        counts[0][first] = np.count_nonzero(mask)
        counts[1] += np.count_nonzero(mask, axis=1)
        counts[2] += np.count_nonzero(mask, axis=0)
    total = int(counts[0].sum())
    if not total:
        return None, np.zeros(3)
    places = [np.flatnonzero(count) for count in counts]
    box = [(int(place[0]), int(place[-1])) for place in places]
    return box, np.array([count @ np.arange(len(count)) / total for count in counts])


def _nearest(
    label: NDArray[Any], centroid: NDArray[np.float64], matrix: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return a voxel of the mask near its centroid: the nearest in mm, in a cube that has any."""
    start, reach = np.rint(centroid).astype(np.int64), 1
    while True:
        low = np.maximum(start - reach, 0)
        cube = label[tuple(slice(a, b) for a, b in zip(low, start + reach + 1, strict=True))]
        found = np.argwhere(cube) + low
        if len(found):
            distances = (((found - centroid) @ matrix.T) ** 2).sum(1)
            nearest: NDArray[np.int64] = found[distances.argmin()]
            return nearest
        reach *= 2


def _middle(label: NDArray[Any], voxel: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the middle voxel of the label at ``voxel``, or that itself where it has none."""
    value = label[tuple(voxel)]
    _, centroid = _box_and_centroid(label == value)
    middle = np.rint(centroid).astype(np.int64)
    return middle if label[tuple(middle)] == value else voxel


def _three(numbers: NDArray[np.float64]) -> tuple[float, float, float]:
    first, second, third = (float(number) for number in numbers)
    return first, second, third
