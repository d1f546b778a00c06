"""Compare runs on the same cases: differences, intervals, tests, and a verdict in words.

A verdict rests on the sign-flip permutation test after Holm's correction over every test of one
comparison. The foreground mean of a case (of a photograph, the mean over all its classes) is taken
over the classes that both runs have a score for, so that like is compared with like.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from voxseg.documents import document
from voxseg.engine.run_scores import Common, RunScores, find_common, read_runs
from voxseg.engine.task_scores import KNOWN_SCORES
from voxseg.errors import UsageError
from voxseg.metrics.comparison import (
    FEWEST_CASES,
    PairedComparison,
    compare_paired,
    fewest_cases,
    holm,
)
from voxseg.metrics.summary import FOREGROUND, PIXEL_METRICS, WITH_BACKGROUND, or_none
from voxseg.schemas import COMPARE

_SIZES = (
    "volume_difference_ml",
    "prediction_ml",
    "truth_ml",
    *PIXEL_METRICS,
)  # have no mean over classes
_KNOWN = {
    "dice": ("Dice", "higher"),
    "iou": ("IoU", "higher"),
    "surface_dice": ("surface Dice", "higher"),
    "hd95_mm": ("HD95 (mm)", "lower"),
    "assd_mm": ("ASSD (mm)", "lower"),
    "volume_difference_ml": ("absolute volume difference (ml)", "lower"),
    "prediction_ml": ("predicted volume (ml)", None),
    "truth_ml": ("true volume (ml)", None),
    "prediction_pixels": ("predicted pixels", None),
    "truth_pixels": ("true pixels", None),
    **{name: (score.title, score.better) for name, score in KNOWN_SCORES.items()},
}


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """What is compared, and how sure it has to be."""

    metric: str = ""
    """Column of metrics.csv; "" is IoU for photographs, Dice for volumes, and the first column for
    other tasks. Volume differences are compared by their size, without sign."""
    alpha: float = 0.05
    """Level of the tests, in (0, 0.5]; intervals cover 1 - alpha."""
    all_pairs: bool = False
    """Compare each run with each; else the first with every other."""
    seed: int = 0
    """Of the bootstrap, and of the sign flips where there are too many to count."""
    resamples: int = 9999
    allow_missing: bool = False
    """Compare the cases and classes that all runs have instead of refusing."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 0.5:
            raise UsageError(f"--alpha must be above 0 and at most 0.5, got {self.alpha:g}")
        if self.resamples < 99:
            raise UsageError(f"--resamples must be 99 or more, got {self.resamples}")
        if self.seed < 0:
            raise UsageError(f"--seed must not be negative, got {self.seed}")


@dataclass(frozen=True)
class ComparedClass:
    """One class, or the mean over classes, of one pair of runs."""

    baseline: str
    """Name of run A."""
    other: str
    """Name of run B; differences are B - A."""
    name: str
    label: int | None
    """Class value; None for the mean."""
    test: PairedComparison
    p_holm: float
    p_attainable: float
    """Smallest corrected p that these tests could have given, whatever the signs."""
    verdict: str

    def to_row(self) -> dict[str, Any]:
        """One flat row; an undefined number is None."""
        test = asdict(self.test)
        row: dict[str, Any] = {"a": self.baseline, "b": self.other}
        row |= {"class": self.name, "label": self.label}
        row |= {key: or_none(value) for key, value in test.items()}
        row |= {"p_holm": or_none(self.p_holm), "p_holm_attainable": or_none(self.p_attainable)}
        return row | {"verdict": self.verdict}


