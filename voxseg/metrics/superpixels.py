"""How good a partition is: what a perfect classifier of its regions could reach, and what is lost.

Source: oracle performance as in Schuurmans, Berman, Blaschko, arXiv:1806.02705, section 4;
explained variance, Moore et al., CVPR 2008; undersegmentation error without the penalty for large
regions, Neubert & Protzel, *Superpixel benchmark and comparison*, 2012; boundary recall, Martin,
Fowlkes, Malik, TPAMI 26(5), 2004.
Departures: boundary recall's tolerance is a cube of voxels, not a share of the image's diagonal.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

Array = NDArray[Any]
Ints = NDArray[np.integer[Any]]


def oracle_label(superpixels: Ints, label: Ints) -> Ints:
    """Give every superpixel the class that most of its voxels have.

    Args:
        superpixels: (*S) integer, negative outside.
        label: (*S) integer classes.

    Returns:
        (*S) of the dtype of ``label``. Of equally frequent classes the lowest is taken; voxels
        outside are 0.
    """
    votes, classes = _votes(superpixels, label)
    if not votes.size:
        return np.zeros_like(label)
    winners = classes[votes.argmax(axis=1)].astype(label.dtype)
    result: Ints = np.where(superpixels >= 0, winners[np.maximum(superpixels, 0)], 0)
    return result.astype(label.dtype, copy=False)


def oracle_dice(
    superpixels: Ints, label: Ints, classes: Iterable[int] | None = None
) -> dict[int, float]:
    """Dice of ``oracle_label`` against the truth: the best that labelling whole superpixels gives.

    Args:
        superpixels: (*S) integer, negative outside; voxels outside count as class 0.
        label: (*S) integer.
        classes: which to score; all of ``label`` but 0 if not given.

    Returns:
        Class -> Dice; NaN for a class that neither the truth nor the oracle has.
    """
    votes, values = _votes(superpixels, label)
    winners = values[votes.argmax(axis=1)] if votes.size else np.zeros(len(votes), values.dtype)
    found, sizes = np.unique(label, return_counts=True)
    true = dict(zip(found.tolist(), sizes.tolist(), strict=True))
    outside = label[superpixels < 0]
    scores = {}
    for value in [v for v in true if v != 0] if classes is None else classes:
        chosen = votes[winners == value]
        both, predicted = int(chosen[:, values == value].sum()), int(chosen.sum())
        if value == 0:
            both += int(np.count_nonzero(outside == 0))
            predicted += outside.size
        total = predicted + true.get(value, 0)
        scores[int(value)] = 2 * both / total if total else math.nan
    return scores


def explained_variance(image: Array, superpixels: Ints) -> float:
    """Share of the image's variance that lies between superpixels rather than within them.

    Args:
        image: (*S), or (C, *S) with the variances of the channels added up.
        superpixels: (*S) integer; negative voxels are left out.

    Returns:
        Between 0 and 1; NaN for an image without variance.
    """
    inside = superpixels >= 0
    regions = superpixels[inside]
    sizes = np.maximum(np.bincount(regions), 1)
    within = total = 0.0
    for channel in image if image.ndim > superpixels.ndim else image[None]:
        values = channel[inside].astype(np.float64)
        values -= values.mean() if values.size else 0.0
        sums = np.bincount(regions, weights=values)
        total += float(values @ values)
        within += float(values @ values - (sums / sizes) @ sums)
    return 1 - within / total if total > 0 else math.nan


def undersegmentation_error(superpixels: Ints, label: Ints) -> float:
    """Share of voxels by which superpixels leak over the borders of classes.

    For every class and every superpixel that meets it, the smaller of the parts inside and outside
    the class is counted; the sum is divided by the number of voxels in superpixels.

    Args:
        superpixels: (*S) integer; negative voxels are left out.
        label: (*S) integer classes.

    Returns:
        0 when no superpixel crosses a border; NaN without a superpixel.
    """
    votes, _ = _votes(superpixels, label)
    total = int(votes.sum())
    leaks = np.minimum(votes, votes.sum(axis=1, keepdims=True) - votes)
    return int(leaks.sum()) / total if total else math.nan


def boundary_recall(superpixels: Ints, label: Ints, tolerance_voxels: int = 1) -> float:
    """Share of the classes' boundary voxels that have a boundary of superpixels nearby.

    Args:
        superpixels: (*S) integer; negative voxels form one region.
        label: (*S) integer classes.
        tolerance_voxels: how far it may be, along each axis.

    Returns:
        Between 0 and 1; NaN when ``label`` has no boundary.
    """
    if tolerance_voxels < 0:
        raise ValueError(f"tolerance_voxels must not be negative, got {tolerance_voxels}")
    _check(superpixels, label)
    truth = _boundary(label)
    near = scipy.ndimage.maximum_filter(
        _boundary(np.maximum(superpixels, -1)), size=2 * tolerance_voxels + 1, mode="nearest"
    )
    total = int(np.count_nonzero(truth))
    return int(np.count_nonzero(truth & near)) / total if total else math.nan


def _check(superpixels: Ints, label: Ints) -> None:
    """Refuse maps that are not integers on one grid."""
    for name, array in (("superpixels", superpixels), ("label", label)):
        if not np.issubdtype(array.dtype, np.integer):
            raise TypeError(f"{name} must be integer, got dtype {array.dtype}")
    if superpixels.shape != label.shape:
        raise ValueError(
            f"superpixels {superpixels.shape} and label {label.shape} must have the same shape"
        )


def _votes(superpixels: Ints, label: Ints) -> tuple[NDArray[np.int64], Ints]:
    """Count voxels by superpixel and class, (K, classes); also the value of each class."""
    _check(superpixels, label)
    inside = superpixels >= 0
    classes, index = np.unique(label[inside], return_inverse=True)
    count = int(superpixels.max(initial=-1)) + 1
    cell = superpixels[inside].astype(np.int64) * len(classes) + index
    votes = np.bincount(cell, minlength=count * len(classes)).astype(np.int64)
    return votes.reshape(count, len(classes)), classes


def _boundary(regions: Ints) -> NDArray[np.bool_]:
    """Mark voxels that have another value across one of their faces."""
    marked = np.zeros(regions.shape, np.bool_)
    for axis in range(regions.ndim):
        here, there = np.moveaxis(regions, axis, 0)[:-1], np.moveaxis(regions, axis, 0)[1:]
        edge = here != there
        lines = np.moveaxis(marked, axis, 0)
        lines[:-1] |= edge
        lines[1:] |= edge
    return marked
