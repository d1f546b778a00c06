"""Which pixels of a batch are trained on: evenly drawn, balanced by class, or with more positives.

Source: Bansal, Chen, Russell, Gupta and Ramanan, *PixelNet*, 2016, arXiv:1609.06694, sections 3
(2,000 pixels of each of 5 images) and 4.3 (a fixed share of boundary pixels in each image).

Pixels are drawn without replacement where an image has enough of a kind, else with replacement, so
that every image gives the same number. Where it has none of a kind, the others make up for it: an
image without a positive gives negatives alone. An image in which nothing counts gives pixels from
anywhere, none of which counts in a loss.

"Balanced" is voxseg's own: classes that occur in an image share its pixels evenly.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from voxseg.data.grid import IGNORED

PixelSampling = Literal["uniform", "balanced", "positives"]


def draw_pixels(
    label: Tensor,
    count: int,
    generators: Sequence[np.random.Generator],
    *,
    sampling: PixelSampling = "uniform",
    positive_share: float = 0.5,
    ignored: int | None = IGNORED,
) -> Tensor:
    """Draw pixels by their classes.

    Args:
        label: (B, 1, *S) integers on the CPU; classes above 0 are positive.
        count: P, pixels of each image.
        generators: one for each image, whose state alone decides on the image's pixels.
        sampling: "uniform" over all that count; "balanced": as many of each class that occurs,
            chance deciding who gets the remainder; "positives": a fixed share of them.
        positive_share: of "positives", rounded to whole pixels.
        ignored: the label of what does not count and is not drawn; None where everything counts.

    Returns:
        (B, P) int64, positions in the flattened image.

    Raises:
        ValueError: an argument is out of its range.
    """
    if not 0 <= positive_share <= 1:
        raise ValueError(f"positive_share must be in [0, 1], got {positive_share}")
    if label.ndim < 3 or label.shape[1] != 1:
        raise ValueError(f"label must be (B, 1, *S), got {tuple(label.shape)}")
    _check(len(label), count, generators)
    drawn = []
    for one, rng in zip(label.flatten(1).numpy(), generators, strict=True):
        is_valid = np.ones(one.shape, bool) if ignored is None else one != ignored
        if sampling == "positives":
            positives = round(positive_share * count)
            kinds = [(is_valid & (one > 0), positives), (is_valid & (one <= 0), count - positives)]
        elif sampling == "balanced":
            masks = [one == value for value in np.unique(one[is_valid])]
            kinds = list(zip(masks, _dealt(count, len(masks), rng), strict=True))
        else:
            kinds = [(is_valid, count)]
        drawn.append(_drawn(kinds, count, one.size, rng))
    return torch.from_numpy(np.stack(drawn))


def draw_valid(valid: Tensor, count: int, generators: Sequence[np.random.Generator]) -> Tensor:
    """Draw pixels evenly from a mask.

    Args:
        valid: (B, *S) bool on the CPU.
        count: P, pixels of each image.
        generators: one for each image.

    Returns:
        (B, P) int64, positions in the flattened image.

    Raises:
        ValueError: an argument is out of its range.
    """
    if valid.dtype != torch.bool:
        raise ValueError(f"valid must be a mask (B, *S) of bool, got {valid.dtype}")
    _check(len(valid), count, generators)
    drawn = [
        _drawn([(mask, count)], count, mask.size, rng)
        for mask, rng in zip(valid.flatten(1).numpy(), generators, strict=True)
    ]
    return torch.from_numpy(np.stack(drawn))


def _check(images: int, count: int, generators: Sequence[np.random.Generator]) -> None:
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if len(generators) != images:
        raise ValueError(f"there must be a generator for each of {images} images")


def _dealt(count: int, classes: int, rng: np.random.Generator) -> list[int]:
    """Deal ``count`` out evenly; chance decides who gets one of the remainder."""
    if not classes:
        return []
    parts = np.full(classes, count // classes)
    parts[rng.choice(classes, count % classes, replace=False)] += 1
    return [int(part) for part in parts]


def _drawn(
    kinds: Sequence[tuple[np.ndarray, int]], count: int, pixels: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw each kind's share from its mask; the first takes what one without a pixel leaves."""
    present = [(places, n) for mask, n in kinds if (places := np.flatnonzero(mask)).size]
    if not present:
        return rng.integers(pixels, size=count)
    left = count - sum(n for _, n in present)
    parts = []
    for places, share in present:
        number, left = share + left, 0
        parts.append(rng.choice(places, number, replace=places.size < number, shuffle=False))
    return np.concatenate(parts)
