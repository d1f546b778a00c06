"""Where superpixels lie and how large they are: what tells one token of an image from another.

Source: voxseg's own, made of the mean pooling of Schuurmans, Berman, Blaschko, arXiv:1806.02705, on
every device. Reference: ``scipy.ndimage.center_of_mass``, in the tests.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from voxseg.ops.superpixel_plan import check_integer, check_labels, narrow


def superpixel_places(
    superpixels: Tensor, count: int, spacing: Sequence[float] | Tensor | None = None
) -> Tensor:
    """Return the centroid and the size of every superpixel.

    Args:
        superpixels: (B, *S) integer with 1, 2 or 3 spatial axes; negative = in no superpixel.
        count: K, the same for the whole batch.
        spacing: size of a voxel along each axis, in mm; 1 if not given. In a program that is traced
            a tensor (D,), so that it stays an input; that it is positive is then not checked.

    Returns:
        (B, K, D + 1) float32: the centroid in mm from the centre of the box around all
        superpixels of its image, axis by axis, then the volume in mm^D. A superpixel without a
        voxel is 0 throughout. Deterministic.

    Raises:
        TypeError: superpixels are not integer.
        ValueError: there are no or too many spatial axes, or ``spacing`` has another number of
            them or is not positive.
    """
    check_integer(superpixels)
    dims = superpixels.ndim - 1
    if not 1 <= dims <= 3:
        raise ValueError(
            f"superpixels must be (B, *S) with 1 to 3 spatial axes, got {tuple(superpixels.shape)}"
        )
    sizes = _sizes(spacing, superpixels)
    check_labels(superpixels, count)
    inside = superpixels >= 0
    superpixels = narrow(superpixels)
    columns: list[Tensor] = []
    voxels: Tensor | None = None
    for axis, size in enumerate(sizes):
        # Counted from the middle of the box, so that float32 keeps every digit.
        along = [1] * (dims + 1)
        along[axis + 1] = -1
        place = torch.arange(
            superpixels.shape[axis + 1], device=superpixels.device, dtype=torch.float32
        )
        middle = _middle(inside, axis, place)
        relative = (place - middle[:, None]).view(superpixels.shape[0], *along[1:])
        values = relative.expand(superpixels.shape)[:, None].contiguous()
        means, voxels = torch.ops.voxseg.superpixel_mean(values, superpixels, count)
        columns.append(means[:, 0] * size)
    assert voxels is not None
    columns.append(voxels.float() * math.prod(sizes))
    return torch.stack(columns, 2)


def _sizes(
    spacing: Sequence[float] | Tensor | None, superpixels: Tensor
) -> Sequence[float] | Sequence[Tensor]:
    """Size of a voxel along each axis, checked; scalar tensors where it came as a tensor."""
    dims = superpixels.ndim - 1
    if spacing is None:
        return (1.0,) * dims
    if isinstance(spacing, Tensor):
        is_right = spacing.shape == (dims,)
        if is_right and not torch.compiler.is_compiling():  # a traced input holds no numbers yet
            is_right = bool((spacing > 0).all())
    else:
        is_right = len(spacing) == dims and all(size > 0 for size in spacing)
    if not is_right:
        raise ValueError(f"spacing must be {dims} positive numbers, got {spacing}")
    return spacing.to(superpixels.device).unbind() if isinstance(spacing, Tensor) else spacing


def _middle(inside: Tensor, axis: int, place: Tensor) -> Tensor:
    """Centre of the box around ``inside`` along an axis, (B,); 0 where nothing is inside."""
    others = [a for a in range(1, inside.ndim) if a != axis + 1]
    met = inside.any(others) if others else inside
    low = torch.where(met, place, math.inf).amin(1)
    high = torch.where(met, place, -math.inf).amax(1)
    return torch.where(met.any(1), (low + high) / 2, 0.0)
