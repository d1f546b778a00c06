"""What ``voxseg evaluate`` and ``crossval`` print about boundaries, normals and classes."""

from typing import TYPE_CHECKING

from rich.table import Table

from . import console as terminal

if TYPE_CHECKING:
    from voxseg.engine.task_scores import TaskEvaluation

_MOST_CASES = 60  # rows of a table; metrics.csv has them all


def task_tables(evaluation: "TaskEvaluation") -> list[Table]:
    """Build the tables of cases, where they are not too many, and of the whole set."""
    from voxseg.engine.task_scores import CASE_SCORES, TOTALS
    from voxseg.metrics.summary import in_cases

    of_case, of_set = CASE_SCORES[evaluation.task], TOTALS[evaluation.task]
    made = []
    if len(evaluation.cases) <= _MOST_CASES and evaluation.task != "classification":
        rows = [
            [case, *(f"{values[name]:.{score.digits}f}" for name, score in of_case.items())]
            for case, values in evaluation.cases.items()
        ]
        heads = [score.head or name for name, score in of_case.items()]
        made.append(terminal.table("Each photograph", ("case", *heads), rows))
    totals = [
        [score.title, f"{evaluation.totals[name]:.{score.digits}f}"]
        for name, score in of_set.items()
    ]
    title = f"The whole set, {in_cases(len(evaluation.cases))}"
    made.append(terminal.table(title, ("score", "value"), totals))
    return made
