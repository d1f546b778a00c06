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

    planes: Floats  # (27, M) in-plane part of the distance to each candidate
    base: Floats  # (27,) its part along z
    values: Floats  # (27, C)
    cells: NDArray[np.int32]  # (32,) cell of each candidate; -1 in the last place
    slots: Ints  # (27, 2) row slot and x of each candidate, to find its sums
    yx: Floats  # (2, M) position in the block
    packed: Ints  # (M,) one voxel's count, (z,) y and x in one integer
    distance: Floats  # (M,)
    steps: NDArray[np.int32]  # (M,) values as integers
    best: NDArray[np.int32]  # (M,) distance and candidate of the nearest centre so far
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
        np.empty((MAX_CANDIDATES, _PLANE), np.float32),
        np.empty(MAX_CANDIDATES, np.float32),
        np.empty((MAX_CANDIDATES, channels), np.float32),
        np.empty(_CODES, np.int32),
        np.empty((MAX_CANDIDATES, 2), np.int64),
        np.zeros((2, _PLANE), np.float32),
        np.zeros(_PLANE, np.int64),
        np.empty(_PLANE, np.float32),
        np.empty(_PLANE, np.int32),
        np.empty(_PLANE, np.int32),
        np.zeros(_CODES, np.int64),
        np.zeros((channels, _CODES), np.int64),
    )
    work.cells[CODE_BITS] = -1
    return work


@kernel()
def _set_positions(work: _Scratch, height: int, width: int) -> None:
    """Number the voxels of a plane; needed again only when the plane's shape changes."""
    for y in range(height):
        for x in range(width):
            work.yx[0, y * width + x] = y
            work.yx[1, y * width + x] = x
            work.packed[y * width + x] = (1 << (3 * _SHIFT)) | (y << _SHIFT) | x


