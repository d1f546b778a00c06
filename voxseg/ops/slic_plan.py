"""What a run of SLIC needs to know: its settings, and the grid, weights and scaling they lead to.

Source: Achanta et al., TPAMI 34(11), 2012, section 3; see ``slic.py`` for where it is left.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import scipy
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]
ArrayT = TypeVar("ArrayT", NDArray[Any], Tensor)
Cells = tuple[int, int, int]
Box = tuple[tuple[int, int], ...]
Sample = Callable[[Sequence[int]], tuple[NDArray[np.int64], ...]]

VALUE_LEVELS = 2**22
"""Steps of a scaled intensity when it is summed; plus one half they are still exact in float32."""
_LARGEST_WEIGHT = 1e30
"""Of a squared voxel; times the few voxels between a cell and its neighbour it is still finite."""
_SIZE_ROUNDS = 6
"""Tries at a cell's size for a mask; each but the first few changes it by a percent or less."""
_NOWHERE: NDArray[np.bool_] = np.empty((0, 0, 0), np.bool_)


@dataclass(frozen=True, kw_only=True)
class SlicSettings:
    """What ``slic`` is asked for, checked at construction."""

    compactness: float
    """Weight of distance against intensity, both relative; search it on a log scale, 0.01 to 1."""
    spacing: tuple[float, ...]
    """Voxel size in mm, in the order of the spatial axes."""
    n_segments: int | None = None
    """About how many supervoxels, inside the mask when there is one."""
    size_mm: float | None = None
    """Edge of a supervoxel in mm, instead of ``n_segments``."""
    iterations: int = 10
    """Rounds of assignment; fewer are made when no centre moves any more."""
    sigma_mm: float = 0.0
    """Standard deviation of the Gaussian that smooths the image first."""
    min_size: float = 0.5
    """Pieces smaller than this part of the mean supervoxel join a neighbour."""

    def __post_init__(self) -> None:
        if (self.n_segments is None) == (self.size_mm is None):
            raise ValueError(
                f"give exactly one of n_segments and size_mm, got n_segments={self.n_segments} "
                f"and size_mm={self.size_mm}"
            )
        if self.n_segments is not None and self.n_segments < 1:
            raise ValueError(f"n_segments must be at least 1, got {self.n_segments}")
        if self.size_mm is not None and not 0 < self.size_mm < math.inf:
            raise ValueError(f"size_mm must be positive and finite, got {self.size_mm}")
        if not 0 < self.compactness < math.inf:
            raise ValueError(
                f"compactness must be positive and finite, got {self.compactness}; "
                "block_partition makes the regular grid"
            )
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}")
        if not 0 <= self.sigma_mm < math.inf:
            raise ValueError(f"sigma_mm must be finite and not negative, got {self.sigma_mm}")
        if not 0 <= self.min_size < math.inf:
            raise ValueError(f"min_size must be finite and not negative, got {self.min_size}")

    @property
    def spacing_zyx(self) -> tuple[float, ...]:
        """Voxel size of three axes; the first that a two-dimensional image lacks has 1 mm."""
        return (1.0,) * (3 - len(self.spacing)) + self.spacing

    @property
    def sigma_voxels(self) -> list[float]:
        """The Gaussian's standard deviation in voxels along each of three axes."""
        return [self.sigma_mm / s for s in self.spacing_zyx]


@dataclass(frozen=True, kw_only=True)
class SlicNumbers:
    """Grid, weights and scaling of one run: the same for every twin."""

    scaling: NDArray[np.float64]
    """(C, 2) offset and factor that bring a channel's intensities to at most 1."""
    box: Box
    """First voxel and end of the mask along each axis."""
    num_cells: Cells
    """Cells of the grid along each axis of the box."""
    weights: NDArray[np.float32]
    """(3,) what a squared voxel along each axis adds to a distance."""
    levels: np.float32
    """Factor that makes a scaled intensity an integer, to be summed without rounding."""
    num_voxels: int
    """Voxels in the mask."""


@dataclass(frozen=True, kw_only=True)
class SlicPlan(SlicNumbers):
    """All numbers of one run and the arrays that they belong to."""

    image: Array
    """(C, Z, Y, X); a two-dimensional image has Z = 1."""
    mask: NDArray[np.bool_]
    """(Z, Y, X), or no voxels for everywhere."""


