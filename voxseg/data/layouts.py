"""Find images and labels in the arrangements that people keep them in.

Understood: one folder with pairs by name, two folders, ``imagesTr``/``labelsTr`` (Medical
Segmentation Decathlon; nnU-Net with ``_0000`` channels), IBSR V2.0 under both of its namings, CSV
and JSON lists, and for prediction any folder of images, a single file or DICOM; photographs as
``image_layouts.py`` says, with surface normals as ``normal_layouts.py`` does, with boundaries as
``boundary_layouts.py`` and sorted by class as ``class_folders.py``. What could be read in two ways
is an error that says what was found.
Hidden files (macOS writes ``._x``) do not count.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from voxseg.data.boundary_layouts import find_boundary_maps
from voxseg.data.case_lists import read_class_names, read_csv, read_json
from voxseg.data.cases import Case, Dataset, TaskKind
from voxseg.data.class_folders import find_class_folders
from voxseg.data.dicom_cases import count_dicom, find_dicom
from voxseg.data.folders import (
    UNLABELLED_FOLDERS,
    check_exists,
    files_below,
    is_set_apart,
    subfolder,
)
from voxseg.data.image_classes import with_classes
from voxseg.data.image_layouts import find_photographs
from voxseg.data.names import (
    case_name,
    is_archive_file,
    is_case_file,
    is_image_file,
    is_volume_file,
)
from voxseg.data.normal_layouts import find_normals
from voxseg.data.normals import is_normals_file
from voxseg.data.pairing import (
    Source,
    channel_sources,
    is_marked_label,
    name_cases,
    pair,
    refuse_incomplete_channels,
    refuse_unpaired,
    single_sources,
)
from voxseg.errors import DataError

__all__ = ["Case", "Dataset", "find_cases"]

_IMAGE_FOLDERS = ("imagesTr", "images", "image", "imgs", "img")
_LABEL_FOLDERS = (
    "labelsTr", "labels", "label", "segmentations", "segs", "seg", "masks", "mask",
)  # fmt: skip
_IBSR = re.compile(r"^(IBSR_\d+)(?:_(.+))?$", re.IGNORECASE)
# In order of preference. IBSR's "fill" adds sulcal CSF that the other label and _seg lack.
_IBSR_IMAGES = (None, "ana_strip", "ana")
_IBSR_LABELS = ("seg", "segtri_ana", "segtri_fill_ana")
_IBSR_CLASSES = {0: "background", 1: "CSF", 2: "grey matter", 3: "white matter"}


def find_cases(
    root: Path, labels: Path | None = None, *, need_labels: bool = True, series: str = ""
) -> Dataset:
    """Find the cases of a data set.

    Args:
        root: Folder, CSV or JSON list, or a single image.
        labels: Folder (or file) of the labels, if apart from ``root``.
        need_labels: Whether every case must have a label, as training needs. Without, images
            alone are cases too, and a file counts as a label only if its image is there; so is a
            DICOM series.
        series: Which one of a DICOM folder; see ``dicom_series.choose_series``.

    Returns:
        Cases sorted by id. If labels are needed, images in folders called ``unlabelled`` or
        ``imagesTs`` are listed apart.

    Raises:
        DataError: Nothing is found, an image lacks its label or a label its image, or pairing is
            ambiguous.
    """
    root = Path(root)
    check_exists(root)
    if not need_labels and labels is None:
        recorded = find_dicom(root, series)
        if recorded is not None:
            return recorded
    if root.is_file() and labels is None:
        dataset = _listed_or_single(root, need_labels)
    else:
        dataset = _of_one_kind(root, None if labels is None else Path(labels), need_labels)
    dataset = _checked(dataset, root)
    has_masks = any(case.label is not None for case in dataset.cases)
    has_classes = dataset.is_images and dataset.task == "segmentation" and has_masks
    return with_classes(dataset, root) if has_classes else dataset


def _of_one_kind(root: Path, labels: Path | None, need_labels: bool) -> Dataset:
    """Find volumes or, where there are none, photographs: with normals, boundaries or masks."""
    found = find_normals(root, labels, need_labels=need_labels)
    if found is None and labels is None and root.is_dir():
        found = find_boundary_maps(root, need_labels=need_labels)
    if found is not None:
        return found
    files = [root] if root.is_file() else [path for path in files_below(root) if is_case_file(path)]
    pictures = sum(is_image_file(path) for path in files)
    if pictures == len(files) > 0 and not root.is_file():
        # Without need, a class is nothing that a picture has beside it.
        sorted_ones = find_class_folders(root) if need_labels and labels is None else None
        return sorted_ones or find_photographs(root, labels, need_labels=need_labels)
    try:
        return _volume_cases(root, labels, need_labels)
    except DataError as error:
        if not pictures or root.is_file():
            raise
        cause = str(error).rpartition("; ")[0] or str(error)
        raise DataError(
            f"{root} holds {len(files) - pictures} NIfTI volumes and {pictures} pictures, and the "
            f"volumes, which come first, cannot be used ({cause}); keep one kind in a folder, or "
            "list the cases in a CSV file"
        ) from None


def _volume_cases(root: Path, labels: Path | None, need_labels: bool) -> Dataset:
    return _folder(root, need_labels) if labels is None else _two_folders(root, labels, need_labels)


def _folder(root: Path, need_labels: bool) -> Dataset:
    parts = subfolder(root, _IMAGE_FOLDERS), subfolder(root, _LABEL_FOLDERS)
    if parts[0] is not None and (parts[1] is not None or not need_labels):
        dataset = _two_folders(parts[0], parts[1], need_labels)
        waiting = [
            folder
            for folder in sorted(root.iterdir())
            if folder.is_dir() and folder.name.lower() in UNLABELLED_FOLDERS
        ]
        more = [case for folder in waiting for case in _images_only(folder)]
        names = read_class_names(root / "dataset.json")
        return _with_unlabelled(replace(dataset, class_names=names), more, need_labels)
    files = _volumes(root)
    waiting_files = [path for path in files if is_set_apart(path, root)]
    files = [path for path in files if path not in set(waiting_files)]
    if files and all(_IBSR.match(case_name(path)) for path in files):
        dataset = _ibsr(files, need_labels)
        sources = [source for source, _, _ in _ibsr_cases(waiting_files)]
    else:
        dataset = _one_folder(root, files, need_labels)
        sources = single_sources(waiting_files, root)
    return _with_unlabelled(dataset, name_cases(sources, {}), need_labels)


def _two_folders(images_at: Path, labels_at: Path | None, need_labels: bool) -> Dataset:
    """Pair the images of one folder with the labels of another, or one file with another."""
    check_exists(images_at, labels_at)
    if images_at.is_file():
        if labels_at is None or not labels_at.is_file():
            raise DataError(
                f"{images_at} is a file and {labels_at} is none; give two files or two folders"
            )
        task: TaskKind = "normals" if is_normals_file(labels_at) else "segmentation"
        case = Case(case_name(images_at), (images_at,), labels_at, task=task)
        return Dataset("an image and its label", (case,), {})
    images, labels = _volumes(images_at), [] if labels_at is None else _volumes(labels_at)
    label_root = labels_at or images_at
    names = read_class_names(images_at.parent / "dataset.json")
    is_decathlon = images_at.name == "imagesTr"
    layout = "Medical Segmentation Decathlon" if is_decathlon else "two folders"
    sources = single_sources(images, images_at)
    channels = channel_sources(images, images_at)
    found, orphans = pair(sources, labels, label_root, is_apart=True, is_strict=need_labels)
    if channels is not None and not found and (labels or images_at.name.startswith("images")):
        layout, sources = "nnU-Net", channels
        found, orphans = pair(sources, labels, label_root, is_apart=True, is_strict=need_labels)
    elif not found:
        refuse_incomplete_channels(images, labels)
    refuse_unpaired(sources, found, orphans, need_labels)
    return Dataset(layout, tuple(name_cases(sources, found)), names)


def _one_folder(root: Path, files: Sequence[Path], need_labels: bool) -> Dataset:
    """Pair by name what lies in one folder and its subfolders."""
    labels = [path for path in files if is_marked_label(path)]
    images = [path for path in files if not is_marked_label(path)]
    sources = single_sources(images, root)
    found, orphans = pair(sources, labels, root, is_apart=False, is_strict=need_labels)
    channels = channel_sources(images, root)
    if channels is not None and not found:
        found, orphans = pair(channels, labels, root, is_apart=False, is_strict=need_labels)
        is_unclear = len(channels) == 1 < len(images) and not root.name.startswith("images")
        if not labels and is_unclear:
            raise DataError(
                f"{root} may hold one case of {len(images)} channels or {len(images)} cases; list "
                "them in a CSV file with the columns case,image,image2"
            )
        sources = channels if found or not labels else sources
    refuse_unpaired(sources, found, orphans, need_labels)
    if not need_labels and orphans:  # nothing that they could be a label of: images after all
        sources = [*sources, *single_sources(orphans, root)]
    layout = "a folder of pairs" if found else "a folder of images"
    return Dataset(layout, tuple(name_cases(sources, found)), {})


def _ibsr(files: Sequence[Path], need_labels: bool) -> Dataset:
    """Pair IBSR's files by subject, choosing among its images and labels."""
    entries = _ibsr_cases(files)
    sources = [source for source, _, _ in entries]
    found = {index: label for index, (_, label, _) in enumerate(entries) if label is not None}
    orphans = [label for source, label, _ in entries if label is not None and not source.images]
    refuse_unpaired(sources, found, orphans, need_labels)
    cases = [case for case in name_cases(sources, found) if case.images]
    left_aside = Counter(suffix for _, _, others in entries for suffix in others)
    notes = tuple(
        f"left aside: _{suffix} of {count} IBSR subjects (to use them, give a CSV list)"
        for suffix, count in sorted(left_aside.items())
    )
    return Dataset("IBSR", tuple(cases), _IBSR_CLASSES, notes=notes)


