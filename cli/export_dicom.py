"""``voxseg export dicom``."""

from pathlib import Path
from typing import Annotated

import typer

from . import console as terminal
from . import options


def export_dicom(
    mask: Annotated[Path, typer.Argument(help="A NIfTI mask, on whatever grid.")],
    output: options.Output,
    series: Annotated[Path, typer.Option("--series", help="DICOM folder of the images.")],
    series_uid: Annotated[
        str | None,
        typer.Option(
            "--series-uid",
            help="Which series of the folder, where it holds several: a UID, a number or a part "
            "of the description.",
        ),
    ] = None,
    label_table: options.MaskTable = None,
    anonymise: options.Anonymise = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Write MASK as DICOM Segmentation (BINARY) of a series, laid onto its grid in mm.

    A mask on another grid is resampled (nearest voxel) onto the slices of the series; how many
    voxels each class had and has is printed. Patient, study and frame of reference are those of
    the series. The same mask gives the same file.
    """
    from voxseg.api import export_dicom as run

    done = run(
        mask,
        output,
        series=series,
        series_uid=series_uid,
        label_table=label_table,
        anonymise=anonymise,
        overwrite=overwrite,
        say=lambda text: terminal.err.print(text, markup=False),
    )
    how = "resampled onto" if done.is_resampled else "on the grid of"
    terminal.out.print(f"{output}: {how} series {done.series}", markup=False)
    for name, (before, after) in done.voxels.items():
        terminal.out.print(f"  {name}: {before} voxels in the mask, {after} here", markup=False)
    for label in done.written.empty:
        if label.name not in done.voxels:
            terminal.out.print(f"  {label.name}: no voxel, described only", markup=False)
    if anonymise:
        terminal.out.print("  anonymised: its UIDs are no longer those of the series", markup=False)
