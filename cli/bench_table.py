"""What benchmarks share: an option, and how what they measured is printed and drawn."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import console as terminal

if TYPE_CHECKING:
    from voxseg.bench.report import BenchResult


Quick = Annotated[bool, typer.Option("--quick", help="Small sizes: a smoke test, not a result.")]


def show(result: "BenchResult", plot: Path | None, as_json: bool) -> None:
    """Print the table, or the JSON document; draw the curves where ``plot`` says."""
    from voxseg.files import replacing

    if plot is not None:
        with replacing(plot) as temporary:
            result.plot(temporary)
    if as_json:
        terminal.print_json(result.to_json())
        return
    rows = [[row[column] for column in result.columns] for row in result.rows]
    table = terminal.table(result.title, result.columns, rows)
    terminal.whole_width(table).print(table)
    facts = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    terminal.out.print(facts, markup=False)
