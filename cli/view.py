"""``voxseg view``."""

from pathlib import Path
from typing import Annotated

import typer

from . import console as terminal
from . import options


def view(
    image: Annotated[Path, typer.Argument(help="A volume, .nii or .nii.gz, or a DICOM folder.")],
    masks: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Label maps on its grid; two are shown side by side, with their difference.",
            metavar="MASK",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The page; IMAGE_view.html in this folder by default."),
    ] = None,
    label_table: options.MaskTable = None,
    supervoxels: Annotated[
        Path | None,
        typer.Option("--supervoxels", help="A region map, drawn as borders.", metavar="MAP"),
    ] = None,
    uncertainty: Annotated[
        Path | None,
        typer.Option(
            "--uncertainty",
            help="A map in 0 to 1, as predict --save-uncertainty writes it.",
            metavar="MAP",
        ),
    ] = None,
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--window",
            help="Intensities to be black and white; nothing beyond them is kept.",
            metavar="LOW HIGH",
        ),
    ] = None,
    resample: Annotated[
        bool,
        typer.Option("--resample", help="Bring masks and maps onto the image's grid."),
    ] = False,
    full: Annotated[
        bool,
        typer.Option("--full", help="Neither cut away air nor leave voxels out."),
    ] = False,
    max_mb: Annotated[
        float,
        typer.Option("--max-mb", help="Size of the page; voxels are left out until it fits."),
    ] = 20.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a page that is there.")
    ] = False,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Write one HTML page that shows IMAGE with masks over it, to look at or to mail.

    The page works in any current browser, without a network, and holds the patient's images.
    """
    from voxseg.api import view as write

    written = write(
        image,
        masks,
        output,
        label_table=label_table,
        supervoxels=supervoxels,
        uncertainty=uncertainty,
        window=window,
        resample=resample,
        full=full,
        max_mb=max_mb,
        overwrite=overwrite,
        say=lambda text: terminal.out.print(text, markup=False),
    )
    if show:
        typer.launch(written.path.resolve().as_uri())
