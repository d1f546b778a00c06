"""Instance-level IoU (iIoU): every object counts alike, however large it is.

Source: Cordts et al., *The Cityscapes Dataset for Semantic Urban Scene Understanding*, CVPR 2016,
arXiv:1604.01685, section 3, and the benchmark's public evaluation (pixel-level task).

iIoU = iTP / (iTP + FP + iFN). A pixel of an object counts (average size of the class's objects) /
(size of its object) in iTP if the class was predicted there, else in iFN. False alarms belong to
no object, so FP is that of the plain IoU. The map of objects has id = 1000 * class value + number;
ids below 1000 are groups and classes without objects: they are in FP alone. For a category, a pixel
is right if any class of the category was predicted; it has a score only if all its classes have
objects.

Departure: in a category, Cityscapes' program takes a predicted caravan or trailer, which it ignores
elsewhere, for a vehicle. Here a prediction that is no class is never right, as in the plain IoU.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxseg.metrics.confusion import Confusion

IDS_PER_CLASS = 1000

CITYSCAPES_SIZES: Mapping[str, float] = {
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "caravan": 36771.8241758242,
    "trailer": 16926.9763313609,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}
"""Pixels of the average object of each class; constants of the benchmark's evaluation."""


@dataclass(frozen=True)
class ObjectCounts:
    """Objects of one class."""

    objects: int = 0
    pixels: int = 0
    """Of all objects together."""
    found: float = 0.0
    """Sum over objects of the share of pixels where the class was predicted."""
    found_category: float = 0.0
    """Sum over objects of the share of pixels where a class of the category was predicted."""

    def __add__(self, other: "ObjectCounts") -> "ObjectCounts":
        """Add other objects."""
        return ObjectCounts(
            self.objects + other.objects,
            self.pixels + other.pixels,
            self.found + other.found,
            self.found_category + other.found_category,
        )

    def weight(self, size: float | None) -> float:
        """Average size of an object: the one given, else that of these objects."""
        if size is not None:
            return size
        return self.pixels / self.objects if self.objects else 0.0


@dataclass(frozen=True)
class Instances:
    """Objects of all classes that have some; they add up over cases."""

    classes: Mapping[int, ObjectCounts] = field(default_factory=dict)

    def __add__(self, other: "Instances") -> "Instances":
        """Add the objects of other cases."""
        none = ObjectCounts()
        return Instances(
            {
                label: self.classes.get(label, none) + other.classes.get(label, none)
                for label in sorted({*self.classes, *other.classes})
            }
        )

    def class_iiou(
        self, confusion: Confusion, sizes: Mapping[int, float] | None = None
    ) -> dict[int, float]:
        """Instance-level IoU by class value; NaN without objects and without false alarms.

        Args:
            confusion: Of the same cases.
            sizes: Class value -> pixels of its average object; of these objects where it has none.
        """
        found = {}
        for label, counts in self.classes.items():
            size = counts.weight((sizes or {}).get(label))
            both, predicted, _ = confusion.of((label,))
            found[label] = _ratio(size * counts.found, size * counts.objects + (predicted - both))
        return found

    def category_iiou(
        self,
        confusion: Confusion,
        categories: Mapping[int, str],
        sizes: Mapping[int, float] | None = None,
    ) -> dict[str, float]:
        """Instance-level IoU of the categories whose classes all have objects.

        Args:
            confusion: Of the same cases.
            categories: Class value -> category, as for ``count_instances``.
            sizes: As for ``class_iiou``.
        """
        found = {}
        for name in dict.fromkeys(categories.values()):
            members = [label for label, one in categories.items() if one == name]
            if not name or not set(members) <= set(self.classes):
                continue
            weights = {
                label: self.classes[label].weight((sizes or {}).get(label)) for label in members
            }
            right = math.fsum(w * self.classes[k].found_category for k, w in weights.items())
            whole = math.fsum(w * self.classes[k].objects for k, w in weights.items())
            both, predicted, _ = confusion.of(members)
            found[name] = _ratio(right, whole + (predicted - both))
        return found

    def to_json(self) -> dict[str, Any]:
        """Return class value -> counts as plain values."""
        return {str(label): vars(counts) for label, counts in self.classes.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Instances":
        """Read what ``to_json`` returned.

        Raises:
            ValueError, KeyError, TypeError: It is something else.
        """
        return cls({int(label): ObjectCounts(**counts) for label, counts in content.items()})


def count_instances(
    prediction: NDArray[np.integer],
    instances: NDArray[np.integer],
    labels: Collection[int],
    categories: Mapping[int, str] | None = None,
) -> Instances:
    """Count the objects of one case, and how much of each was found.

    Args:
        prediction: (*S) integer class values.
        instances: (*S) ids: 1000 * class value + number for an object, less for anything else.
        labels: Classes that have objects; ids of others are passed over.
        categories: Class value -> category; "" or no entry is none.

    Raises:
        ValueError: Shapes differ.
    """
    if prediction.shape != instances.shape:
        raise ValueError(
            f"prediction {prediction.shape} and instances {instances.shape} must have the same "
            "shape"
        )
    groups = categories or {}
    found = dict.fromkeys(sorted(labels), ObjectCounts())
    inside = instances >= IDS_PER_CLASS
    ids, places = np.unique(instances[inside], return_inverse=True)
    predicted = prediction[inside]
    sizes = np.bincount(places, minlength=len(ids))
    for label in found:
        mine = ids // IDS_PER_CLASS == label
        if not mine.any():
            continue
        category = groups.get(label, "")
        alike = [other for other, one in groups.items() if one == category and category]
        hits, near = (
            np.bincount(places, np.isin(predicted, values), minlength=len(ids))
            for values in ([label], alike)
        )
        found[label] = ObjectCounts(
            int(mine.sum()),
            int(sizes[mine].sum()),
            math.fsum(hits[mine] / sizes[mine]),
            math.fsum(near[mine] / sizes[mine]),
        )
    return Instances(found)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
