"""Angles between predicted and true surface normals, and the six numbers that papers print.

Source: Fouhey, Gupta, Hebert, *Data-Driven 3D Primitives for Single Image Understanding*, ICCV
2013, as Bansal, Russell, Gupta, *Marr Revisited*, CVPR 2016, and *PixelNet*, arXiv:1609.06694,
section 4.2, use them: mean, median and root mean square of the angle in degrees, and the shares of
pixels under 11.25, 22.5 and 30 degrees, pooled over the pixels with a true normal of all images.
The angle is the arc cosine of the dot product, clipped to [-1, 1], of vectors of length 1; a
prediction of another size is first brought to the truth's, linearly, and made of length 1 again
(the authors' own script interpolates bicubically).

Mean, root mean square and shares are exact. The median is taken from a histogram of
``BINS_PER_DEGREE`` bins a degree, evenly filled within a bin, so it is off by less than a bin: sets
of any size add up in a few kilobytes.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = (11.25, 22.5, 30.0)
"""Degrees under which a prediction counts as good."""
BINS_PER_DEGREE = 20
NUM_BINS = 180 * BINS_PER_DEGREE


@dataclass(frozen=True)
class NormalScores:
    """How far predicted normals are off; NaN without a pixel that counts."""

    mean_degrees: float
    median_degrees: float
    rmse_degrees: float
    within_11_25: float
    """Share of pixels under 11.25 degrees."""
    within_22_5: float
    within_30: float
    pixels: int
    """How many have a true normal."""


@dataclass(frozen=True, eq=False)
class Angles:
    """Sums over the pixels of one or more photographs, from which the scores come; they add up."""

    pixels: int
    total: float
    """Of the degrees."""
    squares: float
    """Of the squared degrees."""
    within: tuple[int, ...]
    """Pixels under each of ``THRESHOLDS``."""
    histogram: NDArray[np.int64]
    """(NUM_BINS,) pixels by angle, from 0 to 180 degrees."""

    def __post_init__(self) -> None:
        """Check the shapes."""
        if len(self.within) != len(THRESHOLDS) or self.histogram.shape != (NUM_BINS,):
            raise ValueError(
                f"angles need {len(THRESHOLDS)} counts and a histogram ({NUM_BINS},), got "
                f"{len(self.within)} and {self.histogram.shape}"
            )

    def __add__(self, other: "Angles") -> "Angles":
        """Add the pixels of other photographs."""
        return Angles(
            self.pixels + other.pixels,
            self.total + other.total,
            self.squares + other.squares,
            tuple(a + b for a, b in zip(self.within, other.within, strict=True)),
            self.histogram + other.histogram,
        )

    @property
    def scores(self) -> NormalScores:
        """The six numbers, over all pixels together."""
        if not self.pixels:
            nothing = math.nan
            return NormalScores(nothing, nothing, nothing, nothing, nothing, nothing, 0)
        first, second, third = (number / self.pixels for number in self.within)
        mean, rmse = self.total / self.pixels, math.sqrt(self.squares / self.pixels)
        return NormalScores(mean, self._median(), rmse, first, second, third, self.pixels)

    def _median(self) -> float:
        """Middle of all angles, or of the two in the middle; bins are evenly filled."""
        reached = np.cumsum(self.histogram)
        middle = []
        for rank in ((self.pixels - 1) // 2, self.pixels // 2):
            place = int(np.searchsorted(reached, rank, side="right"))
            inside = rank - int(reached[place]) + int(self.histogram[place])
            middle.append(place + (inside + 0.5) / int(self.histogram[place]))
        return sum(middle) / 2 / BINS_PER_DEGREE

    def to_json(self) -> dict[str, Any]:
        """Return the sums as plain values."""
        last = int(np.flatnonzero(self.histogram).max(initial=-1)) + 1
        return {
            "pixels": self.pixels,
            "total": self.total,
            "squares": self.squares,
            "within": list(self.within),
            "histogram": self.histogram[:last].tolist(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Angles":
        """Read what ``to_json`` returned.

        Raises:
            ValueError, KeyError, TypeError: It is something else.
        """
        histogram = np.zeros(NUM_BINS, np.int64)
        counts = np.array(content["histogram"], np.int64).reshape(-1)
        if len(counts) > NUM_BINS:
            raise ValueError(f"a histogram has {NUM_BINS} bins, got {len(counts)}")
        histogram[: len(counts)] = counts
        return cls(
            int(content["pixels"]),
            float(content["total"]),
            float(content["squares"]),
            tuple(int(number) for number in content["within"]),
            histogram,
        )


def no_angles() -> Angles:
    """Sums over no photograph yet."""
    return Angles(0, 0.0, 0.0, (0,) * len(THRESHOLDS), np.zeros(NUM_BINS, np.int64))


def angle_map(prediction: NDArray[np.floating], truth: NDArray[np.floating]) -> NDArray[np.float64]:
    """Angle between a photograph's predicted and true normals at each pixel.

    Args:
        prediction: (3, *R) of any length and size; a vector of length 0 is off by 90 degrees.
        truth: (3, *S) of length 1, or 0 where nothing is known.

    Returns:
        (*S) degrees, NaN where nothing is known.

    Raises:
        ValueError: The shapes are others, or a prediction is not finite.
    """
    if prediction.ndim != truth.ndim or len(prediction) != 3 or len(truth) != 3:
        raise ValueError(
            f"prediction {prediction.shape} and truth {truth.shape} must both be (3, *S)"
        )
    predicted = unit_on_grid(prediction, truth.shape[1:])
    known = truth.any(axis=0)
    true = truth[:, known].astype(np.float64)
    cosine = (predicted[:, known] * true).sum(0) / np.linalg.norm(true, axis=0)
    if not np.isfinite(cosine).all():
        raise ValueError("predicted normals must be finite")
    angles = np.full(truth.shape[1:], np.nan)
    angles[known] = np.rad2deg(np.arccos(cosine.clip(-1, 1)))
    return angles


def count_angles(prediction: NDArray[np.floating], truth: NDArray[np.floating]) -> Angles:
    """Sum up the angles of one photograph; arguments and errors as of ``angle_map``."""
    return sum_angles(angle_map(prediction, truth))


def sum_angles(angles: NDArray[np.floating]) -> Angles:
    """Sum up angles in degrees of any shape; NaN does not count."""
    known = angles[~np.isnan(angles)].astype(np.float64)
    bins = np.minimum((known * BINS_PER_DEGREE).astype(np.int64), NUM_BINS - 1)
    return Angles(
        known.size,
        float(known.sum()),
        float(np.square(known).sum()),
        tuple(int((known < threshold).sum()) for threshold in THRESHOLDS),
        np.bincount(bins, minlength=NUM_BINS).astype(np.int64),
    )


def mean_normal(truths: Iterable[NDArray[np.floating]]) -> NDArray[np.float64]:
    """Mean direction (3,) of all known normals: what a predictor must beat that sees no picture.

    Args:
        truths: (3, *S) each, of length 1, or 0 where nothing is known.

    Raises:
        ValueError: No normal is known, or they cancel out.
    """
    total = np.zeros(3)
    for truth in truths:
        total += truth.reshape(3, -1).sum(axis=1, dtype=np.float64)
    length = float(np.linalg.norm(total))
    if not length > 0:
        raise ValueError("a mean normal needs normals that do not cancel out")
    return total / length


def count_constant(normal: NDArray[np.floating], truth: NDArray[np.floating]) -> Angles:
    """Sum up the angles of one photograph for which the same normal (3,) is predicted throughout.

    Args:
        normal: as ``mean_normal`` returns.
        truth: as for ``angle_map``.
    """
    everywhere = np.broadcast_to(normal.reshape(3, *[1] * (truth.ndim - 1)), truth.shape)
    return count_angles(everywhere, truth)


def unit_on_grid(normals: NDArray[np.floating], size: tuple[int, ...]) -> NDArray[np.float64]:
    """Bring vectors (3, *R) to another size over the same picture, linearly, and to length 1.

    Centres of pixels keep their place relative to the outer faces (``align_corners=False``); beyond
    the outermost ones these go on. A vector of length 0 stays 0.
    """
    values = normals.astype(np.float64)
    for axis, target in enumerate(size, start=1):
        if values.shape[axis] != target:
            values = _interpolated(values, axis, target)
    lengths = np.linalg.norm(values, axis=0)
    scaled: NDArray[np.float64] = values / np.where(lengths > 0, lengths, 1)
    return scaled


def _interpolated(values: NDArray[np.float64], axis: int, target: int) -> NDArray[np.float64]:
    size = values.shape[axis]
    places = ((np.arange(target) + 0.5) * size / target - 0.5).clip(0, size - 1)
    lower = np.floor(places).astype(np.int64)
    upper = np.minimum(lower + 1, size - 1)
    weight = (places - lower).reshape(-1, *[1] * (values.ndim - 1 - axis))
    mixed: NDArray[np.float64] = values.take(lower, axis) * (1 - weight)
    mixed += values.take(upper, axis) * weight
    return mixed
