"""Find photographs and their masks in the arrangements that people keep them in.

Understood: Cityscapes, PASCAL VOC 2012 with or without SBD, CamVid as published, GTA-5; a folder of
images and one of masks (``images`` and ``masks`` or ``labels``, or two folders that are named),
each perhaps with folders ``train``, ``val`` and ``test``; those folders themselves with their masks
beside (``train`` and ``trainannot``, as SegNet's CamVid has it) or inside (``train/images`` and
``train/masks``); pairs by name in one folder (``X.jpg`` and ``X_mask.png``). The parts become
``Dataset.parts``. A part ``test`` without any mask is unlabelled.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from voxseg.data.camvid import find_camvid
from voxseg.data.cases import Dataset, TaskKind
from voxseg.data.cityscapes import find_cityscapes
from voxseg.data.folders import UNLABELLED_FOLDERS, files_below, subfolders
from voxseg.data.image_masks import read_mask
from voxseg.data.label_sets import GTA5
from voxseg.data.names import is_image_file
from voxseg.data.pairing import (
    Source,
    is_marked_label,
    name_cases,
    pair,
    refuse_unpaired,
    single_sources,
)
from voxseg.data.voc import find_voc
from voxseg.errors import DataError

IMAGE_FOLDERS = (
    "images", "image", "imgs", "img", "imagestr", "jpegimages", "photos", "pictures", "frames",
)  # fmt: skip
LABEL_FOLDERS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "annot", "segmentations",
    "segmentation", "segmentationclass", "groundtruth", "ground_truth", "gt", "labelstr",
)  # fmt: skip
PART_FOLDERS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_BESIDE = ("annot", "_annot", "_labels", "labels", "_masks", "masks", "_mask", "_label")
_GTA5_NAME = re.compile(r"\d{5}")
_GTA5_TRIED = 3  # masks whose values are looked at


@dataclass(frozen=True)
class _Place:
    """A folder of images with the folder of their masks."""

    images: Path
    labels: Path | None
    """None for masks that lie among the images."""
    part: str = ""
    """Name of the folder that makes it a part of the data set, such as ``train``."""


def find_photographs(root: Path, labels: Path | None, *, need_labels: bool) -> Dataset:
    """Find the photographs below a folder.

    Args:
        root: Folder with pictures in it, no volumes.
        labels: Folder of the masks, if apart from ``root``.
        need_labels: As for ``find_cases``.

    Raises:
        DataError: As ``find_cases``.
    """
    if labels is None:
        for find in (find_cityscapes, find_voc, find_camvid):
            dataset = find(root, need_labels=need_labels)
            if dataset is not None:
                return dataset
        layout, places = _places(root)
    elif labels.is_dir():
        layout, places = "two folders of pictures", [_Place(root, labels)]
    else:
        raise DataError(f"{root} is a folder and {labels} is none; give two folders, or two files")
    dataset = _paired(layout, places, need_labels)
    return _as_gta5(dataset) if labels is None else dataset


def _places(root: Path) -> tuple[str, list[_Place]]:
    """Tell how images and masks are kept apart below ``root``."""
    images, labels = folder_called(root, IMAGE_FOLDERS), folder_called(root, LABEL_FOLDERS)
    waiting = [
        _Place(folder, None, folder.name)
        for folder in subfolders(root)
        if folder.name.lower() in UNLABELLED_FOLDERS
    ]
    if images is not None:
        return "folders of images and masks", [_Place(images, labels), *waiting]
    places = []
    for folder in subfolders(root):
        if folder.name.lower() not in PART_FOLDERS:
            continue
        beside = [folder.with_name(folder.name + ending) for ending in _BESIDE]
        apart = next((place for place in beside if place.is_dir()), None)
        inside = folder_called(folder, IMAGE_FOLDERS), folder_called(folder, LABEL_FOLDERS)
        if apart is not None:
            places.append(_Place(folder, apart, folder.name))
        elif inside[0] is not None:
            places.append(_Place(inside[0], inside[1], folder.name))
        else:
            places.append(_Place(folder, None, folder.name))
    if places:
        return "parts of images and masks", [*places, *waiting]
    return "pairs of pictures", [_Place(root, None)]


def folder_called(root: Path, names: Sequence[str]) -> Path | None:
    """Return the folder in ``root`` with the first of these names, in any case."""
    found = {folder.name.lower(): folder for folder in subfolders(root)}
    return next((found[name] for name in names if name in found), None)


def _paired(layout: str, places: Sequence[_Place], need_labels: bool) -> Dataset:
    """Pair the images of every place with its masks, and tell the parts."""
    sources: list[Source] = []
    found: dict[int, Path] = {}
    orphans: list[Path] = []
    for place in places:
        here, pairs, alone = _pairs(place, need_labels)
        if place.part:
            here = [replace(one, folder=Path(place.part, one.folder)) for one in here]
        found.update({len(sources) + index: path for index, path in pairs.items()})
        sources += here
        orphans += alone
    return assembled(layout, sources, found, orphans, need_labels=need_labels)


def assembled(
    layout: str,
    sources: Sequence[Source],
    found: dict[int, Path],
    orphans: Sequence[Path],
    *,
    need_labels: bool,
    label_ending: str = "_mask.png",
    task: TaskKind = "segmentation",
) -> Dataset:
    """Make a data set of photographs, and tell its parts by their outermost folders.

    Args:
        layout: what was recognised.
        sources: photographs.
        found: the label of each by its index.
        orphans: labels without a photograph.
        need_labels: as for ``find_cases``.
        label_ending: what the name of a label that is missing would end in, for the message.
        task: what labels are about.

    Raises:
        DataError: a photograph lacks its label or a label its photograph.
    """
    parts = [_part(source) for source in sources]
    tested = [index for index in found if parts[index] == "test"]
    is_apart = [
        any(name.lower() in UNLABELLED_FOLDERS for name in source.folder.parts)
        for source in sources
    ]
    is_bare = [
        apart or (part == "test" and not tested)
        for apart, part in zip(is_apart, parts, strict=True)
    ]
    needed = [index for index, bare in enumerate(is_bare) if not bare]
    again = {place: found[index] for place, index in enumerate(needed) if index in found}
    kept = [sources[index] for index in needed]
    refuse_unpaired(kept, again, orphans, need_labels, label_ending)
    cases = [replace(case, task=task) for case in name_cases(sources, found)]
    by_part: dict[str, list[str]] = {}
    for case, part, apart in zip(cases, parts, is_apart, strict=True):
        if not apart:
            by_part.setdefault(part, []).append(case.case_id)
    is_waiting = [bare and need_labels for bare in is_bare]
    return Dataset(
        layout if found else "a folder of pictures",
        tuple(case for case, waits in zip(cases, is_waiting, strict=True) if not waits),
        {},
        tuple(case for case, waits in zip(cases, is_waiting, strict=True) if waits),
        parts={} if "" in by_part else {part: tuple(sorted(by_part[part])) for part in by_part},
    )


def _pairs(place: _Place, need_labels: bool) -> tuple[list[Source], dict[int, Path], list[Path]]:
    """Return a place's images, the mask of each by its index, and masks without an image."""
    files = sorted(path for path in files_below(place.images) if is_image_file(path))
    if place.labels is None:
        labels = [path for path in files if is_marked_label(path)]
        images = [path for path in files if not is_marked_label(path)]
    else:
        images = files
        labels = sorted(path for path in files_below(place.labels) if is_image_file(path))
    sources = single_sources(images, place.images)
    found, orphans = pair(
        sources,
        labels,
        place.labels or place.images,
        is_apart=place.labels is not None,
        is_strict=need_labels,
    )
    if place.labels is None and not need_labels:  # nothing that they could be a mask of
        sources += single_sources(orphans, place.images)
    return sources, found, orphans


def _part(source: Source) -> str:
    """Return which part a source's outermost folder names, "" for none."""
    return PART_FOLDERS.get(source.folder.parts[0].lower(), "") if source.folder.parts else ""


def _as_gta5(dataset: Dataset) -> Dataset:
    """Recognise GTA-5: names of five digits, and masks with ids of Cityscapes.

    Other data sets have such names, too, so the first masks must hold road (7) and, in one of them,
    ids from 20 up, and none beyond 34.
    """
    cases = [case for case in dataset.cases if case.label is not None]
    if not cases or not all(_GTA5_NAME.fullmatch(case.case_id) for case in cases):
        return dataset
    values: set[int] = set()
    for case in cases[:_GTA5_TRIED]:
        if case.label is not None:
            values.update(np.unique(read_mask(case.label).array).tolist())
    known = {*GTA5.values, *GTA5.ignore}
    if not values <= known or 7 not in values or max(values) < 20:
        return dataset
    note = (
        "taken for GTA-5, by names of five digits and masks with ids of Cityscapes: its 19 classes "
        "are used, the other ids do not count (to read all values as classes, rename the files)"
    )
    return replace(dataset, layout="GTA-5", label_set=GTA5, notes=(*dataset.notes, note))
