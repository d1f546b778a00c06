"""A cross-validation with several seeds: each case's mean over them, and how far they lie apart.

The seeds share one split, so their spread is that of training alone: initial weights, patches and
their order. A difference between two methods that is smaller than it says nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxseg.documents import document, json_text
from voxseg.engine.evaluate import Evaluation
from voxseg.engine.evaluate_files import csv_text
from voxseg.engine.pooled import Pooled
from voxseg.engine.task_scores import TOTALS, TaskEvaluation
from voxseg.files import write_text
from voxseg.metrics.case import ClassScores
from voxseg.metrics.summary import (
    METRICS,
    PIXEL_METRICS,
    WITH_BACKGROUND,
    CaseScores,
    mean_of_defined,
    or_none,
)
from voxseg.schemas import SEEDS

POOLED_IOU = "pooled_iou"
"""What the rows of IoU over all pixels are called."""


@dataclass(frozen=True)
class SpreadRow:
    """One metric of one class, or of a mean over classes."""

    name: str
    """Of the class."""
    label: int | None
    """Class value; None for a mean over classes."""
    metric: str
    by_seed: tuple[float, ...]
    """Mean over cases, seed by seed; NaN where no case has the score."""

    @property
    def mean(self) -> float:
        """Over the seeds that have it; NaN if none has."""
        return mean_of_defined(self.by_seed)

    @property
    def deviation(self) -> float:
        """Sample standard deviation (n - 1) over the seeds; NaN with fewer than two."""
        kept = [value for value in self.by_seed if not math.isnan(value)]
        return float(np.std(kept, ddof=1)) if len(kept) > 1 else math.nan


@dataclass(frozen=True)
class SeedSpread:
    """How far the seeds lie apart."""

    seeds: tuple[int, ...]
    rows: tuple[SpreadRow, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values; an undefined figure is None."""
        return document(SEEDS, {"seeds": list(self.seeds), "rows": self.to_rows()})

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat row for each class and metric."""
        return [
            {
                "class": row.name,
                "label": row.label,
                "metric": row.metric,
                "mean": or_none(row.mean),
                "sd": or_none(row.deviation),
                **{
                    f"seed_{seed}": or_none(value)
                    for seed, value in zip(self.seeds, row.by_seed, strict=True)
                },
            }
            for row in self.rows
        ]


def average_scores(everything: Sequence[CaseScores]) -> dict[str, dict[int, ClassScores]]:
    """Average each case's scores over the seeds; a score that a seed lacks is left out.

    Args:
        everything: of each seed, case -> class value -> scores, with the same cases and classes.
    """
    return {
        case: {
            label: ClassScores(
                **{
                    metric: mean_of_defined(
                        [getattr(one[case][label], metric) for one in everything]
                    )
                    for metric in (*METRICS, *PIXEL_METRICS)
                }
            )
            for label in classes
        }
        for case, classes in everything[0].items()
    }


def spread_of(by_seed: Mapping[int, Evaluation]) -> SeedSpread:
    """Put the evaluations of several seeds, all with the same classes, side by side."""
    summaries = [evaluation.summary for evaluation in by_seed.values()]
    rows = [
        SpreadRow(
            row.name,
            row.label,
            metric,
            tuple(summary.rows[number].statistics[metric].mean for summary in summaries),
        )
        for number, row in enumerate(summaries[0].rows)
        for metric in row.statistics
    ]
    rows += _pooled_rows([one.pooled for one in by_seed.values() if one.pooled is not None])
    return SeedSpread(tuple(by_seed), tuple(rows))


def task_spread(by_seed: Mapping[int, TaskEvaluation]) -> SeedSpread:
    """Put the scores of the whole set, one row each, side by side."""
    first = next(iter(by_seed.values()))
    rows = [
        SpreadRow(score.title, None, name, tuple(one.totals[name] for one in by_seed.values()))
        for name, score in TOTALS[first.task].items()
    ]
    return SeedSpread(tuple(by_seed), tuple(rows))


def _pooled_rows(pooled: Sequence[Pooled]) -> list[SpreadRow]:
    """IoU over all pixels of photographs, of each class and their mean."""
    if not pooled:
        return []
    rows = [
        SpreadRow(one.name, one.label, POOLED_IOU, tuple(p.classes[n].iou for p in pooled))
        for n, one in enumerate(pooled[0].classes)
    ]
    return [
        *rows,
        SpreadRow(WITH_BACKGROUND, None, POOLED_IOU, tuple(p.mean_iou for p in pooled)),
    ]


def write_spread(spread: SeedSpread, folder: Path) -> None:
    """Write ``seeds.json`` and ``seeds.csv``."""
    write_text(folder / "seeds.csv", csv_text(spread.to_rows()))
    write_text(folder / "seeds.json", json_text(spread.to_json()) + "\n")
