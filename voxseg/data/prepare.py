"""From a subject's files to the arrays that a network sees, and back to the subject's own grid.

The way there: read, check, RAS+ order, resample to a common spacing if asked, crop to the
foreground, normalise inside it, compute supervoxels. ``Grid`` remembers each step, and
``Grid.restore`` undoes them for a prediction.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from voxseg.data.layouts import Case
from voxseg.data.orientation import Orientation, orientation_of
from voxseg.data.reading import read_channels, read_label
from voxseg.data.resample import (
    Scores,
    argmax_on_grid,
    best_class,
    resample_image,
    resample_label,
)
from voxseg.data.superpixels import SupervoxelSettings, cached_supervoxels
from voxseg.data.volume import Volume, check_same_grid
from voxseg.errors import DataError

Normalisation = Literal["zscore", "median", "none", "imagenet", "unit"]
Plane = Literal["none", "axial", "coronal", "sagittal", "all"]
MaskMode = Literal["auto", "nonzero", "all"]
OUTSIDE = -4.0
"""What a z-scored image holds outside the foreground: one value for every subject.

A stripped background would else lie at (0 - mean) / deviation, which differs by subject, and
intensity augmentation would move it: networks then see tissue where there is nothing.
"""
IGNORED = 255
"""Class index of a voxel that counts neither in training nor in scores; classes are fewer then."""
_SLICE_AXES: dict[Plane, tuple[int, ...]] = {
    "none": (), "axial": (2,), "coronal": (1,), "sagittal": (0,), "all": (2, 1, 0),
}  # fmt: skip
_AUTO_ZERO_SHARE = 0.1  # a tenth of exact zeros is a stripped or padded background, not anatomy


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

    @property
    def slice_axes(self) -> tuple[int, ...]:
        """Axes (RAS+) along which volumes are cut into slices; none for a network of volumes."""
        return _SLICE_AXES[self.plane]


@dataclass(frozen=True)
class Grid:
    """Where prepared arrays lie in the subject's own grid."""

    source_shape: tuple[int, ...]
    orientation: Orientation
    working_shape: tuple[int, ...]
    """Shape after reorientation and resampling, before the crop."""
    box: tuple[tuple[int, int], ...]
    """Start and stop of the crop on the working grid."""

    @property
    def _ras_shape(self) -> tuple[int, ...]:
        return tuple(self.source_shape[a] for a in self.orientation.axes)

    @property
    def _slices(self) -> tuple[slice, ...]:
        return tuple(slice(a, b) for a, b in self.box)

    def prepare_label(self, label: np.ndarray, values: tuple[int, ...]) -> np.ndarray:
        """Bring a label map from the source's grid to the crop, as ``prepare_case`` does.

        Args:
            label: (X, Y, Z) values of the label file, all listed in ``values``.
            values: as for ``prepare_case``.

        Returns:
            (*crop) class indices, uint8 or int32.
        """
        classes = self.orientation.to_ras(_class_indices(label, values))
        if self.working_shape != self._ras_shape:
            classes = resample_label(classes, self.working_shape)
        return np.ascontiguousarray(classes[self._slices])

    @property
    def is_resampled(self) -> bool:
        """Whether the working grid has other voxels than the source's."""
        return self.working_shape != self._ras_shape

    def restore(self, probabilities: Scores) -> np.ndarray:
        """Turn class scores (num_classes, *crop) into class indices (uint8 or int32) at the source.

        Outside the crop lies class 0. When resampling, one class at a time is brought to the
        source's grid and compared with the best so far.
        """
        if not self.is_resampled:
            return self.restore_classes(best_class(probabilities))
        label = argmax_on_grid(probabilities, self.box, self.working_shape, self._ras_shape)
        return np.ascontiguousarray(self.orientation.from_ras(label))

    def restore_classes(self, classes: np.ndarray) -> np.ndarray:
        """Bring class indices (*crop) to the source's grid, which must not have been resampled."""
        if self.is_resampled:
            raise ValueError("class indices cannot be interpolated; restore probabilities instead")
        label = np.zeros(self.working_shape, classes.dtype)
        label[self._slices] = classes
        return np.ascontiguousarray(self.orientation.from_ras(label))

    def restore_map(self, values: np.ndarray, outside: float) -> np.ndarray:
        """Bring one float map (*crop) to the source's grid; ``outside`` fills what was cropped."""
        full = np.full(self.working_shape, outside, np.float32)
        full[self._slices] = values
        if self.is_resampled:
            full = resample_image(full, self._ras_shape, order=1)
        return np.ascontiguousarray(self.orientation.from_ras(full))


@dataclass(frozen=True)
class Prepared:
    """One subject as the network sees it."""

    case_id: str
    image: np.ndarray
    """(C, *S) float32, normalised."""
    label: np.ndarray | None
    """(*S) uint8 or int32 class indices."""
    superpixels: np.ndarray | None
    """(*S) int32, -1 outside the foreground."""
    mask_box: tuple[tuple[int, int], ...]
    """The foreground's box within the crop, start and stop per axis."""
    spacing: tuple[float, ...]
    """Voxel size in mm, RAS+ order."""
    grid: Grid

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape of the crop."""
        return tuple(self.image.shape[1:])


def read_case(case: Case) -> tuple[Volume, Volume | None]:
    """Read a case's image (C, X, Y, Z) and label and check that they share one grid."""
    image = read_channels(case.images)
    if case.label is None:
        return image, None
    label = read_label(case.label)
    check_same_grid(image, label)
    return image, label


