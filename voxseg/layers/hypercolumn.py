"""Hypercolumns: the features of several layers at a pixel, for chosen pixels or a box of them.

Source: Bansal, Chen, Russell, Gupta and Ramanan, *PixelNet: Towards a General Pixel-Level
Architecture*, 2016, arXiv:1609.06694, section 3; the word is from Hariharan, Arbelaez, Girshick and
Malik, 2015, arXiv:1411.5752.

Every layer is interpolated linearly between the centres of its cells, as
``torch.nn.functional.interpolate`` does with ``align_corners=False``: pixel x lies at
(x + 1/2) / stride - 1/2 of a map, and at its border where that is outside.

Departures: 3 spatial axes; strides that are no whole numbers, and another one on each axis.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Strides = Sequence[Sequence[float] | None]
"""For each layer the pixels from one of its cells to the next, by axis; None: its map is stretched
over the image."""

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def sample_hypercolumns(
    features: Sequence[Tensor],
    points: Tensor,
    size: Sequence[int],
    strides: Strides | None = None,
) -> Tensor:
    """Interpolate several layers at chosen pixels, without a map of the image's size.

    Args:
        features: maps (B, C_l, *S_l), floating point.
        points: (B, P) int64, pixels as positions in the flattened image; a pixel may occur twice.
        size: *S of the image.
        strides: of each layer; None stretches every map over the image.

    Returns:
        (B, sum of C_l, P) in the maps' type, added up in float32 at least. It is a view of a
        contiguous (B, P, sum of C_l), which is what linear layers read. On CUDA the gradient, in
        contrast to the values, may differ from run to run in its last bits, unless torch was told
        to use deterministic algorithms.

    Raises:
        ValueError: shapes do not fit together, a point lies outside of the image, or a map does
            not cover it.
    """
    _check_points(features, points, size)
    steps = _steps(features, size, strides)
    positions = _unravel(points, size)
    taps = [_sampled(one, positions, step) for one, step in zip(features, steps, strict=True)]
    return torch.cat(taps, 2).transpose(1, 2)


def dense_hypercolumns(
    features: Sequence[Tensor],
    size: Sequence[int],
    strides: Strides | None = None,
    region: Sequence[slice] | None = None,
) -> Tensor:
    """Interpolate several layers at every pixel of a box.

    Args:
        features: maps (B, C_l, *S_l), floating point.
        size: *S of the image.
        strides: of each layer; None stretches every map over the image.
        region: the box, one slice an axis with a start and a stop; None is the image.

    Returns:
        (B, sum of C_l, *box).

    Raises:
        ValueError: a map does not cover the image.
    """
    steps = _steps(features, size, strides)
    box = [slice(0, n) for n in size] if region is None else list(region)
    taps = [_boxed(one, size, step, box) for one, step in zip(features, steps, strict=True)]
    return torch.cat(taps, 1)


def boxes(size: Sequence[int], most: int) -> Iterator[tuple[slice, ...]]:
    """Go through an image in boxes of at most ``most`` pixels, or of one.

    A box has whole rows of the last axis where one fits, whole planes of the last two where one
    fits, and so on; together they are the image, in its order.
    """
    inner = math.prod(size[1:])
    step = max(1, most // max(inner, 1))
    rest = [()] if inner <= most else list(boxes(size[1:], most))
    for start in range(0, size[0], step):
        own = slice(start, min(start + step, size[0]))
        for box in rest:
            yield (own, *(box or (slice(0, n) for n in size[1:])))


class _WeightedRows(torch.autograd.Function):
    """Sums of rows, each with its weight; keeps neither the rows nor what it took of them."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        """Return (M, C) from rows (R, C), index (Q, M) and weight (Q, M)."""
        ctx.save_for_backward(index, weight)
        ctx.rows = rows.shape, rows.dtype
        total = torch.zeros(index.shape[1], rows.shape[1], dtype=weight.dtype, device=rows.device)
        for places, weights in zip(index, weight, strict=True):
            total.addcmul_(rows.index_select(0, places).to(weight.dtype), weights[:, None])
        return total.to(rows.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Add the gradient of each sum to its rows."""
        index, weight = ctx.saved_tensors
        shape, dtype = ctx.rows
        total = torch.zeros(shape, dtype=weight.dtype, device=gradient.device)
        for places, weights in zip(index, weight, strict=True):
            total.index_add_(0, places, gradient.to(weight.dtype) * weights[:, None])
        return total.to(dtype), None, None


