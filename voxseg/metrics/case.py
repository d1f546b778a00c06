"""All scores of one case: a predicted label map against the true one, class by class.

One policy for empty masks, ``EMPTY_POLICY``, holds in every table of voxseg.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from voxseg.metrics.overlap import count_overlap
from voxseg.metrics.surface import SurfaceDistances, bounding_box, surface_distances

EMPTY_POLICY = (
    "Empty masks: a class in neither mask of a case has no scores there (volume difference 0); a "
    "class in one mask only has Dice, IoU and surface Dice 0 and no distances. Missing scores are "
    "left out of means and counted."
)
"""What is done where a class is missing; printed under every table."""

IMAGE_POLICY = (
    "Missing classes: a class in neither mask of a photograph has no score there; a class in one "
    "mask only scores 0. Missing scores are left out of means and counted."
)
"""The same for photographs."""


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class in one case; NaN where ``EMPTY_POLICY`` leaves a score undefined.

    A photograph has no mm, so its scores are overlap and numbers of pixels, which a volume lacks.
    """

    dice: float
    iou: float
    hd95_mm: float
    """Larger of both directed 95th percentiles of the surface distances."""
    assd_mm: float
    """Average symmetric surface distance."""
    surface_dice: float
    """Share of both surfaces within the tolerance of the other."""
    volume_difference_ml: float
    """Predicted minus true volume."""
    prediction_ml: float
    truth_ml: float
    prediction_pixels: float = math.nan
    truth_pixels: float = math.nan


ABSENT = ClassScores(math.nan, math.nan, math.nan, math.nan, math.nan, 0.0, 0.0, 0.0)
"""Scores of a class that is in neither mask of a volume."""
ABSENT_PIXELS = replace(
    ABSENT, volume_difference_ml=math.nan, prediction_ml=math.nan, truth_ml=math.nan,
    prediction_pixels=0.0, truth_pixels=0.0,
)  # fmt: skip
"""Scores of a class that is in neither mask of a photograph."""


def score_case(
    prediction: NDArray[np.integer],
    truth: NDArray[np.integer],
    labels: Iterable[int],
    spacing: Sequence[float] | None,
    tolerance_mm: float = 1.0,
    *,
    background: int = 0,
    ignore: Collection[int] = (),
) -> dict[int, ClassScores]:
    """Score a predicted label map against the true one.

    Args:
        prediction: (*S) integer class values, of any range.
        truth: (*S) integer class values on the same grid.
        labels: class values to score.
        spacing: voxel size in mm along each axis of S; None for a photograph, of which overlap and
            pixels are scored, of background as of any class.
        tolerance_mm: for surface Dice.
        background: value of the class whose surface means nothing; if it is among ``labels``, it
            has overlap and volumes only, and NaN for the scores of its surface.
        ignore: values of ``truth`` that count neither as right nor as wrong, see ``leave_out``.

    Returns:
        Class value -> scores, in the order of ``labels``.

    Raises:
        ValueError: shapes differ, or ``spacing`` does not fit them.
        TypeError: a label map is not integer.
    """
    for name, label in (("prediction", prediction), ("truth", truth)):
        if label.dtype.kind not in "iu":
            raise TypeError(f"{name} must be an integer label map, got {label.dtype}")
    if prediction.shape != truth.shape:
        raise ValueError(
            f"prediction {prediction.shape} and truth {truth.shape} must have the same shape"
        )
    prediction = leave_out(prediction, truth, ignore)
    if spacing is None:
        return {value: _score_pixels(prediction == value, truth == value) for value in labels}
    voxel_ml = math.prod(spacing) / 1000
    # Outside this box both maps hold background only, so no foreground mask is cut.
    box = _roomy_box((prediction != background) | (truth != background))
    scores = {}
    for value in labels:
        window = (...,) if value == background else box
        scores[value] = _score_class(
            prediction[window] == value,
            truth[window] == value,
            None if value == background else spacing,
            voxel_ml,
            tolerance_mm,
        )
    return scores


def leave_out(
    prediction: NDArray[np.integer], truth: NDArray[np.integer], ignore: Collection[int]
) -> NDArray[np.integer]:
    """Give the prediction the truth's value where that is ignored.

    No class has that value, so these voxels are in no mask of either map.

    Args:
        prediction: (*S) integer class values.
        truth: (*S) integer class values on the same grid.
        ignore: values of ``truth`` that count neither as right nor as wrong.

    Returns:
        (*S) integer; ``prediction`` itself if nothing is ignored.
    """
    if not ignore:
        return prediction
    return np.where(np.isin(truth, list(ignore)), truth, prediction)


def _score_pixels(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> ClassScores:
    """Score one mask of a photograph."""
    counts = count_overlap(prediction, truth)
    return replace(
        ABSENT_PIXELS,
        dice=counts.dice,
        iou=counts.iou,
        prediction_pixels=float(counts.predicted),
        truth_pixels=float(counts.true),
    )


def _score_class(
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    spacing: Sequence[float] | None,
    voxel_ml: float,
    tolerance_mm: float,
) -> ClassScores:
    """Score one mask; without ``spacing`` its surface is not measured."""
    counts = count_overlap(prediction, truth)
    if counts.predicted == 0 and counts.true == 0:
        return ABSENT
    if spacing is None:
        hd95_mm = assd_mm = surface_dice = math.nan
    else:
        distances: SurfaceDistances = surface_distances(prediction, truth, spacing)
        hd95_mm, assd_mm = distances.hd95_mm, distances.assd_mm
        surface_dice = distances.surface_dice(tolerance_mm)
    return ClassScores(
        dice=counts.dice,
        iou=counts.iou,
        hd95_mm=hd95_mm,
        assd_mm=assd_mm,
        surface_dice=surface_dice,
        volume_difference_ml=(counts.predicted - counts.true) * voxel_ml,
        prediction_ml=counts.predicted * voxel_ml,
        truth_ml=counts.true * voxel_ml,
    )


def _roomy_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Bounding box of ``mask``, at least two voxels wide where the array is.

    A box one voxel wide would turn into a slice, which has a contour instead of a surface.
    """
    box = []
    for window, size in zip(bounding_box(mask), mask.shape, strict=True):
        start = max(window.start - 1, 0)
        box.append(slice(start, min(window.stop + 1, size)))
    return tuple(box)
