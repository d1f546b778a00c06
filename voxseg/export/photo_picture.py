"""Pictures of a photograph for a page: as it is, its classes, and where they are wrong.

Photographs are drawn as they are, shrunk where they are large; masks keep sharp borders.
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from voxseg.export.labels import Colour

WRONG, NOT_COUNTED = 1, 2
PHOTO_ERRORS: dict[str, Colour] = {
    "predicted as another class": (213, 94, 0),  # vermilion
    "does not count": (0, 114, 178),  # blue
}
"""Legend of the picture of errors, in the order of ``WRONG`` and ``NOT_COUNTED``."""

PAGE_WIDTH = 1100
_GAP = 4
_FILL = 0.6  # opacity of the classes
_DIMMED = 0.45  # of the photograph under errors, so that their colour stands out
_LETTERS = 15


def draw_photograph(
    photograph: NDArray[np.uint8] | None,
    masks: Mapping[str, NDArray[Any]],
    colours: Mapping[int, Colour],
    labels: NDArray[Any] | None = None,
) -> bytes:
    """Draw a photograph, its masks over it, and where prediction and truth differ, as a PNG.

    Args:
        photograph: (H, W, 3), or None for masks on black.
        masks: "prediction" and "truth", those that there are; (H, W) class values.
        colours: Class value -> red, green, blue in 0 to 255; other classes are left clear.
        labels: Class values that count where they are true; all if None.

    Raises:
        ValueError: There is nothing to draw, or the sizes differ.
    """
    sizes = {one.shape[:2] for one in (photograph, *masks.values()) if one is not None}
    if len(sizes) != 1:
        raise ValueError(f"photograph and masks must have one size, got {sorted(sizes)}")
    (size,) = sizes
    base = np.zeros((*size, 3), np.uint8) if photograph is None else photograph
    panels = {} if photograph is None else {"photograph": base}
    for name, mask in masks.items():
        panels[name] = _over(base, mask, colours)
    if {"prediction", "truth"} <= set(masks):
        counts = None if labels is None else np.isin(masks["truth"], labels)
        panels["errors"] = _errors(base, error_map(masks["prediction"], masks["truth"], counts))
    buffer = io.BytesIO()
    photo_sheet(panels, size).save(buffer, format="PNG")
    return buffer.getvalue()


def error_map(
    prediction: NDArray[Any], truth: NDArray[Any], counts: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Tell where a photograph's classes are wrong.

    Returns:
        0 where they are right, else ``WRONG`` or ``NOT_COUNTED``.
    """
    errors = np.where(prediction != truth, WRONG, 0).astype(np.uint8)
    if counts is not None:
        errors[~counts] = NOT_COUNTED
    return errors


def _over(
    base: NDArray[np.uint8], mask: NDArray[Any], colours: Mapping[int, Colour]
) -> NDArray[np.uint8]:
    """Lay the colours of classes over a photograph."""
    drawn = base.copy()
    for label, colour in colours.items():
        inside = mask == label
        mixed = (1 - _FILL) * base[inside] + _FILL * np.array(colour)
        drawn[inside] = mixed.round().astype(np.uint8)
    return drawn


def _errors(base: NDArray[np.uint8], errors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey = _DIMMED * base.mean(axis=2, keepdims=True)
    drawn = np.broadcast_to(grey, base.shape).round().astype(np.uint8)
    for kind, colour in enumerate(PHOTO_ERRORS.values(), 1):
        drawn[errors == kind] = colour
    return drawn


def panel_width(count: int) -> int:
    """Return how many pixels wide each of several panels is at most."""
    columns = min(2, count)
    return (PAGE_WIDTH - (columns - 1) * _GAP) // columns


def photo_sheet(panels: Mapping[str, NDArray[np.uint8]], size: tuple[int, ...]) -> Image.Image:
    """Put panels (H, W, 3) of one size in two columns, each with its name in a corner."""
    columns, width = min(2, len(panels)), panel_width(len(panels))
    height = max(1, round(width * size[0] / size[1]))
    if height > PAGE_WIDTH:  # a tower
        width, height = max(1, round(PAGE_WIDTH * size[1] / size[0])), PAGE_WIDTH
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (columns * (width + _GAP) - _GAP, rows * (height + _GAP) - _GAP))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_LETTERS)
    for number, (name, pixels) in enumerate(panels.items()):
        is_smooth = name == "photograph" and size[1] > width
        how = Image.Resampling.BOX if is_smooth else Image.Resampling.NEAREST
        row, column = divmod(number, columns)
        left, top = column * (width + _GAP), row * (height + _GAP)
        sheet.paste(Image.fromarray(pixels).resize((width, height), how), (left, top))
        draw.text(
            (left + 6, top + 4), name, fill="white", font=font, stroke_width=2, stroke_fill="black"
        )
    return sheet
