"""Counts behind precision and recall of boundaries, at a row of thresholds.

Source: the benchmark of BSDS500: Arbelaez, Maire, Fowlkes, Malik, *Contour detection and
hierarchical image segmentation*, TPAMI 33(5), 2011, section 3, and its public evaluation
(``evaluation_bdry_image``). At each threshold the map is thinned and matched with the map of every
annotator in turn (``boundary_matching.py``). Recall counts true pixels of all annotators; a
predicted pixel is right for precision if it is matched with any annotator's.
"""

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxseg.metrics.boundary_matching import (
    TOLERANCE,
    Neighbourhood,
    Places,
    match_boundaries,
    match_places,
    places_of,
)

NUM_THRESHOLDS = 99
"""Of the benchmark: 0.01, 0.02, ..., 0.99."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_COUNTS = ("found", "true", "right", "predicted")


@dataclass(frozen=True, eq=False)
class BoundaryCounts:
    """Pixels of one case or several, at each of K thresholds; counts add up."""

    thresholds: Floats
    """(K,) rising."""
    found: Ints
    """(K,) true pixels that are matched, over all annotators; the benchmark's ``cntR``."""
    true: Ints
    """(K,) true pixels over all annotators; ``sumR``."""
    right: Ints
    """(K,) predicted pixels that are matched with any annotator's; ``cntP``."""
    predicted: Ints
    """(K,) predicted pixels; ``sumP``."""
    best: Ints
    """(4,) found, true, right and predicted, each case at the threshold where its F is best."""

    def __post_init__(self) -> None:
        """Check that all have one length."""
        lengths = {len(one) for one in (self.thresholds, *self._table)}
        if len(lengths) != 1 or len(self.best) != len(_COUNTS):
            raise ValueError(
                f"counts must have one length, and best 4 numbers, got {sorted(lengths)} and "
                f"{len(self.best)}"
            )

    def __add__(self, other: "BoundaryCounts") -> "BoundaryCounts":
        """Add the counts of other cases.

        Raises:
            ValueError: Thresholds differ.
        """
        if not np.array_equal(self.thresholds, other.thresholds):
            raise ValueError("counts at different thresholds do not add up")
        found, true, right, predicted = (
            a + b for a, b in zip(self._table, other._table, strict=True)
        )
        best = self.best + other.best
        return BoundaryCounts(self.thresholds, found, true, right, predicted, best)

    @property
    def recall(self) -> Floats:
        """Share of the true pixels that are matched, (K,); 0 where there are none."""
        return share(self.found, self.true)

    @property
    def precision(self) -> Floats:
        """Share of the predicted pixels that are matched, (K,); 0 where there are none."""
        return share(self.right, self.predicted)

    @property
    def _table(self) -> tuple[Ints, Ints, Ints, Ints]:
        return self.found, self.true, self.right, self.predicted

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain values."""
        return {name: getattr(self, name).tolist() for name in ("thresholds", *_COUNTS, "best")}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "BoundaryCounts":
        """Read what ``to_json`` returned.

        Raises:
            ValueError, KeyError, TypeError: It is something else.
        """
        counts = {name: np.asarray(content[name], np.int64) for name in (*_COUNTS, "best")}
        return cls(np.asarray(content["thresholds"], np.float64), **counts)


def evaluate_boundaries(
    prediction: NDArray[np.floating[Any]],
    annotators: NDArray[Any],
    tolerance: float = TOLERANCE,
    num_thresholds: int = NUM_THRESHOLDS,
) -> BoundaryCounts:
    """Count matches of one case's boundary map with those of its annotators.

    Args:
        prediction: (H, W) strength of the boundary in [0, 1], after suppression of what is no
            maximum (``suppression.py``); what is left too thick is thinned.
        annotators: (A, H, W), nonzero on a boundary.
        tolerance: Share of the diagonal within which pixels match.
        num_thresholds: K; they lie evenly inside (0, 1). A pixel at a threshold is a boundary.

    Raises:
        ValueError: Shapes differ, ``prediction`` is not in [0, 1], or there is no threshold.
    """
    if prediction.ndim != 2 or annotators.shape[1:] != prediction.shape or not len(annotators):
        raise ValueError(
            "a map (H, W) and maps (A, H, W) of its annotators are needed, got "
            f"{prediction.shape} and {annotators.shape}"
        )
    if prediction.size and not (prediction.min() >= 0 and prediction.max() <= 1):
        raise ValueError("prediction must be in [0, 1]")
    if num_thresholds < 1:
        raise ValueError(f"num_thresholds must be at least 1, got {num_thresholds}")
    thresholds = np.arange(1, num_thresholds + 1) / (num_thresholds + 1)
    near = Neighbourhood.of((prediction.shape[0], prediction.shape[1]), tolerance)
    truths = [places_of(one) for one in annotators]
    rows: list[tuple[int, int, int, int]] = []
    before = -1
    for threshold in thresholds:
        mask = prediction >= threshold
        size = int(np.count_nonzero(mask))
        if size == before:  # the same pixels as at the last threshold
            rows.append(rows[-1])
            continue
        before = size
        rows.append(_count_matches(places_of(_thinned(mask)), truths, near))
    table = np.array(rows, np.int64).T.copy()
    found, true, right, predicted = table
    best = np.argmax(f_measure(share(found, true), share(right, predicted)))
    return BoundaryCounts(thresholds, found, true, right, predicted, table[:, best].copy())


def evaluate_annotators(annotators: NDArray[Any], tolerance: float = TOLERANCE) -> BoundaryCounts:
    """Count matches of each annotator's map with those of the others: how far people agree.

    Args:
        annotators: (A, H, W), nonzero on a boundary; A at least 2.
        tolerance: Share of the diagonal within which pixels match.

    Returns:
        Counts at one threshold, with every annotator a case.

    Raises:
        ValueError: There is but one annotator.
    """
    if len(annotators) < 2:
        raise ValueError(f"at least 2 annotators are needed, got {len(annotators)}")
    maps = annotators != 0
    parts = [
        evaluate_boundaries(one.astype(np.float64), np.delete(maps, place, 0), tolerance, 1)
        for place, one in enumerate(maps)
    ]
    return functools.reduce(operator.add, parts)


@dataclass(frozen=True, eq=False)
class BoundaryErrors:
    """Where boundaries were found, imagined and missed, at one threshold."""

    right: NDArray[np.bool_]
    """(H, W) predicted pixels that are matched with any annotator's."""
    wrong: NDArray[np.bool_]
    """(H, W) the other predicted pixels."""
    missed: Floats
    """(H, W) share of the annotators who drew a boundary there that is not matched."""


