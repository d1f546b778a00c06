"""One HTML page about a run: facts, scores, and three-plane pictures of cases.

The page stands alone: styles and pictures are inside. Pictures are drawn as 3D Slicer shows a
volume (radiological: the subject's right on the left of the screen), with proportions from the
spacing. Which array axis runs where, and in which direction, comes from the affine; an oblique
volume is drawn along its own axes, named after the nearest ones of the body.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxseg import __version__
from voxseg.export.label_table import class_colours
from voxseg.files import write_text

_WIDTH_INCHES = 10.0
_DPI = 110
_FILL = 0.42  # opacity of the prediction's classes
_WINDOW = (0.5, 99.5)  # percentiles of the foreground that become black and white
_OBLIQUE_DEGREES = 5.0
_SUPERPIXEL_COLOUR = "#ffd54a"

# Each plane is drawn from RAS+ axes: the one it cuts, then those across and up the picture. Both
# run against their axis from the top left corner, which makes all three radiological.
_PLANES = (
    ("axial", 2, (0, 1), "RLAP"),
    ("coronal", 1, (0, 2), "RLSI"),
    ("sagittal", 0, (1, 2), "APSI"),
)


@dataclass(frozen=True, eq=False)
class ReportCase:
    """One case to draw; all arrays (X, Y, Z) on one grid."""

    case_id: str
    image: NDArray[Any]
    affine: NDArray[Any]
    """(4, 4), voxel indices to mm in RAS+ world coordinates, as nibabel gives it."""
    prediction: NDArray[Any] | None = None
    """Class values, drawn filled."""
    truth: NDArray[Any] | None = None
    """Class values, drawn as outlines."""
    superpixels: NDArray[Any] | None = None
    """Region map, drawn as borders in a row of its own; negative outside."""
    caption: str = ""


@dataclass(frozen=True)
class ReportTable:
    """A table of ready-made cells; the first column is text."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Report:
    """What the page says."""

    title: str
    class_names: Mapping[int, str]
    """Class value -> name, background included; classes above 0 are in the legend."""
    subtitle: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Name -> value, in the order of the page."""
    warnings: Sequence[str] = ()
    """Sentences that stand at the top."""
    tables: Sequence[ReportTable] = ()
    cases: Iterable[ReportCase] = ()
    """Drawn one after the other, so a generator holds one case at a time."""


def write_report(path: Path, report: Report) -> Path:
    """Write ``report`` as one self-contained HTML file.

    Raises:
        ValueError: A case's arrays are not on one grid.
        VoxsegError: The file cannot be written.
    """
    from jinja2 import Environment

    template = resources.files("voxseg.export").joinpath("report.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    colours = class_colours(report.class_names)
    figures = [
        {
            "name": case.case_id,
            "caption": _caption(case),
            "png": base64.b64encode(draw_case(case, colours)).decode("ascii"),
        }
        for case in report.cases
    ]
    page = environment.from_string(template).render(
        title=report.title,
        subtitle=report.subtitle,
        warnings=report.warnings,
        facts=report.facts,
        tables=report.tables,
        legend=[
            (report.class_names[k], "#{:02x}{:02x}{:02x}".format(*c)) for k, c in colours.items()
        ],
        figures=figures,
        version=__version__,
    )
    write_text(path, page)
    return path


def draw_case(case: ReportCase, colours: Mapping[int, tuple[int, int, int]]) -> bytes:
    """Draw a case in three planes as a PNG.

    Rows: the image; the prediction filled and the truth outlined, where given; the borders of the
    superpixels, where given. The planes go through the middle of what is segmented.

    Args:
        case: Its arrays and affine.
        colours: Class value -> red, green, blue in 0-255; other classes are not drawn.

    Raises:
        ValueError: The arrays are not on one grid.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    volumes = _framed(_to_ras(case))
    image, spacing = volumes["image"], _spacing(case.affine)
    point = _middle(volumes)
    low, high = _window(image)
    rows = ["image"]
    rows += ["classes"] if {"prediction", "truth"} & set(volumes) else []
    rows += ["superpixels"] if "superpixels" in volumes else []
    extents = [image.shape[i] * spacing[i] for i in range(3)]
    widths = [extents[across] for _, _, (across, _), _ in _PLANES]
    height = max(extents[up] for _, _, (_, up), _ in _PLANES)
    inches = _WIDTH_INCHES / sum(widths)
    figure = Figure(figsize=(_WIDTH_INCHES, height * inches * len(rows)), facecolor="black")
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
    for r, row in enumerate(rows):
        for c, (name, cut, (across, up), letters) in enumerate(_PLANES):
            window = [point[cut] if i == cut else slice(None) for i in range(3)]
            planes = {k: v[tuple(window)][::-1, ::-1].T for k, v in volumes.items()}
            axes = figure.add_subplot(grid[r, c])
            axes.set_axis_off()
            axes.imshow(
                planes["image"], cmap="gray", vmin=low, vmax=high, interpolation="nearest",
                aspect=spacing[up] / spacing[across],
            )  # fmt: skip
            if row == "classes":
                _draw_classes(axes, planes, colours)
            elif row == "superpixels":
                _draw_edges(axes, planes["superpixels"], _SUPERPIXEL_COLOUR, 0.5)
            _write_letters(axes, letters, name if r == 0 else "")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, facecolor="black")
    return buffer.getvalue()


