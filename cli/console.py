"""What a command shows: lines and tables on a console, or one JSON object on stdout."""

import math
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from voxseg.documents import json_text

if TYPE_CHECKING:
    from voxseg.metrics.summary import Statistic

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def console(as_json: bool) -> Console:
    """Where to talk: stdout, or stderr when stdout is kept for JSON."""
    return err if as_json else out


def be_quiet() -> None:
    """Show nothing from here on: another process of the same command does."""
    out.quiet = err.quiet = True


def print_json(content: object) -> None:
    """Print one JSON object; NaN, which JSON lacks, becomes null."""
    if out.quiet:
        return
    sys.stdout.write(json_text(content) + "\n")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Build a table whose first column is text and whose others are numbers or short words."""
    made = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        made.add_row(*(escape(cell(value)) for value in row))
    return made


def whole_width(table: Table) -> Console:
    """Return a console as wide as the table: a file or a pipe has no edge to stop at."""
    if out.is_terminal:
        return out
    needed = out.measure(table, options=out.options.update(width=10_000)).maximum
    return Console(file=out.file, width=needed, highlight=False)


def mean_sd(statistic: "Statistic | None", digits: int) -> str:
    """Write mean and standard deviation; a dash where there is none."""
    if statistic is None or not statistic.defined:
        return "-"
    mean = f"{statistic.mean:.{digits}f}"
    return mean if statistic.defined == 1 else f"{mean} ± {statistic.deviation:.{digits}f}"


def cell(value: object) -> str:
    """Show one value: three decimals, a dash for a missing score."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.3f}"
    return "-" if value is None else str(value)
