"""``voxseg export slicer``."""

from pathlib import Path
from typing import Annotated

import typer

from voxseg.errors import ExitCode

from . import console as terminal
from . import options


def export_slicer(
    mask: Annotated[Path, typer.Argument(help="A mask, or a folder of them as predict writes it.")],
    image: Annotated[
        Path,
        typer.Option("--image", "-i", help="Its volume or DICOM, or a folder of volumes."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="A folder; for one mask also NAME.seg.nrrd or NAME.mrb."
        ),
    ],
    label_table: options.MaskTable = None,
    mrb: Annotated[
        bool, typer.Option("--mrb", help="Also CASE.mrb: all in one file, the patient's image too.")
    ] = False,
    supervoxels: Annotated[
        bool,
        typer.Option(
            "--supervoxels", help="Masks are supervoxel maps: CASE-label.nrrd, a label map volume."
        ),
    ] = False,
    resample: Annotated[
        bool,
        typer.Option(
            "--resample", help="Bring masks onto the image's grid, by the nearest voxel in mm."
        ),
    ] = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Write masks for 3D Slicer: CASE.seg.nrrd, and labels.csv with labels.ctbl.

    The segmentation has the names, colours and codes of its classes, and opens with surfaces.
    A .mrb opens image and segmentation together, at the right place; it holds the patient's image.

    MASK may be a 4D file whose frames are 0 and 1 and may overlap: one frame for each label of the
    table, in its order. Masks in a folder are paired with images by name. Exit code 4 when some
    could not be written and the others were.
    """
    from voxseg.api import export_slicer as run

    outcomes = run(
        mask,
        image,
        output,
        label_table=label_table,
        mrb=mrb,
        supervoxels=supervoxels,
        resample=resample,
        overwrite=overwrite,
        say=lambda text: terminal.err.print(text, markup=False),
    )
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in outcomes:
        for path in outcome.files:
            terminal.out.print(f"wrote {path}", markup=False)
        if outcome.error:
            terminal.err.print(f"{outcome.case_id}: {outcome.error}", markup=False)
    if failed:
        raise typer.Exit(ExitCode.FAILED if len(failed) == len(outcomes) else ExitCode.SOME_FAILED)
