"""Distances between the surfaces of two masks: HD95, ASSD and surface Dice.

Source: Huttenlocher, Klanderman, Rucklidge, *Comparing images using the Hausdorff distance*, TPAMI
15(9), 1993; Nikolov et al., arXiv:1809.04430, for surface Dice at a tolerance.
A surface voxel is a voxel of the mask with one of its face neighbours (6 in 3D, 4 in 2D) outside,
and all beyond the array is outside. Distances, in mm, are between centres of surface voxels.

Departures: surface Dice counts surface voxels where Nikolov et al. weigh by surface area.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from voxseg.metrics.overlap import check_masks


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """How far every surface voxel of one mask is from the nearest of the other, both ways."""

    from_prediction: NDArray[np.float64]
    """(P,) mm, one for each surface voxel of the prediction."""
    from_truth: NDArray[np.float64]
    """(T,) mm, one for each surface voxel of the truth."""
    is_empty: bool = False
    """Whether one of the masks or both are empty; then there are no distances."""

    @property
    def hd95_mm(self) -> float:
        """The larger of the two directed 95th percentiles; NaN if a mask is empty.

        Percentiles are interpolated linearly. Pooling the distances of both directions before
        taking one percentile, as some programs do, gives a smaller number.
        """
        if self.is_empty:
            return math.nan
        percentiles = [np.percentile(d, 95) for d in (self.from_prediction, self.from_truth)]
        return float(max(percentiles))

    @property
    def assd_mm(self) -> float:
        """Mean over the distances of both directions together; NaN if a mask is empty."""
        if self.is_empty:
            return math.nan
        total = self.from_prediction.sum() + self.from_truth.sum()
        return float(total / (self.from_prediction.size + self.from_truth.size))

    def surface_dice(self, tolerance_mm: float) -> float:
        """Share of both surfaces' voxels that lie within ``tolerance_mm`` of the other surface.

        Returns:
            In [0, 1]; 0 if one mask is empty, NaN if both are.
        """
        if tolerance_mm < 0:
            raise ValueError(f"tolerance_mm must not be negative, got {tolerance_mm}")
        total = self.from_prediction.size + self.from_truth.size
        if total == 0:
            return math.nan
        # Rounding of square roots must not put a voxel at exactly the tolerance outside.
        limit = tolerance_mm * (1 + 1e-9)
        near = np.count_nonzero(self.from_prediction <= limit)
        return float((near + np.count_nonzero(self.from_truth <= limit)) / total)


def surface_distances(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float]
) -> SurfaceDistances:
    """Measure the distances between the surfaces of two masks, once for all metrics.

    Args:
        prediction: (*S) boolean. Axes of size one are left out, so that a single slice has a
            contour.
        truth: (*S) boolean.
        spacing: voxel size in mm along each axis of S.

    Returns:
        Distances in mm. If one mask is empty, those of the other's surface voxels are infinite.

    Raises:
        TypeError: a mask is not boolean.
        ValueError: shapes differ, or ``spacing`` does not fit them.
    """
    check_masks(prediction, truth)
    if len(spacing) != prediction.ndim or not all(s > 0 and math.isfinite(s) for s in spacing):
        raise ValueError(
            f"spacing must be {prediction.ndim} positive sizes in mm, got {tuple(spacing)}"
        )
    kept = [axis for axis, size in enumerate(prediction.shape) if size > 1]
    spacing = [spacing[axis] for axis in kept] or [1.0]
    shape = [prediction.shape[axis] for axis in kept] or [1]
    prediction, truth = prediction.reshape(shape), truth.reshape(shape)

    box = bounding_box(prediction | truth)
    surfaces = [surface_voxels(mask[box]) for mask in (prediction, truth)]
    sizes = [int(np.count_nonzero(surface)) for surface in surfaces]
    if 0 in sizes:
        from_prediction, from_truth = (np.full(size, math.inf) for size in sizes)
        return SurfaceDistances(from_prediction, from_truth, is_empty=True)
    to_prediction, to_truth = (
        scipy.ndimage.distance_transform_edt(~surface, sampling=spacing) for surface in surfaces
    )
    return SurfaceDistances(to_truth[surfaces[0]], to_prediction[surfaces[1]])


def surface_voxels(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the voxels of ``mask`` (*S) that have a face neighbour outside it."""
    inside = mask.copy()
    for axis in range(mask.ndim):
        moved, rolled = np.moveaxis(inside, axis, 0), np.moveaxis(mask, axis, 0)
        moved[1:] &= rolled[:-1]
        moved[:-1] &= rolled[1:]
        moved[:1] = False
        moved[-1:] = False
    return mask & ~inside


def bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Smallest box around the voxels of ``mask`` (*S); empty slices if it has none."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        used = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 0))
    return tuple(box)
