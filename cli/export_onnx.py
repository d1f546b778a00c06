"""``voxseg export onnx``."""

from pathlib import Path
from typing import Annotated

import typer

from . import export_options as options
from .options import Json


def export_onnx(
    run: options.Run,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file, NAME.onnx.")],
    case: options.Case = None,
    tolerance: options.Tolerance = 1e-4,
    overwrite: options.Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write the network of RUN as ONNX, and in NAME.onnx.json how images are prepared for it.

    Pooled designs (V1 to V4) take superpixels as their second input, and V4 the size of a voxel in
    mm as its third. The file is run with onnxruntime and compared with the original before it is
    kept. examples/run_onnx.py uses it without torch.
    """
    from voxseg.api import export_onnx as write

    options.show(
        lambda say: write(
            run, output, case=case, tolerance=tolerance, overwrite=overwrite, say=say
        ),
        as_json,
    )
