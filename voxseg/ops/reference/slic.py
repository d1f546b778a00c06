"""SLIC in NumPy and SciPy: the definition of correct.

Source: Achanta, Shaji, Smith, Lucchi, Fua, Süsstrunk, *SLIC superpixels compared to
state-of-the-art superpixel methods*, TPAMI 34(11), 2012. Departures: see ``voxseg/ops/slic.py``.
"""

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from voxseg.ops.slic_plan import VALUE_LEVELS, SlicPlan

Labels = NDArray[np.int32]


def assign_cells(plan: SlicPlan, iterations: int) -> tuple[Labels, int]:
    """Run SLIC's iterations, without connectivity.

    Args:
        plan: from ``make_plan``.
        iterations: rounds of assignment, at least 1.

    Returns:
        (Z, Y, X) int32: the grid cell whose centre each voxel chose, -1 outside the mask; and how
        many cells have a voxel of the mask.
    """
    labels = np.full(plan.image.shape[1:], -1, np.int32)
    if plan.num_voxels == 0:
        return labels, 0
    mask = plan.mask if plan.mask.size else np.ones(labels.shape, np.bool_)
    position = np.argwhere(mask)
    offset, factor = plan.scaling[:, :1], plan.scaling[:, 1:]
    value = ((plan.image[:, mask] - offset) * factor).astype(np.float32).T
    home = np.stack(
        [
            np.repeat(np.arange(cells), np.diff(np.arange(cells + 1) * (stop - start) // cells))[
                position[:, axis] - start
            ]
            for axis, (cells, (start, stop)) in enumerate(
                zip(plan.num_cells, plan.box, strict=True)
            )
        ],
        axis=1,
    )
    nearest = np.ravel_multi_index(tuple(home.T), plan.num_cells)
    num_cells = int(np.prod(plan.num_cells))
    is_alive = np.bincount(nearest, minlength=num_cells) > 0
    centres = np.zeros((num_cells, 3 + value.shape[1]), np.float32)
    for _ in range(iterations):
        _move_centres(centres, nearest, position, value, plan.levels)
        nearest = _nearest(centres, is_alive, home, position, value, plan)
    labels[mask] = nearest
    return labels, int(is_alive.sum())


def _move_centres(
    centres: NDArray[np.float32],
    nearest: NDArray[np.int64],
    position: NDArray[np.int64],
    value: NDArray[np.float32],
    levels: np.float32,
) -> None:
    """Set every centre that has voxels to their mean."""
    steps = (np.minimum(value * levels, np.float32(VALUE_LEVELS)) + np.float32(0.5)).astype(int)
    sizes = np.bincount(nearest, minlength=len(centres))
    chosen = sizes > 0
    for field, rows in enumerate(np.concatenate([position, steps], axis=1).T):
        # Sums of whole numbers are exact in float64, whatever their order.
        sums = np.bincount(nearest, weights=rows, minlength=len(centres))
        scale = 1.0 if field < 3 else np.float64(levels)
        centres[chosen, field] = sums[chosen] / (sizes[chosen] * scale)


def _nearest(
    centres: NDArray[np.float32],
    is_alive: NDArray[np.bool_],
    home: NDArray[np.int64],
    position: NDArray[np.int64],
    value: NDArray[np.float32],
    plan: SlicPlan,
) -> NDArray[np.int64]:
    """Find the nearest centre among the cells around each voxel's home cell.

    Distances are compared without their five lowest bits, so that ties are common knowledge: the
    lowest cell wins them.
    """
    best = np.full(len(home), np.iinfo(np.int32).max, np.int32)
    nearest = np.full(len(home), -1, np.int64)
    voxel = position.astype(np.float32)
    for step in itertools.product((-1, 0, 1), repeat=3):
        cell = home + step
        is_inside = ((cell >= 0) & (cell < plan.num_cells)).all(axis=1)
        index = np.ravel_multi_index(tuple(cell.T), plan.num_cells, mode="clip")
        candidate = is_inside & is_alive[index]
        centre = centres[index]
        dz, dy, dx = (voxel - centre[:, :3]).T
        distance = dy * dy * plan.weights[1] + dx * dx * plan.weights[2]
        distance = distance + dz * dz * plan.weights[0]
        for e in (value - centre[:, 3:]).T:
            distance = distance + e * e
        key = distance.view(np.int32) & ~np.int32(31)
        wins = candidate & (key < best)
        best[wins] = key[wins]
        nearest[wins] = index[wins]
    return nearest


def merge_small(labels: Labels, min_voxels: float) -> tuple[Labels, int]:
    """Make every label one connected component of at least a given size.

    Args:
        labels: (*S) integer; negative labels are left out.
        min_voxels: components smaller than this join the larger neighbour with the longest
            contact; ties go to the one that comes first.

    Returns:
        (*S) int32: 0 to K - 1 in raster order of the first voxel, -1 for negative labels; and K.
    """
    regions = np.full(labels.shape, -1, np.int32)
    for label in np.unique(labels[labels >= 0]):
        pieces, _ = ndimage.label(labels == label)
        regions[pieces > 0] = pieces[pieces > 0] + regions.max()
    regions = _in_raster_order(regions)
    while True:
        sizes = np.bincount(regions[regions >= 0])
        faces = _faces(regions, len(sizes))
        target = np.arange(len(sizes))
        for region in np.flatnonzero(sizes < min_voxels):
            others = [
                other
                for other in np.flatnonzero(faces[region])
                if (sizes[other], -other) > (sizes[region], -region)
            ]
            if others:
                target[region] = max(others, key=lambda other: (faces[region, other], -other))
        if (target == np.arange(len(sizes))).all():
            return regions, len(sizes)
        while not np.array_equal(target[target], target):
            target = target[target]
        # Earlier regions keep their rank, so the next round breaks ties as this one does.
        regions = np.where(regions >= 0, target[regions], -1).astype(np.int32)
        regions = _in_raster_order(regions)


def _in_raster_order(regions: Labels) -> Labels:
    """Number regions by their first voxel."""
    values, first, inverse = np.unique(regions, return_index=True, return_inverse=True)
    first[values < 0] = -1
    rank = np.argsort(np.argsort(first)) - np.count_nonzero(values < 0)
    return rank.astype(np.int32)[inverse].reshape(regions.shape)


def _faces(regions: Labels, count: int) -> NDArray[np.int64]:
    """Count the faces between every two regions: (K, K)."""
    faces = np.zeros((count, count), np.int64)
    for axis in range(regions.ndim):
        lines = np.moveaxis(regions, axis, 0)
        one, other = lines[:-1].ravel(), lines[1:].ravel()
        touching = (one >= 0) & (other >= 0) & (one != other)
        np.add.at(faces, (one[touching], other[touching]), 1)
        np.add.at(faces, (other[touching], one[touching]), 1)
    return faces
