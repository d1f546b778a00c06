"""Functions that write networks for other programs: ``export_bundle``, ``export_onnx``, ..."""

from collections.abc import Callable
from pathlib import Path

from voxseg.api.shared import silent
from voxseg.engine import export_models as _models
from voxseg.engine.export_bundle import export_bundle as _export_bundle
from voxseg.engine.exported import TOLERANCE
from voxseg.engine.options import Place, as_path


def export_bundle(
    run: Place,
    output: Place,
    *,
    case: Place | None = None,
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
    say: Callable[[str], None] = silent,
) -> _models.Exported:
    """Write a run's network as a MONAI Bundle; see ``voxseg export bundle --help``."""
    return _export_bundle(_request(run, output, case, tolerance, overwrite), say)


def export_onnx(
    run: Place,
    output: Place,
    *,
    case: Place | None = None,
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
    say: Callable[[str], None] = silent,
) -> _models.Exported:
    """Write a run's network as an ONNX file; see ``voxseg export onnx --help``."""
    return _models.export_onnx(_request(run, output, case, tolerance, overwrite), say)


def export_torch(
    run: Place,
    output: Place,
    *,
    case: Place | None = None,
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
    say: Callable[[str], None] = silent,
) -> _models.Exported:
    """Write a run's network for ``torch.export.load``; see ``voxseg export torch --help``."""
    return _models.export_torch(_request(run, output, case, tolerance, overwrite), say)


def _request(
    run: Place, output: Place, case: Place | None, tolerance: float, overwrite: bool
) -> _models.ExportRequest:
    return _models.ExportRequest(
        run=Path(run),
        output=Path(output),
        case=as_path(case),
        tolerance=tolerance,
        overwrite=overwrite,
    )
