"""``voxseg check``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import console as terminal
from . import options

if TYPE_CHECKING:
    from voxseg.data.check import CheckReport
    from voxseg.data.layouts import Dataset

_ERRORS_FOUND = 3


def check(
    data: Annotated[
        Path, typer.Argument(help="Folder of volumes with labels, or a CSV/JSON list.")
    ],
    labels: options.Labels = None,
    as_json: options.Json = False,
) -> None:
    """Check that DATA can be trained on: pairs, grids, label values, broken files.

    Exit code 3 when something must be mended first.
    """
    from voxseg.engine.train import examine

    dataset, report = examine(data, labels)
    if as_json:
        terminal.print_json({"layout": dataset.layout, **report.as_dict()})
    else:
        _show(dataset, report)
    if report.errors:
        raise typer.Exit(_ERRORS_FOUND)


def _show(dataset: "Dataset", report: "CheckReport") -> None:
    rows = [
        (
            f.case_id,
            " x ".join(map(str, f.shape)),
            " x ".join(f"{s:g}" for s in f.spacing),
            _list(f.label_voxels),
        )
        for f in report.cases
    ]
    columns = ("case", "voxels", "mm", "label values")
    terminal.out.print(
        terminal.table(f"{len(dataset.cases)} cases, {dataset.layout}", columns, rows)
    )
    for note in dataset.notes:
        terminal.out.print(f"note: {note}", markup=False)
    for finding in report.findings:
        terminal.out.print(f"{finding.severity}: {finding}", markup=False)
    verdict = f"{len(report.errors)} errors, {len(report.warnings)} warnings"
    terminal.out.print(verdict, markup=False)


def _list(voxels: dict[int, int]) -> str:
    return ", ".join(str(value) for value in voxels)
