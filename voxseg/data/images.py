"""Photographs, as volumes of one slice.

A photograph is a ``Volume`` with an array (3, H, W, 1), rows first, of red, green and blue in 0 to
255; its affine is the identity, so that nothing turns it, and it has no header. Everything that is
done with slices of volumes is then done with photographs, too.

What is made of other pictures than 8-bit RGB: grey levels count as equal colours; 16 bits are
divided by 257, so that 65535 becomes 255 whatever the range that is used; transparent pixels are
laid on black; CMYK and palettes become RGB, without colour profiles. Pixels are taken as stored: an
EXIF orientation turns neither photograph nor mask (a TIFF's own orientation, which is part of how
its rows are stored, turns both). Several frames, floating point numbers and
wider integers are refused.

A NumPy archive (``.npz``) may take a photograph's place: its array ``image``, uint8 (H, W, 3).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from voxseg.data.archives import array_header, read_array
from voxseg.data.names import is_archive_file
from voxseg.data.sniff import HEAD_BYTES, describe_head
from voxseg.data.volume import Volume
from voxseg.errors import DataError

SIXTEEN_BITS = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
"""Modes of pictures with more than 8 bits of grey."""

_BYTES_READ = 3 + 3 * 4  # a pixel: decoded, and as float32
_WIDE_TO_8_BITS = 257.0  # 65535 / 255
_MOST_16_BITS = 65535
_WITH_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_TO_RGB = frozenset({"1", "L", "P", "CMYK", "YCbCr", "HSV"})
_PREVIEWS = frozenset({"MPO"})  # a photograph and smaller copies of it, as telephones save them
_ORIENTATION_TAG = 0x0112


@dataclass(frozen=True)
class PictureFacts:
    """What the header of a picture says."""

    shape: tuple[int, int]
    """Height and width in pixels."""
    dtype: str
    """Of the numbers and what they are, such as ``uint8 RGB``."""
    habits: frozenset[str] = frozenset()
    """Of ``grey``, ``alpha``, ``16-bit``, ``CMYK`` and ``turned`` (by its EXIF orientation)."""


def read_photograph(path: Path) -> Volume:
    """Read a photograph as float32 (3, H, W, 1) in 0 to 255.

    Raises:
        DataError: The file is missing, damaged, no picture, or of a kind that is not understood.
    """
    if is_archive_file(path):
        pixels = read_array(path, "image")
        _check_archived(pixels.shape, pixels.dtype, path)
        pixels = pixels.astype(np.float32)
    else:
        with opened_picture(path) as picture:
            pixels = _rgb(picture, path)
    return picture_volume(np.ascontiguousarray(pixels.transpose(2, 0, 1))[..., None], path)


def photograph_geometry(paths: Sequence[Path]) -> tuple[Volume, int]:
    """Read the size of a photograph alone; its pixels are zero and take no memory.

    Returns:
        The volume, and how many bytes reading it will take.
    """
    height, width = picture_facts(paths[0]).shape
    array = np.broadcast_to(np.float32(0), (3, height, width, 1))
    return picture_volume(array, paths[0]), _BYTES_READ * height * width


def picture_facts(path: Path) -> PictureFacts:
    """Read what the header of a picture says, without its pixels.

    Raises:
        DataError: As ``read_photograph``, as far as headers tell.
    """
    if is_archive_file(path):
        shape, dtype = array_header(path, "image")
        _check_archived(shape, dtype, path)
        return PictureFacts((shape[0], shape[1]), "uint8 RGB")
    with opened_picture(path) as picture:
        width, height = picture.size
        mode, is_wide = picture.mode, picture.mode in SIXTEEN_BITS or "16" in stored_form(picture)
        has_alpha = mode in _WITH_ALPHA or "transparency" in picture.info
        habits = {
            "grey": mode in SIXTEEN_BITS | {"1", "L", "LA", "La"},
            "alpha": has_alpha,
            "16-bit": is_wide,
            "CMYK": mode == "CMYK",
            "turned": _is_turned(picture),
        }
    words = {"1": "bits", "L": "grey", "P": "palette", **dict.fromkeys(SIXTEEN_BITS, "grey")}
    number = "float32" if mode == "F" else "uint16" if is_wide else "uint8"
    found = frozenset(habit for habit, has in habits.items() if has)
    return PictureFacts((height, width), f"{number} {words.get(mode, mode)}", found)


@contextmanager
def opened_picture(path: Path) -> Iterator[Image.Image]:
    """Open a picture; what its decoder has to say becomes one sentence.

    Raises:
        DataError: The file is missing, damaged, no picture, or has several frames.
    """
    try:
        with Image.open(path) as picture:
            frames = getattr(picture, "n_frames", 1)
            if frames > 1 and picture.format not in _PREVIEWS:
                raise DataError(
                    f"{path} holds {frames} frames where one is needed; save each as a picture of "
                    "its own, or a stack of slices as NIfTI"
                )
            yield picture
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the name") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; name a picture inside it") from None
    except UnidentifiedImageError:
        raise DataError(
            f"{path} is no picture that can be read: it looks like {_looks(path)}; convert it to "
            "PNG, or remove it"
        ) from None
    except Image.DecompressionBombError:
        raise DataError(f"{path} has too many pixels for one picture; cut it into tiles") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} is truncated or damaged ({' '.join(str(error).split())}); copy or download it "
            "again"
        ) from None


def stored_form(picture: Image.Image) -> str:
    """Return how an opened picture is stored, in its decoder's word (``L;4``); "" if unknown."""
    tiles = getattr(picture, "tile", None)  # of pictures from files only
    form = tiles[0].args if tiles else ""
    first = form[0] if isinstance(form, tuple) and form else form
    return first if isinstance(first, str) else ""


