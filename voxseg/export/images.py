"""Pictures: masks as PNGs whose pixel values are classes, maps as float TIFFs, colour overlays."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from voxseg.export.labels import Colour, class_colours
from voxseg.files import replacing

_MOST_8_BITS, _MOST_16_BITS = 2**8 - 1, 2**16 - 1
_JPEG_QUALITY = 90  # other kinds of picture have none


def write_label_png(
    path: Path, label: np.ndarray, colours: Mapping[int, Colour] | None = None
) -> Path:
    """Write a label map (H, W): a palette PNG up to value 255, a 16-bit grey one up to 65535.

    Args:
        path: ``.png``; its folder is made if needed. An existing file is replaced.
        label: integer or boolean.
        colours: By value, red, green, blue in 0 to 255; by default ``class_colours``.

    Raises:
        ValueError: A value is outside 0 to 65535.
        VoxsegError: The file cannot be written.
    """
    low, high = (int(label.min()), int(label.max())) if label.size else (0, 0)
    if low < 0 or high > _MOST_16_BITS:
        raise ValueError(f"a PNG holds values from 0 to {_MOST_16_BITS}, not {low} to {high}")
    if high > _MOST_8_BITS:
        picture = Image.fromarray(label.astype(np.uint16))
    else:
        known = class_colours(range(1, _MOST_8_BITS + 1)) if colours is None else colours
        picture = Image.fromarray(label.astype(np.uint8))
        palette = [known.get(value, (0, 0, 0)) for value in range(_MOST_8_BITS + 1)]
        picture.putpalette([part for colour in palette for part in colour])
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)
    return path


def write_grey_tiff(path: Path, values: np.ndarray) -> Path:
    """Write a map of numbers (H, W) as a float32 TIFF; the suffix of ``path`` is the caller's."""
    picture = Image.fromarray(values.astype(np.float32))
    with replacing(path) as temporary:
        picture.save(temporary, format="TIFF", compression="tiff_adobe_deflate")
    return path


def write_grey_png(path: Path, values: np.ndarray) -> Path:
    """Write 8 or 16 bits of grey (H, W), uint8 or uint16, as a PNG; ``path`` is replaced."""
    picture = Image.fromarray(values)
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)
    return path


def write_overlay(
    path: Path,
    photograph: np.ndarray,
    label: np.ndarray,
    colours: Mapping[int, Colour],
    opacity: float = 0.5,
) -> Path:
    """Write a photograph with its classes laid over it in colour.

    Args:
        path: ``.png``, ``.jpg`` or another picture; its folder is made if needed. An existing file
            is replaced.
        photograph: (3, H, W) or (3, H, W, 1), red, green and blue in 0 to 255.
        label: (H, W) or (H, W, 1), integer.
        colours: By value, in 0 to 255; the photograph shows where a value has none.
        opacity: Of the colours, in [0, 1].

    Raises:
        ValueError: Sizes differ, or ``opacity`` is outside its range.
        VoxsegError: The file cannot be written.
    """
    height, width = photograph.shape[1:3]
    if photograph.size != 3 * height * width or label.size != height * width:
        raise ValueError(
            f"a photograph (3, H, W) and a label (H, W) are needed, got {photograph.shape} and "
            f"{label.shape}"
        )
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be in [0, 1], got {opacity}")
    pixels = photograph.reshape(3, height, width).transpose(1, 2, 0).astype(np.float32)
    values = label.reshape(height, width)
    for value, colour in colours.items():
        inside = values == value
        pixels[inside] = (1 - opacity) * pixels[inside] + opacity * np.array(colour, np.float32)
    picture = Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))
    with replacing(path) as temporary:
        picture.save(temporary, quality=_JPEG_QUALITY)
    return path
