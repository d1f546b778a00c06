"""Masks as DICOM Segmentation, for PACS and viewers: one binary segment for each class.

Source: PS3.3, A.51 and C.8.20; written by highdicom, whose names the attributes have.
Segments are numbered 1, 2, ... in the order of the label table. Without codes in the table a
segment is "Tissue" of category "Tissue" (SNOMED CT 85756007), as in 3D Slicer, and has its name.
The same mask of the same series gives the same file: UIDs are hashes of the series, the mask, its
table and voxseg's version, and dates are those of the series.
"""

import contextlib
import hashlib
import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxseg import __version__
from voxseg.errors import DataError, VoxsegError
from voxseg.export.dicom_sources import NO_DATE, hashed_uid, read_sources
from voxseg.export.labels import Code, Label, LabelTable
from voxseg.files import replacing

MISSING_PACKAGE = (
    "writing DICOM needs pydicom and highdicom; install them with pip install 'voxseg[dicom]'"
)
_TISSUE = Code("SCT", "85756007", "Tissue")
_NAME_LENGTH = 64  # of a value of the kind LO
_SERIES_NUMBER = 1000  # above the series of the images
_HIGHEST_NUMBER = 2**31 - 1 - _SERIES_NUMBER


@dataclass(frozen=True)
class WrittenSeg:
    """What a file holds."""

    path: Path
    segments: tuple[Label, ...]
    """In the order of their numbers, from 1."""
    empty: tuple[Label, ...]
    """Those of them without a voxel: described, but with no frame."""


def require_highdicom() -> Any:
    """Import highdicom.

    Raises:
        VoxsegError: It is not installed.
    """
    try:
        import highdicom
    except ImportError:
        raise VoxsegError(MISSING_PACKAGE) from None
    # They may quote values of the patient.
    warnings.filterwarnings("ignore", module=r"(pydicom|highdicom)(\.|$)")
    return highdicom


def write_dicom_seg(
    path: Path,
    label: np.ndarray[Any, Any],
    frames: Sequence[tuple[Path, int]],
    table: LabelTable,
    *,
    anonymise: bool = False,
) -> WrittenSeg:
    """Write a mask as DICOM Segmentation that refers to the images of a series.

    Args:
        path: ``.dcm``; replaced if it exists, its folder is made if needed.
        label: (columns, rows, slices) integer, on the grid of the series.
        frames: File and number in it of each slice, in the order of ``label``'s third axis.
        table: Classes of the mask; it must have all of them.
        anonymise: Whether to leave out what tells who the patient is; ``dicom_sources`` lists it.

    Raises:
        DataError: The mask is empty, a class is not in the table, or the series lacks what a
            Segmentation must have.
        VoxsegError: highdicom is missing, or the file cannot be written.
    """
    highdicom = require_highdicom()
    if label.ndim != 3 or label.shape[2] != len(frames):
        raise ValueError(f"label must be (columns, rows, {len(frames)}), got {label.shape}")
    present = {int(value) for value in np.unique(label)} - {0}
    if min(present, default=0) < 0:
        raise ValueError(f"label must not be negative, got {min(present)}")
    segments = tuple(table.covering(present, "the mask"))
    if not present:
        raise DataError(f"{path} is not written: the mask has no voxel, so there is no segment")
    numbers = np.zeros(max(present) + 1, np.uint16)
    for number, one in enumerate(segments, 1):
        if one.value in present:
            numbers[one.value] = number
    content = io.BytesIO()
    with _in_words(frames[0][0].parent):
        sources = read_sources(frames, anonymise=anonymise)
        planes = numbers[label].transpose(2, 1, 0)
        if len(sources) == 1:  # frames of one file, in the order of the file
            planes = planes[np.argsort([number for _, number in frames])]
        found = _segmentation(highdicom, sources, np.ascontiguousarray(planes), segments)
        _settle(found, sources[0], anonymise=anonymise)
        found.save_as(content)
    with replacing(path) as temporary:
        temporary.write_bytes(content.getvalue())
    return WrittenSeg(path, segments, tuple(one for one in segments if one.value not in present))


