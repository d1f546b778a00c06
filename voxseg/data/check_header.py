"""A NIfTI header by itself: what the cheap check reads and what ``--fix`` edits.

Source: the NIfTI-1 and NIfTI-2 standards for the fields. Which affine counts is nibabel's rule, as
in ``volume.py``; a test holds the two together on odd headers. Voxels stay the bytes they are
unless somebody asks for their values, so that a mended copy keeps type, scaling and extensions.
"""

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxseg.data.orientation import orientation_of
from voxseg.data.sniff import describe_head, nifti_version, read_head
from voxseg.data.volume import Volume, affine_distance, check_header
from voxseg.errors import DataError

_FIELDS: dict[int, dict[str, tuple[str, int]]] = {
    1: {
        "dim": ("8i2", 40), "datatype": ("i2", 70), "bitpix": ("i2", 72), "pixdim": ("8f4", 76),
        "vox_offset": ("f4", 108), "scl_slope": ("f4", 112), "scl_inter": ("f4", 116),
        "xyzt_units": ("u1", 123), "cal_max": ("f4", 124), "cal_min": ("f4", 128),
        "qform_code": ("i2", 252), "sform_code": ("i2", 254), "quatern": ("3f4", 256),
        "qoffset": ("3f4", 268), "srow": ("(3,4)f4", 280),
    },
    2: {
        "datatype": ("i2", 12), "bitpix": ("i2", 14), "dim": ("8i8", 16), "pixdim": ("8f8", 104),
        "vox_offset": ("i8", 168), "scl_slope": ("f8", 176), "scl_inter": ("f8", 184),
        "cal_max": ("f8", 192), "cal_min": ("f8", 200), "qform_code": ("i4", 344),
        "sform_code": ("i4", 348), "quatern": ("3f8", 352), "qoffset": ("3f8", 376),
        "srow": ("(3,4)f8", 400), "xyzt_units": ("i4", 500),
    },
}  # fmt: skip
_HEADER_BYTES = {1: 348, 2: 540}
_QUATERNION_EPS = {
    1: 3 * float(np.finfo(np.float32).eps),
    2: 3 * float(np.finfo(np.float64).eps),
}
_TYPES: dict[int, Any] = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 32: "c8", 64: "f8", 256: "i1", 512: "u2", 768: "u4",
    1024: "i8", 1280: "u8", 1792: "c16",
    128: [("R", "u1"), ("G", "u1"), ("B", "u1")],
    2304: [("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")],
}  # fmt: skip
_TYPE_CODES = {name: code for code, name in _TYPES.items() if isinstance(name, str)}
_UNIT_CODES = frozenset(length + time for length in range(4) for time in range(0, 56, 8))
_UNITS = {1: ("meter", 1000.0), 2: ("mm", 1.0), 3: ("micron", 0.001)}
_LETTERS = ("LR", "PA", "IS")


