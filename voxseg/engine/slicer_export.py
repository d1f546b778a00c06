"""Masks that lie on a disk, for 3D Slicer: ``voxseg export slicer``.

A mask is a label map, a map of supervoxels, or a stack of masks that may overlap: a 4D file whose
frames are 0 and 1, one for each label of the table in its order.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxseg.data.cases import Case
from voxseg.data.dicom_cases import series_of
from voxseg.data.folders import check_exists
from voxseg.data.layouts import find_cases
from voxseg.data.names import case_name, is_image_file
from voxseg.data.reading import read_geometry
from voxseg.data.volume import read_label
from voxseg.engine.mask_tables import TABLE, place_beside, read_beside, unnamed_table
from voxseg.engine.pairs import find_predictions
from voxseg.engine.slicer_files import (
    LABEL_MAP,
    SCENE,
    SEGMENTATION,
    write_case_scene,
    write_label_map,
    write_map_colours,
)
from voxseg.engine.slicer_masks import is_empty, mask_values, onto_image, read_mask
from voxseg.errors import DataError, UsageError, VoxsegError
from voxseg.export.label_files import read_label_table
from voxseg.export.label_table import write_label_table
from voxseg.export.labels import Codes, Colour, LabelTable, with_values
from voxseg.export.seg_nrrd import (
    MOST_SEGMENTS,
    Segments,
    count_labels,
    refuse_many,
    write_seg_nrrd,
)

_NO_OUTPUTS = (".nrrd", ".nii", ".nii.gz", ".mrml")


@dataclass(frozen=True, kw_only=True)
class SlicerRequest:
    """What to write for 3D Slicer."""

    mask: Path
    """A label map, or a folder of them as ``predict`` writes it."""
    image: Path
    """The volume, a folder of volumes, paired by name, or a DICOM series."""
    output: Path
    """A folder; for one mask also a name that ends in ``.seg.nrrd`` or ``.mrb``."""
    label_table: str | Path | None = None
    """By default ``labels.csv`` beside the mask, or that of the run that it lies in."""
    mrb: bool = False
    """Also ``CASE.mrb``, which holds the image."""
    supervoxels: bool = False
    """Masks are maps of many labels: a label map volume instead of a segmentation."""
    resample: bool = False
    """Bring masks of another grid onto the image's, by the nearest voxel."""
    overwrite: bool = False


@dataclass(frozen=True)
class SlicerOutcome:
    """What was written of one mask."""

    case_id: str
    files: tuple[Path, ...] = ()
    error: str = ""
    """One sentence, or "" when all went well."""


@dataclass(frozen=True)
class _Item:
    """One mask with its image and what is to be written; None for what is not wanted."""

    case_id: str
    mask: Path
    images: tuple[Path, ...]
    segments: Path | None
    scene: Path | None

    @property
    def targets(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.segments, self.scene) if path is not None)


Say = Callable[[str], None]


def export_slicer(request: SlicerRequest, say: Say = lambda _: None) -> list[SlicerOutcome]:
    """Write masks for 3D Slicer, in a folder with ``labels.csv`` and ``labels.ctbl``.

    Args:
        request: What and where.
        say: Told in a sentence what is worth knowing: where names come from, an empty mask.

    Raises:
        UsageError: Options that do not fit, or an output that exists.
        DataError: There is no mask, an image is missing, or the only mask cannot be written; one of
            several that cannot is in its outcome.
    """
    if request.supervoxels and request.label_table is not None:
        raise UsageError("--label-table names classes, and supervoxels have none; leave one out")
    root, items = _find(request)
    folder = None if request.output == (items[0].segments or items[0].scene) else request.output
    _refuse_existing(items, overwrite=request.overwrite)
    table, is_missing = LabelTable(labels=()), False
    if not request.supervoxels:
        table, source = _table(request, root, items, say)
        if folder is not None:
            is_missing = _is_missing(folder, table, source, overwrite=request.overwrite)
    outcomes = []
    for item in items:
        try:
            outcomes.append(SlicerOutcome(item.case_id, _write(item, table, request, say)))
        except VoxsegError as error:
            if len(items) == 1:
                raise
            outcomes.append(SlicerOutcome(item.case_id, error=str(error)))
    if folder is not None and is_missing and any(outcome.files for outcome in outcomes):
        write_label_table(folder, table)
    return outcomes


def _find(request: SlicerRequest) -> tuple[Path, list[_Item]]:
    """Return the folder of the masks, and each with its image and its outputs."""
    check_exists(request.mask, request.image)
    is_one = request.mask.is_file()
    series = series_of(request.image) if is_one else ()
    if is_one and (series or request.image.is_file()):
        case = Case(case_name(request.mask), series or (request.image,), None)
        root, pairs = request.mask.parent, [(request.mask, case)]
    elif request.image.is_file():
        raise UsageError(
            f"{request.mask} is a folder, but {request.image} is one file; give two files or two "
            "folders"
        )
    else:
        root, pairs = _pairs(request)
    for path in (path for mask, case in pairs for path in (mask, *case.images)):
        if is_image_file(path):
            raise UsageError(f"{path} is a picture; 3D Slicer gets volumes, as .nii or .nii.gz")
    return root, [_item(mask, case, request, is_one=len(pairs) == 1) for mask, case in pairs]