def find_boundary_errors(
    prediction: NDArray[np.floating[Any]],
    annotators: NDArray[Any],
    threshold: float,
    tolerance: float = TOLERANCE,
) -> BoundaryErrors:
    """Match one case's boundary map at one threshold, to be drawn.

    Args:
        prediction: As for ``evaluate_boundaries``, and thinned alike.
        annotators: (A, H, W), nonzero on a boundary.
        threshold: From which strength on a pixel is a boundary.
        tolerance: Share of the diagonal within which pixels match.

    Raises:
        ValueError: Shapes differ.
    """
    mask = _thinned(prediction >= threshold)
    right, missed = np.zeros(mask.shape, np.bool_), np.zeros(mask.shape, np.int64)
    for truth in annotators:
        hit, found = match_boundaries(mask, truth, tolerance)
        right |= hit
        missed += (truth != 0) & ~found
    share_missed = np.asarray(missed / max(1, len(annotators)), np.float64)
    return BoundaryErrors(right, mask & ~right, share_missed)


def _count_matches(
    places: Places, truths: Sequence[Places], near: Neighbourhood
) -> tuple[int, int, int, int]:
    """Count found, true, right and predicted pixels."""
    found, is_right = 0, np.zeros(len(places), np.bool_)
    for truth in truths:
        is_matched = match_places(places, truth, near) >= 0
        found += int(np.count_nonzero(is_matched))
        is_right |= is_matched
    return found, sum(map(len, truths)), int(np.count_nonzero(is_right)), len(places)


def share(part: Ints, whole: Ints) -> Floats:
    """Return part / whole, 0 where there is no whole."""
    return np.asarray(part / np.maximum(whole, 1), np.float64)


def f_measure(recall: Floats, precision: Floats) -> Floats:
    """Return the harmonic mean of recall and precision, 0 where both are 0."""
    total = recall + precision
    return np.asarray(2 * recall * precision / np.where(total > 0, total, 1), np.float64)


def _thinned(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thin a mask; here, for Numba and torch take two seconds to load."""
    from voxseg.ops.cpu.thinning import thin_mask

    return thin_mask(mask)
