"""NRRD volumes: what 3D Slicer keeps voxels in, with a header that anybody can read.

Source: *Definition of NRRD File Format*, Teem (teem.sourceforge.net/nrrd/format.html).
The header speaks of left, posterior, superior where NIfTI says right, anterior, superior: the first
two world axes change their sign, and voxels stay where they are. Numbers are written so that they
read back to the last bit; voxels are compressed layer by layer, the same bytes on each run.
"""

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from voxseg.files import replacing

_TYPES = {
    "u1": "unsigned char",
    "u2": "unsigned short",
    "i2": "short",
    "i4": "int",
    "f4": "float",
}
_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_nrrd(
    path: Path,
    voxels: NDArray[Any],
    affine: NDArray[np.float64],
    fields: Mapping[str, str] | None = None,
) -> Path:
    """Write a volume, or several on one grid.

    Args:
        path: An existing file is replaced; its folder is made if needed.
        voxels: (X, Y, Z), or (L, X, Y, Z) for a list of L volumes; uint8, uint16, int16, int32 or
            float32.
        affine: (4, 4), voxel indices to mm, RAS; may be oblique, left-handed or sheared.
        fields: Names and values for readers that know them; UTF-8.

    Returns:
        ``path``.

    Raises:
        TypeError: ``voxels`` have another type.
        ValueError: They have another number of axes.
        VoxsegError: The file cannot be written.
    """
    if voxels.dtype.str[1:] not in _TYPES:
        raise TypeError(f"voxels must be one of {', '.join(_TYPES)}, got {voxels.dtype}")
    if voxels.ndim not in (3, 4):
        raise ValueError(f"voxels must be (X, Y, Z) or (L, X, Y, Z), got {voxels.shape}")
    with replacing(Path(path)) as temporary, temporary.open("wb") as file:
        file.write(_header(voxels, affine, fields or {}).encode())
        _write_voxels(file, voxels)
    return path


def _header(voxels: NDArray[Any], affine: NDArray[np.float64], fields: Mapping[str, str]) -> str:
    lps = _TO_LPS @ np.asarray(affine, np.float64)
    directions = [_vector(lps[:3, axis]) for axis in range(3)]
    kinds = ["domain"] * 3
    if voxels.ndim == 4:
        directions.insert(0, "none")
        kinds.insert(0, "list")
    lines = [
        "NRRD0004",
        "# Complete NRRD file format specification at:",
        "# http://teem.sourceforge.net/nrrd/format.html",
        f"type: {_TYPES[voxels.dtype.str[1:]]}",
        f"dimension: {voxels.ndim}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(str(size) for size in voxels.shape)}",
        f"space directions: {' '.join(directions)}",
        f"kinds: {' '.join(kinds)}",
        *(["endian: little"] if voxels.dtype.itemsize > 1 else []),
        "encoding: gzip",
        f"space origin: {_vector(lps[:3, 3])}",
        *(f"{name}:={_escaped(value)}" for name, value in fields.items()),
    ]
    return "\n".join(lines) + "\n\n"


def _vector(numbers: NDArray[np.float64]) -> str:
    return f"({','.join(repr(float(number) + 0.0) for number in numbers)})"  # no -0.0


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def _write_voxels(file: BinaryIO, voxels: NDArray[Any]) -> None:
    """Compress voxels, the first axis running fastest, one layer of the last axis at a time."""
    dtype = voxels.dtype.newbyteorder("<")
    with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
        for layer in range(voxels.shape[-1]):
            packed.write(voxels[..., layer].astype(dtype, copy=False).tobytes(order="F"))
