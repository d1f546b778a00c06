"""A viewer page of one image with masks and maps over it, from files.

What lies on another grid than the image is refused, or resampled where that is asked for. Names and
colours of labels: the table that is named, else ``labels.csv`` beside a mask, else their values.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from voxseg.data.dicom_cases import series_of
from voxseg.data.names import case_name, is_photograph_file
from voxseg.data.reading import read_channels
from voxseg.data.regrid import (
    describe_grid,
    is_on_grid_of,
    label_on_grid_of,
    map_on_grid_of,
    other_grid,
)
from voxseg.data.volume import Volume, read_image, read_label
from voxseg.engine.mask_tables import place_beside, read_beside
from voxseg.errors import DataError, UsageError, VoxsegError
from voxseg.export.label_files import read_label_table
from voxseg.export.labels import HIGHEST_VALUE, LabelTable, plain_table
from voxseg.export.viewer import MOST_MB, WrittenViewer, write_viewer
from voxseg.export.viewer_scene import MB, MOST_LABELS, ViewerScene

_ROUNDING = 1e-3  # of a map that should lie in [0, 1]


@dataclass(frozen=True, kw_only=True)
class ViewRequest:
    """What to show, and how."""

    image: Path
    masks: tuple[Path, ...] = ()
    """Label maps; the first is compared with each other one."""
    output: Path | None = None
    """The page; None names it after the image, in the current folder."""
    label_table: str | Path | None = None
    """A table's name or file; by default what lies beside the first mask that has one."""
    supervoxels: Path | None = None
    uncertainty: Path | None = None
    window: tuple[float, float] | None = None
    """Intensities to be black and white."""
    resample: bool = False
    """Bring what lies on another grid onto the image's."""
    full: bool = False
    """Neither cut the volumes nor leave voxels out."""
    max_mb: float = MOST_MB
    overwrite: bool = False


def view(request: ViewRequest, say: Callable[[str], None]) -> WrittenViewer:
    """Write the page.

    Args:
        request: What to show.
        say: Called with each sentence about it.

    Raises:
        UsageError: An option cannot work, or the page exists.
        DataError: A file cannot be read or does not fit the image.
        VoxsegError: The page cannot be written.
    """
    page = _page(request)
    if request.window is not None and not request.window[0] < request.window[1]:
        low, high = request.window
        raise UsageError(f"--window needs a lower and a higher intensity, got {low:g} and {high:g}")
    for path in _files(request):
        if is_photograph_file(path):
            raise UsageError(f"{path} is a photograph; voxseg view shows volumes (.nii or .nii.gz)")
    image = _image(request.image)
    notes: list[str] = []
    masks = {
        name: _placed(read_label(path), image, request, notes)
        for name, path in _names(request.masks).items()
    }
    values = _values(masks, request.masks)
    table, remark = _table(request, values)
    empty = [name for name, found in values.items() if not found]
    notes += [f"The mask {name} has no labelled voxel." for name in empty]
    notes += [remark] if remark else []
    scene = ViewerScene(
        case_name(request.image),
        image.affine_mm,
        image.array,
        masks,
        table,
        superpixels=_regions(request, image, notes),
        uncertainty=_map(request, image, notes),
        window=request.window,
        notes=notes,
    )
    written = write_viewer(page, scene, most_mb=request.max_mb, is_whole=request.full)
    for note in written.notes:
        say(note)
    say(f"page: {written.path} ({written.num_bytes / MB:.3g} MB, holds the patient's images)")
    return written


def _image(place: Path) -> Volume:
    """Read the image: a NIfTI volume, or the series of a DICOM folder."""
    files = series_of(place)
    if not files:
        return read_image(place)
    series = read_channels(files)
    return replace(series, array=series.array[0])


def _page(request: ViewRequest) -> Path:
    """Name the page, and refuse one that cannot be written before any work is done."""
    own = f"{case_name(request.image)}_view.html"
    page = request.output or Path(own)
    if page.is_dir():
        raise UsageError(f"{page} is a folder; name the page, as {page / own}")
    if page.exists() and not request.overwrite:
        raise UsageError(f"{page} exists; use --overwrite, or name another page with -o")
    if any(page.resolve() == path.resolve() for path in _files(request)):
        raise UsageError(f"{page} is one of the volumes; name another page with -o")
    return page


def _files(request: ViewRequest) -> list[Path]:
    maps = (request.supervoxels, request.uncertainty)
    return [request.image, *request.masks, *(path for path in maps if path is not None)]


