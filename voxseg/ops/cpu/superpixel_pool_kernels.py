"""The loops of the Numba twin of superpixel pooling; ``superpixel_pool.py`` beside it calls them.

Source: voxseg's own design; the op is that of Schuurmans, Berman, Blaschko, *Efficient semantic
image segmentation with superpixel pooling*, 2018, arXiv:1806.02705.

Arguments throughout: ``x`` is the features' memory as one flat array, ``steps`` the distance
between two images and between two channels (``*_first``) or two voxels (``*_last``), ``labels``
int32, ``label_step`` the distance between two images' labels, ``P`` voxels per image. Offsets are
64-bit. A label read as unsigned makes every one outside [0, K) larger than K, so one minimum sends
it to row K of a table. Indices are unsigned, which spares Numba's wraparound of negative ones.
"""

from typing import Any

import numpy as np
from numba import prange

from voxseg.ops.cpu.superpixel_pool_blocks import (
    BLOCK,
    add_block,
    add_row,
    max_block,
    max_row,
    spread_block,
)
from voxseg.ops.jit import kernel

Array = np.ndarray[Any, Any]
Steps = tuple[int, int]

ROW = 64  # channels read side by side, channels-last


@kernel(parallel=True)
def max_first(
    x: Array, steps: Steps, labels: Array, label_step: int, P: int, best: Array, where: Array
) -> None:
    """Maxima of slabs; best and where are (slabs, B, C, K), filled here."""
    S, B, C, K = best.shape
    groups = (C + BLOCK - 1) // BLOCK
    for task in prange(S * B * groups):
        s, b, c = task // (B * groups), task // groups % B, task % groups * BLOCK
        label = labels[b * label_step : b * label_step + P]
        width = min(BLOCK, C - c)
        value = np.empty((K + 1) * BLOCK, x.dtype)
        place = np.full((K + 1) * BLOCK, -1, where.dtype)
        value[:] = np.nan
        start, stop = s * P // S, (s + 1) * P // S
        base = b * steps[0] + c * steps[1]
        for i in range(start, stop - BLOCK + 1, BLOCK):
            max_block(x, (base + i, steps[1], width - 1, K), label, i, value, place)
        for i in range(stop - (stop - start) % BLOCK, stop):
            row = np.intp(min(np.uint32(label[i]), np.uint32(K))) * BLOCK
            for g in range(width):
                _update(x[base + i + g * steps[1]], i, value, place, row + g)
        for g in range(width):
            for k in range(K):
                best[s, b, c + g, k] = value[k * BLOCK + g]
                where[s, b, c + g, k] = place[k * BLOCK + g]


@kernel()
def _update(v: float, i: int, value: Array, place: Array, at: int | np.signedinteger[Any]) -> None:
    """Update one entry of the tables with one feature; ``max_block`` says how."""
    seen = value[at]
    if not (v <= seen) and (seen == seen or place[at] < 0):
        value[at] = v
        place[at] = i