def make_plan(image: Array, mask: Array | None, settings: SlicSettings) -> SlicPlan:
    """Check an image against its settings and work out grid, weights and scaling.

    Args:
        image: (*S) or (C, *S).
        mask: (*S) boolean or None.
        settings: what was asked for.

    Returns:
        The plan. ``image`` is copied only when it is smoothed, not contiguous, of a half-precision
        type or of foreign byte order.
    """
    spatial = len(settings.spacing)
    if not (np.issubdtype(image.dtype, np.number) or image.dtype == np.bool_) or (
        np.iscomplexobj(image)
    ):
        raise TypeError(f"image must hold real numbers, got dtype {image.dtype}")
    check_shapes(image.shape, None if mask is None else mask.shape, spatial)
    channels = with_three_axes(_plain(image), spatial)
    inside = _NOWHERE
    if mask is not None:
        if mask.dtype != np.bool_:
            raise TypeError(f"mask must be boolean, got dtype {mask.dtype}; write mask > 0")
        inside = with_three_axes(np.ascontiguousarray(mask), spatial)[0]
    box = bounding_box(inside) if inside.size else tuple((0, n) for n in channels.shape[1:])
    num_voxels = int(np.count_nonzero(inside)) if inside.size else math.prod(channels.shape[1:])
    ranges = [(0.0, 0.0)] * len(channels)
    if num_voxels:
        channels, ranges = _smoothed(channels, inside, settings.sigma_voxels)
    region = inside[tuple(slice(*limits) for limits in box)] if inside.size else inside

    def sample(steps: Sequence[int]) -> tuple[NDArray[np.int64], ...]:
        return np.nonzero(region[:: steps[0], :: steps[1], :: steps[2]])

    numbers = make_numbers(ranges, box, num_voxels, settings, sample if inside.size else None)
    return SlicPlan(image=channels, mask=inside, **vars(numbers))


def check_shapes(shape: Sequence[int], mask_shape: Sequence[int] | None, spatial: int) -> None:
    """Refuse an image without voxels and a mask of another shape."""
    if math.prod(shape) == 0:
        raise ValueError(f"image must have voxels, got shape {tuple(shape)}")
    wanted = tuple(shape[len(shape) - spatial :])
    if mask_shape is not None and tuple(mask_shape) != wanted:
        raise ValueError(
            f"mask must have the image's spatial shape {wanted}, got {tuple(mask_shape)}"
        )


def make_numbers(
    ranges: Sequence[tuple[float, float]],
    box: Box,
    num_voxels: int,
    settings: SlicSettings,
    sample: Sample | None,
) -> SlicNumbers:
    """Work out grid, weights and scaling.

    Args:
        ranges: lowest value and range of every channel.
        box: first voxel and end of the mask along each axis.
        num_voxels: voxels in the mask.
        settings: what was asked for.
        sample: gives the indices of the mask's voxels among every so many voxels of the box along
            each axis, in these steps; None for everywhere.

    Returns:
        The numbers; without a voxel, of no cells.
    """
    largest = max(settings.compactness, 1.0)
    top = 1.0 / (largest * math.sqrt(len(ranges)))
    size_mm, num_cells = math.inf, (0, 0, 0)
    if num_voxels:
        size_mm, num_cells = _grid_size(box, num_voxels, settings, sample)
    return SlicNumbers(
        scaling=np.array([(low, top / r if r > 0 else 0.0) for low, r in ranges]),
        box=box,
        num_cells=num_cells,
        # Dividing by the larger of the two weights keeps both finite, but for cells that are far
        # smaller than a voxel.
        weights=np.array(
            [
                min((settings.compactness / largest * s / size_mm) ** 2, _LARGEST_WEIGHT)
                for s in settings.spacing_zyx
            ],
            np.float32,
        ),
        levels=np.float32(VALUE_LEVELS / top),
        num_voxels=num_voxels,
    )


def with_three_axes(array: ArrayT, spatial: int) -> ArrayT:
    """View (*S) or (C, *S) as (C, Z, Y, X)."""
    channels = array.shape[0] if array.ndim > spatial else 1
    shape = array.shape[array.ndim - spatial :]
    return array.reshape((channels,) + (1,) * (3 - spatial) + shape)


def bounding_box(mask: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    """First voxel and end of the mask along each axis; (0, 0) when it is empty."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        hits = np.flatnonzero(mask.any(axis=others))
        box.append((int(hits[0]), int(hits[-1]) + 1) if hits.size else (0, 0))
    return tuple(box)


def _plain(image: Array) -> Array:
    """Make an array contiguous, of this machine's byte order and of a type that Numba knows."""
    if image.dtype.itemsize == 2 and image.dtype.kind == "f":
        return np.ascontiguousarray(image, dtype=np.float32)
    return np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("="))


