"""Resampling between grids that cover the same box of the world.

Source: separable interpolation with the linear (tent) kernel, or the cubic one of Keys 1981 (a =
-1/2); where the grid gets coarser the kernel is widened by the ratio, so nothing aliases.
Geometry: both grids share their outer faces, not the centres of their corner voxels: target voxel
``i`` of ``m`` has its centre at ``(i + 1/2) n / m - 1/2`` of the source's ``n``. Beyond the faces
the outermost voxel goes on. Nothing here knows anatomy; axes are those of the array.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

_SLAB_BYTES = 2**24
"""Interpolated values of one class held at once while comparing classes."""

_Taps = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


class Scores(Protocol):
    """Scores (C, *S) of each class: an array, or what reads one piece by piece from a disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *S)."""

    def __len__(self) -> int:
        """Return C."""

    def __getitem__(self, key: Any, /) -> Any:
        """Return a part as an array; integers and slices of step 1 are asked for."""


def best_class(scores: Scores) -> np.ndarray[Any, Any]:
    """Find the class with the highest score, one layer of the first spatial axis at a time.

    Args:
        scores: (C, *S).

    Returns:
        (*S) class indices, uint8 up to 256 classes, else int32; ties go to the lowest class.
    """
    best = np.empty(scores.shape[1:], _index_type(len(scores)))
    for index in range(len(best)):
        best[index] = scores[:, index].argmax(0)
    return best


def _index_type(count: int) -> type[np.integer[Any]]:
    return np.uint8 if count <= 256 else np.int32


def resample_image(
    array: np.ndarray[Any, Any], shape: Sequence[int], order: int = 1
) -> np.ndarray[Any, Any]:
    """Interpolate ``array`` at the voxel centres of a grid of ``shape`` over the same box.

    Args:
        array: (*S) real numbers.
        shape: Target size along each axis.
        order: 1 (linear) or 3 (cubic, which may overshoot the range of the input).

    Returns:
        float32 of ``shape``; deterministic to the bit. A constant stays that constant up to
        rounding, and an axis whose size does not change is not touched.
    """
    _check_axes(array.ndim, shape)
    values = array.astype(np.float32, copy=False)
    for axis, (size, target) in enumerate(zip(array.shape, shape, strict=True)):
        if size != target:
            values = _interpolate(values, axis, _taps(size, np.arange(target), target, order))
    return np.ascontiguousarray(values)


def resample_label(array: np.ndarray[Any, Any], shape: Sequence[int]) -> np.ndarray[Any, Any]:
    """Take the nearest voxel of ``array`` at each voxel centre of a grid of ``shape``.

    Args:
        array: (*S) of any type.
        shape: Target size along each axis.

    Returns:
        The type of ``array``; holds no value that ``array`` does not. A centre halfway between
        two voxels takes the one of higher index.
    """
    _check_axes(array.ndim, shape)
    values = array
    for axis, (size, target) in enumerate(zip(array.shape, shape, strict=True)):
        if size != target:
            nearest = (2 * np.arange(target) + 1) * size // (2 * target)
            values = np.take(values, nearest, axis)
    return np.ascontiguousarray(values)


def argmax_on_grid(
    scores: Scores,
    box: Sequence[tuple[int, int]],
    working_shape: Sequence[int],
    target_shape: Sequence[int],
) -> np.ndarray[Any, Any]:
    """Find the best class at each voxel of the target grid, one class and one slab at a time.

    Scores are interpolated linearly and then compared, which gives smoother borders than
    resampling the winners. Extra memory: the result, and three slabs of 16 MB.

    Args:
        scores: (C, *crop) probabilities or logits on a part of the working grid.
        box: Start and stop of that part along each axis of the working grid.
        working_shape: Size of the whole working grid.
        target_shape: Size of the target grid over the same box of the world.

    Returns:
        (*target_shape) class indices, uint8 up to 256 classes, else int32. Class 0 where the
        voxel's centre lies outside ``box``; ties go to the lowest class.
    """
    _check_axes(len(scores.shape) - 1, working_shape)
    _check_axes(len(scores.shape) - 1, target_shape)
    if tuple(stop - start for start, stop in box) != scores.shape[1:]:
        raise ValueError(f"box {tuple(box)} does not have the size {scores.shape[1:]} of scores")
    dtype = _index_type(len(scores))
    label = np.zeros(tuple(target_shape), dtype)
    inside, taps = [], []
    for (start, stop), size, target in zip(box, working_shape, target_shape, strict=True):
        centres = (np.arange(target) + 0.5) * size / target
        covered = np.flatnonzero((centres >= start) & (centres < stop))
        inside.append(slice(int(covered[0]), int(covered[-1]) + 1) if len(covered) else slice(0))
        taps.append(_taps(size, covered, target, 1, (start, stop)))
    part = label[tuple(inside)]  # a view: what is written to it is written to label
    if part.size:
        for rows, source, slab_taps in _slabs(taps, part.shape):
            part[rows] = _argmax_of_slab(scores[:, source], slab_taps, dtype)
    return label


def _slabs(taps: list[_Taps], shape: tuple[int, ...]) -> Iterator[tuple[slice, slice, list[_Taps]]]:
    """Cut the first axis: target rows, source rows that they need, taps into those."""
    rows_per_slab = max(1, _SLAB_BYTES // (4 * int(np.prod(shape[1:]))))
    indices, weights = taps[0]
    for first in range(0, shape[0], rows_per_slab):
        rows = slice(first, min(first + rows_per_slab, shape[0]))
        low, high = int(indices[rows].min()), int(indices[rows].max()) + 1
        yield rows, slice(low, high), [(indices[rows] - low, weights[rows]), *taps[1:]]


def _argmax_of_slab(
    scores: np.ndarray[Any, Any], taps: list[_Taps], dtype: type[np.integer[Any]]
) -> np.ndarray[Any, Any]:
    best = winner = None
    for index in range(len(scores)):
        values = scores[index].astype(np.float32, copy=False)
        for axis in reversed(range(values.ndim)):
            values = _interpolate(values, axis, taps[axis])
        if best is None or winner is None:
            best, winner = values, np.zeros(values.shape, dtype)
            continue
        is_better = values > best
        best = np.where(is_better, values, best)
        winner[is_better] = index
    if winner is None:
        raise ValueError("scores must have at least one class")
    return winner


def _taps(
    size: int,
    targets: np.ndarray[Any, Any],
    target_size: int,
    order: int,
    valid: tuple[int, int] | None = None,
) -> _Taps:
    """Return indices and weights (len(targets), number of taps) along one axis of ``size``.

    With ``valid``, indices count from its start, and voxels outside it repeat the outermost one.
    """
    start, stop = valid or (0, size)
    ratio = size / target_size
    width = max(ratio, 1.0)
    reach = {1: 1, 3: 2}.get(order)
    if reach is None:
        raise ValueError(f"order must be 1 (linear) or 3 (cubic), got {order}")
    centres = (targets + 0.5) * ratio - 0.5
    num_taps = 2 * int(np.ceil(reach * width))
    indices = np.floor(centres)[:, None].astype(np.int64) + np.arange(num_taps) - num_taps // 2 + 1
    offsets = (indices - centres[:, None]) / width
    weights = _tent(np.abs(offsets)) if order == 1 else _keys(np.abs(offsets))
    weights /= weights.sum(1, keepdims=True)
    if width > 1:
        weights = _centred(weights, offsets)
    return np.clip(indices, start, stop - 1) - start, weights.astype(np.float32)


def _tent(distances: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    weights: np.ndarray[Any, Any] = np.maximum(1 - distances, 0)
    return weights


def _keys(distances: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    near = (1.5 * distances - 2.5) * distances**2 + 1
    far = ((-0.5 * distances + 2.5) * distances - 4) * distances + 2
    weights: np.ndarray[Any, Any] = np.where(distances < 2, far, 0)
    return np.where(distances < 1, near, weights)


def _centred(weights: np.ndarray[Any, Any], offsets: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Move the centre of mass of weights back to 0: sampling a widened kernel shifts it."""
    tent = _tent(np.abs(offsets))
    tent /= tent.sum(1, keepdims=True)
    middle = (tent * offsets).sum(1, keepdims=True)
    spread = (tent * (offsets - middle) ** 2).sum(1, keepdims=True)
    shift = (weights * offsets).sum(1, keepdims=True)
    moved: np.ndarray[Any, Any] = weights - shift * tent * (offsets - middle) / spread
    return moved


def _interpolate(values: np.ndarray[Any, Any], axis: int, taps: _Taps) -> np.ndarray[Any, Any]:
    """Return weighted sums of ``values`` along ``axis``, taps added in a fixed order."""
    indices, weights = taps
    column = tuple(-1 if other == axis else 1 for other in range(values.ndim))
    result: np.ndarray[Any, Any] = np.take(values, indices[:, 0], axis)
    result *= weights[:, 0].reshape(column)
    for tap in range(1, indices.shape[1]):
        term = np.take(values, indices[:, tap], axis)
        term *= weights[:, tap].reshape(column)
        result += term
    return result


def _check_axes(ndim: int, shape: Sequence[int]) -> None:
    if len(shape) != ndim or min(shape, default=0) < 1:
        raise ValueError(f"shape must have {ndim} positive sizes, got {tuple(shape)}")
