"""Superpixel pooling on a GPU: launches the files of ``cuda`` that begin with the op's name.

Source: Schuurmans, Berman, Blaschko, *Efficient semantic image segmentation with superpixel
pooling*, 2018, arXiv:1806.02705, Equations 1-3.
Twins: ``voxseg/ops/reference/superpixel_pool.py``, ``voxseg/ops/cpu/superpixel_pool.py``.

Sums are made in float32 within a tile and in float64 across tiles, always by the same tree: a run
repeats bit by bit. float64 features, and everything under ``VOXSEG_KERNELS=torch``, go the way of
``portable.py``.
"""

import math

import torch
from torch import Tensor

from voxseg.ops import nvrtc, portable
from voxseg.ops.portable import empty_like_features
from voxseg.ops.superpixel_plan import (
    TILE_VOXELS,
    Tiles,
    check_size,
    find_tiles,
    find_tiles_if_worth_it,
    narrow,
    plain,
)

_OP = "superpixel_pool"
_ROWS = "superpixel_pool_rows"
_BACK = "superpixel_unpool"
_THREADS = 256
_RUN = 8  # RUN of the kernel file
_PACK_BYTES = 16  # of a voxel in shared memory: ROUND channels of the kernel file
_TILE_BYTES = TILE_VOXELS * _PACK_BYTES + (TILE_VOXELS + 32) * 2
_ENOUGH_BLOCKS = 2048
_MOST_GRID_Y = 65535


