"""``voxseg export torch``."""

from pathlib import Path
from typing import Annotated

import typer

from . import export_options as options
from .options import Json


def export_torch(
    run: options.Run,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file, NAME.pt2.")],
    case: options.Case = None,
    tolerance: options.Tolerance = 1e-4,
    overwrite: options.Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write the network of RUN for torch.export.load, and in NAME.pt2.json how images are prepared.

    It loads where voxseg is not installed. Pooled designs (V1 to V4) take superpixels as their
    second input, and V4 the size of a voxel in mm as its third. The file is loaded and compared
    with the original before it is kept.
    """
    from voxseg.api import export_torch as write

    options.show(
        lambda say: write(
            run, output, case=case, tolerance=tolerance, overwrite=overwrite, say=say
        ),
        as_json,
    )
