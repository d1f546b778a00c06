"""Numba twin of superpixel pooling: one pass over the features, no copy of them.

Source: voxseg's own design; the op is that of Schuurmans, Berman, Blaschko, *Efficient semantic
image segmentation with superpixel pooling*, 2018, arXiv:1806.02705.
Twins: ``reference/superpixel_pool.py`` (the definition of correct).

Channels-first features are read in blocks of eight channels and eight voxels, so that a label is
read once for eight features and table rows are updated as vectors. Channels-last features are read
row by row. Tables of running results have K + 1 rows: row K takes the voxels without a superpixel,
which saves a branch. Work is cut into pieces that depend on shapes alone, and pieces are merged in
their order, so results are the same to the bit for any number of threads.
"""

import ctypes
import math
import mmap
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from voxseg.ops.cpu import superpixel_pool_kernels as kernels
from voxseg.ops.cpu.superpixel_pool_blocks import BLOCK
from voxseg.ops.jit import torch_threads
from voxseg.ops.portable import empty_like_features, index_dtype
from voxseg.ops.superpixel_plan import narrow

Array = np.ndarray[Any, Any]

_PIECES = 16  # pieces of work worth having when there are few channels
_HALF_VOXELS = 2**24  # float32 copies of half-precision features hold at most this many (64 MB)
_HUGE_BYTES = 2**22  # tensors from this size on are worth huge pages
_ALIGNMENT = 64  # bytes, as torch's allocator aligns
_MADV_HUGEPAGE = 14  # Linux, include/uapi/asm-generic/mman-common.h
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class _Strided:
    """A tensor as one flat array and the steps between its elements."""

    flat: Array
    batch: int
    channel: int
    voxel: int


