"""Intensities of a case, brought to what a network expects."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from voxseg.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

Normalisation = Literal["zscore", "median", "none", "imagenet", "unit"]
OUTSIDE = -4.0
"""What a z-scored image holds outside the foreground: one value for every subject.

A stripped background would else lie at (0 - mean) / deviation, which differs by subject, and
intensity augmentation would move it: networks then see tissue where there is nothing.
"""
OF_COLOURS: tuple[Normalisation, ...] = ("imagenet", "unit")
"""What takes red, green and blue in 0 to 255."""
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of 0 to 1


def normalise(
    image: np.ndarray,
    mask: np.ndarray,
    how: Normalisation,
    clip_percentiles: tuple[float, ...],
    path: Path,
) -> None:
    """Scale an image in place.

    Args:
        image: (C, *S) float32; for "imagenet" and "unit" colours in 0 to 255.
        mask: (*S) boolean, the foreground that decides the numbers.
        how: see ``PrepareSettings.normalise``.
        clip_percentiles: see there; nothing is clipped of colours.
        path: of the image, for messages.

    Raises:
        DataError: the foreground is constant, or has no positive median to divide by.
    """
    if how == "none":
        return
    for number, channel in enumerate(image):
        if how == "imagenet":
            np.subtract(channel, np.float32(255 * _MEAN[number]), out=channel)
            np.divide(channel, np.float32(255 * _DEVIATION[number]), out=channel)
        elif how == "unit":
            np.divide(channel, np.float32(255), out=channel)
        else:
            _normalise(channel, mask, how == "zscore", clip_percentiles, path)


def colours_of(image: "Tensor", how: Normalisation) -> "Tensor":
    """Return the colours (3, *S), 0 to 1, of what was normalised by "imagenet" or "unit"."""
    if how == "unit":
        return image
    mean, deviation = _constants(image)
    return image * deviation + mean


def of_colours(colours: "Tensor", how: Normalisation) -> "Tensor":
    """Undo ``colours_of``."""
    if how == "unit":
        return colours
    mean, deviation = _constants(colours)
    return (colours - mean) / deviation


def _constants(image: "Tensor") -> "tuple[Tensor, Tensor]":
    """ImageNet's mean and deviation for (3, *S)."""
    shape = (3, *[1] * (image.ndim - 1))
    mean, deviation = (image.new_tensor(one) for one in (_MEAN, _DEVIATION))
    return mean.view(shape), deviation.view(shape)


def _normalise(
    array: np.ndarray,
    mask: np.ndarray,
    is_standard: bool,
    clip_percentiles: tuple[float, ...],
    path: Path,
) -> None:
    """Clip and scale one channel in place, a layer at a time: a copy may be the one too many."""
    inside = array[mask]
    if inside.min() == inside.max():
        raise DataError(
            f"{path} is constant ({inside.min():g}) in its foreground: there is nothing to "
            "segment; check the file, or set data.normalise to none"
        )
    low, high = -np.inf, np.inf
    if clip_percentiles:
        found = np.percentile(inside, clip_percentiles, overwrite_input=True)
        inside = array[mask]  # their order decides the last bits of mean and deviation
        if found[0] < found[1]:
            low, high = found
            inside = np.clip(inside, low, high)
    offset: np.floating
    scale: np.floating
    if not is_standard:
        offset, scale = np.float32(0), np.float32(_middle(inside, path))
    else:
        # Scalars of NumPy's float64, with which float32 voxels are scaled in float64.
        offset, scale = _mean_and_deviation(inside)
    del inside
    for layer, is_inside in zip(array, mask, strict=True):
        # Outside the foreground nothing is clipped from below: 0 stays what it is.
        clipped = np.where(is_inside, np.clip(layer, low, high), np.minimum(layer, high))
        scaled = (clipped - offset) / scale
        layer[...] = np.where(is_inside, scaled, OUTSIDE) if is_standard else scaled


def _middle(inside: np.ndarray, path: Path) -> float:
    middle = float(np.median(inside))
    if middle <= 0:
        raise DataError(
            f"{path} has a median of {middle:g} in its foreground, so it cannot be divided "
            "by it; set data.normalise to zscore"
        )
    return middle


def _mean_and_deviation(values: np.ndarray) -> tuple[np.float64, np.float64]:
    """Of all values, to the bit what NumPy gives with less room; ``values`` may be overwritten."""
    mean: np.float64 = values.mean(dtype=np.float64)
    squares = values.astype(np.float64, copy=False)
    squares -= mean
    squares *= squares
    deviation: np.float64 = np.sqrt(squares.sum() / squares.size)
    return mean, deviation
