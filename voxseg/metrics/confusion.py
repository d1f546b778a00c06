"""Confusion matrix over all pixels of all cases, and the scores that benchmarks take from it.

Sources: Everingham et al., *The PASCAL Visual Object Classes Challenge*, IJCV 88, 2010, section
4.1.3 (IoU over all pixels of the test set); Long, Shelhamer, Darrell, arXiv:1411.4038, section 5
(pixel accuracy, mean accuracy, mean and frequency-weighted IoU); Cordts et al., arXiv:1604.01685,
section 3 (IoU of categories).

Ignored pixels, as in Cityscapes' evaluation: a pixel whose truth is ignored does not count at all.
A prediction of a value that is no class, on a pixel that counts, is a miss of the true class and a
false alarm of none. VOC has no such predictions.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxseg.metrics.summary import mean_of_defined


@dataclass(frozen=True, eq=False)
class Confusion:
    """How often each true class was predicted as each class; matrices add up."""

    labels: tuple[int, ...]
    """Class values, sorted."""
    counts: NDArray[np.int64]
    """(C, C + 1): rows are true classes, columns predicted ones; the last is for no class."""

    def __post_init__(self) -> None:
        """Check that labels and matrix fit."""
        if list(self.labels) != sorted(set(self.labels)):
            raise ValueError(f"labels must be sorted and differ, got {self.labels}")
        size = len(self.labels)
        if self.counts.shape != (size, size + 1) or self.counts.dtype != np.int64:
            raise ValueError(
                f"counts must be int64 ({size}, {size + 1}) for {size} classes, got "
                f"{self.counts.dtype} {self.counts.shape}"
            )

    def __add__(self, other: "Confusion") -> "Confusion":
        """Add the counts of other pixels; a class of one matrix only is kept."""
        labels = tuple(sorted({*self.labels, *other.labels}))
        return Confusion(labels, self._over(labels) + other._over(labels))

    @property
    def pixels(self) -> int:
        """How many pixels count."""
        return int(self.counts.sum())

    @property
    def unknown(self) -> int:
        """How many of them were predicted as no class."""
        return int(self.counts[:, -1].sum())

    @property
    def pixel_accuracy(self) -> float:
        """Share of pixels whose class is right; NaN without pixels."""
        return _share(int(np.trace(self.counts)), self.pixels)

    @property
    def frequency_weighted_iou(self) -> float:
        """IoU of the classes, weighted by their true pixels; NaN without pixels."""
        true = self.counts.sum(axis=1)
        found = zip(true.tolist(), self.class_iou().values(), strict=True)
        return _share(math.fsum(number * iou for number, iou in found if number), self.pixels)

    def class_iou(self) -> dict[int, float]:
        """IoU by class value: TP / (TP + FP + FN); NaN where a class is in neither map."""
        return {label: self.iou((label,)) for label in self.labels}

    def class_accuracy(self) -> dict[int, float]:
        """Share of each class's true pixels that are right; NaN where there is none."""
        hits, true = np.diagonal(self.counts), self.counts.sum(axis=1)
        return {
            label: _share(int(hit), int(number))
            for label, hit, number in zip(self.labels, hits, true, strict=True)
        }

    def mean_iou(self, labels: Collection[int] | None = None) -> float:
        """Mean IoU of the classes (or of some of them) that are in either map."""
        return mean_of_defined(
            iou for label, iou in self.class_iou().items() if labels is None or label in labels
        )

    def mean_accuracy(self, labels: Collection[int] | None = None) -> float:
        """Mean over the classes (or some of them) that have true pixels of the share found."""
        found = self.class_accuracy().items()
        return mean_of_defined(one for label, one in found if labels is None or label in labels)

    def category_iou(self, categories: Mapping[int, str]) -> dict[str, float]:
        """IoU of classes merged into categories.

        A pixel is right if a class of its own category was predicted.

        Args:
            categories: Class value -> category; "" or no entry is none. Pixels of such a class can
                be a false alarm of a category, but belong to no category themselves.

        Returns:
            Category -> IoU, in the order in which ``categories`` first names them.
        """
        return {
            name: self.iou([label for label, one in categories.items() if one == name])
            for name in dict.fromkeys(categories.values())
            if name
        }

    def iou(self, labels: Iterable[int]) -> float:
        """IoU of some classes taken as one; NaN where none of them is in either map."""
        both, predicted, true = self.of(labels)
        return _share(both, predicted + true - both)

    def of(self, labels: Iterable[int]) -> tuple[int, int, int]:
        """Pixels of some classes taken as one: in both maps, predicted, true."""
        inside = np.isin(self.labels, list(labels))
        columns = self.counts[:, :-1][:, inside]
        return (
            int(columns[inside].sum()),
            int(columns.sum()),
            int(self.counts[inside].sum()),
        )

    def to_json(self) -> dict[str, Any]:
        """Return labels and counts as plain values."""
        return {"labels": list(self.labels), "counts": self.counts.tolist()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Confusion":
        """Read what ``to_json`` returned.

        Raises:
            ValueError, KeyError, TypeError: It is something else.
        """
        labels = tuple(int(label) for label in content["labels"])
        counts = np.array(content["counts"], np.int64).reshape(len(labels), len(labels) + 1)
        return cls(labels, counts)

    def _over(self, labels: Sequence[int]) -> NDArray[np.int64]:
        """Counts with a row and a column for each of more classes, which are sorted."""
        counts = np.zeros((len(labels), len(labels) + 1), np.int64)
        places = np.searchsorted(labels, self.labels)
        counts[np.ix_(places, np.append(places, -1))] = self.counts
        return counts


def count_confusion(
    prediction: NDArray[np.integer],
    truth: NDArray[np.integer],
    labels: Iterable[int],
    ignore: Iterable[int] = (),
) -> Confusion:
    """Count the pixels of one case.

    Args:
        prediction: (*S) integer class values, of any range.
        truth: (*S) integer class values on the same grid.
        labels: Class values.
        ignore: Values of ``truth`` whose pixels do not count.

    Raises:
        ValueError: Shapes differ, a value is both a class and ignored, or ``truth`` holds a value
            that is neither.
        TypeError: A map is not integer.
    """
    for name, label in (("prediction", prediction), ("truth", truth)):
        if label.dtype.kind not in "iu":
            raise TypeError(f"{name} must be an integer label map, got {label.dtype}")
    if prediction.shape != truth.shape:
        raise ValueError(
            f"prediction {prediction.shape} and truth {truth.shape} must have the same shape"
        )
    values, left_out = tuple(sorted(set(labels))), list(ignore)
    if set(values) & set(left_out):
        raise ValueError(f"{sorted(set(values) & set(left_out))} are both classes and ignored")
    counted = ~np.isin(truth, left_out)
    rows, columns = (_places(one[counted], values) for one in (truth, prediction))
    size = len(values)
    if (rows == size).any():
        strange = sorted(set(np.unique(truth[counted]).tolist()) - set(values))
        raise ValueError(f"truth holds {strange}, which are neither classes nor ignored")
    counts = np.bincount(rows * (size + 1) + columns, minlength=size * (size + 1))
    return Confusion(values, counts.astype(np.int64).reshape(size, size + 1))


def occurring_values(label: NDArray[np.integer]) -> list[int]:
    """Distinct values of an integer array that is not empty, sorted."""
    low, high = int(label.min()), int(label.max())
    if high - low < 2**16:
        counts = np.bincount((label - low).ravel(), minlength=1)
        return [int(value) + low for value in np.flatnonzero(counts)]
    return [int(value) for value in np.unique(label)]


def _places(values: NDArray[np.integer], labels: Sequence[int]) -> NDArray[np.intp]:
    """Place of each value among the sorted labels; their number for one that is not there."""
    if not labels:
        return np.zeros(values.shape, np.intp)
    known = np.asarray(labels, np.int64)
    places = np.searchsorted(known, values.astype(np.int64, copy=False))
    inside = np.minimum(places, len(known) - 1)
    return np.where(known[inside] == values, inside, len(known))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
