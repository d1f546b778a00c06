"""Pictures of boundaries for a page: the photograph, what was found, what people drew, errors.

Lines are drawn dark on white as papers have them, errors in colours on the dimmed photograph. Where
a photograph is shrunk to fit the page, lines are widened first, so that none is lost.
"""

import io
import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from voxseg.export.labels import Colour
from voxseg.export.photo_picture import PAGE_WIDTH, panel_width, photo_sheet

BOUNDARY_ERRORS: dict[str, Colour] = {
    "found, and drawn by somebody": (86, 180, 233),  # sky blue
    "found, but drawn by nobody": (213, 94, 0),  # vermilion
    "drawn, but not found; the brighter, the more people drew it": (240, 228, 66),  # yellow
}
"""Legend of the picture of errors: right, wrong and missed, in Okabe and Ito's colours."""

_DIMMED = 0.3  # of the photograph under errors, so that their colours stand out
_PANELS = 4

Masks = NDArray[np.bool_]
Shares = NDArray[np.floating]


def draw_boundaries(
    photograph: NDArray[np.uint8] | None,
    prediction: Shares | None,
    truth: Shares | None = None,
    errors: tuple[Masks, Masks, Shares] | None = None,
) -> bytes:
    """Draw a photograph, its boundaries, and where prediction and truth differ, as a PNG.

    Args:
        photograph: (H, W, 3), or None.
        prediction: (H, W) strength in [0, 1], after suppression, or None.
        truth: (H, W) share of the annotators who drew a boundary, or None.
        errors: Right pixels, wrong ones, and the share of annotators who drew what was missed, each
            (H, W); or None.

    Raises:
        ValueError: There is nothing to draw, or the sizes differ.
    """
    given = (photograph, prediction, truth, *(errors or ()))
    sizes = {one.shape[:2] for one in given if one is not None}
    if len(sizes) != 1:
        raise ValueError(f"photograph and boundaries must have one size, got {sorted(sizes)}")
    (size,) = sizes
    widen = math.ceil(max(size[1] / panel_width(_PANELS), size[0] / PAGE_WIDTH))
    panels = {} if photograph is None else {"photograph": photograph}
    for name, lines in (("prediction", prediction), ("truth", truth)):
        if lines is not None:
            panels[name] = np.repeat(255 - _levels(lines, widen)[..., None], 3, axis=2)
    if errors is not None:
        panels["errors"] = _errors(photograph, errors, widen)
    buffer = io.BytesIO()
    photo_sheet(panels, size).save(buffer, format="PNG")
    return buffer.getvalue()


def _levels(lines: Shares | Masks, widen: int) -> NDArray[np.uint8]:
    """Return lines (H, W) as 0 to 255, ``widen`` pixels wide at least."""
    levels = np.rint(255 * lines.astype(np.float64).clip(0, 1)).astype(np.uint8)
    return np.asarray(maximum_filter(levels, widen), np.uint8)


def _errors(
    photograph: NDArray[np.uint8] | None, errors: tuple[Masks, Masks, Shares], widen: int
) -> NDArray[np.uint8]:
    """Draw what was missed, over it what was found, right over wrong."""
    found, imagined, missed = errors
    # Annotators' lines lie side by side, so a share is seldom large; its root can be seen.
    lines = (_levels(one, widen)[..., None] / 255 for one in (found, imagined, np.sqrt(missed)))
    layers = list(zip(lines, BOUNDARY_ERRORS.values(), strict=True))
    drawn = np.zeros((*found.shape, 3))
    if photograph is not None:
        drawn += _DIMMED * photograph.mean(axis=2, keepdims=True)
    for opacity, colour in reversed(layers):
        drawn = (1 - opacity) * drawn + opacity * np.array(colour, np.float64)
    return np.rint(drawn).astype(np.uint8)