def _sampled(feature: Tensor, positions: Sequence[Tensor], stride: Sequence[float]) -> Tensor:
    """Interpolate one map at positions (B, P) along each axis; (B, P, C)."""
    batch, channels, *shape = feature.shape
    axes = [
        _neighbours(where, n, step) for where, n, step in zip(positions, shape, stride, strict=True)
    ]
    first = torch.arange(batch, device=feature.device)[:, None] * math.prod(shape)
    places, weights = [], []
    for corner in product(*axes):
        place = torch.zeros_like(positions[0])
        weight = torch.ones_like(positions[0], dtype=torch.float64)
        for n, (index, share) in zip(shape, corner, strict=True):
            place = place * n + index
            weight = weight * share
        places.append((first + place).flatten())
        weights.append(weight.flatten())
    precision = torch.promote_types(feature.dtype, torch.float32)
    # A copy, unless channels come last in memory.
    rows = feature.flatten(2).transpose(1, 2).reshape(-1, channels)
    weight = torch.stack(weights).to(precision)
    found: Tensor = _WeightedRows.apply(rows, torch.stack(places), weight)  # type: ignore[no-untyped-call] # torch has no types here
    return found.view(batch, -1, channels)


def _neighbours(where: Tensor, n: int, stride: float) -> list[tuple[Tensor, Tensor]]:
    """Cells of an axis that a pixel lies between, with its share in them; one where it is one."""
    if stride == 1:
        return [(where, torch.ones_like(where, dtype=torch.float64))]
    place = ((where.double() + 0.5) / stride - 0.5).clamp_(0, n - 1)
    low = place.long()
    share = place - low
    return [(low, 1 - share), ((low + 1).clamp_(max=n - 1), share)]


def _boxed(
    feature: Tensor, size: Sequence[int], stride: Sequence[float], box: Sequence[slice]
) -> Tensor:
    """Interpolate one map at the pixels of a box; (B, C, *box)."""
    if any(step % 1 for step in stride):
        lines = [torch.arange(one.start, one.stop, device=feature.device) for one in box]
        points = torch.zeros((), dtype=torch.int64, device=feature.device)
        for n, line in zip(size, lines, strict=True):
            points = points[..., None] * n + line
        spread = points.flatten().expand(len(feature), -1)
        found = _sampled(feature, _unravel(spread, size), stride)
        return found.transpose(1, 2).reshape(*feature.shape[:2], *points.shape)
    # Whole cells: what reaches over the box is cut away.
    part, grown = feature, []
    for axis, (one, step) in enumerate(zip(box, stride, strict=True), start=2):
        last = feature.shape[axis] - 1
        low = math.floor(max(0.0, (one.start + 0.5) / step - 0.5))
        high = min(last, math.floor(max(0.0, (one.stop - 0.5) / step - 0.5)) + 1)
        part = part.narrow(axis, low, high + 1 - low)
        grown.append((one.start - low * int(step), (high + 1 - low) * int(step)))
    if any(step > 1 for step in stride):
        mode = _LINEAR[len(size)]
        part = functional.interpolate(
            part, size=[n for _, n in grown], mode=mode, align_corners=False
        )
    for axis, (one, (start, _)) in enumerate(zip(box, grown, strict=True), start=2):
        part = part.narrow(axis, start, one.stop - one.start)
    return part


def _unravel(points: Tensor, size: Sequence[int]) -> list[Tensor]:
    """Give the place along each axis of positions in a flattened image."""
    places = []
    for n in reversed(size):
        places.append(points % n)
        points = points.div(n, rounding_mode="floor")
    return places[::-1]


def _steps(
    features: Sequence[Tensor], size: Sequence[int], strides: Strides | None
) -> list[tuple[float, ...]]:
    """Stride of each map by axis; refuse maps that do not cover the image."""
    if strides is not None and len(strides) != len(features):
        raise ValueError(f"strides must be one for each of {len(features)} maps, got {strides}")
    steps = []
    for number, feature in enumerate(features):
        shape = feature.shape[2:]
        if len(shape) != len(size):
            raise ValueError(f"a map of {len(size)} axes is expected, got {tuple(feature.shape)}")
        stride = None if strides is None else strides[number]
        step = (
            tuple(n / cells for n, cells in zip(size, shape, strict=True))
            if stride is None
            else tuple(float(one) for one in stride)
        )
        # Strides that were found by division may be off in their last bit.
        if any(cells * s < n - 0.5 for cells, s, n in zip(shape, step, size, strict=True)):
            raise ValueError(
                f"a map of {tuple(shape)} with stride {step} does not cover an image of "
                f"{tuple(size)}"
            )
        steps.append(step)
    return steps


def _check_points(features: Sequence[Tensor], points: Tensor, size: Sequence[int]) -> None:
    if not features:
        raise ValueError("at least one map is needed")
    if points.ndim != 2 or points.dtype != torch.int64 or len(points) != len(features[0]):
        raise ValueError(
            f"points must be ({len(features[0])}, P) int64, got {tuple(points.shape)} "
            f"{points.dtype}"
        )
    pixels = math.prod(size)
    if points.numel() and not bool(((points >= 0) & (points < pixels)).all()):
        raise ValueError(f"points must be in [0, {pixels}), the pixels of the image")
