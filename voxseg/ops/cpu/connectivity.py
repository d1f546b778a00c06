"""Connected components of a label map, and the merging of small ones, on the CPU.

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


@kernel(parallel=True)
def _count_runs(lines: Labels) -> Ints:
    """Count the runs of every line; returned with a leading 0, not yet summed."""
    counts = np.zeros(lines.shape[0] + 1, np.int64)
    for index in prange(lines.shape[0]):
        line = lines[index]
        changes = np.int32(1)
        for x in range(1, line.size):
            changes += np.int32(line[x] != line[x - 1])
        counts[index + 1] = changes
    return counts


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
        lines[index, runs.start[run] : stop] = runs.parent[run]


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
    first = np.cumsum(_count_runs(lines))
    runs = Runs(first, np.empty(first[-1], np.int32), np.empty(first[-1], np.int32))
    _start_runs(lines, runs)
    _unite_slabs(lines, labels.shape[1], runs)
    sizes = _number_components(lines, runs)
    _write_runs(lines, runs)
    return runs, sizes


@kernel()
def _touch(line: Labels, start: int, stop: int, own: int, edges: Labels, at: int) -> int:
    """Note each stretch of other components next to a run; with no room, only count them."""
    x = start
    while x < stop:
        other, begin = line[x], x
        while x < stop and line[x] == other:
            x += 1
        if other >= 0 and other != own:
            if edges.size:
                edges[at, 0], edges[at, 1], edges[at, 2] = own, other, x - begin
            at += 1
    return at


@kernel()
def _contacts(labels: Labels, runs: Runs, is_small: NDArray[np.bool_], edges: Labels) -> int:
    """List faces between small components and others as (small, other, faces), or count them."""
    depth, height, width = labels.shape
    at = 0
    for index in range(depth * height):
        z, y = index // height, index % height
        end = runs.first[index + 1]
        for run in range(runs.first[index], end):
            own = runs.parent[run]
            if own < 0 or not is_small[own]:
                continue
            start = runs.start[run]
            stop = runs.start[run + 1] if run + 1 < end else width
            if start > 0:
                at = _touch(labels[z, y], start - 1, start, own, edges, at)
            if stop < width:
                at = _touch(labels[z, y], stop, stop + 1, own, edges, at)
            for dz, dy in ((0, -1), (0, 1), (-1, 0), (1, 0)):
                if 0 <= z + dz < depth and 0 <= y + dy < height:
                    at = _touch(labels[z + dz, y + dy], start, stop, own, edges, at)
    return at


@kernel()
def _group(edges: Labels, count: int) -> tuple[Ints, Labels]:
    """Sort edges by their first column: where each group begins, and the order (counting sort)."""
    first = np.zeros(count + 1, np.int64)
    for index in range(edges.shape[0]):
        first[edges[index, 0] + 1] += 1
    for component in range(count):
        first[component + 1] += first[component]
    at = first[:-1].copy()
    order = np.empty(edges.shape[0], np.int32)
    for index in range(edges.shape[0]):
        order[at[edges[index, 0]]] = index
        at[edges[index, 0]] += 1
    return first, order


@kernel()
def _choose(edges: Labels, first: Ints, order: Labels, sizes: Ints) -> Ints:
    """Choose for every component with edges the larger one that it has most faces with."""
    target = np.arange(sizes.size)
    faces = np.zeros(sizes.size, np.int64)
    for small in range(sizes.size):
        own = order[first[small] : first[small + 1]]
        for index in own:
            faces[edges[index, 1]] += edges[index, 2]
        best = small
        for index in own:
            other = edges[index, 1]
            is_larger = sizes[other] > sizes[small] or (
                sizes[other] == sizes[small] and other < small
            )
            is_closer = faces[other] > faces[best] or (faces[other] == faces[best] and other < best)
            if is_larger and (best == small or is_closer):
                best = other
        for index in own:
            faces[edges[index, 1]] = 0
        target[small] = best
    return target


def _merge(edges: Labels, sizes: Ints, min_voxels: float) -> Ints:
    """Decide which component each small one ends up in; see ``merge_small``."""
    root = np.arange(sizes.size, dtype=np.int64)
    while len(edges):
        target = _choose(edges, *_group(edges, sizes.size), sizes)
        # Targets are larger, so the chains end; each step halves their length.
        while not np.array_equal(target[target], target):
            target = target[target]
        root = target[root]
        sizes = np.bincount(target, weights=sizes, minlength=sizes.size).astype(np.int64)
        edges[:, :2] = target[edges[:, :2]]
        edges = edges[(edges[:, 0] != edges[:, 1]) & (sizes[edges[:, 0]] < min_voxels)]
    return root


@kernel(parallel=True)
def replace(labels: Labels, names: Labels) -> None:
    """Replace every label that is not negative by its entry of a table, in place."""
    flat = labels.reshape(-1)
    for index in prange(flat.size):
        if flat[index] >= 0:
            flat[index] = names[flat[index]]


def merge_small(labels: Labels, min_voxels: float) -> int:
    """Make every label one connected component of at least a given size, in place.

    Components smaller than ``min_voxels`` join the neighbour with which they share most faces,
    among the larger ones (the earlier one of equals); ties go to the earlier one. Components
    that are still too small go on in the next round. One without neighbours stays as it is.

    Args:
        labels: (Z, Y, X) int32, contiguous; negative labels are left out and become -1.
        min_voxels: the smallest size that is kept.

    Returns:
        K: labels are 0 to K - 1 afterwards, in raster order of their first voxel.
    """
    runs, sizes = components(labels)
    is_small = sizes < min_voxels
    if not is_small.any():
        return int(sizes.size)
    none = np.empty((0, 3), np.int32)
    edges = np.empty((_contacts(labels, runs, is_small, none), 3), np.int32)
    _contacts(labels, runs, is_small, edges)
    root = _merge(edges, sizes, min_voxels)
    # Components are numbered by first voxel, and so are the merged ones by their first component.
    _, first, inverse = np.unique(root, return_index=True, return_inverse=True)
    rank = np.empty(first.size, np.int32)
    rank[np.argsort(first)] = np.arange(first.size, dtype=np.int32)
    replace(labels, rank[inverse])
    return int(first.size)


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
