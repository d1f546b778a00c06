"""Split-merge and shrink-expand pooling, and a network's sub-sampling replaced by them.

Source: Jafari and Rother, *Split-Merge Pooling*, 2020, arXiv:2006.07742.

Splitting deals the pixels of every window out to sub-grids, which go on as a larger batch; merging
puts them back. Nothing is lost, and sub-grids no longer depend on each other. Shrinking takes one
sub-grid only, which makes training as cheap as with strides; expanding puts it back among zeros.

Departures:

- The split stands right after the convolution that lost its stride, before the normalisation
  instead of after it. The answer is the same; a shrunk pass then costs what the strided network
  costs, and batch norm trains on the statistics of the sampled sub-grid.
- An image whose sides the windows do not divide is filled up at the end of each axis with its last
  pixels, and the answer cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

Offset = tuple[int, ...]
"""Which element of a window, by axis."""

Convolution = nn.Conv2d | nn.Conv3d
_CONVOLVE = {2: functional.conv2d, 3: functional.conv3d}
_POOLS = (nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool2d, nn.AvgPool3d)


class UnevenError(ValueError):
    """A window does not divide the grid."""


def split(features: Tensor, window: int | Sequence[int]) -> Tensor:
    """Deal the elements of every window out to sub-grids, equation 1.

    Args:
        features: (B, C, *S).
        window: one number, or one for each of the spatial axes, which it must divide.

    Returns:
        (prod(window) * B, C, *S / window); the first B are the sub-grids of offset 0, the next B
        those of the next offset, with the last axis running fastest.

    Raises:
        ValueError: the window does not divide the grid.
    """
    steps = _window(window, features)
    axes = len(steps)
    parts = [
        number
        for length, w in zip(features.shape[2:], steps, strict=True)
        for number in (length // w, w)
    ]
    dealt = features.reshape(*features.shape[:2], *parts)
    order = [*range(3, 3 + 2 * axes, 2), 0, 1, *range(2, 2 + 2 * axes, 2)]
    return dealt.permute(order).reshape(-1, features.shape[1], *parts[::2])


def merge(parts: Tensor, window: int | Sequence[int]) -> Tensor:
    """Undo ``split``, equation 2: (prod(window) * B, C, *S) -> (B, C, *S * window).

    Raises:
        ValueError: the batch is not of whole windows.
    """
    steps = _numbers(window, parts)
    axes = len(steps)
    if parts.shape[0] % prod(steps):
        raise ValueError(
            f"merging {steps} needs a multiple of {prod(steps)} sub-grids, got {parts.shape[0]}"
        )
    grouped = parts.reshape(*steps, -1, *parts.shape[1:])
    order = [axes, axes + 1, *(n for axis in range(axes) for n in (axes + 2 + axis, axis))]
    size = [length * w for length, w in zip(parts.shape[2:], steps, strict=True)]
    return grouped.permute(order).reshape(-1, parts.shape[1], *size)


def shrink(features: Tensor, window: int | Sequence[int], offset: Sequence[int]) -> Tensor:
    """Take the one sub-grid of ``split`` at ``offset``: (B, C, *S) -> (B, C, *S / window).

    Raises:
        ValueError: the window does not divide the grid, or the offset is not inside the window.
    """
    steps = _window(window, features)
    starts = _inside(offset, steps)
    cut = tuple(slice(start, None, w) for start, w in zip(starts, steps, strict=True))
    return features[(slice(None), slice(None), *cut)]


def expand(features: Tensor, window: int | Sequence[int], offset: Sequence[int]) -> Tensor:
    """Put a sub-grid back among zeros: (B, C, *S) -> (B, C, *S * window), the rest of it zero.

    Raises:
        ValueError: the offset is not inside the window.
    """
    steps = _numbers(window, features)
    starts = _inside(offset, steps)
    size = [length * w for length, w in zip(features.shape[2:], steps, strict=True)]
    expanded = features.new_zeros(*features.shape[:2], *size)
    cut = tuple(slice(start, None, w) for start, w in zip(starts, steps, strict=True))
    expanded[(slice(None), slice(None), *cut)] = features
    return expanded


def total_offset(offsets: Sequence[Offset], windows: Sequence[Offset]) -> Offset:
    """Return where in the image's window a pixel lies that has ``offsets``, one a level."""
    total, step = [0] * len(windows[0]), [1] * len(windows[0])
    for offset, window in zip(offsets, windows, strict=True):
        total = [t + o * s for t, o, s in zip(total, offset, step, strict=True)]
        step = [s * w for s, w in zip(step, window, strict=True)]
    return tuple(total)


@dataclass
class Sampling:
    """What the pooling layers of one network do now: split, or shrink at one offset a level."""

    offsets: tuple[Offset, ...] | None = None
    """None to split."""


class SplitPool(nn.Module):
    """Split, or shrink while its ``sampling`` has offsets; stands where a pooling layer stood.

    Shape: (B, C, *S) -> (prod(window) * B, C, *S / window), shrunk (B, C, *S / window).

    Args:
        window: numbers of elements, by axis.
        sampling: shared by all layers of a network.
        level: which of the sampling's offsets is this layer's.
    """

    def __init__(
        self, window: Sequence[int], sampling: Sampling | None = None, level: int = 0
    ) -> None:
        super().__init__()
        self.window = tuple(window)
        self.sampling = Sampling() if sampling is None else sampling
        self.level = level

    def forward(self, features: Tensor) -> Tensor:
        """Split or shrink ``features``."""
        if self.sampling.offsets is None:
            return split(features, self.window)
        return shrink(features, self.window, self.sampling.offsets[self.level])


