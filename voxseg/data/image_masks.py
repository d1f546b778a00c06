"""The masks of photographs: one class value for each pixel, however they are stored.

A palette PNG holds indices, whatever their colours; a grey-level picture holds its values (8 or 16
bits, and 1 bit as 0 and 1; 2 and 4 bits are not stretched to 255). RGB is decoded with a colour
table (``colour_tables.py``) or, where its three channels are equal throughout and there is no
table, read as grey levels. JPEG is refused: it blurs values at the borders of objects. SBD keeps
masks in MATLAB files, ``GTcls.Segmentation``.
"""

import zlib
from pathlib import Path

import numpy as np
import scipy
from PIL import Image

from voxseg.data.colour_tables import TABLE_FILES, colour_table
from voxseg.data.images import SIXTEEN_BITS, opened_picture, picture_volume, stored_form
from voxseg.data.names import is_image_file
from voxseg.data.volume import Volume
from voxseg.errors import DataError

# The decoder stretches few bits of grey to 0 to 255.
_STRETCHED = {"L;2": 85, "L;4": 17}


def is_mask_file(path: Path) -> bool:
    """Tell whether the name is that of a photograph's mask: a picture, or a file of SBD."""
    return is_image_file(path) or is_sbd_file(path)


def is_sbd_file(path: Path) -> bool:
    """Tell whether the name is that of a mask as SBD keeps it."""
    return path.suffix.lower() == ".mat" and not path.name.startswith(".")


def read_mask(path: Path) -> Volume:
    """Read the mask of a photograph as int32 (H, W, 1).

    Raises:
        DataError: The file is missing, damaged or no picture, is a JPEG, or holds colours that no
            table explains.
    """
    path = Path(path)
    values = _sbd(path) if is_sbd_file(path) else _values(path)
    return picture_volume(np.ascontiguousarray(values[..., None], dtype=np.int32), path)


def mask_shape(path: Path) -> tuple[int, int]:
    """Read the height and width of a mask; of a picture without its pixels.

    Raises:
        DataError: As ``read_mask``, as far as headers tell.
    """
    if is_sbd_file(path):
        height, width = _sbd(path).shape
        return height, width
    with opened_picture(path) as picture:
        width, height = picture.size
    return height, width


def _values(path: Path) -> np.ndarray:
    """Return label values (H, W) of a picture."""
    with opened_picture(path) as picture:
        if picture.format in ("JPEG", "MPO"):
            raise DataError(
                f"mask {path} is a JPEG, which changes class values at the borders of objects; "
                "draw or export it as PNG again (of a black-and-white mask, write 255 where values "
                "are above 127 and 0 elsewhere)"
            )
        factor = _STRETCHED.get(stored_form(picture), 1)
        if picture.mode in ("P", "1") or picture.mode in SIXTEEN_BITS:
            return np.asarray(picture)
        if picture.mode == "PA":
            return np.asarray(_opaque(picture, path).getchannel(0))
        if picture.mode in ("L", "LA"):
            grey = np.asarray(_opaque(picture, path).getchannel(0)) // factor
            return _of_grey_table(grey, path)
        if picture.mode in ("RGB", "RGBA"):
            return _decoded(np.asarray(_opaque(picture, path))[..., :3], path)
        kind = "floating point values" if picture.mode == "F" else f"{picture.mode} colours"
        raise DataError(
            f"mask {path} holds {kind} where each pixel needs one class value; convert it to a "
            "grey-level or palette PNG"
        )


def _opaque(picture: Image.Image, path: Path) -> Image.Image:
    """Return the picture, which must not have transparent pixels."""
    if picture.mode in ("LA", "PA", "RGBA"):
        alpha = np.asarray(picture.getchannel("A"))
        if alpha.min() < alpha.max() or alpha.max() < 255:
            raise DataError(
                f"mask {path} has transparent pixels, which say no class; save it without "
                "transparency"
            )
    return picture


def _of_grey_table(grey: np.ndarray, path: Path) -> np.ndarray:
    """Return label values (H, W) of grey levels.

    They are values themselves, unless a table beside numbers its classes by its lines and all of
    its colours are grey: then black and white may be 0 and 1, as in RGB masks of the same table.
    """
    table = colour_table(path)
    if table is None or not table.is_grey:
        return grey
    return table.decode(np.broadcast_to(grey[..., None], (*grey.shape, 3)), path)


def _decoded(pixels: np.ndarray, path: Path) -> np.ndarray:
    """Return label values (H, W) of colours (H, W, 3)."""
    table = colour_table(path)
    if table is not None:
        return table.decode(pixels, path)
    if (pixels == pixels[..., :1]).all():
        return pixels[..., 0]
    raise DataError(
        f"mask {path} holds colours and nothing says which classes they are; put a table beside it "
        f"({', '.join(TABLE_FILES[:-1])} or {TABLE_FILES[-1]}: name and red, green, blue of each "
        "class), or convert it to a grey-level or palette PNG"
    )


def damaged_matlab() -> tuple[type[Exception], ...]:
    """What SciPy raises at MATLAB files that are damaged, of a newer form, or hold something else.

    Asked for when something was raised: SciPy's reader is loaded at its first use.
    """
    return (
        scipy.io.matlab.MatReadError, zlib.error, KeyError, ValueError, TypeError, IndexError,
        OSError, NotImplementedError,
    )  # fmt: skip


def _sbd(path: Path) -> np.ndarray:
    """Read ``GTcls.Segmentation`` (H, W) of a MATLAB file."""
    try:
        with path.open("rb") as file:
            content = scipy.io.loadmat(file, variable_names=["GTcls"])
        values = np.asarray(content["GTcls"]["Segmentation"][0, 0])
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the name") from None
    except damaged_matlab() as error:
        raise DataError(
            f"{path} is damaged or no mask of SBD: it has no GTcls.Segmentation "
            f"({' '.join(str(error).split())}); download it again"
        ) from None
    if values.ndim != 2 or values.dtype.kind not in "iu":
        raise DataError(
            f"{path} is no mask of SBD: its GTcls.Segmentation is no map; download it again"
        )
    return values