@dataclass(frozen=True, eq=False)
class StoredHeader:
    """The fields of one file's header that matter here, in the file's own byte order."""

    path: Path
    version: int
    """1 or 2."""
    fields: np.ndarray[Any, Any]
    """Zero-dimensional, structured; lies over the bytes of the header, so edits change those."""

    @property
    def shape(self) -> tuple[int, ...]:
        """All axes, trailing ones included."""
        dim = self.fields["dim"].tolist()
        return tuple(dim[1 : 1 + max(0, min(dim[0], 7))])

    @property
    def grid(self) -> tuple[int, ...]:
        """(X, Y, Z)."""
        return self.shape[:3]

    def get_data_dtype(self) -> np.dtype[Any]:
        """Return the type of the voxels as stored; named as in nibabel, whose checks call it.

        Raises:
            DataError: The code stands for no type that NumPy has.
        """
        code = int(self.fields["datatype"])
        if code not in _TYPES:
            raise DataError(
                f"{self.path} is truncated or damaged (its header has the voxel type {code}); copy "
                "or download it again"
            )
        dtype: np.dtype[Any] = np.dtype(_TYPES[code])
        return dtype.newbyteorder(self.fields.dtype["dim"].base.byteorder)

    @property
    def scaling(self) -> tuple[float, float] | None:
        """Slope and intercept that stored numbers are taken through, None without."""
        slope, inter = float(self.fields["scl_slope"]), float(self.fields["scl_inter"])
        if slope == 0 or not np.isfinite(slope) or (slope, inter) == (1, 0):
            return None
        return slope, inter

    def get_xyzt_units(self) -> tuple[str]:
        """Return the unit of length; named as in nibabel."""
        return (_UNITS.get(int(self.fields["xyzt_units"]) & 7, ("unknown", 1.0))[0],)

    @property
    def unit_mm(self) -> float:
        """Length of the affine's unit; 1 where the header does not say."""
        return _UNITS.get(int(self.fields["xyzt_units"]) & 7, ("unknown", 1.0))[1]

    @property
    def form(self) -> str:
        """Where the affine comes from: ``sform``, ``qform`` or ``none``."""
        if 0 < self.fields["sform_code"] < 6:
            return "sform"
        return "qform" if 0 < self.fields["qform_code"] < 6 else "none"

    @property
    def has_both(self) -> bool:
        """Whether qform and sform both claim to hold."""
        return self.form == "sform" and 0 < int(self.fields["qform_code"]) < 6

    @property
    def sizes(self) -> np.ndarray[Any, Any]:
        """Voxel size by ``pixdim``, in the affine's unit; 0 counts as 1."""
        sizes: np.ndarray[Any, Any] = np.abs(self.fields["pixdim"][1:4].astype(float))
        return np.where(sizes == 0, 1, sizes)

    @property
    def affine(self) -> np.ndarray[Any, Any]:
        """(4, 4) float64 by nibabel's rule.

        Raises:
            DataError: Only the qform holds, and it is no rotation.
        """
        if self.form == "sform":
            return np.vstack([self.fields["srow"].astype(float), [0, 0, 0, 1]])
        if self.form == "qform":
            qform = self.qform
            if qform is None:
                raise DataError(f"{self.path} has a qform that is no rotation; repair its header")
            return qform
        sizes = self.sizes * np.array((-1, 1, 1))
        affine = np.diag([*sizes, 1.0])
        affine[:3, 3] = (1 - np.array(self.grid)) / 2 * sizes
        return affine

    @property
    def qform(self) -> np.ndarray[Any, Any] | None:
        """(4, 4) float64 of the quaternion, whatever its code; None if it is no rotation."""
        b, c, d = (float(part) for part in self.fields["quatern"])
        rest = 1 - b * b - c * c - d * d
        if not rest >= -_QUATERNION_EPS[self.version]:
            return None
        a = float(np.sqrt(max(rest, 0.0)))
        rotation = np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
            ]
        )
        sizes = self.sizes * np.array((1, 1, -1 if self.fields["pixdim"][0] == -1 else 1))
        affine = np.eye(4)
        affine[:3, :3] = rotation * sizes
        affine[:3, 3] = self.fields["qoffset"]
        return affine if np.isfinite(affine).all() else None

    @property
    def form_distance_voxels(self) -> float:
        """How far apart qform and sform put a corner; 0 unless both hold, infinity if no rotation.

        The same in mm is this times the voxel size at most.
        """
        if not self.has_both:
            return 0.0
        qform = self.qform
        return np.inf if qform is None else affine_distance(self.affine, qform, self.grid)

    @property
    def shear_degrees(self) -> float:
        """By how much two axes of the array miss a right angle, at most."""
        linear = self.affine[:3, :3]
        unit = linear / np.linalg.norm(linear, axis=0)
        cosines = np.abs(unit.T @ unit)[np.triu_indices(3, 1)]
        return float(np.degrees(np.arcsin(min(1.0, cosines.max()))))

    @property
    def orientation(self) -> str:
        """Where the axes of the array run to, as three letters: ``RAS`` is right, front, up."""
        found = orientation_of(self.affine)
        letters = [""] * 3
        for world, (axis, is_flipped) in enumerate(zip(found.axes, found.flipped, strict=True)):
            letters[axis] = _LETTERS[world][0 if is_flipped else 1]
        return "".join(letters)

    @property
    def handedness(self) -> str:
        """``left`` if the array is a mirror image of its world, else ``right``."""
        return "left" if np.linalg.det(self.affine[:3, :3]) < 0 else "right"

    def as_volume(self) -> Volume:
        """Return a volume without content, for the checks that look at grids only."""
        nothing = np.broadcast_to(np.float32(0), self.grid)
        return Volume(nothing, self.affine, self, self.path, max(0, len(self.shape) - 3))