def superpixel_max(features: Tensor, superpixels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Pool maxima and their voxels; see ``voxseg.ops.superpixel_pool``.

    Returns:
        Maxima (B, C, K) in the dtype of ``features``, 0 where empty; linear index of the voxel
        that won (B, C, K), int32 if any fits, else int64, -1 where empty.
    """
    B, C = features.shape[:2]
    P = math.prod(features.shape[2:])
    values = torch.zeros((B, C, count), dtype=_float_type(features.dtype))
    argmax = torch.full((B, C, count), -1, dtype=index_dtype(P))
    if values.numel() and P:
        labels = _labels(superpixels)
        with torch_threads(features.numel()):
            for images, channels, part in _float_parts(features):
                _max_part(
                    _strided(part),
                    labels.flat[images.start * labels.batch :],
                    (labels.batch, P),
                    values[images, channels].numpy(),
                    argmax[images, channels].numpy(),
                )
    return values.to(features.dtype), argmax


def superpixel_max_backward(
    grad: Tensor, argmax: Tensor, size: list[int], channels_last: bool
) -> Tensor:
    """Hand every superpixel's gradient to the voxel that won.

    Args:
        grad: (B, C, K).
        argmax: (B, C, K), from ``superpixel_max``.
        size: (B, C, *S).
        channels_last: lay the result out with channels last in memory.

    Returns:
        (B, C, *S), zero but for the winners.
    """
    out = _zeros(grad, size, channels_last)
    if out.numel() and grad.numel():
        to = _strided(_bits(out))
        source = _bits(grad.contiguous()).numpy()
        with torch_threads(grad.numel()):
            kernels.scatter(
                source, argmax.contiguous().numpy(), to.flat, to.batch, to.channel, to.voxel
            )
    return out


def superpixel_sum(features: Tensor, superpixels: Tensor, count: int) -> Tensor:
    """Add up every superpixel's features in float64; (B, C, K) in the dtype of ``features``."""
    sums = _sums(features, _labels(superpixels), count)
    return torch.from_numpy(sums).to(features.dtype)


def superpixel_mean(features: Tensor, superpixels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Pool means; see ``voxseg.ops.superpixel_pool``.

    Returns:
        Means (B, C, K) in the dtype of ``features``, 0 where empty; sizes (B, K) in voxels, int64.
    """
    labels = _labels(superpixels)
    sums = _sums(features, labels, count)
    B, P = superpixels.shape[0], math.prod(superpixels.shape[1:])
    sizes = np.zeros((_num_pieces(B, P, count), B, count), np.int64)
    if P and sizes.size:
        with torch_threads(superpixels.numel()):
            kernels.count_voxels(labels.flat, labels.batch, P, sizes)
    sizes = sizes.sum(axis=0)
    sums /= np.maximum(sizes, 1)[:, None]
    return torch.from_numpy(sums).to(features.dtype), torch.from_numpy(sizes)


def superpixel_unpool(values: Tensor, superpixels: Tensor, channels_last: bool) -> Tensor:
    """Give every voxel the value of its superpixel; see ``voxseg.ops.superpixel_unpool``."""
    B, C, K = values.shape
    P = math.prod(superpixels.shape[1:])
    out = _empty(values, [B, C, *superpixels.shape[1:]], channels_last)
    if not out.numel():
        return out
    labels = _labels(superpixels)
    to = _strided(_bits(out))
    source = _bits(values.contiguous())
    with torch_threads(out.numel()):
        if to.voxel == 1:
            slabs = _num_pieces(B * -(-C // BLOCK), P, K)
            kernels.unpool_first(source.numpy(), labels.flat, labels.batch, P, slabs, to.flat)
        else:
            # Row K is what voxels without a superpixel get.
            table = torch.nn.functional.pad(source, (0, 1)).transpose(1, 2).contiguous()
            kernels.unpool_last(table.numpy(), labels.flat, labels.batch, P, _PIECES, to.flat)
    return out


def _empty(like: Tensor, size: list[int], channels_last: bool) -> Tensor:
    """Allocate (B, C, *S), on huge pages if it is large and the system has them to give.

    Half of the time of writing a large tensor in a fresh process is the system's, which hands out
    and clears pages of 4 KB one by one; torch's allocator asks for larger ones only if the process
    was started with THP_MEM_ALLOC_ENABLE=1.
    """
    out = empty_like_features(like, size, channels_last)
    _ask_for_huge_pages(out.data_ptr(), out.numel() * out.element_size())
    return out


def _zeros(like: Tensor, size: list[int], channels_last: bool) -> Tensor:
    """As ``_empty``, filled with zeros.

    Memory fresh from the system is zero already; NumPy's allocator knows, torch's writes it again.
    """
    num_bytes = math.prod(size) * like.element_size()
    if num_bytes < _HUGE_BYTES:
        return empty_like_features(like, size, channels_last).zero_()
    raw = np.zeros(num_bytes + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    _ask_for_huge_pages(raw.ctypes.data, raw.nbytes)
    flat = torch.from_numpy(raw[start : start + num_bytes]).view(like.dtype)
    if not channels_last:
        return flat.view(size)
    return flat.view(size[0], *size[2:], size[1]).movedim(-1, 1)


def _ask_for_huge_pages(address: int, num_bytes: int) -> None:
    """Advise the system on memory that nothing was written to yet."""
    advise = _madvise()
    if advise and num_bytes >= _HUGE_BYTES:
        # Only whole pages: what else lies on the first and last one is not ours.
        start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
        stop = (address + num_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        advise(start, max(0, stop - start), _MADV_HUGEPAGE)


@cache
def _madvise() -> Callable[[int, int, int], int] | None:
    """The C library's madvise, on Linux; advice that fails does no harm."""
    if not sys.platform.startswith("linux"):
        return None
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    madvise.restype = ctypes.c_int

    def advise(start: int, num_bytes: int, advice: int) -> int:
        return int(madvise(start, num_bytes, advice))

    return advise


def _max_part(
    x: _Strided, labels: Array, label_strides: tuple[int, int], values: Array, argmax: Array
) -> None:
    """Fill values and argmax (B, C, K) from features that are float32 or float64."""
    B, C, K = values.shape
    label_batch, P = label_strides
    first = x.voxel == 1
    pieces = _num_pieces(B * -(-C // (BLOCK if first else kernels.ROW)), P, K)
    best = np.empty((pieces, B, C, K), values.dtype)
    where = np.empty((pieces, B, C, K), argmax.dtype)
    if first:
        kernels.max_first(x.flat, (x.batch, x.channel), labels, label_batch, P, best, where)
    else:
        kernels.max_last(x.flat, (x.batch, x.voxel), labels, label_batch, P, best, where)
    kernels.merge_max(best, where, values, argmax)


def _sums(features: Tensor, labels: _Strided, count: int) -> Array:
    """Sums (B, C, K) in float64."""
    B, C = features.shape[:2]
    P = math.prod(features.shape[2:])
    sums = np.zeros((B, C, count))
    if not (sums.size and P):
        return sums
    with torch_threads(features.numel()):
        for images, channels, part in _float_parts(features):
            x = _strided(part)
            first = x.voxel == 1
            groups = -(-part.shape[1] // (BLOCK if first else kernels.ROW))
            pieces = _num_pieces(part.shape[0] * groups, P, count)
            parts = np.empty((pieces, *part.shape[:2], count))
            label_flat = labels.flat[images.start * labels.batch :]
            if first:
                steps = (x.batch, x.channel)
                kernels.sum_first(x.flat, steps, label_flat, labels.batch, P, parts)
            else:
                steps = (x.batch, x.voxel)
                kernels.sum_last(x.flat, steps, label_flat, labels.batch, P, parts)
            sums[images, channels] = parts.sum(axis=0) if pieces > 1 else parts[0]
    return sums


def _num_pieces(num_tasks: int, num_voxels: int, count: int) -> int:
    """Into how many slabs each task is cut: a function of shapes only, never of threads.

    A slab has at least 64 times as many voxels as its tables have rows, so that merging is cheap
    and all tables together stay smaller than the features.
    """
    wanted = -(-_PIECES // max(1, num_tasks))
    return max(1, min(wanted, num_voxels // (64 * (count + 1)), num_voxels // 4096))


def _float_parts(features: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Cut the features into (images, channels, part) that kernels can read.

    float32 and float64 come whole; half-precision features come as float32 copies of a few
    channels at a time, so that the copy stays small.
    """
    B, C = features.shape[:2]
    if features.dtype in (torch.float32, torch.float64):
        yield slice(0, B), slice(0, C), features
        return
    step = max(BLOCK, _HALF_VOXELS // math.prod(features.shape[2:]))
    for b in range(B):
        for c in range(0, C, step):
            part = features[b : b + 1, c : c + step]
            copy = torch.empty(part.shape, dtype=torch.float32).copy_(part)
            yield slice(b, b + 1), slice(c, min(c + step, C)), copy


def _float_type(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which maxima are found."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _labels(superpixels: Tensor) -> _Strided:
    """Labels as int32, contiguous within an image, with any step between images."""
    labels = narrow(superpixels)
    if labels.numel() and not labels[0].is_contiguous():
        labels = labels.contiguous()
    return _strided(labels[:, None])


def _strided(tensor: Tensor) -> _Strided:
    """View (B, C, *S) as a flat array with steps, copied only if its voxels do not lie in a row.

    The voxel step is 1 (channels first, any step between channels), or the channel step is 1.
    """
    tensor = tensor.detach()
    voxel = _voxel_step(tensor)
    channel_step = 1 if tensor.shape[1] == 1 else tensor.stride(1)
    if tensor.numel() == 0 or voxel is None or (voxel != 1 and channel_step != 1):
        tensor, voxel = tensor.contiguous(), 1
    span = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    flat = tensor.as_strided((max(span, 0),), (1,)) if tensor.numel() else tensor.reshape(-1)
    return _Strided(flat.numpy(), tensor.stride(0), tensor.stride(1), voxel)


def _voxel_step(tensor: Tensor) -> int | None:
    """The constant step between neighbouring voxels in raster order, or None without one."""
    step, span = None, 1
    for n, stride in zip(reversed(tensor.shape[2:]), reversed(tensor.stride()[2:]), strict=True):
        if n == 1:
            continue
        if step is None:
            step = stride
        elif stride != step * span:
            return None
        span *= n
    return 1 if step is None else step or None


def _bits(tensor: Tensor) -> Tensor:
    """View as integers of the same size: copies need no arithmetic, and NumPy has no bfloat16."""
    return tensor.detach().view(_BITS[tensor.element_size()])
