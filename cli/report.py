"""``voxseg report``, and the page that other commands write with ``--report``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from voxseg.documents import document
from voxseg.schemas import REPORT

from . import console as terminal
from . import options

if TYPE_CHECKING:
    from voxseg.engine.case_report import Page
    from voxseg.engine.report_sources import ReportSource


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
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a page that is there.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Make one HTML page about RUN, from its files: tables, plots, warnings, worst cases first.

    The page loads nothing from elsewhere and prints. It shows images of the subjects, unless
    --pictures is 0.
    """
    from voxseg.engine.report_sources import read_source

    path = run / "report.html" if output is None else output
    check_page(path, overwrite=overwrite)
    source = read_source(run, data=data)
    page = _write(source, path, terminal.console(as_json), pictures)
    if as_json:
        content = {"report": str(page.path), "cases": page.num_cases}
        content |= {"drawn": list(page.drawn), "warnings": list(page.warnings)}
        terminal.print_json(document(REPORT, content))


def check_page(path: Path | None, *, overwrite: bool) -> None:
    """Refuse a page that cannot be written, before any work is done; None is no page."""
    if path is not None:
        from voxseg.engine.case_report import check_page as check

        check(path, overwrite=overwrite)


def write_run_page(run: Path, path: Path, screen: Console) -> None:
    """Write the page about a finished run from its folder."""
    from voxseg.engine.report_sources import read_source

    write_page(read_source(run), path, screen)


def write_page(source: "ReportSource", path: Path | None, screen: Console) -> None:
    """Write the page about what a command has done, if one was asked for."""
    if path is not None:
        _write(source, path, screen, None)


def _write(source: "ReportSource", path: Path, screen: Console, pictures: int | None) -> "Page":
    from voxseg.engine.case_report import write_page as write

    with screen.status("drawing the report"):
        page = write(source, path, pictures=pictures)
    count = f"{len(page.drawn)} of {page.num_cases} cases drawn, {len(page.warnings)} warnings"
    screen.print(f"page: {page.path} ({count})", markup=False)
    return page
