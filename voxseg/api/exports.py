"""Functions that write for other programs: ``export_dicom``, ``export_slicer``, ``labels``."""

from collections.abc import Callable
from pathlib import Path

from voxseg.api.shared import silent
from voxseg.engine import dicom_files as _dicom
from voxseg.engine import label_commands as _labels
from voxseg.engine import slicer_export as _slicer
from voxseg.engine.options import Place, as_path
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
) -> _dicom.ExportedSeg:
    """Write a mask as DICOM Segmentation of a series; see ``voxseg export dicom --help``."""
    return _dicom.export_dicom(
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
) -> list[_slicer.SlicerOutcome]:
    """Write masks for 3D Slicer; see ``voxseg export slicer --help``."""
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
) -> dict[str, LabelTable]:
    """Read a label table and write it, or give those that ship; see ``voxseg labels --help``."""
    return _labels.labels(table, as_path(output), overwrite=overwrite)
