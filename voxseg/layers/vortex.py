"""Vortex pooling: dilated convolutions over means of regions that grow with their distance.

Source: Xie, Zhou and Wu, *Vortex Pooling: Improving Context Representation in Semantic
Segmentation*, 2018, arXiv:1804.06242, sections 3.2 to 3.4.

Departures:

- Dilations are not printed. Module A has those of ASPP, which its printed utilisation ratios (0.148
  and 0.479) confirm; Module B's are its pool sizes, so that its regions tile the map (section 3.4:
  a ratio of 1 below 81 cells), and its first branch is 3x3.
- Borders are not mentioned. By default a mean is over the cells that exist (``border="ignore"``).
- The means of 3, 9 and 27 cells are made of each other, two additions a step and axis, instead of
  being taken each by itself. That is exact at borders as well, since the map is padded before.
- Pooling and convolution commute where both see the same zeros (``border="extend"``), so there the
  few channels after a convolution can be pooled instead of the many before (``conv_first``).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxseg.layers.aspp import (
    CHANNELS,
    RATES,
    GlobalBranch,
    check_pyramid,
    unbiased_convolution,
)

Border = Literal["ignore", "count", "extend"]
BORDERS: tuple[Border, ...] = ("ignore", "count", "extend")
POOLS = (1, 3, 9, 27)
"""Module B's regions, in cells along one side."""


def average_pool(features: Tensor, size: int, border: Border = "ignore") -> Tensor:
    """Return the mean of the ``size`` x ``size`` region around every cell, in the plain form.

    This defines what ``average_pools`` does faster; its time grows with the square of ``size``.

    Args:
        features: (B, C, H, W) floating point.
        size: odd, in cells; may be larger than the map.
        border: ``ignore`` takes the mean over cells inside the map, ``count`` counts zeros beyond
            it, ``extend`` does so and adds the regions centred beyond the border that touch the
            map.

    Returns:
        (B, C, H, W); with ``extend`` (B, C, H + size - 1, W + size - 1). Deterministic.

    Raises:
        ValueError: ``size`` is even or less than 1, or there is no such border.
    """
    _check_pools((size,), border)
    radius = size // 2
    if border == "extend":
        return functional.avg_pool2d(functional.pad(features, (2 * radius,) * 4), size, 1)
    return functional.avg_pool2d(features, size, 1, radius, count_include_pad=border == "count")


