"""SLIC's connectivity step on a GPU: the launches of ``cuda/slic_connectivity.cu``.

Source: Achanta, Shaji, Smith, Lucchi, Fua, Süsstrunk, *SLIC superpixels compared to
state-of-the-art superpixel methods*, TPAMI 34(11), 2012, section 3.2, which leaves the step open.
Twins: ``voxseg/ops/cpu/connectivity.py`` and ``voxseg/ops/cpu/merging.py``; labels are equal to
theirs. The host waits for the GPU once, and once more for each round of merging.
"""

import torch
from torch import Tensor

from voxseg.ops import nvrtc
from voxseg.ops.cuda.slic_image import THREADS

_OP = "slic_connectivity"
_CURSOR_BYTES = 16


def merge_small(labels: Tensor, min_voxels: Tensor) -> Tensor:
    """Make every label one connected component of at least a given size.

    Args:
        labels: (Z, Y, X) int32, contiguous; negative labels are left out. Overwritten.
        min_voxels: (1,) float64: components smaller than this join the larger neighbour (of
            equals, the earlier one) with which they share most faces; ties go to the earlier.

    Returns:
        (Z, Y, X) int32: labels from 0 in raster order of their first voxel, -1 outside.
    """
    components, sizes, ranks = _components(labels)
    keys, count = None, torch.zeros(1, dtype=torch.int64, device=labels.device)
    _faces(components, None, sizes, min_voxels, keys, count)
    number, faces = torch.cat([ranks[-1:], count]).tolist()
    if faces == 0:
        return components
    sizes = sizes[:number]
    names = torch.arange(number, dtype=torch.int32, device=labels.device)
    run = nvrtc.kernels(_OP, labels.device)
    while faces:
        keys = torch.empty(faces, dtype=torch.int64, device=labels.device)
        _faces(components, names, sizes, min_voxels, keys, count.zero_())
        keys = keys.sort().values
        choice = torch.zeros(number, dtype=torch.int64, device=labels.device)
        run("slic_choose", _grid(faces), THREADS, [keys, choice, faces])
        run("slic_join", _grid(number), THREADS, [choice, names, sizes, number])
        _faces(components, names, sizes, min_voxels, None, count.zero_())
        faces = int(count.item())
    voxels = components.numel()
    run("slic_rename", _grid(voxels), THREADS, [components, _in_order(names), voxels])
    return components


def _components(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Replace labels by the numbers of their components, in raster order of the first voxel.

    Returns:
        The same tensor; (N,) int32 sizes of the components and zeros; and (N,) int32 how many
        components begin up to each voxel.
    """
    run = nvrtc.kernels(_OP, labels.device)
    _, height, width = labels.shape
    voxels, grid = labels.numel(), _grid(labels.numel())
    parent, roots, is_root = (torch.empty_like(labels.view(-1)) for _ in range(3))
    run("slic_start", grid, THREADS, [labels, parent, width, voxels])
    run("slic_unite", grid, THREADS, [labels, parent, height, width, voxels])
    run("slic_roots", grid, THREADS, [parent, roots, is_root, voxels])
    ranks = is_root.cumsum(0, dtype=torch.int32)
    sizes = parent.zero_()
    run("slic_number", grid, THREADS, [roots, ranks, labels, sizes, voxels])
    return labels, sizes, ranks


def _faces(
    components: Tensor,
    names: Tensor | None,
    sizes: Tensor,
    min_voxels: Tensor,
    keys: Tensor | None,
    count: Tensor,
) -> None:
    """Count the faces of small components to larger ones, and write them down if there is room."""
    _, height, width = components.shape
    voxels = components.numel()
    arguments = [components, names, sizes, min_voxels, keys, count, height, width, voxels]
    run = nvrtc.kernels(_OP, components.device)
    run("slic_faces", _grid(voxels), THREADS, arguments, _CURSOR_BYTES)


def _in_order(names: Tensor) -> Tensor:
    """Number what components have become by the first of them, from 0 without gaps."""
    own = torch.arange(names.numel(), dtype=torch.int32, device=names.device)
    index = names.long()
    first = torch.full_like(own, names.numel()).scatter_reduce_(0, index, own, "amin")[index]
    ranks = (first == own).cumsum(0, dtype=torch.int32)
    return ranks[first.long()] - 1


def _grid(threads: int) -> tuple[int, ...]:
    return (-(-threads // THREADS),)
