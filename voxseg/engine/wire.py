"""Python objects through a pipe: tensors and arrays are sent as they lie in memory."""

import io
import pickle
import struct
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxseg.data.mapped import map_array

_NUMBER = struct.Struct("<Q")
_LARGE = 2**20  # bytes from which an array is written to a file once instead of sent to each worker


class _Pickler(pickle.Pickler):
    """Turn tensors into arrays, which pickle can hand out without a copy."""

    def __init__(self, file: io.BytesIO, buffers: list[pickle.PickleBuffer] | None = None) -> None:
        super().__init__(file, 5, buffer_callback=None if buffers is None else buffers.append)

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is torch.Tensor:
            return torch.from_numpy, (obj.numpy(),)
        return NotImplemented


class _SharingPickler(_Pickler):
    """Put large arrays into files of ``folder``, named by their content."""

    def __init__(self, file: io.BytesIO, folder: Path) -> None:
        super().__init__(file)
        self._folder = folder

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is np.ndarray and obj.nbytes >= _LARGE:
            digest = blake2b(np.ascontiguousarray(obj).data, digest_size=16).hexdigest()
            return map_array(obj, self._folder / f"{digest}.raw").__reduce_ex__(5)
        return super().reducer_override(obj)


def pickle_sharing(content: object, folder: Path) -> bytes:
    """Pickle for several processes: large arrays go to files of ``folder``, which all of them map.

    Raises:
        VoxsegError: ``folder`` cannot be written.
    """
    stream = io.BytesIO()
    _SharingPickler(stream, folder).dump(content)
    return stream.getvalue()


def pack(content: object) -> list[memoryview]:
    """Turn an object into blocks of bytes; those of arrays are not copied."""
    stream, buffers = io.BytesIO(), list[pickle.PickleBuffer]()
    _Pickler(stream, buffers).dump(content)
    return [stream.getbuffer(), *(buffer.raw() for buffer in buffers)]


def send(pipe: io.FileIO, blocks: Sequence[memoryview]) -> None:
    """Write what ``pack`` gave; wait while the pipe is full."""
    sizes = b"".join(_NUMBER.pack(block.nbytes) for block in blocks)
    for block in (memoryview(_NUMBER.pack(len(blocks)) + sizes), *blocks):
        done = 0
        while done < block.nbytes:
            done += pipe.write(block[done:])


def receive(pipe: io.FileIO) -> Any:
    """Wait for one object.

    Raises:
        EOFError: the other end was closed, maybe in the midst of an object.
    """
    (count,) = _NUMBER.unpack(_read(pipe, _NUMBER.size))
    sizes = struct.unpack(f"<{count}Q", _read(pipe, count * _NUMBER.size))
    stream, *buffers = (_read(pipe, size) for size in sizes)
    return pickle.loads(stream, buffers=buffers)


def _read(pipe: io.FileIO, size: int) -> bytearray:
    block = bytearray(size)
    rest = memoryview(block)
    while rest.nbytes:
        got = pipe.readinto(rest)
        if not got:
            raise EOFError
        rest = rest[got:]
    return block
