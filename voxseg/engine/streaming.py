"""One network's pass over a prepared volume, piece by piece: exact tiles, or blended windows.

Supervoxels are pooled over the whole volume, never within a piece: a first walk pools, a second one
classifies, and where there is room the features of the first are kept for the second. Windows blend
features before anything is pooled, for a value per window would put seams into regions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from voxseg.data.prepare import Prepared, coordinate_channels
from voxseg.engine.device import Compute
from voxseg.engine.memory import MemoryPlan
from voxseg.engine.network import SegmentationNetwork
from voxseg.engine.tiles import Region, Tiling, Windows
from voxseg.models import ENet, SplitMergeFCN, VoxResNet
from voxseg.ops.running_pool import RunningPool
from voxseg.tasks.answers import Answer

Step = Callable[[Tensor], Tensor]
"""From an image (1, C, *outer) to features, or logits."""


@dataclass(frozen=True)
class Piece:
    """What a network found in a part of the volume."""

    core: Region
    """The voxels that the piece answers for; those of all pieces make up the volume."""
    outer: Region
    """The voxels of ``features``: one more on each side, for the classifier, where there is one."""
    features: Tensor
    """(1, F, *outer); of a network without supervoxels, its logits."""

    def cut(self, values: Tensor) -> Tensor:
        """Cut (..., *outer) to the core."""
        inner = [
            slice(c.start - o.start, c.stop - o.start)
            for c, o in zip(self.core, self.outer, strict=True)
        ]
        return values[(slice(None),) * (values.ndim - len(inner)) + tuple(inner)]


class View:
    """A prepared case as one member sees it, flipped along some axes, read part by part."""

    def __init__(
        self, case: Prepared, compute: Compute, *, coordinates: bool, flips: Sequence[int] = ()
    ) -> None:
        self.shape = case.shape
        self.device = compute.device
        self._case = case
        self._compute = compute
        self._coordinates = coordinates
        self.flips = tuple(flips)
        superpixels = case.superpixels
        self.count = 1 if superpixels is None else max(1, int(superpixels.max()) + 1)
        """Number of supervoxels, for pooling."""

    def image(self, region: Region) -> Tensor:
        """(1, C, *region) on the device, coordinate channels included."""
        there = self.back(region)
        part = self._case.image[(slice(None), *there)]
        if self._coordinates:
            position = coordinate_channels(self._case.mask_box, there)
            for axis in self.flips:
                position[axis] *= -1  # a mirrored head lies at mirrored positions
            part = np.concatenate([part, position])
        image = self._tensor(np.flip(part, tuple(a + 1 for a in self.flips)))
        return image.contiguous(memory_format=self._compute.memory_format)

    def superpixels(self, region: Region) -> Tensor:
        """(1, *region) on the device."""
        assert self._case.superpixels is not None
        return self._tensor(np.flip(self._case.superpixels[self.back(region)], self.flips))

    def places(self) -> Tensor:
        """Where the supervoxels lie, (1, K, D + 1) on the device, see ``superpixel_places``."""
        places = torch.from_numpy(self._case.places.copy())
        for axis in self.flips:
            places[:, axis] *= -1  # as for coordinates
        return places[None].to(self.device)

    def back(self, region: Region) -> Region:
        """Where a region lies in the case itself."""
        return tuple(
            slice(n - part.stop, n - part.start) if axis in self.flips else part
            for axis, (part, n) in enumerate(zip(region, self.shape, strict=True))
        )

    def unflip(self, values: Tensor) -> np.ndarray:
        """(N, *region) on the CPU, the right way round."""
        array: np.ndarray = values.cpu().numpy()
        return np.flip(array, tuple(a + 1 for a in self.flips))

    def _tensor(self, array: np.ndarray) -> Tensor:
        # torch refuses steps backwards, which NumPy calls contiguous along an axis of one.
        forwards = array.copy() if min(array.strides) < 0 else np.ascontiguousarray(array)
        return torch.from_numpy(forwards)[None].to(self._compute.device)


class Sink(Protocol):
    """What takes a member's probabilities."""

    def add(self, region: Region, probabilities: np.ndarray) -> None:
        """Take in probabilities (N, *region); regions do not overlap."""


def run_pass(
    network: SegmentationNetwork,
    view: View,
    compute: Compute,
    plan: MemoryPlan,
    sink: Sink,
    answer: Answer,
) -> None:
    """Run a network over what ``view`` shows and hand its probabilities to ``sink``.

    ``answer`` says how its outputs are read: of other tasks than segmentation, what is said of
    probabilities holds for their values.
    """
    kept: list[Piece] = []
    step = _step(network, plan)

    def walk(visit: Callable[[Piece], None]) -> None:
        if kept:
            while kept:
                visit(kept.pop())
        elif isinstance(plan.cut, Tiling):
            _tiles(step, view, plan.cut, visit)
        else:
            _windows(step, view, plan.cut, visit)

    with compute.autocast():
        pooled = None
        pooling = network if isinstance(network, VoxResNet | ENet) else None
        if pooling is not None and pooling.needs_superpixels:
            pool = RunningPool(view.count, pooling.reduce)

            def add(piece: Piece) -> None:
                values = piece.cut(pooling.to_pool(piece.features))
                pool.add(values, view.superpixels(piece.core))
                if plan.keeps_features:
                    kept.append(piece)

            walk(add)
            pooled = _exchanged(pooling, pool.result(), view)

        def finish(piece: Piece) -> None:
            logits = piece.features
            if pooling is not None and pooled is not None:
                superpixels = view.superpixels(piece.outer)
                logits = pooling.classify(logits, superpixels, view.count, pooled)
            values = answer.values(piece.cut(logits)[0])
            del logits
            found = answer.mirrored(view.unflip(values), view.flips)
            sink.add(view.back(piece.core), found)

        walk(finish)


