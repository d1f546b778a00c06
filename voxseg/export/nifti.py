"""NIfTI masks and maps on the grid of the image that they belong to, header and all.

Source: the NIfTI-1 standard (Cox et al., 2004) for the fields; nibabel for the bytes.
The file takes over the source's header: qform, sform and their codes, voxel sizes (a zero
``pixdim[4]`` included), units, description, slice and time fields, byte order and extensions. What
described the source's voxels is set anew: data type, shape, scaling 1 and 0, display range, no
intent. Every file is written under a temporary name, read back, compared, and only then renamed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from voxseg.errors import UsageError, VoxsegError
from voxseg.files import replacing

_INTEGER_TYPES = (np.uint8, np.int16, np.uint16, np.int32)
"""Tried in this order; of equal size, the signed type first because more programs read it."""

_LABEL_INTENT = 1002
_GEOMETRY_FIELDS = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y",
    "qoffset_z", "srow_x", "srow_y", "srow_z", "pixdim", "xyzt_units", "descrip",
)  # fmt: skip


class HasGeometry(Protocol):
    """What a written file takes over from its source; ``data.volume.Volume`` has it."""

    @property
    def affine(self) -> np.ndarray[Any, Any]:
        """(4, 4) float64, as nibabel decided it from the header."""

    @property
    def header(self) -> Any:
        """NIfTI-1 or NIfTI-2 header of nibabel."""

    @property
    def trailing(self) -> int:
        """Number of trailing axes of one to put back."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """The geometry of a volume that comes from no file."""

    affine: np.ndarray[Any, Any]
    """(4, 4) float64."""
    header: Any
    """NIfTI-1 header with this affine as qform (without shear) and sform."""
    trailing: int = 0
    """Always without extra axes."""


def plain_geometry(
    affine: np.ndarray[Any, Any], shape: tuple[int, ...], *, code: str = "scanner"
) -> Geometry:
    """Make the geometry of a volume that was computed, not read.

    Args:
        affine: (4, 4), voxel indices to mm.
        shape: (X, Y, Z) in voxels.
        code: What the world is: ``scanner``, ``aligned``, ``talairach`` or ``mni``.

    Returns:
        The geometry; its affine is rounded to float32, as the header stores it.
    """
    import nibabel as nib

    header_class: Any = nib.Nifti1Header  # untyped
    header = header_class()
    header.set_data_shape(shape)
    header.set_qform(affine, code=code)
    header.set_sform(affine, code=code)
    header.set_xyzt_units("mm", "sec")
    return Geometry(header.get_sform(), header)


def write_mask(path: Path, label: np.ndarray[Any, Any], like: HasGeometry) -> Path:
    """Write a label map, boolean mask or superpixel map in the smallest integer type that holds it.

    Args:
        path: ``.nii`` or ``.nii.gz``; its folder is made if needed. An existing file is replaced.
        label: (X, Y, Z) integer or boolean.
        like: Geometry of the source image.

    Returns:
        ``path``.

    Raises:
        TypeError: ``label`` is neither integer nor boolean.
        ValueError: It is not on the source's grid, or beyond 32 bits.
        UsageError: The name does not end in ``.nii`` or ``.nii.gz``.
        VoxsegError: The file cannot be written, or does not read back as it was written.
    """
    if label.dtype.kind not in "biu":
        raise TypeError(f"label must be integer or boolean, got {label.dtype}")
    if label.ndim != 3:
        raise ValueError(f"label must be (X, Y, Z), got {label.shape}")
    low, high = (int(label.min()), int(label.max())) if label.size else (0, 0)
    dtype = _smallest_type(low, high)
    return _write(path, label.astype(dtype, copy=False), like, display_range=(min(low, 0), high))


def write_map(path: Path, values: np.ndarray[Any, Any], like: HasGeometry) -> Path:
    """Write a floating point map (a probability, an entropy, a distance) as float32.

    Args:
        path: As for ``write_mask``.
        values: (X, Y, Z), or (C, X, Y, Z), written as C frames of one 4D file.
        like: Geometry of the source image.

    Returns:
        ``path``.

    Raises:
        ValueError: ``values`` is not on the source's grid.
        UsageError: The name does not end in ``.nii`` or ``.nii.gz``.
        VoxsegError: The file cannot be written, or does not read back as it was written.
    """
    if values.ndim not in (3, 4):
        raise ValueError(f"values must be (X, Y, Z) or (C, X, Y, Z), got {values.shape}")
    if values.ndim == 4:
        values = np.moveaxis(values, 0, -1)
    return _write(path, values.astype(np.float32, copy=False), like, display_range=(0, 0))


def nifti_bytes(
    voxels: np.ndarray[Any, Any],
    affine: np.ndarray[Any, Any],
    *,
    slope: float = 1.0,
    intercept: float = 0.0,
    is_label: bool = False,
) -> bytes:
    """Return a volume as the content of a ``.nii`` file, for what is not written to a disk.

    Args:
        voxels: (X, Y, Z) uint8, stored as they are.
        affine: (4, 4), voxel indices to mm in RAS+.
        slope: The value of a voxel is ``slope * voxel + intercept``.
        intercept: See ``slope``.
        is_label: Say in the header that these are labels.
    """
    import nibabel as nib

    header_class: Any = nib.Nifti1Header  # untyped
    header = header_class(endianness="<")
    header.set_data_dtype(np.uint8)
    header.set_data_shape(voxels.shape)
    header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
    header.set_sform(affine, code="scanner")
    header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"] = slope, intercept
    header["intent_code"] = _LABEL_INTENT if is_label else 0
    header["magic"], header["vox_offset"] = b"n+1", header.single_vox_offset
    gap = bytes(header.single_vox_offset - len(header.binaryblock))
    return bytes(header.binaryblock + gap + voxels.astype(np.uint8).tobytes(order="F"))


def _smallest_type(low: int, high: int) -> type[np.integer[Any]]:
    for dtype in _INTEGER_TYPES:
        info = np.iinfo(dtype)
        if info.min <= low and high <= info.max:
            return dtype
    raise ValueError(f"label values from {low} to {high} do not fit in 32 bits")


def _write(
    path: Path,
    voxels: np.ndarray[Any, Any],
    like: HasGeometry,
    display_range: tuple[float, float],
) -> Path:
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise UsageError(f"cannot write {path}: the name must end in .nii or .nii.gz")
    grid = tuple(like.header.get_data_shape()[:3])
    if grid != voxels.shape[:3]:
        raise ValueError(f"voxels {voxels.shape} are not on the grid {grid} of the source")
    if voxels.ndim == 3:
        voxels = voxels.reshape(voxels.shape + (1,) * like.trailing)
    image = _image(voxels, like, display_range)
    with replacing(path) as temporary:
        image.to_filename(temporary)
        _check_written(temporary, path, image, like)
    return path


def _image(
    voxels: np.ndarray[Any, Any], like: HasGeometry, display_range: tuple[float, float]
) -> Any:
    """Return nibabel's image of ``voxels`` under a copy of the source's header."""
    import nibabel as nib

    header = like.header.copy()
    header.set_data_dtype(voxels.dtype)  # the byte order stays the header's
    pixdim = header["pixdim"].copy()
    header.set_data_shape(voxels.shape)
    header["pixdim"] = pixdim  # set_data_shape puts 1 beyond the last axis
    header["vox_offset"] = 0  # set by nibabel from the size of the extensions
    header["cal_min"], header["cal_max"] = display_range
    header["intent_p1"] = header["intent_p2"] = header["intent_p3"] = 0
    header["intent_code"] = 0
    header["intent_name"] = b""
    if "glmin" in header:  # NIfTI-1 only
        header["glmin"] = header["glmax"] = 0
    image_class: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    # Without an affine of its own the image keeps the header's, whatever its codes. A scaling that
    # the header may have had is not taken over by a new image.
    return image_class(voxels, None, header)


def _check_written(temporary: Path, path: Path, image: Any, like: HasGeometry) -> None:
    """Raise unless the file on disk has the image's voxels and the source's geometry to the bit."""
    written = type(image).from_filename(temporary, mmap=False)
    header = written.header
    differing = [
        field
        for field in _GEOMETRY_FIELDS
        if header[field].tobytes() != like.header[field].tobytes()
    ]
    if not np.array_equal(written.affine, like.affine):
        differing.append("affine")
    if _extensions(header) != _extensions(like.header):
        differing.append("extensions")
    voxels = np.asanyarray(image.dataobj)
    if written.shape != voxels.shape or not np.array_equal(
        np.asanyarray(written.dataobj), voxels, equal_nan=voxels.dtype.kind == "f"
    ):
        differing.append("voxels")
    if differing:
        raise VoxsegError(
            f"cannot write {path}: it read back with another {', '.join(differing)} than was "
            "written; check the source's header and the disk"
        )


def _extensions(header: Any) -> list[tuple[int, bytes]]:
    """Return code and content of every extension; trailing zeros are padding."""
    return [
        (extension.get_code(), extension.content.rstrip(b"\0")) for extension in header.extensions
    ]
