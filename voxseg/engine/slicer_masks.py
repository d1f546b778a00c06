"""Masks as 3D Slicer gets them: label maps and stacks of masks, on the grid of their image."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from voxseg.data.regrid import describe_grid, is_on_grid_of, label_on_grid_of, other_grid
from voxseg.data.volume import (
    Volume,
    read_channels,
    read_geometry,
    read_label,
)
from voxseg.errors import DataError
from voxseg.export.labels import LabelTable
from voxseg.export.seg_nrrd import Segments, count_labels


def mask_values(path: Path) -> list[int]:
    """Return the labels above 0 of a mask; of a stack, 1 to the number of its frames.

    Raises:
        DataError: It cannot be read, or holds what is no label.
    """
    frames = len(read_geometry([path])[0].array)
    if frames > 1:
        return list(range(1, frames + 1))
    return list(count_labels(read_label(path).array, str(path)))


def read_mask(path: Path, table: LabelTable) -> tuple[Segments, Volume]:
    """Read a label map, or a stack of masks: a 4D file with a frame of 0 and 1 for each label.

    Args:
        path: The frames of a stack are the labels of ``table``, in its order.
        table: The classes.

    Returns:
        The label map, or boolean masks by label value; and the volume, for its geometry.

    Raises:
        DataError: It cannot be read, has a label that is not in the table, or frames that are not
            one for each label or not of 0 and 1.
    """
    frames = len(read_geometry([path])[0].array)
    if frames == 1:
        volume = read_label(path)
        table.covering(count_labels(volume.array, str(path)), str(path))
        return volume.array, volume
    if frames != len(table):
        raise DataError(
            f"{path} holds {frames} frames, and the label table {table.name or '(unnamed)'} has "
            f"{len(table)} labels; a stack of masks has one frame for each label, in the table's "
            "order"
        )
    volume = read_channels([path])
    masks = {}
    for frame, label in zip(volume.array, table, strict=True):
        masks[label.value] = frame != 0
        if not np.array_equal(frame, masks[label.value]):
            raise DataError(
                f"{path} holds {float(frame[frame != 0].max()):.6g} in the frame of {label.name}; "
                "in a stack of masks every voxel is 0 or 1"
            )
    return masks, volume


def onto_image(
    segments: Segments, mask: Volume, image: Volume, *, resample: bool, say: Callable[[str], None]
) -> Segments:
    """Return a mask on the grid of its image.

    Args:
        segments: As from ``read_mask``.
        mask: Where it lies.
        image: Where it is to lie.
        resample: Whether it may be brought there, by the nearest voxel.
        say: Told when it was, and which labels were lost by it.

    Raises:
        DataError: It lies on another grid and must not be resampled.
    """
    if is_on_grid_of(mask, image):
        return segments
    if not resample:
        raise other_grid(mask, image)
    mine, other = describe_grid(mask), describe_grid(image)
    if isinstance(segments, Mapping):
        stack = ((value, replace(mask, array=one)) for value, one in segments.items())
        moved: Segments = {value: label_on_grid_of(one, image) for value, one in stack}
    else:
        moved = label_on_grid_of(replace(mask, array=segments), image)
    say(f"{mask.path} was brought from {mine} to {other}, by the nearest voxel")
    lost = _present(segments) - _present(moved)
    if lost:
        named = ", ".join(str(value) for value in sorted(lost))
        say(f"{mask.path}: nothing is left of label {named}, which is too small or lies outside")
    return moved


def is_empty(segments: Segments) -> bool:
    """Tell whether no voxel belongs to anything."""
    return not _present(segments)


def _present(segments: Segments) -> set[int]:
    if isinstance(segments, Mapping):
        return {value for value, mask in segments.items() if mask.any()}
    return {int(value) for layer in segments for value in np.unique(layer)} - {0}
