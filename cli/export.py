"""``voxseg export``: masks and networks for other programs."""

import typer

from . import export_dicom, export_slicer

app = typer.Typer(
    name="export",
    no_args_is_help=True,
    help="Write masks and networks for other programs.",
)
app.command("dicom")(export_dicom.export_dicom)
app.command(name="slicer")(export_slicer.export_slicer)
