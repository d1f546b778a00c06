"""Voxels as files hold them, checked: all finite, or all whole numbers."""

from pathlib import Path
from typing import Any

import numpy as np

from voxseg.errors import DataError

_WHOLE_TOLERANCE = 1e-4  # rounding noise of scaled integers, e.g. 255 * float32(1 / 255)


def finite(voxels: np.ndarray[Any, Any], path: Path) -> np.ndarray[Any, Any]:
    """Return them as C-contiguous float32.

    Raises:
        DataError: One is NaN or infinite; it names ``path``, their file.
    """
    with np.errstate(over="ignore"):  # what does not fit float32 becomes infinite: caught below
        array = np.ascontiguousarray(voxels, dtype=np.float32)
    is_finite = np.isfinite(array)
    if not is_finite.all():
        num_nan = int(np.isnan(array).sum())
        num_infinite = int(array.size - is_finite.sum()) - num_nan
        raise DataError(
            f"{path} has {num_nan} NaN and {num_infinite} infinite voxels of {array.size}; replace "
            "them (background is usually 0) or leave the case out"
        )
    return array


def whole(voxels: np.ndarray[Any, Any], path: Path) -> np.ndarray[Any, Any]:
    """Return floating point labels rounded.

    Raises:
        DataError: They are not whole numbers (within 1e-4); it names ``path``, their file.
    """
    if not np.isfinite(voxels).all():
        num_bad = int(voxels.size - np.isfinite(voxels).sum())
        raise DataError(f"label {path} has {num_bad} NaN or infinite voxels; replace them")
    rounded: np.ndarray[Any, Any] = np.rint(voxels)
    odd = np.abs(voxels - rounded) > _WHOLE_TOLERANCE
    if odd.any():
        raise DataError(
            f"label {path} has {int(odd.sum())} voxels that are not whole numbers (for example "
            f"{float(voxels[odd][0]):.6g}); it may be a probability map or interpolated: threshold "
            "it, or resample the original with nearest neighbour"
        )
    return rounded
