"""Surface normals of photographs: which way each pixel's surface faces.

Axes are those of the viewer: x to the right, y up, z towards the viewer. A pixel whose normal is
not known has the zero vector.

Understood, by the file:

- NumPy archives (``.npz``): ``normal``, floating point (H, W, 3), and where it is there ``valid``,
  boolean (H, W); the photograph may lie in the same archive.
- ``X.normal.png``: 8 bits a channel, 1 to 255 for -1 to 1, (0, 0, 0) where nothing is known.
- Other pictures: 0 to 255 for -1 to 1; (0, 0, 0), and the grey of a zero vector, where nothing is
  known.

Normals come out with length 1. What is further from it than rounding explains is refused: it may be
interpolated, of another coding, or no normals at all.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from voxseg.data.archives import array_header, array_names, read_array
from voxseg.data.images import opened_picture, picture_volume
from voxseg.data.names import is_archive_file
from voxseg.data.volume import Volume
from voxseg.errors import DataError

_FROM_1 = re.compile(r"\.normals?\.\w+$", re.IGNORECASE)
_ROUNDING_16_BITS = 0.01  # float16 is off by 0.0005; thrice that and what resaving adds
_ROUNDING_8_BITS = 0.03  # rounded down instead of to the nearest, sqrt(3) / 127, and the coding
_UNKNOWN = 0.1  # shorter ones stand for no normal: the nearest to zero in 8 bits is 0.007


def is_coded_from_1(path: Path) -> bool:
    """Tell whether the name is ``X.normal.png``, whose values are 1 to 255."""
    return bool(_FROM_1.search(path.name))


def is_normals_file(path: Path | None) -> bool:
    """Tell whether the name of a label says that it holds normals, not classes."""
    return path is not None and (is_archive_file(path) or is_coded_from_1(path))


def read_normals(path: Path) -> Volume:
    """Read a photograph's normals as float32 (3, H, W, 1), of length 1, or 0 where unknown.

    Raises:
        DataError: The file is missing or damaged, holds other numbers than normals or of another
            size than its image, or normals that are not of length 1, or none at all.
    """
    path = Path(path)
    if is_archive_file(path):
        normals, known = _archived(path)
        rounding = _ROUNDING_16_BITS
    else:
        normals, known = _painted(path)
        rounding = _ROUNDING_8_BITS
    normals = _of_length_1(normals, known, rounding, path)
    return picture_volume(np.ascontiguousarray(normals.transpose(2, 0, 1))[..., None], path)


def normals_shape(path: Path) -> tuple[int, int]:
    """Read the height and width of a file of normals from its header.

    Raises:
        DataError: As ``read_normals``, as far as headers tell.
    """
    if is_archive_file(path):
        shape, dtype = array_header(path, "normal")
        _check_array(shape, dtype, path)
        return shape[0], shape[1]
    with opened_picture(path) as picture:
        width, height = picture.size
    return height, width


def _archived(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the vectors (H, W, 3) of an archive, and where they are known."""
    normals = read_array(path, "normal")
    _check_array(normals.shape, normals.dtype, path)
    size, names = normals.shape[:2], array_names(path)
    if "image" in names:
        shape, _ = array_header(path, "image")
        if shape[:2] != size:
            raise DataError(
                f"{path} has {_by(size)} normals but an image of {_by(shape[:2])} pixels; save "
                "both in one size"
            )
    normals = normals.astype(np.float32)
    known = (normals != 0).any(axis=2)
    if "valid" not in names:
        return normals, known
    valid = read_array(path, "valid")
    if valid.dtype != np.bool_ or valid.shape != size:
        raise DataError(
            f"{path} holds valid as {valid.dtype} {valid.shape} where bool {size} is needed, as "
            "its normals are; save it so"
        )
    return normals, valid & known


def _check_array(shape: tuple[int, ...], dtype: np.dtype[Any], path: Path) -> None:
    if len(shape) != 3 or shape[2] != 3 or min(shape) < 1 or dtype.kind != "f":
        raise DataError(
            f"{path} holds normal as {dtype} {shape} where floating point (H, W, 3) is needed, x "
            "right, y up, z to the viewer; save it so"
        )


def _painted(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the vectors (H, W, 3) of a picture, and where they are known."""
    with opened_picture(path) as picture:
        if picture.format in ("JPEG", "MPO"):
            raise DataError(
                f"normals {path} are a JPEG, which changes them; export them as PNG or as a NumPy "
                "archive again"
            )
        if picture.mode != "RGB":
            raise DataError(
                f"normals {path} are stored as {picture.mode} where red, green and blue are needed "
                "for x, y and z; export them as an 8-bit RGB PNG"
            )
        values = np.asarray(picture)
    start, steps = (1, 254) if is_coded_from_1(path) else (0, 255)
    normals = (values.astype(np.float32) - start) / steps * 2 - 1
    return normals, values.any(axis=2) & (np.linalg.norm(normals, axis=2) > _UNKNOWN)


def _of_length_1(
    normals: np.ndarray[Any, Any], known: np.ndarray[Any, Any], rounding: float, path: Path
) -> np.ndarray[Any, Any]:
    """Return the known vectors (H, W, 3) with length 1, all others 0."""
    if not known.any():
        raise DataError(
            f"{path} has no pixel whose normal is known; correct it, or leave the case out"
        )
    lengths = np.linalg.norm(normals, axis=2)
    wrong = known & ~(np.abs(lengths - 1) <= rounding)  # NaN is wrong as well
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise DataError(
            f"{path} has {wrong.sum()} of {known.sum()} normals that are not of length 1, the first"
            f" {lengths[row, column]:.3g} in row {row}, column {column}; divide them by their "
            "length, and make them 0 where they are unknown"
        )
    scale = np.where(known, lengths, 1)[..., None]
    return np.where(known[..., None], normals / scale, 0).astype(np.float32)


def _by(size: tuple[int, ...]) -> str:
    """Width by height."""
    return "x".join(str(one) for one in size[::-1])
