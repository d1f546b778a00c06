"""Supervoxel maps of whole volumes: computed once, kept on disk, cut and renumbered for patches.

A map is kept in the cache (``voxseg.cache``) under the hash of everything that decides it: voxels,
mask, spacing, settings and the version of the algorithm. The algorithms are loaded when they are
used: Numba and torch take more than a second.
"""

import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal

import numpy as np

from voxseg.cache import SUPERVOXELS, keep, recall
from voxseg.stages import stage

Method = Literal["slic", "block"]
By = Literal["volume", "slice"]
_SIZE_MM = 7.0


@dataclass(frozen=True, kw_only=True)
class SupervoxelSettings:
    """How a volume is divided."""

    method: Method = "slic"
    """"slic", or "block" for cubes."""
    by: By = "volume"
    """Divide the "volume", or each "slice" of the one plane that is trained on (``data.plane``)."""
    size_mm: float = _SIZE_MM
    """Edge of a supervoxel; of photographs in pixels."""
    count: int = 0
    """About how many supervoxels of a volume, or superpixels of a photograph or slice, instead of
    a size; 0 for a size."""
    compactness: float = 0.1
    """SLIC's weight of distance, relative to the intensity range."""
    iterations: int = 10
    """Of SLIC."""
    sigma_mm: float = 0.0
    """Standard deviation of a Gaussian that smooths before SLIC."""
    min_size: float = 0.5
    """Pieces smaller than this part of the mean supervoxel join a neighbour."""

    def __post_init__(self) -> None:
        for name in ("size_mm", "compactness", "iterations"):
            value = getattr(self, name)
            if value <= 0:
                raise ValueError(f"supervoxels.{name} must be positive, got {value}")
        if self.sigma_mm < 0 or self.min_size < 0:
            raise ValueError("supervoxels.sigma_mm and min_size must not be negative")
        if self.count < 0:
            raise ValueError(f"supervoxels.count must not be negative, got {self.count}")
        if self.count and self.size_mm != _SIZE_MM:
            raise ValueError(
                f"supervoxels.count is {self.count} and size_mm {self.size_mm:g}; set one of them"
            )

    def edge_mm(self, num_voxels: int, spacing: Sequence[float]) -> float:
        """Edge of a supervoxel where ``num_voxels`` of size ``spacing`` are divided."""
        if not self.count:
            return self.size_mm
        return math.pow(num_voxels * math.prod(spacing) / self.count, 1 / len(spacing))


