"""From a subject's files to the arrays that a network sees, and back to the subject's own grid.

The way there: read, check, RAS+ order, resample to a common spacing if asked, crop to the
foreground, normalise inside it, compute supervoxels. ``Grid`` remembers each step, and
``Grid.restore`` undoes them for a prediction.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from voxseg.data.boundaries import Disputed
from voxseg.data.cases import Case
from voxseg.data.grid import IGNORED as IGNORED
from voxseg.data.grid import Grid
from voxseg.data.normal_warp import resize_normals
from voxseg.data.normalise import OF_COLOURS, Normalisation, normalise
from voxseg.data.orientation import orientation_of
from voxseg.data.reading import read_channels, read_label
from voxseg.data.resample import resample_image
from voxseg.data.superpixels import SupervoxelSettings, cached_supervoxels
from voxseg.data.targets import CONSENSUS, read_target
from voxseg.data.volume import Volume, check_same_grid
from voxseg.errors import DataError, UsageError

Plane = Literal["none", "axial", "coronal", "sagittal", "all"]
MaskMode = Literal["auto", "nonzero", "all"]
_SLICE_AXES: dict[Plane, tuple[int, ...]] = {
    "none": (), "axial": (2,), "coronal": (1,), "sagittal": (0,), "all": (2, 1, 0),
}  # fmt: skip
AUTO_ZERO_SHARE = 0.1  # a tenth of exact zeros is a stripped or padded background, not anatomy


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """How a subject's volume becomes network input."""

    spacing_mm: tuple[float, ...] = ()
    """Common voxel size in RAS+ order; empty keeps each subject's own."""
    mask: MaskMode = "auto"
    """Foreground: "nonzero" voxels, "all" of them, or "auto": nonzero if a tenth of them is 0."""
    margin_voxels: int = 4
    """Voxels kept around the foreground's box."""
    normalise: Normalisation = "zscore"
    """Inside the foreground: "zscore" (outside: -4), "median" (divide by it: 0 stays 0), "none". Of
    photographs: "imagenet" (mean and deviation of ImageNet's channels), "unit" (0 to 1)."""
    clip_percentiles: tuple[float, ...] = (0.5, 99.5)
    """Intensities beyond these percentiles of the foreground are clipped first; empty for none."""
    coordinates: bool = False
    """Add the position within the foreground's box, in [-1, 1] along each axis, as channels."""
    plane: Plane = "none"
    """Slices that a 2D network sees: of one plane, or of "all" three, whose answers are averaged;
    "none" sees volumes. Photographs are axial slices."""
    neighbours: int = 0
    """Slices on each side of a slice that are further channels (2.5D)."""
    square_pixels: bool = True
    """With ``plane`` and without ``spacing_mm``: resample to the plane's smaller pixel size."""
    resize_pixels: tuple[int, ...] = ()
    """Height and width that photographs are brought to; empty keeps their own."""

    def __post_init__(self) -> None:
        if any(s <= 0 for s in self.spacing_mm) or len(self.spacing_mm) not in (0, 2, 3):
            raise ValueError(f"data.spacing_mm must be positive, one per axis: {self.spacing_mm}")
        low_high = self.clip_percentiles
        if low_high and not (len(low_high) == 2 and 0 <= low_high[0] < low_high[1] <= 100):
            raise ValueError(f"data.clip_percentiles must be two, rising, in [0, 100]: {low_high}")
        if self.margin_voxels < 0:
            raise ValueError(f"data.margin_voxels must not be negative: {self.margin_voxels}")
        if self.neighbours < 0 or (self.neighbours and self.plane == "none"):
            raise ValueError(
                f"data.neighbours is {self.neighbours}: it must not be negative, and slices need "
                "data.plane"
            )

        if self.resize_pixels and not (
            len(self.resize_pixels) == 2 and min(self.resize_pixels) > 0
        ):
            raise ValueError(
                f"data.resize_pixels must be a height and a width, got {self.resize_pixels}"
            )

    @property
    def slice_axes(self) -> tuple[int, ...]:
        """Axes (RAS+) along which volumes are cut into slices; none for a network of volumes."""
        return _SLICE_AXES[self.plane]


@dataclass(frozen=True)
class Prepared:
    """One subject as the network sees it."""

    case_id: str
    image: np.ndarray
    """(C, *S) float32, normalised."""
    label: np.ndarray | None
    """(*S) uint8 or int32 class indices, ``IGNORED`` where nothing counts."""
    superpixels: np.ndarray | None
    """(*S) int32, -1 outside the foreground."""
    mask_box: tuple[tuple[int, int], ...]
    """The foreground's box within the crop, start and stop per axis."""
    spacing: tuple[float, ...]
    """Voxel size in mm, RAS+ order."""
    grid: Grid
    is_image: bool = False
    """Whether this is a photograph: beyond its border there is nothing that counts."""
    normals: np.ndarray | None = None
    """(3, *S) float32 surface normals of length 1 (x right, y up, z to the viewer), 0 where there
    is none; None of other tasks."""
    category: int | None = None
    """Index of the class of the whole photograph; None of other tasks."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape of the crop."""
        return tuple(self.image.shape[1:])

    @functools.cached_property
    def places(self) -> np.ndarray:
        """Where the supervoxels lie, (K, D + 1) float32, mm and mm^D: see ``superpixel_places``.

        Raises:
            ValueError: there are none.
        """
        import torch

        from voxseg.ops.superpixel_places import superpixel_places

        if self.superpixels is None:
            raise ValueError(f"{self.case_id} has no supervoxels")
        labels = torch.from_numpy(np.ascontiguousarray(self.superpixels))[None]
        count = max(1, int(labels.max()) + 1)
        places: np.ndarray = superpixel_places(labels, count, self.spacing)[0].numpy()
        return places


