"""What a prediction will need, before it starts, and how it is cut so that it fits.

Every array that lives at once is counted at the size it has; what libraries add on top was measured
and is kept to 15 % by the tests.
"""

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from voxseg.engine.config import PredictConfig
from voxseg.engine.device import Compute
from voxseg.engine.free_memory import free_gb
from voxseg.engine.network import SegmentationNetwork
from voxseg.engine.tiles import Tiling, Windows, pick, tilings, windows_of
from voxseg.models import ENet, PixelNet, SplitMergeFCN, VoxResNet
from voxseg.models.cost import live_bytes

_SAFETY = 1.3  # convolution workspaces and allocator slack, on top of the maps that are counted
_FIXED_GB = 0.1  # what libraries keep whatever the size
_SHARE = 0.5  # of what is free goes to a forward pass; other programs want some too
_POOLING_PLAN = 60  # bytes a voxel, on a GPU: see voxseg/ops/superpixel_plan.py
_TOKENS = 60  # bytes a number of a token: while V4's exchange, tokens and weights; measured


@dataclass(frozen=True)
class MemoryPlan:
    """How a volume will be run, and why."""

    needed_gb: float
    """By forward passes and what is kept of them, on the device."""
    budget_gb: float
    cut: Tiling | Windows
    keeps_features: bool
    """Of a pooled design, between pooling and classifying; else they are computed twice."""

    @property
    def is_whole(self) -> bool:
        """Whether one forward pass takes the whole volume."""
        return isinstance(self.cut, Tiling) and self.cut.is_whole

    def __str__(self) -> str:
        return f"{self.cut} (needs {self.needed_gb:.2f} GB, budget {self.budget_gb:.2f} GB)"


def plan_memory(
    network: SegmentationNetwork,
    shape: Sequence[int],
    compute: Compute,
    settings: PredictConfig,
    *,
    supervoxels: int = 0,
) -> MemoryPlan:
    """Choose the fastest way to run ``shape`` that fits the budget, or else the most frugal one.

    Whole; in exact tiles; in windows where tiles would be larger than what they save, or where a
    normalisation looks at all of the image; in windows from the start where settings say so.

    Args:
        network: the network, or the largest of several.
        shape: spatial shape of the prepared volume.
        compute: device and precision.
        settings: budget, and size of windows.
        supervoxels: about how many there are.
    """
    budget = settings.memory_gb or _SHARE * free_gb(compute.device) / compute.sharing
    costs = _Costs(network, compute, supervoxels)
    size = tuple(shape)
    windows = windows_of(size, settings.window_voxels, settings.overlap, settings.blend)
    if settings.always_windows and windows.count > 1:
        return MemoryPlan(costs.windows(windows), budget, windows, False)
    if isinstance(network, SplitMergeFCN):
        return _sub_grids(costs, tilings(network, size)[0], budget)
    candidates = tilings(network, size)
    if not network.needs_superpixels:
        tiling = pick(candidates, costs.tiling, budget)
        keeps = False
    else:
        # Reading a voxel twice is worse than reading half as many again.
        keeping = next((t for t in candidates if costs.kept(t) <= budget), None)
        tiling = pick(candidates, costs.tiling, budget)
        keeps = keeping is not None and keeping.cost < 2 * tiling.cost
        tiling = keeping if keeping is not None and keeps else tiling
    needed = costs.kept(tiling) if keeps else costs.tiling(tiling)
    plan = MemoryPlan(needed, budget, tiling, keeps)
    if needed <= budget:
        return plan
    if costs.windows(windows) >= needed:
        return plan
    return MemoryPlan(costs.windows(windows), budget, windows, False)


