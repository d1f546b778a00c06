"""Scores of boundaries from counts: ODS, OIS, average precision and the curve behind them.

Source: the benchmark of BSDS500: Arbelaez, Maire, Fowlkes, Malik, *Contour detection and
hierarchical image segmentation*, TPAMI 33(5), 2011, section 3, and its public evaluation
(``collect_eval_bdry``), with its habits:

- ODS: best F of all cases' counts together, at one threshold. Recall, precision and threshold are
  interpolated in 100 points between neighbours.
- OIS: F of the sums of each case's counts at its own best threshold, not interpolated.
- AP: precision, interpolated over recall, summed at 0, 0.01, ..., 1 and divided by 100. Recalls
  beyond the lowest and highest that occur add nothing, so a map of 0 and 1 has AP 0.
"""

from dataclasses import dataclass

import numpy as np

from voxseg.metrics.boundary_counts import (
    BoundaryCounts,
    BoundaryErrors,
    Floats,
    evaluate_annotators,
    evaluate_boundaries,
    f_measure,
    find_boundary_errors,
    share,
)

__all__ = [
    "BoundaryCaseScores",
    "BoundaryCounts",
    "BoundaryErrors",
    "BoundaryScores",
    "case_scores",
    "evaluate_annotators",
    "evaluate_boundaries",
    "find_boundary_errors",
    "scores",
]

_POINTS = 100
_RECALLS = np.arange(101) / 100


@dataclass(frozen=True)
class BoundaryPoint:
    """A point of the curve of precision over recall."""

    f: float
    threshold: float
    recall: float
    precision: float


@dataclass(frozen=True, eq=False)
class BoundaryScores:
    """Scores of all cases together."""

    best: BoundaryPoint
    """At the threshold that is best for all cases together."""
    ois: float
    ois_recall: float
    ois_precision: float
    ap: float
    thresholds: Floats
    """(K,) of the curve."""
    recall: Floats
    precision: Floats

    @property
    def ods(self) -> float:
        """F at the threshold that is best for all cases together."""
        return self.best.f

    @property
    def ods_threshold(self) -> float:
        """That threshold."""
        return self.best.threshold


@dataclass(frozen=True)
class BoundaryCaseScores:
    """Scores of one case, for comparing runs case by case."""

    f: float
    """At the threshold that is best for all cases together."""
    best: BoundaryPoint
    """At the case's own best threshold."""
    ap: float


def scores(counts: BoundaryCounts) -> BoundaryScores:
    """Score the counts of all cases, added up."""
    found, true, right, predicted = counts.best[:, None]
    recall, precision = share(found, true), share(right, predicted)
    return BoundaryScores(
        _best_point(counts),
        float(f_measure(recall, precision)[0]),
        float(recall[0]),
        float(precision[0]),
        _average_precision(counts),
        counts.thresholds,
        counts.recall,
        counts.precision,
    )


def case_scores(counts: BoundaryCounts, threshold: float) -> BoundaryCaseScores:
    """Score the counts of one case.

    Args:
        counts: Of the case.
        threshold: That is best for all cases together (``BoundaryScores.ods_threshold``).
    """
    recall, precision = (
        np.interp([threshold], counts.thresholds, one) for one in (counts.recall, counts.precision)
    )
    f = float(f_measure(recall, precision)[0])
    return BoundaryCaseScores(f, _best_point(counts), _average_precision(counts))


def _best_point(counts: BoundaryCounts) -> BoundaryPoint:
    """Find the best F on the lines between neighbouring thresholds."""
    rows = np.stack([counts.thresholds, counts.recall, counts.precision])
    if rows.shape[1] > 1:
        part = np.linspace(0, 1, _POINTS)
        rows = rows[:, 1:, None] * part + rows[:, :-1, None] * (1 - part)
        rows = rows.reshape(3, -1)
    f = f_measure(rows[1], rows[2])
    at = int(np.argmax(f))
    threshold, recall, precision = rows[:, at].tolist()
    return BoundaryPoint(float(f[at]), threshold, recall, precision)


def _average_precision(counts: BoundaryCounts) -> float:
    """Return the area under precision over recall."""
    # Of equal recalls the lowest threshold counts, as MATLAB's unique has it since 2013.
    recall, first = np.unique(counts.recall, return_index=True)
    if len(recall) < 2:
        return 0.0
    precision = np.interp(_RECALLS, recall, counts.precision[first], left=0, right=0)
    return float(precision.sum() / _POINTS)
