"""Three-plane pictures of a case: image, classes, errors, uncertainty, supervoxels.

Pictures are drawn as 3D Slicer shows a volume (radiological: the subject's right on the left of
the screen), with proportions from the spacing. Which array axis runs where, and in which direction,
comes from the affine; an oblique volume is drawn along its own axes, named after the nearest ones
of the body. Error colours are of Okabe and Ito's palette, told apart with any colour vision.
"""

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxseg.export.axes import cosines, nearest_axes, to_ras
from voxseg.export.labels import Colour
from voxseg.export.report_parts import ReportCase

FALSE_POSITIVE, FALSE_NEGATIVE, WRONG_CLASS = 1, 2, 3
ERROR_COLOURS: dict[int, Colour] = {
    FALSE_POSITIVE: (213, 94, 0),  # vermilion
    FALSE_NEGATIVE: (0, 114, 178),  # blue
    WRONG_CLASS: (240, 228, 66),  # yellow
}
ERROR_NAMES = {
    FALSE_POSITIVE: "predicted, not true (false positive)",
    FALSE_NEGATIVE: "true, not predicted (false negative)",
    WRONG_CLASS: "both, but of different classes",
}
UNCERTAINTY_MAP = "inferno"
"""Matplotlib's colour map from 0 to 1."""

_WIDTH_INCHES = 10.0
_MOST_INCHES = 40.0  # of height; a volume like a needle is drawn narrower
_DPI = 110
_FILL = 0.42  # opacity of the prediction's classes
_WINDOW = (0.5, 99.5)  # percentiles of the foreground that become black and white
_DIMMED = 0.55  # white of the image under errors, so that their colours stand out
_OBLIQUE_DEGREES = 5.0
_SUPERPIXEL_COLOUR = "#ffd54a"
_ERROR_WIDTHS = 24  # of the Gaussian that finds the most error, in the extent of what differs
_MOST_BAR = 0.3  # of the axial picture's width

# Each plane is drawn from RAS+ axes: the one it cuts, then those across and up the picture. Both
# run against their axis from the top left corner, which makes all three radiological.
_PLANES = (
    ("axial", 2, (0, 1), "RLAP"),
    ("coronal", 1, (0, 2), "RLSI"),
    ("sagittal", 0, (1, 2), "APSI"),
)


def draw_case(case: ReportCase, colours: Mapping[int, Colour]) -> bytes:
    """Draw a case in three planes as a PNG.

    Rows: the image; the prediction filled and the truth outlined, where given; where they differ,
    if asked; the uncertainty and the borders of the superpixels, where given. The planes go through
    the place of most error, if errors are asked for and there are any, else through the middle of
    what is segmented. Each says where it cuts, in mm of the world's axes x (to the right), y (to
    the front) and z (up).

    Args:
        case: Its arrays and affine.
        colours: Class value -> red, green, blue in 0-255; other classes are not drawn.

    Raises:
        ValueError: There is no array, or the arrays are not on one grid.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    volumes, affine = _to_ras(case)
    spacing = [float(length) for length in np.linalg.norm(affine[:3, :3], axis=0)]
    volumes, corner = _framed(volumes)
    if case.errors and {"prediction", "truth"} <= set(volumes):
        volumes["errors"] = error_map(volumes["prediction"], volumes["truth"])
    point = _worst_place(volumes, spacing) or _middle(volumes)
    world = affine @ [*(p + c for p, c in zip(point, corner, strict=True)), 1]
    rows = _rows(volumes)
    extents = [volumes["image"].shape[i] * spacing[i] for i in range(3)]
    widths = [extents[across] for _, _, (across, _), _ in _PLANES]
    height = max(extents[up] for _, _, (_, up), _ in _PLANES)
    inches = min(_WIDTH_INCHES / sum(widths), _MOST_INCHES / (height * len(rows)))
    size = (sum(widths) * inches, height * inches * len(rows))
    figure = Figure(figsize=size, facecolor="black")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(rows),
        3,
        width_ratios=widths,
        left=0,
        right=1,
        bottom=0,
        top=1,
        wspace=0.02,
        hspace=0.02,
    )
    window = display_window(volumes["image"])
    for r, row in enumerate(rows):
        for c, (name, cut, (across, up), letters) in enumerate(_PLANES):
            through = [point[cut] if i == cut else slice(None) for i in range(3)]
            planes = {k: v[tuple(through)][::-1, ::-1].T for k, v in volumes.items()}
            axes = figure.add_subplot(grid[r, c])
            axes.set_axis_off()
            _draw_row(axes, row, planes, window, spacing[up] / spacing[across], colours)
            where = f"{name}\n{'xyz'[cut]} = {world[cut]:.4g} mm"
            _write_letters(axes, letters, where if r == 0 else "")
            if r == c == 0:
                _draw_bar(axes, planes["image"].shape, spacing[across])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, facecolor="black")
    return buffer.getvalue()


def error_map(prediction: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.uint8]:
    """Tell how two label maps differ.

    Returns:
        0 where they agree, else ``FALSE_POSITIVE``, ``FALSE_NEGATIVE`` or ``WRONG_CLASS``.
    """
    errors = np.zeros(prediction.shape, np.uint8)
    differ = prediction != truth
    errors[differ & (truth == 0)] = FALSE_POSITIVE
    errors[differ & (prediction == 0)] = FALSE_NEGATIVE
    errors[differ & (prediction != 0) & (truth != 0)] = WRONG_CLASS
    return errors


def caption_of(case: ReportCase) -> str:
    """Say what is drawn; the case's own caption goes first."""
    if not case.arrays or case.affine is None:
        return case.caption
    rows = ["image" if case.image is not None else "no image: masks on black"]
    if case.prediction is not None and case.truth is not None:
        rows.append("prediction filled, truth outlined")
    elif case.prediction is not None:
        rows.append("prediction filled")
    elif case.truth is not None:
        rows.append("truth outlined")
    if case.errors and case.prediction is not None and case.truth is not None:
        rows.append("errors, planes through the place of most error")
    if case.uncertainty is not None:
        rows.append("uncertainty")
    if case.superpixels is not None:
        rows.append("borders of the supervoxels")
    text = f"Rows: {'; '.join(rows)}."
    found = cosines(case.affine)
    angle = max(
        np.degrees(np.arccos(min(1.0, found[i, a])))
        for i, a in enumerate(nearest_axes(case.affine))
    )
    if angle > _OBLIQUE_DEGREES:
        text += (
            f" The volume is oblique by {angle:.0f} degrees; it is drawn along its own axes, and "
            "the coordinates are of the point where the planes meet."
        )
    return f"{case.caption} {text}".strip()


