"""Superpixel pooling in plain torch, for devices and types that have no kernels of their own.

Source: the op is that of Schuurmans, Berman, Blaschko, *Efficient semantic image segmentation with
superpixel pooling*, 2018, arXiv:1806.02705; the way to compute it is voxseg's own.

Slower than the twins and hungrier (some (B, C, N) temporaries of 64-bit indices), with the same
answers: maxima and winners come from reductions that do not depend on the order of threads, sums
from a stable sort and one serial sum per superpixel. Departure: MPS lacks both float64 and the
segmented sum, so sums there are ``index_add_`` in float32, in no promised order.
"""

import math

import torch
from torch import Tensor


def index_dtype(num_voxels: int) -> torch.dtype:
    """The dtype of a linear index into one image: int32 unless it has 2**31 voxels or more."""
    return torch.int32 if num_voxels < 2**31 else torch.int64


def empty_like_features(like: Tensor, size: list[int], channels_last: bool) -> Tensor:
    """Allocate (B, C, *S) with channels first or last in memory, on the device of ``like``."""
    if not channels_last:
        return like.new_empty(size)
    order = (0, len(size) - 1, *range(1, len(size) - 1))
    return like.new_empty([size[0], *size[2:], size[1]]).permute(order)


def superpixel_max(features: Tensor, superpixels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Pool maxima (B, C, K) and the linear index of each winner, -1 where empty."""
    B, C = features.shape[:2]
    P = math.prod(features.shape[2:])
    flat = features.reshape(B, C, P)
    index = _slots(superpixels, count)[:, None].expand(B, C, P)
    best = flat.new_full((B, C, count + 1), -math.inf)
    best = best.scatter_reduce(2, index, flat, "amax")
    wins = (flat == best.gather(2, index)) | flat.isnan()
    place = torch.where(wins, torch.arange(P, device=flat.device), P)
    first = place.new_full((B, C, count + 1), P).scatter_reduce(2, index, place, "amin")
    first = first[..., :count]
    filled = first < P
    values = _take(flat, first.where(filled, -1))
    return values, first.where(filled, -1).to(index_dtype(P))


def superpixel_max_backward(
    grad: Tensor, argmax: Tensor, size: list[int], channels_last: bool
) -> Tensor:
    """Hand every superpixel's gradient to the voxel that won; zero (B, C, *S) elsewhere."""
    filled = argmax >= 0
    out = grad.new_zeros((size[0], size[1], math.prod(size[2:])))
    if out.numel():
        # Winners of different superpixels differ, so no two gradients meet.
        index = argmax.to(torch.int64).clamp_min(0)
        out.scatter_add_(2, index, grad * filled)
    return empty_like_features(grad, size, channels_last).copy_(out.view(size))


def superpixel_sum(features: Tensor, superpixels: Tensor, count: int) -> Tensor:
    """Add up every superpixel's features; (B, C, K) in the dtype of ``features``."""
    return _sums(features, _slots(superpixels, count), count).to(features.dtype)


def superpixel_mean(features: Tensor, superpixels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Pool means (B, C, K), 0 where empty, and sizes (B, K) in voxels, int64."""
    slots = _slots(superpixels, count)
    sums = _sums(features, slots, count)
    sizes = torch.zeros((len(slots), count + 1), dtype=torch.int64, device=features.device)
    sizes = sizes.scatter_add(1, slots, torch.ones_like(slots))[:, :count].contiguous()
    return (sums / sizes.clamp_min(1)[:, None]).to(features.dtype), sizes


def superpixel_unpool(values: Tensor, superpixels: Tensor, channels_last: bool) -> Tensor:
    """Give every voxel the value of its superpixel, 0 where it has none; (B, C, *S)."""
    B, C, K = values.shape
    size = [B, C, *superpixels.shape[1:]]
    table = torch.nn.functional.pad(values, (0, 1))
    slots = _slots(superpixels, K)
    voxels = table.gather(2, slots[:, None].expand(B, C, slots.shape[1]))
    return empty_like_features(values, size, channels_last).copy_(voxels.view(size))


def _slots(superpixels: Tensor, count: int) -> Tensor:
    """Labels as (B, N) int64 in [0, K]: slot K takes the voxels without a superpixel."""
    flat = superpixels.reshape(superpixels.shape[0], -1).to(torch.int64)
    return torch.where((flat < 0) | (flat >= count), count, flat)


def _take(flat: Tensor, index: Tensor) -> Tensor:
    """Values at the indices (B, C, K), 0 where an index is -1."""
    if not flat.shape[2]:
        return flat.new_zeros(index.shape)
    return flat.gather(2, index.clamp_min(0)).where(index >= 0, 0)


def _sums(features: Tensor, slots: Tensor, count: int) -> Tensor:
    """Sums (B, C, K) in the accumulator's dtype: float64, or float32 where there is none."""
    B, C = features.shape[:2]
    rows = features.reshape(B, C, -1).transpose(1, 2)
    if features.device.type == "mps":
        sums = [
            torch.zeros(count + 1, C, device=features.device).index_add_(0, slot, row.float())
            for slot, row in zip(slots, rows, strict=True)
        ]
    else:
        order = slots.argsort(dim=1, stable=True)
        lengths = torch.zeros((B, count + 1), dtype=torch.int64, device=features.device)
        lengths.scatter_add_(1, slots, torch.ones_like(slots))
        sums = [
            torch.segment_reduce(row[at].double(), "sum", lengths=length, axis=0, initial=0)
            for row, at, length in zip(rows, order, lengths, strict=True)
        ]
    stacked = torch.stack(sums) if sums else rows.new_zeros((0, count + 1, C))
    return stacked[:, :count].transpose(1, 2).contiguous()
