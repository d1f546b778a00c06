"""Which classes the cases of a set are scored for, and which pixels do not count.

Of a data set with known classes (``data/label_sets.py``) that is its benchmark's rule; a
cross-validation takes the classes of its networks. Else the classes are those that occur.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxseg.data.cases import Dataset
from voxseg.data.reading import read_label
from voxseg.errors import DataError
from voxseg.metrics.confusion import occurring_values
from voxseg.metrics.instances import CITYSCAPES_SIZES

VOID = 255
"""What masks of photographs hold where nothing is to be said, by custom since PASCAL VOC."""


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """How the cases of a set are scored."""

    is_images: bool = False
    labels: tuple[int, ...] = ()
    """Class values of the set; empty: those that occur."""
    ignore: tuple[int, ...] = ()
    """Values of the truth that count neither as right nor as wrong."""
    names: Mapping[int, str] = field(default_factory=dict)
    colours: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)
    """As the data set paints its classes; empty where nothing says it."""
    categories: Mapping[int, str] = field(default_factory=dict)
    """Coarser classes; empty where the set has none."""
    with_objects: tuple[int, ...] = ()
    """Classes whose objects are told apart."""
    sizes: Mapping[int, float] = field(default_factory=dict)
    """Pixels of the average object of a class, where a benchmark says it."""


def scheme_of(
    dataset: Dataset | None,
    *,
    is_images: bool | None = None,
    values: Sequence[int] = (),
    names: Mapping[int, str] | None = None,
    ignore: Sequence[int] | None = None,
) -> Scheme:
    """Say how the cases of ``dataset`` are scored.

    Args:
        dataset: None if nothing is known but the files.
        is_images: Whether the cases are photographs; by default the data set says it.
        values: Class values, as a network's; by default those of the data set's label set.
        names: By class value; by default the data set's.
        ignore: Values that do not count; by default the label set's.
    """
    known = dataset.label_set if dataset else None
    left_out = tuple(ignore if ignore is not None else known.ignore if known else ())
    classes = {one.value: one for one in known.classes} if known else {}
    labels = tuple(sorted(set(values or classes) - set(left_out)))
    found = {label: classes[label] for label in labels if label in classes}
    is_cityscapes = known is not None and "cityscapes" in known.name.lower()
    return Scheme(
        is_images=dataset.is_images if is_images is None and dataset else bool(is_images),
        labels=labels,
        ignore=left_out,
        names={
            **(dataset.class_names if dataset else {}),
            **(known.names if known else {}),
            **(names or {}),
        },
        colours={label: one.colour for label, one in found.items()},
        categories={label: one.category for label, one in found.items() if one.category},
        with_objects=tuple(label for label, one in found.items() if one.has_instances),
        sizes={
            label: CITYSCAPES_SIZES[one.name]
            for label, one in found.items()
            if is_cityscapes and one.name in CITYSCAPES_SIZES
        },
    )


def customary_ignore(truths: Iterable[Path]) -> tuple[int, ...]:
    """Tell whether masks of photographs that no label set explains leave pixels out.

    255 is left out where it stands beside two other values or more; in masks of 0 and 255 it is
    the class.

    Args:
        truths: All masks of the set; one that cannot be read says nothing.
    """
    found: set[int] = set()
    for path in truths:
        try:
            found |= set(occurring_values(read_label(path).array))
        except DataError:
            continue
    return (VOID,) if VOID in found and len(found) > 2 else ()


def scheme_from_json(content: Mapping[str, Any]) -> Scheme:
    """Read ``asdict`` of a scheme back from JSON, whose keys are texts.

    Raises:
        ValueError, KeyError, TypeError: It is something else.
    """

    def by_label(name: str, make: Callable[[Any], Any]) -> dict[int, Any]:
        return {int(label): make(value) for label, value in content[name].items()}

    return Scheme(
        is_images=bool(content["is_images"]),
        labels=tuple(content["labels"]),
        ignore=tuple(content["ignore"]),
        names=by_label("names", str),
        colours=by_label("colours", tuple),
        categories=by_label("categories", str),
        with_objects=tuple(content["with_objects"]),
        sizes=by_label("sizes", float),
    )
