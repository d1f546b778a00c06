"""What a file's name says: a volume, a photograph, and the case it belongs to."""

import re
from pathlib import Path

_VOLUME = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_IMAGE = re.compile(r"\.(png|jpe?g|tiff?|bmp)$", re.IGNORECASE)
_ARCHIVE = re.compile(r"\.npz$", re.IGNORECASE)


def is_volume_file(path: Path) -> bool:
    """Tell whether the name is that of a NIfTI volume; hidden files (``._x.nii``) are not."""
    return bool(_VOLUME.search(path.name)) and not path.name.startswith(".")


def is_image_file(path: Path) -> bool:
    """Tell whether the name is that of a photograph or its mask: PNG, JPEG, TIFF or BMP."""
    return bool(_IMAGE.search(path.name)) and not path.name.startswith(".")


def is_archive_file(path: Path) -> bool:
    """Tell whether the name is that of a NumPy archive, which may hold a photograph."""
    return bool(_ARCHIVE.search(path.name)) and not path.name.startswith(".")


def is_photograph_file(path: Path) -> bool:
    """Tell whether the name is that of a picture, or of an archive in a photograph's place."""
    return is_image_file(path) or is_archive_file(path)


def is_case_file(path: Path) -> bool:
    """Tell whether the name is that of a volume or of a photograph."""
    return is_volume_file(path) or is_image_file(path)


def case_name(path: Path) -> str:
    """Return the file's name without ``.nii``, ``.nii.gz``, ``.npz`` or a picture's suffix."""
    return _ARCHIVE.sub("", _IMAGE.sub("", _VOLUME.sub("", path.name)))
