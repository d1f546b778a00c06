"""Segmentations of 3D Slicer: ``CASE.seg.nrrd`` with the name, colour and codes of every class.

Source: Slicer's developer guide, module Segmentations, *Segmentation file format (.seg.nrrd)*.
Slicer loses segments without an ID or a layer, and shows none of a segment's voxels that lie
outside of its extent, all without a word. So everything is written, extents are the whole grid, and
a class without a voxel stays listed.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxseg.errors import DataError
from voxseg.export.labels import HIGHEST_VALUE, Code, Codes, Label, LabelTable
from voxseg.export.nrrd import write_nrrd

MOST_SEGMENTS = 255
"""More than that nobody can tell apart, or wants a surface of."""
Segments = NDArray[Any] | Mapping[int, NDArray[np.bool_]]
"""A label map (X, Y, Z), or masks (X, Y, Z) by label value, which may overlap."""

_TISSUE = Code("SCT", "85756007", "Tissue")  # what Slicer takes where nothing is said
_CATEGORIES = "Segmentation category and type - 3D Slicer General Anatomy list"
_REGIONS = "Anatomic codes - DICOM master list"


def write_seg_nrrd(
    path: Path, segments: Segments, affine: NDArray[np.float64], table: LabelTable
) -> Path:
    """Write a segmentation.

    Args:
        path: Ends in ``.seg.nrrd``; an existing file is replaced.
        segments: Values above 0 must be in ``table``. Masks that overlap go into layers, as few as
            one pass in the order of ``table`` finds.
        affine: (4, 4), voxel indices to mm, RAS.
        table: The classes, all of which are listed.

    Returns:
        ``path``. The same bytes on each run.

    Raises:
        DataError: A value is not in the table, or the table has more than ``MOST_SEGMENTS``.
        TypeError: A label map is not of whole numbers, or a mask not boolean.
        ValueError: It is not (X, Y, Z), or masks differ in shape.
        VoxsegError: The file cannot be written.
    """
    refuse_many(table, str(path))
    highest = max((label.value for label in table), default=0)
    dtype = np.dtype(np.uint8 if highest <= 255 else np.uint16)
    if isinstance(segments, Mapping):
        table.covering(segments, "the stack of masks")
        layers, place = _layers(segments, table, dtype)
    else:
        table.covering(count_labels(segments, "the mask"), "the mask")
        layers, place = [segments.astype(dtype, copy=False)], {}
    voxels = layers[0] if len(layers) == 1 else np.stack(layers)
    extent = " ".join(f"0 {size - 1}" for size in layers[0].shape)
    fields: dict[str, str] = {}
    for index, label in enumerate(table):
        segment = _segment(label, place.get(label.value, 0), extent)
        fields |= {f"Segment{index}_{name}": value for name, value in segment.items()}
    fields |= {
        # With surfaces named here, Slicer makes them on loading and shows them in 3D.
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|Closed surface|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    return write_nrrd(path, voxels, affine, fields)


def refuse_many(classes: LabelTable | Iterable[int], where: str) -> None:
    """Refuse more classes than a segmentation can have.

    Raises:
        DataError: There are more than ``MOST_SEGMENTS``; ``where`` names the mask.
    """
    count = sum(1 for _ in classes)
    if count > MOST_SEGMENTS:
        raise DataError(
            f"{where} has {count} labels, and a segmentation holds at most {MOST_SEGMENTS}; if it "
            "is a map of supervoxels, use --supervoxels, which writes a label map volume"
        )


def count_labels(label: NDArray[Any], where: str) -> dict[int, int]:
    """Count the voxels of every value above 0.

    Args:
        label: (X, Y, Z) whole numbers.
        where: Names the mask in messages.

    Raises:
        TypeError: It is not of whole numbers.
        ValueError: It has another number of axes.
        DataError: A value is negative, or beyond ``HIGHEST_VALUE``.
    """
    if label.dtype.kind not in "biu":
        raise TypeError(f"label must be integer or boolean, got {label.dtype}")
    if label.ndim != 3:
        raise ValueError(f"label must be (X, Y, Z), got {label.shape}")
    low, high = (int(label.min()), int(label.max())) if label.size else (0, 0)
    if low < 0 or high > HIGHEST_VALUE:
        value = low if low < 0 else high
        raise DataError(f"{where} holds {value}; labels are 0 (background) to {HIGHEST_VALUE}")
    counts = np.zeros(high + 1, np.int64)
    for layer in label:
        counts += np.bincount(layer.ravel().astype(np.int32), minlength=high + 1)
    return {value: int(counts[value]) for value in range(1, high + 1) if counts[value]}


def _layers(
    masks: Mapping[int, NDArray[np.bool_]], table: LabelTable, dtype: np.dtype[Any]
) -> tuple[list[NDArray[Any]], dict[int, int]]:
    """Put every mask into the first layer in which it overlaps nothing."""
    shapes = {mask.shape for mask in masks.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 3:
        raise ValueError(f"masks must be (X, Y, Z) of one shape, got {sorted(shapes)}")
    layers = [np.zeros(shapes.pop(), dtype)]
    place: dict[int, int] = {}
    for value in (label.value for label in table if label.value in masks):
        mask = masks[value]
        if mask.dtype != np.bool_:
            raise TypeError(f"the mask of label {value} must be boolean, got {mask.dtype}")
        free = (at for at, layer in enumerate(layers) if not layer[mask].any())
        place[value] = next(free, len(layers))
        if place[value] == len(layers):
            layers.append(np.zeros_like(layers[0]))
        layers[place[value]][mask] = value
    return layers, place


def _segment(label: Label, layer: int, extent: str) -> dict[str, str]:
    return {
        "Color": " ".join(f"{part / 255:.6g}" for part in label.colour),
        "ColorAutoGenerated": "0",
        "Extent": extent,
        "ID": f"Segment_{label.value}",
        "LabelValue": str(label.value),
        "Layer": str(layer),
        "Name": label.name,
        "NameAutoGenerated": "0",
        "Tags": f"Segmentation.Status:completed|TerminologyEntry:{_terminology(label.codes)}|",
    }


def _terminology(codes: Codes) -> str:
    """Write codes as Slicer does: two contexts, and the five parts in between."""

    def triplet(code: Code | None) -> str:
        return "^^" if code is None else str(code)

    parts = [triplet(codes.category or _TISSUE), triplet(codes.type or _TISSUE)]
    parts.append(triplet(codes.type_modifier))
    regions = [triplet(codes.region), triplet(codes.region_modifier)]
    return "~".join([_CATEGORIES, *parts, _REGIONS, *regions])
