"""Find photographs that are sorted into a folder for each class.

Understood: ``CLASS/IMG`` and, with the set's own parts (``train``, ``val``, ``test``),
``PART/CLASS/IMG``, which is ImageNet's arrangement; pictures may lie in a folder ``images`` inside
that of their class. A file ``classes.json`` beside the folders, or beside the parts, gives them
names for people: ``{"FOLDER": "name"}``. A part ``test`` whose pictures are not sorted is
unlabelled, as is a folder ``unlabelled``.

Photographs and their masks in two folders look alike, so folders with a word for either, pictures
with a word for masks, and two folders whose pictures share their names are none of classes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from voxseg.data.case_lists import parse_json
from voxseg.data.cases import Dataset
from voxseg.data.folders import UNLABELLED_FOLDERS, files_below, subfolders
from voxseg.data.image_layouts import IMAGE_FOLDERS, LABEL_FOLDERS, PART_FOLDERS
from voxseg.data.names import case_name, is_image_file
from voxseg.data.pairing import is_marked_label, name_cases, single_sources
from voxseg.errors import DataError

NAMES_FILE = "classes.json"
_INSIDE = "images"  # in the folder of a class
_OTHER_WORDS = frozenset({*IMAGE_FOLDERS, *LABEL_FOLDERS, *UNLABELLED_FOLDERS})


@dataclass(frozen=True)
class _Class:
    """The folder of one class in one part."""

    folder: Path
    part: str
    """Name of the folder of the part, "" for none."""
    pictures: tuple[Path, ...]


def find_class_folders(root: Path) -> Dataset | None:
    """Find the photographs below a folder, each with its class.

    Args:
        root: folder with pictures in it, no volumes.

    Returns:
        None if the folders are not those of classes.

    Raises:
        DataError: the folder of a class has no picture, a part has a class that the training part
            lacks, or the file of names cannot be used.
    """
    bare = [folder for folder in subfolders(root) if _is_bare(folder)]
    classes = _classes(root, bare)
    if not _are_classes(root, classes, bare):
        return None
    _refuse_empty(classes)
    _refuse_unknown(classes)
    names = _names(root, [one.folder.name for one in classes])
    classified = [(path, one) for one in classes for path in one.pictures]
    waiting = [path for folder in bare for path in _pictures_below(folder)]
    # All are named together, as where classes are not asked for.
    everything = name_cases(single_sources([*(path for path, _ in classified), *waiting], root), {})
    cases, categories, parts = [], Counter[str](), dict[str, list[str]]()
    for case, (_, one) in zip(everything, classified, strict=False):
        category = names[one.folder.name]
        categories[category] += 1
        cases.append(replace(case, task="classification", category=category))
        part = PART_FOLDERS.get(one.part.lower(), "")
        parts.setdefault(part, []).append(case.case_id)
    return Dataset(
        "a folder for each class" if "" in parts else "parts with a folder for each class",
        tuple(cases),
        {},
        tuple(everything[len(cases) :]),
        (_counted(categories),),
        parts={} if "" in parts else {part: tuple(sorted(ids)) for part, ids in parts.items()},
    )


def _counted(categories: Mapping[str, int]) -> str:
    """Say how many photographs the classes have."""
    fewest, most = min(categories.values()), max(categories.values())
    each = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    return f"{len(categories)} classes of {each} photographs each"


def _is_bare(folder: Path) -> bool:
    """Whether the pictures of a folder are to be classified: they are not sorted."""
    name = folder.name.lower()
    if name in UNLABELLED_FOLDERS:
        return True
    inside = [one for one in subfolders(folder) if one.name.lower() not in IMAGE_FOLDERS]
    return PART_FOLDERS.get(name) == "test" and not inside


def _classes(root: Path, bare: Sequence[Path]) -> list[_Class]:
    """Return what may be the folders of classes, in the parts of ``root`` or in itself."""
    tops = [folder for folder in subfolders(root) if folder not in bare]
    parts = [folder for folder in tops if folder.name.lower() in PART_FOLDERS]
    if not parts:
        return [_class(folder, "") for folder in tops]
    return [_class(folder, part.name) for part in parts for folder in subfolders(part)]


def _class(folder: Path, part: str) -> _Class:
    inside = folder / _INSIDE
    own = inside if inside.is_dir() else folder
    pictures = sorted(path for path in own.iterdir() if path.is_file() and is_image_file(path))
    return _Class(folder, part, tuple(pictures))


def _are_classes(root: Path, classes: Sequence[_Class], bare: Sequence[Path]) -> bool:
    """Whether all pictures lie in the folders of classes, which can be nothing else."""
    filled = {one.folder.name for one in classes if one.pictures}
    if len(filled) < 2 or any(name.lower() in _OTHER_WORDS for name in filled):
        return False
    sorted_ones = {path for one in classes for path in one.pictures}
    apart = {path for folder in bare for path in _pictures_below(folder)}
    if set(_pictures_below(root)) != sorted_ones | apart:
        return False
    if _names_file(root).is_file():
        return True
    return not any(is_marked_label(path) for path in sorted_ones) and not _are_pairs(classes)


def _are_pairs(classes: Sequence[_Class]) -> bool:
    """Whether two folders hold photographs and their masks.

    Every picture of one is then called as one of the other, perhaps with something behind.
    """
    if len(classes) != 2:
        return False
    fewer, more = sorted(({case_name(p) for p in one.pictures} for one in classes), key=len)

    def has_partner(name: str) -> bool:
        return name in more or any(
            longer.startswith((f"{shorter}_", f"{shorter}-", f"{shorter}."))
            for other in more
            for shorter, longer in ((name, other), (other, name))
        )

    return all(has_partner(name) for name in fewer)


def _pictures_below(folder: Path) -> list[Path]:
    return sorted(path for path in files_below(folder) if is_image_file(path))


def _refuse_empty(classes: Sequence[_Class]) -> None:
    empty = next((one.folder for one in classes if not one.pictures), None)
    if empty is not None:
        raise DataError(
            f"{empty} holds no picture, and the folders beside it are those of classes; add "
            "pictures of the class, or remove the folder"
        )


def _refuse_unknown(classes: Sequence[_Class]) -> None:
    """Refuse a part with a class that nothing is trained on."""
    trained = {one.folder.name for one in classes if PART_FOLDERS.get(one.part.lower()) == "train"}
    for one in classes:
        if trained and one.folder.name not in trained:
            raise DataError(
                f"{one.folder} is the folder of a class that the training part lacks; add it "
                "there, or remove it here"
            )


def _names_file(root: Path) -> Path:
    """Where names would be: beside the folders, or beside the part that ``root`` is."""
    own = root / NAMES_FILE
    is_part = not own.is_file() and root.name.lower() in PART_FOLDERS
    return root.parent / NAMES_FILE if is_part else own


def _names(root: Path, folders: Sequence[str]) -> Mapping[str, str]:
    """Return the class of each folder: as the file of names says, else as the folder is called."""
    path = _names_file(root)
    names = {folder: folder for folder in folders}
    if not path.is_file():
        return names
    content = parse_json(path)
    if not isinstance(content, dict) or not all(isinstance(one, str) for one in content.values()):
        raise DataError(f'{path} must be like {{"FOLDER": "name"}}; correct it, or remove it')
    names |= {folder: name for folder, name in content.items() if folder in names and name}
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise DataError(f"{path} calls two classes {twice[0]!r}; give each a name of its own")
    return names
