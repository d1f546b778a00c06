"""Plots of a report: scores over cases, predicted against true volumes, one case in its cohort.

Drawn on white, with the case names as they are (no name is a formula). Jitter is not random: dots
are spread by their rank, so a page is the same each time.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from voxseg.export.labels import Colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DPI = 120
_WIDTH = 9.0  # inches, of every plot
_ROW = 0.42
_INK = "#222222"
_OTHERS = "#8a929a"
_MARK = "#D55E00"  # Okabe and Ito's vermilion
_GOLDEN = (math.sqrt(5) - 1) / 2  # multiples of it, modulo 1, lie evenly for any count
_ROOM = 0.18  # of the axis, on both sides, for the names of cases
_RIM = 0.015
_BOX = 0.6  # height of a box, of a row
_FEWEST_FOR_LIMITS = 3
_LIMITS_SD = 1.96  # of the limits of agreement: 95 % of normally distributed differences


@dataclass(frozen=True)
class Group:
    """One row of a box plot: a class, and its value in every case that has one."""

    name: str
    values: Mapping[str, float]
    """Case -> value; NaN is left out."""
    colour: Colour = (138, 146, 154)

    @property
    def defined(self) -> dict[str, float]:
        """Without what is undefined."""
        return {case: value for case, value in self.values.items() if not math.isnan(value)}


@dataclass(frozen=True)
class Panel:
    """One box plot: groups on one axis."""

    axis: str
    """Words under it, with the unit."""
    groups: Sequence[Group]
    worst_is_low: bool = True
    """Which end the named case is at."""
    limits: tuple[float, float] | None = None
    """What values can be, where they have limits: the axis ends there."""


def box_plots(panels: Sequence[Panel]) -> bytes:
    """Draw box plots side by side as a PNG: quartiles, median, whiskers, and a dot for each case.

    Whiskers reach the last case within 1.5 times the quartiles' distance; the worst case of each
    group is named. All panels have the same groups, in the same order.
    """
    count = max(len(panel.groups) for panel in panels)
    figure, rows = _figure(1, len(panels), 0.9 + _ROW * max(count, 2))
    for axes, panel in zip(rows[0], panels, strict=True):
        for position, group in enumerate(panel.groups):
            _draw_group(axes, group, position, panel.worst_is_low, panel.limits)
        is_first = axes is rows[0][0]
        _name_rows(axes, [group.name for group in panel.groups] if is_first else [""] * count)
        axes.set_xlabel(panel.axis)
        axes.margins(x=_ROOM)
        if panel.limits:
            low, high = axes.get_xlim()
            rim = _RIM * (high - low)  # or dots on the limit are cut in half
            axes.set_xlim(max(low, panel.limits[0] - rim), min(high, panel.limits[1] + rim))
    return _png(figure)


def agreement_plots(rows: Sequence[tuple[str, Mapping[str, tuple[float, float]]]]) -> bytes:
    """Draw predicted against true volumes, and their differences, a row for each class, as a PNG.

    On the right as Bland and Altman do: difference over mean, with the bias and the limits of
    agreement (bias +- 1.96 standard deviations) where there are three cases or more. The case that
    is farthest from the bias is named.

    Args:
        rows: Name of a class, and its (predicted, true) volume in ml in every case.
    """
    figure, grid = _figure(len(rows), 2, 2.9 * len(rows))
    for (name, volumes), (left, right) in zip(rows, grid, strict=True):
        pairs = np.array(list(volumes.values()), dtype=np.float64).reshape(-1, 2)
        predicted, true = pairs.T
        _draw_scatter(left, name, predicted, true)
        _draw_differences(right, name, list(volumes), predicted, true)
    return _png(figure)


def cohort_strip(
    rows: Sequence[tuple[str, Sequence[float], float, float | None]], *, against: str
) -> bytes:
    """Draw where one case's volumes lie among others', a row for each class, as a PNG.

    Args:
        rows: Name of a class, the others' volumes, this case's, and its true one if known. Others
            and this case are drawn in percent of the median of all of them.
        against: What the volumes are compared with, for the axis.
    """
    figure, grid = _figure(1, 1, 0.9 + _ROW * max(len(rows), 2))
    axes = grid[0][0]
    for position, (_, others, own, true) in enumerate(rows):
        scale = 100 / float(np.median([*others, own]) or math.nan)
        group = Group("", {str(n): value * scale for n, value in enumerate(others)})
        _draw_group(axes, group, position, None)
        axes.plot(own * scale, position, "D", color=_MARK, markersize=8, zorder=5)
        if true is not None:
            axes.plot(true * scale, position, "D", color=_INK, markerfacecolor="none",
                      markersize=10, markeredgewidth=1.5, zorder=6)  # fmt: skip
    axes.axvline(100, color=_INK, linewidth=0.8, linestyle=":")
    _name_rows(axes, [name for name, *_ in rows])
    axes.set_xlabel(f"volume in % of the median of {against}")
    return _png(figure)


def spread(count: int) -> list[float]:
    """Offsets in [-0.5, 0.5) that keep neighbours of a sorted list apart; always the same."""
    return [(number * _GOLDEN) % 1 - 0.5 for number in range(count)]


def _draw_group(
    axes: "Axes",
    group: Group,
    position: int,
    worst_is_low: bool | None,
    limits: tuple[float, float] | None = None,
) -> None:
    """Draw box and dots; name the worst case unless ``worst_is_low`` is None."""
    ranked = sorted(group.defined.items(), key=lambda item: (item[1], item[0]))
    if not ranked:
        return
    values = [value for _, value in ranked]
    colour = tuple(part / 255 for part in group.colour)
    axes.boxplot(
        values,
        orientation="horizontal",
        positions=[position],
        widths=_BOX,
        showfliers=False,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": (*colour, 0.35), "edgecolor": _INK},
        medianprops={"color": _INK, "linewidth": 1.8},
    )
    heights = [position + 0.8 * _BOX * offset for offset in spread(len(values))]
    axes.scatter(values, heights, s=16, color=_INK, alpha=0.75, linewidths=0, zorder=3)
    if worst_is_low is None or len(values) < 2:
        return
    place = 0 if worst_is_low else -1
    # At the end of the axis there is no room on the left.
    start = limits[0] if limits else values[0] - (values[-1] - values[0])
    on_left = worst_is_low and values[0] - start > _ROOM * (values[-1] - start)
    _annotate(axes, ranked[place][0], values[place], heights[place], on_left=on_left)


def _annotate(axes: "Axes", name: str, x: float, y: float, *, on_left: bool) -> None:
    """Write a case's name beside its dot; dots under it show through."""
    from matplotlib.patheffects import withStroke

    axes.annotate(
        _short(name), (x, y), xytext=(-6 if on_left else 6, 0), textcoords="offset points",
        fontsize=7.5, ha="right" if on_left else "left", va="center", color=_INK,
        parse_math=False, zorder=7,
        path_effects=[withStroke(linewidth=1.6, foreground="white")],
    )  # fmt: skip


