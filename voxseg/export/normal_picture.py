"""Pictures of surface normals for a page: a photograph's, and how far predictions are off.

A photograph is shown with its predicted and true normals in the usual colours and with the angle
between them; below it, what the colours mean. Over a whole set: how many pixels have which angle.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from voxseg.export.normals import normal_colours
from voxseg.export.photo_picture import photo_sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORST_SHOWN = 60.0
"""Degrees from which all angles have one colour."""
THRESHOLDS = (11.25, 22.5, 30.0)

_COLOURS = "inferno"  # dark where right; in order for every colour vision
_BAR_TICKS = (0.0, *THRESHOLDS, 45.0, WORST_SHOWN)
_PALE = 140
_LETTERS = 13
_BALL = 27  # radius of the ball that shows each direction's colour
_FOOT = 2 * _BALL + 12
_FEWEST_PIXELS = 300  # of half a page; in less the numbers of a bar would lie on each other
_INK, _PAPER = "#222222", "white"
_MOST_CURVES = 8
_SHOWN = 90.0  # degrees; what is beyond is in the shares all the same
_HISTOGRAM_STEP = 2.5  # degrees
_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7A5195", "#4D4D4D")
_STYLES = ("-", "--", "-.", ":", "-", "--", "-.", ":")
_DPI = 120


def draw_normals(
    photograph: NDArray[np.uint8] | None,
    normals: Mapping[str, NDArray[np.floating[Any]]],
    angles: NDArray[np.floating[Any]] | None = None,
) -> bytes:
    """Draw a photograph, its normals, and the angles between them, as a PNG.

    Args:
        photograph: (H, W, 3), or None.
        normals: "prediction" and "truth", those that there are; (3, H, W), 0 where unknown.
        angles: (H, W) degrees between the two, NaN where unknown; None to leave them out.

    Raises:
        ValueError: There is nothing to draw, or the sizes differ.
    """
    arrays = [photograph, *(one[0] for one in normals.values()), angles]
    sizes = {one.shape[:2] for one in arrays if one is not None}
    if len(sizes) != 1:
        raise ValueError(f"photograph and normals must have one size, got {sorted(sizes)}")
    (size,) = sizes
    panels = {} if photograph is None else {"photograph": photograph}
    panels |= {name: normal_colours(one) for name, one in normals.items()}
    if angles is not None:
        panels["angle"] = _coloured(angles, photograph)
    sheet = photo_sheet(panels, size)
    foot = _legend(sheet.width, has_angles=angles is not None)
    page = Image.new("RGB", (sheet.width, sheet.height + foot.height), _PAPER)
    page.paste(sheet, (0, 0))
    page.paste(foot, (0, sheet.height))
    buffer = io.BytesIO()
    page.save(buffer, format="PNG")
    return buffer.getvalue()


def _coloured(
    angles: NDArray[np.floating[Any]], photograph: NDArray[np.uint8] | None
) -> NDArray[np.uint8]:
    """Colour angles; where they are unknown the photograph is seen in pale grey."""
    known = ~np.isnan(angles)
    grey = np.zeros(angles.shape) if photograph is None else photograph.mean(axis=2)
    pale = (_PALE + (255 - _PALE) / 2 * grey / 255).round().astype(np.uint8)  # no colour of angles
    drawn = np.repeat(pale[..., None], 3, axis=2)
    drawn[known] = _map_colours(angles[known] / WORST_SHOWN)
    return drawn


def _map_colours(shares: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    from matplotlib import colormaps

    colours: NDArray[np.uint8] = colormaps[_COLOURS](shares.clip(0, 1), bytes=True)[..., :3]
    return colours


def _legend(width: int, *, has_angles: bool) -> Image.Image:
    """Say what the colours mean: a ball of normals, and a bar of angles."""
    foot = Image.new("RGB", (width, _FOOT), _PAPER)
    draw = ImageDraw.Draw(foot)
    font = ImageFont.load_default(_LETTERS)
    foot.paste(Image.fromarray(_ball()), (6, 6))
    lines = ("normals as on a ball:", "red right, green up, blue to you", "black: unknown")
    for number, line in enumerate(lines):
        draw.text((2 * _BALL + 18, 8 + number * (_LETTERS + 4)), line, fill=_INK, font=font)
    if has_angles and width >= 2 * _FEWEST_PIXELS:
        _draw_bar(foot, draw, font, (width // 2 + 24, width - 40))
    return foot


def _draw_bar(
    foot: Image.Image, draw: ImageDraw.ImageDraw, font: Any, span: tuple[int, int]
) -> None:
    """Draw the colours of angles from 0 degrees on the left."""
    left, right = span
    bar = _map_colours(np.linspace(0, 1, right - left))
    foot.paste(Image.fromarray(np.broadcast_to(bar, (14, *bar.shape)).copy()), (left, 8))
    for tick in _BAR_TICKS:
        x = left + (right - 1 - left) * tick / WORST_SHOWN
        draw.line((x, 22, x, 27), fill=_INK)
        text = f"{tick:g}°" + ("+" if tick == WORST_SHOWN else "")
        draw.text((x, 29), text, fill=_INK, font=font, anchor="mt")
    draw.text(((left + right) / 2, 47), "angle; grey: unknown", fill=_INK, font=font, anchor="mt")


def _ball() -> NDArray[np.uint8]:
    """Draw the visible half of a ball in the colours of its normals, on white."""
    steps = (np.arange(2 * _BALL) + 0.5) / _BALL - 1
    x, y = np.meshgrid(steps, -steps)
    inside = x**2 + y**2 <= 1
    z = np.sqrt(np.where(inside, 1 - x**2 - y**2, 0))
    colours = normal_colours(np.stack([x, y, z]))
    colours[~inside] = 255
    return colours


@dataclass(frozen=True)
class AngleCurve:
    """The angles of one method over all pixels of a set."""

    name: str
    histogram: Sequence[int]
    """Pixels in bins of equal width from 0 to 180 degrees."""


def draw_angles(curves: Sequence[AngleCurve]) -> bytes:
    """Draw how many pixels have which angle, and how many have less, as a PNG.

    Args:
        curves: one to eight methods, the one of interest first.

    Raises:
        ValueError: There is none, or there are more, or one has no pixel.
    """
    if not 1 <= len(curves) <= _MOST_CURVES or any(not sum(one.histogram) for one in curves):
        raise ValueError(f"one to {_MOST_CURVES} curves with pixels are needed, got {len(curves)}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for one, colour, style in zip(curves, _LINES, _STYLES, strict=False):
        _draw_curve(left, right, one, {"color": colour, "linestyle": style, "linewidth": 1.8})
    left.set(ylabel=f"% of pixels in {_HISTOGRAM_STEP:g}°", ylim=(0, None))
    right.set(ylabel="% of pixels with less", ylim=(0, 100))
    for axes in (left, right):
        axes.set(xlabel="angle between predicted and true normal, degrees", xlim=(0, _SHOWN))
        axes.spines[["right", "top"]].set_visible(False)
        axes.grid(visible=True, alpha=0.3)
        for threshold in THRESHOLDS:
            axes.axvline(threshold, color=_INK, linewidth=0.8, linestyle=":")
            axes.text(threshold, 1.01, f"{threshold:g}", transform=axes.get_xaxis_transform(),
                      ha="center", va="bottom", fontsize="x-small")  # fmt: skip
    shares = " / ".join(f"{threshold:g}" for threshold in THRESHOLDS)
    legend = right.legend(loc="lower right", fontsize="small", title=f"% under {shares}",
                          title_fontsize="small")  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)  # a name is no formula
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _draw_curve(left: "Axes", right: "Axes", curve: AngleCurve, style: dict[str, Any]) -> None:
    counts = np.asarray(curve.histogram, np.float64)
    reached = np.concatenate([[0], counts.cumsum()]) / counts.sum() * 100
    edges = np.linspace(0, 180, len(counts) + 1)
    wide = np.arange(0, 180 + _HISTOGRAM_STEP / 2, _HISTOGRAM_STEP)
    left.stairs(np.diff(np.interp(wide, edges, reached)), wide, **style)
    under = np.interp(THRESHOLDS, edges, reached)
    shares = " / ".join(f"{share:.1f}" for share in under)
    right.plot(edges, reached, label=f"{_short(curve.name)}: {shares}", **style)
    right.plot(THRESHOLDS, under, "o", color=style["color"], markersize=4)


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"
