"""Copies of a kernel's arguments, with poison round them, for ``host.py``."""

import ctypes
from collections.abc import Sequence

import numpy as np
from torch import Tensor

RED_ZONE = 64 * 1024
"""Bytes round every argument that no kernel may touch."""
POISON = 0x7F
"""What red zones hold: floats of 3.4e38, integers near their end."""


class Arena:
    """Copies of arguments, far apart in one piece of memory whose rest is poisoned.

    Tensors that share memory share it here too. As on a GPU, a tensor's memory begins at a multiple
    of 256 bytes; a view stays as far behind it as it was.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        spans = sorted((_span(tensor), index) for index, tensor in enumerate(tensors))
        self._ranges: list[list[int]] = []  # first byte, end, place, first tensor of each
        for (start, end), index in spans:
            if self._ranges and start < self._ranges[-1][1]:
                self._ranges[-1][1] = max(end, self._ranges[-1][1])
            else:
                self._ranges.append([start, end, 0, index])
        size = RED_ZONE
        for row in self._ranges:
            away = row[0] - tensors[row[3]].untyped_storage().data_ptr()
            size += away % 256 - size % 256 + 256
            row[2] = size
            size += row[1] - row[0] + RED_ZONE
        self._memory = np.full(size + 256, POISON, np.uint8)
        self._base = -(-self._memory.ctypes.data // 256) * 256
        self._size = size
        for start, end, place, _ in self._ranges:
            ctypes.memmove(self._base + place, start, end - start)

    def address(self, tensor: Tensor) -> int:
        own = tensor.data_ptr()
        fitting = [r for r in self._ranges if r[0] <= own <= r[1]]
        # An empty tensor may lie at the end of another.
        start, _, place, _ = max(fitting, key=lambda r: (r[0] == own, own < r[1]))
        return self._base + place + own - start

    def watch(self, library: ctypes.CDLL) -> None:
        """Tell the race checker or the meter where the arguments are."""
        count = len(self._ranges)
        places = (ctypes.c_uint64 * count)(*(row[2] for row in self._ranges))
        sizes = (ctypes.c_uint64 * count)(*(row[1] - row[0] for row in self._ranges))
        tensors = (ctypes.c_int * count)(*(row[3] for row in self._ranges))
        base, size = ctypes.c_void_p(self._base), ctypes.c_uint64(self._size)
        library.voxseg_watch_arguments(base, size, count, places, sizes, tensors)

    def damage(self) -> str:
        """Say whether a kernel wrote outside of its arguments."""
        memory = self._memory[self._base - self._memory.ctypes.data :]
        before, last = 0, -1
        for start, end, place, tensor in [*self._ranges, (0, 0, self._size, -1)]:
            touched = np.flatnonzero(memory[before:place] != POISON)
            if touched.size:
                away = place - before - int(touched[-1])
                if tensor < 0 or away > RED_ZONE // 2:
                    return f"a write behind the end of argument #{last}, by {touched[0]} bytes"
                return f"a write in front of argument #{tensor}, by {away} bytes"
            before, last = place + end - start, tensor
        return ""

    def copy_back(self) -> None:
        """Write what has changed; a tensor that only is read may lie in read-only memory."""
        for start, end, place, _ in self._ranges:
            size = end - start
            if ctypes.string_at(self._base + place, size) != ctypes.string_at(start, size):
                ctypes.memmove(start, self._base + place, size)


def _span(tensor: Tensor) -> tuple[int, int]:
    """First byte and end of what a tensor covers; strides are never negative."""
    start = tensor.data_ptr()
    if not tensor.numel():
        return start, start
    steps = (stride * (n - 1) for stride, n in zip(tensor.stride(), tensor.shape, strict=True))
    return start, start + (sum(steps) + 1) * tensor.element_size()
