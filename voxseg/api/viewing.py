"""A function that shows volumes: ``view``."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from voxseg.api.shared import silent
from voxseg.data.folders import check_exists
from voxseg.engine.options import Place, as_path, as_paths

if TYPE_CHECKING:
    from voxseg.export.viewer import WrittenViewer


def view(
    image: Place,
    masks: Place | Sequence[Place] | None = None,
    output: Place | None = None,
    *,
    label_table: str | None = None,
    supervoxels: Place | None = None,
    uncertainty: Place | None = None,
    window: tuple[float, float] | None = None,
    resample: bool = False,
    full: bool = False,
    max_mb: float = 20.0,
    overwrite: bool = False,
    say: Callable[[str], None] = silent,
) -> "WrittenViewer":
    """Write one HTML page that shows a volume with masks over it; see ``voxseg view --help``."""
    shown = () if masks is None else as_paths(masks)
    # Before anything that reads volumes is loaded.
    check_exists(image, *shown, supervoxels, uncertainty)
    from voxseg.engine import view as _view

    request = _view.ViewRequest(
        image=Path(image),
        masks=shown,
        output=as_path(output),
        label_table=label_table,
        supervoxels=as_path(supervoxels),
        uncertainty=as_path(uncertainty),
        window=window,
        resample=resample,
        full=full,
        max_mb=max_mb,
        overwrite=overwrite,
    )
    return _view.view(request, say)
