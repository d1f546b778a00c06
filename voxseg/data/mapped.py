"""Arrays kept in files and mapped into memory: several processes share one copy.

A mapped array is pickled as the name of its file, not as its content. It holds no file open, so
that a data set may have more arrays than a process may open files (``numpy.memmap`` holds one).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxseg.files import replacing


class MappedArray(np.ndarray[Any, Any]):
    """An array whose content lies in a file; what is written to it stays in this process.

    Views and results of arithmetic are arrays like any other: only the whole is pickled by name.
    """

    path: Path | None

    def __array_finalize__(self, source: object) -> None:
        self.path = None

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.path is None:
            return np.asarray(self).__reduce_ex__(protocol)
        return open_mapped, (self.path, self.shape, self.dtype.str)


def map_array(array: np.ndarray[Any, Any], path: Path) -> MappedArray:
    """Write ``array`` to ``path``, whole or not at all, and map the file.

    Args:
        array: of a dtype that torch knows too.
        path: replaced if it exists; who has the old file mapped keeps it.

    Raises:
        VoxsegError: the file cannot be written.
    """
    with replacing(path) as temporary:
        np.ascontiguousarray(array).tofile(temporary)
    return open_mapped(path, array.shape, array.dtype.str)


def open_mapped(path: Path, shape: tuple[int, ...], dtype: str) -> MappedArray:
    """Map a file that ``map_array`` wrote.

    Args:
        path: the file.
        shape: of the array.
        dtype: as numpy spells it, like "<f4".
    """
    empty = np.empty(0, dtype)
    size = int(np.prod(shape))
    if not size:  # nothing can be mapped
        return np.empty(shape, dtype).view(MappedArray)
    kind = torch.from_numpy(empty).dtype
    # torch closes the file once it is mapped; not shared means that no write reaches the file.
    flat = torch.from_file(str(path), shared=False, size=size, dtype=kind).numpy()
    mapped = flat.reshape(shape).view(MappedArray)
    mapped.path = path
    return mapped
