"""The centres of SLIC's supervoxels and their update: the CPU twin's second half of an iteration.

Source: Achanta et al., TPAMI 34(11), 2012, section 3; see ``slic.py`` beside it.
"""

from typing import NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from voxseg.ops.cpu.slic_blocks import Floats, Grid, Ints
from voxseg.ops.jit import kernel

__all__ = ["Clusters", "Floats", "Ints", "update_centres"]


class Clusters(NamedTuple):
    """Centres and what is needed to move them.

    Attributes:
        centres: (K, 3 + C) float32: z, y, x in voxels, then the scaled value of every channel.
        is_alive: (K,) whether the cell has a voxel.
        weights: (3,) float32: what a squared voxel along each axis adds to a distance.
        levels: float32, what a scaled value is multiplied with to be summed as an integer.
    """

    centres: Floats
    is_alive: NDArray[np.bool_]
    weights: Floats
    levels: np.float32


@kernel()
def _gather(grid: Grid, sums: Ints, cell: int, total: Ints) -> None:
    """Add up what the rows of blocks around a cell have for it."""
    _, height, width = grid.num_cells
    z_cell, y_cell, x_cell = cell // (height * width), cell // width % height, cell % width
    columns = grid.y_cells.size
    for z_block in range(
        grid.z_first[max(z_cell - 1, 0)], grid.z_first[min(z_cell + 2, grid.num_cells[0])]
    ):
        for y_block in range(
            grid.y_first[max(y_cell - 1, 0)], grid.y_first[min(y_cell + 2, height)]
        ):
            slot = (z_cell - grid.z_cells[z_block] + 1) * 3 + y_cell - grid.y_cells[y_block] + 1
            part = sums[z_block * columns + y_block, slot, x_cell]
            for field in range(total.size):
                total[field] += part[field]


@kernel()
def _move(grid: Grid, sums: Ints, clusters: Clusters, cell: int) -> int:
    """Move one centre to the mean of its voxels; 1 if that is somewhere else."""
    total = np.zeros(sums.shape[3], np.int64)
    _gather(grid, sums, cell, total)
    moved = 0
    if total[0] > 0:
        centre = clusters.centres[cell]
        for field in range(centre.size):
            scale = 1.0 if field < 3 else np.float64(clusters.levels)
            mean = np.float32(total[field + 1] / (total[0] * scale))
            if mean != centre[field]:
                moved = 1
            centre[field] = mean
    return moved


@kernel(parallel=True)
def update_centres(grid: Grid, sums: Ints, clusters: Clusters) -> int:
    """Move every centre to the mean of its voxels; one without a voxel stays.

    Returns:
        How many centres moved.
    """
    moved = 0
    for cell in prange(clusters.is_alive.size):
        moved += _move(grid, sums, clusters, cell)
    return moved