def _exchanged(network: VoxResNet | ENet, pooled: Tensor, view: View) -> Tensor:
    """Let supervoxels that know of each other exchange, once for the whole volume."""
    if isinstance(network, VoxResNet) and network.needs_places:
        return network.exchange(pooled, view.places())
    return pooled


def _step(network: SegmentationNetwork, plan: MemoryPlan) -> Step:
    if isinstance(network, SplitMergeFCN):
        return partial(network.forward, memory_budget=int(plan.budget_gb * 1e9))
    if isinstance(network, VoxResNet | ENet) and network.needs_superpixels:
        return network.features
    return network.forward


def _tiles(step: Step, view: View, tiling: Tiling, visit: Callable[[Piece], None]) -> None:
    """Visit the pieces one by one; nothing here holds on to one."""
    for tile in tiling:
        outer = tuple(
            slice(max(part.start - 1, 0), min(part.stop + 1, n))
            for part, n in zip(tile.core, view.shape, strict=True)
        )
        whole = Piece(outer, tile.outer, torch.empty(0))
        visit(Piece(tile.core, outer, _apart(whole.cut(step(view.image(tile.outer))))))


def _apart(part: Tensor) -> Tensor:
    """Copy a part that keeps a larger tensor alive."""
    storage = part.untyped_storage().nbytes()
    return part.clone() if part.numel() * part.element_size() < storage else part


def _windows(step: Step, view: View, windows: Windows, visit: Callable[[Piece], None]) -> None:
    """Blend windows into layers along the longest axis, and visit layers that are complete.

    Values are blended on the CPU, whatever the device; only the layers that
    a row of windows still touches are in memory.
    """
    blend = _Blend(windows)
    rows = windows.starts[windows.axis]
    done = 0
    for start, complete in zip(rows, [*rows[1:], view.shape[windows.axis]], strict=True):
        # The last but one complete layer is still read as the neighbour of the next ones.
        blend.forget(start - 2)
        for region in windows.row(start):
            blend.add(region, step(view.image(region))[0])
        blend.complete(complete)
        is_last = complete == view.shape[windows.axis]
        stop = complete if is_last else complete - 1
        if stop <= done:
            continue
        low, high = max(done - 1, 0), complete
        features = blend.layers(low, high).to(view.device)
        visit(Piece(windows.layers(done, stop), windows.layers(low, high), features))
        done = stop


class _Blend:
    """Sums of windows, weighted, for some layers along one axis."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows
        mode = {"gaussian": "gaussian", "even": "constant"}[windows.blend]
        # Here, for MONAI takes three seconds to load, and few predictions blend windows.
        from monai.data.utils import compute_importance_map

        self._weights = compute_importance_map(windows.size, mode=mode).float()
        self._sums: Tensor | None = None
        self._first = 0
        self._complete = 0

    def add(self, region: Region, values: Tensor) -> None:
        """Add a window's values (F, *region)."""
        axis = self._windows.axis
        if self._sums is None:
            size = self._windows.shape[:axis] + self._windows.shape[axis + 1 :]
            length = min(self._windows.shape[axis], self._windows.size[axis] + 2)
            self._sums = torch.zeros(len(values) + 1, length, *size)
        inside = [part for a, part in enumerate(region) if a != axis]
        rows = slice(region[axis].start - self._first, region[axis].stop - self._first)
        sums = self._sums[(slice(None), rows, *inside)]
        weighted = values.float().cpu() * self._weights
        sums[:-1] += weighted.movedim(axis + 1, 1)
        sums[-1] += self._weights.movedim(axis, 0)

    def complete(self, stop: int) -> None:
        """Divide by the weights: no more windows will touch the layers before ``stop``."""
        assert self._sums is not None
        rows = slice(self._complete - self._first, stop - self._first)
        self._sums[:-1, rows] /= self._sums[-1:, rows]
        self._complete = stop

    def layers(self, start: int, stop: int) -> Tensor:
        """(1, F, *layers), a view."""
        assert self._sums is not None
        rows = self._sums[:-1, start - self._first : stop - self._first]
        return rows.movedim(1, self._windows.axis + 1)[None]

    def forget(self, before: int) -> None:
        """Move on to layers from ``before`` on."""
        shift = before - self._first
        if self._sums is None or shift <= 0:
            return
        for channel in self._sums:
            left = len(channel) - shift
            channel[:left] = channel[shift:].clone()
            channel[left:] = 0
        self._first = before
