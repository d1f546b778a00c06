"""Surface normals as files: colours that every viewer shows, and arrays to go on with.

Colours are the usual ones, red, green and blue from 0 to 255 for x, y and z from -1 to 1: what
faces the viewer is blue, the right red, up green; black where nothing is known. Archives
(``.npz``) hold ``normal``, float16 (H, W, 3), and ``valid``, boolean (H, W).
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from voxseg.files import replacing

_FROM_1 = (".normal.png", ".normals.png")


def normal_colours(normals: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Colour normals.

    Args:
        normals: (3, H, W) or (3, H, W, 1), of length 1 or 0.

    Returns:
        (H, W, 3); no vector of length 1 is black.

    Raises:
        ValueError: The shape is another.
    """
    vectors = _last(normals)
    colours = np.rint((vectors.clip(-1, 1) + 1) / 2 * 255).astype(np.uint8)
    colours[~vectors.any(axis=2)] = 0
    return colours


def write_normals_png(path: Path, normals: NDArray[np.floating[Any]]) -> Path:
    """Write normals as an 8-bit RGB PNG, whose values are off by half of 1/127 at most.

    Args:
        path: ``.png``, but not ``.normal.png``, which means another coding; its folder is made if
            needed. An existing file is replaced.
        normals: as for ``normal_colours``.

    Raises:
        ValueError: The shape or the name is another.
        VoxsegError: The file cannot be written.
    """
    if path.name.lower().endswith(_FROM_1):
        raise ValueError(f"{path.name} would be read as coded from 1 to 255; choose another name")
    picture = Image.fromarray(normal_colours(normals))
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)
    return path


def write_normals_npz(path: Path, normals: NDArray[np.floating[Any]]) -> Path:
    """Write normals as a NumPy archive; arguments and errors as of ``write_normals_png``."""
    vectors = _last(normals)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, normal=vectors.astype(np.float16), valid=vectors.any(axis=2))
    return path


def _last(normals: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return vectors (H, W, 3)."""
    flat = normals[..., 0] if normals.ndim == 4 and normals.shape[3] == 1 else normals
    if flat.ndim != 3 or len(flat) != 3:
        raise ValueError(f"normals must be (3, H, W), got {normals.shape}")
    return flat.transpose(1, 2, 0)