def read_case(
    case: Case, consensus: int = CONSENSUS, disputed: Disputed = "ignored"
) -> tuple[Volume, Volume | None]:
    """Read a case's image (C, X, Y, Z) and its target and check that they share one grid."""
    image = read_channels(case.images)
    target = read_target(case, consensus, disputed)
    if target is not None:
        check_same_grid(image, target)
    return image, target


def prepare_case(
    case: Case,
    settings: PrepareSettings,
    label_values: tuple[int, ...],
    supervoxels: SupervoxelSettings | None = None,
    ignore: tuple[int, ...] = (),
    consensus: int = CONSENSUS,
    disputed: Disputed = "ignored",
) -> Prepared:
    """Read and prepare one case.

    Args:
        case: its files; without a label, ``Prepared.label`` is None. A photograph is neither
            cropped nor masked.
        settings: crop, spacing, normalisation.
        label_values: values in the label file, in the order of the classes; the first is
            background. A value in the file that is listed nowhere is an error.
        supervoxels: how to compute supervoxels on the cropped volume; None for none.
        ignore: further values in the label file, of voxels that do not count.
        consensus: of boundaries: annotators who must have drawn one.
        disputed: of boundaries: what a pixel is that fewer drew.

    Raises:
        DataError: the files are not what they must be.
        UsageError: the settings cannot be used on them.
    """
    slice_axis = _slice_axis(case, settings, supervoxels)
    check_settings(case, settings, len(label_values), ignore)
    source, target = read_case(case, consensus, disputed)
    label, vectors = (None, target) if case.task == "normals" else (target, None)
    orientation = orientation_of(source.affine)
    shape, spacing = working_grid(source, settings)
    source_shape = source.shape
    arrays = [orientation.to_ras(channel) for channel in source.array]
    del source  # each copy of a large volume counts: what is not needed any more goes
    if label is not None:
        check_label_values(label, label_values, ignore)
    if shape != arrays[0].shape:
        arrays = [resample_image(a, shape, order=1) for a in arrays]
    mask = foreground(arrays[0], "all" if case.is_image else settings.mask)
    inner = _bounding_box(mask, case.images[0])
    box = tuple(
        (max(0, a - settings.margin_voxels), min(n, b + settings.margin_voxels))
        for (a, b), n in zip(inner, mask.shape, strict=True)
    )
    grid = Grid(source_shape, orientation, tuple(mask.shape), box)
    cut = tuple(slice(a, b) for a, b in box)
    mask = np.ascontiguousarray(mask[cut])
    image = np.empty((len(arrays), *mask.shape), np.float32)
    for channel, array in zip(image, arrays, strict=True):
        channel[...] = array[cut]
    del arrays, array
    normalise(image, mask, settings.normalise, settings.clip_percentiles, case.images[0])
    regions = None
    if supervoxels is not None:
        inside = None if case.is_image else mask
        regions = cached_supervoxels(
            image, spacing, supervoxels, mask=inside, slice_axis=slice_axis
        )
    return Prepared(
        case_id=case.case_id,
        image=image,
        label=None if label is None else grid.prepare_label(label.array, label_values, ignore),
        superpixels=regions,
        mask_box=tuple((a - o, b - o) for (a, b), (o, _) in zip(inner, box, strict=True)),
        spacing=spacing,
        grid=grid,
        is_image=case.is_image,
        normals=None if vectors is None else resize_normals(vectors.array, shape),
    )


def prepare_label(
    path: Path, settings: PrepareSettings, values: tuple[int, ...], ignore: tuple[int, ...] = ()
) -> np.ndarray:
    """Read the label of a photograph alone, as ``prepare_case`` gives it.

    Raises:
        DataError: the file is damaged or holds a value that is listed nowhere.
    """
    label = read_label(path)
    check_label_values(label, values, ignore)
    shape, _ = working_grid(label, settings)
    box = tuple((0, n) for n in shape)
    grid = Grid(label.shape, orientation_of(label.affine), shape, box)
    return grid.prepare_label(label.array, values, ignore)


