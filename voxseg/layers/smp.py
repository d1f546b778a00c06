"""SMP: a network that sub-samples, made to answer for every pixel with the same weights.

Source: Jafari and Rother, *Split-Merge Pooling*, 2020, arXiv:2006.07742, sections 3 and 4.1.

Strided convolutions and pooling layers are replaced by splitting ones; the scores of all sub-grids
are merged at the end. The result is the network with its strides turned into dilations and its
pooling layers left out. It trains on one sub-grid of each level, and infers all of them at once,
within a memory budget, or on several devices.

Departures: those of ``split_merge``. Layers that look at the whole map (global pooling, instance
and group norm) see one sub-grid of it.
"""

import copy
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import lcm, prod
from queue import SimpleQueue
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxseg.layers.depth_first import Stage, merged_scores
from voxseg.layers.split_merge import (
    Offset,
    Sampling,
    SplitConvolution,
    SplitPool,
    UnevenError,
    draw_offsets,
    expand,
    replace_subsampling,
    total_offset,
)

Splitting = SplitConvolution | SplitPool


class SMP(nn.Module):
    """Split-merge pooling in place of all sub-sampling of a built network.

    The network must go from an image to one map of scores and sub-sample by modules only:
    strided convolutions, max and average pooling. It must not sample up again. Branches that are
    added or concatenated must sub-sample by the same windows.

    Args:
        network: left as it is; a copy of it is changed. Parameters keep their names, below
            ``network``, so that a state dict of the one loads into ``smp.network``.
        in_channels: channels of its image.
        spatial_dims: 2 or 3.
        stages: names of its modules that, one after the other, are its forward pass; depth-first
            inference can stop between them. The children of an ``nn.Sequential`` if not given,
            and any other network is one stage.

    Attributes:
        windows: the window of each level of sub-sampling, by axis, finest first.
        window: product of all of them: this many pixels share one strided answer.

    Raises:
        ValueError: the network is not as described above.
    """

    def __init__(
        self,
        network: nn.Module,
        in_channels: int,
        *,
        spatial_dims: int = 2,
        stages: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.spatial_dims = spatial_dims
        self.network = copy.deepcopy(network)
        self.sampling = Sampling()
        replaced = replace_subsampling(self.network, self.sampling)
        if not replaced:
            raise ValueError("the network has no strided convolution or pooling layer to replace")
        names = tuple(stages)
        if not names and isinstance(network, nn.Sequential):
            names = tuple(name for name, _ in network.named_children())
        self.stage_names = names or ("",)
        # The same network without numbers, to follow shapes and memory.
        plan = copy.deepcopy(self.network).to("meta", torch.float32).eval()
        levels, windows, self._stage_windows = _trace(plan, self.stage_names, in_channels, replaced)
        self.windows = windows
        self.window: Offset = tuple(prod(axis) for axis in zip(*windows, strict=True))
        for name, level in levels.items():
            cast("Splitting", replaced[name]).level = level
        # In a tuple it is neither a part of the state dict nor moved to a device.
        self._plan = (plan,)

    def forward(
        self,
        image: Tensor,
        *,
        memory_budget: int | None = None,
        devices: Sequence[torch.device | str] = (),
    ) -> Tensor:
        """Return scores for every pixel.

        Args:
            image: (B, in_channels, *S); any S.
            memory_budget: most bytes of activations and scores to hold at a time, besides the
                image and the parameters; sub-grids are then processed one after the other where
                needed, depth first. Unlimited if not given. A convolution's own scratch memory
                is not counted.
            devices: where to process sub-grids, side by side; the image's if not given. The stages
                up to the first split run on the image's device, outside of the budget, which is
                each device's.

        Returns:
            (B, classes, *S), on the image's device. Budget and devices change it by no more than
            rounding.

        Raises:
            ValueError: the image has other channels or axes than the network, the budget is below
                what one sub-grid needs, or one of the two is given while gradients are recorded or
                batch norm trains.
        """
        self._check(image)
        filled = self._fill(image)
        stages = self._stages(self.network)
        if memory_budget is None and not devices:
            scores = merged_scores(stages, filled)
        elif torch.is_grad_enabled() or self.training:
            raise ValueError(
                "a memory budget or devices are for inference only; call eval() and use "
                "torch.no_grad()"
            )
        elif len(devices) <= 1:
            scores = self._on_one(filled, stages, memory_budget, devices)
        else:
            scores = self._on_many(filled, stages, memory_budget, devices)
        return self._crop(scores, image)

    def sampled(self, image: Tensor, offsets: Sequence[Offset]) -> Tensor:
        """Return the scores of one sub-grid, at the cost of the strided network, for training.

        Args:
            image: (B, in_channels, *S).
            offsets: one for each level, see ``draw_offsets``; both branches of a residual block
                and all images share them.

        Returns:
            (B, classes, *ceil(S / window)): the answer of ``forward`` at ``total_offset`` and every
            ``window`` pixels after it.

        Raises:
            ValueError: the offsets are not one for each level and inside its window, or the image
                has other channels or axes than the network.
        """
        self._check(image)
        if len(offsets) != len(self.windows):
            raise ValueError(f"offsets must be one for each of {len(self.windows)} levels")
        self.sampling.offsets = tuple(tuple(offset) for offset in offsets)
        try:
            scores = self._fill(image)
            for stage in self._stages(self.network):
                scores = stage.module(scores)
            return scores
        finally:
            self.sampling.offsets = None

    def draw_offsets(self, generator: torch.Generator | None = None) -> tuple[Offset, ...]:
        """Draw one offset a level, uniformly; one draw serves one training step."""
        return draw_offsets(self.windows, generator)

    def sample_labels(self, labels: Tensor, offsets: Sequence[Offset], ignore: int) -> Tensor:
        """Return the labels (B, *S) under the scores of ``sampled``; ``ignore`` beyond the image.

        A loss on both is the loss on ``expand_scores`` where all other labels are ignored.
        """
        pads = [pad for length in reversed(self._missing(labels.shape[1:])) for pad in (0, length)]
        filled = functional.pad(labels, pads, value=ignore)
        start = total_offset(offsets, self.windows)
        cut = tuple(slice(o, None, w) for o, w in zip(start, self.window, strict=True))
        return filled[(slice(None), *cut)]

    def expand_scores(
        self, scores: Tensor, offsets: Sequence[Offset], size: Sequence[int]
    ) -> Tensor:
        """Put the scores of ``sampled`` back on the image's grid, zero elsewhere."""
        for window, offset in zip(reversed(self.windows), reversed(offsets), strict=True):
            scores = expand(scores, window, offset)
        for axis, length in enumerate(size, start=2):
            scores = scores.narrow(axis, 0, length)
        return scores

    def _check(self, image: Tensor) -> None:
        if image.ndim != self.spatial_dims + 2 or image.shape[1] != self.in_channels:
            raise ValueError(
                f"the image must be (B, {self.in_channels}, and {self.spatial_dims} spatial axes), "
                f"got {tuple(image.shape)}"
            )

    def _missing(self, size: Sequence[int]) -> list[int]:
        return [-length % w for length, w in zip(size, self.window, strict=True)]

    def _fill(self, image: Tensor) -> Tensor:
        pads = [pad for n in reversed(self._missing(image.shape[2:])) for pad in (0, n)]
        return functional.pad(image, pads, mode="replicate") if any(pads) else image

    def _crop(self, scores: Tensor, image: Tensor) -> Tensor:
        for axis, length in enumerate(image.shape[2:], start=2):
            scores = scores.narrow(axis, 0, length)
        return scores

    def _stages(self, network: nn.Module) -> list[Stage]:
        """The stages of ``network``, a copy of ours, with the plan's beside them."""
        (plan,) = self._plan
        return [
            Stage(network.get_submodule(name), plan.get_submodule(name), windows)
            for name, windows in zip(self.stage_names, self._stage_windows, strict=True)
        ]

    def _on_one(
        self,
        image: Tensor,
        stages: list[Stage],
        budget: int | None,
        devices: Sequence[torch.device | str],
    ) -> Tensor:
        if devices and torch.device(devices[0]) != image.device:
            stages = self._stages(copy.deepcopy(self.network).to(devices[0]))
            return merged_scores(stages, image.to(devices[0]), budget).to(image.device)
        return merged_scores(stages, image, budget)

    def _on_many(
        self,
        image: Tensor,
        stages: list[Stage],
        budget: int | None,
        devices: Sequence[torch.device | str],
    ) -> Tensor:
        """Run on the image's device until there are parts to share out, then side by side."""
        first, parts = 0, image
        while first < len(stages) - 1 and parts.shape[0] < len(devices) * image.shape[0]:
            parts = stages[first].module(parts)
            first += 1
        free: SimpleQueue[tuple[torch.device, list[Stage]]] = SimpleQueue()
        for name in devices:
            device = torch.device(name)
            here = device == image.device
            copied = self.network if here else copy.deepcopy(self.network).to(device)
            free.put((device, self._stages(copied)[first:]))
        # The plan of all devices is one object, and its forward pass is not for two threads.
        planning = threading.Lock()

        def process(part: Tensor) -> Tensor:
            device, rest = free.get()
            try:
                with torch.no_grad():
                    return merged_scores(rest, part.to(device), budget, planning).to(image.device)
            finally:
                free.put((device, rest))

        with ThreadPoolExecutor(len(devices)) as pool:
            scores = torch.cat(list(pool.map(process, torch.split(parts, image.shape[0]))))
        for stage in reversed(stages[:first]):
            scores = stage.merge(scores)
        return scores


def _trace(
    plan: nn.Module, stages: Sequence[str], in_channels: int, replaced: dict[str, nn.Module]
) -> tuple[dict[str, int], tuple[Offset, ...], list[tuple[Offset, ...]]]:
    """Find the level of each splitting layer: how often its input was split before.

    Returns:
        The level by name, the window of each level, and those of each stage.
    """
    windows = {name: cast("Splitting", layer).window for name, layer in replaced.items()}
    axes = len(next(iter(windows.values())))
    common = [lcm(*axis) for axis in zip(*windows.values(), strict=True)]
    # Nobody knows yet how many levels there are: try the smallest image first. One layer may be at
    # work twice, which is refused below.
    reason = ""
    for levels in range(1, len(windows) + 2):
        image = torch.empty(1, in_channels, *(w**levels for w in common), device="meta")
        try:
            calls, scores, ends = _calls(plan, stages, image, windows)
        except (UnevenError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            continue
        break
    else:
        raise ValueError(
            "found no image size that the windows divide all the way through the network; does it "
            f"cut its maps, or sample up? The last size said: {reason}"
        )
    unused = [name for name in windows if not any(name == called for called, _ in calls)]
    if unused:
        raise ValueError(f"the forward pass of the network's stages does not use {unused[0]!r}")
    by_batch: dict[int, Offset] = {}
    for name, batch in calls:
        if by_batch.setdefault(batch, windows[name]) != windows[name]:
            raise ValueError(
                f"{name!r} sub-samples by {windows[name]} and a branch beside it by "
                f"{by_batch[batch]}; branches must agree"
            )
    order = sorted(by_batch)
    found: dict[str, int] = {}
    for name, batch in calls:
        if found.setdefault(name, order.index(batch)) != order.index(batch):
            raise ValueError(f"{name!r} is used at two resolutions, which cannot be split")
    total = [prod(by_batch[batch][axis] for batch in order) for axis in range(axes)]
    merged = [length * w for length, w in zip(scores.shape[2:], total, strict=True)]
    if merged != list(image.shape[2:]) or scores.shape[0] != prod(total):
        raise ValueError(
            f"an image of {tuple(image.shape[2:])} gives scores of {tuple(merged)}: the network "
            "samples up, or changes its grid by more than strided convolutions and pooling layers"
        )
    starts = [1, *ends[:-1]]
    return (
        found,
        tuple(by_batch[batch] for batch in order),
        [
            tuple(by_batch[batch] for batch in order if start <= batch < end)
            for start, end in zip(starts, ends, strict=True)
        ],
    )


def _calls(
    plan: nn.Module, stages: Sequence[str], image: Tensor, windows: dict[str, Offset]
) -> tuple[list[tuple[str, int]], Tensor, list[int]]:
    """Run ``plan``; return each splitting layer's calls with their batch, scores, stages' ends."""
    calls: list[tuple[str, int]] = []

    def record(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            calls.append((name, inputs[0].shape[0]))

        return plan.get_submodule(name).register_forward_pre_hook(hook)

    handles = [record(name) for name in windows]
    ends = []
    try:
        with torch.no_grad():
            for stage in stages:
                image = plan.get_submodule(stage)(image)
                if not isinstance(image, Tensor):
                    raise ValueError(f"the network must give one map, got {type(image).__name__}")
                ends.append(image.shape[0])
    finally:
        for handle in handles:
            handle.remove()
    return calls, image, ends