def _draw_classes(
    axes: Any, planes: Mapping[str, NDArray[Any]], colours: Mapping[int, tuple[int, int, int]]
) -> None:
    for label, colour in colours.items():
        rgb = tuple(part / 255 for part in colour)
        if "prediction" in planes:
            fill = np.zeros((*planes["prediction"].shape, 4))
            fill[planes["prediction"] == label] = (*rgb, _FILL)
            axes.imshow(fill, interpolation="nearest", aspect=axes.get_aspect())
        if "truth" in planes:
            _draw_edges(axes, planes["truth"] == label, rgb, 1.0)


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
    style = {"color": "white", "fontsize": 10, "transform": axes.transAxes}
    places = ((0.015, 0.5, "left", "center"), (0.985, 0.5, "right", "center"),
              (0.5, 0.985, "center", "top"), (0.5, 0.015, "center", "bottom"))  # fmt: skip
    for letter, (x, y, across, up) in zip(letters, places, strict=True):
        axes.text(x, y, letter, ha=across, va=up, **style)
    axes.text(0.015, 0.985, name, ha="left", va="top", **style)


def _to_ras(case: ReportCase) -> dict[str, NDArray[Any]]:
    """Permute and flip all arrays of a case to RAS+ order; no value changes."""
    volumes = {"image": case.image, "prediction": case.prediction, "truth": case.truth,
               "superpixels": case.superpixels}  # fmt: skip
    axes = _axes(case.affine)
    flips = tuple(
        slice(None, None, -1 if case.affine[world, axis] < 0 else 1)
        for world, axis in enumerate(axes)
    )
    turned = {}
    for name, array in volumes.items():
        if array is None:
            continue
        if array.shape != case.image.shape or array.ndim != 3:
            raise ValueError(
                f"{name} of {case.case_id} must be (X, Y, Z) like its image {case.image.shape}, "
                f"got {array.shape}"
            )
        turned[name] = array.transpose(axes)[flips]
    return turned


def _axes(affine: NDArray[Any]) -> tuple[int, ...]:
    """Array axis nearest to each of right, anterior and superior, one for each."""
    cosines = _cosines(affine)
    return max(
        permutations(range(3)), key=lambda axes: sum(cosines[i, a] for i, a in enumerate(axes))
    )


def _cosines(affine: NDArray[Any]) -> NDArray[Any]:
    """Absolute cosines between world axes (rows) and array axes (columns)."""
    linear = np.asarray(affine, dtype=np.float64)[:3, :3]
    return np.asarray(np.abs(linear) / np.linalg.norm(linear, axis=0))


def _spacing(affine: NDArray[Any]) -> list[float]:
    """Voxel size along right, anterior and superior, in mm."""
    lengths = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    return [float(lengths[axis]) for axis in _axes(affine)]


def _middle(volumes: Mapping[str, NDArray[Any]]) -> list[int]:
    """Voxel through which the planes go: the median of what is segmented, else of the image."""
    for name in ("truth", "prediction", "image"):
        if name in volumes:
            array = volumes[name]
            inside = np.nonzero(array > (array.min() if name == "image" else 0))
            if inside[0].size:
                return [int(np.median(positions)) for positions in inside]
    return [size // 2 for size in volumes["image"].shape]


def _framed(volumes: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Cut to what is not background in the image or segmented; add a margin for the letters."""
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
    return {
        name: np.pad(
            volume[tuple(box)], [(m, m) for m in margins], constant_values=outside.get(name, 0)
        )
        for name, volume in volumes.items()
    }


def _window(image: NDArray[Any]) -> tuple[float, float]:
    """Intensities to be black and white: percentiles of what is above the image's minimum."""
    inside = image[image > image.min()]
    if not inside.size:
        return float(image.min()), float(image.min()) + 1
    low, high = (float(value) for value in np.percentile(inside, _WINDOW))
    return min(low, 0.0) if image.min() == 0 else low, max(high, low + 1e-6)


def _caption(case: ReportCase) -> str:
    """Say what is drawn; the caller's caption goes first."""
    rows = ["image"]
    if case.prediction is not None and case.truth is not None:
        rows.append("prediction filled, truth outlined")
    elif case.prediction is not None:
        rows.append("prediction filled")
    elif case.truth is not None:
        rows.append("truth outlined")
    if case.superpixels is not None:
        rows.append("borders of the supervoxels")
    text = f"Rows: {'; '.join(rows)}."
    cosines = _cosines(case.affine)
    angle = max(
        np.degrees(np.arccos(min(1.0, cosines[i, a]))) for i, a in enumerate(_axes(case.affine))
    )
    if angle > _OBLIQUE_DEGREES:
        text += f" The volume is oblique by {angle:.0f} degrees; it is drawn along its own axes."
    return f"{case.caption} {text}".strip()
