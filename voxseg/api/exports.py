"""Functions that write masks and networks for other programs."""

from pathlib import Path

from voxseg.engine import dicom_files as _dicom
from voxseg.engine.options import Place


def export_dicom(
    mask: Place,
    output: Place,
    *,
    series: Place,
    series_uid: str | None = None,
    label_table: str | None = None,
    anonymise: bool = False,
    overwrite: bool = False,
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
    )
