"""Arrays in NumPy archives (``.npz``), without pickles, and what is wrong with a file in words."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from voxseg.data.sniff import HEAD_BYTES, describe_head
from voxseg.errors import DataError

_SUFFIX = ".npy"
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError)


def array_names(path: Path) -> list[str]:
    """Return the names of the arrays in an archive, in the order in which they were written.

    Raises:
        DataError: The file is missing, damaged or no archive.
    """
    with _opened(path) as archive:
        return [name[: -len(_SUFFIX)] for name in archive.namelist() if name.endswith(_SUFFIX)]


def read_array(path: Path, name: str) -> np.ndarray[Any, Any]:
    """Read one array of an archive.

    Raises:
        DataError: As ``array_names``, or the archive has no such array.
    """
    with _opened(path) as archive, _member(archive, name, path) as file:
        array: np.ndarray[Any, Any] = npy.read_array(file, allow_pickle=False)
        while file.read(2**16):
            pass  # to the end, where the checksum is compared
    return array


def array_header(path: Path, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read the shape and type of one array of an archive, without its values.

    Raises:
        DataError: As ``read_array``, as far as headers tell.
    """
    with _opened(path) as archive, _member(archive, name, path) as file:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
    return shape, dtype


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the name") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; name an archive inside it") from None
    except _DAMAGED as error:
        raise DataError(
            f"{path} is {_looks(path)} and cannot be read as a NumPy archive "
            f"({' '.join(str(error).split())}); save it again with numpy.savez"
        ) from None


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> IO[bytes]:
    try:
        return archive.open(name + _SUFFIX)
    except KeyError:
        found = [one[: -len(_SUFFIX)] for one in archive.namelist() if one.endswith(_SUFFIX)]
        raise DataError(
            f"{path} has no array called {name} (it has {', '.join(found) or 'none'}); save it "
            f"under that name with numpy.savez"
        ) from None


def _looks(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return describe_head(head) if head else "an empty file"