def working_grid(
    source: Volume, settings: PrepareSettings
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Shape and voxel size (RAS+ order) that a case has before the crop to its foreground."""
    axes = orientation_of(source.affine).axes
    shape, spacing = tuple(source.shape[a] for a in axes), tuple(source.spacing[a] for a in axes)
    if source.header is None:  # a photograph
        return (*settings.resize_pixels, 1) if settings.resize_pixels else shape, spacing
    target = settings.spacing_mm or _square(spacing, settings)
    return _resampled_shape(shape, spacing, target), target


def is_resampled(source: Volume, settings: PrepareSettings) -> bool:
    """Whether a case's working grid has other voxels than its files, as ``Grid.is_resampled``."""
    axes = orientation_of(source.affine).axes
    return working_grid(source, settings)[0] != tuple(source.shape[a] for a in axes)


def _square(spacing: tuple[float, ...], settings: PrepareSettings) -> tuple[float, ...]:
    """Make the pixels of all planes square that the network sees."""
    axes = settings.slice_axes
    if not axes or not settings.square_pixels:
        return spacing
    fixed = axes[0] if len(axes) == 1 else None
    smallest = min(s for axis, s in enumerate(spacing) if axis != fixed)
    return tuple(s if axis == fixed else smallest for axis, s in enumerate(spacing))


def foreground(array: np.ndarray, mode: MaskMode) -> np.ndarray:
    """Mark the voxels that normalisation and supervoxels use (boolean, shape of ``array``)."""
    if mode == "all":
        return np.ones(array.shape, bool)
    nonzero: np.ndarray = array != 0
    if mode == "auto" and nonzero.mean() > 1 - AUTO_ZERO_SHARE:
        return np.ones(array.shape, bool)
    return nonzero


def coordinate_channels(
    mask_box: tuple[tuple[int, int], ...], window: tuple[slice, ...]
) -> np.ndarray:
    """Position of each voxel of ``window`` in the foreground's box, (D, *window) float32.

    -1 is the box's first voxel along an axis, 1 its last; outside the box the line goes on.
    ``window`` may reach beyond the array (a padded patch).
    """
    lines = []
    for (start, stop), cut in zip(mask_box, window, strict=True):
        half = max((stop - 1 - start) / 2, 0.5)
        positions = np.arange(cut.start, cut.stop)
        lines.append(((positions - (start + stop - 1) / 2) / half).astype(np.float32))
    return np.stack(np.meshgrid(*lines, indexing="ij"))


def check_label_values(
    label: Volume, values: tuple[int, ...], ignore: tuple[int, ...] = ()
) -> None:
    """Refuse a label map with a value that is neither in ``values`` nor in ``ignore``."""
    unknown = sorted(set(np.unique(label.array).tolist()) - set(values) - set(ignore))
    if unknown:
        raise DataError(
            f"{label.path} holds label values {unknown} that the configuration does not list "
            f"({list(values)}); add them to labels.values or labels.ignore, or correct the file"
        )


def _slice_axis(
    case: Case, settings: PrepareSettings, supervoxels: SupervoxelSettings | None
) -> int | None:
    """Find the axis whose slices are divided into superpixels on their own, if any."""
    if case.is_image:
        return 2
    if supervoxels is None or supervoxels.by == "volume":
        return None
    axes = settings.slice_axes
    if len(axes) != 1:
        raise UsageError(
            f"supervoxels.by is slice, but data.plane is {settings.plane}: choose one plane, or "
            "divide by volume"
        )
    return axes[0]


def check_settings(
    case: Case, settings: PrepareSettings, num_classes: int, ignore: tuple[int, ...]
) -> None:
    """Refuse settings that do not go with this kind of case, or with voxels that do not count.

    Raises:
        UsageError: the first of them.
    """
    path = case.images[0]
    if not case.is_image:
        if settings.normalise in OF_COLOURS:
            raise UsageError(
                f"data.normalise {settings.normalise} is for photographs and {path} is a volume; "
                "choose zscore, median or none"
            )
        if settings.resize_pixels:
            raise UsageError(
                f"data.resize_pixels is for photographs and {path} is a volume; set data.spacing_mm"
            )
    elif settings.spacing_mm:
        raise UsageError(
            f"data.spacing_mm is for volumes and {path} is a photograph; set data.resize_pixels"
        )
    if num_classes > IGNORED and (ignore or case.is_image):
        raise UsageError(
            f"there are {num_classes} classes, but at most {IGNORED} where pixels may be ignored; "
            "merge some classes"
        )


def _resampled_shape(
    shape: tuple[int, ...], spacing: tuple[float, ...], target: tuple[float, ...]
) -> tuple[int, ...]:
    return tuple(max(1, round(n * s / t)) for n, s, t in zip(shape, spacing, target, strict=True))


def _bounding_box(mask: np.ndarray, path: Path) -> tuple[tuple[int, int], ...]:
    box = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        used = np.flatnonzero(mask.any(axis=others))
        if not len(used):
            raise DataError(f"{path} is all zeros: there is nothing to segment; check the file")
        box.append((int(used[0]), int(used[-1]) + 1))
    return tuple(box)
