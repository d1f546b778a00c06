"""Pictures: masks as PNGs whose pixel values are classes, and maps of numbers as float TIFFs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from voxseg.export.label_table import Colour, class_colours
from voxseg.files import replacing

_MOST_8_BITS, _MOST_16_BITS = 2**8 - 1, 2**16 - 1


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
