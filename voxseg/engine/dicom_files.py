"""DICOM Segmentations of predictions, and of masks that were made elsewhere."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxseg.data.cases import Case
from voxseg.data.dicom import read_grid, read_series_geometry
from voxseg.data.dicom_cases import SEG_ENDING
from voxseg.data.dicom_series import choose_series, list_series
from voxseg.data.names import case_name
from voxseg.data.reading import is_dicom
from voxseg.data.regrid import describe_grid, is_on_grid_of, label_on_grid_of
from voxseg.data.volume import read_label
from voxseg.engine.mask_tables import place_beside, read_beside, unnamed_table
from voxseg.engine.predict_case import CaseAnswer
from voxseg.errors import DataError, UsageError
from voxseg.export.dicom_seg import WrittenSeg, require_highdicom, write_dicom_seg
from voxseg.export.label_files import read_label_table
from voxseg.export.labels import HIGHEST_VALUE, LabelTable


@dataclass(frozen=True, kw_only=True)
class DicomSeg:
    """Writes CASE.seg.dcm beside the mask of each DICOM case."""

    anonymise: bool = False
    say: Callable[[str], None] = lambda _: None

    @property
    def endings(self) -> tuple[str, ...]:
        """Of the file, after the name of the mask."""
        return (SEG_ENDING,)

    def check(self, cases: Sequence[Case]) -> None:
        """Refuse before any work what cannot be written.

        Raises:
            UsageError: A case is not DICOM.
            VoxsegError: highdicom is missing.
        """
        for case in cases:
            if not is_dicom(case.images):
                raise UsageError(
                    f"--dicom-seg is for DICOM series, and {case.images[0]} is none; 'voxseg "
                    "export dicom MASK --series FOLDER' lays a mask onto its series"
                )
        require_highdicom()

    def __call__(self, answer: CaseAnswer) -> list[Path]:
        """Write a case; an empty mask has nothing to refer to, and this is said."""
        if not np.any(answer.label):
            self.say(f"{answer.case.case_id}: no DICOM Segmentation, for the mask is empty")
            return []
        grid = read_grid(answer.case.images)
        path = seg_path(answer.target)
        write_dicom_seg(path, answer.label, grid.frames, answer.table, anonymise=self.anonymise)
        return [path]


def wanted_dicom(
    is_wanted: bool, anonymise: bool, say: Callable[[str], None]
) -> tuple[DicomSeg, ...]:
    """Turn the options of ``predict`` into what is written besides.

    Raises:
        UsageError: There is nothing to anonymise.
    """
    if anonymise and not is_wanted:
        raise UsageError("--anonymise is about DICOM that is written: add --dicom-seg")
    return (DicomSeg(anonymise=anonymise, say=say),) if is_wanted else ()


def seg_path(mask: Path) -> Path:
    """Where the DICOM Segmentation of a mask lies."""
    return mask.with_name(case_name(mask) + SEG_ENDING)


@dataclass(frozen=True)
class ExportedSeg:
    """A mask that was laid onto a series."""

    written: WrittenSeg
    series: str
    """What the series is called: number, description, modality, size."""
    voxels: dict[str, tuple[int, int]]
    """Of each class: in the mask, and on the grid of the series."""
    is_resampled: bool
    """Whether the mask lay on another grid."""


def export_dicom(
    mask: Path,
    output: Path,
    folder: Path,
    *,
    series: str = "",
    table: str | None = None,
    anonymise: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> ExportedSeg:
    """Write a NIfTI mask as DICOM Segmentation of a series, resampled onto its grid in mm.

    Args:
        mask: ``.nii`` or ``.nii.gz``.
        output: ``.dcm``.
        folder: Of the series.
        series: Which; see ``dicom_series.choose_series``.
        table: Names, colours and codes; see ``read_label_table``. By default ``labels.csv`` beside
            the mask, or that of the run that it lies in; else "class N".
        anonymise: Leave out what tells who the patient is.
        overwrite: Replace ``output``.
        say: Told where names come from.

    Raises:
        UsageError: The output exists or is a folder, or a series must be chosen.
        DataError: The mask is empty or lies outside the series, or a file is not what it must be.
        VoxsegError: A package is missing, or the file cannot be written.
    """
    _check_output(output, overwrite=overwrite)
    require_highdicom()
    found = list_series(folder)
    chosen = choose_series(found, folder, series)
    grid = read_grid(chosen.files)
    label = read_label(mask)
    if not label.array.any():
        raise DataError(f"{mask} has no voxel above 0, so there is no segment to write")
    if label.array.min() < 0:
        raise DataError(f"{mask} has values below 0, which no segment can have; renumber them")
    values = [int(value) for value in np.unique(label.array) if value > 0]
    names = _table(table, values, mask, say)
    target, _ = read_series_geometry(chosen.files)
    is_resampled = not is_on_grid_of(label, target)
    moved = label_on_grid_of(label, target) if is_resampled else label.array
    voxels = {
        names.names[value]: (
            int(np.count_nonzero(label.array == value)), int(np.count_nonzero(moved == value))
        )
        for value in values
    }  # fmt: skip
    if not moved.any():
        raise DataError(
            f"{mask} lies outside the series {chosen} of {folder}: none of its voxels falls into "
            f"a slice; the mask has {describe_grid(label)}, and the series {describe_grid(target)}"
        )
    written = write_dicom_seg(output, moved, grid.frames, names, anonymise=anonymise)
    return ExportedSeg(written, str(chosen), voxels, is_resampled)


def _check_output(output: Path, *, overwrite: bool) -> None:
    if output.is_dir():
        raise UsageError(f"{output} is a folder; -o names the file, as mask.dcm")
    if output.suffix.lower() != ".dcm":
        raise UsageError(f"{output} must end in .dcm")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists; use --overwrite, or another -o")


def _table(
    place: str | None, values: Sequence[int], mask: Path, say: Callable[[str], None]
) -> LabelTable:
    beside = place_beside(mask.parent)
    if place is not None:
        table = read_label_table(place)
    elif beside is not None:
        say(f"names and colours: {beside}")
        table = read_beside(beside)
    else:
        if values[-1] > HIGHEST_VALUE:
            raise DataError(
                f"{mask} holds the label {values[-1]}; labels of masks go to {HIGHEST_VALUE}"
            )
        return unnamed_table(values, mask, say)
    return table.covering(values, str(mask))