def lower(plan: MemoryPlan, settings: PredictConfig) -> PredictConfig:
    """Settings for the next try after ``plan`` did not fit: half as much, and smaller windows."""
    window = tuple(max(32, n // 2) for n in settings.window_voxels)
    smaller = window if isinstance(plan.cut, Windows) else settings.window_voxels
    return replace(settings, memory_gb=plan.needed_gb / 2, window_voxels=smaller)


def _sub_grids(costs: "_Costs", whole: Tiling, budget: float) -> MemoryPlan:
    """SMP keeps within its budget by itself: sub-grids then go through one after the other."""
    return MemoryPlan(min(budget, costs.tiling(whole)), budget, whole, False)


_MEASURED_EDGE = 256
_bytes_a_pixel: weakref.WeakKeyDictionary[nn.Module, dict[int, float]] = weakref.WeakKeyDictionary()


def _live_bytes_a_pixel(network: nn.Module, channels: int, dims: int, item: int) -> float:
    """What lives at once in a forward pass, of numbers of ``item`` bytes, for each pixel.

    Measured once, without numbers. Superpixels are pooled afterwards and counted apart.
    """
    found = _bytes_a_pixel.setdefault(network, {})
    if item not in found:
        size = (_MEASURED_EDGE,) * dims
        dtype = {2: torch.bfloat16, 4: torch.float32}[item]
        shape = (1, channels, *size)
        found[item] = live_bytes(network, shape, dtype=dtype, superpixels=1) / math.prod(size)
    return found[item]


class _Costs:
    """Memory in GB that one network takes on the device, by how the volume is cut."""

    def __init__(self, network: SegmentationNetwork, compute: Compute, supervoxels: int) -> None:
        self._network = network
        self._is_gpu = compute.device.type == "cuda"
        self._size = torch.finfo(compute.precision).bits // 8
        self._features: int = network.num_classes
        self._tables = 0
        if isinstance(network, VoxResNet | ENet) and network.needs_superpixels:
            self._features = network.feature_channels
            per_supervoxel = 12 * (self._features + network.num_classes)
            if isinstance(network, VoxResNet) and network.needs_places:
                per_supervoxel += _TOKENS * network.token_width
            self._tables = per_supervoxel * supervoxels

    def tiling(self, tiling: Tiling) -> float:
        """Of the largest tile."""
        margin = 0 if tiling.is_whole else 2
        inner = [min(n, c + margin) for n, c in zip(tiling.shape, tiling.core, strict=True)]
        maps = self._forward(tiling.outer) + self._classify(inner)
        return (_SAFETY * maps + self._tables) / 1e9 + _FIXED_GB

    def kept(self, tiling: Tiling) -> float:
        """Of the largest tile, while the features of all are kept."""
        if tiling.is_whole:
            return self.tiling(tiling)
        kept = [n + 2 * (-(-n // c) - 1) for n, c in zip(tiling.shape, tiling.core, strict=True)]
        features = self._features * self._size * math.prod(kept)
        return self.tiling(tiling) + features / 1e9

    def windows(self, windows: Windows) -> float:
        """Of a window, and the layers that are blended (on the CPU) and classified."""
        plane = math.prod(windows.shape) // windows.shape[windows.axis]
        layers = plane * min(windows.size[windows.axis] + 2, windows.shape[windows.axis])
        maps = self._forward(windows.size) + self._classify((layers,))
        blended = 4 * (2 * self._features + 2) * layers
        return (_SAFETY * maps + blended + self._tables) / 1e9 + _FIXED_GB

    def _forward(self, outer: Sequence[int]) -> float:
        """Maps of full size that live at once: input, stem and its normalised copies, features.

        Of other networks than VoxResNet, whatever lives at once; PixelNet classifies box by box.
        """
        network = self._network
        if isinstance(network, PixelNet):
            trunk = network.get_submodule("trunk")
            a_pixel = _live_bytes_a_pixel(trunk, network.in_channels, len(outer), self._size)
            if len(network.norms):  # one map more at a time
                taps = network.trunk.taps.values()
                a_pixel += self._size * max(
                    tap.channels / math.prod(tap.stride or (1,)) for tap in taps
                )
            return network.block_bytes + math.prod(outer) * a_pixel
        if not isinstance(network, VoxResNet):
            channels = network.in_channels
            return math.prod(outer) * _live_bytes_a_pixel(network, channels, len(outer), self._size)
        stride = network.trunk.strides[-1]
        filled = math.prod(-(-n // s) * s for n, s in zip(outer, stride, strict=True))
        return filled * (4.0 * network.in_channels + 5 * network.feature_channels * self._size)

    def _classify(self, inner: Sequence[int]) -> float:
        """Logits, probabilities and what a copy of them takes; supervoxels besides."""
        per_voxel = (self._size + 8) * self._network.num_classes
        if self._network.needs_superpixels:
            per_voxel += 8 + (_POOLING_PLAN if self._is_gpu else 0)
        return float(per_voxel * math.prod(inner))
