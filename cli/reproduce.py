"""``voxseg reproduce``."""

from pathlib import Path
from typing import Annotated

import typer

from voxseg.errors import ExitCode

from . import console as terminal
from . import options
from .progress import training_bar

_SHOWN = 10


def reproduce(
    manifest: Annotated[Path, typer.Argument(help="A run's folder, or its manifest.json.")],
    output: options.Output,
    data: Annotated[
        Path | None, typer.Option("--data", help="Where the data lie now, if they were moved.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", "-d", help="Another device than the manifest's.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, help="Largest difference that is let pass.")
    ] = 0.0,
    as_json: options.Json = False,
) -> None:
    """Train or cross-validate again as MANIFEST says, into OUTPUT, and compare the metrics.

    Data that are not the same to the byte are refused. Exit code 1 when a figure differs by more
    than --tolerance.
    """
    from voxseg.api import reproduce as run

    screen = terminal.console(as_json)
    with training_bar(screen) as bar:
        result = run(
            manifest,
            output,
            data=data,
            device=device,
            notify=bar,
            say=lambda text: screen.print(text, markup=False),
        )
    is_same = result.is_within(tolerance)
    if as_json:
        terminal.print_json(result.to_json(tolerance))
    else:
        shown = result.differences[:_SHOWN]
        if shown:
            rows = [(d.name, d.earlier, d.now, d.size) for d in shown]
            columns = ("figure", "earlier", "now", "difference")
            terminal.out.print(terminal.table("Largest differences", columns, rows))
        verdict = "reproduced" if is_same else "not reproduced"
        count = f"{len(result.differences)} of {result.figures} figures differ"
        terminal.out.print(f"{verdict}: {count}", markup=False)
    if not is_same:
        raise typer.Exit(ExitCode.FAILED)
