"""``voxseg supervoxels``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from voxseg.errors import ExitCode

from . import console as terminal
from . import options

if TYPE_CHECKING:
    from voxseg.engine.supervoxels import Point, SupervoxelReport

Method = Literal["slic", "block"]
Mask = Literal["auto", "nonzero", "all"]


def supervoxels(
    images: Annotated[list[Path], typer.Argument(help="NIfTI files, or folders of them.")],
    output: options.Output,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="Label of the image, or folder of labels that lie apart."),
    ] = None,
    method: Annotated[Method, typer.Option("--method", help="slic, or block for cubes.")] = "slic",
    size_mm: Annotated[
        float, typer.Option("--size-mm", min=0.01, help="Edge of a supervoxel.")
    ] = 7.0,
    compactness: Annotated[
        float,
        typer.Option("--compactness", min=1e-6, help="Weight of distance, to the intensity range."),
    ] = 0.1,
    iterations: Annotated[int, typer.Option("--iterations", min=1, help="Of SLIC.")] = 10,
    sigma_mm: Annotated[
        float, typer.Option("--sigma-mm", min=0, help="Gaussian smoothing before SLIC.")
    ] = 0.0,
    mask: Annotated[
        Mask, typer.Option("--mask", help="Voxels to divide: auto, nonzero or all.")
    ] = "auto",
    target_oracle: Annotated[
        float | None,
        typer.Option("--target-oracle", help="Find the size with this mean oracle Dice."),
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Draw oracle Dice against number, SLIC and BLOCK.")
    ] = False,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            help="Divide as prediction with this run does, for its exported network; takes the "
            "place of the options above.",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Divide IMAGES into supervoxels; with labels, say how good whole supervoxels could be.

    Writes one map per image on its own grid: 0 outside, supervoxels from 1. The oracle gives every
    supervoxel the class of most of its voxels; its Dice is what a perfect classifier of whole
    supervoxels would reach. Exit code 4 when some images failed and the others were divided.
    """
    from voxseg.api import supervoxels as divide

    screen = terminal.console(as_json)
    with screen.status("dividing") as status:
        report = divide(
            images,
            output,
            labels=labels,
            method=method,
            size_mm=size_mm,
            compactness=compactness,
            iterations=iterations,
            sigma_mm=sigma_mm,
            mask=mask,
            target_oracle=target_oracle,
            sweep=sweep,
            run=run,
            overwrite=overwrite,
            say=status.update,
        )
    if as_json:
        terminal.print_json(report.to_json())
    else:
        _show(report)
    failed = [case for case in report.cases if case.error]
    for case in failed:
        terminal.err.print(f"{case.case_id}: {case.error}", markup=False)
    if failed:
        raise typer.Exit(ExitCode.SOME_FAILED)


def _show(report: "SupervoxelReport") -> None:
    """Print the sizes that were tried, the sweep, and the table of cases."""
    if report.search:
        terminal.out.print(_points("Sizes tried", report.search))
    if report.sweep:
        terminal.out.print(_points("Sweep", report.sweep))
        terminal.out.print(f"drew {report.plot}", markup=False)
    means = report.means
    names = [report.class_names.get(value, str(value)) for value in means]
    rows = [
        [case.case_id, case.num_supervoxels, *(case.dice.get(value) for value in means), case.mean]
        for case in report.cases
        if not case.error
    ]
    scored = [case for case in report.cases if case.dice]
    if len(scored) > 1:
        count = sum(case.num_supervoxels for case in scored) / len(scored)
        mean = sum(case.mean for case in scored) / len(scored)
        rows.append(["mean", round(count), *means.values(), mean])
    settings = report.settings
    title = f"{settings.method.upper()} of {settings.size_mm:.2f} mm"
    title += ", oracle Dice" if scored else ""
    columns = ("case", "supervoxels", *([*names, "mean"] if scored else []))
    rows = rows if scored else [row[:2] for row in rows]
    terminal.out.print(terminal.table(title, columns, rows))


def _points(title: str, points: "tuple[Point, ...]") -> Table:
    rows = [(p.method, f"{p.size_mm:.2f}", round(p.num_supervoxels), p.oracle) for p in points]
    return terminal.table(title, ("method", "mm", "supervoxels", "oracle Dice"), rows)
