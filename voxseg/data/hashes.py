"""Hashes that tell whether a file or a volume is still the same."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from voxseg.errors import DataError


def file_hash(path: Path) -> str:
    """Return the SHA-256 of the file's bytes, in hexadecimal."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def content_hash(array: np.ndarray[Any, Any], affine: np.ndarray[Any, Any]) -> str:
    """Return the SHA-256 of voxels (shape, type, values) and affine, in hexadecimal.

    Equal for the same volume whether it came compressed or not, and in whatever memory order.
    """
    digest = hashlib.sha256(repr((array.shape, array.dtype.newbyteorder("<").str)).encode())
    digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data)
    digest.update(np.ascontiguousarray(affine, dtype="<f8").data)
    return digest.hexdigest()