def average_pools(
    features: Tensor, sizes: Sequence[int], border: Border = "ignore"
) -> list[Tensor]:
    """Return ``average_pool`` of each of ``sizes``, every one made of the largest that divides it.

    With sizes 3, 9 and 27 a mean costs 4 additions a cell and size instead of 8, 80 and 728. Half
    precision is added up in single. Arguments, shapes and errors are those of ``average_pool``.
    """
    _check_pools(sizes, border)
    margin = (2 if border == "extend" else 1) * (max(sizes) // 2)
    # Padded before and never again: what a step needs beyond the border, the step before made.
    sums = {1: functional.pad(_at_least_single(features), (margin,) * 4)}
    for size in sorted(set(sizes) - {1}):
        base = max(known for known in sums if size % known == 0)
        sums[size] = _region_sums(sums[base], size // base, base)
    height, width = features.shape[2:]
    pooled = {}
    for size in set(sizes):
        radius = size // 2
        beyond = radius if border == "extend" else 0
        start = margin - radius - beyond
        inside = sums[size][
            ..., start : start + height + 2 * beyond, start : start + width + 2 * beyond
        ]
        cells = _cells_inside(inside, radius) if border == "ignore" else size**2
        pooled[size] = (inside / cells).to(features.dtype)
    return [pooled[size] for size in sizes]


class VortexBranch(nn.Module):
    """One dilated convolution over pooled regions, batch normalisation and ReLU.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H, W). With ``border="extend"`` and pooling
    first, what comes in is ``pool`` - 1 cells larger on each axis.

    Args:
        in_channels: channels of the map.
        out_channels: filters.
        kernel: 1 or 3.
        dilation: cells between the taps of a 3x3 kernel.
        pool: cells along a side of the regions, odd.
        border: that of ``average_pool``.
        conv_first: pool what was convolved, instead of convolving what was pooled before.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        dilation: int,
        pool: int,
        border: Border,
        conv_first: bool,
    ) -> None:
        super().__init__()
        self.conv = unbiased_convolution(in_channels, out_channels, kernel, dilation)
        self.norm = nn.BatchNorm2d(out_channels)
        self.pool = pool
        self.border: Border = border
        self.conv_first = conv_first

    def forward(self, features: Tensor) -> Tensor:
        """Return the activated answer.

        Args:
            features: what ``average_pool`` gives for ``pool`` and ``border``; the map itself with
                ``conv_first``.
        """
        reach, radius = int(self.conv.padding[0]), self.pool // 2
        if self.conv_first:
            convolved = _at_least_single(self._convolved(features, reach + radius))
            mean = _region_sums(convolved, self.pool, 1) / self.pool**2
            answer = mean.to(features.dtype)
        elif self.border == "extend":
            # Taps reach further beyond the border than regions that touch the map, or less far.
            answer = self._convolved(functional.pad(features, (reach - radius,) * 4), 0)
        else:
            answer = self._convolved(features, reach)
        return functional.relu(self.norm(answer), inplace=True)

    def _convolved(self, features: Tensor, padding: int) -> Tensor:
        return functional.conv2d(
            features, self.conv.weight, padding=padding, dilation=self.conv.dilation
        )


class VortexPooling(nn.Module):
    """Context of a map: near cells one by one, distant ones as means of regions.

    As it stands it is Module B, vortex pooling proper: 3x3 convolutions of dilation 1, 3, 9 and 27
    over means of as many cells, and the global branch; 19,401,216 parameters behind 2048 channels.
    ``module_a`` builds Module A. With regions of one cell this is ``ASPP``, and parameters have the
    same names there.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H, W), any H and W.

    Args:
        in_channels: channels of the map.
        channels: filters of each branch.
        pools: cells along a side of each branch's regions, odd.
        dilations: of each branch; ``pools`` if not given.
        first_kernel: kernel of the first branch, 3, or 1 as in ASPP.
        border: see ``average_pool``.
        conv_first: convolve before pooling, which pools ``channels`` maps instead of
            ``in_channels``; needs ``border="extend"``, where the answer is the same.
        global_branch: whether the global branch is there.

    Attributes:
        out_channels: ``channels`` times the number of branches.
        reach: cells on each side that an answer reads, the global branch aside.

    Raises:
        ValueError: an argument is outside its range, or the order matters with this border.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        channels: int = CHANNELS,
        pools: Sequence[int] = POOLS,
        dilations: Sequence[int] | None = None,
        first_kernel: int = 3,
        border: Border = "ignore",
        conv_first: bool = False,
        global_branch: bool = True,
    ) -> None:
        super().__init__()
        _check_pools(pools, border)
        rates = tuple(pools) if dilations is None else tuple(dilations)
        check_pyramid(in_channels, channels, rates, first_kernel)
        if len(rates) != len(pools):
            raise ValueError(
                f"dilations must be one number for each of the pools {tuple(pools)}, got {rates}"
            )
        if conv_first and border != "extend":
            raise ValueError(
                "conv_first needs border='extend': with another border a convolution before "
                f"pooling gives other values near it, got border={border!r}"
            )
        self.border: Border = border
        self.conv_first = conv_first
        self.pools = tuple(pools)
        self.kernels = (first_kernel, *(3,) * (len(rates) - 1))
        self.dilations = rates
        self.branches = nn.ModuleList(
            VortexBranch(
                in_channels,
                channels,
                kernel,
                dilation=rate,
                pool=pool,
                border=border,
                conv_first=conv_first,
            )
            for kernel, rate, pool in zip(self.kernels, rates, self.pools, strict=True)
        )
        self.image = GlobalBranch(in_channels, channels) if global_branch else None
        self.out_channels = channels * (len(self.branches) + global_branch)
        self.reach = max(
            rate * (kernel // 2) + pool // 2
            for kernel, rate, pool in zip(self.kernels, rates, self.pools, strict=True)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the branches' answers, the global one last."""
        if self.conv_first:
            maps = [features] * len(self.branches)
        else:
            maps = average_pools(features, self.pools, self.border)
        answers = [branch(pooled) for branch, pooled in zip(self.branches, maps, strict=True)]
        if self.image is not None:
            answers.append(self.image(features))
        return torch.cat(answers, 1)

    def utilisation(self, height: int, width: int) -> float:
        """Return the nominal utilisation ratio, Eq. (1), of a map of this size.

        The distinct cells that one answer reads on an endless map, over the map's cells, at most 1.
        Near borders, and where regions lie beyond them, less is read. The global branch, which
        reads all, does not count.
        """
        read = set()
        for kernel, rate, pool in zip(self.kernels, self.dilations, self.pools, strict=True):
            radius = pool // 2
            centres = (-rate, 0, rate) if kernel > 1 else (0,)
            reach = [centre + step for centre in centres for step in range(-radius, radius + 1)]
            read |= {(y, x) for y in reach for x in reach}
        return min(1.0, len(read) / (height * width))


def module_a(
    in_channels: int,
    size: int,
    *,
    channels: int = CHANNELS,
    rates: Sequence[int] = RATES,
    border: Border = "ignore",
    conv_first: bool = False,
) -> VortexPooling:
    """Build Module A: ASPP over means of ``size`` x ``size`` cells; the paper's are 5, 9 and 13."""
    return VortexPooling(
        in_channels,
        channels=channels,
        pools=(size,) * (len(rates) + 1),
        dilations=(1, *rates),
        first_kernel=1,
        border=border,
        conv_first=conv_first,
    )


def _check_pools(sizes: Sequence[int], border: Border) -> None:
    if not sizes or any(size < 1 or size % 2 == 0 for size in sizes):
        raise ValueError(f"pool sizes must be odd numbers of at least 1, got {tuple(sizes)}")
    if border not in BORDERS:
        raise ValueError(f"border must be one of {BORDERS}, got {border!r}")


def _at_least_single(features: Tensor) -> Tensor:
    """Half precision as single, anything else as it is: long sums lose digits."""
    return features.float() if features.dtype in (torch.float16, torch.bfloat16) else features


def _region_sums(sums: Tensor, times: int, step: int) -> Tensor:
    """Add up ``times`` x ``times`` sums that lie ``step`` apart, wherever all of them exist.

    One prime factor and one axis after the other, so 27 terms cost 6 additions an axis.
    """
    for factor in _prime_factors(times):
        for axis in (2, 3):
            length = sums.shape[axis] - (factor - 1) * step
            total = sums.narrow(axis, 0, length)
            for term in range(1, factor):
                total = total + sums.narrow(axis, term * step, length)
            sums = total
        step *= factor
    return sums


def _prime_factors(number: int) -> list[int]:
    factors, factor = [], 2
    while number > 1:
        while number % factor == 0:
            factors.append(factor)
            number //= factor
        factor += 1
    return factors


def _cells_inside(features: Tensor, radius: int) -> Tensor:
    """How many cells of the map the region around each of its cells holds, (H, W)."""
    counts = []
    for length in features.shape[2:]:
        cell = torch.arange(length, device=features.device)
        first = (cell - radius).clamp_min(0)
        last = (cell + radius).clamp_max(length - 1)
        counts.append((last - first + 1).to(features.dtype))
    return torch.outer(*counts)
