"""PASCAL VOC 2012 as its archive unpacks, alone or with SBD's further masks.

Source: Everingham and others, *The PASCAL visual object classes challenge*, IJCV 111, 2015;
Hariharan and others, *Semantic contours from inverse detectors* (SBD), ICCV 2011.
``trainaug`` is VOC's train with SBD's train and val, without VOC's val: 10,582 photographs. VOC's
own mask of a photograph comes before SBD's. SBD is found as ``SegmentationClassAug`` in VOC's
folder (PNG), else as its own archive beside (``benchmark_RELEASE/dataset`` or ``SBD``, MATLAB).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxseg.data.cases import Case, Dataset
from voxseg.data.folders import subfolder
from voxseg.data.label_sets import VOC
from voxseg.errors import DataError

VOC_MASKS = ("SegmentationClass", "SegmentationClassAug")
"""Folders of VOC's masks, its own and those made of SBD's."""

_VOC_PLACES = ("VOC2012", "VOCdevkit/VOC2012")
_SBD_PLACES = ("benchmark_RELEASE/dataset", "SBD/benchmark_RELEASE/dataset", "SBD/dataset", "SBD")
_AUG_LISTS = ("trainaug.txt", "train_aug.txt")


@dataclass(frozen=True)
class _Masks:
    """Where the masks of SBD lie."""

    folder: Path
    ending: str
    ids: tuple[str, ...]
    """Photographs that have one."""
    what: str


def find_voc(root: Path, *, need_labels: bool) -> Dataset | None:
    """Find PASCAL VOC 2012 in ``root``, ``root/VOC2012`` or ``root/VOCdevkit/VOC2012``.

    Returns:
        None if ``root`` is no such folder. Parts: ``train`` (with SBD, trainaug), ``val`` and
        ``trainval`` (VOC's own train and val); with SBD also ``train_voc``, VOC's own train.

    Raises:
        DataError: A list names a photograph that is not there or, if labels are needed, one without
            a mask.
    """
    places = (root, *(root / name for name in _VOC_PLACES))
    voc = next((place for place in places if (place / "JPEGImages").is_dir()), None)
    if voc is None or not (voc / "SegmentationClass").is_dir():
        return None
    lists = voc / "ImageSets" / "Segmentation"
    train, val, test = (_ids(lists / f"{name}.txt") for name in ("train", "val", "test"))
    trainval = tuple(dict.fromkeys((*train, *val))) or _ids(lists / "trainval.txt")
    if not trainval:
        trainval = tuple(sorted(path.stem for path in (voc / "SegmentationClass").glob("*.png")))
    more = _sbd(voc)
    aug = () if more is None else _without(dict.fromkeys((*train, *more.ids)), val)
    ids = tuple(dict.fromkeys((*trainval, *aug)))
    if not all(map(is_voc_name, ids)):
        return None  # somebody else's data in the same folders
    sbd_images = None if more is None else more.folder.parent / "img"
    cases = [_case(name, voc, more, sbd_images) for name in ids]
    if need_labels:
        _refuse_lacking(cases, voc)
    waiting = [_case(name, voc, None, None) for name in _without(dict.fromkeys(test), ids)]
    parts = {"train": aug or train, "val": val, "trainval": trainval}
    if aug:
        parts["train_voc"] = train
    return Dataset(
        "PASCAL VOC 2012" if more is None else f"PASCAL VOC 2012 with {more.what}",
        (*cases, *(() if need_labels else waiting)),
        VOC.names,
        tuple(waiting) if need_labels else (),
        notes=tuple(_notes(voc, more, len(aug), len(train))),
        parts={
            **{part: tuple(sorted(names)) for part, names in parts.items() if names and val},
            **({"test": tuple(case.case_id for case in waiting)} if waiting else {}),
        },
        label_set=VOC,
    )


def is_voc_name(name: str) -> bool:
    """Tell whether a photograph is called as VOC calls its own, year and number."""
    return bool(re.fullmatch(r"\d{4}_\d{6}", name))


def _case(name: str, voc: Path, more: _Masks | None, sbd_images: Path | None) -> Case:
    image = voc / "JPEGImages" / f"{name}.jpg"
    if not image.is_file() and sbd_images is not None:
        image = sbd_images / f"{name}.jpg"
    if not image.is_file():
        raise DataError(
            f"the lists of {voc} name {name}, but there is no {voc / 'JPEGImages' / name}.jpg; "
            "unpack the archive again, or take the name out of the list"
        )
    masks = [voc / "SegmentationClass" / f"{name}.png"]
    if more is not None:
        masks.append(more.folder / f"{name}{more.ending}")
    return Case(name, (image,), next((path for path in masks if path.is_file()), None))


def _refuse_lacking(cases: Sequence[Case], voc: Path) -> None:
    bare = [case for case in cases if case.label is None]
    if bare:
        raise DataError(
            f"{len(bare)} of {len(cases)} photographs of {voc} lack their mask, the first "
            f"{voc / 'SegmentationClass' / bare[0].case_id}.png; unpack the archive again, or take "
            "them out of the lists"
        )


def _sbd(voc: Path) -> _Masks | None:
    folder = voc / VOC_MASKS[1]
    if folder.is_dir():
        lists = voc / "ImageSets" / "Segmentation"
        listed = next((ids for name in _AUG_LISTS if (ids := _ids(lists / name))), ())
        ids = listed or tuple(sorted(path.stem for path in folder.glob("*.png")))
        return _Masks(folder, ".png", ids, "SegmentationClassAug")
    above = (voc, voc.parent, voc.parent.parent)
    places = (subfolder(place, (name,)) for place in above for name in _SBD_PLACES)
    sbd = next((place for place in places if place is not None and (place / "cls").is_dir()), None)
    if sbd is None:
        return None
    ids = (*_ids(sbd / "train.txt"), *_ids(sbd / "val.txt"))
    if not ids:
        raise DataError(
            f"{sbd} holds SBD's masks but neither train.txt nor val.txt; unpack benchmark.tgz again"
        )
    return _Masks(sbd / "cls", ".mat", ids, f"SBD in {sbd}")


def _ids(path: Path) -> tuple[str, ...]:
    """Read the first word of each line; nothing if there is no such file."""
    if not path.is_file():
        return ()
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(line.split()[0] for line in lines if line.split())


def _without(names: dict[str, None], others: Sequence[str]) -> tuple[str, ...]:
    left_out = set(others)
    return tuple(name for name in names if name not in left_out)


def _notes(voc: Path, more: _Masks | None, num_aug: int, num_train: int) -> Iterator[str]:
    if more is not None:
        yield (
            f"{more.what} is there: the part train is trainaug, {num_aug} photographs, of which "
            f"{num_train} are VOC's own (the part train_voc)"
        )
    if (voc / "SegmentationObject").is_dir():
        yield "left aside: SegmentationObject, the masks of single objects"