@dataclass(frozen=True)
class Comparison:
    """All that is known after a comparison."""

    settings: CompareSettings
    runs: tuple[RunScores, ...]
    num_cases: int
    rows: tuple[ComparedClass, ...]
    """For each pair its classes, then their mean."""
    warnings: tuple[str, ...]

    @property
    def metric_name(self) -> str:
        """As people write it, with its unit."""
        return _KNOWN.get(self.settings.metric, (self.settings.metric, None))[0]

    @property
    def better(self) -> str | None:
        """Which scores are better, higher or lower; None where neither is, or it is not known."""
        return _KNOWN.get(self.settings.metric, ("", None))[1]

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Names of A and B, in the order of the rows."""
        return tuple(dict.fromkeys((row.baseline, row.other) for row in self.rows))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the numbers mean; printed under every table."""
        ranked = _either(row.test.wilcoxon_method for row in self.rows)
        flipped = _either(row.test.permutation_method for row in self.rows)
        tests = sum(not math.isnan(row.p_holm) for row in self.rows)
        return (
            "Interval: BCa bootstrap of the mean difference, each row alone; with fewer than about "
            "20 cases it tends to be too narrow.",
            f"p: two-sided, paired by case; Wilcoxon signed rank without equal cases ({ranked}), "
            f"and sign flips of the mean difference ({flipped}).",
            f"Holm: over {tests} sign-flip {'test' if tests == 1 else 'tests'}; the verdict "
            "follows it. Inconclusive does not mean equal.",
            "+ / - / =: cases where the second run is higher, lower, equal. d_z: mean over "
            "standard deviation of the differences. r: matched rank-biserial correlation.",
            "p speaks of these networks on cases like these, not of the methods: cases of one fold "
            "share a network, and a network trained with another seed scores otherwise.",
            *_pooled_note(self.runs),
        )

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values; an undefined number is None."""
        content = {
            **asdict(self.settings),
            "better": self.better,
            "runs": [
                {"name": run.name, "scores": str(run.path), "cases": len(run.scores)}
                for run in self.runs
            ],
            "cases": self.num_cases,
            "rows": [row.to_row() for row in self.rows],
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }
        return document(COMPARE, content)


def compare(paths: Sequence[Path], settings: CompareSettings) -> Comparison:
    """Compare runs on the cases that they share.

    Args:
        paths: Run folders or tables of scores, the baseline first.
        settings: What is compared, and how.

    Raises:
        UsageError: Fewer than two runs, or a metric that a run has not.
        DataError: A run cannot be read, or the runs cannot be compared.
    """
    runs = read_runs(paths)
    if not settings.metric:
        settings = replace(settings, metric=runs[0].headline)
    common = find_common(runs, settings.metric, allow_missing=settings.allow_missing)
    pairs = list(combinations(runs, 2)) if settings.all_pairs else [(runs[0], r) for r in runs[1:]]
    tests = [
        (one, two, label, _test(one, two, label, common, settings))
        for one, two in pairs
        for label in _labels(common, settings.metric)
    ]
    adjusted = holm([test.p_permutation for *_, test in tests])
    # Lowering any p lowers no other, so the best case of all together bounds each.
    attainable = holm([test.p_attainable for *_, test in tests])
    names = _class_names(runs, common.labels)
    better = _KNOWN.get(settings.metric, ("", None))[1]
    mean_name = WITH_BACKGROUND if runs[0].is_images else FOREGROUND
    rows = tuple(
        ComparedClass(
            one.name, two.name, mean_name if label is None else names[label], label, test,
            float(p), float(least), _verdict(test, float(p), float(least), settings.alpha, better),
        )
        for (one, two, label, test), p, least in zip(tests, adjusted, attainable, strict=True)
    )  # fmt: skip
    warnings = (*common.warnings, *_undefined(rows), *_too_few(rows, settings))
    return Comparison(settings, runs, len(common.cases), rows, warnings)


def _pooled_note(runs: Sequence[RunScores]) -> list[str]:
    """Give the benchmark's number of photographs, which no test can be made of."""
    known = [(run.name, run.pooled_iou) for run in runs if run.pooled_iou is not None]
    totals = [
        f"{run.name}: " + ", ".join(f"{name} {value:.3f}" for name, value in run.totals.items())
        for run in runs
        if run.totals
    ]
    if totals:
        return [f"Compared are single photographs. Of each run's set: {'; '.join(totals)}."]
    if not known:
        return []
    scores = ", ".join(f"{100 * iou:.2f}% {name}" for name, iou in known)
    return [
        f"Compared are single photographs. Mean IoU over all pixels of each run's set: {scores}."
    ]


