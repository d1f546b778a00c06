"""Whether probabilities mean what they say: of all voxels given 0.8, are 80 of 100 right?

Source: Guo, Pleiss, Sun, Weinberger, *On calibration of modern neural networks*, 2017,
arXiv:1706.04599, for bins, ECE and MCE; Nixon et al. 2019, arXiv:1904.01685, for each class against
the rest; Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2; Mehrtash et al. 2020,
arXiv:1911.13273, for calibration of segmentation.

In bin b, ``confidence`` is the mean probability and ``accuracy`` the share of right voxels:

    ECE    sum over bins of (voxels in b / all voxels) |accuracy - confidence|
    MCE    the largest |accuracy - confidence| of a bin that holds a voxel
    Brier  mean squared distance between probabilities and truth, summed over classes: 0 to 2

Two regions are counted. Most of a volume is background that no network gets wrong, and its voxels
bury those that matter, so the region to read is the one near the foreground: voxels where truth or
prediction is foreground, and all within ``MARGIN_MM`` of one along every axis. Truth alone would
leave out what is wrongly found elsewhere. The whole crop stands beside it.

Counts of cases and folds are added, so a large case weighs more than a small one. Neighbouring
voxels are no independent witnesses: the numbers say how far off, not how surely.

Departures: bins are closed below, so that a probability of 0 has one; 1 is in the last.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from voxseg.metrics.summary import or_none

NUM_BINS = 15
"""Of equal width, from 0 to 1; Guo et al. use as many."""
MARGIN_MM = 5.0
"""How far from foreground a voxel still belongs to its region."""

_BLOCK_VOXELS = 2**18  # looked at together

Array = NDArray[Any]


@dataclass(frozen=True)
class Reliability:
    """What is counted of one set of probabilities; two can be added."""

    voxels: tuple[int, ...]
    """(NUM_BINS,) voxels whose probability falls in the bin."""
    confidence: tuple[float, ...]
    """(NUM_BINS,) sum of their probabilities."""
    correct: tuple[int, ...]
    """(NUM_BINS,) how many of them are right."""
    squared_error: float
    """Sum over voxels of (probability - right)**2, where right is 0 or 1."""

    def __post_init__(self) -> None:
        parts = (self.voxels, self.confidence, self.correct)
        if any(len(part) != NUM_BINS for part in parts):
            raise ValueError(f"need {NUM_BINS} bins, got {[len(part) for part in parts]}")
        if any(not 0 <= right <= n for right, n in zip(self.correct, self.voxels, strict=True)):
            raise ValueError("a bin has more right voxels than voxels")

    def __add__(self, other: "Reliability") -> "Reliability":
        """Count both together."""
        return Reliability(
            tuple(a + b for a, b in zip(self.voxels, other.voxels, strict=True)),
            tuple(a + b for a, b in zip(self.confidence, other.confidence, strict=True)),
            tuple(a + b for a, b in zip(self.correct, other.correct, strict=True)),
            self.squared_error + other.squared_error,
        )

    @property
    def num_voxels(self) -> int:
        """Voxels of all bins."""
        return sum(self.voxels)

    @property
    def mean_confidence(self) -> tuple[float, ...]:
        """(NUM_BINS,) mean probability of each bin; NaN where it is empty."""
        return tuple(
            c / n if n else math.nan for c, n in zip(self.confidence, self.voxels, strict=True)
        )

    @property
    def accuracy(self) -> tuple[float, ...]:
        """(NUM_BINS,) share of right voxels of each bin; NaN where it is empty."""
        return tuple(
            r / n if n else math.nan for r, n in zip(self.correct, self.voxels, strict=True)
        )

    @property
    def ece(self) -> float:
        """Expected calibration error, in [0, 1]; NaN without a voxel."""
        if not self.num_voxels:
            return math.nan
        return math.fsum(abs(gap) for gap in self._gaps()) / self.num_voxels

    @property
    def mce(self) -> float:
        """Maximum calibration error, in [0, 1]; NaN without a voxel. Few voxels may decide it."""
        shares = [abs(gap) / n for gap, n in zip(self._gaps(), self.voxels, strict=True) if n]
        return max(shares, default=math.nan)

    @property
    def overconfidence(self) -> float:
        """Mean probability minus the share that is right; NaN without a voxel."""
        if not self.num_voxels:
            return math.nan
        return -math.fsum(self._gaps()) / self.num_voxels

    @property
    def brier(self) -> float:
        """Mean squared error of these probabilities alone, in [0, 1]; NaN without a voxel."""
        return self.squared_error / self.num_voxels if self.num_voxels else math.nan

    def _gaps(self) -> list[float]:
        """Right voxels minus the sum of probabilities, by bin."""
        return [right - c for right, c in zip(self.correct, self.confidence, strict=True)]


@dataclass(frozen=True)
class Calibration:
    """Reliability in one region; two of the same classes can be added."""

    top: Reliability
    """Of the winning class's probability; right where that class is the true one."""
    classes: tuple[Reliability, ...]
    """Of each class's probability; right where that class is the true one."""

    def __add__(self, other: "Calibration") -> "Calibration":
        """Count both together."""
        if len(self.classes) != len(other.classes):
            raise ValueError(f"{len(self.classes)} classes do not add to {len(other.classes)}")
        added = tuple(a + b for a, b in zip(self.classes, other.classes, strict=True))
        return Calibration(self.top + other.top, added)

    @property
    def brier(self) -> float:
        """Brier score over all classes, in [0, 2]; NaN without a voxel."""
        return math.fsum(one.brier for one in self.classes)

    @property
    def classwise_ece(self) -> float:
        """Mean of the classes' ECE, background included; NaN without a voxel."""
        return math.fsum(one.ece for one in self.classes) / len(self.classes)