def _ibsr_cases(files: Sequence[Path]) -> list[tuple[Source, Path | None, list[str]]]:
    """Return image, label and the suffixes left aside of every subject."""
    by_subject: dict[str, dict[str | None, Path]] = {}
    for path in files:
        match = _IBSR.match(case_name(path))
        subject, suffix = (match[1].upper(), match[2]) if match else (case_name(path), None)
        kinds = by_subject.setdefault(subject, {})
        key = suffix.lower() if suffix else None
        if key in kinds:
            raise DataError(f"two files for one subject: {kinds[key]} and {path}; keep one of them")
        kinds[key] = path
    entries = []
    for subject, kinds in sorted(by_subject.items()):
        image = next((kind for kind in _IBSR_IMAGES if kind in kinds), "")
        label = next((kind for kind in _IBSR_LABELS if kind in kinds), "")
        others = [kind or "image" for kind in kinds if kind not in (image, label)]
        images = (kinds[image],) if image in kinds else ()
        entries.append((Source(subject, images, Path()), kinds.get(label), others))
    return entries


def _listed_or_single(path: Path, need_labels: bool) -> Dataset:
    suffix = path.suffix.lower()
    held_out: list[Case] = []
    names: dict[int, str] = {}
    if suffix in (".csv", ".tsv"):
        layout, cases = "a CSV list", read_csv(path)
    elif suffix == ".json":
        layout, (cases, held_out) = "a JSON list", read_json(path)
        names = read_class_names(path)
    elif not (is_case_file(path) or is_archive_file(path)):
        raise DataError(
            f"{path} is neither a .nii or .nii.gz volume, nor a picture (.png, .jpg, .tif, .bmp), "
            "nor a .csv or .json list; convert it, or give another file"
        )
    elif need_labels:
        raise DataError(
            f"{path} is one image without its label; give a folder with both, or a CSV list"
        )
    else:
        layout, cases = "a single image", [Case(case_name(path), (path,), None)]
    unlabelled = [case for case in cases if case.label is None] if need_labels else []
    labelled = [case for case in cases if case not in unlabelled]
    dataset = Dataset(layout, tuple(labelled), names)
    return _with_unlabelled(dataset, [*unlabelled, *held_out], need_labels)


