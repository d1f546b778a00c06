"""A 2D network's pass over a prepared volume, slice by slice; a photograph is one slice.

Each slice goes through as a volume does (``streaming``): at once where it fits, else in parts. It
may be seen larger or smaller than it is; its probabilities then come back to its own size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from voxseg.data.prepare import Prepared, coordinate_channels
from voxseg.data.superpixels import compact
from voxseg.data.warp import resized
from voxseg.engine.config import PredictConfig
from voxseg.engine.device import Compute
from voxseg.engine.gather import Gathered
from voxseg.engine.memory import plan_memory
from voxseg.engine.network import SegmentationNetwork
from voxseg.engine.streaming import View, run_pass
from voxseg.engine.tiles import Region
from voxseg.tasks.answers import Answer


@dataclass(frozen=True)
class SliceView:
    """How a 2D network sees a volume."""

    axis: int
    """Across the slices: 2 is axial in RAS+ order."""
    neighbours: int = 0
    """Slices on each side that are further channels."""
    coordinates: bool = False
    """Append the position of each voxel, one channel an axis of the volume."""
    scale: float = 1.0
    """Size at which a slice is seen, relative to its own."""
    shorter_side: int = 0
    """Pixels of its shorter side at a ``scale`` of 1; 0 for its own."""
    flips: tuple[int, ...] = ()
    """Axes of the volume along which a slice is mirrored; ``axis`` itself has no effect."""

    @property
    def plane(self) -> tuple[int, ...]:
        """Axes of the volume that a slice has, in order."""
        return tuple(axis for axis in range(3) if axis != self.axis)

    def size(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Size at which the slices of a volume of ``shape`` are seen."""
        own = [shape[axis] for axis in self.plane]
        scale = self.scale * (self.shorter_side / min(own) if self.shorter_side else 1)
        return tuple(max(1, round(length * scale)) for length in own)


def run_slices(
    network: SegmentationNetwork,
    case: Prepared,
    look: SliceView,
    compute: Compute,
    settings: PredictConfig,
    gathered: Gathered,
    answer: Answer,
) -> None:
    """Run one member over all slices of a case and hand its probabilities over.

    Args:
        network: of two axes.
        case: prepared, with supervoxels where the network pools them; each slice pools its own.
        look: which slices, and how they are seen.
        compute: device, precision, memory layout.
        settings: memory budget of a slice, and windows.
        gathered: takes the probabilities.
        answer: how the network's outputs are read.
    """
    for number in range(case.shape[look.axis]):
        one = slice_of(case, number, look)
        sink = _Slice(answer, one.shape)
        in_plane = [look.plane.index(axis) for axis in look.flips if axis != look.axis]
        view = View(one, compute, coordinates=False, flips=in_plane)
        plan = plan_memory(network, one.shape, compute, settings, supervoxels=view.count)
        run_pass(network, view, compute, plan, sink, answer)
        own = tuple(case.shape[axis] for axis in look.plane)
        gathered.add(
            _place(case.shape, number, look), np.expand_dims(sink.sized(own), look.axis + 1)
        )


def slice_of(case: Prepared, number: int, look: SliceView) -> Prepared:
    """Cut a slice as the network sees it.

    Returns:
        The case in two axes: image (C * (1 + 2 * neighbours) + coordinates, P, Q), the slice before
        first; superpixels (P, Q) renumbered. Beyond the volume its outermost slice comes again.
    """
    length = case.shape[look.axis]
    wanted = range(number - look.neighbours, number + look.neighbours + 1)
    numbers = [min(max(n, 0), length - 1) for n in wanted]
    channels = [np.take(case.image, n, axis=look.axis + 1) for n in numbers]
    if look.coordinates:
        position = coordinate_channels(case.mask_box, _place(case.shape, number, look))
        for axis in look.flips:
            position[axis] *= -1  # a mirrored head lies at mirrored positions
        channels.append(position.take(0, axis=look.axis + 1))
    image = np.concatenate(channels)
    superpixels = None
    if case.superpixels is not None:
        superpixels = np.take(case.superpixels, number, axis=look.axis)
    size = look.size(case.shape)
    if size != image.shape[1:]:
        image = resized(torch.from_numpy(image), size).numpy()
        if superpixels is not None:
            superpixels = _nearest(superpixels, size)
    if superpixels is not None:
        superpixels, _ = compact(superpixels)
    return replace(case, image=image, label=None, superpixels=superpixels, mask_box=())


class _Slice:
    """Takes the probabilities of one slice, part by part."""

    def __init__(self, answer: Answer, shape: tuple[int, ...]) -> None:
        self._answer = answer
        self._values = np.empty((answer.channels, *shape), np.float32)

    def add(self, region: Region, probabilities: np.ndarray) -> None:
        """Take in probabilities (N, *region)."""
        self._values[(slice(None), *region)] = probabilities

    def sized(self, size: tuple[int, ...]) -> np.ndarray:
        """(N, *size) float32, summing to 1 over classes."""
        if self._values.shape[1:] == size:
            return self._values
        return self._answer.tidied(resized(torch.from_numpy(self._values), size)).numpy()


def _place(shape: Sequence[int], number: int, look: SliceView) -> Region:
    return tuple(
        slice(number, number + 1) if axis == look.axis else slice(0, n)
        for axis, n in enumerate(shape)
    )


def _nearest(superpixels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize a map of numbers: every pixel takes the one that its centre lies in."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.int64), old - 1)
        for new, old in zip(size, superpixels.shape, strict=True)
    )
    return superpixels[np.ix_(rows, columns)]


def looks(
    axes: Sequence[int],
    *,
    neighbours: int,
    coordinates: bool,
    scales: Sequence[float],
    shorter_side: int,
    flips: Sequence[tuple[int, ...]],
) -> Iterator[SliceView]:
    """Go through all ways to see a volume: planes, sizes and mirrored sides."""
    for axis in axes:
        for scale in scales:
            seen: set[tuple[int, ...]] = set()
            for sides in flips:
                mirrored = tuple(side for side in sides if side != axis)
                if mirrored not in seen:
                    seen.add(mirrored)
                    yield SliceView(axis, neighbours, coordinates, scale, shorter_side, mirrored)
