"""DICOM folders as cases: one chosen series is one case, called after its folder."""

from pathlib import Path

from voxseg.data.cases import Case, Dataset
from voxseg.data.dicom_headers import dicom_files, is_dicom_file
from voxseg.data.dicom_series import choose_series, find_series, left_aside
from voxseg.data.folders import files_below
from voxseg.data.names import is_case_file, is_volume_file

SEG_ENDING = ".seg.dcm"
"""Of DICOM Segmentations that ``predict`` writes beside its masks."""


def find_dicom(place: Path, series: str = "") -> Dataset | None:
    """Find the series of a folder or of a multi-frame file.

    Args:
        place: A folder, searched with its subfolders, or one file.
        series: Which; see ``dicom_series.choose_series``.

    Returns:
        One case whose images are the files of the series; None where nothing is DICOM, or where
        NIfTI volumes lie, which come first. Its name is the folder's, never one of the patient's.

    Raises:
        UsageError: Several series or studies are there, or none is called ``series``.
        DataError: There is no volume, or a file is damaged.
    """
    if place.is_file():
        if is_case_file(place) or not is_dicom_file(place):
            return None
    elif not holds_dicom(place):
        return None
    found = find_series(place)
    chosen = choose_series(found, place, series)
    return Dataset(
        "a DICOM series",
        (Case(dicom_case_name(place), chosen.files, None),),
        {},
        notes=left_aside(found, chosen),
    )


def series_of(place: Path) -> tuple[Path, ...]:
    """Return the files of the only series of a folder or file; none where nothing is DICOM.

    Raises:
        UsageError: There are several.
        DataError: There is no volume, or a file is damaged.
    """
    found = find_dicom(place)
    return found.cases[0].images if found is not None else ()


def holds_dicom(folder: Path) -> bool:
    """Tell whether a folder holds DICOM and no NIfTI volume."""
    files = list(files_below(folder))
    if any(is_volume_file(path) for path in files):
        return False
    return any(not is_case_file(path) and is_dicom_file(path) for path in files)


def count_dicom(folder: Path) -> int:
    """Count the DICOM files of a folder, without the masks that ``predict`` writes."""
    found = dicom_files(files_below(folder))
    return sum(not path.name.endswith(SEG_ENDING) for path in found)


def dicom_case_name(place: Path, parents: int = 0) -> str:
    """Name a case after its folder, or its file without ``.dcm``; with parents where asked."""
    whole = place.resolve()
    name = whole.name[:-4] if whole.name.lower().endswith(".dcm") else whole.name
    above = [part.name for part in list(whole.parents)[:parents] if part.name]
    return "_".join([*reversed(above), name]) or "dicom"