@dataclass(frozen=True)
class Regions:
    """Calibration of the same predictions in both regions."""

    near: Calibration
    """Where truth or prediction is foreground, and within the margin of that."""
    everywhere: Calibration
    """All voxels of the crop."""

    def __add__(self, other: "Regions") -> "Regions":
        """Count both together."""
        return Regions(self.near + other.near, self.everywhere + other.everywhere)


def calibrate(
    probabilities: Array,
    truth: Array,
    spacing: Sequence[float],
    margin_mm: float = MARGIN_MM,
    *,
    ignored: int | None = None,
) -> Regions:
    """Count how often the probabilities of one case are right.

    Args:
        probabilities: (num_classes, *S) floating point, class 0 is background.
        truth: (*S) integer class indices.
        spacing: voxel size in mm along each axis of S.
        margin_mm: of the region near the foreground, rounded to whole voxels along each axis.
        ignored: value of ``truth`` whose voxels do not count.

    Returns:
        Counts of both regions. Deterministic. Blocks of voxels are looked at one by one, so beside
        the input there are three marks of a byte for each voxel.

    Raises:
        ValueError: shapes do not fit, a class is not among them, or a probability is not in [0, 1].
    """
    counts = np.ones(truth.shape, np.bool_) if ignored is None else truth != ignored
    truth = np.where(counts, truth, 0)
    _check(probabilities, truth, spacing)
    count = len(probabilities)
    rows = max(1, _BLOCK_VOXELS // max(1, math.prod(truth.shape[1:])))
    cuts = [slice(start, start + rows) for start in range(0, len(truth), rows)]
    near = _near(probabilities, truth, cuts, [round(margin_mm / size) for size in spacing])
    tallies = [_Tally() for _ in range(count + 1)]
    for cut in cuts:
        # Only what counts, as (num_classes, voxels).
        block = probabilities[:, cut][:, counts[cut]]
        true, side = truth[cut][counts[cut]], near[cut][counts[cut]]
        best = np.full(true.shape, -1.0)
        right = np.zeros(true.shape, np.bool_)
        for k in range(count):
            share = block[k].astype(np.float64)
            hit = true == k
            tallies[k + 1].add(share, hit, side)
            higher = share > best  # of equal ones the lowest class wins, as in argmax
            best[higher], right[higher] = share[higher], hit[higher]
        tallies[0].add(best, right, side)
    found = [tally.reliabilities() for tally in tallies]
    return Regions(
        Calibration(found[0][0], tuple(one[0] for one in found[1:])),
        Calibration(found[0][1], tuple(one[1] for one in found[1:])),
    )


class _Tally:
    """Sums of one set of probabilities: bins far from the foreground, then bins near it."""

    def __init__(self) -> None:
        self._voxels = np.zeros(2 * NUM_BINS, np.int64)
        self._confidence = np.zeros(2 * NUM_BINS)
        self._correct = np.zeros(2 * NUM_BINS, np.int64)
        self._squared = np.zeros(2)

    def add(self, share: Array, hit: Array, side: Array) -> None:
        if not (share.min(initial=1) >= 0 and share.max(initial=0) <= 1 + 1e-5):
            raise ValueError("probabilities must lie in [0, 1] and not be NaN; apply softmax first")
        bins = np.minimum((share * NUM_BINS).astype(np.int64), NUM_BINS - 1)
        bins += NUM_BINS * side.astype(np.int64)
        size = 2 * NUM_BINS
        self._voxels += np.bincount(bins, minlength=size)
        self._confidence += np.bincount(bins, weights=share, minlength=size)
        self._correct += np.bincount(bins[hit], minlength=size)
        errors = (share - hit) ** 2
        self._squared += np.bincount(side, weights=errors, minlength=2)

    def reliabilities(self) -> tuple[Reliability, Reliability]:
        """Of the near voxels, and of all."""
        tables = [
            part.reshape(2, NUM_BINS) for part in (self._voxels, self._confidence, self._correct)
        ]
        near, both = (
            Reliability(
                tuple(int(n) for n in voxels), tuple(float(c) for c in confidence),
                tuple(int(n) for n in correct), float(squared),
            )
            for voxels, confidence, correct, squared in (
                (*(table[1] for table in tables), self._squared[1]),
                (*(table.sum(0) for table in tables), self._squared.sum()),
            )
        )  # fmt: skip
        return near, both


def _near(
    probabilities: Array, truth: Array, cuts: Sequence[slice], reach: Sequence[int]
) -> NDArray[np.uint8]:
    """Mark foreground of either map, and what lies within ``reach`` voxels along each axis."""
    marked = (truth > 0).view(np.uint8)
    for cut in cuts:
        block = probabilities[:, cut]
        for other in block[1:]:  # some class beats background
            marked[cut] |= other > block[0]
    for axis, voxels in enumerate(reach):
        marked = scipy.ndimage.maximum_filter1d(marked, 2 * voxels + 1, axis=axis, mode="constant")
    return marked


def _check(probabilities: Array, truth: Array, spacing: Sequence[float]) -> None:
    if probabilities.shape[1:] != truth.shape or len(spacing) != truth.ndim:
        raise ValueError(
            f"probabilities {probabilities.shape} must be (num_classes, *S) for truth "
            f"{truth.shape} and spacing {tuple(spacing)}"
        )
    if truth.dtype.kind not in "iu":
        raise ValueError(f"truth must hold integer class indices, got {truth.dtype}")
    if truth.size and not (truth.min() >= 0 and truth.max() < len(probabilities)):
        raise ValueError(
            f"truth holds classes from {truth.min()} to {truth.max()}, but there are "
            f"{len(probabilities)} probabilities"
        )


def reliability_to_json(one: Reliability) -> dict[str, Any]:
    """Turn counts and what follows from them into plain values; NaN becomes None."""
    return {
        "ece": or_none(one.ece),
        "mce": or_none(one.mce),
        "overconfidence": or_none(one.overconfidence),
        "brier": or_none(one.brier),
        "voxels": list(one.voxels),
        "confidence_sum": list(one.confidence),
        "correct": list(one.correct),
        "squared_error": one.squared_error,
    }


def reliability_from_json(content: Mapping[str, Any]) -> Reliability:
    """Read the counts that ``reliability_to_json`` wrote; what follows from them is found anew.

    Raises:
        KeyError, TypeError, ValueError: they are not such counts.
    """
    return Reliability(
        tuple(int(n) for n in content["voxels"]),
        tuple(float(c) for c in content["confidence_sum"]),
        tuple(int(n) for n in content["correct"]),
        float(content["squared_error"]),
    )