def _labels(common: Common, metric: str) -> list[int | None]:
    """Classes to test, and None for their mean where it means something and is not one of them."""
    has_mean = metric not in _SIZES and len(common.labels) > 1
    return [*common.labels, *([None] if has_mean else [])]


def _test(
    one: RunScores, two: RunScores, label: int | None, common: Common, settings: CompareSettings
) -> PairedComparison:
    labels = common.labels if label is None else (label,)
    a, b = (_values(run, common.cases, labels, settings.metric) for run in (one, two))
    if label is None:
        both = ~(np.isnan(a) | np.isnan(b))
        count = both.sum(axis=1)
        # A class that one run lacks is left out of the other's mean, too.
        means = [np.where(both, scores, 0).sum(axis=1) for scores in (a, b)]
        a, b = (
            np.divide(total, count, out=np.full(len(count), math.nan), where=count > 0)
            for total in means
        )
    return compare_paired(
        a.reshape(-1),
        b.reshape(-1),
        alpha=settings.alpha,
        resamples=settings.resamples,
        seed=settings.seed,
    )


def _values(
    run: RunScores, cases: Sequence[str], labels: Sequence[int], metric: str
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Scores (cases, labels) of one metric."""
    scores = [[run.scores[case][label][metric] for label in labels] for case in cases]
    values = np.array(scores, dtype=np.float64)
    return np.abs(values) if metric == "volume_difference_ml" else values


def _class_names(runs: Sequence[RunScores], labels: Sequence[int]) -> dict[int, str]:
    """Names of the classes: of the first run that has one."""
    names = {}
    for label in labels:
        found = [run.class_names[label] for run in runs]
        names[label] = next((name for name in found if name != f"class {label}"), found[0])
    return names


def _verdict(
    test: PairedComparison, p_holm: float, attainable: float, alpha: float, better: str | None
) -> str:
    """Say in words what a row shows about B."""
    if not test.num_cases:
        return "no case"
    if not test.num_differing:
        return "no case differs"
    if test.num_cases < FEWEST_CASES or attainable > alpha:
        return "too few cases"
    if p_holm > alpha:
        return "inconclusive"
    side = "higher" if test.difference > 0 else "lower"
    if better is None:
        return side
    return "better" if side == better else "worse"


def _undefined(rows: Sequence[ComparedClass]) -> list[str]:
    """Say where a score exists in one run only: leaving the case out may flatter the other."""
    warnings = []
    for row in rows:
        lost = ((row.test.undefined_a, row.baseline), (row.test.undefined_b, row.other))
        if row.label is not None:
            warnings += [
                f"{row.name}, {row.other} against {row.baseline}: undefined in {name} only in "
                f"{count} of {_all_cases(row)} cases, which are left out; a class that was missed "
                "has no distance, so look at Dice too"
                for count, name in lost
                if count
            ]
    return warnings


def _too_few(rows: Sequence[ComparedClass], settings: CompareSettings) -> list[str]:
    """Say once how many cases it would take."""
    few = [row for row in rows if row.verdict == "too few cases"]
    if not few:
        return []
    tests = sum(not math.isnan(row.p_holm) for row in rows)
    counts = sorted({row.test.num_differing for row in few})
    found = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    wanted = fewest_cases(tests, settings.alpha)
    if counts[0] >= wanted:  # the number of random patterns is the limit
        patterns = math.ceil(tests / settings.alpha)
        cure = f"use --resamples {patterns} or more"
    else:
        cure = f"{wanted} cases that differ are needed"
    return [
        f"too few to conclude in {len(few)} of {len(rows)} rows, with {found} cases that differ: "
        f"even if all differed in one direction, no corrected p of at most {settings.alpha:g} "
        f"could come out for all of {tests} {'test' if tests == 1 else 'tests'}; {cure}"
    ]


def _all_cases(row: ComparedClass) -> int:
    test = row.test
    return test.num_cases + test.undefined_a + test.undefined_b + test.undefined_both


def _either(methods: Iterable[str]) -> str:
    """Name each method once; rows without a test have none."""
    return " or ".join(dict.fromkeys(name for name in methods if not name.startswith("no case")))