def _rows(volumes: Mapping[str, NDArray[Any]]) -> list[str]:
    """Name the rows of the picture from top to bottom."""
    rows = ["image"]
    rows += ["classes"] if {"prediction", "truth"} & set(volumes) else []
    return rows + [name for name in ("errors", "uncertainty", "superpixels") if name in volumes]


def _draw_row(
    axes: Any,
    row: str,
    planes: Mapping[str, NDArray[Any]],
    window: tuple[float, float],
    aspect: float,
    colours: Mapping[int, Colour],
) -> None:
    """Draw one plane of one row."""
    style: dict[str, Any] = {"interpolation": "nearest", "aspect": aspect}
    if row == "uncertainty":
        axes.imshow(planes["uncertainty"], cmap=UNCERTAINTY_MAP, vmin=0, vmax=1, **style)
        return
    low, high = window
    white = low + (high - low) / _DIMMED if row == "errors" else high
    axes.imshow(planes["image"], cmap="gray", vmin=low, vmax=white, **style)
    if row == "classes":
        if "prediction" in planes:
            axes.imshow(_coloured(planes["prediction"], colours, _FILL), **style)
        for label, colour in colours.items():
            if "truth" in planes:
                _draw_edges(axes, planes["truth"] == label, _unit(colour), 1.0)
    elif row == "errors":
        axes.imshow(_coloured(planes["errors"], ERROR_COLOURS, 1.0), **style)
    elif row == "superpixels":
        _draw_edges(axes, planes["superpixels"], _SUPERPIXEL_COLOUR, 0.5)


def _coloured(
    plane: NDArray[Any], colours: Mapping[int, Colour], opacity: float
) -> NDArray[np.float64]:
    """Turn values into (rows, columns, RGBA); a value without a colour is clear."""
    fill = np.zeros((*plane.shape, 4))
    for value, colour in colours.items():
        fill[plane == value] = (*_unit(colour), opacity)
    return fill


def _unit(colour: Colour) -> tuple[float, ...]:
    return tuple(part / 255 for part in colour)


def _draw_edges(axes: Any, plane: NDArray[Any], colour: Any, width: float) -> None:
    """Draw lines between the pixels of (rows, columns) whose values differ."""
    from matplotlib.collections import LineCollection

    right = np.argwhere(plane[:, 1:] != plane[:, :-1])
    below = np.argwhere(plane[1:] != plane[:-1])
    # Pixel (row, column) covers column +- 0.5 and row +- 0.5; a segment is two points (x, y).
    upright = [[(x + 0.5, y - 0.5), (x + 0.5, y + 0.5)] for y, x in right]
    level = [[(x - 0.5, y + 0.5), (x + 0.5, y + 0.5)] for y, x in below]
    axes.add_collection(
        LineCollection(upright + level, colors=[colour], linewidths=width, capstyle="projecting"),
        autolim=False,
    )


