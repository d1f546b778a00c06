"""Reliability diagram: how often a probability is right, and how many voxels were given it.

Source: the diagram of Guo et al. 2017, arXiv:1706.04599. Left the winning class: bars of accuracy,
hatched where they differ from the mean probability of their bin. Right each class against the rest.
Below both, how many voxels stand behind a bin, on a logarithmic axis.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_CURVES = 8
"""Classes drawn; more lines cannot be told apart."""
# Okabe and Ito's palette without its yellow, which is lost on white; told apart with any colour
# vision, and each line has a mark of its own.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#7A5195", "#4D4D4D")
_MARKS = "osD^v<>P"
_BAR, _GAP, _INK = "#0072B2", "#D55E00", "#222222"
_MOST_LETTERS = 32  # of a name; longer ones would leave the diagram
_SIZE_INCHES = (9.5, 6.2)
_DPI = 120


@dataclass(frozen=True)
class ReliabilityCurve:
    """One set of probabilities in bins of equal width from 0 to 1."""

    name: str
    voxels: tuple[int, ...]
    """Of each bin."""
    confidence: tuple[float, ...]
    """Mean probability of each bin; NaN where it is empty."""
    accuracy: tuple[float, ...]
    """Share of right voxels of each bin; NaN where it is empty."""
    ece: float
    """Expected calibration error; NaN without a voxel."""


def draw_reliability(
    top: ReliabilityCurve, classes: Sequence[ReliabilityCurve], *, title: str
) -> bytes:
    """Draw both diagrams as a PNG.

    Args:
        top: Of the winning class.
        classes: Each against the rest; of many, the eight with the largest error are drawn.
        title: Above both.
    """
    # The object interface never touches pyplot's global state or a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 2, sharex=True, height_ratios=(3, 1))
    figure.suptitle(title, parse_math=False)
    for axes in upper:
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle="--", zorder=1)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.grid(visible=True, alpha=0.3)
    upper[0].set_ylabel("share of voxels that are right")
    lower[0].set_ylabel("voxels")
    for axes in lower:
        axes.set_xlabel("probability")
    _draw_top(upper[0], lower[0], top)
    _draw_classes(upper[1], lower[1], classes)
    for axes in lower:
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.8)  # one voxel is seen too
        axes.grid(visible=True, alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _draw_top(upper: "Axes", lower: "Axes", top: ReliabilityCurve) -> None:
    width = 1 / len(top.voxels)
    starts = [index * width for index in range(len(top.voxels))]
    filled = [index for index, n in enumerate(top.voxels) if n]
    style: dict[str, Any] = {
        "width": width,
        "align": "edge",
        "edgecolor": "white",
        "linewidth": 0.8,
    }
    places = [starts[index] for index in filled]
    right = [top.accuracy[index] for index in filled]
    upper.bar(places, right, color=_BAR, zorder=2, label="right", **style)
    upper.bar(
        places,
        [top.confidence[i] - top.accuracy[i] for i in filled],
        bottom=right,
        zorder=3,
        label="gap to the probability",
        **{**style, "color": "none", "edgecolor": _GAP, "hatch": "////"},
    )
    upper.set_title(f"Winning class: ECE {_number(top.ece)}", fontsize="medium")
    upper.legend(loc="upper left", fontsize="small")
    lower.bar([starts[i] for i in filled], [top.voxels[i] for i in filled], color=_BAR, **style)


def _draw_classes(upper: "Axes", lower: "Axes", classes: Sequence[ReliabilityCurve]) -> None:
    worst = sorted(range(len(classes)), key=lambda k: (-_or_zero(classes[k].ece), k))
    shown = sorted(worst[:_MOST_CURVES])
    for place, k in enumerate(shown):
        curve, colour, mark = classes[k], _COLOURS[place], _MARKS[place]
        filled = [index for index, n in enumerate(curve.voxels) if n]
        style: dict[str, Any] = {"color": colour, "marker": mark, "markersize": 4, "linewidth": 1.4}
        x = [curve.confidence[index] for index in filled]
        upper.plot(
            x,
            [curve.accuracy[index] for index in filled],
            label=f"{_short(curve.name)}: {_number(curve.ece)}",
            **style,
        )
        lower.plot(x, [curve.voxels[index] for index in filled], **style)
    some = len(shown) < len(classes)
    head = f"The {len(shown)} worst of {len(classes)} classes" if some else "Each class"
    upper.set_title(f"{head} against the rest: ECE", fontsize="medium")
    legend = upper.legend(loc="upper left", fontsize="small")
    for text in legend.get_texts():
        text.set_parse_math(False)  # a name is no formula, whatever its dollar signs


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _short(name: str) -> str:
    return name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…"


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