def compute_supervoxels(
    image: np.ndarray[Any, Any],
    spacing: Sequence[float],
    settings: SupervoxelSettings,
    *,
    mask: np.ndarray[Any, Any] | None = None,
    slice_axis: int | None = None,
) -> np.ndarray[Any, Any]:
    """Divide a volume into supervoxels.

    Args:
        image: (C, *S).
        spacing: voxel size in mm for each of ``S``.
        settings: how; ``by`` says what the caller wants and is not looked at here.
        mask: (*S) boolean; supervoxels cover it alone.
        slice_axis: of ``S``: its slices are divided, each on its own; None divides the volume.

    Returns:
        (*S) int32, 0 to K - 1 in raster order of the first voxel, -1 outside the mask. No two
        slices share a superpixel if they were divided on their own.
    """
    if slice_axis is None:
        voxels = math.prod(image.shape[1:]) if mask is None else int(np.count_nonzero(mask))
        return _divide(image, spacing, settings, mask, settings.edge_mm(max(voxels, 1), spacing))
    shape = image.shape[1:]
    labels = np.empty(shape, np.int32)
    from voxseg.ops.slic import renumber

    plane = [s for axis, s in enumerate(spacing) if axis != slice_axis]
    # Of whole slices, so that superpixels have one size in all of them.
    edge = settings.edge_mm(math.prod(shape) // shape[slice_axis], plane)
    first = 0
    for number in range(shape[slice_axis]):
        inside = None if mask is None else np.ascontiguousarray(mask.take(number, slice_axis))
        part = _divide(image.take(number, slice_axis + 1), plane, settings, inside, edge)
        np.add(part, first, out=part, where=part >= 0)
        first = max(first, int(part.max()) + 1)
        labels[(slice(None),) * slice_axis + (number,)] = part
    renumber(labels)
    return labels


def _divide(
    image: np.ndarray[Any, Any],
    spacing: Sequence[float],
    settings: SupervoxelSettings,
    mask: np.ndarray[Any, Any] | None,
    edge_mm: float,
) -> np.ndarray[Any, Any]:
    from voxseg.ops.slic import block_partition, slic

    if settings.method == "block":
        return block_partition(image.shape[1:], size_mm=edge_mm, spacing=spacing, mask=mask)
    return slic(
        image,
        size_mm=edge_mm,
        compactness=settings.compactness,
        spacing=spacing,
        iterations=settings.iterations,
        sigma_mm=settings.sigma_mm,
        mask=mask,
        min_size=settings.min_size,
    )


def expected_count(
    shape: Sequence[int],
    spacing: Sequence[float],
    settings: SupervoxelSettings,
    slice_axis: int | None = None,
) -> int:
    """About how many supervoxels a volume will have at most: all of ``shape`` counts.

    Args:
        shape: ``S``.
        spacing: voxel size in mm for each of ``S``.
        settings: how it will be divided.
        slice_axis: as for ``compute_supervoxels``.
    """
    if slice_axis is None:
        edge = settings.edge_mm(math.prod(shape), spacing)
        return math.prod(_cells(shape, spacing, edge))
    plane = [axis for axis in range(len(shape)) if axis != slice_axis]
    sizes, edges = [shape[a] for a in plane], [spacing[a] for a in plane]
    one = math.prod(_cells(sizes, edges, settings.edge_mm(math.prod(sizes), edges)))
    return shape[slice_axis] * one


def _cells(shape: Sequence[int], spacing: Sequence[float], edge_mm: float) -> list[int]:
    return [min(n, max(1, round(n * s / edge_mm))) for n, s in zip(shape, spacing, strict=True)]


@stage("supervoxels")
def cached_supervoxels(
    image: np.ndarray[Any, Any],
    spacing: Sequence[float],
    settings: SupervoxelSettings,
    *,
    mask: np.ndarray[Any, Any] | None = None,
    slice_axis: int | None = None,
) -> np.ndarray[Any, Any]:
    """As ``compute_supervoxels``, but taken from disk where the same was computed before.

    Damaged files are computed again; a folder that cannot be written costs time, nothing else.
    """
    key = _key(image, spacing, settings, mask, slice_axis)
    name = f"{key[:2]}/{key}.npy"
    stored = _decode(recall(SUPERVOXELS, name), image.shape[1:])
    if stored is not None:
        return stored
    computed = compute_supervoxels(image, spacing, settings, mask=mask, slice_axis=slice_axis)
    content = io.BytesIO()
    np.save(content, computed)
    keep(SUPERVOXELS, name, content.getvalue())
    return computed


def compact(superpixels: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], int]:
    """Renumber the superpixels that a patch still holds.

    Args:
        superpixels: (*S) integer, a cut from a larger map; negative for none. Not changed.

    Returns:
        (*S) int32, 0 to K - 1 in raster order of the first voxel, -1 for none; and K.
    """
    from voxseg.ops.slic import renumber

    cut = np.array(superpixels, dtype=np.int32, order="C")
    return cut, renumber(cut)


def numbers_of(
    superpixels: np.ndarray[Any, Any], cut: np.ndarray[Any, Any], count: int
) -> np.ndarray[Any, Any]:
    """Say which numbers the superpixels of a patch had before ``compact``.

    Args:
        superpixels: (*S) integer, as cut.
        cut: (*S), renumbered.
        count: K of ``cut``.

    Returns:
        (K,) int64.
    """
    before = np.empty(count, np.int64)
    inside = cut >= 0
    before[cut[inside]] = superpixels[inside]
    return before


def _key(
    image: np.ndarray[Any, Any],
    spacing: Sequence[float],
    settings: SupervoxelSettings,
    mask: np.ndarray[Any, Any] | None,
    slice_axis: int | None,
) -> str:
    """Hash everything that decides a map."""
    from voxseg.ops.slic import VERSION

    digest = hashlib.sha256()
    head = VERSION, image.shape, image.dtype.str, mask is not None, slice_axis
    digest.update(repr(head).encode())
    digest.update(repr((tuple(float(s) for s in spacing), astuple(settings))).encode())
    if settings.method != "block":
        digest.update(np.ascontiguousarray(image).data)
    if mask is not None:
        digest.update(np.packbits(mask).data)
    return digest.hexdigest()


def _decode(content: bytes | None, shape: tuple[int, ...]) -> np.ndarray[Any, Any] | None:
    """Read a kept map; one that cannot be a map of this volume is as good as none."""
    if content is None:
        return None
    try:
        stored: np.ndarray[Any, Any] = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError):
        return None
    if stored.shape != shape or stored.dtype != np.int32:
        return None
    # Ops use labels as indices: one that is out of range must never reach them.
    return stored if stored.min() >= -1 and stored.max() < stored.size else None
