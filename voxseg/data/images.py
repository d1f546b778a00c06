"""Photographs and their masks, as volumes of one slice.

A photograph is a ``Volume`` with an array (3, H, W, 1), rows first, of red, green and blue in 0 to
255; its affine is the identity, so that nothing turns it, and it has no header. Everything that is
done with slices of volumes is then done with photographs, too.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from voxseg.data.volume import Volume
from voxseg.errors import DataError

_BYTES_READ = 3 + 3 * 4  # a pixel: decoded, and as float32


def read_photograph(path: Path) -> Volume:
    """Read a photograph as float32 (3, H, W, 1) in 0 to 255; grey levels count as colours.

    Raises:
        DataError: The file is missing, damaged or no picture.
    """
    with _opened(path) as picture:
        pixels = np.asarray(picture.convert("RGB"), np.float32)
    return _volume(np.ascontiguousarray(pixels.transpose(2, 0, 1))[..., None], path)


def read_mask(path: Path) -> Volume:
    """Read the mask of a photograph as int32 (H, W, 1): palette indices or grey levels.

    Raises:
        DataError: The file is missing, damaged or no picture, or holds colours.
    """
    with _opened(path) as picture:
        if picture.mode not in ("P", "L", "1", "I", "I;16"):
            raise DataError(
                f"{path} holds {picture.mode} colours where each pixel needs one class value; "
                "convert it to a grey-level or palette PNG"
            )
        values = np.asarray(picture)
    return _volume(np.ascontiguousarray(values[..., None], dtype=np.int32), path)


def photograph_geometry(paths: Sequence[Path]) -> tuple[Volume, int]:
    """Read the size of a photograph alone; its pixels are zero and take no memory.

    Returns:
        The volume, and how many bytes reading it will take.
    """
    with _opened(paths[0]) as picture:
        width, height = picture.size
    array = np.broadcast_to(np.float32(0), (3, height, width, 1))
    return _volume(array, paths[0]), _BYTES_READ * height * width


def _opened(path: Path) -> Image.Image:
    try:
        picture = Image.open(path)
        picture.load()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the name") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} is damaged or no picture ({error}); replace it") from None
    return picture


def _volume(array: np.ndarray, path: Path) -> Volume:
    return Volume(array, np.eye(4), None, Path(path))