def superpixel_max(features: Tensor, superpixels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Pool maxima (B, C, K) and the linear index of each winner, int32, -1 where empty."""
    if _is_elsewhere(features):
        return portable.superpixel_max(features, superpixels, count)
    features, last = _laid_out(features)
    superpixels = _narrow(superpixels)
    B, C = features.shape[:2]
    voxels = math.prod(features.shape[2:])
    check_size(voxels)
    values = features.new_empty((B, C, count))
    argmax = torch.empty((B, C, count), dtype=torch.int32, device=features.device)
    run = nvrtc.kernels(_ROWS, features.device, features.dtype)
    tiles = find_tiles_if_worth_it(superpixels, count)
    arguments: list[nvrtc.Argument]
    if tiles is None:
        keys = torch.zeros((B, C, count), dtype=torch.int64, device=features.device)
        threads = B * C * -(-voxels // _RUN)
        arguments = [features, superpixels, keys, B, C, count, voxels, last]
        run("max_atomic", _grid(threads), _THREADS, arguments)
        slots = values.numel()
        arguments = [keys, features, values, argmax, slots, C, count, voxels, last]
        run("max_unpack", _grid(slots), _THREADS, arguments)
        return values, argmax
    partial = _pass_1("max", features, last, tiles, torch.int64)
    arguments = [partial, tiles.rows, tiles.first, features, values, argmax, C, count, voxels, last]
    run("max_rows", _rows_grid(B, C, count), _THREADS, arguments, _THREADS * 8)
    return values, argmax


def superpixel_max_backward(
    grad: Tensor, argmax: Tensor, size: list[int], channels_last: bool
) -> Tensor:
    """Hand every superpixel's gradient to the voxel that won; zero (B, C, *S) elsewhere."""
    if _is_elsewhere(grad) or argmax.dtype != torch.int32:
        return portable.superpixel_max_backward(grad, argmax, size, channels_last)
    grad, argmax = grad.contiguous(), argmax.contiguous()
    out = empty_like_features(grad, size, channels_last).zero_()
    voxels = math.prod(size[2:])
    run = nvrtc.kernels(_BACK, grad.device, grad.dtype)
    arguments: list[nvrtc.Argument]
    arguments = [grad, argmax, out, grad.numel(), size[1], grad.shape[2], voxels, channels_last]
    run("max_backward", _grid(grad.numel()), _THREADS, arguments)
    return out


def superpixel_sum(features: Tensor, superpixels: Tensor, count: int) -> Tensor:
    """Add up every superpixel's features; (B, C, K) in the dtype of ``features``."""
    if _is_elsewhere(features):
        return portable.superpixel_sum(features, superpixels, count)
    return _sum(features, find_tiles(_narrow(superpixels), count), count, None)


def superpixel_mean(features: Tensor, superpixels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Pool means (B, C, K), 0 where empty, and sizes (B, K) in voxels, int64."""
    if _is_elsewhere(features):
        return portable.superpixel_mean(features, superpixels, count)
    tiles = find_tiles(_narrow(superpixels), count)
    # The plan keeps its own sizes: an op may not return what it holds on to.
    return _sum(features, tiles, count, tiles.sizes), tiles.sizes.clone()


def superpixel_unpool(values: Tensor, superpixels: Tensor, channels_last: bool) -> Tensor:
    """Give every voxel the value of its superpixel, 0 where it has none; (B, C, *S)."""
    if _is_elsewhere(values):
        return portable.superpixel_unpool(values, superpixels, channels_last)
    superpixels = _narrow(superpixels)
    B, C, K = values.shape
    out = empty_like_features(values, [B, C, *superpixels.shape[1:]], channels_last)
    voxels = math.prod(superpixels.shape[1:])
    check_size(voxels)
    run = nvrtc.kernels(_BACK, values.device, values.dtype)
    arguments: list[nvrtc.Argument]
    if channels_last:
        table = values.transpose(1, 2).contiguous()
        group = _group(C)
        arguments = [table, superpixels, out, B * voxels, voxels, C, K, group]
        run("unpool_last", _grid(B * voxels * group), _THREADS, arguments)
        return out
    per = 16 // values.element_size()
    blocks = -(-voxels // (_THREADS * per))
    block_channels = _block_channels(C, B * blocks, 1)
    vectors = voxels % per == 0 and out.data_ptr() % 16 == 0
    arguments = [values.contiguous(), superpixels, out, C, block_channels, K, voxels]
    grid = (B * blocks, -(-C // block_channels))
    run("unpool", grid, _THREADS, [*arguments, blocks, vectors])
    return out


def _sum(features: Tensor, tiles: Tiles, count: int, sizes: Tensor | None) -> Tensor:
    features, last = _laid_out(features)
    B, C = features.shape[:2]
    out = features.new_empty((B, C, count))
    run = nvrtc.kernels(_ROWS, features.device, features.dtype)
    partial = _pass_1("sum", features, last, tiles, torch.float32)
    arguments: list[nvrtc.Argument]
    arguments = [partial, tiles.rows, tiles.first, sizes, out, C, count]
    run("sum_rows", _rows_grid(B, C, count), _THREADS, arguments, _THREADS * 8)
    return out


def _pass_1(op: str, features: Tensor, last: bool, tiles: Tiles, kind: torch.dtype) -> Tensor:
    """Reduce every row of every tile; (rows, C)."""
    C = features.shape[1]
    run = nvrtc.kernels(_OP, features.device, features.dtype)
    partial = torch.empty((tiles.rows.numel(), C), dtype=kind, device=features.device)
    number = tiles.base.numel() - 1
    arguments: list[nvrtc.Argument]
    index = [tiles.offsets, tiles.base, tiles.start, tiles.stop]
    geometry = [tiles.tiles_per_image, *tiles.shape, *tiles.bits[1:]]
    if last:
        arguments = [features, *index, partial, C, _group(C), *geometry]
        run(f"{op}_tiles_last", (number,), _THREADS, arguments, 4 * TILE_VOXELS)
        return partial
    per = _PACK_BYTES // features.element_size()
    block_channels = _block_channels(C, number, per)
    vectors = tiles.shape[2] % per == 0 and features.data_ptr() % 16 == 0
    arguments = [features, *index, partial, C, block_channels, *geometry, vectors]
    grid = (number, -(-C // block_channels))
    run(f"{op}_tiles", grid, _THREADS, arguments, _TILE_BYTES)
    return partial


def _narrow(superpixels: Tensor) -> Tensor:
    """Labels as kernels read them; the public functions bring them so."""
    return narrow(superpixels).contiguous()


def _is_elsewhere(features: Tensor) -> bool:
    return features.dtype not in nvrtc.REALS or plain()


def _laid_out(features: Tensor) -> tuple[Tensor, bool]:
    """Give features that kernels can read, and whether their channels lie last."""
    if features.is_contiguous():
        return features, False
    if features.movedim(1, -1).is_contiguous():
        return features, True
    return features.contiguous(), False


def _grid(threads: int) -> tuple[int]:
    return (-(-threads // _THREADS),)


def _rows_grid(images: int, channels: int, count: int) -> tuple[int, int]:
    """A block of pass 2 has 32 channels of a superpixel."""
    return images * count, -(-channels // 32)


def _group(channels: int) -> int:
    """Lanes that share a voxel: the least power of two that holds the channels, at most 32."""
    group: int = min(32, 1 << max(0, channels - 1).bit_length())
    return group


def _block_channels(channels: int, blocks: int, step: int) -> int:
    """Channels that a block works through: all, unless there are too few blocks for a GPU."""
    rounds = -(-channels // step)
    wanted = min(rounds, -(-_ENOUGH_BLOCKS // max(blocks, 1)), _MOST_GRID_Y)
    return max(1, -(-rounds // max(wanted, 1))) * step