@kernel()
def _set_candidates(
    work: _Scratch, clusters: Clusters, grid: Grid, block: tuple[int, int, int], size: int
) -> int:
    """Collect the neighbouring cells in the order of their index, and their in-plane distances."""
    z_cell, y_cell = grid.z_cells[block[0]], grid.y_cells[block[1]]
    x_cell = grid.x_cells[block[2]]
    y_start = np.float32(grid.y_edges[block[1]])
    x_start = np.float32(grid.x_edges[block[2]])
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
                    centre, plane = clusters.centres[cell], work.planes[count]
                    for channel in range(work.values.shape[1]):
                        work.values[count, channel] = centre[3 + channel]
                    for j in range(size):
                        dy = (work.yx[0, j] + y_start) - centre[1]
                        dx = (work.yx[1, j] + x_start) - centre[2]
                        plane[j] = dy * dy * clusters.weights[1] + dx * dx * clusters.weights[2]
                    count += 1
    # Filled up to a multiple of three with candidates that never win.
    for filler in range(count, (count + 2) // 3 * 3):
        for j in range(size):
            work.planes[filler, j] = np.inf
        work.base[filler] = 0
        for channel in range(work.values.shape[1]):
            work.values[filler, channel] = 0
    return count


@kernel()
def _nearest_one_channel(
    planes: Floats, base: Floats, values: Floats, count: int, voxels: Floats, best: Codes
) -> None:
    """Leave distance and candidate of every voxel's nearest centre in ``best``."""
    for j in range(voxels.size):
        best[j] = NOTHING
    # Three candidates a pass: a voxel and its best are loaded once for all three.
    for q in range(0, count, 3):
        z0, z1, z2 = base[q], base[q + 1], base[q + 2]
        v0, v1, v2 = values[q, 0], values[q + 1, 0], values[q + 2, 0]
        q0, q1, q2 = np.int32(q), np.int32(q + 1), np.int32(q + 2)
        for j in range(voxels.size):
            e0, e1, e2 = voxels[j] - v0, voxels[j] - v1, voxels[j] - v2
            d0 = np.float32(planes[q, j] + z0 + e0 * e0)
            d1 = np.float32(planes[q + 1, j] + z1 + e1 * e1)
            d2 = np.float32(planes[q + 2, j] + z2 + e2 * e2)
            k0 = d0.view(np.int32) & ~CODE_BITS | q0
            k1 = d1.view(np.int32) & ~CODE_BITS | q1
            k2 = d2.view(np.int32) & ~CODE_BITS | q2
            best[j] = min(best[j], k0, k1, k2)


@kernel()
def _nearest(work: _Scratch, blocks: Floats, at: int, count: int, size: int) -> None:
    """The same for any number of channels."""
    best, distance = work.best, work.distance
    bits = distance.view(np.int32)
    for j in range(size):
        best[j] = NOTHING
    for q in range(count):
        plane, base, code = work.planes[q], work.base[q], np.int32(q)
        for j in range(size):
            distance[j] = plane[j] + base
        for channel in range(blocks.shape[0]):
            voxels, value = blocks[channel, at : at + size], work.values[q, channel]
            for j in range(size):
                e = voxels[j] - value
                distance[j] += e * e
        for j in range(size):
            best[j] = min(best[j], bits[j] & ~CODE_BITS | code)


@kernel()
def _quantise(voxels: Floats, levels: np.float32, steps: Codes) -> None:
    """Turn scaled values into integers. Infinity, off the mask, becomes one that is not read."""
    top = np.float32(VALUE_LEVELS)
    for j in range(voxels.size):
        steps[j] = np.int32(min(voxels[j] * levels, top) + np.float32(0.5))


@kernel()
def _add_plane(
    best: Codes, packed: Ints, z: int, steps: Codes, position_sums: Ints, value_sums: Ints
) -> None:
    """Add the voxels of a plane, and their first channel, to the sums of their winners."""
    shifted = z << (2 * _SHIFT)
    for j in range(steps.size):
        q = best[j] & CODE_BITS
        position_sums[q] += packed[j] + shifted
        value_sums[q] += steps[j]


@kernel()
def _add_channel(best: Codes, steps: Codes, value_sums: Ints) -> None:
    """Add another channel to the sums of the winners."""
    for j in range(steps.size):
        value_sums[best[j] & CODE_BITS] += steps[j]


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
def _write_plane(
    labels: Codes, y_start: int, x_start: int, width: int, best: Codes, cells: Codes
) -> None:
    """Write the winners' cells into one plane (Y, X) of the labels."""
    for y in range(best.size // width):
        for x in range(width):
            winner = cells[best[y * width + x] & CODE_BITS]
            labels[y_start + y, x_start + x] = winner


@kernel()
def _assign_block(
    work: _Scratch,
    blocks: Floats,
    clusters: Clusters,
    at: int,
    shape: tuple[int, int, int],
    corner: tuple[int, int, int],
    count: int,
    labels: Codes,
) -> None:
    """Assign the voxels of one block, plane by plane."""
    size = shape[1] * shape[2]
    padded = (size + 15) // 16 * 16
    for z in range(shape[0]):
        for q in range(count):
            dz = np.float32(corner[0] + z) - clusters.centres[work.cells[q], 0]
            work.base[q] = dz * dz * clusters.weights[0]
        if blocks.shape[0] == 1:
            voxels, best = blocks[0, at : at + padded], work.best[:padded]
            _nearest_one_channel(work.planes, work.base, work.values, count, voxels, best)
        else:
            _nearest(work, blocks, at, count, padded)
        best, steps = work.best[:size], work.steps[:size]
        _quantise(blocks[0, at : at + padded], clusters.levels, work.steps)
        _add_plane(best, work.packed, z, steps, work.position_sums, work.value_sums[0])
        for channel in range(1, blocks.shape[0]):
            _quantise(blocks[channel, at : at + padded], clusters.levels, work.steps)
            _add_channel(best, steps, work.value_sums[channel])
        if labels.size:
            plane = labels[corner[0] + z]
            _write_plane(plane, corner[1], corner[2], shape[2], best, work.cells)
        at += size


@kernel()
def _assign_row(
    row: int, grid: Grid, blocks: Floats, clusters: Clusters, sums: Ints, labels: Codes
) -> None:
    """Assign every voxel of one row of blocks; sums always, labels where there are any to fill."""
    z_block, y_block = row // grid.y_cells.size, row % grid.y_cells.size
    work = _scratch(blocks.shape[0])
    at, depth, height = row_start(grid, z_block, y_block)
    last_width = -1
    sums.fill(0)
    for x_block in range(grid.x_cells.size):
        width = grid.x_edges[x_block + 1] - grid.x_edges[x_block]
        if width != last_width:
            _set_positions(work, height, width)
            last_width = width
        padded = (height * width + 15) // 16 * 16
        count = _set_candidates(work, clusters, grid, (z_block, y_block, x_block), padded)
        shape = (depth, height, width)
        corner = (grid.z_edges[z_block], grid.y_edges[y_block], grid.x_edges[x_block])
        _assign_block(work, blocks, clusters, at, shape, corner, count, labels)
        _flush_block(work, sums, corner, count)
        at += depth * height * width


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
