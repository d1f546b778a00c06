"""Precision over recall of boundaries, with lines of equal F.

Source: the plot of Martin, Fowlkes, Malik, TPAMI 26(5), 2004, figure 1, and of BSDS500's benchmark:
each method is a curve over its thresholds, with a dot where its F is best; F is constant along the
thin lines. People, who have no threshold, are a point.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette without its yellow, which is lost on white; told apart with any colour
# vision, and lines differ in their strokes as well.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#4D4D4D")
_STROKES = ("-", "--", "-.", ":")
_MARKS = "Dsv^<>P*"
_INK, _FAINT = "#222222", "#8a929a"
_LEVELS = tuple(level / 10 for level in range(1, 10))
_MOST_LETTERS = 32  # of a name; longer ones would hide curves
_SIZE_INCHES = (6.6, 6.2)
_DPI = 120


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """One method, or run."""

    name: str
    recall: Sequence[float]
    """At each threshold."""
    precision: Sequence[float]
    """At the same thresholds."""
    ods: float
    """F at the best threshold for all cases."""
    ois: float
    """F with the best threshold of each case."""
    ap: float


@dataclass(frozen=True)
class PrecisionRecallPoint:
    """What has no thresholds, such as people, or a number out of a paper."""

    name: str
    recall: float
    precision: float

    @property
    def f(self) -> float:
        """Harmonic mean of both."""
        total = self.recall + self.precision
        return 2 * self.recall * self.precision / total if total else 0.0


def draw_precision_recall(
    curves: Sequence[PrecisionRecallCurve],
    points: Sequence[PrecisionRecallPoint] = (),
    *,
    title: str = "Precision and recall of boundaries",
) -> bytes:
    """Draw curves and points as a PNG.

    Args:
        curves: In the order of the legend. Thresholds where nothing is predicted are left out.
        points: The same.
        title: Above the plot.

    Raises:
        ValueError: A curve has not as many recalls as precisions.
    """
    # The object interface never touches pyplot's global state or a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize="medium", parse_math=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="recall", ylabel="precision", aspect="equal")
    axes.set_xticks([*_LEVELS, 0, 1])
    axes.set_yticks([*_LEVELS, 0, 1])
    axes.tick_params(labelsize="small")
    _draw_levels(axes)
    for place, curve in enumerate(curves):
        _draw_curve(axes, curve, place)
    for place, point in enumerate(points):
        axes.plot(
            point.recall, point.precision, linestyle="none", marker=_MARKS[place % len(_MARKS)],
            color=_INK, markersize=8, clip_on=False, zorder=4,
            label=f"{_short(point.name)}: F {_number(point.f)}",
        )  # fmt: skip
    if curves or points:
        legend = axes.legend(loc="lower left", fontsize="small", framealpha=0.92)
        for text in legend.get_texts():
            text.set_parse_math(False)  # a name is no formula, whatever its dollar signs
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _draw_levels(axes: "Axes") -> None:
    """Draw the lines of equal F, each with its F where it leaves the plot on the right."""
    for level in _LEVELS:
        recall = np.geomspace(level / (2 - level), 1, 200)
        axes.plot(
            recall, level * recall / (2 * recall - level), color=_FAINT, linewidth=0.7, zorder=1
        )
        axes.text(1.012, level / (2 - level), f"F {level:.1f}", color=_FAINT, fontsize="x-small",
                  va="center")  # fmt: skip


def _draw_curve(axes: "Axes", curve: PrecisionRecallCurve, place: int) -> None:
    if len(curve.recall) != len(curve.precision):
        raise ValueError(
            f"{curve.name} has {len(curve.recall)} recalls and {len(curve.precision)} precisions"
        )
    pairs = np.array([curve.recall, curve.precision], np.float64)
    pairs = pairs[:, (pairs > 0).any(axis=0)]
    colour = _COLOURS[place % len(_COLOURS)]
    axes.plot(
        *pairs, color=colour, linewidth=2, linestyle=_STROKES[place % len(_STROKES)], zorder=3,
        clip_on=False,
        label=f"{_short(curve.name)}: ODS {_number(curve.ods)}, OIS {_number(curve.ois)}, "
        f"AP {_number(curve.ap)}",
    )  # fmt: skip
    if pairs.size:
        best = np.argmax(2 * pairs.prod(axis=0) / pairs.sum(axis=0))
        axes.plot(*pairs[:, best], marker="o", color=colour, markersize=8, markeredgecolor="white",
                  clip_on=False, zorder=5)  # fmt: skip


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _short(name: str) -> str:
    return name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…"
