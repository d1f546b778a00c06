"""Walk through folders of data: files that are not hidden, and folders by their usual names."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from voxseg.errors import DataError

UNLABELLED_FOLDERS = frozenset({"unlabelled", "unlabeled", "imagests", "images_unlabelled"})
"""Names, in lower case, of folders whose images are meant to have no label."""


def check_exists(*places: str | os.PathLike[str] | None) -> None:
    """Refuse what is neither a file nor a folder; None is nothing to look for.

    Raises:
        DataError: There is nothing of that name.
    """
    for place in places:
        if place is not None and not Path(place).exists():
            raise DataError(f"there is no file or folder {place}; check the name")


def files_below(root: Path) -> Iterator[Path]:
    """Go through the files below ``root`` that are not hidden, through symbolic links too."""
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        # A link to a folder above would lead round and round.
        real = Path(folder).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(folder, name) for name in names if not name.startswith("."))
        yield from (path for path in paths if path.is_file())


def subfolder(root: Path, names: Sequence[str]) -> Path | None:
    """Return the first of the folders ``names`` that ``root`` has."""
    return next((root / name for name in names if (root / name).is_dir()), None)


def subfolders(root: Path) -> list[Path]:
    """Return the folders in ``root`` that are not hidden, sorted."""
    return sorted(
        path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def is_set_apart(path: Path, root: Path) -> bool:
    """Tell whether a file lies in a folder below ``root`` for images without label."""
    return any(part.lower() in UNLABELLED_FOLDERS for part in path.relative_to(root).parts[:-1])