def _checked(dataset: Dataset, root: Path) -> Dataset:
    """Sort by id and refuse an empty set, two kinds of images, or ids that occur twice."""
    if not dataset.cases:
        if dataset.unlabelled:
            raise DataError(
                f"{root} holds {len(dataset.unlabelled)} images but no labels; training needs "
                "both: name labels X_seg.nii.gz (X_mask.png), or give their folder"
            )
        raise DataError(_nothing_found(root))
    counts = Counter(case.case_id for case in dataset.cases)
    twice = [case_id for case_id, count in counts.items() if count > 1]
    if twice:
        first, second = [c.images[0] for c in dataset.cases if c.case_id == twice[0]][:2]
        raise DataError(
            f"two cases are called {twice[0]}: {first} and {second}; keep one, rename one, or name "
            "the cases in a CSV list"
        )
    pictures = [case.case_id for case in dataset.cases if case.is_image]
    bad = next((one for one in pictures if one in (".", "..") or set("/\\") & set(one)), None)
    if bad is not None:
        raise DataError(f"the case name {bad!r} in {root} cannot name a mask; leave out / and \\")
    if len({case.is_image for case in dataset.cases}) > 1:
        raise DataError(f"{root} lists volumes and photographs; give each kind a list of its own")
    return replace(
        dataset,
        cases=tuple(sorted(dataset.cases, key=lambda case: case.case_id)),
        unlabelled=tuple(sorted(dataset.unlabelled, key=lambda case: case.case_id)),
    )


def _nothing_found(root: Path) -> str:
    count = count_dicom(root) if root.is_dir() else 0
    if count:
        return (
            f"{root} holds {count} DICOM files, which have no labels; convert them to NIfTI "
            "(dcm2niix does), with a label for each image"
        )
    suffixes = Counter(
        "".join(path.suffixes[-2:]).lower() or "without suffix" for path in files_below(root)
    )
    found = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(3))
    return (
        f"{root} holds no .nii or .nii.gz image, no DICOM and no photograph (found: "
        f"{found or 'nothing'}); give a folder of NIfTI volumes or of pictures, or convert yours"
    )


def _images_only(folder: Path) -> list[Case]:
    images = _volumes(folder)
    sources = channel_sources(images, folder) or single_sources(images, folder)
    return name_cases(sources, {})


def _with_unlabelled(dataset: Dataset, more: Sequence[Case], need_labels: bool) -> Dataset:
    if need_labels:
        return replace(dataset, unlabelled=(*dataset.unlabelled, *more))
    return replace(dataset, cases=(*dataset.cases, *more))


def _volumes(root: Path) -> list[Path]:
    """Return the volumes below ``root``, sorted; nothing of hidden folders."""
    return sorted(path for path in files_below(root) if is_volume_file(path))