def _pairs(request: SlicerRequest) -> tuple[Path, list[tuple[Path, Case]]]:
    """Find the image of every mask by its name: that of the case, or of the case's label."""
    found = find_cases(request.image, need_labels=False)
    cases = [*found.cases, *found.unlabelled]
    by_name = {case_name(case.label): case for case in cases if case.label is not None}
    by_name |= {case.case_id: case for case in cases}
    images = {path.resolve() for case in cases for path in case.images}
    root, files = find_predictions(request.mask)
    masks = [path for path in files if path.resolve() not in images]
    if not masks:
        raise DataError(f"{request.mask} holds images of {request.image}, and no mask")
    missing = next((path for path in masks if case_name(path) not in by_name), None)
    if missing is not None:
        raise DataError(
            f"{missing} has no image in {request.image}: there is no case {case_name(missing)} "
            f"(the first is {cases[0].case_id}); masks are named after their image"
        )
    pairs = [(path, by_name[case_name(path)]) for path in masks]
    seen: dict[str, Path] = {}
    for path, case in pairs:
        other = seen.setdefault(case.case_id, path)
        if other is not path:
            raise DataError(f"two masks for one case: {other} and {path}; keep one")
    return root, pairs


def _item(mask: Path, case: Case, request: SlicerRequest, *, is_one: bool) -> _Item:
    """Name the outputs of a mask."""
    output, name = request.output, request.output.name.lower()
    own, ending = (".nrrd", LABEL_MAP) if request.supervoxels else (SEGMENTATION, SEGMENTATION)
    is_segmentation = name.endswith(SEGMENTATION)
    if name.endswith((own, SCENE)) and is_segmentation <= (own == SEGMENTATION):
        if not is_one:
            raise UsageError(f"{output} names one file, and there are several masks; name a folder")
        if output.is_dir():
            raise UsageError(f"{output} is a folder; name a file in it, or another folder")
        if name.endswith(SCENE):
            return _Item(case.case_id, mask, case.images, None, output)
        scene = output.with_name(output.name[: -len(own)] + SCENE) if request.mrb else None
        return _Item(case.case_id, mask, case.images, output, scene)
    if name.endswith(_NO_OUTPUTS) or (output.exists() and not output.is_dir()):
        what = "is a file" if output.exists() else "cannot be written"
        raise UsageError(
            f"{output} {what}; -o names a folder, or for one mask a file that ends in {own} or "
            f"{SCENE}"
        )
    scene = output / f"{case.case_id}{SCENE}" if request.mrb else None
    return _Item(case.case_id, mask, case.images, output / f"{case.case_id}{ending}", scene)


def _refuse_existing(items: Iterable[_Item], *, overwrite: bool) -> None:
    existing = next((path for item in items for path in item.targets if path.exists()), None)
    if existing is not None and not overwrite:
        raise UsageError(f"{existing} exists; use --overwrite, or another -o")


def _table(
    request: SlicerRequest, root: Path, items: Sequence[_Item], say: Say
) -> tuple[LabelTable, Path | None]:
    """Return the classes of the masks, and the file that they come from."""
    if request.label_table is not None:
        chosen = request.label_table
        return read_label_table(chosen), Path(chosen) if Path(chosen).is_file() else None
    beside = place_beside(root)
    if beside is not None:
        say(f"names and colours: {beside}")
        return read_beside(beside), beside if beside.name == TABLE else None
    values: set[int] = set()
    for item in items:
        found = mask_values(item.mask)
        refuse_many(found, str(item.mask))
        values |= set(found)
    return unnamed_table(values, items[0].mask, say), None


def _is_missing(folder: Path, table: LabelTable, source: Path | None, *, overwrite: bool) -> bool:
    """Tell whether the table is to be written into a folder, where it may be already.

    Raises:
        UsageError: Another one is there.
    """
    target = folder / TABLE
    if source is not None and source.resolve() == target.resolve():
        return False
    if not target.is_file() or overwrite:
        return True
    if _entries(read_label_table(target)) != _entries(table):
        raise UsageError(f"{target} holds another label table; use --overwrite, or another -o")
    return False


def _entries(table: LabelTable) -> list[tuple[int, str, Colour, Codes]]:
    """Return what a CSV of Slicer holds."""
    return [(one.value, one.name, one.colour, one.codes) for one in table]


def _write(item: _Item, table: LabelTable, request: SlicerRequest, say: Say) -> tuple[Path, ...]:
    """Write the files of one mask."""
    image, _ = read_geometry(item.images)
    if request.supervoxels:
        volume = read_label(item.mask)
        segments: Segments = volume.array
    else:
        segments, volume = read_mask(item.mask, table)
    segments = onto_image(segments, volume, image, resample=request.resample, say=say)
    if is_empty(segments):
        say(f"{item.mask} holds no voxel of any class; what is written of it is empty")
    with tempfile.TemporaryDirectory() as folder:
        ending = LABEL_MAP if request.supervoxels else SEGMENTATION
        path = item.segments or Path(folder, f"segments{ending}")
        colours = None
        if isinstance(segments, np.ndarray) and request.supervoxels:
            write_label_map(path, segments, image.affine_mm)
            if item.scene is not None:
                colours = write_map_colours(Path(folder, "labels.ctbl"), int(segments.max()))
        else:
            write_seg_nrrd(path, segments, image.affine_mm, _listed(table, segments, item, say))
        if item.scene is not None:
            write_case_scene(item.scene, item.case_id, path, segments, item.images, colours)
    return item.targets


def _listed(table: LabelTable, segments: Segments, item: _Item, say: Say) -> LabelTable:
    """Return the classes to list: all, but of a table of more than can be, those of the mask."""
    if len(table) <= MOST_SEGMENTS:
        return table
    if isinstance(segments, Mapping):
        found = set(segments)
    else:
        found = set(count_labels(segments, str(item.mask)))
    refuse_many(found, str(item.mask))
    say(
        f"{item.mask}: of the {len(table)} labels of the table, the {len(found)} that it has are "
        "listed"
    )
    return with_values(table, found)