def read_header(path: Path) -> StoredHeader:
    """Read and check a header without its voxels.

    Raises:
        DataError: The file is not NIfTI, is too small for its header, has fewer than three axes,
            colour or complex voxels, or no usable affine, in the words of ``read_image``; or a unit
            that nobody knows.
    """
    header = parse_header(path, read_head(path))
    with np.errstate(all="ignore"):  # headers may hold anything; what is not finite is refused
        check_header(header, path, path.name.lower().endswith(".gz"))
    code = int(header.fields["xyzt_units"])
    if code not in _UNIT_CODES:
        raise DataError(
            f"{path} is measured in a unit that NIfTI does not have (code {code}); repair its "
            "header: 2 is mm"
        )
    return header


def parse_header(path: Path, head: bytes | bytearray) -> StoredHeader:
    """Lay the fields of a header over its bytes; a ``bytearray`` changes with them.

    Raises:
        DataError: The bytes begin no NIfTI file.
    """
    version = nifti_version(bytes(head[:544]))
    if not version or len(head) < _HEADER_BYTES[version]:
        raise DataError(
            f"{path} is not NIfTI: it looks like {describe_head(bytes(head[:544]))}; convert it, "
            "or remove it"
        )
    size = _HEADER_BYTES[version]
    order = "<" if struct.unpack("<i", head[:4])[0] == size else ">"
    fields = _FIELDS[version]
    layout: Any = {
        "names": list(fields),
        "formats": [form for form, _ in fields.values()],
        "offsets": [offset for _, offset in fields.values()],
        "itemsize": size,
    }
    laid = np.frombuffer(head, np.dtype(layout).newbyteorder(order), count=1)
    return StoredHeader(path, version, laid.reshape(()))


def read_content(path: Path) -> tuple[StoredHeader, bytearray]:
    """Read a whole file, decompressed; the header lies over the first of its bytes.

    Raises:
        DataError: It is damaged, or no NIfTI.
    """
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            content = bytearray(file.read())
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{path} is truncated or damaged ({error}); copy or download it again"
        ) from error
    return parse_header(path, content), content


def stored_voxels(header: StoredHeader, content: bytearray) -> np.ndarray[Any, Any]:
    """Return the numbers of a file as they are stored, (X, Y, Z, ...), over ``content``'s bytes.

    Raises:
        DataError: There are fewer than the header says.
    """
    dtype, count = header.get_data_dtype(), int(np.prod(header.shape))
    offset = voxel_offset(header)
    if not 0 <= offset <= len(content) - count * dtype.itemsize:
        raise DataError(
            f"{header.path} is truncated or damaged (it ends before its last voxel); copy or "
            "download it again"
        )
    return np.frombuffer(content, dtype, count, offset).reshape(header.shape, order="F")


def voxel_offset(header: StoredHeader) -> int:
    """Return where the voxels begin, -1 if the header says no such place."""
    offset = float(header.fields["vox_offset"])
    return int(offset) if 0 <= offset < 2**53 else -1


def type_code(dtype: np.dtype[Any]) -> int:
    """Return NIfTI's code of a number type."""
    return _TYPE_CODES[dtype.str[1:]]
