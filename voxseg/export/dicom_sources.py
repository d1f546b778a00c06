"""The images that a DICOM Segmentation refers to, reduced to what it takes over from them.

Source: PS3.3, A.51 (what a Segmentation holds); PS3.15, annex E, table E.1-1, *Basic Application
Level Confidentiality Profile* for what must not leave with ``anonymise``. Of its actions:

- Z, emptied: PatientName, PatientID, PatientBirthDate, PatientSex, StudyID, StudyDate, StudyTime,
  AccessionNumber, ReferringPhysicianName.
- D, replaced by 1900-01-01, for it must have a value: ContentDate, ContentTime.
- U, replaced by a hash of itself: UIDs of study, series, images and frame of reference. Files of
  one study stay together; with the originals they can no longer be laid over each other by UID,
  for the frame of reference is theirs no more, but they lie in the same millimetres.
- X, left out: everything else that tells of patient, study, people, places and devices, as ages,
  weights, descriptions, institution and station names, and private attributes.

It is done by keeping what is known to be harmless, not by removing what is known to tell.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from voxseg.errors import DataError

NO_DATE = "19000101"
"""Of anonymised files, where a date must stand."""

_EMPTIED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate",
    "StudyTime", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
_HASHED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
_KEPT = (
    "SOPClassUID", "Modality", "Rows", "Columns", "NumberOfFrames", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices",
    "LossyImageCompression", "PatientPosition", "SeriesNumber",
)  # fmt: skip
_KEPT_GROUPS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "FrameContentSequence": ("DimensionIndexValues", "StackID", "InStackPositionNumber"),
}
_GROUPS = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_SEXES = ("M", "F", "O", "")


def read_sources(frames: Sequence[tuple[Path, int]], *, anonymise: bool) -> list[Any]:
    """Read the images of a series, without pixels.

    Args:
        frames: File and number in it of each slice, in the order of the volume.
        anonymise: Whether to leave out what tells who the patient is.

    Returns:
        A data set for each slice in this order, or the one of a multi-frame file.

    Raises:
        DataError: The series is spread over several multi-frame files, or lacks what a
            Segmentation must have.
    """
    import pydicom

    files = list(dict.fromkeys(path for path, _ in frames))
    if 1 < len(files) < len(frames):
        raise DataError(
            f"{files[0].parent} spreads a series over {len(files)} multi-frame files, of which no "
            "DICOM Segmentation can be made; put them into one"
        )
    sources = []
    for path in files:
        source = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        missing = [one for one in (*_HASHED, "SOPClassUID") if not source.get(one)]
        if missing:
            raise DataError(
                f"{path} has no {missing[0]}, without which no DICOM Segmentation can refer to it"
            )
        sources.append(_anonymised(source) if anonymise else _complete(source))
    for source in sources[1:]:
        # To the digit: rounding may differ between slices, and was found to be harmless.
        source.ImageOrientationPatient = sources[0].ImageOrientationPatient
    _share_orientation(sources[0])
    return sources


def hashed_uid(*words: str) -> str:
    """Return a UID that is always the same for the same words, and tells nothing of them."""
    import pydicom

    return str(pydicom.uid.generate_uid(entropy_srcs=["voxseg", *words]))


def _complete(source: Any) -> Any:
    """Put in what may be missing or wrong in real files and must be there in a Segmentation."""
    for keyword in _EMPTIED:
        if source.get(keyword) is None:
            setattr(source, keyword, "")
    if source.PatientSex not in _SEXES:
        source.PatientSex = ""
    return source


def _anonymised(source: Any) -> Any:
    from pydicom.dataset import Dataset

    kept = Dataset()
    kept.file_meta = source.file_meta
    for keyword in _KEPT:
        if keyword in source:
            setattr(kept, keyword, copy.deepcopy(source[keyword].value))
    for keyword in _EMPTIED:
        setattr(kept, keyword, "")
    for keyword in _HASHED:
        setattr(kept, keyword, hashed_uid(source[keyword].value))
    for groups in _GROUPS:
        if groups in source:
            setattr(kept, groups, [_anonymised_group(group) for group in source[groups].value])
    return kept


def _anonymised_group(group: Any) -> Any:
    from pydicom.dataset import Dataset

    kept = Dataset()
    for name, keywords in _KEPT_GROUPS.items():
        if group.get(name):
            item = Dataset()
            for keyword in keywords:
                if keyword in group[name].value[0]:
                    setattr(item, keyword, group[name].value[0][keyword].value)
            setattr(kept, name, [item])
    return kept


def _share_orientation(source: Any) -> None:
    """Say once for all frames what a multi-frame file may say of each: they are parallel."""
    frames = source.get("PerFrameFunctionalGroupsSequence")
    shared = source.get("SharedFunctionalGroupsSequence")
    if not frames or not shared:
        return
    for name in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        if name not in shared[0] and name in frames[0]:
            setattr(shared[0], name, frames[0][name].value)
            for frame in frames:
                del frame[name]