@kernel(parallel=True)
def max_last(
    x: Array, steps: Steps, labels: Array, label_step: int, P: int, best: Array, where: Array
) -> None:
    """As ``max_first``, for channels that lie side by side; best and where are (slabs, B, C, K)."""
    S, B, C, K = best.shape
    groups = (C + ROW - 1) // ROW
    for task in prange(S * B * groups):
        s, b, c = task // (B * groups), task // groups % B, task % groups * ROW
        label = labels[b * label_step : b * label_step + P]
        width = min(ROW, C - c)
        blocks = (width + BLOCK - 1) // BLOCK
        value = np.empty((K + 1) * blocks * BLOCK, x.dtype)
        place = np.full((K + 1) * blocks * BLOCK, -1, where.dtype)
        value[:] = np.nan
        for i in range(s * P // S, (s + 1) * P // S):
            row = np.intp(min(np.uint32(label[i]), np.uint32(K))) * blocks
            base = b * steps[0] + i * steps[1] + c
            for j in range(width // BLOCK):
                max_row(x, base + j * BLOCK, i, value, place, row + j)
            for g in range(width // BLOCK * BLOCK, width):
                _update(x[base + g], i, value, place, row * BLOCK + g)
        for k in range(K):
            for g in range(width):
                best[s, b, c + g, k] = value[k * blocks * BLOCK + g]
                where[s, b, c + g, k] = place[k * blocks * BLOCK + g]


@kernel(parallel=True)
def merge_max(best: Array, where: Array, values: Array, argmax: Array) -> None:
    """Merge slabs in their order into values and argmax (B, C, K); empty superpixels get 0, -1."""
    S, B, C, K = best.shape
    for task in prange(B * C):
        b, c = task // C, task % C
        for k in range(K):
            seen, at = best[0, b, c, k], where[0, b, c, k]
            for s in range(1, S):
                v = best[s, b, c, k]
                if where[s, b, c, k] >= 0 and (at < 0 or (seen == seen and not (v <= seen))):
                    seen, at = v, where[s, b, c, k]
            values[b, c, k] = seen if at >= 0 else 0
            argmax[b, c, k] = at


@kernel(parallel=True)
def sum_first(x: Array, steps: Steps, labels: Array, label_step: int, P: int, parts: Array) -> None:
    """Sums of slabs in float64; parts is (slabs, B, C, K), filled here."""
    S, B, C, K = parts.shape
    groups = (C + BLOCK - 1) // BLOCK
    for task in prange(S * B * groups):
        s, b, c = task // (B * groups), task // groups % B, task % groups * BLOCK
        label = labels[b * label_step : b * label_step + P]
        width = min(BLOCK, C - c)
        total = np.zeros((K + 1) * 2 * BLOCK)
        start, stop = s * P // S, (s + 1) * P // S
        base = b * steps[0] + c * steps[1]
        for i in range(start, stop - BLOCK + 1, BLOCK):
            add_block(x, (base + i, steps[1], width - 1, K), label, i, total)
        for i in range(stop - (stop - start) % BLOCK, stop):
            row = np.intp(min(np.uint32(label[i]), np.uint32(K))) * 2 * BLOCK
            for g in range(width):
                total[row + g] += x[base + i + g * steps[1]]
        for g in range(width):
            for k in range(K):
                at = k * 2 * BLOCK + g
                parts[s, b, c + g, k] = total[at] + total[at + BLOCK]


@kernel(parallel=True)
def sum_last(x: Array, steps: Steps, labels: Array, label_step: int, P: int, parts: Array) -> None:
    """As ``sum_first``, for channels that lie side by side; parts is (slabs, B, C, K)."""
    S, B, C, K = parts.shape
    groups = (C + ROW - 1) // ROW
    for task in prange(S * B * groups):
        s, b, c = task // (B * groups), task // groups % B, task % groups * ROW
        label = labels[b * label_step : b * label_step + P]
        width = min(ROW, C - c)
        blocks = (width + BLOCK - 1) // BLOCK
        total = np.zeros((K + 1) * blocks * BLOCK)
        for i in range(s * P // S, (s + 1) * P // S):
            row = np.intp(min(np.uint32(label[i]), np.uint32(K))) * blocks
            base = b * steps[0] + i * steps[1] + c
            for j in range(width // BLOCK):
                add_row(x, base + j * BLOCK, total, row + j)
            for g in range(width // BLOCK * BLOCK, width):
                total[row * BLOCK + g] += x[base + g]
        for k in range(K):
            for g in range(width):
                parts[s, b, c + g, k] = total[k * blocks * BLOCK + g]


@kernel(parallel=True)
def count_voxels(labels: Array, label_step: int, P: int, sizes: Array) -> None:
    """Count each superpixel's voxels in slabs; sizes is (slabs, B, K) of zeros, filled here."""
    S, B, K = sizes.shape
    for task in prange(S * B):
        s, b = task // B, task % B
        label = labels[b * label_step : b * label_step + P]
        size = np.zeros(K + 1, np.int64)
        for i in range(s * P // S, (s + 1) * P // S):
            size[np.uint64(min(np.uint32(label[i]), np.uint32(K)))] += 1
        for k in range(K):
            sizes[s, b, k] = size[k]


@kernel(parallel=True)
def unpool_first(
    values: Array, labels: Array, label_step: int, P: int, num_slabs: int, out: Array
) -> None:
    """Spread values (B, C, K) over out (B * C * P,), channels first."""
    B, C, K = values.shape
    groups = (C + BLOCK - 1) // BLOCK
    for task in prange(num_slabs * B * groups):
        s, b, c = task // (B * groups), task // groups % B, task % groups * BLOCK
        label = labels[b * label_step : b * label_step + P]
        width = min(BLOCK, C - c)
        table = np.zeros((K + 1) * BLOCK, values.dtype)
        for g in range(width):
            for k in range(K):
                table[k * BLOCK + g] = values[b, c + g, k]
        start, stop = s * P // num_slabs, (s + 1) * P // num_slabs
        base = (b * C + c) * P
        for i in range(start, stop - BLOCK + 1, BLOCK):
            spread_block(table, (base + i, P, width - 1, K), label, i, out)
        for i in range(stop - (stop - start) % BLOCK, stop):
            row = np.intp(min(np.uint32(label[i]), np.uint32(K))) * BLOCK
            for g in range(width):
                out[base + i + g * P] = table[row + g]


@kernel(parallel=True)
def unpool_last(
    table: Array, labels: Array, label_step: int, P: int, num_slabs: int, out: Array
) -> None:
    """Spread table (B, K + 1, C) over out (B * P * C,), channels last."""
    B, rows, C = table.shape
    for task in prange(num_slabs * B):
        s, b = task // B, task % B
        label = labels[b * label_step : b * label_step + P]
        for i in range(s * P // num_slabs, (s + 1) * P // num_slabs):
            row = table[b, np.uint64(min(np.uint32(label[i]), np.uint32(rows - 1)))]
            _copy_row(row, out[(b * P + i) * C : (b * P + i + 1) * C])


@kernel()
def _copy_row(row: Array, out: Array) -> None:
    """Write one voxel's channels."""
    for c in range(row.size):
        out[c] = row[c]


@kernel(parallel=True)
def scatter(grad: Array, argmax: Array, out: Array, batch: int, channel: int, voxel: int) -> None:
    """Write grad (B, C, K) to the winners; no two superpixels of a channel share one."""
    B, C, K = grad.shape
    for task in prange(B * C):
        b, c = task // C, task % C
        for k in range(K):
            if argmax[b, c, k] >= 0:
                out[b * batch + c * channel + argmax[b, c, k] * voxel] = grad[b, c, k]
