"""``voxseg export``: masks and networks for other programs."""

import typer

from . import export_bundle, export_dicom, export_onnx, export_slicer, export_torch

app = typer.Typer(
    name="export",
    no_args_is_help=True,
    help="Write masks and networks for other programs.",
)
app.command("slicer")(export_slicer.export_slicer)
app.command("dicom")(export_dicom.export_dicom)
app.command("bundle")(export_bundle.export_bundle)
app.command("onnx")(export_onnx.export_onnx)
app.command("torch")(export_torch.export_torch)
