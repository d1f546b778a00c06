"""Supervoxel maps of whole volumes: computed once, kept on disk, cut and renumbered for patches.

A map is kept in the cache (``voxseg.cache``) under the hash of everything that decides it: voxels,
mask, spacing, settings and the version of the algorithm.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal

import numpy as np

from voxseg.cache import SUPERVOXELS, keep, recall
from voxseg.ops.slic import VERSION, block_partition, renumber, slic

Method = Literal["slic", "block"]


@dataclass(frozen=True, kw_only=True)
class SupervoxelSettings:
    """How a volume is divided."""

    method: Method = "slic"
    """"slic", or "block" for cubes."""
    size_mm: float = 7.0
    """Edge of a supervoxel."""
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


def compute_supervoxels(
    image: np.ndarray[Any, Any],
    spacing: Sequence[float],
    settings: SupervoxelSettings,
    *,
    mask: np.ndarray[Any, Any] | None = None,
) -> np.ndarray[Any, Any]:
    """Divide a volume into supervoxels.

    Args:
        image: (C, *S).
        spacing: voxel size in mm for each of ``S``.
        settings: how.
        mask: (*S) boolean; supervoxels cover it alone.

    Returns:
        (*S) int32, 0 to K - 1 in raster order of the first voxel, -1 outside the mask.
    """
    if settings.method == "block":
        shape = image.shape[1:]
        return block_partition(shape, size_mm=settings.size_mm, spacing=spacing, mask=mask)
    return slic(
        image,
        size_mm=settings.size_mm,
        compactness=settings.compactness,
        spacing=spacing,
        iterations=settings.iterations,
        sigma_mm=settings.sigma_mm,
        mask=mask,
        min_size=settings.min_size,
    )


def cached_supervoxels(
    image: np.ndarray[Any, Any],
    spacing: Sequence[float],
    settings: SupervoxelSettings,
    *,
    mask: np.ndarray[Any, Any] | None = None,
) -> np.ndarray[Any, Any]:
    """As ``compute_supervoxels``, but taken from disk where the same was computed before.

    Damaged files are computed again; a folder that cannot be written costs time, nothing else.
    """
    key = _key(image, spacing, settings, mask)
    name = f"{key[:2]}/{key}.npy"
    stored = _decode(recall(SUPERVOXELS, name), image.shape[1:])
    if stored is not None:
        return stored
    computed = compute_supervoxels(image, spacing, settings, mask=mask)
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
    cut = np.array(superpixels, dtype=np.int32, order="C")
    return cut, renumber(cut)


def _key(
    image: np.ndarray[Any, Any],
    spacing: Sequence[float],
    settings: SupervoxelSettings,
    mask: np.ndarray[Any, Any] | None,
) -> str:
    """Hash everything that decides a map."""
    digest = hashlib.sha256()
    digest.update(repr((VERSION, image.shape, image.dtype.str, mask is not None)).encode())
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
