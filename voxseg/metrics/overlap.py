"""Overlap of two masks: voxel counts, and the Dice and IoU made of them.

Source: Dice, *Measures of the amount of ecologic association between species*, Ecology 26(3), 1945;
Jaccard, 1912, for IoU.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class OverlapCounts:
    """Voxels of one class in a prediction and in the truth."""

    both: int
    predicted: int
    true: int

    @property
    def dice(self) -> float:
        """Twice the shared voxels by the sum of both; NaN where the class is in neither mask."""
        total = self.predicted + self.true
        return 2 * self.both / total if total else math.nan

    @property
    def iou(self) -> float:
        """Shared voxels by voxels in either; NaN where the class is in neither mask."""
        union = self.predicted + self.true - self.both
        return self.both / union if union else math.nan


def count_overlap(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> OverlapCounts:
    """Count the voxels of two boolean masks (*S) of one shape and those they share.

    Raises:
        ValueError: the shapes differ.
    """
    check_masks(prediction, truth)
    return OverlapCounts(
        both=int(np.count_nonzero(prediction & truth)),
        predicted=int(np.count_nonzero(prediction)),
        true=int(np.count_nonzero(truth)),
    )


def dice(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Dice of two boolean masks (*S): 1 for equal masks, NaN if both are empty."""
    return count_overlap(prediction, truth).dice


def iou(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union of two boolean masks (*S): NaN if both are empty."""
    return count_overlap(prediction, truth).iou


def check_masks(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
    """Check that two masks are boolean and of one shape.

    Raises:
        TypeError: a mask is not boolean.
        ValueError: the shapes differ.
    """
    for name, mask in (("prediction", prediction), ("truth", truth)):
        if mask.dtype != np.bool_:
            raise TypeError(
                f"{name} must be a boolean mask, got {mask.dtype}; compare the label map with one "
                "class first"
            )
    if prediction.shape != truth.shape:
        raise ValueError(
            f"prediction {prediction.shape} and truth {truth.shape} must have the same shape"
        )
