"""A volume is array + affine + header, as nibabel gives them.

Geometry: nibabel owns it. The affine is the sform if its code is above 0, else the qform if its
code is above 0, else voxel sizes (``pixdim``) about the centre of the array with the first axis
running to the left. No transform decides geometry after this; masks are written with the source's
header (``export/nifti.py``).
Axes: nibabel's order, (X, Y, Z) of the file, no flip and no transpose.
It is loaded when a file is read, so that networks train on arrays where it is missing.
"""

import gzip
import logging
import math
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from voxseg.data.names import is_volume_file
from voxseg.data.sniff import describe_head, nifti_version, read_head
from voxseg.data.voxels import finite, whole
from voxseg.errors import DataError

GRID_TOLERANCE_VOXELS = 0.01
"""Two grids are the same if no corner of one lies further than this from the other's."""

_UNIT_MM = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
_DEFLATE_LIMIT = 1032  # no deflate stream grows by more
_SMALLEST_EDGE = 1e-6  # of a voxel, in the file's unit; smaller ones, and their inverse, are damage
_WIDTH_BY_HEIGHT = slice(1, None, -1)  # of a photograph's (H, W, 1)
_ONE_SIZE = "save both in one size (if one lies on its side: EXIF orientations are not applied)"
_reading = threading.local()


