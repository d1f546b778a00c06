"""Volumes: how far one may be from the true one, how biased they are, and left against right.

Sources: split conformal prediction, as Vovk, Gammerman and Shafer, *Algorithmic Learning in a
Random World*, 2005, found it and Angelopoulos and Bates, *A Gentle Introduction to Conformal
Prediction*, 2021, arXiv:2107.07511, section 2.2, describe it; residuals of a cross-validation in
its place: Barber, Candes, Ramdas and Tibshirani, *Predictive inference with the jackknife+*, 2021,
arXiv:1905.02928.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

HIGHEST_LEVEL = 0.9
"""Coverage that is aimed at."""
LEAST_LEVEL = 0.5
"""What covers less often is not called an interval."""
FROM_ZERO = (0.0, math.inf)
"""Where a volume lies."""


@dataclass(frozen=True)
class Interval:
    """Where a true value is expected."""

    low: float
    high: float
    level: float
    """Share of new cases whose true value it holds, if they are like those that it is from."""
    num_cases: int
    """Cases that it is from."""


def conformal_rank(num_cases: int, level: float = HIGHEST_LEVEL) -> tuple[int, float] | None:
    """Choose which residuals bound an interval with equal tails.

    The k-th smallest and k-th largest of n residuals hold that of another exchangeable case with a
    probability of at least 1 - 2 k / (n + 1), whatever their distribution is.

    Args:
        num_cases: n.
        level: Coverage that is aimed at.

    Returns:
        k from 1, and the coverage: ``level``, or as much of it as n cases allow. None below
        ``LEAST_LEVEL``.
    """
    rank = math.floor((1 - level) / 2 * (num_cases + 1) + 1e-9)
    if rank >= 1:
        return rank, level
    reached = 1 - 2 / (num_cases + 1)
    return (1, reached) if reached >= LEAST_LEVEL else None


def conformal_interval(
    value: float,
    predicted: Sequence[float],
    true: Sequence[float],
    bounds: tuple[float, float] = FROM_ZERO,
    *,
    level: float = HIGHEST_LEVEL,
) -> Interval | None:
    """Tell where the true value is, by the errors of cases that were held out.

    Errors are ratios, true over predicted, so that a large volume gets a wide interval. Where a
    value may be below 0, or a volume is 0 in any case or in the new one, they are differences.
    Neither tail is mirrored: with a biased network, the interval lies to one side of ``value``.

    Args:
        value: Of the new case.
        predicted: Of each held-out case.
        true: Of the same cases; pairs with NaN are left out.
        bounds: Least and most that is possible; the interval is cut there.
        level: Coverage that is aimed at; fewer cases give less, see ``conformal_rank``.

    Returns:
        None where there are too few cases, or ``value`` is NaN. Deterministic.

    Raises:
        ValueError: ``predicted`` and ``true`` are not as many.
    """
    before, after = _pairs(predicted, true)
    rank = conformal_rank(len(before), level)
    if rank is None or math.isnan(value):
        return None
    k, reached = rank
    is_ratio = bounds[0] == 0 and value > 0 and bool((before > 0).all() and (after > 0).all())
    errors = np.sort(np.log(after / before) if is_ratio else after - before)
    low, high = float(errors[k - 1]), float(errors[-k])
    ends = [value * math.exp(e) if is_ratio else value + e for e in (low, high)]
    low, high = (min(max(end, bounds[0]), bounds[1]) for end in ends)
    return Interval(low, high, reached, len(before))


def bias_percent(predicted: Sequence[float], true: Sequence[float]) -> float:
    """Median over cases of predicted over true value, less 1, in %.

    Returns:
        NaN where no true value is above 0. -6 means that half of the cases are measured at least
        6 % too small.
    """
    before, after = _pairs(predicted, true)
    known = after > 0
    return float(100 * (np.median(before[known] / after[known]) - 1)) if known.any() else math.nan


def asymmetry_percent(left: float, right: float) -> float:
    """Left minus right over the mean of both, in %: -200 to 200, NaN where both are 0."""
    return 200 * (left - right) / (left + right) if left + right > 0 else math.nan


def share_percent(part: float, whole: float) -> float:
    """Part of a whole in %; NaN where that is 0."""
    return 100 * part / whole if whole > 0 else math.nan


def _pairs(predicted: Sequence[float], true: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    if len(predicted) != len(true):
        raise ValueError(
            f"predicted and true must be as many, got {len(predicted)} and {len(true)}"
        )
    both = np.array([predicted, true], dtype=np.float64)
    both = both[:, ~np.isnan(both).any(axis=0)]
    return both[0], both[1]