def _names(paths: Sequence[Path]) -> dict[str, Path]:
    """Name masks after their files, and where two have one name, after their folders as well."""
    short = Counter(case_name(path) for path in paths)
    named: dict[str, Path] = {}
    for path in paths:
        name = case_name(path)
        if short[name] > 1:
            name = f"{path.resolve().parent.name}/{name}"
        while name in named:
            name = f"{name} again"
        named[name] = path
    return named


def _placed(
    volume: Volume, image: Volume, request: ViewRequest, notes: list[str]
) -> np.ndarray[Any, Any]:
    """Return the voxels of a volume on the image's grid, or refuse it."""
    if is_on_grid_of(volume, image):
        return volume.array
    if not request.resample:
        raise other_grid(volume, image)
    grids = f"{describe_grid(volume)}; the image has {describe_grid(image)}"
    is_label = volume.array.dtype.kind in "iu"
    notes.append(
        f"{volume.path.name} was brought onto the image's grid, by the nearest voxel in mm; it "
        f"has {grids}."
        if is_label
        else f"{volume.path.name} was interpolated on the image's grid; it has {grids}."
    )
    moved = (label_on_grid_of if is_label else map_on_grid_of)(volume, image)
    if volume.array.any() and not moved.any():
        notes.append(f"None of what {volume.path.name} marks lies within the image.")
    return moved


def _values(
    masks: Mapping[str, np.ndarray[Any, Any]], paths: Sequence[Path]
) -> dict[str, list[int]]:
    """Find the labels of each mask, without the background."""
    found: dict[str, list[int]] = {}
    for (name, mask), path in zip(masks.items(), paths, strict=True):
        values = [int(value) for value in np.unique(mask) if value != 0]
        if len(values) > MOST_LABELS:
            raise DataError(
                f"{path} holds {len(values)} labels, and a viewer tells {MOST_LABELS} apart; if "
                "they are supervoxels, show them with --supervoxels"
            )
        if values and (values[0] < 0 or values[-1] > HIGHEST_VALUE):
            odd = values[0] if values[0] < 0 else values[-1]
            raise DataError(
                f"{path} holds the label {odd}; labels are 1 to {HIGHEST_VALUE}, and 0 is the "
                "background"
            )
        found[name] = values
    together = {value for values in found.values() for value in values}
    if len(together) > MOST_LABELS:
        raise DataError(
            f"the masks hold {len(together)} labels together, and a viewer tells {MOST_LABELS} "
            "apart; show fewer masks"
        )
    return found


def _table(request: ViewRequest, values: Mapping[str, Sequence[int]]) -> tuple[LabelTable, str]:
    """Find names and colours of the labels, and what is to be said of them."""
    used = sorted({value for found in values.values() for value in found})
    if request.label_table is not None:
        table = read_label_table(request.label_table).covering(used, "a mask")
        return _small(table, used), ""
    beside = (place_beside(path.parent) for path in request.masks)
    place = next((path for path in beside if path is not None), None)
    plain = {value: f"label {value}" for value in used}
    if place is None:
        return plain_table(plain), ""
    try:
        table = read_beside(place)
    except VoxsegError as error:
        return plain_table(plain), f"Labels have no names, for {error}."
    lacking = [value for value in used if value not in table]
    if lacking:
        more = plain_table(plain | table.names, table.colours)
        kept = {label.value: label for label in table}
        labels = tuple(kept.get(label.value, label) for label in more)
        words = ", ".join(str(value) for value in lacking[:5]) + " ..." * (len(lacking) > 5)
        return _small(
            replace(table, labels=labels), used
        ), f"{place.name} beside the mask has no name for label {words}."
    return _small(table, used), ""


def _small(table: LabelTable, used: Sequence[int]) -> LabelTable:
    """Leave out what no mask has where the table is larger than a page can tell apart."""
    if len(table) <= MOST_LABELS:
        return table
    return replace(table, labels=tuple(label for label in table if label.value in set(used)))


def _regions(request: ViewRequest, image: Volume, notes: list[str]) -> np.ndarray[Any, Any] | None:
    if request.supervoxels is None:
        return None
    # 0 is outside, as in the maps that voxseg supervoxels writes; a scene has it below 0.
    return _placed(read_label(request.supervoxels), image, request, notes) - 1


def _map(request: ViewRequest, image: Volume, notes: list[str]) -> np.ndarray[Any, Any] | None:
    if request.uncertainty is None:
        return None
    volume = read_image(request.uncertainty)
    low, high = float(volume.array.min()), float(volume.array.max())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise DataError(
            f"{volume.path} holds values from {low:.4g} to {high:.4g}; an uncertainty map lies in "
            "0 to 1, as voxseg predict --save-uncertainty writes it"
        )
    return _placed(volume, image, request, notes)
