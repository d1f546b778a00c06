"""Scores of the tasks other than segmentation: of each case, and of the whole set.

A benchmark's number is one over the whole set (``totals``); runs are compared case by case
(``cases``), for which each task names scores that exist for a single photograph.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from voxseg.data.cases import TaskKind
from voxseg.documents import document, json_text
from voxseg.engine.evaluate_files import check_output, csv_text
from voxseg.errors import DataError
from voxseg.files import write_text
from voxseg.metrics.summary import mean_of_defined, or_none
from voxseg.schemas import TASK_METRICS


@dataclass(frozen=True)
class Score:
    """What a number means."""

    title: str
    """As people write it, with its unit."""
    digits: int = 3
    better: Literal["higher", "lower"] | None = "higher"
    head: str = ""
    """Of a narrow column; empty for the score's name."""


_SHARES = {
    "within_11_25": Score("share under 11.25 degrees", head="< 11.25°"),
    "within_22_5": Score("share under 22.5 degrees", head="< 22.5°"),
    "within_30": Score("share under 30 degrees", head="< 30°"),
}
_ANGLES = {
    "mean_degrees": Score("mean angle (degrees)", 2, "lower", "mean °"),
    "median_degrees": Score("median angle (degrees)", 2, "lower", "median °"),
    "rmse_degrees": Score("root mean square angle (degrees)", 2, "lower", "RMSE °"),
    **_SHARES,
}
CASE_SCORES: dict[TaskKind, dict[str, Score]] = {
    "segmentation": {},
    "boundaries": {
        "f": Score("F at the set's threshold", head="F"),
        "best_f": Score("F at the photograph's best threshold", head="best F"),
        "average_precision": Score("average precision", head="AP"),
    },
    "normals": _ANGLES,
    "classification": {"top1": Score("top-1 accuracy"), "top5": Score("top-5 accuracy")},
}
"""Scores of a case, by the name of their column; the first is what runs are compared by."""
TOTALS: dict[TaskKind, dict[str, Score]] = {
    "segmentation": {},
    "boundaries": {
        "ods": Score("ODS: F at one threshold for all"),
        "ods_threshold": Score("threshold of it", 2, None),
        "ois": Score("OIS: F at each photograph's best threshold"),
        "average_precision": Score("AP: average precision"),
    },
    "normals": _ANGLES,
    "classification": {
        "top1": Score("top-1 accuracy"),
        "top5": Score("top-5 accuracy"),
        "class_mean": Score("top-1 accuracy, mean over classes"),
    },
}
"""Scores of a set; the first is the headline."""
_ABOUT: dict[TaskKind, str] = {
    "segmentation": "class",
    "boundaries": "boundary",
    "normals": "surface",
    "classification": "photograph",
}
KNOWN_SCORES = {name: score for scores in CASE_SCORES.values() for name, score in scores.items()}


@dataclass(frozen=True)
class TaskEvaluation:
    """The scores of all cases and what could not be scored."""

    task: TaskKind
    cases: Mapping[str, Mapping[str, float]]
    """Case -> score; every case has those of ``CASE_SCORES``, NaN where undefined."""
    totals: Mapping[str, float]
    """Of the whole set."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """What else there is to draw: plain values for JSON."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """Case -> one sentence."""
    without_prediction: tuple[str, ...] = ()
    without_truth: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What was decided, a sentence each."""

    def case_rows(self) -> list[dict[str, Any]]:
        """One flat row a case, with the columns that ``voxseg compare`` reads."""
        return [
            {"case": case, "class": _ABOUT[self.task], "label": 1}
            | {name: or_none(values[name]) for name in CASE_SCORES[self.task]}
            for case, values in self.cases.items()
        ]

    def total_rows(self) -> list[dict[str, Any]]:
        """One row a score of the set."""
        return [
            {"score": name, "value": or_none(self.totals[name]), "meaning": score.title}
            for name, score in TOTALS[self.task].items()
        ]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values; an undefined score is None."""
        content = {
            "task": self.task,
            "totals": {name: or_none(value) for name, value in self.totals.items()},
            "cases": self.case_rows(),
            "detail": dict(self.detail),
            "failures": dict(self.failures),
            "without_prediction": list(self.without_prediction),
            "without_truth": list(self.without_truth),
            "notes": list(self.notes),
        }
        return document(TASK_METRICS, content)


def task_evaluation_from_json(content: Mapping[str, Any], file: Path) -> TaskEvaluation:
    """Read what ``TaskEvaluation.to_json`` made.

    Raises:
        DataError: It is something else; ``file`` is named.
    """

    def number(value: float | None) -> float:
        return math.nan if value is None else float(value)

    try:
        task: TaskKind = content["task"]
        return TaskEvaluation(
            task,
            {
                str(row["case"]): {name: number(row[name]) for name in CASE_SCORES[task]}
                for row in content["cases"]
            },
            {name: number(content["totals"][name]) for name in TOTALS[task]},
            content.get("detail", {}),
            content["failures"],
            tuple(content["without_prediction"]),
            tuple(content["without_truth"]),
            tuple(content.get("notes", ())),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{file} holds no scores of cases ({type(error).__name__}: {error}); score them again"
        ) from None


def mean_evaluation(evaluations: Sequence[TaskEvaluation]) -> TaskEvaluation:
    """Average the scores of several seeds, of each case and of the set; nothing is left to draw."""
    first = evaluations[0]
    cases = {
        case: {
            name: mean_of_defined([one.cases[case][name] for one in evaluations])
            for name in CASE_SCORES[first.task]
        }
        for case in first.cases
    }
    totals = {
        name: mean_of_defined([one.totals[name] for one in evaluations]) for name in first.totals
    }
    return replace(first, cases=cases, totals=totals, detail={})


def write_task_evaluation(
    evaluation: TaskEvaluation, folder: Path, *, overwrite: bool = False
) -> None:
    """Write metrics.csv (each case), summary.csv (the set) and metrics.json into ``folder``.

    Raises:
        UsageError: ``folder`` is a file, or holds one of the three and ``overwrite`` is not set.
        VoxsegError: It cannot be written.
    """
    check_output(folder, overwrite=overwrite)
    write_text(folder / "metrics.csv", csv_text(evaluation.case_rows()))
    write_text(folder / "summary.csv", csv_text(evaluation.total_rows()))
    write_text(folder / "metrics.json", json_text(evaluation.to_json()) + "\n")