def prepare_case(
    case: Case,
    settings: PrepareSettings,
    label_values: tuple[int, ...],
    supervoxels: SupervoxelSettings | None = None,
) -> Prepared:
    """Read and prepare one case.

    Args:
        case: its files; without a label, ``Prepared.label`` is None.
        settings: crop, spacing, normalisation.
        label_values: values in the label file, in the order of the classes; the first is
            background. A value in the file that is not listed is an error.
        supervoxels: how to compute supervoxels on the cropped volume; None for none.
    """
    source, label = read_case(case)
    orientation = orientation_of(source.affine)
    spacing = tuple(source.spacing[a] for a in orientation.axes)
    source_shape = source.shape
    arrays = [orientation.to_ras(channel) for channel in source.array]
    del source  # each copy of a large volume counts: what is not needed any more goes
    if label is not None:
        check_label_values(label, label_values)
    if settings.spacing_mm:
        shape = _resampled_shape(arrays[0].shape, spacing, settings.spacing_mm)
        spacing = settings.spacing_mm
        arrays = [resample_image(a, shape, order=1) for a in arrays]
    mask = foreground(arrays[0], settings.mask)
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
    for channel in image:
        _normalise(channel, mask, settings, case.images[0])
    regions = None
    if supervoxels is not None:
        regions = cached_supervoxels(image, spacing, supervoxels, mask=mask)
    return Prepared(
        case_id=case.case_id,
        image=image,
        label=None if label is None else grid.prepare_label(label.array, label_values),
        superpixels=regions,
        mask_box=tuple((a - o, b - o) for (a, b), (o, _) in zip(inner, box, strict=True)),
        spacing=spacing,
        grid=grid,
    )


def working_grid(
    source: Volume, settings: PrepareSettings
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Shape and voxel size (RAS+ order) that a case has before the crop to its foreground."""
    axes = orientation_of(source.affine).axes
    shape, spacing = tuple(source.shape[a] for a in axes), tuple(source.spacing[a] for a in axes)
    if not settings.spacing_mm:
        return shape, spacing
    return _resampled_shape(shape, spacing, settings.spacing_mm), settings.spacing_mm


def foreground(array: np.ndarray, mode: MaskMode) -> np.ndarray:
    """Mark the voxels that normalisation and supervoxels use (boolean, shape of ``array``)."""
    if mode == "all":
        return np.ones(array.shape, bool)
    nonzero: np.ndarray = array != 0
    if mode == "auto" and nonzero.mean() > 1 - _AUTO_ZERO_SHARE:
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


def check_label_values(label: Volume, values: tuple[int, ...]) -> None:
    """Refuse a label map with a value that is not in ``values``."""
    unknown = sorted(set(np.unique(label.array).tolist()) - set(values))
    if unknown:
        raise DataError(
            f"{label.path} holds label values {unknown} that the configuration does not list "
            f"({list(values)}); add them to data.labels, or correct the file"
        )


def _class_indices(label: np.ndarray, values: tuple[int, ...]) -> np.ndarray:
    dtype = np.uint8 if len(values) <= 256 else np.int32
    order = np.argsort(values)
    classes: np.ndarray = order[np.searchsorted(np.asarray(values)[order], label)]
    return classes.astype(dtype)


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


def _normalise(array: np.ndarray, mask: np.ndarray, settings: PrepareSettings, path: Path) -> None:
    """Clip and scale one channel in place, a layer at a time: a copy may be the one too many."""
    if settings.normalise == "none":
        return
    inside = array[mask]
    if inside.min() == inside.max():
        raise DataError(
            f"{path} is constant ({inside.min():g}) in its foreground: there is nothing to "
            "segment; check the file, or set data.normalise to none"
        )
    is_standard = settings.normalise == "zscore"
    low, high = -np.inf, np.inf
    if settings.clip_percentiles:
        found = np.percentile(inside, settings.clip_percentiles, overwrite_input=True)
        inside = array[mask]  # their order decides the last bits of mean and deviation
        if found[0] < found[1]:
            low, high = found
            inside = np.clip(inside, low, high)
    offset: np.floating
    scale: np.floating
    if not is_standard:
        offset, scale = np.float32(0), np.float32(_middle(inside, path))
    else:
        # Scalars of NumPy's float64, with which float32 voxels are scaled in float64.
        offset, scale = _mean_and_deviation(inside)
    del inside
    for layer, is_inside in zip(array, mask, strict=True):
        # Outside the foreground nothing is clipped from below: 0 stays what it is.
        clipped = np.where(is_inside, np.clip(layer, low, high), np.minimum(layer, high))
        scaled = (clipped - offset) / scale
        layer[...] = np.where(is_inside, scaled, OUTSIDE) if is_standard else scaled


def _middle(inside: np.ndarray, path: Path) -> float:
    middle = float(np.median(inside))
    if middle <= 0:
        raise DataError(
            f"{path} has a median of {middle:g} in its foreground, so it cannot be divided "
            "by it; set data.normalise to zscore"
        )
    return middle


def _mean_and_deviation(values: np.ndarray) -> tuple[np.float64, np.float64]:
    """Of all values, to the bit what NumPy gives with less room; ``values`` may be overwritten."""
    mean: np.float64 = values.mean(dtype=np.float64)
    squares = values.astype(np.float64, copy=False)
    squares -= mean
    squares *= squares
    deviation: np.float64 = np.sqrt(squares.sum() / squares.size)
    return mean, deviation
