"""Connected components of a label map, and the numbering of labels, on the CPU.

Source: SLIC asks for the step (Achanta et al. 2012, section 3.2, last paragraph) and leaves it
open. Components are found by union-find over runs: stretches of equal labels along the last axis,
of which a map of superpixels has several times fewer than voxels.

A run is united with the runs it touches in the lines above and in front of it. Lines are shared out
in slabs; the lines at a slab's start are united afterwards. The root of a component is its first
run whatever the order of the unions, so nothing depends on the number of threads.
"""

from typing import NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from voxseg.ops.jit import kernel

Labels = NDArray[np.int32]
Ints = NDArray[np.int64]

_LINES_PER_SLAB = 1024
"""Enough that uniting the slabs' borders, which is not parallel, stays a small part."""


class Runs(NamedTuple):
    """Stretches of equal labels along x, in raster order.

    Attributes:
        first: (lines + 1,) where the runs of each line (z, y) begin in the next two.
        start: (R,) x of the first voxel.
        parent: (R,) a run of the same component that comes earlier, or itself.
    """

    first: Ints
    start: Labels
    parent: Labels


@kernel()
def _start_line(lines: Labels, runs: Runs, index: int) -> None:
    """Write where every run of a line starts."""
    line, at = lines[index], runs.first[index]
    runs.start[at] = 0
    runs.parent[at] = at
    for x in range(1, line.size):
        if line[x] != line[x - 1]:
            at += 1
            runs.start[at] = x
            runs.parent[at] = at


@kernel(parallel=True)
def _start_runs(lines: Labels, runs: Runs) -> None:
    """Write where every run starts."""
    for index in prange(lines.shape[0]):
        _start_line(lines, runs, index)


@kernel()
def _unite(parent: Labels, a: int, b: int) -> None:
    """Join the components of two runs under the earlier root, halving paths on the way."""
    while parent[a] != a:
        parent[a] = parent[parent[a]]
        a = parent[a]
    while parent[b] != b:
        parent[b] = parent[parent[b]]
        b = parent[b]
    if a < b:
        parent[b] = a
    elif b < a:
        parent[a] = b


@kernel()
def _unite_lines(lines: Labels, runs: Runs, one: int, other: int) -> None:
    """Unite the runs of two lines that touch and have the same label."""
    i, i_end = runs.first[one], runs.first[one + 1]
    j, j_end = runs.first[other], runs.first[other + 1]
    width = lines.shape[1]
    while True:
        i_stop = runs.start[i + 1] if i + 1 < i_end else width
        j_stop = runs.start[j + 1] if j + 1 < j_end else width
        # These two overlap: each step moves on the one that ends first.
        label = lines[one, runs.start[i]]
        if label >= 0 and label == lines[other, runs.start[j]]:
            _unite(runs.parent, i, j)
        if i_stop <= j_stop:
            i += 1
        if j_stop <= i_stop:
            j += 1
        if i == i_end or j == j_end:
            return


@kernel()
def _unite_slab(lines: Labels, height: int, runs: Runs, begin: int, end: int) -> None:
    """Unite the lines of one slab with those above and in front of them that it holds too."""
    for line in range(begin, end):
        if line % height > 0 and line > begin:
            _unite_lines(lines, runs, line, line - 1)
        if line - height >= begin:
            _unite_lines(lines, runs, line, line - height)


@kernel(parallel=True)
def _unite_slabs(lines: Labels, height: int, runs: Runs) -> None:
    """Unite lines within slabs, then across their borders."""
    count = lines.shape[0]
    slab = max(_LINES_PER_SLAB, 8 * height if count > height else 0)
    for index in prange((count + slab - 1) // slab):
        _unite_slab(lines, height, runs, index * slab, min((index + 1) * slab, count))
    for begin in range(slab, count, slab):
        if begin % height > 0:
            _unite_lines(lines, runs, begin, begin - 1)
        for line in range(begin, min(begin + height, count)):
            if line >= height:
                _unite_lines(lines, runs, line, line - height)


@kernel()
def _number_components(lines: Labels, runs: Runs) -> Ints:
    """Turn parents into component numbers in raster order, -1 for negative labels.

    Returns:
        (components,) voxels of each.
    """
    count = np.int32(0)
    for line in range(lines.shape[0]):
        for run in range(runs.first[line], runs.first[line + 1]):
            if lines[line, runs.start[run]] < 0:
                runs.parent[run] = -1
            elif runs.parent[run] == run:
                runs.parent[run] = count
                count += np.int32(1)
            else:
                # The parent comes earlier, so it already holds its component's number.
                runs.parent[run] = runs.parent[runs.parent[run]]
    sizes = np.zeros(count, np.int64)
    for line in range(lines.shape[0]):
        end = runs.first[line + 1]
        for run in range(runs.first[line], end):
            stop = runs.start[run + 1] if run + 1 < end else lines.shape[1]
            if runs.parent[run] >= 0:
                sizes[runs.parent[run]] += stop - runs.start[run]
    return sizes


@kernel()
def _write_line(lines: Labels, runs: Runs, index: int) -> None:
    """Replace the labels of a line by its runs' components."""
    end = runs.first[index + 1]
    for run in range(runs.first[index], end):
        stop = runs.start[run + 1] if run + 1 < end else lines.shape[1]
        for x in range(runs.start[run], stop):
            lines[index, x] = runs.parent[run]


@kernel(parallel=True)
def _write_runs(lines: Labels, runs: Runs) -> None:
    """Replace every voxel's label by its run's component."""
    for index in prange(lines.shape[0]):
        _write_line(lines, runs, index)


def components(labels: Labels) -> tuple[Runs, Ints]:
    """Replace every label by the number of the connected component that its voxel is in.

    Args:
        labels: (Z, Y, X) int32, contiguous, changed in place. Neighbours share a face; components
            are numbered in raster order of their first voxel; negative labels become -1.

    Returns:
        The runs, with the component of each as its parent, and the size of each component.
    """
    lines = labels.reshape(-1, labels.shape[2])
    first = np.zeros(len(lines) + 1, np.int64)
    np.cumsum(1 + np.count_nonzero(lines[:, 1:] != lines[:, :-1], axis=1), out=first[1:])
    runs = Runs(first, np.empty(first[-1], np.int32), np.empty(first[-1], np.int32))
    _start_runs(lines, runs)
    _unite_slabs(lines, labels.shape[1], runs)
    sizes = _number_components(lines, runs)
    _write_runs(lines, runs)
    return runs, sizes


@kernel(parallel=True)
def replace(labels: Labels, names: Labels) -> None:
    """Replace every label that is not negative by its entry of a table, in place."""
    flat = labels.reshape(-1)
    for index in prange(flat.size):
        if flat[index] >= 0:
            flat[index] = names[flat[index]]


@kernel()
def renumber(labels: Labels, names: Labels) -> int:
    """Number the labels of a map 0 to K - 1 in the order in which they appear, in place.

    Args:
        labels: (N,) int32; negative ones become -1.
        names: (largest label + 1,) int32, all -1; afterwards the new name of every label.

    Returns:
        K.
    """
    count = np.int32(0)
    for index in range(labels.size):
        label = labels[index]
        if label < 0:
            labels[index] = -1
            continue
        if names[label] < 0:
            names[label] = count
            count += np.int32(1)
        labels[index] = names[label]
    return int(count)
