"""What makes a volume small enough for a page: crop, 256 grey values, fewer voxels.

Each step keeps the geometry: the affine that comes back puts every voxel that is left where it was.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

STEPS = 255
"""Highest grey value of a byte."""

_MARGIN_MM = 10.0
_BODY = 0.1  # of the way from the lowest to a high intensity: above it is head, not air
_SPARSE = 0.001  # of a slice; one with less head is outside
_WORTH = 0.9  # a crop that keeps more of the voxels than this is not made
_RANGE = (0.05, 99.95)  # percentiles that the 256 grey values span
_SAMPLES = 2_000_000  # voxels that percentiles are taken from
_FEWEST = 8  # voxels along an axis

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Greys:
    """How a byte stands for an intensity: ``low + byte * step``."""

    low: float
    high: float
    is_exact: bool = False
    """Whether every intensity of the volume is one of the 256."""

    @property
    def step(self) -> float:
        """Intensities between two bytes."""
        return (self.high - self.low) / STEPS


def body_box(
    image: NDArray[Any] | None, masks: Sequence[NDArray[Any]], spacing: Sequence[float]
) -> Box:
    """Find the box around the body and all that is segmented, with a margin of 10 mm.

    Args:
        image: (X, Y, Z); None leaves the masks alone to say.
        masks: Label maps on the same grid; what is above 0 is kept whole.
        spacing: Voxel size in mm.

    Returns:
        The box; the whole grid where a crop would save less than a tenth, or nothing is inside.
    """
    arrays = [image] if image is not None else list(masks)
    shape = arrays[0].shape
    ranges: list[list[int]] = [[] for _ in shape]
    if image is not None:
        sample = _sampled(image)
        lowest = float(sample.min())
        threshold = lowest + _BODY * (float(np.percentile(sample, 99)) - lowest)
        _extend(ranges, image > threshold, _SPARSE)
    for mask in masks:
        _extend(ranges, mask > 0, 0.0)
    whole = (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))
    if not all(ranges):
        return whole
    box = []
    for found, size, mm in zip(ranges, shape, spacing, strict=True):
        margin = math.ceil(_MARGIN_MM / mm)
        box.append(slice(max(0, min(found) - margin), min(size, max(found) + 1 + margin)))
    kept = math.prod(s.stop - s.start for s in box)
    return (box[0], box[1], box[2]) if kept < _WORTH * math.prod(shape) else whole


def _extend(ranges: list[list[int]], inside: NDArray[np.bool_], least: float) -> None:
    """Add the first and the last slice of each axis that has more than a share inside."""
    for axis in range(3):
        share = inside.mean(axis=tuple(other for other in range(3) if other != axis))
        used = np.flatnonzero(share > least)
        if used.size:
            ranges[axis] += [int(used[0]), int(used[-1])]


def grey_range(image: NDArray[Any], window: tuple[float, float] | None) -> Greys:
    """Choose which intensities the 256 grey values stand for.

    Args:
        image: Intensities.
        window: Lowest and highest to keep; None keeps all where whole numbers allow it, else all
            but the wildest.
    """
    if window is not None:
        return Greys(*window)
    low, high = float(image.min()), float(image.max())
    is_whole = bool((image == np.rint(image)).all())
    if is_whole and high - low <= STEPS:
        return Greys(low, low + STEPS, is_exact=True)
    bottom, top = (float(value) for value in np.percentile(_sampled(image), _RANGE))
    return Greys(bottom, top) if top > bottom else Greys(low, max(high, low + 1))


def to_bytes(image: NDArray[Any], greys: Greys) -> NDArray[np.uint8]:
    """Turn intensities into bytes; those beyond the range become its ends."""
    scaled = np.subtract(image, greys.low, dtype=np.float32)
    scaled /= greys.step
    np.rint(scaled, out=scaled)
    np.clip(scaled, 0, STEPS, out=scaled)
    grey: NDArray[np.uint8] = scaled.astype(np.uint8)
    return grey


def fewer(ratio: float, spacing: Sequence[float], factors: Sequence[int]) -> tuple[int, ...]:
    """Choose of which axes to keep only every n-th voxel, the finest ones first.

    Args:
        ratio: How many times fewer voxels there must be.
        spacing: Voxel size in mm before.
        factors: What was chosen before, at least 1 each.

    Returns:
        New factors, at least one of them larger.
    """
    chosen = list(factors)
    needed = ratio * math.prod(factors)
    while math.prod(chosen) < needed or chosen == list(factors):
        steps = [mm * factor for mm, factor in zip(spacing, chosen, strict=True)]
        chosen[steps.index(min(steps))] += 1
    return tuple(chosen)


def thinned(array: NDArray[Any], factors: Sequence[int], *, is_smooth: bool) -> NDArray[Any]:
    """Keep every n-th voxel along each axis, counted from the middle of what is left over.

    Args:
        array: (X, Y, Z).
        factors: n by axis.
        is_smooth: Blur bytes first, about each voxel that is kept, so that nothing aliases; labels
            are taken as they are, which is the nearest one.
    """
    if is_smooth and max(factors) > 1:
        from scipy.ndimage import gaussian_filter

        widths = [0.5 * (factor - 1) for factor in factors]
        array = gaussian_filter(array.astype(np.float32), widths, mode="nearest")
        array = np.rint(array).astype(np.uint8)
    starts = _starts(array.shape, factors)
    return array[tuple(slice(a, None, n) for a, n in zip(starts, factors, strict=True))]


def thinned_affine(
    affine: NDArray[np.float64], shape: Sequence[int], factors: Sequence[int]
) -> NDArray[np.float64]:
    """Return the affine of what ``thinned`` keeps of a grid of ``shape``."""
    moved = moved_affine(affine, _starts(shape, factors))
    moved[:3, :3] *= np.asarray(factors, dtype=np.float64)
    return moved


def moved_affine(affine: NDArray[np.float64], start: Sequence[int]) -> NDArray[np.float64]:
    """Return the affine of a part that begins at voxel ``start``."""
    moved = np.array(affine, dtype=np.float64)
    moved[:3, 3] += moved[:3, :3] @ np.asarray(start, dtype=np.float64)
    return moved


def can_shrink(shape: Sequence[int], factors: Sequence[int]) -> bool:
    """Tell whether there is still something to see with fewer voxels."""
    left = [size // (factor + 1) for size, factor in zip(shape, factors, strict=True)]
    return max(left) >= _FEWEST


def _starts(shape: Sequence[int], factors: Sequence[int]) -> list[int]:
    return [(size - 1) % factor // 2 for size, factor in zip(shape, factors, strict=True)]


def _sampled(image: NDArray[Any]) -> NDArray[Any]:
    """Take every n-th voxel along each axis, enough of them for percentiles."""
    step = max(1, round((image.size / _SAMPLES) ** (1 / 3)))
    return image[::step, ::step, ::step]


def told_apart(regions: NDArray[Any]) -> NDArray[np.uint8]:
    """Number regions anew so that no two that share a face have the same number.

    A page draws a border where two numbers meet, and needs one byte for it.

    Args:
        regions: (X, Y, Z) integers; negative is outside.

    Returns:
        1 to 255, 0 outside.

    Raises:
        ValueError: 255 numbers are not enough, which takes regions that each touch hundreds.
    """
    names, dense = np.unique(np.where(regions < 0, -1, regions), return_inverse=True)
    dense = dense.reshape(regions.shape)
    neighbours = _neighbours(dense, len(names))
    number = np.zeros(len(names), np.int64)
    order = sorted(range(len(names)), key=lambda one: -len(neighbours.get(one, ())))
    for one in order:
        if names[one] < 0:
            continue
        taken = {int(number[other]) for other in neighbours.get(one, ())}
        number[one] = next(n for n in range(1, len(taken) + 2) if n not in taken)
    if number.max(initial=0) > STEPS:
        raise ValueError(f"{len(names)} regions need {number.max()} numbers; 255 can be drawn")
    return number.astype(np.uint8)[dense]


def _neighbours(dense: NDArray[Any], count: int) -> Mapping[int, list[int]]:
    """List the regions that share a face with each."""
    found = []
    for axis in range(3):
        first, second = np.moveaxis(dense, axis, 0)[:-1], np.moveaxis(dense, axis, 0)[1:]
        differ = first != second
        found.append(first[differ].astype(np.int64) * count + second[differ])
    pairs = np.unique(np.concatenate(found))
    neighbours: dict[int, list[int]] = {}
    for one, other in zip((pairs // count).tolist(), (pairs % count).tolist(), strict=True):
        neighbours.setdefault(one, []).append(other)
        neighbours.setdefault(other, []).append(one)
    return neighbours
