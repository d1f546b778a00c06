"""Read the files of a case, whatever they are: NIfTI, DICOM slices, photographs and their masks."""

from collections.abc import Sequence
from pathlib import Path

from voxseg.data import dicom, image_masks, images, volume
from voxseg.data.dicom_headers import is_dicom_file
from voxseg.data.image_masks import is_mask_file
from voxseg.data.names import is_case_file, is_photograph_file
from voxseg.data.volume import Volume
from voxseg.errors import DataError
from voxseg.stages import stage


@stage("read")
def read_channels(paths: Sequence[Path]) -> Volume:
    """Read the channels of one case, float32 (C, X, Y, Z); of a photograph (3, H, W, 1).

    Raises:
        DataError: As ``volume.read_channels``, ``dicom.read_series`` and
            ``images.read_photograph``.
    """
    if _is_photograph(paths):
        return images.read_photograph(paths[0])
    if is_dicom(paths):
        return dicom.read_series(paths)
    return volume.read_channels(paths)


def read_label(path: Path) -> Volume:
    """Read a label map, int32 (X, Y, Z); of a photograph (H, W, 1).

    Raises:
        DataError: As ``volume.read_label`` and ``image_masks.read_mask``.
    """
    return image_masks.read_mask(path) if is_mask_file(path) else volume.read_label(path)


def read_geometry(paths: Sequence[Path]) -> tuple[Volume, int]:
    """Read where a case lies, and how many bytes reading it takes, from its headers alone."""
    if _is_photograph(paths):
        return images.photograph_geometry(paths)
    if is_dicom(paths):
        return dicom.read_series_geometry(paths)
    return volume.read_geometry(paths)


def read_first_channel(images: Sequence[Path]) -> Volume:
    """Read what a case is shown by: its first channel, of DICOM the series; (C, X, Y, Z)."""
    return read_channels(images if is_dicom(images) else images[:1])


def is_dicom(paths: Sequence[Path]) -> bool:
    """Tell whether the files of a case are those of a DICOM series."""
    return not is_case_file(paths[0]) and is_dicom_file(paths[0])


def _is_photograph(paths: Sequence[Path]) -> bool:
    if not is_photograph_file(paths[0]):
        return False
    if len(paths) > 1:
        raise DataError(
            f"{paths[1]} is a second picture of one case with {paths[0]}; a case has one picture"
        )
    return True
