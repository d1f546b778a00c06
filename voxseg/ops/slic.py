"""SLIC supervoxels: regions that are compact in space and even in intensity.

Source: Achanta, Shaji, Smith, Lucchi, Fua, Süsstrunk, *SLIC superpixels compared to
state-of-the-art superpixel methods*, TPAMI 34(11), 2012. ``block_partition`` is the BLOCK baseline
of Schuurmans, Berman, Blaschko, arXiv:1806.02705, section 4.
Twins: ``reference/slic.py`` (NumPy and SciPy, the definition of correct), ``cpu/slic.py``, with
``cpu/slic_blocks.py``, ``cpu/connectivity.py`` and ``cpu/merging.py`` (Numba), ``cuda/slic.py``,
with ``cuda/slic_image.py`` and ``cuda/slic_connectivity.py`` (launch the kernels of ``cuda``).

With S the edge of a supervoxel in mm, a voxel's distance to a centre is

    D^2 = mean over channels of (intensity difference / range)^2 + compactness^2 (mm / S)^2

Departures:
    Intensities are divided by their range (maximum - minimum, inside the mask, after smoothing),
    channel by channel, so that one ``compactness`` serves every scanner: at 0.1, a tenth of the
    range weighs as much as the edge of a supervoxel. The paper divides nothing.
    A voxel chooses among the centres of its own cell of the initial grid and the cells that touch
    it, not among the centres within 2S.
    Seeds are the means of the grid's cells, not voxels moved to the lowest gradient.
    Small pieces join the neighbour with the longest contact; the paper does not say which.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxseg.ops.cpu import connectivity, merging
from voxseg.ops.cpu.slic import assign_cells
from voxseg.ops.cuda.slic import slic_tensor
from voxseg.ops.jit import torch_threads
from voxseg.ops.slic_plan import SlicSettings, bounding_box, make_plan, with_three_axes

Array = NDArray[Any]
Labels = NDArray[np.int32]
ArrayT = TypeVar("ArrayT", NDArray[Any], Tensor)

_VOXELS_PER_THREAD = 2**16
VERSION = 2
"""Raised whenever the same call may give other labels than before, so that caches start anew."""


def slic(  # noqa: PLR0913 - the settings of one algorithm, all but three of them with a default
    image: ArrayT,
    *,
    compactness: float,
    n_segments: int | None = None,
    size_mm: float | None = None,
    spacing: Sequence[float] | None = None,
    iterations: int = 10,
    sigma_mm: float = 0.0,
    mask: ArrayT | None = None,
    min_size: float = 0.5,
) -> ArrayT:
    """Partition an image into connected supervoxels of similar size.

    Adding a constant to the image or multiplying it changes nothing but rounding. Deterministic:
    the same bits whatever the number of threads, which follows ``torch.get_num_threads()``. A GPU
    computes what a CPU does in the same order; labels differ at most where one of them rounds
    otherwise.

    Args:
        image: (*S) or (C, *S) with 2 or 3 spatial axes, any real dtype, an array or a tensor on a
            CPU or a CUDA device. It has channels when it has one axis more than ``spacing`` has
            entries.
        compactness: weight of distance against intensity, both relative (see the module). Regions
            are cubes when it is large, ragged when it is small; search it on a log scale.
        n_segments: about how many supervoxels; with a mask, inside it.
        size_mm: edge of a supervoxel in mm, instead of ``n_segments``.
        spacing: voxel size in mm for each of ``S``; without it 1 mm and no channels.
        iterations: rounds of assignment.
        sigma_mm: standard deviation of a Gaussian that smooths first; with a mask, voxels outside
            it have no influence. 0 for none.
        mask: (*S) boolean, on the image's device. Supervoxels cover it and its bounding box is
            what the grid covers.
        min_size: connected pieces smaller than this part of the mean supervoxel join the neighbour
            with the longest contact. A piece that has none stays, however small.

    Returns:
        (*S) int32, array or tensor as ``image``: labels from 0, without gaps, in raster order of
        their first voxel, each one connected component (faces touch); -1 outside the mask.

    Raises:
        ValueError: NaN or infinity inside the mask, shapes that do not match, or a setting out of
            its range.
        TypeError: an image that is not made of real numbers.
    """
    settings = SlicSettings(
        compactness=float(compactness),
        spacing=_checked_spacing(spacing, image.ndim),
        n_segments=n_segments,
        size_mm=size_mm,
        iterations=iterations,
        sigma_mm=sigma_mm,
        min_size=min_size,
    )
    if isinstance(image, Tensor):
        return _slic_tensor(image, mask, settings)
    return slic_array(np.asarray(image), mask, settings)


def slic_array(image: Array, mask: Array | None, settings: SlicSettings) -> Labels:
    """Run ``slic`` on arrays; see there.

    Args:
        image: (*S) or (C, *S).
        mask: (*S) boolean or None.
        settings: the checked settings; ``spacing`` decides whether there are channels.

    Returns:
        (*S) int32 labels.
    """
    shape = image.shape[image.ndim - len(settings.spacing) :]
    plan = make_plan(image, mask, settings)
    with _threads(image.size):
        labels, num_alive = assign_cells(plan, settings.iterations)
        if num_alive:
            min_voxels = settings.min_size * plan.num_voxels / num_alive
            merging.merge_small(labels, min_voxels)
    return labels.reshape(shape)


def enforce_connectivity(superpixels: Array, *, min_voxels: float = 0.0) -> Labels:
    """Make every label one connected component, and merge the small ones.

    Args:
        superpixels: (*S) integer with 2 or 3 axes; negative voxels are outside.
        min_voxels: components smaller than this join the neighbour with the longest contact (of
            equals, the one that comes first) among the larger ones, again and again. One without
            a neighbour stays.

    Returns:
        (*S) int32: labels from 0 in raster order of their first voxel, -1 outside. Deterministic.
    """
    if not np.issubdtype(superpixels.dtype, np.integer):
        raise TypeError(f"superpixels must be integer, got dtype {superpixels.dtype}")
    if superpixels.ndim not in (2, 3):
        raise ValueError(f"superpixels must have 2 or 3 axes, got shape {superpixels.shape}")
    if superpixels.size == 0:
        return np.empty(superpixels.shape, np.int32)
    labels = np.array(superpixels, dtype=np.int32, order="C")
    with _threads(labels.size):
        merging.merge_small(with_three_axes(labels, labels.ndim)[0], min_voxels)
    return labels


def block_partition(
    shape: Sequence[int],
    *,
    size_mm: float,
    spacing: Sequence[float] | None = None,
    mask: Array | None = None,
) -> Labels:
    """Partition a grid into equal blocks, the papers' BLOCK baseline.

    Args:
        shape: ``S``, 2 or 3 axes.
        size_mm: edge of a block in mm; each axis gets the nearest whole number of blocks.
        spacing: voxel size in mm for each of ``S``; without it 1 mm.
        mask: (*S) boolean. Blocks cover its bounding box and are cut by it; a block that the mask
            cuts in two keeps one label, since it is the plain grid that BLOCK stands for.

    Returns:
        (*S) int32: labels from 0 without gaps in raster order of their first voxel, -1 outside.
    """
    size = tuple(int(n) for n in shape)
    if len(size) not in (2, 3) or min(size) < 1:
        raise ValueError(f"shape must have 2 or 3 positive entries, got {size}")
    millimetres = _checked_spacing(spacing, len(size), channels=False)
    if mask is not None and mask.shape != size:
        raise ValueError(f"mask must have the shape {size}, got {mask.shape}")
    if not 0 < size_mm < math.inf:
        raise ValueError(f"size_mm must be positive and finite, got {size_mm}")
    box = tuple((0, n) for n in size) if mask is None else bounding_box(mask)
    labels = np.full(size, -1, np.int32)
    region = tuple(slice(*limits) for limits in box)
    blocks = np.zeros([1] * len(size), np.int32)
    for axis, ((start, stop), s) in enumerate(zip(box, millimetres, strict=True)):
        length = stop - start
        if length == 0:
            return labels
        cells = min(max(1, round(length * s / size_mm)), length)
        edges = np.arange(cells + 1) * length // cells
        along = np.repeat(np.arange(cells, dtype=np.int32), np.diff(edges))
        blocks = blocks * np.int32(cells) + np.expand_dims(
            along, [a for a in range(len(size)) if a != axis]
        )
    labels[region] = blocks
    if mask is not None:
        labels[~mask] = -1
        renumber(labels)
    return labels


def renumber(superpixels: Labels) -> int:
    """Number the labels 0 to K - 1 in raster order of their first voxel, in place.

    Args:
        superpixels: (*S) int32, contiguous; negative labels become -1.

    Returns:
        K. Deterministic; labels are not split into connected components.
    """
    largest = int(superpixels.max(initial=-1))
    flat = superpixels.reshape(-1)
    if largest > 4 * superpixels.size:
        # Names as large as this would need a larger table than the map.
        values, inverse = np.unique(flat, return_inverse=True)
        flat[:] = np.where(flat < 0, -1, inverse - np.count_nonzero(values < 0))
        largest = len(values)
    return connectivity.renumber(flat, np.full(largest + 1, -1, np.int32))


def _checked_spacing(
    spacing: Sequence[float] | None, ndim: int, *, channels: bool = True
) -> tuple[float, ...]:
    """Give the voxel size of every spatial axis, or say what is wrong with it."""
    if spacing is None:
        spacing = (1.0,) * ndim
    values = tuple(float(s) for s in spacing)
    if len(values) not in (2, 3) or ndim not in (len(values), len(values) + channels):
        raise ValueError(
            f"an image of {ndim} axes needs a spacing of {ndim} entries"
            f"{f', or {ndim - 1} when its first axis is channels' if channels else ''}, with 2 or "
            f"3 spatial axes; got spacing {values}"
        )
    if not all(0 < s < math.inf for s in values):
        raise ValueError(f"spacing must be positive and finite, got {values}")
    return values


@contextmanager
def _threads(num_voxels: int) -> Iterator[None]:
    """Use torch's number of threads, but no more than have enough to do to be worth waiting for."""
    with torch_threads():
        useful = max(1, num_voxels // _VOXELS_PER_THREAD)
        numba.set_num_threads(min(numba.get_num_threads(), useful))
        yield


def _slic_tensor(image: Tensor, mask: Tensor | None, settings: SlicSettings) -> Tensor:
    """Call the registered op."""
    if image.device.type not in ("cpu", "cuda", "meta"):
        raise ValueError(
            f"slic runs on CPUs and CUDA devices, got a tensor on {image.device}; call .cpu() first"
        )
    if mask is not None and mask.device != image.device:
        raise ValueError(
            f"mask must be on the image's device, {image.device}, got one on {mask.device}"
        )
    result: Tensor = torch.ops.voxseg.slic(
        image.detach(),
        mask,
        list(settings.spacing),
        settings.compactness,
        settings.n_segments,
        settings.size_mm,
        settings.iterations,
        settings.sigma_mm,
        settings.min_size,
    )
    return result


@torch.library.custom_op("voxseg::slic", mutates_args=(), device_types="cpu")
def _slic_op(  # noqa: PLR0913 - an op's schema has no dataclasses
    image: Tensor,
    mask: Tensor | None,
    spacing: Sequence[float],
    compactness: float,
    n_segments: int | None,
    size_mm: float | None,
    iterations: int,
    sigma_mm: float,
    min_size: float,
) -> Tensor:
    settings = _settings(spacing, compactness, n_segments, size_mm, iterations, sigma_mm, min_size)
    values = image.float() if image.dtype in (torch.bfloat16, torch.float16) else image
    inside = None if mask is None else mask.numpy()
    return torch.from_numpy(slic_array(values.numpy(), inside, settings))


@_slic_op.register_kernel("cuda")
def _(image: Tensor, mask: Tensor | None, *settings: Any) -> Tensor:
    return slic_tensor(image, mask, _settings(*settings))


def _settings(
    spacing: Sequence[float],
    compactness: float,
    n_segments: int | None,
    size_mm: float | None,
    iterations: int,
    sigma_mm: float,
    min_size: float,
) -> SlicSettings:
    """Put an op's arguments back together, in the order of its schema."""
    return SlicSettings(
        compactness=compactness,
        spacing=tuple(spacing),
        n_segments=n_segments,
        size_mm=size_mm,
        iterations=iterations,
        sigma_mm=sigma_mm,
        min_size=min_size,
    )


@_slic_op.register_fake
def _(image: Tensor, mask: Tensor | None, spacing: Sequence[float], *_: object) -> Tensor:
    return image.new_empty(image.shape[image.ndim - len(spacing) :], dtype=torch.int32)
