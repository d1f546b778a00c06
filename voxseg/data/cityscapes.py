"""Cityscapes as its archives unpack: photographs by part and city, and masks of label ids.

Source: Cordts and others, *The Cityscapes dataset for semantic urban scene understanding*, CVPR
2016. ``leftImg8bit/PART/CITY/X_leftImg8bit.png`` with ``gtFine/PART/CITY/X_gtFine_labelIds.png``
and ``X_gtFine_instanceIds.png``; the masks of ``test`` are dummies, so its photographs count as
unlabelled.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from voxseg.data.cases import Case, Dataset
from voxseg.data.folders import files_below, subfolder, subfolders
from voxseg.data.label_sets import CITYSCAPES
from voxseg.errors import DataError

_IMAGES = ("leftImg8bit", "leftImg8bit_trainvaltest/leftImg8bit")
_LABELS = ("gtFine", "gtFine_trainvaltest/gtFine")
_IMAGE_ENDING, _LABEL_ENDING = "_leftImg8bit.png", "_gtFine_labelIds.png"
_INSTANCE_ENDING = "_gtFine_instanceIds.png"
_ASIDE = re.compile(r"_(gtFine_(?!labelIds|instanceIds)\w+\.\w+|gtCoarse_\w+\.\w+)$")
_PARTS = ("train", "val", "test")
_UNLABELLED = "test"


@dataclass(frozen=True)
class _City:
    """The files of one city in one part."""

    part: str
    name: str
    cases: tuple[Case, ...]
    labels_at: Path


def find_cityscapes(root: Path, *, need_labels: bool) -> Dataset | None:
    """Find Cityscapes below the folder that holds ``leftImg8bit`` and ``gtFine``.

    Returns:
        None if ``root`` is no such folder.

    Raises:
        DataError: Labels are needed and a city or a photograph lacks them, or a label lacks its
            photograph.
    """
    images_at, labels_at = subfolder(root, _IMAGES), subfolder(root, _LABELS)
    if images_at is None:
        return None
    cities = list(_cities(images_at, labels_at or root / "gtFine"))
    if not any(city.cases for city in cities):
        return None  # other names, such as those of its foggy or rainy versions
    if labels_at is None and need_labels:
        raise DataError(f"{root} holds leftImg8bit but no gtFine; unpack gtFine_trainvaltest.zip")
    for city in cities if need_labels else ():
        _refuse_lacking(city)
    cases = [case for city in cities for case in city.cases]
    if need_labels and labels_at is not None:
        _refuse_orphans(labels_at, {case.label for case in cases})
    part_of = {case.case_id: city.part for city in cities for case in city.cases}
    waiting = [case for case in cases if need_labels and part_of[case.case_id] == _UNLABELLED]
    ids = set(waiting)
    by_part = {
        part: tuple(sorted(one for one, its in part_of.items() if its == part)) for part in _PARTS
    }
    return Dataset(
        "Cityscapes",
        tuple(case for case in cases if case not in ids),
        CITYSCAPES.names,
        tuple(waiting),
        notes=tuple(_notes(root, images_at, labels_at)),
        parts={part: ids for part, ids in by_part.items() if ids},
        label_set=CITYSCAPES,
    )


def _cities(images_at: Path, labels_at: Path) -> Iterator[_City]:
    for part in _PARTS:
        if not (images_at / part).is_dir():
            continue
        for folder in subfolders(images_at / part):
            place = labels_at / part / folder.name
            names = sorted(
                path.name.removesuffix(_IMAGE_ENDING)
                for path in folder.iterdir()
                if path.name.endswith(_IMAGE_ENDING) and not path.name.startswith(".")
            )
            cases = [_case(name, folder, place, part) for name in names]
            yield _City(part, folder.name, tuple(cases), place)


def _case(name: str, images_at: Path, labels_at: Path, part: str) -> Case:
    label, instances = labels_at / f"{name}{_LABEL_ENDING}", labels_at / f"{name}{_INSTANCE_ENDING}"
    has_label = part != _UNLABELLED and label.is_file()
    return Case(
        name,
        (images_at / f"{name}{_IMAGE_ENDING}",),
        label if has_label else None,
        instances if has_label and instances.is_file() else None,
    )


def _refuse_lacking(city: _City) -> None:
    bare = [case for case in city.cases if case.label is None]
    if city.part == _UNLABELLED or not bare:
        return
    if len(bare) == len(city.cases):
        raise DataError(
            f"the city {city.name} of Cityscapes' part {city.part} has {len(bare)} photographs but "
            f"no *{_LABEL_ENDING} in {city.labels_at}; unpack gtFine_trainvaltest.zip again, or "
            "remove the city's photographs"
        )
    raise DataError(
        f"{len(bare)} of {len(city.cases)} photographs of the city {city.name} (part {city.part}) "
        f"lack their mask, the first {city.labels_at / bare[0].case_id}{_LABEL_ENDING}; unpack "
        "gtFine_trainvaltest.zip again, or remove the photographs"
    )


def _refuse_orphans(labels_at: Path, used: set[Path | None]) -> None:
    parts = [part for part in _PARTS if part != _UNLABELLED]
    orphans = [
        path
        for part in parts
        for path in sorted((labels_at / part).glob(f"*/*{_LABEL_ENDING}"))
        if path not in used and not path.name.startswith(".")
    ]
    if orphans:
        raise DataError(
            f"{len(orphans)} masks of Cityscapes lack their photograph, the first {orphans[0]}; "
            "unpack leftImg8bit_trainvaltest.zip again, or remove the masks"
        )


def _notes(root: Path, images_at: Path, labels_at: Path | None) -> Iterator[str]:
    """Tell what was left aside."""
    others = [folder.name for folder in subfolders(images_at) if folder.name not in _PARTS]
    if others:
        yield f"left aside: the parts {', '.join(others)}, which have no fine labels"
    if labels_at is not None:
        endings = (_ASIDE.search(path.name) for path in files_below(labels_at))
        counts = Counter(match[1] for match in endings if match)
        for ending, count in sorted(counts.items()):
            yield f"left aside: {count} files *_{ending} (voxseg reads labelIds and instanceIds)"
    if (root / "gtCoarse").is_dir():
        yield "left aside: gtCoarse, the coarse labels"