@dataclass(frozen=True, eq=False)
class Volume:
    """An image or label map with the geometry of its file."""

    array: np.ndarray[Any, Any]
    """(X, Y, Z) C-contiguous: float32 for images, int32 for labels; (C, X, Y, Z) from
    ``read_channels``."""
    affine: np.ndarray[Any, Any]
    """(4, 4) float64, voxel indices to world coordinates in the file's units."""
    header: Any
    """A copy of nibabel's header of the file, extensions included; None of a photograph."""
    path: Path
    """Where it was read."""
    trailing: int = 0
    """Number of trailing axes of one that the file has beyond (X, Y, Z)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape (X, Y, Z)."""
        return tuple(self.array.shape[-3:])

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size in mm along X, Y, Z: lengths of the affine's columns in the file's units.

        ``pixdim`` has no say, so the size is that of the world the masks land in; ``check`` tells
        where the two disagree. Headers without a unit, or with an unknown one, count as mm; the
        pixels of a photograph have size 1.
        """
        if self.header is None:
            return (1.0, 1.0, 1.0)
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0) * self._unit_mm
        return tuple(float(length) for length in lengths)

    @property
    def affine_mm(self) -> np.ndarray[Any, Any]:
        """(4, 4) float64, voxel indices to mm, whatever unit the file has."""
        scale = np.array([[self._unit_mm]] * 3 + [[1.0]])
        return np.asarray(self.affine * scale)

    @property
    def _unit_mm(self) -> float:
        try:
            return _UNIT_MM.get(self.header.get_xyzt_units()[0], 1.0)
        except KeyError:  # a code that the standard does not know
            return 1.0


def read_image(path: Path) -> Volume:
    """Read a single-channel image, scaled by the header's slope and intercept.

    Args:
        path: ``.nii`` or ``.nii.gz``, NIfTI-1 or -2, with (X, Y, Z) voxels and any number of
            trailing axes of one.

    Returns:
        float32 voxels, all finite.

    Raises:
        DataError: The file is missing, damaged, not NIfTI, has more than one frame, or holds NaN
            or infinite voxels.
    """
    voxels, image = _read(path)
    shape = _squeezed_shape(voxels.shape)
    if len(shape) > 3:
        raise DataError(
            f"{path} holds {shape[3]} frames of {_by(shape[:3])} voxels where one is needed; give "
            "each frame a file of its own, or use them together as channels"
        )
    array = finite(voxels.reshape(shape), path)
    return _volume(array, image, path, voxels.ndim - 3)


def read_channels(paths: Sequence[Path]) -> Volume:
    """Read the channels of one case: files on one grid, or all frames of a single 4D file.

    Returns:
        float32 voxels (C, X, Y, Z); affine and header are those of the first file.

    Raises:
        DataError: As ``read_image``, or the grids differ.
    """
    if len(paths) == 1:
        voxels, image = _read(paths[0])
        array, trailing = _channels_first(voxels)
        return _volume(finite(array, paths[0]), image, paths[0], trailing)
    channels = [read_image(path) for path in paths]
    first = channels[0]
    for other in channels[1:]:
        check_same_grid(first, other)
    array = np.stack([channel.array for channel in channels])
    return Volume(array, first.affine, first.header, first.path, first.trailing)


def read_geometry(paths: Sequence[Path]) -> tuple[Volume, int]:
    """Read where a case lies, from its headers alone.

    They give what ``read_channels`` gives, but its voxels are all zero and take no memory; and how
    many bytes reading the case will take at most.
    """
    heads = [_read(path, with_voxels=False) for path in paths]
    array, trailing = _channels_first(heads[0][0])
    array = np.broadcast_to(array, (max(len(paths), len(array)), *array.shape[1:]))
    raw = max(math.prod(head.shape) * _bytes_per_voxel(head) for _, head in heads)
    copies = 2 if len(paths) > 1 else 1  # files are read one by one and then put together
    num_bytes = raw + copies * 4 * array.size + array.size // len(paths)
    return _volume(array, heads[0][1], paths[0], trailing), num_bytes


def made_volume(array: np.ndarray[Any, Any], affine: np.ndarray[Any, Any], path: Path) -> Volume:
    """Make a volume, (X, Y, Z) or (C, X, Y, Z), of what came from no NIfTI file.

    Its affine, to mm in RAS, is rounded to float32 as headers store it; qform and sform are set.
    """
    import nibabel as nib

    header_class: Any = nib.Nifti1Header  # untyped
    header = header_class()
    header.set_data_shape(array.shape[-3:])
    header.set_qform(affine, code="scanner")
    header.set_sform(affine, code="scanner")
    header.set_xyzt_units("mm", "sec")
    return Volume(array, header.get_sform(), header, path)


def _channels_first(voxels: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], int]:
    """Return (C, X, Y, Z), a view, and the number of trailing axes of one."""
    shape = _squeezed_shape(voxels.shape)
    array = np.moveaxis(voxels.reshape((*shape[:3], -1)), -1, 0)
    return array, voxels.ndim - 3 if len(shape) == 3 else 0


def _bytes_per_voxel(image: Any) -> int:
    """Of the voxels as nibabel hands them over, with what it needs to scale them."""
    scaled = 0 if (image.dataobj.slope, image.dataobj.inter) == (1.0, 0.0) else 16
    return int(image.get_data_dtype().itemsize) + scaled


def read_label(path: Path) -> Volume:
    """Read a label map; floating point is accepted where every value is a whole number.

    Returns:
        int32 voxels.

    Raises:
        DataError: As ``read_image``, or values are not whole (within 1e-4) or beyond 32 bits.
    """
    voxels, image = _read(path)
    shape = _squeezed_shape(voxels.shape)
    if len(shape) > 3:
        raise DataError(
            f"label {path} holds {shape[3]} frames of {_by(shape[:3])} voxels; merge them into one "
            "map with a whole number for each class"
        )
    voxels = voxels.reshape(shape)
    if voxels.dtype.kind == "f":
        voxels = whole(voxels, path)
    if voxels.dtype.itemsize > 2:
        low, high = int(voxels.min()), int(voxels.max())
        if low < -(2**31) or high >= 2**31:
            found = f"values from {low} to {high}, beyond 32 bits"
            raise DataError(f"label {path} holds {found}; renumber them")
    array = np.ascontiguousarray(voxels, dtype=np.int32)
    return _volume(array, image, path, len(image.shape) - 3)


def check_same_grid(image: Volume, label: Volume) -> None:
    """Check that two volumes cover the same voxels of the world.

    Shapes must be equal, and no corner of one grid may lie further than
    ``GRID_TOLERANCE_VOXELS`` of a voxel from the same corner of the other.

    Raises:
        DataError: They do not, with both files and the numbers that differ.
    """
    cure = "resample one onto the other's grid"
    if image.shape != label.shape:
        unit, axes = "voxels", slice(None)
        if image.header is None:
            unit, axes, cure = "pixels", _WIDTH_BY_HEIGHT, _ONE_SIZE
        raise DataError(
            f"{label.path} has {_by(label.shape[axes])} {unit} but {image.path} has "
            f"{_by(image.shape[axes])}; {cure}"
        )
    distance = affine_distance(image.affine, label.affine, image.shape)
    if distance > GRID_TOLERANCE_VOXELS:
        row, column = np.unravel_index(np.abs(image.affine - label.affine).argmax(), (4, 4))
        raise DataError(
            f"{label.path} lies up to {distance:.3g} voxels away from {image.path}: affine entry "
            f"({row}, {column}) is {label.affine[row, column]:.7g} against "
            f"{image.affine[row, column]:.7g}; {cure}, or copy the right header"
        )


def affine_distance(
    affine: np.ndarray[Any, Any], other: np.ndarray[Any, Any], shape: Sequence[int]
) -> float:
    """Return how far apart two affines put a corner of a grid, at most.

    Args:
        affine: (4, 4), invertible.
        other: (4, 4).
        shape: (X, Y, Z) in voxels.

    Returns:
        The largest difference along an axis, in voxels of ``affine``.
    """
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in shape], [1])).reshape(4, -1)
    moved = np.linalg.solve(affine, other @ corners) - corners
    return float(np.abs(moved[:3]).max())


def form_distance(volume: Volume) -> float:
    """Return how far apart qform and sform put a corner of the grid, in voxels.

    It is 0 if one of them is unused (code 0), infinity if the qform is no rotation.
    """
    from nibabel.spatialimages import HeaderDataError

    header = volume.header
    if header["qform_code"] <= 0 or header["sform_code"] <= 0:
        return 0.0
    try:
        qform = header.get_qform()
    except HeaderDataError:
        return math.inf
    return affine_distance(volume.affine, qform, volume.shape)


def _read(path: Path, *, with_voxels: bool = True) -> tuple[np.ndarray[Any, Any], Any]:
    """Return the scaled voxels (or zeros) as the file shapes them, at least 3D, and the image."""
    import nibabel as nib

    path = Path(path)
    if not path.is_dir() and not is_volume_file(path.with_name(path.name.lstrip("."))):
        raise DataError(f"{path} is neither .nii nor .nii.gz; convert it to NIfTI")
    head = read_head(path)
    version = nifti_version(head)
    if not version:
        raise DataError(
            f"{path} is not NIfTI: it looks like {describe_head(head)}; convert it, or remove it"
        )
    image_class: Any = nib.Nifti1Image if version == 1 else nib.Nifti2Image  # typed in part
    is_compressed = path.name.lower().endswith(".gz")
    try:
        with (
            _quiet_nibabel(),
            gzip.open(path, "rb") if is_compressed else path.open("rb") as file,
        ):
            image = image_class.from_file_map({"image": nib.FileHolder(fileobj=file)}, mmap=False)
            check_header(image, path, is_compressed)
            if not with_voxels:
                return np.broadcast_to(np.float32(0), image.shape), image
            voxels = np.asanyarray(image.dataobj)
            while is_compressed and file.read(2**20):
                pass  # to the end, where gzip compares the checksum
    except _signs_of_damage() as error:
        _refuse_damaged(path, error)
    return voxels, image


def _signs_of_damage() -> tuple[type[Exception], ...]:
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError, HeaderTypeError
    from nibabel.wrapstruct import WrapStructError

    of_nibabel = (ImageFileError, HeaderDataError, HeaderTypeError, WrapStructError)
    return (EOFError, OSError, ValueError, OverflowError, zlib.error, *of_nibabel)


def _refuse_damaged(path: Path, error: Exception) -> NoReturn:
    reason = " ".join(str(error).split()) or type(error).__name__
    raise DataError(
        f"{path} is truncated or damaged ({reason}); copy or download it again"
    ) from error


def check_header(image: Any, path: Path, is_compressed: bool) -> None:
    """Refuse what nibabel lets pass: odd shapes, types, sizes and affines."""
    shape, dtype = image.shape, image.get_data_dtype()
    if len(shape) < 3 or min(shape) < 1:
        raise DataError(f"{path} has shape {_by(shape) or 'of nothing'}; a volume needs three axes")
    if dtype.kind not in "iuf":
        kind = "complex" if dtype.kind == "c" else "colour"
        raise DataError(f"{path} holds {kind} voxels ({dtype}); convert it to one number per voxel")
    ceiling = path.stat().st_size * (_DEFLATE_LIMIT if is_compressed else 1)
    if math.prod(shape) * dtype.itemsize > ceiling:
        raise DataError(
            f"{path} is truncated or damaged: {path.stat().st_size} bytes cannot hold the "
            f"{_by(shape)} voxels of its header; copy or download it again"
        )
    matrix = image.affine[:3, :3]
    lengths = np.linalg.norm(matrix, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        volume = abs(np.linalg.det(matrix / lengths))
    is_sane = bool(((lengths > _SMALLEST_EDGE) & (lengths < 1 / _SMALLEST_EDGE)).all())
    if not np.isfinite(image.affine).all() or not is_sane or not volume > 1e-6:
        raise DataError(
            f"{path} has an affine that maps voxels to no volume (column lengths "
            f"{', '.join(f'{length:.3g}' for length in lengths)}); repair its qform or sform"
        )


def _squeezed_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return (X, Y, Z), or (X, Y, Z, frames) where there is more than one."""
    frames = math.prod(shape[3:])
    return shape[:3] if frames == 1 else (*shape[:3], frames)


def _volume(array: np.ndarray[Any, Any], image: Any, path: Path, trailing: int) -> Volume:
    return Volume(array, image.affine.copy(), image.header.copy(), Path(path), trailing)


def _by(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)


@contextmanager
def _quiet_nibabel() -> Iterator[None]:
    """Silence nibabel's remarks on headers that it repairs while reading.

    They name no file and no cure; ``check`` reports what matters with both. Volumes are read in
    several threads, so nothing here may be switched off and on again for the whole program.
    """
    from nibabel.imageglobals import logger

    warnings.filterwarnings("ignore", "Extension size is not a multiple of 16", UserWarning)
    logger.addFilter(_is_from_elsewhere)  # once: adding it again changes nothing
    _reading.is_ours = True
    try:
        yield
    finally:
        _reading.is_ours = False


def _is_from_elsewhere(_: logging.LogRecord) -> bool:
    return not getattr(_reading, "is_ours", False)
