"""Scores of photographs over all pixels of a set, as benchmarks give them, beside those of cases.

The counts of single cases add up, so a fold keeps its own (``confusion.json``) and a
cross-validation pools them.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxseg.data.reading import read_label
from voxseg.data.volume import Volume
from voxseg.documents import refuse_newer, write_document
from voxseg.engine.scheme import Scheme, scheme_from_json
from voxseg.errors import DataError
from voxseg.metrics.case import ClassScores, score_case
from voxseg.metrics.confusion import Confusion, count_confusion, occurring_values
from voxseg.metrics.instances import Instances, count_instances
from voxseg.metrics.summary import class_name, mean_of_defined
from voxseg.schemas import CONFUSION as FORM

CONFUSION = "confusion.json"
"""What a fold keeps; only one of photographs has it."""

Label = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class PixelCounts:
    """What is counted of one or more photographs."""

    confusion: Confusion
    instances: Instances | None
    """None if a case has no map of objects."""
    ignored: int
    """Pixels that do not count."""
    cases: int = 1

    def __add__(self, other: "PixelCounts") -> "PixelCounts":
        """Add the counts of other cases."""
        both = None
        if self.instances is not None and other.instances is not None:
            both = self.instances + other.instances
        return PixelCounts(
            self.confusion + other.confusion,
            both,
            self.ignored + other.ignored,
            self.cases + other.cases,
        )


@dataclass(frozen=True)
class PooledClass:
    """One class over all pixels; NaN where a score is undefined."""

    name: str
    label: int
    iou: float
    accuracy: float
    """Share of its true pixels that were predicted as it."""
    iiou: float
    """Instance-level IoU; NaN without a map of objects."""
    true_pixels: int
    predicted_pixels: int
    category: str = ""
    colour: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class PooledCategory:
    """Classes merged into one, over all pixels."""

    name: str
    iou: float
    iiou: float


@dataclass(frozen=True)
class Pooled:
    """Scores over all pixels of all cases."""

    classes: tuple[PooledClass, ...]
    categories: tuple[PooledCategory, ...]
    """Empty where the data set has none."""
    pixel_accuracy: float
    frequency_weighted_iou: float
    cases: int
    pixels: int
    """That count."""
    ignored_pixels: int
    unknown_pixels: int
    """That were predicted as a value which is no class: misses."""

    @property
    def mean_iou(self) -> float:
        """The headline: over the classes that are in a truth or a prediction."""
        return mean_of_defined(one.iou for one in self.classes)

    @property
    def mean_accuracy(self) -> float:
        """Over the classes that have true pixels."""
        return mean_of_defined(one.accuracy for one in self.classes)

    @property
    def mean_iiou(self) -> float:
        """Over the classes with objects; NaN where there are none."""
        return mean_of_defined(one.iiou for one in self.classes)

    @property
    def mean_category_iou(self) -> float:
        """NaN without categories."""
        return mean_of_defined(one.iou for one in self.categories)

    @property
    def mean_category_iiou(self) -> float:
        """NaN without categories all of whose classes have objects."""
        return mean_of_defined(one.iiou for one in self.categories)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        means = ("mean_iou", "mean_accuracy", "mean_iiou", "mean_category_iou",
                 "mean_category_iiou")  # fmt: skip
        return {**{name: getattr(self, name) for name in means}, **asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Pooled":
        """Read what ``to_json`` returned, undefined numbers as None.

        Raises:
            ValueError, KeyError, TypeError: It is something else.
        """
        return cls(
            tuple(PooledClass(**_defined(one)) for one in content["classes"]),
            tuple(PooledCategory(**_defined(one)) for one in content["categories"]),
            _number(content["pixel_accuracy"]),
            _number(content["frequency_weighted_iou"]),
            *(int(content[k]) for k in ("cases", "pixels", "ignored_pixels", "unknown_pixels")),
        )


def score_label(
    label: Label,
    truth: Volume,
    scheme: Scheme,
    *,
    labels: Sequence[int] | None = None,
    instances: Path | None = None,
    tolerance_mm: float = 1.0,
) -> tuple[dict[int, ClassScores], PixelCounts | None]:
    """Score a predicted label map, and count the pixels of a photograph.

    Args:
        label: (X, Y, Z) integer class values on the truth's grid; of a photograph (H, W, 1).
        truth: The true label map.
        scheme: Classes and ignored values.
        labels: Classes to give scores of the case for; by default the scheme's.
        instances: Map of the truth's objects, for iIoU.
        tolerance_mm: For surface Dice.

    Returns:
        Class value -> scores, and the counts of a photograph; None of a volume.

    Raises:
        DataError: The truth holds a value that is neither a class nor ignored, or the map of
            objects cannot be read or has another size.
    """
    wanted = scheme.labels if labels is None else labels
    label = label.astype(np.int32, copy=False)
    spacing = None if scheme.is_images else truth.spacing
    scores = score_case(label, truth.array, wanted, spacing, tolerance_mm, ignore=scheme.ignore)
    if not scheme.is_images:
        return scores, None
    return scores, _count(label, truth, scheme, instances)


def pool(counts: PixelCounts, scheme: Scheme, labels: Iterable[int] | None = None) -> Pooled:
    """Turn counts into scores.

    Args:
        counts: Of all cases.
        scheme: What they were counted with.
        labels: Classes to score; by default all. The pixels of the others count all the same.
    """
    confusion = counts.confusion
    wanted = sorted(set(confusion.labels) & set(confusion.labels if labels is None else labels))
    iou, accuracy = confusion.class_iou(), confusion.class_accuracy()
    objects = counts.instances
    iiou = objects.class_iiou(confusion, scheme.sizes) if objects else {}
    of_category = (
        objects.category_iiou(confusion, scheme.categories, scheme.sizes) if objects else {}
    )
    classes = []
    for label in wanted:
        _, predicted, true = confusion.of((label,))
        name, category = class_name(label, scheme.names), scheme.categories.get(label, "")
        numbers = (iou[label], accuracy[label], iiou.get(label, math.nan))
        colour = scheme.colours.get(label)
        classes.append(PooledClass(name, label, *numbers, true, predicted, category, colour))
    categories = confusion.category_iou(scheme.categories)
    return Pooled(
        tuple(classes),
        tuple(PooledCategory(k, v, of_category.get(k, math.nan)) for k, v in categories.items()),
        confusion.pixel_accuracy,
        confusion.frequency_weighted_iou,
        counts.cases,
        confusion.pixels,
        counts.ignored,
        confusion.unknown,
    )


def write_counts(path: Path, counts: PixelCounts, scheme: Scheme) -> None:
    """Write the counts of a fold.

    Raises:
        VoxsegError: It cannot be written.
    """
    content = {
        "confusion": counts.confusion.to_json(),
        "instances": None if counts.instances is None else counts.instances.to_json(),
        "ignored_pixels": counts.ignored,
        "cases": counts.cases,
        "scheme": asdict(scheme),
    }
    write_document(path, FORM, content)


def read_counts(path: Path) -> tuple[PixelCounts, Scheme]:
    """Read the counts of a fold, and what they were counted with.

    Raises:
        DataError: The file is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        refuse_newer(content, FORM, path)
        stored = content["instances"]
        counts = PixelCounts(
            Confusion.from_json(content["confusion"]),
            None if stored is None else Instances.from_json(stored),
            int(content["ignored_pixels"]),
            int(content["cases"]),
        )
        return counts, scheme_from_json(content["scheme"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error}); score the fold again") from None


