"""Functions that write for other programs: ``export_dicom``, ``export_slicer``, ``labels``."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from voxseg.api.shared import silent
from voxseg.engine.options import Place, as_path

if TYPE_CHECKING:
    from voxseg.engine.dicom_files import ExportedSeg
    from voxseg.engine.slicer_export import SlicerOutcome
    from voxseg.export.labels import LabelTable


def export_dicom(
    mask: Place,
    output: Place,
    *,
    series: Place,
    series_uid: str | None = None,
    label_table: str | None = None,
    anonymise: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = silent,
) -> "ExportedSeg":
    """Write a mask as DICOM Segmentation of a series; see ``voxseg export dicom --help``."""
    from voxseg.engine.dicom_files import export_dicom as export

    return export(
        Path(mask),
        Path(output),
        Path(series),
        series=series_uid or "",
        table=label_table,
        anonymise=anonymise,
        overwrite=overwrite,
        say=say,
    )


def export_slicer(
    mask: Place,
    image: Place,
    output: Place,
    *,
    label_table: str | None = None,
    mrb: bool = False,
    supervoxels: bool = False,
    resample: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = silent,
) -> "list[SlicerOutcome]":
    """Write masks for 3D Slicer; see ``voxseg export slicer --help``."""
    from voxseg.engine import slicer_export as _slicer

    request = _slicer.SlicerRequest(
        mask=Path(mask),
        image=Path(image),
        output=Path(output),
        label_table=label_table,
        mrb=mrb,
        supervoxels=supervoxels,
        resample=resample,
        overwrite=overwrite,
    )
    return _slicer.export_slicer(request, say)


def labels(
    table: str | None = None, output: Place | None = None, *, overwrite: bool = False
) -> "dict[str, LabelTable]":
    """Read a label table and write it, or give those that ship; see ``voxseg labels --help``."""
    from voxseg.engine.label_commands import labels as read_and_write

    return read_and_write(table, as_path(output), overwrite=overwrite)
