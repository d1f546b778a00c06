"""Functions that write networks for other programs: ``export_bundle``, ``export_onnx``, ..."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from voxseg.api.shared import silent
from voxseg.engine.checkpoint_files import member_checkpoints
from voxseg.engine.options import Place, as_path
from voxseg.export.torch_program import TOLERANCE

if TYPE_CHECKING:
    from voxseg.engine.export_models import Exported, ExportRequest


def export_bundle(
    run: Place,
    output: Place,
    *,
    case: Place | None = None,
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
    say: Callable[[str], None] = silent,
) -> "Exported":
    """Write a run's network as a MONAI Bundle; see ``voxseg export bundle --help``."""
    request = _request(run, output, case, tolerance, overwrite)
    from voxseg.engine.export_bundle import export_bundle as export

    return export(request, say)


def export_onnx(
    run: Place,
    output: Place,
    *,
    case: Place | None = None,
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
    say: Callable[[str], None] = silent,
) -> "Exported":
    """Write a run's network as an ONNX file; see ``voxseg export onnx --help``."""
    request = _request(run, output, case, tolerance, overwrite)
    from voxseg.engine.export_models import export_onnx as export

    return export(request, say)


def export_torch(
    run: Place,
    output: Place,
    *,
    case: Place | None = None,
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
    say: Callable[[str], None] = silent,
) -> "Exported":
    """Write a run's network for ``torch.export.load``; see ``voxseg export torch --help``."""
    request = _request(run, output, case, tolerance, overwrite)
    from voxseg.engine.export_models import export_torch as export

    return export(request, say)


def _request(
    run: Place, output: Place, case: Place | None, tolerance: float, overwrite: bool
) -> "ExportRequest":
    member_checkpoints(Path(run))  # what is missing is told before torch is loaded
    from voxseg.engine.export_models import ExportRequest

    return ExportRequest(
        run=Path(run),
        output=Path(output),
        case=as_path(case),
        tolerance=tolerance,
        overwrite=overwrite,
    )
