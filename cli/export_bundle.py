"""``voxseg export bundle``."""

from pathlib import Path
from typing import Annotated

import typer

from . import export_options as options
from .options import Json


def export_bundle(
    run: options.Run,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to make.")],
    case: options.Case = None,
    tolerance: options.Tolerance = 1e-4,
    overwrite: options.Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write the network of RUN as a MONAI Bundle: for monai.bundle run and MONAI Label.

    Of a network without supervoxels it is made of MONAI's own transforms and runs without voxseg;
    one with pooled designs (V1 to V4) needs voxseg to compute supervoxels, and says so. The
    bundle is run on a volume and compared with the original before it is kept.
    """
    from voxseg.api import export_bundle as write

    options.show(
        lambda say: write(
            run, output, case=case, tolerance=tolerance, overwrite=overwrite, say=say
        ),
        as_json,
    )
