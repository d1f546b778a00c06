"""Superpixel pooling in scatter form: the few standard operations that other runtimes know.

Source: the op is that of Schuurmans, Berman, Blaschko, *Efficient semantic image segmentation with
superpixel pooling*, 2018, arXiv:1806.02705; writing it as scatter and gather is voxseg's own.

``SCATTER_FORM`` takes the place of ``voxseg::superpixel_*`` in an exported network, which then
needs no voxseg. For inference alone: there is no gradient, and maxima do not say which voxel won.
Departure: a superpixel whose largest value is minus infinity is 0, as if it had no voxel.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import voxseg.ops.superpixel_pool  # noqa: F401 - defines the operations that are replaced


def scatter_max(features: Tensor, superpixels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Pool maxima (B, C, K), 0 where empty; the second answer, the winners, is all zero."""
    flat = features.flatten(2)
    index = _for_each_channel(_slots(superpixels, count), flat.shape[1])
    lowest = flat.new_full((*flat.shape[:2], count + 1), -math.inf)
    best = lowest.scatter_reduce(2, index, flat, "amax")[..., :count]
    best = torch.where(best == -math.inf, 0, best)
    return best, torch.zeros_like(best, dtype=torch.int32)


def scatter_mean(features: Tensor, superpixels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Pool means (B, C, K), 0 where empty, added up in float64; and sizes (B, K) in voxels."""
    flat = features.flatten(2).to(torch.float64)
    slots = _slots(superpixels, count)
    sums = flat.new_zeros((*flat.shape[:2], count + 1))
    sums = sums.scatter_add(2, _for_each_channel(slots, flat.shape[1]), flat)[..., :count]
    sizes = slots.new_zeros((slots.shape[0], count + 1))
    sizes = sizes.scatter_add(1, slots, torch.ones_like(slots))[:, :count]
    return (sums / sizes.clamp_min(1)[:, None]).to(features.dtype), sizes


def gather_voxels(values: Tensor, superpixels: Tensor, channels_last: bool) -> Tensor:
    """Give every voxel the value of its superpixel, 0 where it has none; (B, C, *S).

    How the answer lies in memory, ``channels_last``, is left to the runtime.
    """
    del channels_last
    table = torch.cat([values, torch.zeros_like(values[..., :1])], 2)
    index = _for_each_channel(_slots(superpixels, values.shape[2]), values.shape[1])
    return table.gather(2, index).reshape([*values.shape[:2], *superpixels.shape[1:]])


def _slots(superpixels: Tensor, count: int) -> Tensor:
    """Labels as (B, N) int64 in [0, K]: slot K takes the voxels without a superpixel."""
    flat = superpixels.flatten(1).to(torch.int64)
    return torch.where((flat < 0) | (flat >= count), count, flat)


def _for_each_channel(slots: Tensor, channels: int) -> Tensor:
    return slots[:, None].expand(-1, channels, -1)


SCATTER_FORM: dict[Any, Callable[..., Any]] = {
    torch.ops.voxseg.superpixel_max.default: scatter_max,
    torch.ops.voxseg.superpixel_mean.default: scatter_mean,
    torch.ops.voxseg.superpixel_unpool.default: gather_voxels,
}
"""Operation -> what takes its place."""
