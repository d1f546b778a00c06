"""Supervoxel maps of whole volumes: computed once, kept on disk, cut and renumbered for patches.

A map is stored under the hash of everything that decides it: voxels, mask, spacing, settings and
the version of the algorithm. The folder is ``VOXSEG_CACHE``, else ``$XDG_CACHE_HOME/voxseg``, else
``~/.cache/voxseg``; without one that can be written, maps are computed each time.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxseg.errors import VoxsegError
from voxseg.files import replacing
from voxseg.ops.slic import VERSION, block_partition, slic

METHODS = ("slic", "block")


@dataclass(frozen=True, kw_only=True)
class SupervoxelSettings:
    """How a volume is divided."""

    method: str = "slic"
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
        if self.method not in METHODS:
            raise ValueError(f"supervoxels.method must be one of {METHODS}, got {self.method!r}")
        for name in ("size_mm", "compactness", "iterations"):
            value = getattr(self, name)
            if value <= 0:
                raise ValueError(f"supervoxels.{name} must be positive, got {value}")
        if self.sigma_mm < 0 or self.min_size < 0:
            raise ValueError("supervoxels.sigma_mm and min_size must not be negative")


def cache_folder() -> Path:
    """Where maps are kept; the folder may not exist yet."""
    own = os.environ.get("VOXSEG_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "voxseg"


def compute_supervoxels(
    image: np.ndarray[Any, Any],
    spacing: Sequence[float],
    settings: SupervoxelSettings,
    *,
    mask: np.ndarray[Any, Any] | None = None,
) -> np.ndarray[Any, Any]:
    """Divide a volume (C, *S) into supervoxels (*S) int32, -1 outside ``mask`` (*S) boolean."""
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
    """As ``compute_supervoxels``, but taken from disk where the same was computed before."""
    key = _key(image, spacing, settings, mask)
    path = cache_folder() / "supervoxels" / key[:2] / f"{key}.npy"
    stored = _load(path, image.shape[1:])
    if stored is not None:
        return stored
    computed = compute_supervoxels(image, spacing, settings, mask=mask)
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, computed)
    except VoxsegError:  # a cache that cannot be written costs time, not results
        return computed
    return computed


def compact(superpixels: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], int]:
    """Renumber the regions that a cut still holds, to 0..K-1 in raster order; return map and K.

    Negative labels become -1.
    """
    flat = superpixels.ravel()
    present, first, inverse = np.unique(flat, return_index=True, return_inverse=True)
    kept = present >= 0
    count = int(kept.sum())
    order = np.full(len(present), -1, np.int32)
    ranks = np.empty(count, np.int32)
    ranks[np.argsort(first[kept], kind="stable")] = np.arange(count, dtype=np.int32)
    order[kept] = ranks
    return order[inverse].reshape(superpixels.shape), count


def _key(
    image: np.ndarray[Any, Any],
    spacing: Sequence[float],
    settings: SupervoxelSettings,
    mask: np.ndarray[Any, Any] | None,
) -> str:
    digest = hashlib.sha256()
    digest.update(repr((VERSION, image.shape, str(image.dtype))).encode())
    digest.update(repr((tuple(float(s) for s in spacing), astuple(settings))).encode())
    digest.update(np.ascontiguousarray(image))
    if mask is not None:
        digest.update(np.packbits(mask))
    return digest.hexdigest()


def _load(path: Path, shape: tuple[int, ...]) -> np.ndarray[Any, Any] | None:
    """Read a stored map; a missing or damaged file is as good as none."""
    try:
        stored: np.ndarray[Any, Any] = np.load(path)
    except (OSError, ValueError, EOFError):
        return None
    return stored if stored.shape == shape and stored.dtype == np.int32 else None
