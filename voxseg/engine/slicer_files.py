"""Files of one case for 3D Slicer: a segmentation, and a scene that shows it with its image."""

import importlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxseg.data.names import case_name, is_volume_file
from voxseg.data.reading import read_first_channel
from voxseg.data.volume import GRID_TOLERANCE_VOXELS, Volume, affine_distance
from voxseg.engine.predict_case import CaseAnswer
from voxseg.errors import DataError
from voxseg.export.label_table import write_colour_text
from voxseg.export.labels import class_colours
from voxseg.export.nrrd import write_nrrd
from voxseg.export.seg_nrrd import Segments, write_seg_nrrd
from voxseg.export.slicer_scene import Scene, write_scene
from voxseg.export.slicer_view import view_of, window_of

SEGMENTATION = ".seg.nrrd"
SCENE = ".mrb"
LABEL_MAP = "-label.nrrd"
"""Slicer takes what is called so for a label map, not for an image."""


@dataclass(frozen=True)
class SlicerFiles:
    """An extra of a prediction: ``CASE.seg.nrrd`` beside each mask, and on request ``CASE.mrb``."""

    with_scene: bool = False
    hides_names: bool = False
    """Whether no image's own file, with what its header says in words, may go into a scene."""

    @property
    def endings(self) -> tuple[str, ...]:
        """Of the files, after the name of the mask."""
        return (SEGMENTATION, SCENE) if self.with_scene else (SEGMENTATION,)

    def __call__(self, answer: CaseAnswer) -> Sequence[Path]:
        """Write the files of a case."""
        name = case_name(answer.target)
        path = answer.target.with_name(f"{name}{SEGMENTATION}")
        write_seg_nrrd(path, answer.label, answer.source.affine_mm, answer.table)
        if not self.with_scene:
            return (path,)
        scene = answer.target.with_name(f"{name}{SCENE}")
        write_case_scene(
            scene, answer.case.case_id, path, answer.label, answer.case.images,
            copies=self.hides_names,
        )  # fmt: skip
        return (path, scene)


def write_case_scene(
    path: Path,
    case_id: str,
    segments: Path,
    label: Segments,
    images: Sequence[Path],
    colour_table: Path | None = None,
    *,
    copies: bool = False,
) -> Path:
    """Write a scene of an image and what was found in it.

    Args:
        path: Ends in ``.mrb``.
        case_id: What Slicer lists the case as.
        segments: What was written of ``label``: a ``.seg.nrrd``, or a label map ``.nrrd``.
        label: (X, Y, Z) on the image's grid, or masks by value.
        images: Of the case; the first one is shown. The file goes into the scene as it is, unless
            ITK, by which Slicer reads, would put its voxels somewhere else: then they are copied.
        colour_table: Of a label map.
        copies: Whether only the voxels of the image go in, not its file.

    Raises:
        DataError: The image cannot be read.
        VoxsegError: The scene cannot be written.
    """
    image = read_first_channel(images)
    voxels = image.array[0]
    with tempfile.TemporaryDirectory() as folder:
        file = images[0]
        is_fit = len(image.array) == 1 and is_volume_file(file) and not copies
        if not is_fit or not _lies_alike_in_itk(image):
            file = write_nrrd(Path(folder, "image.nrrd"), voxels, image.affine_mm)
        found = _union(label) if isinstance(label, Mapping) else label
        scene = Scene(
            name=case_id,
            image=file,
            segments=segments,
            window=window_of(voxels),
            view=view_of(found, image.affine_mm),
            colour_table=colour_table,
        )
        return write_scene(path, scene)


def write_label_map(path: Path, label: NDArray[Any], affine: NDArray[np.float64]) -> Path:
    """Write a map of many labels, as of supervoxels, as a volume: no segment of each.

    Raises:
        DataError: It holds negative values.
        VoxsegError: The file cannot be written.
    """
    if label.size and int(label.min()) < 0:
        raise DataError(f"{path} would hold {int(label.min())}; supervoxels count from 0")
    highest = int(label.max()) if label.size else 0
    types = (np.uint8, np.uint16, np.int32)
    dtype = next(one for one in types if highest <= np.iinfo(one).max)
    return write_nrrd(path, label.astype(dtype, copy=False), affine)


def write_map_colours(path: Path, highest: int) -> Path:
    """Write colours of supervoxels 1 to ``highest``, neighbours in number unlike each other."""
    colours = class_colours(range(1, highest + 1))
    return write_colour_text(path, ((v, f"supervoxel {v}", colours[v]) for v in colours))


def _union(masks: Mapping[int, NDArray[np.bool_]]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.logical_or.reduce(list(masks.values()))
    return found


def _lies_alike_in_itk(image: Volume) -> bool:
    """Tell whether ITK puts a file's voxels where nibabel does.

    It takes the qform where the sform is sheared, and has ideas of its own of other headers.
    """
    itk: Any = importlib.import_module("SimpleITK")  # half a second, and without types
    reader = itk.ImageFileReader()
    reader.SetFileName(str(image.path))
    loud = itk.ProcessObject.GetGlobalWarningDisplay()
    itk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        reader.ReadImageInformation()
    except RuntimeError:  # it cannot read the file at all
        return False
    finally:
        itk.ProcessObject.SetGlobalWarningDisplay(loud)
    if reader.GetDimension() != 3 or reader.GetSize() != image.shape:
        return False
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * reader.GetSpacing()
    affine[:3, 3] = reader.GetOrigin()
    affine[:2] *= -1  # ITK's world is left, posterior, superior
    distance = affine_distance(image.affine_mm, affine, image.shape)
    return distance <= GRID_TOLERANCE_VOXELS