class SplitConvolution(nn.Module):
    """A strided convolution at stride 1, then split; shrunk, it computes the one sub-grid only.

    The names of its parameters are the convolution's. Shape: as ``SplitPool``.

    Args:
        strided: what it replaces; its stride is the window, its parameters are shared.
        sampling: shared by all layers of a network.
        level: which of the sampling's offsets is this layer's.

    Raises:
        ValueError: the convolution does not pad with zeros.
    """

    def __init__(
        self, strided: Convolution, sampling: Sampling | None = None, level: int = 0
    ) -> None:
        super().__init__()
        if strided.padding_mode != "zeros":
            raise ValueError(f"only zero padding can be split, got {strided.padding_mode!r}")
        self.weight: nn.Parameter = cast("nn.Parameter", strided.weight)
        self.bias: nn.Parameter | None = cast("nn.Parameter | None", strided.bias)
        self.window = tuple(strided.stride)
        # A string is 'valid', the only one that PyTorch lets a strided convolution have.
        padding = strided.padding
        self.padding = (0,) * len(self.window) if isinstance(padding, str) else tuple(padding)
        self.dilation = tuple(strided.dilation)
        self.groups = strided.groups
        self.sampling = Sampling() if sampling is None else sampling
        self.level = level

    def forward(self, features: Tensor) -> Tensor:
        """Convolve and split, or convolve at one offset of each window."""
        _window(self.window, features)
        offsets = self.sampling.offsets
        if offsets is None:
            ones = (1,) * len(self.window)
            return split(self._convolve(features, ones, (0,) * len(ones)), self.window)
        return self._convolve(features, self.window, _inside(offsets[self.level], self.window))

    def _convolve(self, features: Tensor, stride: Offset, offset: Offset) -> Tensor:
        """Answer at ``offset`` and every ``stride`` after it, once for each element or window."""
        pads: list[int] = []
        for axis, length in enumerate(features.shape[2:]):
            reach = self.dilation[axis] * (self.weight.shape[2 + axis] - 1)
            before = self.padding[axis]
            windows = (length + 2 * before - reach - 1) // self.window[axis] + 1
            answers = windows * self.window[axis] // stride[axis]
            before -= offset[axis]
            # functional.pad wants the last axis first, and cuts where a number is negative.
            pads = [before, (answers - 1) * stride[axis] + reach + 1 - length - before, *pads]
        return _CONVOLVE[len(stride)](
            functional.pad(features, pads) if any(pads) else features,
            self.weight,
            self.bias,
            stride,
            0,
            self.dilation,
            self.groups,
        )


def replace_subsampling(network: nn.Module, sampling: Sampling) -> dict[str, nn.Module]:
    """Replace strided convolutions and pooling layers inside ``network`` by splitting ones.

    The maximum or mean of a pooling layer disappears with it, as in the paper.

    Returns:
        The new layers by name, all of level 0.
    """
    replaced: dict[str, nn.Module] = {}
    for name, module in list(network.named_modules(remove_duplicate=False)):
        new: nn.Module
        if isinstance(module, (nn.Conv2d, nn.Conv3d)) and max(module.stride) > 1:
            new = SplitConvolution(module, sampling)
        elif isinstance(module, _POOLS):
            axes = 2 if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)) else 3
            stride = module.stride
            window = (stride,) * axes if isinstance(stride, int) else tuple(stride)
            if max(window) == 1:
                continue
            new = SplitPool(window, sampling)
        else:
            continue
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, new)
        replaced[name] = new
    return replaced


def every_offset(windows: Sequence[Offset]) -> list[tuple[Offset, ...]]:
    """List every choice of one offset a level."""
    levels = [list(product(*(range(w) for w in window))) for window in windows]
    return list(product(*levels))


def draw_offsets(
    windows: Sequence[Offset], generator: torch.Generator | None = None
) -> tuple[Offset, ...]:
    """Draw one offset for each level, uniformly."""
    return tuple(
        tuple(int(torch.randint(w, (), generator=generator)) for w in window) for window in windows
    )


def _numbers(window: int | Sequence[int], features: Tensor) -> Offset:
    axes = features.ndim - 2
    steps = (window,) * axes if isinstance(window, int) else tuple(window)
    if len(steps) != axes or min(steps, default=0) < 1:
        raise ValueError(f"the window must be {axes} numbers of at least 1, got {window}")
    return steps


def _window(window: int | Sequence[int], features: Tensor) -> Offset:
    steps = _numbers(window, features)
    if any(length % w for length, w in zip(features.shape[2:], steps, strict=True)):
        raise UnevenError(
            f"the window {steps} does not divide the grid {tuple(features.shape[2:])}; "
            "fill the image up first"
        )
    return steps


def _inside(offset: Sequence[int], window: Offset) -> Offset:
    if len(offset) != len(window) or not all(
        0 <= o < w for o, w in zip(offset, window, strict=True)
    ):
        raise ValueError(f"the offset must lie in the window {window}, got {tuple(offset)}")
    return tuple(offset)
