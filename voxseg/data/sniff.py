"""What a file really is, told from its first bytes: names lie, bytes do not.

Source: the magic numbers of the formats themselves; NIfTI-1 and NIfTI-2 headers begin with their
own length (348 or 540) and carry ``n+1`` or ``n+2``.
"""

import gzip
import struct
import zlib
from pathlib import Path

from voxseg.errors import DataError

HEAD_BYTES = 544
"""Enough for a NIfTI-2 header and for the DICOM preamble."""

_GZIP = b"\x1f\x8b"

_MAGIC = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"BM", "a bitmap image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"NRRD", "an NRRD volume"),
    (b"ObjectType", "a MetaImage header"),
    (b"\x89HDF", "an HDF5 or MINC file"),
    (b"CDF\x01", "a MINC-1 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x00\x00\x00\x01", "an MGH volume"),
    (b"version https://git-lfs", "a Git LFS pointer (run `git lfs pull` to get the file itself)"),
    (b"<!DOCTYPE html", "a web page, perhaps of a failed download"),
    (b"<html", "a web page, perhaps of a failed download"),
)
_PRINTABLE = frozenset(range(32, 127)) | frozenset(b"\t\n\r\f")


def read_head(path: Path) -> bytes:
    """Read the first bytes of ``path``, decompressed if the name ends in ``.gz``.

    Returns:
        At most ``HEAD_BYTES`` bytes.

    Raises:
        DataError: The file is missing, a folder, empty, unreadable or cut off, or its compression
            is not what its name says.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; check the name and the folder") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; name a NIfTI file inside it") from None
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}; check its permissions"
        ) from error
    if not head:
        raise DataError(f"{path} is empty (0 bytes); copy or download it again")
    compressed = head.startswith(_GZIP)
    if not path.name.lower().endswith(".gz"):
        if compressed:
            raise DataError(f"{path} is gzip-compressed; rename it to {path.name}.gz")
        return head
    if compressed:
        return _decompress_head(path)
    if nifti_version(head):
        raise DataError(f"{path} is not compressed; rename it to {path.name[:-3]}")
    return head


def _decompress_head(path: Path) -> bytes:
    try:
        with gzip.open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{path} is truncated or damaged ({error}); copy or download it again"
        ) from error
    if not head:
        raise DataError(f"{path} is a compressed file with nothing in it; make it again")
    return head


def nifti_version(head: bytes) -> int:
    """Tell whether ``head`` begins a single-file NIfTI volume.

    Returns:
        1 or 2, or 0 if it does not.
    """
    if len(head) < 348:
        return 0
    for version, size, magic in ((1, 348, head[344:347]), (2, 540, head[4:7])):
        lengths = struct.unpack("<i", head[:4]) + struct.unpack(">i", head[:4])
        if size in lengths and magic == b"n+%d" % version:
            return version
    return 0


def describe_head(head: bytes) -> str:
    """Say in a few words what a file that is not NIfTI looks like."""
    if head[128:132] == b"DICM":
        return "a DICOM file"
    for magic, words in _MAGIC:
        if head.startswith(magic):
            return words
    if len(head) >= 348 and head[344:347] in (b"ni1", b"ni2"):
        return "a NIfTI header whose voxels are in a separate .img file"
    if len(head) >= 348 and 348 in struct.unpack("<i", head[:4]) + struct.unpack(">i", head[:4]):
        return "an Analyze 7.5 header or a damaged NIfTI header"
    if _PRINTABLE.issuperset(head):
        return "a text file"
    return "something else"
