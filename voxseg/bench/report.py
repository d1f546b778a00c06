"""The result of a benchmark: a table, curves over a size, and the machine they were measured on.

Ratios between rows of one result mean something, since all were measured in one process; seconds
mean something only next to ``machine``.
"""

import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from voxseg.documents import document
from voxseg.schemas import BENCH

Row = dict[str, float | str]
_ON_GPU = ", CUDA"
"""Ends the name of a curve that belongs to the one without it."""


@dataclass(frozen=True)
class Sweep:
    """Curves over one size, each measured with everything else held still."""

    title: str
    x_label: str
    y_label: str
    curves: dict[str, list[tuple[float, float]]]
    """Name of the method -> its (x, y) points in the order of x."""


@dataclass(frozen=True)
class BenchResult:
    """What one benchmark measured."""

    title: str
    machine: dict[str, float | str]
    """Processor, threads, versions and memory settings, from ``machine_info``."""
    rows: list[Row]
    """One row a method; every row has the same keys, in the order of the columns."""
    sweeps: list[Sweep] = field(default_factory=list)
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())
    """The day it was measured, in UTC."""

    @property
    def columns(self) -> list[str]:
        """The keys of the rows, in the order of the table."""
        return list(self.rows[0]) if self.rows else []

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values; curves become lists of (x, y)."""
        return document(BENCH, asdict(self))

    def plot(self, path: Path) -> None:
        """Draw the sweeps side by side with logarithmic axes into a PNG file.

        Raises:
            ValueError: if nothing was swept, so that there is nothing to draw.
        """
        if not self.sweeps:
            raise ValueError(f"{self.title} has no sweep to plot: measure with sweep=True")
        # The object interface never touches pyplot's global state or a display.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.0 * len(self.sweeps), 5.0), layout="constrained")
        FigureCanvasAgg(figure)
        lines = {}
        colours: dict[str, str] = {}
        for index, sweep in enumerate(self.sweeps):
            axes = figure.add_subplot(1, len(self.sweeps), index + 1)
            for name, points in sweep.curves.items():
                method = name.removesuffix(_ON_GPU)
                style = "o-" if method == name else "s--"
                colour = colours.setdefault(method, f"C{len(colours)}")
                x, y = ([point[axis] for point in points] for axis in (0, 1))
                [lines[name]] = axes.plot(x, y, style, color=colour, label=name)
            axes.set(xscale="log", yscale="log", title=sweep.title)
            axes.set(xlabel=sweep.x_label, ylabel=sweep.y_label)
            axes.grid(visible=True, which="both", alpha=0.3)
        names = [self.machine.get("processor", "unknown processor"), self.machine.get("device")]
        figure.suptitle(f"{self.title} ({', '.join(str(name) for name in names if name)})")
        # Below the curves: nine of them leave no room beside them.
        figure.legend(
            lines.values(),
            lines.keys(),
            loc="outside lower center",
            ncols=2 * len(self.sweeps),
            fontsize="small",
        )
        figure.savefig(path, format="png", dpi=120)


def machine_info(num_threads: int) -> dict[str, float | str]:
    """Describe the machine, for the head of a result.

    Args:
        num_threads: how many threads the measured code may use.

    Returns:
        Names -> values; ``load`` is the run queue's length when there is one to be read, which
        says how far seconds can be trusted.
    """
    return {
        "processor": _processor_name(),
        "num_cores": os.cpu_count() or 1,
        "num_threads": num_threads,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else float("nan"),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _processor_name() -> str:
    """The processor's name as Linux gives it, else as Python's platform module does."""
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
