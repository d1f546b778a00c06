"""Exact tiles: parts of a volume in which a convolutional network answers as in the whole.

A tile is read with a margin as wide as the network's reach and starts where its deepest stride
falls, so every map inside is the one of the whole volume, padding at the volume's own borders
included. What a tile answers for (its core) leaves the margin out.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from voxseg.engine.network import SegmentationNetwork, deepest_stride
from voxseg.engine.sections import Blend

Region = tuple[slice, ...]
Size = tuple[int, ...]
_Part = tuple[tuple[int, int], tuple[int, int]]

_MOST_COST = 8.0
"""Voxels read for each voxel of the volume; windows that overlap by half read as many."""
_SMALLEST_CORE = 8


@dataclass(frozen=True)
class Tile:
    """One part of a volume."""

    core: Region
    """The voxels that it answers for."""
    outer: Region
    """The voxels that the network reads."""


@dataclass(frozen=True)
class Tiling:
    """How a volume is cut into tiles."""

    shape: Size
    """Of the volume."""
    core: Size
    """Largest core of a tile."""
    reach: Size
    """Voxels on each side that an answer depends on."""
    stride: Size
    """The network's deepest, of which outer tiles start at multiples."""

    @property
    def is_whole(self) -> bool:
        """Whether one tile covers the volume."""
        return all(c >= n for c, n in zip(self.core, self.shape, strict=True))

    @property
    def count(self) -> int:
        """Number of tiles."""
        return math.prod(-(-n // c) for n, c in zip(self.shape, self.core, strict=True))

    @property
    def outer(self) -> Size:
        """Size of the largest part that the network reads."""
        return tuple(max(b - a for _, (a, b) in axis) for axis in self._axes())

    @property
    def cost(self) -> float:
        """Voxels that the network reads, for each voxel of the volume."""
        read = [sum(b - a for _, (a, b) in axis) for axis in self._axes()]
        return math.prod(r / n for r, n in zip(read, self.shape, strict=True))

    def __iter__(self) -> Iterator[Tile]:
        """Go through the tiles, the last axis fastest."""
        for parts in itertools.product(*self._axes()):
            yield Tile(
                tuple(slice(*core) for core, _ in parts),
                tuple(slice(*outer) for _, outer in parts),
            )

    def __str__(self) -> str:
        if self.is_whole:
            return f"whole {'volume' if len(self.shape) == 3 else 'image'} at once"
        cut = [c for c, n in zip(self.core, self.shape, strict=True) if c < n]
        kind = "slabs" if len(cut) == 1 else "tiles"
        return f"{self.count} {kind} of {'x'.join(map(str, cut))}"

    def _axes(self) -> list[tuple[_Part, ...]]:
        sizes = zip(self.shape, self.core, self.reach, self.stride, strict=True)
        return [_parts(*axis) for axis in sizes]


@functools.cache
def _parts(n: int, core: int, reach: int, stride: int) -> tuple[_Part, ...]:
    """Core and outer part of every tile along one axis."""
    parts = []
    for start in range(0, n, core):
        stop = min(start + core, n)
        low = max(0, (start - reach) // stride * stride)
        high = min(n, -(-(stop + reach) // stride) * stride)
        parts.append(((start, stop), (low, high)))
    return tuple(parts)


@dataclass(frozen=True)
class Windows:
    """How a volume is covered by windows that overlap; each is seen alone, so borders differ."""

    shape: Size
    """Of the volume."""
    size: Size
    """Of a window, no larger than the volume."""
    overlap: float
    """Fraction that a window shares with the next, in [0, 1)."""
    blend: Blend = "gaussian"
    """How windows count where they overlap."""

    @property
    def axis(self) -> int:
        """The axis along which the volume is walked: its longest."""
        return int(np.argmax(self.shape))

    @property
    def starts(self) -> list[list[int]]:
        """First voxels of the windows along each axis."""
        found = []
        for n, size in zip(self.shape, self.size, strict=True):
            step = max(1, int(size * (1 - self.overlap)))
            found.append([*range(0, n - size, step), n - size])
        return found

    @property
    def count(self) -> int:
        """Number of windows."""
        return math.prod(len(starts) for starts in self.starts)

    def row(self, start: int) -> Iterator[Region]:
        """Go through the windows that start at one layer of ``axis``."""
        starts = self.starts
        starts[self.axis] = [start]
        for corner in itertools.product(*starts):
            yield tuple(slice(a, a + n) for a, n in zip(corner, self.size, strict=True))

    def layers(self, start: int, stop: int) -> Region:
        """Write some layers along ``axis`` as a region."""
        whole = [slice(0, n) for n in self.shape]
        whole[self.axis] = slice(start, stop)
        return tuple(whole)

    def __str__(self) -> str:
        size = "x".join(map(str, self.size))
        how = {"gaussian": "blended", "even": "averaged"}[self.blend]
        return f"{self.count} windows of {size}, {how} where they overlap"


def windows_of(
    shape: Sequence[int], size: Sequence[int], overlap: float, blend: Blend = "gaussian"
) -> Windows:
    """Cover ``shape`` with windows of ``size`` (its first number for other than its axes)."""
    wanted = tuple(size) if len(size) == len(shape) else (size[0],) * len(shape)
    fitting = tuple(min(w, n) for w, n in zip(wanted, shape, strict=True))
    return Windows(tuple(shape), fitting, overlap, blend)


def tilings(network: SegmentationNetwork, shape: Sequence[int]) -> list[Tiling]:
    """List the ways to cut a volume that read each voxel no more than eight times, cheapest first.

    The first is the whole volume in one. It stands alone where a normalisation looks at all of the
    image at once: no tile then answers as the whole.
    """
    size, stride = tuple(shape), deepest_stride(network)
    reach = network.reach
    if reach is None:
        return [Tiling(size, size, (0,) * len(size), stride)]
    choices = [_cores(n, s) for n, s in zip(size, stride, strict=True)]
    found = [Tiling(size, core, reach, stride) for core in itertools.product(*choices)]
    affordable = [tiling for tiling in found if tiling.is_whole or tiling.cost <= _MOST_COST]
    return sorted(affordable, key=lambda tiling: (tiling.cost, tiling.count))


def pick(candidates: Sequence[Tiling], need: Callable[[Tiling], float], budget: float) -> Tiling:
    """Take the first that fits the budget, or else the one that needs least."""
    for tiling in candidates:
        if need(tiling) <= budget:
            return tiling
    return min(candidates, key=need)


def _cores(n: int, stride: int) -> list[int]:
    """Sizes of a core to try along an axis: all of it, a half, a third, two thirds of these..."""
    sizes = {n}
    parts = 2
    while n // parts >= _SMALLEST_CORE:
        sizes.add(min(n, -(-n // (parts * stride)) * stride))
        parts = parts + 1 if parts < 4 else parts * 3 // 2
    return sorted(sizes, reverse=True)