def picture_volume(array: np.ndarray, path: Path) -> Volume:
    """Return pixels, (3, H, W, 1) or (H, W, 1), as a volume of one slice."""
    return Volume(array, np.eye(4), None, Path(path))


def _rgb(picture: Image.Image, path: Path) -> np.ndarray:
    """Return red, green and blue, float32 (H, W, 3)."""
    if picture.mode in SIXTEEN_BITS:
        wide = np.asarray(picture).astype(np.int64)
        if wide.min() < 0 or wide.max() > _MOST_16_BITS:
            raise DataError(
                f"{path} holds values from {wide.min()} to {wide.max()}, beyond 16 bits; save it "
                "with values from 0 to 255"
            )
        grey = (wide / _WIDE_TO_8_BITS).astype(np.float32)
        return np.broadcast_to(grey[..., None], (*grey.shape, 3))
    if picture.mode in _WITH_ALPHA or "transparency" in picture.info:
        rgba = np.asarray(picture.convert("RGBA"), np.float32)
        return np.rint(rgba[..., :3] * (rgba[..., 3:] / 255))
    if picture.mode != "RGB" and picture.mode not in _TO_RGB:
        kind = "floating point values" if picture.mode == "F" else f"{picture.mode} colours"
        raise DataError(
            f"{path} holds {kind} where red, green and blue from 0 to 255 are needed; save it as "
            "an 8-bit PNG"
        )
    return np.asarray(picture.convert("RGB"), np.float32)


def _check_archived(shape: tuple[int, ...], dtype: np.dtype[Any], path: Path) -> None:
    if len(shape) != 3 or shape[2] != 3 or min(shape) < 1 or dtype != np.uint8:
        raise DataError(
            f"{path} holds an image {dtype} {shape} where red, green and blue as uint8 (H, W, 3) "
            "are needed; save it so"
        )


def _is_turned(picture: Image.Image) -> bool:
    """Tell whether viewers turn or mirror the picture; a PNG tells it only where EXIF comes first.

    Asking a PNG without EXIF would read all of its pixels.
    """
    if picture.format == "PNG" and "exif" not in picture.info:
        return False
    return picture.getexif().get(_ORIENTATION_TAG, 1) in range(2, 9)


def _looks(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return describe_head(head) if head else "an empty file"