def merge_counts(run: Path, folds: int) -> Pooled | None:
    """Pool the folds of a cross-validation; None of volumes, and if a fold kept no counts."""
    paths = [run / f"fold-{number}" / CONFUSION for number in range(folds)]
    if not paths or not all(path.is_file() for path in paths):
        return None
    first, *others = (read_counts(path) for path in paths)
    return pool(sum((counts for counts, _ in others), first[0]), first[1])


def _count(label: Label, truth: Volume, scheme: Scheme, instances: Path | None) -> PixelCounts:
    true = set(occurring_values(truth.array))
    classes = scheme.labels
    if not classes:
        classes = tuple(true.union(occurring_values(label)) - set(scheme.ignore))
    strange = true - {*classes, *scheme.ignore}
    if strange:
        values = ", ".join(map(str, sorted(strange)))
        raise DataError(
            f"{truth.path} holds {values}, which the data set's classes do not have; leave such "
            "pixels out with --ignore, or check the file"
        )
    confusion = count_confusion(label, truth.array, classes, scheme.ignore)
    objects = None
    if instances is not None and scheme.with_objects:
        ids = read_label(instances)
        if ids.shape != truth.shape:
            raise DataError(f"{instances} and {truth.path} differ in size; restore the originals")
        objects = count_instances(label, ids.array, scheme.with_objects, scheme.categories)
    return PixelCounts(confusion, objects, truth.array.size - confusion.pixels)


def _defined(row: Mapping[str, Any]) -> dict[str, Any]:
    """Turn null back into NaN, and lists into tuples."""
    scores = {key: _number(row[key]) for key in ("iou", "accuracy", "iiou") if key in row}
    colour = {"colour": tuple(row["colour"])} if row.get("colour") else {}
    return {**row, **scores, **colour}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