def _draw_scatter(axes: "Axes", name: str, predicted: Any, true: Any) -> None:
    top = float(max(predicted.max(initial=0), true.max(initial=0)))
    low = float(min(predicted.min(initial=top), true.min(initial=top)))
    margin = 0.08 * (top - low) or 0.08 * top or 1.0
    span = (low - margin, top + margin)
    axes.plot(span, span, color=_OTHERS, linewidth=1, zorder=1)
    axes.scatter(true, predicted, s=18, color=_INK, alpha=0.75, linewidths=0, zorder=2)
    axes.set_xlim(span)
    axes.set_ylim(span)
    axes.set_title(_short(name, 40), fontsize="medium", loc="left", parse_math=False)
    axes.set_xlabel("true volume, ml")
    axes.set_ylabel("predicted volume, ml")
    axes.grid(visible=True, alpha=0.3)


def _draw_differences(
    axes: "Axes", name: str, cases: Sequence[str], predicted: Any, true: Any
) -> None:
    difference, middle = predicted - true, (predicted + true) / 2
    axes.axhline(0, color=_OTHERS, linewidth=1)
    axes.scatter(middle, difference, s=18, color=_INK, alpha=0.75, linewidths=0, zorder=2)
    title = ""
    if len(difference) >= _FEWEST_FOR_LIMITS:
        bias, reach = float(difference.mean()), _LIMITS_SD * float(difference.std(ddof=1))
        axes.axhline(bias, color=_MARK, linewidth=1.5)
        for limit in (bias - reach, bias + reach):
            axes.axhline(limit, color=_MARK, linewidth=1.2, linestyle="--")
        title = f"bias {bias:+.3g} ml, limits {bias - reach:+.3g} to {bias + reach:+.3g} ml"
        farthest = int(np.abs(difference - bias).argmax())
        on_left = bool(middle[farthest] > middle.mean())
        _annotate(axes, cases[farthest], middle[farthest], difference[farthest], on_left=on_left)
    axes.set_title(title, fontsize="small", loc="left")
    axes.set_xlabel("mean of both, ml")
    axes.set_ylabel("predicted - true, ml")
    axes.margins(0.12)
    axes.grid(visible=True, alpha=0.3)


def _figure(rows: int, columns: int, height: float) -> tuple[Any, list[list["Axes"]]]:
    # The object interface never touches pyplot's global state or a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.spines[["right", "top"]].set_visible(False)
        axes.tick_params(labelsize="small")
    return figure, [list(row) for row in grid]


def _name_rows(axes: "Axes", names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [_short(name, 40) for name in names])
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=True, axis="x", alpha=0.3)


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()
