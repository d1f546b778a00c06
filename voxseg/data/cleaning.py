"""Operations that tidy a label map: keep a class's largest piece, fill its holes.

They belong here and not to the metrics: like orientation and resampling they turn one label map
into another on the same grid, and know nothing of scores. Whether one helps is measured elsewhere
(``engine/postprocess.py``).

An operation on a class turns voxels of that class into background or background into that class;
voxels of other classes are never touched, so one class's scores do not depend on what is done to
another, but for holes: see ``clean_label``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import scipy
from numpy.typing import NDArray

Operation = Literal["largest_component", "fill_holes"]
OPERATIONS: tuple[Operation, ...] = ("largest_component", "fill_holes")
"""In the order in which they are done."""
OPERATION_NAMES: Mapping[str, str] = {
    "largest_component": "keep the largest component",
    "fill_holes": "fill holes",
}

Mask = NDArray[np.bool_]
Label = NDArray[np.integer[Any]]


def largest_component(mask: Mask) -> Mask:
    """Keep the largest connected piece of a mask.

    Args:
        mask: (*S) boolean. Voxels that touch in a corner are connected (26 neighbours in 3D).

    Returns:
        A new mask; of equally large pieces the first in the order of the array stays, and an empty
        mask stays empty. Deterministic.
    """
    pieces, count = scipy.ndimage.label(mask, np.ones((3,) * mask.ndim, bool))
    if count < 2:
        return mask.copy()
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    kept: Mask = pieces == sizes.argmax()
    return kept


def enclosed_holes(mask: Mask) -> Mask:
    """Mark voxels outside a mask that no path leads out of.

    Args:
        mask: (*S) boolean. A path goes from face to face (6 neighbours in 3D), the counterpart of
            pieces that touch in corners. Axes of size one are left out, so that a single slice can
            have holes; all beyond the array is outside.
    """
    thin = tuple(axis for axis, size in enumerate(mask.shape) if size == 1)
    flat = mask.squeeze(thin)
    if flat.ndim == 0:  # a single voxel
        return np.zeros_like(mask)
    filled: Mask = scipy.ndimage.binary_fill_holes(flat)
    return (filled & ~flat).reshape(mask.shape)


def clean_label(
    label: Label, operations: Mapping[int, Sequence[Operation]], background: int = 0
) -> Label:
    """Tidy some classes of a label map.

    First the largest components of all classes, then the holes, class by class in the order of
    ``operations``: so a stray piece of one class inside another becomes part of the other. Only
    background is filled, never another class; a hole that two classes enclose goes to the first.

    Args:
        label: (*S) integer class values.
        operations: class value -> what is done to it; classes that are not there stay as they are.
        background: value of voxels that are taken away, and of holes.

    Returns:
        A new array of the same dtype. Deterministic.

    Raises:
        ValueError: an operation does not exist, or is asked for the background.
    """
    unknown = {one for several in operations.values() for one in several} - set(OPERATIONS)
    if unknown or operations.get(background):
        raise ValueError(
            f"operations are {', '.join(OPERATIONS)} on classes other than {background}, got "
            f"{ {value: list(several) for value, several in operations.items()} }"
        )
    cleaned = label.copy()
    for operation in OPERATIONS:
        for value, wanted in operations.items():
            if operation not in wanted:
                continue
            boxes = scipy.ndimage.find_objects((cleaned == value).view(np.uint8))
            if not boxes or boxes[0] is None:
                continue
            # A view; what a class encloses lies in its box. One voxel more on each side, so that
            # a box one voxel thick is not taken for a single slice.
            part = cleaned[tuple(slice(max(0, cut.start - 1), cut.stop + 1) for cut in boxes[0])]
            mask = part == value
            if operation == "largest_component":
                part[mask & ~largest_component(mask)] = background
            else:
                part[enclosed_holes(mask) & (part == background)] = value
    return cleaned
