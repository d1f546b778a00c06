"""``voxseg report``."""

from pathlib import Path
from typing import Annotated

import typer

from voxseg.documents import document
from voxseg.schemas import REPORT

from . import console as terminal
from . import options


def report(
    run: Annotated[
        Path,
        typer.Argument(
            help="Folder of a cross-validation, or one that evaluate -o or predict -o wrote."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The page; RUN/report.html by default."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Where the images (and truths) lie now, if they were moved."),
    ] = None,
    pictures: Annotated[
        int | None,
        typer.Option(
            "--pictures",
            min=0,
            help="How many of the worst cases are drawn; 0 for a page without any subject's image.",
        ),
    ] = None,
    viewers: Annotated[
        int,
        typer.Option(
            "--viewers",
            min=0,
            max=20,
            help="How many of the drawn cases, worst first, can be opened in a viewer of volumes; "
            "the page then holds their volumes too, up to 20 MB.",
        ),
    ] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a page that is there.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Make one HTML page about RUN, from its files: tables, plots, warnings, worst cases first.

    The page loads nothing from elsewhere and prints. It shows images of the subjects, unless
    --pictures is 0.
    """
    from voxseg.api import report as make

    screen = terminal.console(as_json)
    with screen.status("drawing the report"):
        page = make(
            run,
            output,
            data=data,
            pictures=pictures,
            viewers=viewers,
            overwrite=overwrite,
            say=lambda text: screen.print(text, markup=False),
        )
    if as_json:
        content = {"report": str(page.path), "cases": page.num_cases}
        content |= {"drawn": list(page.drawn), "warnings": list(page.warnings)}
        content["viewers"] = list(page.viewers)
        terminal.print_json(document(REPORT, content))
