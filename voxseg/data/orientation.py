"""Axis order and direction: bring an array to RAS+ and back without touching a value.

Training mixes subjects whose arrays may run left-to-right or right-to-left; flips and coordinate
channels only make sense once all run the same way. Only permutations and flips happen here, so the
way back is exact for any affine, oblique and left-handed ones included.
"""

from dataclasses import dataclass
from itertools import permutations

import numpy as np


@dataclass(frozen=True)
class Orientation:
    """Which array axis runs along which world axis, and whether against it."""

    axes: tuple[int, ...]
    """Entry ``d`` is the source axis closest to world axis ``d`` (right, anterior, superior)."""
    flipped: tuple[bool, ...]
    """Entry ``d`` says whether that source axis runs against world axis ``d``."""

    def to_ras(self, array: np.ndarray) -> np.ndarray:
        """Permute and flip ``array`` (*S) to RAS+ order; a view."""
        moved = array.transpose(self.axes)
        return moved[tuple(slice(None, None, -1 if f else 1) for f in self.flipped)]

    def from_ras(self, array: np.ndarray) -> np.ndarray:
        """Undo ``to_ras``; a view."""
        back = array[tuple(slice(None, None, -1 if f else 1) for f in self.flipped)]
        return back.transpose(np.argsort(self.axes))


def orientation_of(affine: np.ndarray) -> Orientation:
    """Find the permutation and flips that bring an array with ``affine`` (4, 4) closest to RAS+.

    Axes are matched one to one by the largest total cosine between voxel axes and world axes.
    """
    linear = affine[:3, :3]
    cosines = linear / np.maximum(np.linalg.norm(linear, axis=0), np.finfo(float).tiny)
    size, dims = np.abs(cosines), range(len(cosines))
    # Of the few ways to pair the axes the best; SciPy's assignment takes a quarter second to load.
    axes = max(permutations(dims), key=lambda axes: float(size[dims, axes].sum()))
    return Orientation(axes, tuple(bool(cosines[d, a] < 0) for d, a in enumerate(axes)))
