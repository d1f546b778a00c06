"""Forest plot: one row a comparison, its mean difference, its interval, and the zero line."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Shown = Literal["better", "worse", "different", "inconclusive"]
"""What a row was shown to be; different where neither direction is better."""

# Okabe and Ito's palette, told apart with any colour vision; filled or hollow says the same.
_COLOURS = {
    "better": "#0072B2",  # blue
    "worse": "#D55E00",  # vermilion
    "different": "#222222",
    "inconclusive": "#666666",
}
_ROW_INCHES = 0.3
_LETTER_INCHES = 0.085
_PLOT_INCHES = 4.2
_DPI = 150
_MOST_PIXELS = 30_000  # of a side; Agg refuses 65536
_INK = "#222222"


@dataclass(frozen=True)
class ForestRow:
    """One line of the plot; numbers in the unit of the axis."""

    name: str
    mean: float
    """NaN leaves the line empty."""
    low: float
    """NaN draws no interval."""
    high: float
    shown: Shown
    is_mean: bool
    """A mean over other rows: a diamond instead of a square."""
    text: str
    """The numbers, written on the right."""


@dataclass(frozen=True)
class ForestGroup:
    """Rows under one heading."""

    title: str
    rows: tuple[ForestRow, ...]
    text: str = ""
    """Heading of the numbers on the right."""


def draw_forest(groups: Sequence[ForestGroup], path: Path, *, axis: str, caption: str) -> None:
    """Draw a forest plot into a PNG file; it grows with its rows and its longest words.

    Args:
        groups: From top to bottom, each with a heading.
        path: File to write.
        axis: Words under the axis, with the unit.
        caption: What marks and intervals mean.
    """
    # The object interface never touches pyplot's global state or a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines: list[ForestGroup | ForestRow] = []
    for group in groups:
        lines += [group, *group.rows]
    left = max(len(_name(line)) for line in lines)
    right = max(len(line.text) for line in lines)
    width = _PLOT_INCHES + _LETTER_INCHES * (left + right)
    height = 1.4 + _ROW_INCHES * len(lines)
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.axvline(0, color=_INK, linewidth=1, zorder=1)
    for position, line in enumerate(lines):
        if isinstance(line, ForestRow):
            _draw_row(axes, line, position)
        elif position:
            axes.axhline(position - 0.5, color=_INK, linewidth=0.5)
    _write_names(axes, lines)
    axes.set_xlabel(f"{axis}\n{caption}", fontsize="small")
    axes.margins(x=0.06)
    axes.grid(visible=True, axis="x", alpha=0.3)
    axes.spines[["left", "right", "top"]].set_visible(False)
    dpi = min(_DPI, _MOST_PIXELS / max(width, height))
    figure.savefig(path, format="png", dpi=dpi)


def _draw_row(axes: "Axes", row: ForestRow, position: int) -> None:
    if row.mean != row.mean:  # NaN: nothing to show
        return
    colour = _COLOURS[row.shown]
    axes.plot([row.low, row.high], [position, position], color=colour, linewidth=1.8, zorder=2)
    axes.plot(
        row.mean,
        position,
        marker="D" if row.is_mean else "s",
        markersize=7,
        color=colour,
        markerfacecolor="white" if row.shown == "inconclusive" else colour,
        zorder=3,
    )


def _write_names(axes: "Axes", lines: Sequence[ForestGroup | ForestRow]) -> None:
    """Write names on the left and numbers on the right, where the layout makes room for both."""
    beside = axes.twinx()
    for side, texts in ((axes, [_name(line) for line in lines]), (beside, [x.text for x in lines])):
        side.set_yticks(range(len(lines)), texts)
        side.set_ylim(len(lines) - 0.4, -0.6)
        side.tick_params(axis="y", length=0)
        for label, line in zip(side.get_yticklabels(), lines, strict=True):
            # A name is no formula, whatever its dollar signs.
            label.set_parse_math(False)
            if side is beside:
                label.set(family="DejaVu Sans Mono", size="small")  # comes with matplotlib
            elif isinstance(line, ForestGroup) or line.is_mean:
                label.set_fontweight("bold")
    beside.spines[:].set_visible(False)


def _name(line: ForestGroup | ForestRow) -> str:
    return line.title if isinstance(line, ForestGroup) else line.name