@contextlib.contextmanager
def _in_words(place: Path) -> Iterator[None]:
    """Turn what pydicom and highdicom raise, a dozen kinds, into one sentence.

    Their own words are left out: they may quote values of the patient.
    """
    try:
        yield
    except VoxsegError:
        raise
    except Exception as error:
        raise DataError(
            f"no DICOM Segmentation can be made of {place} ({type(error).__name__}: a header is "
            "damaged or unusual); write the mask as NIfTI instead"
        ) from error


def _segmentation(
    highdicom: Any,
    sources: Sequence[Any],
    planes: np.ndarray[Any, Any],
    segments: Sequence[Label],
) -> Any:
    first = sources[0]
    digest = hashlib.sha256(f"{planes.shape} {segments} {__version__}".encode())
    digest.update(planes.data)
    content = digest.hexdigest()
    series = str(first.SeriesInstanceUID)
    number = int(first.get("SeriesNumber") or 0)
    return highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=planes,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _description(highdicom, one, number) for number, one in enumerate(segments, 1)
        ],
        series_instance_uid=hashed_uid("series", series, content),
        series_number=_SERIES_NUMBER + min(max(number, 0), _HIGHEST_NUMBER),
        sop_instance_uid=hashed_uid("instance", series, content),
        instance_number=1,
        manufacturer="voxseg",
        manufacturer_model_name="voxseg",
        software_versions=__version__,
        device_serial_number=f"voxseg {__version__}",
        content_label="SEGMENTATION",
        content_description="Made by a neural network",
        series_description="voxseg segmentation",
        omit_empty_frames=True,
        specific_character_set="ISO_IR 192",
    )


def _description(highdicom: Any, label: Label, number: int) -> Any:
    """Describe a segment: its name, colour, codes, and what made it."""
    from pydicom.sr.codedict import codes as known

    codes = label.codes
    region = None if codes.region is None else [_concept(highdicom, codes.region)]
    found = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=label.name[:_NAME_LENGTH],
        segmented_property_category=_concept(highdicom, codes.category or _TISSUE),
        segmented_property_type=_concept(highdicom, codes.type or _TISSUE),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="voxseg", version=__version__, family=known.DCM.ArtificialIntelligence
        ),
        anatomic_regions=region,
        display_color=highdicom.color.CIELabColor.from_rgb(*label.colour),
    )
    if codes.type_modifier is not None:
        kind = found.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [_concept(highdicom, codes.type_modifier)]
    if codes.region_modifier is not None:
        place = found.AnatomicRegionSequence[0]
        place.AnatomicRegionModifierSequence = [_concept(highdicom, codes.region_modifier)]
    return found


def _concept(highdicom: Any, code: Code) -> Any:
    return highdicom.sr.CodedConcept(code.value, code.scheme, code.meaning[:_NAME_LENGTH])


def _settle(found: Any, source: Any, *, anonymise: bool) -> None:
    """Set dates and UIDs that do not change from run to run, and say what was done to the file."""
    organisation = hashed_uid("dimensions", found.SOPInstanceUID)
    for item in (*found.DimensionOrganizationSequence, *found.DimensionIndexSequence):
        item.DimensionOrganizationUID = organisation
    for item in found.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in item:
            del item.ContributionDateTime
    for keyword in ("InstanceCreationDate", "InstanceCreationTime"):
        if keyword in found:
            del found[keyword]
    found.ContentCreatorName = ""  # nobody: a program made it
    found.ContentDate, found.ContentTime = NO_DATE, "000000"
    if not anonymise:
        for kind in ("Content", "Series", "Study"):
            if source.get(f"{kind}Date"):
                found.ContentDate = source[f"{kind}Date"].value
                found.ContentTime = source.get(f"{kind}Time") or "000000"
                break
        return
    from pydicom.dataset import Dataset

    method = Dataset()
    method.CodeValue, method.CodingSchemeDesignator = "113100", "DCM"
    method.CodeMeaning = "Basic Application Confidentiality Profile"
    found.PatientIdentityRemoved = "YES"
    found.LongitudinalTemporalInformationModified = "REMOVED"
    found.DeidentificationMethod = f"voxseg {__version__}"
    found.DeidentificationMethodCodeSequence = [method]
