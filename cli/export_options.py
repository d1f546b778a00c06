"""Options that the exports of networks share."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import console as terminal

if TYPE_CHECKING:
    from voxseg.engine.export_models import Exported

Run = Annotated[Path, typer.Argument(help="Run folder or checkpoint of a network of volumes.")]
Case = Annotated[
    Path | None,
    typer.Option(
        "--case",
        help="Volume (or a CSV list of one case) on which the exported network is compared with "
        "the original; by default a synthetic one, which tells less.",
        metavar="VOLUME",
    ),
]
Tolerance = Annotated[
    float,
    typer.Option(
        "--tolerance",
        min=0,
        max=1,
        help="Share of the mask's voxels that may differ from voxseg's own; above it nothing is "
        "written.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that is there.")]


def show(export: Callable[[Callable[[str], None]], "Exported"], as_json: bool) -> None:
    """Export with a status line, and tell what was written and how it compares."""
    screen = terminal.console(as_json)
    with screen.status("exporting") as status:
        done = export(status.update)
    if as_json:
        terminal.print_json(done.to_json())
        return
    beside = f" and {done.sidecar}" if done.sidecar is not None else ""
    terminal.out.print(f"wrote {done.output}{beside}", markup=False)
    terminal.out.print(str(done.check), markup=False)
    if done.note:
        terminal.out.print(f"note: {done.note}", markup=False)
    if done.check.is_synthetic:
        terminal.out.print("name a volume with --case for a comparison on what it was trained for")
    if done.check.logits_difference is not None:
        terminal.out.print(f"largest difference of logits: {done.check.logits_difference:.2g}")