def _range(channel: Array, mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Lowest value and range of a channel inside the mask, refusing what is not finite."""
    values = channel[mask] if mask.size else channel
    return checked_range(float(values.min()), float(values.max()))


def checked_range(low: float, high: float) -> tuple[float, float]:
    """Lowest value and range, refusing what is not finite."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(
            "image holds NaN or infinite values where it is partitioned; replace them, or leave "
            "them out with a mask"
        )
    return low, high - low


def _smoothed(
    channels: Array, mask: NDArray[np.bool_], sigma: Sequence[float]
) -> tuple[Array, list[tuple[float, float]]]:
    """Smooth every channel, within the mask; also give the lowest value and range of each."""
    ranges = [_range(channel, mask) for channel in channels]
    if not any(sigma):
        return channels, ranges
    result = np.empty(channels.shape, np.float32)
    weight = np.empty(0, np.float32)
    if mask.size:
        weight = scipy.ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="constant")
    for index, (channel, (low, extent)) in enumerate(zip(channels, ranges, strict=True)):
        out = result[index]
        np.subtract(channel, low, out=out, casting="unsafe")
        if not mask.size:
            scipy.ndimage.gaussian_filter(out, sigma, output=out, mode="nearest")
        else:
            out[~mask] = 0
            scipy.ndimage.gaussian_filter(out, sigma, output=out, mode="constant")
            np.divide(out, weight, out=out, where=mask)
        # Rounding must not be taken for the contrast of a constant channel.
        ranges[index] = _range(out, mask) if extent > 0 else (0.0, 0.0)
    return result, ranges


def _grid_size(
    box: Box, num_voxels: int, settings: SlicSettings, sample: Sample | None
) -> tuple[float, Cells]:
    """Edge of a cell in mm and the number of cells along each axis.

    An axis thinner than a cell has one, and the others are shared out without it.

    Args:
        box: see ``make_numbers``, for all four.
        num_voxels: of the mask.
        settings: which of the two ways to ask for a size was taken.
        sample: some of the mask, or None for everywhere.
    """
    lengths, spacing = [stop - start for start, stop in box], settings.spacing_zyx
    extents = [n * s for n, s in zip(lengths, spacing, strict=True)]
    if settings.n_segments is None:
        size = settings.size_mm or math.inf
        return size, _count_cells(lengths, extents, size)
    filled = num_voxels / math.prod(lengths)
    # A lifted third axis, or one voxel of it, is not something to be cut.
    thick = [e for e, n in zip(extents, lengths, strict=True) if n > 1] or [max(extents)]
    wanted = settings.n_segments / filled
    size = math.pow(math.prod(thick) / wanted, 1 / len(thick))
    while min(thick) < size and len(thick) > 1:
        thick.remove(min(thick))
        size = math.pow(math.prod(thick) / wanted, 1 / len(thick))
    if sample is None:
        return size, _count_cells(lengths, extents, size)

    # Cells that the mask cuts make more of them than the mask's volume says: grow until it fits.
    # About four voxels along the edge of a cell are enough to see whether the mask touches it.
    steps = [max(1, int(size / s / 4)) for s in spacing]
    hits = sample(steps)
    best: tuple[int, float, Cells] = (
        settings.n_segments,
        size,
        _count_cells(lengths, extents, size),
    )
    for _ in range(_SIZE_ROUNDS):
        cells = _count_cells(lengths, extents, size)
        index = np.zeros(hits[0].size, np.int64)
        for hit, step, count, length in zip(hits, steps, cells, lengths, strict=True):
            index = index * count + hit * step * count // length
        used = max(1, int(np.count_nonzero(np.bincount(index, minlength=math.prod(cells)))))
        best = min(best, (abs(used - settings.n_segments), size, cells))
        size *= math.pow(used / settings.n_segments, 1 / len(thick))
    return best[1], best[2]


def _count_cells(lengths: Sequence[int], extents: Sequence[float], size: float) -> Cells:
    """Cells of about ``size`` mm along each axis, at most one a voxel."""
    z, y, x = (min(max(1, round(e / size)), n) for e, n in zip(extents, lengths, strict=True))
    return z, y, x
