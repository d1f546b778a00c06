"""Scores of photographs whose class was named: top-1, top-5, by class, and which for which.

Source: Russakovsky and others, *ImageNet Large Scale Visual Recognition Challenge*, IJCV 2015,
section 4.1: an answer is right if the true class is among the first (five) that were named, and
all photographs count alike.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEW = 5
"""Names that a photograph may have, one of them the true one."""


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """How often which class was named first for which; counts of several sets add up."""

    confusion: NDArray[np.int64]
    """(N, N) photographs by true class and class that was named first."""
    few: NDArray[np.int64]
    """(N,) photographs by true class whose class was among the first five names."""

    def __post_init__(self) -> None:
        """Check the shapes."""
        number = len(self.few)
        if self.confusion.shape != (number, number):
            raise ValueError(
                f"confusion must be ({number}, {number}) for {number} classes, got "
                f"{self.confusion.shape}"
            )

    def __add__(self, other: "ClassCounts") -> "ClassCounts":
        return ClassCounts(self.confusion + other.confusion, self.few + other.few)

    @property
    def total(self) -> int:
        """Number of photographs."""
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        """Share of the photographs whose class was named first; NaN of none."""
        return float(_shares(np.trace(self.confusion), self.total))

    @property
    def top5(self) -> float:
        """Share of the photographs whose class was among the first five; NaN of none."""
        return float(_shares(self.few.sum(), self.total))

    @property
    def class_accuracy(self) -> NDArray[np.float64]:
        """(N,) share of each class's photographs for which it was named first; NaN of none."""
        return _shares(np.diag(self.confusion), self.confusion.sum(1))

    @property
    def class_top5(self) -> NDArray[np.float64]:
        """(N,) the same among the first five."""
        return _shares(self.few, self.confusion.sum(1))

    @property
    def class_mean(self) -> float:
        """Mean of ``class_accuracy`` over the classes that have photographs; NaN of none."""
        accuracy = self.class_accuracy
        known = accuracy[~np.isnan(accuracy)]
        return float(known.mean()) if len(known) else float("nan")


def count_classes(
    named: NDArray[np.int64], truth: NDArray[np.int64], num_classes: int
) -> ClassCounts:
    """Count where the true classes are among those that were named.

    Args:
        named: (M, K) class indices of each photograph, the most probable first.
        truth: (M,) class indices.
        num_classes: N.

    Raises:
        ValueError: the shapes do not fit, or there is an index outside [0, N).
    """
    if named.ndim != 2 or truth.shape != named.shape[:1] or not named.shape[1]:
        raise ValueError(
            f"named must be (M, K) with K of at least 1 and truth (M,), got {named.shape} and "
            f"{truth.shape}"
        )
    for indices in (named, truth):
        if indices.size and not 0 <= indices.min() <= indices.max() < num_classes:
            raise ValueError(f"classes must be in [0, {num_classes})")
    confusion = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(confusion, (truth, named[:, 0]), 1)
    found = (named[:, :FEW] == truth[:, None]).any(1)
    few = np.bincount(truth[found], minlength=num_classes).astype(np.int64)
    return ClassCounts(confusion, few)


def _shares(part: NDArray[np.int64], whole: NDArray[np.int64] | int) -> NDArray[np.float64]:
    """Divide counts; NaN where there is nothing."""
    parts, wholes = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    shares = np.full(parts.shape, np.nan)
    np.divide(parts, wholes, out=shares, where=wholes > 0)
    return shares
