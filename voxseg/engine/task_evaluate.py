"""Score predictions of other tasks than segmentation against the truth of a data set."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from voxseg.data.cases import Dataset, TaskKind
from voxseg.engine.boundary_files import BoundaryScorer
from voxseg.engine.category_files import category_tables, evaluate_categories
from voxseg.engine.normals_files import NormalsScorer
from voxseg.engine.pairs import Pairs, pair_with
from voxseg.engine.task_scores import TaskEvaluation
from voxseg.errors import DataError, VoxsegError


class Scorer(Protocol):
    """Counts what the cases of a set have in common with their truth."""

    def add(self, case_id: str, prediction: Path, truth: Path) -> None:
        """Read and count one case.

        Raises:
            VoxsegError: A file cannot be read, or they do not belong together.
        """

    def cases(self) -> Mapping[str, Mapping[str, float]]:
        """Scores of each case, see ``CASE_SCORES``."""

    def totals(self) -> Mapping[str, float]:
        """Scores of the set, see ``TOTALS``."""

    def detail(self) -> Mapping[str, Any]:
        """What else there is to draw, as plain values."""


def evaluate_task(
    prediction: Path,
    dataset: Dataset,
    truth: Path,
    notify: Callable[[str, int, int], None] = lambda *_: None,
) -> TaskEvaluation:
    """Score the predictions of a place.

    Args:
        prediction: A folder, a run folder with ``predictions/``, or a single prediction.
        dataset: With the truth of its task.
        truth: Where it lies, for messages.
        notify: Called with case, number and total before each case.

    Raises:
        DataError: Nothing could be scored, with the sentence of each case.
    """
    if dataset.task == "classification":
        tables = category_tables(prediction)
        if not tables:
            raise DataError(
                f"{prediction} holds no predictions.csv with the classes of photographs; run "
                "voxseg predict first"
            )
        return evaluate_categories(tables, dataset, notify)
    return evaluate_pairs(dataset.task, pair_with(prediction, dataset, truth), notify)


def evaluate_pairs(
    task: TaskKind,
    found: Pairs,
    notify: Callable[[str, int, int], None] = lambda *_: None,
) -> TaskEvaluation:
    """Score pairs of files.

    Args:
        task: "boundaries" or "normals".
        found: Predictions and truths.
        notify: Called with case, number and total before each case.

    Raises:
        DataError: Every pair failed, with the sentence of each.
    """
    scorer: Scorer = BoundaryScorer() if task == "boundaries" else NormalsScorer()
    failures: dict[str, str] = {}
    for number, pair in enumerate(found.pairs, 1):
        notify(pair.case_id, number, len(found.pairs))
        try:
            scorer.add(pair.case_id, pair.prediction, pair.truth)
        except VoxsegError as error:
            failures[pair.case_id] = str(error)
    if len(failures) == len(found.pairs):
        raise DataError("\n".join(failures.values()))
    return TaskEvaluation(
        task, scorer.cases(), scorer.totals(), scorer.detail(), failures,
        found.without_prediction, found.without_truth,
    )  # fmt: skip
