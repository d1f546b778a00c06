"""What the header of a DICOM file says of its images; nothing of the patient is read.

Source: DICOM PS3.3: image plane and pixel description of single frames (C.7.6.2, C.7.6.3), the
functional groups of multi-frame images (C.7.6.16), rescaling (C.11.1).
Files are told by their bytes, for names say nothing.
"""

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from voxseg.data.dicom_geometry import Slice
from voxseg.data.names import is_case_file
from voxseg.errors import DataError, VoxsegError

MISSING_PACKAGE = "reading DICOM needs pydicom; install it with pip install 'voxseg[dicom]'"

_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID",
    "SeriesInstanceUID", "SeriesNumber", "SeriesDescription",
    "Modality", "ImageType", "NumberOfFrames", "Rows", "Columns", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept",
    "PhotometricInterpretation", "SamplesPerPixel", "ModalityLUTSequence",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
_WITHOUT_SERIES = (  # a DICOMDIR, hanging protocols, colour palettes, templates of implants
    "1.2.840.10008.1.3.10", "1.2.840.10008.5.1.4.38.", "1.2.840.10008.5.1.4.39.",
    "1.2.840.10008.5.1.4.43.", "1.2.840.10008.5.1.4.44.", "1.2.840.10008.5.1.4.45.",
)  # fmt: skip
_NO_IMAGES = {"SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "PR", "KO", "SR", "REG", "RWV", "FID", "DOC"}


@dataclass(frozen=True)
class Header:
    """One file of a series."""

    path: Path
    series: str
    """SeriesInstanceUID."""
    study: str
    instance: str
    """SOPInstanceUID, of this file alone; "" where it has none."""
    number: int | None
    description: str
    modality: str
    is_image: bool
    """False of what is no picture: reports, contours, doses, segmentations."""
    is_localizer: bool
    """Whether its ImageType says so."""
    photometric: str
    """Kind of grey or colour, as MONOCHROME2."""
    has_table: bool
    """Whether grey values come from a table (Modality LUT), not from slope and intercept."""
    slices: tuple[Slice, ...]
    """One, or those of a multi-frame file in its order."""


def pydicom() -> Any:
    """Import pydicom, and silence its remarks: they may quote values of the patient.

    Raises:
        VoxsegError: It is not installed.
    """
    try:
        import pydicom
        import pydicom.pixels  # not loaded by the package itself
    except ImportError:
        raise VoxsegError(MISSING_PACKAGE) from None
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
    return pydicom


def is_dicom_file(path: Path) -> bool:
    """Tell from its first bytes whether a file is DICOM, with or without the preamble."""
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return False
    if head[128:132] == b"DICM":
        return True
    # Without: the data set begins with group 2 or 8, and says a type or a short length.
    if len(head) < 132 or head[:2] not in (b"\x02\x00", b"\x08\x00") or head[3] != 0:
        return False
    return (head[4:6].isalpha() and head[4:6].isupper()) or head[6:8] == b"\x00\x00"


def dicom_files(paths: Iterable[Path]) -> list[Path]:
    """Keep the DICOM files; what is named like a volume or a photograph is not looked at."""
    return [path for path in paths if not is_case_file(path) and is_dicom_file(path)]


def read_header(path: Path) -> Header | None:
    """Read what a file says of its images; a file that has not changed is read once.

    Returns:
        None of a DICOMDIR and the like, and of what only begins like DICOM.

    Raises:
        DataError: It is damaged, or names no series.
        VoxsegError: pydicom is missing.
    """
    dicom = pydicom()
    try:
        facts = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    return _read_header(dicom, path, facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=4096)
def _read_header(dicom: Any, path: Path, _time: int, _size: int) -> Header | None:
    try:
        found = dicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=_TAGS)
        sop_class = str(getattr(found.file_meta, "MediaStorageSOPClassUID", ""))
        if sop_class.startswith(_WITHOUT_SERIES):
            return None
        if not found.get("SeriesInstanceUID"):
            if not found.preamble:
                return None  # it only began like DICOM
            raise ValueError("it names no series")
        return _header(found, path)
    except DataError:
        raise
    except Exception as error:  # pydicom raises what it meets: any of a dozen kinds
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise DataError(
            f"{path} is truncated or damaged DICOM ({reason}); copy it again, or remove it"
        ) from error


def _header(found: Any, path: Path) -> Header:
    modality = str(found.get("Modality") or "")
    kinds = found.get("ImageType") or ()
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    number = found.get("SeriesNumber")
    has_pixels = bool(found.get("Rows")) and bool(found.get("Columns"))
    is_image = has_pixels and modality not in _NO_IMAGES
    return Header(
        path=path,
        series=str(found.SeriesInstanceUID),
        study=str(found.get("StudyInstanceUID") or ""),
        instance=str(found.get("SOPInstanceUID") or ""),
        number=None if number in (None, "") else int(number),
        description=" ".join(str(found.get("SeriesDescription") or "").split()),
        modality=modality,
        is_image=is_image,
        is_localizer=any(str(kind).upper() == "LOCALIZER" for kind in kinds),
        photometric=str(found.get("PhotometricInterpretation") or ""),
        has_table=bool(found.get("ModalityLUTSequence")),
        slices=_slices(found, path) if is_image else (),
    )


def _slices(found: Any, path: Path) -> tuple[Slice, ...]:
    groups = found.get("PerFrameFunctionalGroupsSequence")
    if not groups:
        count = int(found.get("NumberOfFrames") or 1)
        # Of several frames nothing says where each one lies.
        places = (found, found, found, found) if count == 1 else (None, None, None, found)
        return tuple(_slice(found, frame, places, path) for frame in range(count))
    shared = (found.get("SharedFunctionalGroupsSequence") or [None])[0]
    names = (
        "PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence",
        "PixelValueTransformationSequence",
    )  # fmt: skip
    return tuple(
        _slice(found, frame, tuple(_group(own, shared, name) for name in names), path)
        for frame, own in enumerate(groups)
    )


def _group(own: Any, shared: Any, name: str) -> Any:
    for place in (own, shared):
        if place is not None and place.get(name):
            return place.get(name)[0]
    return None


def _slice(found: Any, frame: int, places: tuple[Any, ...], path: Path) -> Slice:
    """Make a slice of the parts that hold position, orientation, spacing and rescaling."""
    position, orientation, spacing, rescaling = places
    slope = _numbers(rescaling, "RescaleSlope", 1, path)
    intercept = _numbers(rescaling, "RescaleIntercept", 1, path)
    return Slice(
        frame=frame,
        rows=int(found.Rows),
        columns=int(found.Columns),
        position=_numbers(position, "ImagePositionPatient", 3, path),
        orientation=_numbers(orientation, "ImageOrientationPatient", 6, path),
        spacing=_numbers(spacing, "PixelSpacing", 2, path),
        slope=slope[0] if slope else 1.0,
        intercept=intercept[0] if intercept else 0.0,
    )


def _numbers(place: Any, keyword: str, count: int, path: Path) -> tuple[float, ...] | None:
    value = None if place is None else place.get(keyword)
    if value is None or value == "":
        return None
    values = [value] if count == 1 else list(value)
    if len(values) != count:
        raise DataError(f"{path} has {len(values)} numbers in {keyword}, not {count}; remove it")
    numbers = tuple(float(one) for one in values)
    return numbers if all(map(math.isfinite, numbers)) else None
