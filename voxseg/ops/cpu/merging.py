"""Merging of components that are too small, on the CPU: part of SLIC's connectivity step.

Source: Achanta et al., TPAMI 34(11), 2012, section 3.2, which leaves open which neighbour a piece
joins. Only the runs of small components are looked at, once a round; nearly always one is enough.
"""

from typing import NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from voxseg.ops.cpu.connectivity import Ints, Labels, Runs, components, renumber, replace
from voxseg.ops.jit import kernel

_SIDES = ((0, 0, -1), (0, 0, 1), (0, -1, 0), (0, 1, 0), (-1, 0, 0), (1, 0, 0))
_PARTS = 64
"""Pieces that the choices are shared out in."""


class _Contacts(NamedTuple):
    """The neighbours of one component, while their faces are counted."""

    name: Labels  # (N,) components met so far
    faces: Ints  # (N,) shared with each
    number: Ints  # (2,) how many components were met, and which of them last


class _Small(NamedTuple):
    """The runs of what is still too small, component by component."""

    first: Labels  # (components + 1,) where those of each component begin
    runs: Labels
    lines: Labels  # the line of each


@kernel()
def _list_small(runs: Runs, root: Labels, is_small: NDArray[np.bool_]) -> _Small:
    """Sort the runs of small components by what these have become (a counting sort)."""
    first = np.zeros(root.size + 1, np.int32)
    for component in runs.parent:
        if component >= 0 and is_small[component]:
            first[root[component]] += 1
    end = np.int32(0)
    for component in range(first.size):
        end += first[component]
        first[component] = end
    listed, lines = np.empty(end, np.int32), np.empty(end, np.int32)
    # Filled from the back, so that every component's end moves to its beginning.
    for line in range(runs.first.size - 2, -1, -1):
        for run in range(runs.first[line + 1] - 1, runs.first[line] - 1, -1):
            component = runs.parent[run]
            if component >= 0 and is_small[component]:
                at = first[root[component]] - 1
                first[root[component]] = at
                listed[at] = run
                lines[at] = line
    return _Small(first, listed, lines)


@kernel()
def _add_sizes(sizes: Ints, target: Labels) -> int:
    """Give the voxels of every component to the one that it joins, in place; count those."""
    merged = 0
    for component in range(sizes.size):
        joined = target[component]
        if joined != component:
            sizes[joined] += sizes[component]
            sizes[component] = 0
            merged += 1
    return merged


@kernel()
def _add_face(contacts: _Contacts, other: int) -> None:
    """Count one face. A neighbour comes several times in a row, so the last one is tried first."""
    at, number = contacts.number[1], contacts.number[0]
    if number == 0 or contacts.name[at] != other:
        at = 0
        while at < number and contacts.name[at] != other:
            at += 1
        if at == number:
            contacts.name[at], contacts.faces[at] = other, 0
            contacts.number[0] += 1
        contacts.number[1] = at
    contacts.faces[at] += 1


@kernel()
def _touch_run(
    labels: Labels, line: int, span: tuple[int, int], root: Labels, own: int, contacts: _Contacts
) -> None:
    """Count the faces between one run and all components around it."""
    depth, height, width = labels.shape
    z, y = line // height, line % height
    for dz, dy, dx in _SIDES:
        begin = span[1] if dx > 0 else span[0] + dx
        end = begin + 1 if dx else span[1]
        if not (0 <= z + dz < depth and 0 <= y + dy < height and begin >= 0 and end <= width):
            continue
        for x in range(begin, end):
            other = labels[z + dz, y + dy, x]
            if other >= 0 and root[other] != own:
                _add_face(contacts, root[other])


@kernel()
def _closest(contacts: _Contacts, sizes: Ints, own: int) -> int:
    """Choose the larger neighbour with most faces, or the component itself; clear the counts."""
    best, most = own, 0
    for at in range(contacts.number[0]):
        other, faces = contacts.name[at], contacts.faces[at]
        is_larger = sizes[other] > sizes[own] or (sizes[other] == sizes[own] and other < own)
        if is_larger and (faces > most or (faces == most and other < best)):
            best, most = other, faces
    contacts.number.fill(0)
    return best


@kernel()
def _choose_some(
    labels: Labels,
    runs: Runs,
    small: _Small,
    root: Labels,
    sizes: Ints,
    target: Labels,
    span: tuple[int, int],
) -> None:
    """Choose for the small components with numbers in a span; see ``_choose``."""
    most = 0
    for component in range(span[0], span[1]):
        if small.first[component] < small.first[component + 1]:
            most = max(most, sizes[component])
    # No component has more neighbours than faces, nor than there are components.
    length = min(6 * most, sizes.size) + 1
    contacts = _Contacts(
        np.empty(length, np.int32), np.empty(length, np.int64), np.zeros(2, np.int64)
    )
    for component in range(span[0], span[1]):
        begin, end = small.first[component], small.first[component + 1]
        for index in range(begin, end):
            run, line = small.runs[index], small.lines[index]
            is_last = run + 1 == runs.first[line + 1]
            stop = labels.shape[2] if is_last else runs.start[run + 1]
            _touch_run(labels, line, (runs.start[run], stop), root, component, contacts)
        if begin < end:
            target[component] = _closest(contacts, sizes, component)


@kernel(parallel=True)
def _choose(
    labels: Labels, runs: Runs, small: _Small, root: Labels, sizes: Ints, target: Labels
) -> None:
    """Choose for every small component the one it joins, or itself.

    Args:
        labels: (Z, Y, X) components as they were found.
        runs: of the same.
        small: what is still small.
        root: (components,) what each component has become.
        sizes: (components,) of the roots.
        target: (components,) what each joins; only written where it is small.
    """
    parts = min(_PARTS, sizes.size)
    for part in prange(parts):
        span = (part * sizes.size // parts, (part + 1) * sizes.size // parts)
        _choose_some(labels, runs, small, root, sizes, target, span)


def _merge(labels: Labels, runs: Runs, sizes: Ints, min_voxels: float) -> Labels:
    """Decide which component each one ends up in; see ``merge_small``. Changes ``sizes``."""
    root = np.arange(sizes.size, dtype=np.int32)
    while True:
        small = _list_small(runs, root, sizes[root] < min_voxels)
        target = np.arange(sizes.size, dtype=np.int32)
        _choose(labels, runs, small, root, sizes, target)
        # Targets are larger, so the chains end; each step halves their length.
        while not np.array_equal(target[target], target):
            target = target[target]
        if _add_sizes(sizes, target) == 0:
            return root
        root = target[root]


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
    root = _merge(labels, runs, sizes, min_voxels)
    # Components are numbered by first voxel, and so are the merged ones by their first component.
    count = renumber(root, np.full(root.size, -1, np.int32))
    replace(labels, root)
    return count
