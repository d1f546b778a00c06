"""Find photographs with surface normals in the arrangements that people keep them in.

Understood: NumPy archives with photograph and normals in one file (NYUv2); pairs by name,
``X.rgb.png`` (or ``X.jpg``) and ``X.normal.png``; a folder of images and one of normals (PNG or
archives), as ``images`` and ``normals`` or two folders that are named. Folders ``train``, ``val``
and ``test`` above or below these become ``Dataset.parts``.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from voxseg.data.archives import array_names
from voxseg.data.cases import Dataset
from voxseg.data.folders import files_below, subfolders
from voxseg.data.image_layouts import (
    IMAGE_FOLDERS,
    PART_FOLDERS,
    assembled,
    folder_called,
)
from voxseg.data.names import (
    case_name,
    is_archive_file,
    is_image_file,
    is_photograph_file,
    is_volume_file,
)
from voxseg.data.normals import is_coded_from_1
from voxseg.data.pairing import Source, pair, single_sources
from voxseg.errors import DataError

_NORMAL_FOLDERS = ("normals", "normal", "surface_normals", "surfacenormals")
_RGB = re.compile(r"\.(rgb|colou?r)\.\w+$", re.IGNORECASE)
_NORMAL_WORD = re.compile(r"[._-]normals?$", re.IGNORECASE)

_Place = tuple[Path, Path, str]  # images, normals, the part's folder


def find_normals(root: Path, normals: Path | None = None, *, need_labels: bool) -> Dataset | None:
    """Find the photographs with normals below a folder.

    Args:
        root: folder with pictures or archives in it.
        normals: folder of the normals, if apart from ``root``.
        need_labels: as for ``find_cases``.

    Returns:
        None if nothing there looks like normals.

    Raises:
        DataError: a photograph lacks its normals or normals their photograph.
    """
    if normals is not None:
        if not (root.is_dir() and normals.is_dir() and _is_of_normals(normals)):
            return None
        places = [(root, normals, "")]
        return _from_folders("two folders of photographs and normals", places, need_labels)
    if not root.is_dir():
        return None
    files = sorted(files_below(root))
    if any(is_volume_file(path) for path in files):
        return None
    files = [path for path in files if is_photograph_file(path)]
    places = _places(root)
    if places:
        return _from_folders("folders of photographs and normals", places, need_labels)
    if files and all(is_archive_file(path) for path in files):
        is_photograph = bool({"image", "normal"} & set(array_names(files[0])))
        return _from_archives(root, files, need_labels) if is_photograph else None
    is_apart = bool(files) and all(_RGB.search(path.name) for path in files)  # whatever they show
    if any(is_coded_from_1(path) for path in files) or (is_apart and not need_labels):
        pictures = [path for path in files if is_image_file(path)]
        return _by_name(root, pictures, need_labels)
    return None


def _is_of_normals(folder: Path) -> bool:
    """Tell whether a folder holds normals: by its name, its files' names, or its archives."""
    if folder.name.lower() in _NORMAL_FOLDERS:
        return True
    first = next((path for path in sorted(files_below(folder)) if is_photograph_file(path)), None)
    if first is None:
        return False
    return "normal" in array_names(first) if is_archive_file(first) else is_coded_from_1(first)


def _from_archives(root: Path, archives: Sequence[Path], need_labels: bool) -> Dataset:
    """Take every archive as a case; without need, those are cases too that have no normals."""
    found = {
        index: path
        for index, path in enumerate(archives)
        if need_labels or "normal" in array_names(path)
    }
    sources = single_sources(archives, root)
    return assembled(
        "archives of photographs and normals", sources, found, [],
        need_labels=need_labels, task="normals",
    )  # fmt: skip


def _places(root: Path) -> list[_Place]:
    """Return folders of images with their folders of normals, in ``root`` or in its parts."""
    places = []
    parts = [folder for folder in subfolders(root) if folder.name.lower() in PART_FOLDERS]
    for folder, part in ((root, ""), *((folder, folder.name) for folder in parts)):
        images, normals = (
            folder_called(folder, names) for names in ((*IMAGE_FOLDERS, "rgb"), _NORMAL_FOLDERS)
        )
        if images is not None and normals is not None:
            places.append((images, normals, part))
    return places


def _from_folders(layout: str, places: Sequence[_Place], need_labels: bool) -> Dataset:
    """Pair folders of images with folders of normals by the names of the files."""
    sources: list[Source] = []
    found: dict[int, Path] = {}
    orphans: list[Path] = []
    for images_at, normals_at, part in places:
        images, normals = (
            sorted(path for path in files_below(folder) if is_photograph_file(path))
            for folder in (images_at, normals_at)
        )
        here = [_unmarked(one) for one in single_sources(images, images_at)]
        labels = {path.with_name(f"{_name_of_normals(path)}.png"): path for path in normals}
        if len(labels) < len(normals):
            names = Counter(_name_of_normals(path) for path in normals)
            raise DataError(
                f"two files in {normals_at} are the normals of one photograph, "
                f"{names.most_common(1)[0][0]}; keep one of them"
            )
        pairs, alone = pair(here, list(labels), normals_at, is_apart=True, is_strict=need_labels)
        found |= {len(sources) + index: labels[path] for index, path in pairs.items()}
        orphans += [labels[path] for path in alone]
        sources += [replace(one, folder=Path(part, one.folder)) for one in here]
    return assembled(
        layout, sources, found, orphans,
        need_labels=need_labels, label_ending=".png", task="normals",
    )  # fmt: skip


def _by_name(root: Path, pictures: Sequence[Path], need_labels: bool) -> Dataset:
    """Pair ``X.rgb.png`` with ``X.normal.png``; where no file is called rgb, ``X.jpg`` with it."""
    normals = [path for path in pictures if is_coded_from_1(path)]
    others = [path for path in pictures if not is_coded_from_1(path)]
    photographs = [path for path in others if _RGB.search(path.name)] or others
    sources = [_unmarked(one) for one in single_sources(photographs, root)]
    places = {(source.folder, source.name): index for index, source in enumerate(sources)}
    found: dict[int, Path] = {}
    orphans = []
    for path in normals:
        index = places.get((path.parent.relative_to(root), _name_of_normals(path)))
        if index is None:
            orphans.append(path)
        elif index in found:
            raise DataError(
                f"two files are the normals of one photograph: {found[index]} and {path}; keep one "
                "of them"
            )
        else:
            found[index] = path
    dataset = assembled(
        "photographs and normals side by side", sources, found, orphans,
        need_labels=need_labels, label_ending=".normal.png", task="normals",
    )  # fmt: skip
    left = len(others) - len(photographs)
    note = f"pictures that are neither called rgb nor normal are left aside: {left}"
    return replace(dataset, notes=(*dataset.notes, note)) if left else dataset


def _unmarked(source: Source) -> Source:
    """Leave the word for photographs out of a case's name."""
    name = source.images[0].name
    return replace(source, name=_RGB.sub("", name)) if _RGB.search(name) else source


def _name_of_normals(path: Path) -> str:
    """Return the name of the photograph that normals belong to."""
    return _NORMAL_WORD.sub("", case_name(path))