def _write_letters(axes: Any, letters: str, name: str) -> None:
    """Write the directions at left, right, top and bottom, and the plane's name in a corner."""
    from matplotlib.patheffects import withStroke

    rim = [withStroke(linewidth=2.5, foreground="black")]  # for letters on a bright image
    style = {"color": "white", "fontsize": 10, "transform": axes.transAxes, "path_effects": rim}
    places = ((0.015, 0.5, "left", "center"), (0.985, 0.5, "right", "center"),
              (0.5, 0.985, "center", "top"), (0.5, 0.015, "center", "bottom"))  # fmt: skip
    for letter, (x, y, across, up) in zip(letters, places, strict=True):
        axes.text(x, y, letter, ha=across, va=up, **style)
    axes.text(0.015, 0.985, name, ha="left", va="top", **style)


def _draw_bar(axes: Any, shape: tuple[int, ...], spacing: float) -> None:
    """Draw a bar of 1, 2 or 5 times a power of ten of mm in the lower left corner."""
    most = _MOST_BAR * shape[1] * spacing
    power = 10.0 ** math.floor(math.log10(most))
    length = max(step * power for step in (1, 2, 5) if step * power <= most)
    left, right = 0.03, 0.03 + length / (shape[1] * spacing)
    axes.plot([left, right], [0.03, 0.03], color="white", lw=2, transform=axes.transAxes,
              solid_capstyle="butt", scalex=False, scaley=False)  # fmt: skip
    axes.text(left, 0.045, f"{length:g} mm", color="white", fontsize=9, ha="left", va="bottom",
              transform=axes.transAxes)  # fmt: skip


def _to_ras(case: ReportCase) -> tuple[dict[str, NDArray[Any]], NDArray[np.float64]]:
    """Permute and flip all arrays of a case to RAS+ order, and its affine with them."""
    arrays = case.arrays
    if not arrays or case.affine is None:
        raise ValueError(f"{case.case_id} has nothing to draw; give an image or a label map")
    if "image" not in arrays:
        some = next(iter(arrays.values()))
        arrays = {"image": np.zeros(some.shape, np.float32), **arrays}
    return to_ras(arrays, case.affine)


def _worst_place(volumes: Mapping[str, NDArray[Any]], spacing: list[float]) -> list[int] | None:
    """Voxel in error around which most others are; None without errors.

    The errors are blurred first. Their largest connected part would not do: thin errors along the
    borders are often one shell around everything, with nothing in its middle.
    """
    if "errors" not in volumes or not volumes["errors"].any():
        return None
    wrong = volumes["errors"] > 0
    box = tuple(slice(int(p.min()), int(p.max()) + 1) for p in np.nonzero(wrong))
    wrong = wrong[box]
    extent = max(size * mm for size, mm in zip(wrong.shape, spacing, strict=True))
    from scipy.ndimage import gaussian_filter

    widths = [extent / _ERROR_WIDTHS / mm for mm in spacing]
    density = gaussian_filter(wrong.astype(np.float32), widths, mode="constant") * wrong
    place = np.unravel_index(int(density.argmax()), density.shape)
    return [int(p) + b.start for p, b in zip(place, box, strict=True)]


def _middle(volumes: Mapping[str, NDArray[Any]]) -> list[int]:
    """Voxel through which the planes go: the median of what is segmented, else of the image."""
    for name in ("truth", "prediction", "image"):
        if name in volumes:
            array = volumes[name]
            inside = np.nonzero(array > (array.min() if name == "image" else 0))
            if inside[0].size:
                return [int(np.median(positions)) for positions in inside]
    return [size // 2 for size in volumes["image"].shape]


def _framed(volumes: Mapping[str, NDArray[Any]]) -> tuple[dict[str, NDArray[Any]], list[int]]:
    """Cut to what is not background in the image or segmented; add a margin for the letters.

    Returns:
        The volumes, and which voxel of the whole their first one is.
    """
    image = volumes["image"]
    shown = image > image.min()
    for name in ("prediction", "truth"):
        if name in volumes:
            shown = shown | (volumes[name] > 0)
    box, margins = [], []
    for axis, size in enumerate(image.shape):
        others = tuple(other for other in range(3) if other != axis)
        used = np.flatnonzero(shown.any(axis=others))
        first, last = (int(used[0]), int(used[-1])) if used.size else (0, size - 1)
        box.append(slice(first, last + 1))
        margins.append(2 + (last - first) // 10)
    outside = {"image": image.min(), "superpixels": -1}
    framed = {
        name: np.pad(
            volume[tuple(box)], [(m, m) for m in margins], constant_values=outside.get(name, 0)
        )
        for name, volume in volumes.items()
    }
    return framed, [b.start - m for b, m in zip(box, margins, strict=True)]


def display_window(image: NDArray[Any]) -> tuple[float, float]:
    """Intensities to be black and white: percentiles of what is above the image's minimum."""
    inside = image[image > image.min()]
    if not inside.size:
        return float(image.min()), float(image.min()) + 1
    low, high = (float(value) for value in np.percentile(inside, _WINDOW))
    return min(low, 0.0) if image.min() == 0 else low, max(high, low + 1e-6)
