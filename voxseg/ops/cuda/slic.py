"""SLIC on a GPU: the launches of ``cuda/slic.cu``.

Source: Achanta, Shaji, Smith, Lucchi, Fua, Süsstrunk, *SLIC superpixels compared to
state-of-the-art superpixel methods*, TPAMI 34(11), 2012.
Twins: ``voxseg/ops/reference/slic.py``, ``voxseg/ops/cpu/slic.py``; departures are in
``voxseg/ops/slic.py``. Before it comes ``slic_image.py``, after it ``slic_connectivity.py``.

All rounds are queued at once; the host does not wait for them.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxseg.ops import nvrtc
from voxseg.ops.cuda.slic_connectivity import merge_small
from voxseg.ops.cuda.slic_image import scaled_image
from voxseg.ops.slic_plan import SlicNumbers, SlicSettings
from voxseg.ops.superpixel_plan import plain

_OP = "slic"
_WARP = 32
_NEIGHBOURS = 27
_MOST_VOXELS = (8, 16, 16)
"""Of a block along each axis: MOST_DEPTH of the kernel file, and together MOST_PLANE."""
_WORK_BYTES = 4020
"""Size of the kernel file's struct Work."""
_MOST_MOVERS = 256


def slic_tensor(image: Tensor, mask: Tensor | None, settings: SlicSettings) -> Tensor:
    """Run ``voxseg.ops.slic`` on tensors of one device; see there.

    Args:
        image: (*S) or (C, *S).
        mask: (*S) boolean or None.
        settings: the checked settings; ``spacing`` decides whether there are channels.

    Returns:
        (*S) int32 labels.
    """
    if plain():
        raise nvrtc.KernelError(
            "slic has no plain torch version for VOXSEG_KERNELS=torch; call .cpu() first"
        )
    shape = image.shape[image.ndim - len(settings.spacing) :]
    scaled, numbers = scaled_image(image, mask, settings)
    if numbers.num_voxels == 0:
        return torch.full(shape, -1, dtype=torch.int32, device=image.device)
    labels, num_alive = assign_cells(scaled, numbers, settings.iterations)
    # A number over a tensor would be a product with the reciprocal, which rounds twice.
    voxels = torch.full_like(num_alive, settings.min_size * numbers.num_voxels, dtype=torch.float64)
    min_voxels = voxels / num_alive
    return merge_small(labels, min_voxels).view(shape)


def assign_cells(image: Tensor, numbers: SlicNumbers, iterations: int) -> tuple[Tensor, Tensor]:
    """Run SLIC's iterations, without connectivity.

    Args:
        image: (C, Z, Y, X) float32, scaled, infinity off the mask.
        numbers: of the run; at least one voxel.
        iterations: rounds of assignment, at least 1.

    Returns:
        (Z, Y, X) int32: the grid cell whose centre each voxel chose, -1 outside the mask; and (1,)
        how many cells have a voxel of the mask.
    """
    channels, cells = len(image), int(np.prod(numbers.num_cells))
    axes = [
        _cut_axis(limits, count, most)
        for limits, count, most in zip(numbers.box, numbers.num_cells, _MOST_VOXELS, strict=True)
    ]
    blocks = int(np.prod([len(owners) for _, owners, _ in axes]))
    table = _table(axes, image.shape[1:]).to(image.device)
    plane = int(np.prod([np.diff(edges).max() for edges, _, _ in axes[1:]]))
    threads = -(-plane // _WARP) * _WARP
    rows = _NEIGHBOURS * blocks // cells
    movers = min(_MOST_MOVERS, max(_WARP, 1 << rows.bit_length()))

    centres = torch.zeros((cells, 3 + channels), dtype=torch.float32, device=image.device)
    partials = torch.empty(
        (blocks, _NEIGHBOURS, 4 + channels), dtype=torch.int64, device=image.device
    )
    # What lies outside the box is not in the mask, and no block's.
    labels = torch.full(image.shape[1:], -1, dtype=torch.int32, device=image.device)
    run = nvrtc.kernels(_OP, image.device)
    levels = float(numbers.levels)

    def assign(weights: list[float], reach: int, sums: Tensor | None, out: Tensor | None) -> None:
        name = "slic_assign_one" if channels == 1 else "slic_assign_any"
        arguments: list[nvrtc.Argument] = [image, centres, table, sums, out, channels]
        arguments += [*weights, levels, reach]
        run(name, (blocks,), threads, arguments, _WORK_BYTES)

    def move(reach: int) -> None:
        arguments: list[nvrtc.Argument] = [partials, centres, table, channels, levels, reach]
        run("slic_move", (cells,), movers, arguments, 8 * (movers + 1))

    # With no neighbour and no distance, every voxel goes to its own cell: the seeds.
    assign([0.0, 0.0, 0.0], 0, partials, None)
    move(0)
    weights = numbers.weights.tolist()
    for _ in range(iterations - 1):
        assign(weights, 1, partials, None)
        move(1)
    assign(weights, 1, None, labels)
    return labels, centres[:, 0].isfinite().sum().view(1)


_Cuts = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def _cut_axis(limits: tuple[int, int], cells: int, most: int) -> _Cuts:
    """Cut an axis into cells and these into blocks.

    Returns:
        (blocks + 1,) first voxel of every block and the end; (blocks,) the cell of each;
        (cells + 1,) first block of every cell and their number.
    """
    start, stop = limits
    low = start + np.arange(cells + 1) * (stop - start) // cells
    lengths = np.diff(low)
    parts = -(-lengths // most)
    first = np.concatenate([[0], np.cumsum(parts)])
    owners = np.repeat(np.arange(cells), parts)
    part = np.arange(len(owners)) - first[owners]
    edges = low[owners] + lengths[owners] * part // parts[owners]
    return np.append(edges, stop), owners, first


def _table(axes: list[_Cuts], shape: torch.Size) -> Tensor:
    """Lay out the grid as ``read_grid`` of the kernel file expects it, int32."""
    counts = [
        [length, len(first) - 1, len(owners)]
        for length, (_, owners, first) in zip(shape, axes, strict=True)
    ]
    lists = [part for axis in axes for part in axis]
    return torch.from_numpy(np.concatenate([np.ravel(counts), *lists]).astype(np.int32))
