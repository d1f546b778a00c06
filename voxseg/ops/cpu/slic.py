"""SLIC's assignment and update on the CPU, in Numba.

Source: Achanta, Shaji, Smith, Lucchi, Fua, Süsstrunk, *SLIC superpixels compared to
state-of-the-art superpixel methods*, TPAMI 34(11), 2012, section 3.

The image is copied once, normalised, into blocks: a block is a grid cell, or a part of one when
cells are large, and its voxels lie together, so that every iteration streams. All voxels of a block
have the same at most 27 candidate centres. The distance, its lowest five bits replaced by the
candidate's number, is one integer whose minimum is the winner, with ties going to the lowest cell.
Sums are integers, so neither the order of the blocks nor the number of threads can change a bit.
Parallel loops call one function and do nothing else: Numba takes what their bodies write through a
named tuple for dead code.

Departures:
    Seeds are the means of the grid's cells, not voxels moved to the lowest gradient.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from voxseg.ops.cpu.slic_blocks import MAX_BLOCK, Grid, make_blocks, make_grid, row_start, seed
from voxseg.ops.cpu.slic_centres import Clusters, Floats, Ints, update_centres
from voxseg.ops.jit import kernel
from voxseg.ops.slic_plan import VALUE_LEVELS, SlicPlan

Codes = NDArray[np.int32]

MAX_CANDIDATES = 27
CODE_BITS = np.int32(31)
"""The lowest bits of a distance, which hold the candidate's number; 31 means none."""
NOTHING = np.int32(0x7F7FFFFF)
"""The largest finite float32 as an integer: no candidate yet, and its code is 31."""
_PLANE = MAX_BLOCK**2
_CODES = 32
_SHIFT = 16
"""Bits of a packed sum: 16**3 voxels of a block, each with an offset below 16, add up to less."""


class _Scratch(NamedTuple):
    """What one thread needs for a block; planes are padded to a multiple of 16 voxels."""

    points: Floats  # (27, 3 + C) centres of the candidates
    planes: Floats  # (27, M) in-plane part of the distance to each
    cells: Codes  # (32,) cell of each candidate; -1 in the last place
    slots: Ints  # (27, 2) row slot and x of each candidate, to find its sums
    yx: Floats  # (2, M) position
    packed: Ints  # (M,) one voxel's count, (z,) y and x in one integer
    best: Codes  # (block,) distance and candidate of the nearest centre so far
    position_sums: Ints  # (32,) packed
    value_sums: Ints  # (C, 32)


def assign_cells(plan: SlicPlan, iterations: int) -> tuple[NDArray[np.int32], int]:
    """Run SLIC's iterations, without connectivity.

    Args:
        plan: from ``make_plan``.
        iterations: rounds of assignment, at least 1.

    Returns:
        (Z, Y, X) int32: the grid cell whose centre each voxel chose, -1 outside the mask; and how
        many cells have a voxel of the mask.
    """
    labels = np.full(plan.image.shape[1:], -1, np.int32)
    if plan.num_voxels == 0:
        return labels, 0
    grid = make_grid(plan)
    blocks = make_blocks(plan, grid)
    channels, count = len(blocks), math.prod(plan.num_cells)
    centres = np.full((count, 3 + channels), np.nan, np.float32)
    clusters = Clusters(centres, np.ones(count, np.bool_), plan.weights, plan.levels)
    rows = grid.z_cells.size * grid.y_cells.size
    sums = np.empty((rows, 9, plan.num_cells[2], 4 + channels), np.int64)
    seed(grid, blocks, plan.levels, sums)
    moved = update_centres(grid, sums, clusters)
    clusters.is_alive[:] = np.isfinite(centres[:, 0])
    nothing = labels[:0]
    for iteration in range(iterations):
        is_last = moved == 0 or iteration == iterations - 1
        _assign(grid, blocks, clusters, sums, labels if is_last else nothing)
        if is_last:
            break
        moved = update_centres(grid, sums, clusters)
    return labels, int(np.count_nonzero(clusters.is_alive))


@kernel()
def _scratch(channels: int) -> _Scratch:
    """Allocate the buffers."""
    work = _Scratch(
        np.empty((MAX_CANDIDATES, 3 + channels), np.float32),
        np.empty((MAX_CANDIDATES, _PLANE), np.float32),
        np.empty(_CODES, np.int32),
        np.empty((MAX_CANDIDATES, 2), np.int64),
        np.zeros((2, _PLANE), np.float32),
        np.zeros(_PLANE, np.int64),
        np.empty(_PLANE * MAX_BLOCK, np.int32),
        np.zeros(_CODES, np.int64),
        np.zeros((channels, _CODES), np.int64),
    )
    work.cells[CODE_BITS] = -1
    return work


@kernel()
def _set_positions(
    yx: Floats, packed: Ints, corner: tuple[int, int, int], height: int, width: int
) -> None:
    """Number the voxels of a plane."""
    for y in range(height):
        for x in range(width):
            yx[0, y * width + x] = corner[1] + y
            yx[1, y * width + x] = corner[2] + x
            packed[y * width + x] = (1 << (3 * _SHIFT)) | (y << _SHIFT) | x


