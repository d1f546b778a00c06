"""The image in blocks: how SLIC's CPU twin lays voxels out so that every iteration streams.

Source: none (machinery of ``slic.py`` beside it).
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from voxseg.ops.jit import kernel
from voxseg.ops.slic_plan import VALUE_LEVELS, SlicPlan

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

MAX_BLOCK = 16
"""Most voxels of a block along an axis."""


class Grid(NamedTuple):
    """Cells of the initial grid, and the blocks of at most 16 voxels a side that they are cut into.

    Attributes:
        num_cells: (3,) cells along each axis.
        z_edges: (blocks + 1,) first voxel of every block along z, and the end.
        y_edges: the same along y.
        x_edges: the same along x.
        z_cells: (blocks,) the cell that a block belongs to, along z.
        y_cells: the same along y.
        x_cells: the same along x.
        z_first: (cells + 1,) the first block of a cell along z, and their number.
        y_first: the same along y.
    """

    num_cells: Ints
    z_edges: Ints
    y_edges: Ints
    x_edges: Ints
    z_cells: Ints
    y_cells: Ints
    x_cells: Ints
    z_first: Ints
    y_first: Ints


def make_grid(plan: SlicPlan) -> Grid:
    """Cut the plan's box into cells and blocks."""
    axes = [
        _cut_axis(start, stop, cells)
        for (start, stop), cells in zip(plan.box, plan.num_cells, strict=True)
    ]
    edges, cells = zip(*axes, strict=True)
    first = [
        np.searchsorted(owners, np.arange(count + 1))
        for owners, count in zip(cells[:2], plan.num_cells[:2], strict=True)
    ]
    return Grid(np.array(plan.num_cells), *edges, *cells, *first)


def make_blocks(plan: SlicPlan, grid: Grid) -> Floats:
    """Copy the plan's image into blocks, scaled.

    Returns:
        (C, N + 16) float32 with N the voxels of the box; a block may be read to a multiple of 16.
    """
    size = math.prod(stop - start for start, stop in plan.box)
    blocks = np.empty((len(plan.image), size + 16), np.float32)
    blocks[:, size:] = np.inf
    for channel, scaling, block in zip(plan.image, plan.scaling, blocks, strict=True):
        _fill_blocks(channel, plan.mask, scaling, grid, block)
    return blocks


def _cut_axis(start: int, stop: int, cells: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut an axis into cells and these into blocks: the blocks' edges and the cell of each."""
    edges, owners = [start], []
    length = stop - start
    for cell in range(cells):
        low, high = start + cell * length // cells, start + (cell + 1) * length // cells
        parts = -(-(high - low) // MAX_BLOCK)
        edges += [low + (high - low) * (part + 1) // parts for part in range(parts)]
        owners += [cell] * parts
    return np.array(edges, np.int64), np.array(owners, np.int64)


@kernel()
def row_start(grid: Grid, z_block: int, y_block: int) -> tuple[int, int, int]:
    """Where the blocks of one row begin in the blocked copy, and the row's depth and height."""
    depth = grid.z_edges[z_block + 1] - grid.z_edges[z_block]
    height = grid.y_edges[y_block + 1] - grid.y_edges[y_block]
    width = grid.x_edges[-1] - grid.x_edges[0]
    above = (grid.z_edges[z_block] - grid.z_edges[0]) * (grid.y_edges[-1] - grid.y_edges[0])
    before = (grid.y_edges[y_block] - grid.y_edges[0]) * depth
    return (above + before) * width, depth, height


@kernel()
def _fill_row(
    row: int,
    channel: NDArray[Any],
    mask: NDArray[np.bool_],
    scaling: NDArray[np.float64],
    grid: Grid,
    blocks: Floats,
) -> None:
    """Copy one row of blocks."""
    z_block, y_block = row // grid.y_cells.size, row % grid.y_cells.size
    at, depth, height = row_start(grid, z_block, y_block)
    for x_block in range(grid.x_cells.size):
        start, stop = grid.x_edges[x_block], grid.x_edges[x_block + 1]
        for z in range(grid.z_edges[z_block], grid.z_edges[z_block] + depth):
            for y in range(grid.y_edges[y_block], grid.y_edges[y_block] + height):
                line, block = channel[z, y, start:stop], blocks[at : at + stop - start]
                for x in range(line.size):
                    block[x] = (line[x] - scaling[0]) * scaling[1]
                if mask.size:
                    inside = mask[z, y, start:stop]
                    for x in range(inside.size):
                        block[x] = block[x] if inside[x] else np.inf
                at += stop - start


@kernel(parallel=True)
def _fill_blocks(
    channel: NDArray[Any],
    mask: NDArray[np.bool_],
    scaling: NDArray[np.float64],
    grid: Grid,
    blocks: Floats,
) -> None:
    """Copy one channel into blocks: ``(value - scaling[0]) * scaling[1]``, infinity off the mask.

    Args:
        channel: (Z, Y, X) any real dtype.
        mask: (Z, Y, X) bool, or one of no voxels for "everywhere".
        scaling: (2,) float64 offset and factor.
        grid: the grid; only its box is copied.
        blocks: (N + 16,) float32 of the result.
    """
    for row in prange(grid.z_cells.size * grid.y_cells.size):
        _fill_row(row, channel, mask, scaling, grid, blocks)


@kernel()
def _add_voxel(target: Ints, z: int, y: int, x: int) -> None:
    """Count one voxel."""
    target[0] += 1
    target[1] += z
    target[2] += y
    target[3] += x


@kernel()
def _seed_row(row: int, grid: Grid, blocks: Floats, levels: np.float32, sums: Ints) -> None:
    """Sum up one row of blocks by the cell that a voxel lies in."""
    z_block, y_block = row // grid.y_cells.size, row % grid.y_cells.size
    sums.fill(0)
    at, depth, height = row_start(grid, z_block, y_block)
    for x_block in range(grid.x_cells.size):
        target = sums[4, grid.x_cells[x_block]]
        for z in range(grid.z_edges[z_block], grid.z_edges[z_block] + depth):
            for y in range(grid.y_edges[y_block], grid.y_edges[y_block] + height):
                for x in range(grid.x_edges[x_block], grid.x_edges[x_block + 1]):
                    if blocks[0, at] != np.inf:
                        _add_voxel(target, z, y, x)
                        for channel in range(blocks.shape[0]):
                            scaled = min(blocks[channel, at] * levels, np.float32(VALUE_LEVELS))
                            target[4 + channel] += np.int32(scaled + np.float32(0.5))
                    at += 1


@kernel(parallel=True)
def seed(grid: Grid, blocks: Floats, levels: np.float32, sums: Ints) -> None:
    """Sum up the voxels by the cell that they lie in, as ``slic.py`` does by the cell they chose.

    Args:
        grid: the grid that the blocks were cut by.
        blocks: (C, N + 16) float32 from ``make_blocks``.
        levels: factor that makes a scaled value an integer.
        sums: (rows of blocks, 9, cells along x, 4 + C) int64; overwritten.
    """
    for row in prange(sums.shape[0]):
        _seed_row(row, grid, blocks, levels, sums[row])
