"""Find photographs with boundaries: BSDS500 as it unpacks, or a folder of maps beside the images.

Source: Arbelaez, Maire, Fowlkes, Malik, *Contour detection and hierarchical image segmentation*,
TPAMI 33(5), 2011, for BSDS500's folders ``images`` and ``groundTruth``.
"""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from voxseg.data.boundaries import is_boundary_file, is_matlab_file
from voxseg.data.cases import Case, Dataset
from voxseg.data.folders import files_below, subfolder
from voxseg.data.names import is_image_file
from voxseg.errors import DataError

_PLACES = ("", "data", "BSDS500/data", "BSR/BSDS500/data")  # the last: as the archive unpacks
_MATLAB_FOLDERS = ("groundTruth", "groundtruth", "ground_truth")
_PICTURE_FOLDERS = ("boundaries", "boundary", "edges", "contours")
_PARTS = ("train", "val", "test")
_CLASSES = {0: "no boundary", 1: "boundary"}

_Key = tuple[str, ...]
"""Folders below the root and the name without its suffix."""


@dataclass(frozen=True)
class _Arrangement:
    """Where photographs and boundaries lie."""

    images: Path
    boundaries: Path
    layout: str


def find_boundary_maps(root: Path, *, need_labels: bool) -> Dataset | None:
    """Find photographs with boundaries: BSDS500, or ``images`` beside ``boundaries``.

    Understood: ``images`` and ``groundTruth`` (MATLAB files) in ``root`` or where BSDS500's archive
    has them below; ``images`` and ``boundaries`` (or ``edges``, ``contours``; PNGs of 0 and 255, or
    MATLAB files); in all of them folders ``train``, ``val`` and ``test``, which become parts.

    Args:
        root: A folder.
        need_labels: Whether every photograph must have boundaries, as training needs; a part
            ``test`` without any is unlabelled.

    Returns:
        None if ``root`` is no such folder.

    Raises:
        DataError: A photograph lacks its boundaries or boundaries their photograph.
    """
    found = _arrangement(root)
    if found is None:
        return None
    photographs = _by_name(found.images, is_image_file)
    drawn = _by_name(found.boundaries, is_boundary_file)
    strays = sorted(set(drawn) - set(photographs))
    if strays and need_labels:
        raise DataError(
            f"{len(strays)} boundaries without photograph, the first {drawn[strays[0]]}; add the "
            f"photograph to {found.images}, or remove the boundaries"
        )
    parts = {_part(key) for key in drawn}
    waiting = {key for key in photographs if _part(key) == "test" and "test" not in parts}
    bare = [key for key in photographs if key not in drawn and key not in waiting]
    if bare and need_labels:
        raise DataError(
            f"{len(bare)} of {len(photographs)} photographs without boundaries, the first "
            f"{photographs[bare[0]]}; put them into {found.boundaries} under the same name"
        )
    names = _named(list(photographs))
    cases = {
        key: Case(names[key], (photograph,), drawn.get(key), task="boundaries")
        for key, photograph in photographs.items()
    }
    by_part: dict[str, list[str]] = {}
    for key in cases:
        by_part.setdefault(_part(key), []).append(names[key])
    return Dataset(
        found.layout,
        tuple(case for key, case in cases.items() if not (need_labels and key in waiting)),
        _CLASSES,
        tuple(case for key, case in cases.items() if need_labels and key in waiting),
        parts={} if "" in by_part else {part: tuple(sorted(by_part[part])) for part in by_part},
    )


def _arrangement(root: Path) -> _Arrangement | None:
    """Recognise the folders by their names and what is in them."""
    for place in (root / name for name in _PLACES):
        images = place / "images"
        if not images.is_dir():
            continue
        truth = subfolder(place, _MATLAB_FOLDERS)
        if truth is not None and any(map(is_matlab_file, files_below(truth))):
            return _Arrangement(images, truth, "BSDS500")
        drawn = subfolder(place, _PICTURE_FOLDERS)
        if drawn is not None and any(map(is_boundary_file, files_below(drawn))):
            return _Arrangement(images, drawn, "folders of images and boundaries")
    return None


def _by_name(folder: Path, is_wanted: Callable[[Path], bool]) -> dict[_Key, Path]:
    """Return files by the folders that they lie in and their names without suffix.

    Raises:
        DataError: Two files differ in their suffix only.
    """
    found: dict[_Key, Path] = {}
    for path in sorted(filter(is_wanted, files_below(folder))):
        key = (*path.parent.relative_to(folder).parts, path.stem)
        if key in found:
            raise DataError(
                f"two files for one photograph: {found[key]} and {path}; keep one of them"
            )
        found[key] = path
    return found


def _part(key: _Key) -> str:
    """Return the part that a file's outermost folder names, "" for none."""
    return key[0] if len(key) > 1 and key[0] in _PARTS else ""


def _named(keys: Collection[_Key]) -> dict[_Key, str]:
    """Name cases after their files; where several share a name, after their folders as well."""
    counts = Counter(key[-1] for key in keys)
    return {key: key[-1] if counts[key[-1]] == 1 else "_".join(key) for key in keys}