@kernel()
def _set_candidates(
    work: _Scratch, clusters: Clusters, grid: Grid, block: tuple[int, int, int]
) -> int:
    """Collect the living neighbour cells in the order of their index; return how many."""
    z_cell, y_cell = grid.z_cells[block[0]], grid.y_cells[block[1]]
    x_cell = grid.x_cells[block[2]]
    depth, height, width = grid.num_cells
    count = 0
    for a in range(max(z_cell - 1, 0), min(z_cell + 2, depth)):
        for b in range(max(y_cell - 1, 0), min(y_cell + 2, height)):
            for c in range(max(x_cell - 1, 0), min(x_cell + 2, width)):
                cell = (a * height + b) * width + c
                if clusters.is_alive[cell]:
                    work.cells[count] = cell
                    work.slots[count, 0] = (a - z_cell + 1) * 3 + b - y_cell + 1
                    work.slots[count, 1] = c
                    for field in range(work.points.shape[1]):
                        work.points[count, field] = clusters.centres[cell, field]
                    count += 1
    for filler in range(count, (count + 2) // 3 * 3):
        for field in range(work.points.shape[1]):
            work.points[filler, field] = 0
    return count


@kernel()
def _set_planes(
    planes: Floats, points: Floats, count: int, yx: Floats, weights: Floats, size: int
) -> None:
    """Compute the in-plane part of every candidate's distance; the same for all planes."""
    for q in range(count):
        cy, cx = points[q, 1], points[q, 2]
        for j in range(size):
            dy, dx = yx[0, j] - cy, yx[1, j] - cx
            planes[q, j] = dy * dy * weights[1] + dx * dx * weights[2]
    # Filled up to a multiple of three with candidates that never win.
    for q in range(count, (count + 2) // 3 * 3):
        for j in range(size):
            planes[q, j] = np.inf


@kernel()
def _nearest_one_channel(
    planes: Floats,
    points: Floats,
    count: int,
    weight: np.float32,
    blocks: Floats,
    at: int,
    span: tuple[int, int, int],
    best: Codes,
) -> None:
    """Leave distance and candidate of every voxel's nearest centre in ``best``.

    Planes are read and written to a multiple of 16 voxels; the next one overwrites the excess.
    """
    z_start, depth, size = span
    for z in range(depth):
        begin, end = z * size, min(z * size + (size + 15) // 16 * 16, best.size)
        codes, voxels = best[begin:end], blocks[0, at + begin : at + end]
        here = np.float32(z_start + z)
        for j in range(codes.size):
            codes[j] = NOTHING
        # Three candidates a pass: a voxel and its best are loaded once for all three.
        for q in range(0, count, 3):
            z0 = (here - points[q, 0]) * (here - points[q, 0]) * weight
            z1 = (here - points[q + 1, 0]) * (here - points[q + 1, 0]) * weight
            z2 = (here - points[q + 2, 0]) * (here - points[q + 2, 0]) * weight
            v0, v1, v2 = points[q, 3], points[q + 1, 3], points[q + 2, 3]
            q0, q1, q2 = np.int32(q), np.int32(q + 1), np.int32(q + 2)
            for j in range(codes.size):
                e0, e1, e2 = voxels[j] - v0, voxels[j] - v1, voxels[j] - v2
                d0 = np.float32(planes[q, j] + z0 + e0 * e0)
                d1 = np.float32(planes[q + 1, j] + z1 + e1 * e1)
                d2 = np.float32(planes[q + 2, j] + z2 + e2 * e2)
                k0 = d0.view(np.int32) & ~CODE_BITS | q0
                k1 = d1.view(np.int32) & ~CODE_BITS | q1
                k2 = d2.view(np.int32) & ~CODE_BITS | q2
                codes[j] = min(codes[j], k0, k1, k2)


@kernel()
def _nearest(
    planes: Floats,
    points: Floats,
    count: int,
    weight: np.float32,
    blocks: Floats,
    at: int,
    span: tuple[int, int, int],
    best: Codes,
) -> None:
    """The same for any number of channels."""
    z_start, depth, size = span
    distance = np.empty(size, np.float32)
    bits = distance.view(np.int32)
    for z in range(depth):
        codes = best[z * size : (z + 1) * size]
        for j in range(size):
            codes[j] = NOTHING
        for q in range(count):
            dz = np.float32(z_start + z) - points[q, 0]
            base, code = dz * dz * weight, np.int32(q)
            for j in range(size):
                distance[j] = planes[q, j] + base
            for channel in range(blocks.shape[0]):
                voxels = blocks[channel, at + z * size : at + (z + 1) * size]
                value = points[q, 3 + channel]
                for j in range(size):
                    e = voxels[j] - value
                    distance[j] += e * e
            for j in range(size):
                codes[j] = min(codes[j], bits[j] & ~CODE_BITS | code)


@kernel()
def _quantise(blocks: Floats, channel: int, at: int, levels: np.float32, steps: Codes) -> None:
    """Turn scaled values into integers. Infinity, off the mask, becomes one that is not read."""
    top, voxels = np.float32(VALUE_LEVELS), blocks[channel, at : at + steps.size]
    for j in range(steps.size):
        steps[j] = np.int32(min(voxels[j] * levels, top) + np.float32(0.5))


@kernel()
def _add_block(
    work: _Scratch, blocks: Floats, at: int, depth: int, size: int, levels: np.float32
) -> None:
    """Add the voxels of a block to the sums of their winners."""
    steps = np.empty(size, np.int32)
    positions, packed, values = work.position_sums, work.packed, work.value_sums
    for z in range(depth):
        codes, shifted = work.best[z * size : (z + 1) * size], z << (2 * _SHIFT)
        _quantise(blocks, 0, at + z * size, levels, steps)
        for j in range(size):
            q = codes[j] & CODE_BITS
            positions[q] += packed[j] + shifted
            values[0, q] += steps[j]
        for channel in range(1, blocks.shape[0]):
            _quantise(blocks, channel, at + z * size, levels, steps)
            for j in range(size):
                values[channel, codes[j] & CODE_BITS] += steps[j]


@kernel()
def _flush_block(work: _Scratch, sums: Ints, corner: tuple[int, int, int], count: int) -> None:
    """Add the block's sums to the row's, positions counted from the volume's corner; clear them."""
    low = (1 << _SHIFT) - 1
    for q in range(count):
        packed = work.position_sums[q]
        if packed == 0:
            continue
        voxels, target = packed >> (3 * _SHIFT), sums[work.slots[q, 0], work.slots[q, 1]]
        target[0] += voxels
        target[1] += ((packed >> (2 * _SHIFT)) & low) + voxels * corner[0]
        target[2] += ((packed >> _SHIFT) & low) + voxels * corner[1]
        target[3] += (packed & low) + voxels * corner[2]
        for channel in range(work.value_sums.shape[0]):
            target[4 + channel] += work.value_sums[channel, q]
    work.position_sums.fill(0)
    work.value_sums.fill(0)


@kernel()
def _write_block(
    labels: Codes,
    corner: tuple[int, int, int],
    shape: tuple[int, int, int],
    best: Codes,
    cells: Codes,
) -> None:
    """Write the winners' cells into the labels."""
    at = 0
    for z in range(corner[0], corner[0] + shape[0]):
        for y in range(corner[1], corner[1] + shape[1]):
            line, codes = labels[z, y, corner[2] : corner[2] + shape[2]], best[at : at + shape[2]]
            for x in range(line.size):
                line[x] = cells[codes[x] & CODE_BITS]
            at += shape[2]


@kernel()
def _assign_row(
    row: int, grid: Grid, blocks: Floats, clusters: Clusters, sums: Ints, labels: Codes
) -> None:
    """Assign every voxel of one row of blocks; sums always, labels where there are any to fill."""
    z_block, y_block = row // grid.y_cells.size, row % grid.y_cells.size
    work = _scratch(blocks.shape[0])
    at, depth, height = row_start(grid, z_block, y_block)
    sums.fill(0)
    for x_block in range(grid.x_cells.size):
        corner = (grid.z_edges[z_block], grid.y_edges[y_block], grid.x_edges[x_block])
        width = grid.x_edges[x_block + 1] - corner[2]
        size = height * width
        padded = (size + 15) // 16 * 16
        _set_positions(work.yx, work.packed, corner, height, width)
        count = _set_candidates(work, clusters, grid, (z_block, y_block, x_block))
        span, weights = (corner[0], depth, size), clusters.weights
        _set_planes(work.planes, work.points, count, work.yx, weights, padded)
        if blocks.shape[0] == 1:
            _nearest_one_channel(
                work.planes, work.points, count, weights[0], blocks, at, span, work.best
            )
        else:
            _nearest(work.planes, work.points, count, weights[0], blocks, at, span, work.best)
        _add_block(work, blocks, at, depth, size, clusters.levels)
        _flush_block(work, sums, corner, count)
        if labels.size:
            _write_block(labels, corner, (depth, height, width), work.best, work.cells)
        at += depth * size


@kernel(parallel=True)
def _assign(grid: Grid, blocks: Floats, clusters: Clusters, sums: Ints, labels: Codes) -> None:
    """Give every voxel to the nearest of its candidate centres.

    Args:
        grid: the grid that the blocks were cut by.
        blocks: (C, N + 16) float32 from ``make_blocks``.
        clusters: K centres.
        sums: (rows of blocks, 9, cells along x, 4 + C) int64; overwritten.
        labels: (Z, Y, X) int32; the winner's cell is written, -1 off the mask. With no voxel,
            nothing is written.
    """
    for row in prange(sums.shape[0]):
        _assign_row(row, grid, blocks, clusters, sums[row], labels)
