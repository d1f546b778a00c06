"""Scores of many cases: mean and standard deviation per class, and over the foreground.

The headline is the foreground mean: the mean over a case's foreground classes, then over cases. The
mean with background stands beside it. Standard deviations are over cases, with n - 1.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxseg.metrics.case import ClassScores

METRICS = (
    "dice", "iou", "hd95_mm", "assd_mm", "surface_dice",
    "volume_difference_ml", "prediction_ml", "truth_ml",
)  # fmt: skip
"""Names of all scores of volumes, in the order of tables."""
PIXEL_METRICS = ("prediction_pixels", "truth_pixels")
IMAGE_METRICS = ("dice", "iou", *PIXEL_METRICS)
"""Names of all scores of photographs."""
OVERLAP_METRICS = ("dice", "iou")
"""Scores that also mean something for background and in a mean with it."""
SCORE_METRICS = ("dice", "iou", "hd95_mm", "assd_mm", "surface_dice")
"""Scores that are averaged over classes; volumes are not."""
_SURFACE_METRICS = ("hd95_mm", "assd_mm", "surface_dice")

FOREGROUND = "foreground mean"
WITH_BACKGROUND = "all-class mean"

Cell = float | int | str | None
CaseScores = Mapping[str, Mapping[int, ClassScores]]


@dataclass(frozen=True)
class Statistic:
    """One score over cases."""

    mean: float
    """NaN where no case has the score."""
    deviation: float
    """Sample standard deviation (n - 1); NaN with fewer than two cases."""
    defined: int
    """Cases that have the score."""
    undefined: int
    """Cases that have not, and are left out of mean and deviation."""


@dataclass(frozen=True)
class SummaryRow:
    """One class, or a mean over classes, over all cases."""

    name: str
    label: int | None
    """Class value; None for a mean over classes."""
    statistics: Mapping[str, Statistic]
    """Metric -> its statistic; metrics that mean nothing for this row are not there."""


@dataclass(frozen=True)
class Summary:
    """The table that a paper prints."""

    rows: tuple[SummaryRow, ...]
    """Foreground classes, their mean, then background and the mean with it where scored."""
    num_cases: int

    @property
    def foreground_dice(self) -> float:
        """The headline: mean Dice over foreground classes and cases; NaN if nothing is defined."""
        for row in self.rows:
            if row.name == FOREGROUND and row.label is None:
                return row.statistics["dice"].mean
        return math.nan

    def to_rows(self, metrics: Iterable[str] = METRICS) -> list[dict[str, Cell]]:
        """One flat row a class for CSV and JSON; an undefined number is None."""
        table = []
        for row in self.rows:
            flat: dict[str, Cell] = {"class": row.name, "label": row.label}
            for metric in metrics:
                statistic = row.statistics.get(metric)
                flat[f"{metric}_mean"] = or_none(statistic.mean) if statistic else None
                flat[f"{metric}_sd"] = or_none(statistic.deviation) if statistic else None
                flat[f"{metric}_cases"] = statistic.defined if statistic else None
                flat[f"{metric}_undefined"] = statistic.undefined if statistic else None
            table.append(flat)
        return table


def summarise(
    cases: CaseScores,
    names: Mapping[int, str] | None = None,
    *,
    background: int | None = 0,
    is_images: bool = False,
) -> Summary:
    """Summarise the scores of many cases.

    Args:
        cases: case -> class value -> scores; every case has the same classes.
        names: class value -> name; "class N" where it has none.
        background: class value of the background, if it was scored; None if every class is one
            like the others.
        is_images: the cases are photographs: overlap and pixels instead of mm and ml.

    Raises:
        ValueError: the cases do not have the same classes.
    """
    labels = list(next(iter(cases.values()), {}))
    if any(set(scores) != set(labels) for scores in cases.values()):
        raise ValueError("every case must be scored for the same classes")
    foreground = [label for label in labels if label != background]
    measured: tuple[str, ...] = IMAGE_METRICS if is_images else METRICS
    rows = [_class_row(cases, label, names, measured) for label in foreground]
    if foreground and background is not None:
        averaged = OVERLAP_METRICS if is_images else SCORE_METRICS
        rows.append(_mean_row(cases, FOREGROUND, foreground, averaged))
    if background is not None and background in labels:
        measured = tuple(metric for metric in measured if metric not in _SURFACE_METRICS)
        rows.append(_class_row(cases, background, names, measured, "background"))
    if background is None or background in labels:
        rows.append(_mean_row(cases, WITH_BACKGROUND, labels, OVERLAP_METRICS))
    return Summary(tuple(rows), len(cases))


def case_rows(
    cases: CaseScores,
    names: Mapping[int, str] | None = None,
    metrics: Sequence[str] = METRICS,
) -> list[dict[str, Cell]]:
    """One flat row for each case and class, for CSV and JSON; an undefined number is None."""
    rows = []
    for case_id, classes in cases.items():
        for label, scores in classes.items():
            row: dict[str, Cell] = {"case": case_id}
            row |= {"class": class_name(label, names), "label": label}
            row |= {metric: or_none(getattr(scores, metric)) for metric in metrics}
            rows.append(row)
    return rows


def foreground_means(
    cases: CaseScores, metric: str = "dice", *, background: int | None = 0
) -> dict[str, float]:
    """Mean of one score over the foreground classes of each case; NaN where it has none.

    Without a background (None) it is the mean over all classes.
    """
    return {
        case_id: mean_of_defined(
            getattr(scores, metric) for label, scores in classes.items() if label != background
        )
        for case_id, classes in cases.items()
    }


def class_name(
    label: int, names: Mapping[int, str] | None = None, default: str | None = None
) -> str:
    """Name of a class value; ``default``, or "class N", where ``names`` has none."""
    if names and label in names:
        return names[label]
    return default or ("background" if label == 0 else f"class {label}")


def _class_row(
    cases: CaseScores,
    label: int,
    names: Mapping[int, str] | None,
    metrics: Iterable[str],
    default: str | None = None,
) -> SummaryRow:
    statistics = {
        metric: _statistic([getattr(scores[label], metric) for scores in cases.values()])
        for metric in metrics
    }
    return SummaryRow(class_name(label, names, default), label, statistics)


def _mean_row(
    cases: CaseScores, name: str, labels: list[int], metrics: Iterable[str]
) -> SummaryRow:
    statistics = {}
    for metric in metrics:
        per_case = [[getattr(s[label], metric) for label in labels] for s in cases.values()]
        statistics[metric] = _statistic([mean_of_defined(values) for values in per_case])
    return SummaryRow(name, None, statistics)


def _statistic(values: list[float]) -> Statistic:
    kept = np.array([value for value in values if not math.isnan(value)], dtype=np.float64)
    return Statistic(
        mean=float(kept.mean()) if kept.size else math.nan,
        deviation=float(kept.std(ddof=1)) if kept.size > 1 else math.nan,
        defined=int(kept.size),
        undefined=len(values) - int(kept.size),
    )


def mean_of_defined(values: Iterable[float]) -> float:
    """Mean of the values that are not NaN; NaN where none is defined."""
    kept = [value for value in values if not math.isnan(value)]
    return math.fsum(kept) / len(kept) if kept else math.nan


def or_none(value: Any) -> Any:
    """Make an undefined number (NaN) None: an empty field in CSV, null in JSON."""
    return None if isinstance(value, float) and math.isnan(value) else value


def in_cases(number: int) -> str:
    """Say how many cases, in words: "1 case", "2 cases"."""
    return f"{number} case" if number == 1 else f"{number} cases"
