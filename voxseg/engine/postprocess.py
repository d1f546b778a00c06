"""Choose operations on label maps by what they did to out-of-fold predictions, or choose none.

The rule, for each class and operation: it is taken where it raises the mean Dice over the cases
and the gain is more than chance (sign-flip test of the paired changes, one-sided, ``LEVEL``); with
fewer than ``FEWEST_CASES`` cases nothing is taken. p values are not corrected for their number: a
class that gets an operation it does not need pays with a change too small to see, while a
correction over thirty classes would forbid what plainly helps one. What guards against luck is the
next paragraph.

The choice saw the truth of the cases it is judged by, so the scores after it are those of a nested
run: for each fold the operations are chosen on the other folds' cases alone. A class whose mean
Dice falls in that run gets no operation after all.

Order, greedy: first the largest component, each class by itself; then, after those that were taken,
holes. An operation moves voxels between its class and background only (``data/cleaning.py``), so
the Dice of one class says all about it.

What is judged are the masks of single networks. ``predict`` averages the folds, and such masks have
fewer stray pieces, so there an operation may find less to do than its gain here promises.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from voxseg.data.cleaning import OPERATIONS, Operation, clean_label
from voxseg.data.reading import read_label
from voxseg.data.splits import Fold, split_hash
from voxseg.data.volume import Volume, check_same_grid
from voxseg.engine.label_config import LabelConfig
from voxseg.errors import DataError
from voxseg.metrics import ClassScores, dice, score_case
from voxseg.metrics.comparison import FEWEST_CASES, sign_flip
from voxseg.metrics.summary import in_cases, mean_of_defined

LEVEL = 0.05
"""Of the one-sided test."""

Changes = Mapping[str, Mapping[int, tuple[float, float]]]
"""Case -> class value -> Dice without and with an operation."""


@dataclass(frozen=True)
class Trial:
    """What one operation did to one class."""

    operation: Operation
    num_cases: int
    """Cases that have a Dice; the others have the class in neither map."""
    dice_before: float
    """Mean over these cases; NaN without one, as the numbers below."""
    dice_after: float
    num_higher: int
    """Cases whose Dice rose."""
    num_lower: int
    p: float
    """One-sided, that the mean rises."""
    chosen: bool
    reason: str

    @property
    def gain(self) -> float:
        """Mean change of Dice."""
        return self.dice_after - self.dice_before


@dataclass(frozen=True)
class Choice:
    """What was tried on each class, and what was taken."""

    trials: Mapping[int, tuple[Trial, ...]]
    """Foreground class value -> trials, in their order."""
    withdrawn: tuple[int, ...] = ()
    """Classes whose Dice fell in the nested run."""

    @property
    def operations(self) -> dict[int, tuple[Operation, ...]]:
        """Class value -> what is done to it, where something is."""
        chosen = {
            value: tuple(one.operation for one in trials if one.chosen)
            for value, trials in self.trials.items()
            if value not in self.withdrawn
        }
        return {value: several for value, several in chosen.items() if several}


@dataclass(frozen=True)
class PostprocessResult:
    """A choice, and what such a choice does to cases that it did not see."""

    choice: Choice
    folds: tuple[Mapping[int, tuple[Operation, ...]], ...]
    """For each fold, the operations that the cases of the others chose."""
    scores: Mapping[str, Mapping[int, ClassScores]]
    """Of the nested run: case -> class value -> scores."""
    raw_dice: Mapping[str, Mapping[int, float]]
    """Of the networks alone."""
    labels: LabelConfig
    split_hash: str

    @property
    def nested_means(self) -> tuple[float, float]:
        """Foreground mean Dice of the networks alone, and of the nested run."""
        plain, cleaned = [], []
        for case, classes in self.raw_dice.items():
            plain.append(mean_of_defined(classes.values()))
            cleaned.append(mean_of_defined(self.scores[case][value].dice for value in classes))
        return mean_of_defined(plain), mean_of_defined(cleaned)


class OutOfFold:
    """Predictions and truths of a cross-validation, read when they are needed.

    Args:
        predictions: case -> label map by the network that did not see it.
        truths: case -> its true label map.
        labels: values of the classes, background first.
    """

    def __init__(
        self, predictions: Mapping[str, Path], truths: Mapping[str, Path], labels: LabelConfig
    ) -> None:
        self._predictions, self._truths = predictions, truths
        self._background, *self.foreground = labels.values
        self._changes: dict[tuple[str, Operation, frozenset[int]], dict[int, Any]] = {}

    def load(self, case_id: str) -> tuple[np.ndarray, Volume]:
        """Read a case's predicted label map, and its truth."""
        path = self._predictions[case_id]
        if not path.is_file():
            raise DataError(
                f"there is no prediction {path}; delete the scores.json of its fold, and go on "
                "with voxseg crossval --resume"
            )
        truth, prediction = read_label(self._truths[case_id]), read_label(path)
        check_same_grid(truth, prediction)
        return prediction.array, truth

    def clean(self, label: np.ndarray, operations: Mapping[int, Sequence[Operation]]) -> np.ndarray:
        """Do the operations to a label map."""
        return clean_label(label, operations, self._background)

    def changes(
        self, case_ids: Iterable[str], operation: Operation, reduced: Iterable[int] = ()
    ) -> Changes:
        """Measure what one operation does to each class.

        Args:
            case_ids: which cases.
            operation: tried on each class by itself.
            reduced: classes whose largest component is kept before, in both label maps.
        """
        before = frozenset(reduced)
        found = {}
        for case_id in case_ids:
            key = (case_id, operation, before)
            if key not in self._changes:
                self._changes[key] = self._measure(case_id, operation, before)
            found[case_id] = self._changes[key]
        return found

    def _measure(
        self, case_id: str, operation: Operation, reduced: frozenset[int]
    ) -> dict[int, tuple[float, float]]:
        label, truth = self.load(case_id)
        label = self.clean(label, dict.fromkeys(reduced, ("largest_component",)))
        found = {}
        for value in self.foreground:
            cleaned = self.clean(label, {value: (operation,)})
            true = truth.array == value
            found[value] = (dice(label == value, true), dice(cleaned == value, true))
        return found


def choose(cases: OutOfFold, case_ids: Sequence[str]) -> Choice:
    """Choose operations by what they do to the predictions of ``case_ids``."""
    trials: dict[int, list[Trial]] = {value: [] for value in cases.foreground}
    reduced: list[int] = []
    for operation in OPERATIONS:
        changes = cases.changes(case_ids, operation, reduced)
        for value in cases.foreground:
            pairs = [changes[case][value] for case in case_ids]
            trials[value].append(judge(operation, pairs))
        if operation == "largest_component":
            reduced = [value for value in cases.foreground if trials[value][-1].chosen]
    return Choice({value: tuple(several) for value, several in trials.items()})


def judge(operation: Operation, changes: Sequence[tuple[float, float]]) -> Trial:
    """Decide whether an operation is taken.

    Args:
        operation: what was tried.
        changes: Dice without and with it, of each case; NaN where undefined.
    """
    table = np.array([pair for pair in changes if not any(map(math.isnan, pair))]).reshape(-1, 2)
    differences = table[:, 1] - table[:, 0]
    higher, lower = int((differences > 0).sum()), int((differences < 0).sum())
    before, after = mean_of_defined(table[:, 0]), mean_of_defined(table[:, 1])
    gain = mean_of_defined(differences)
    both_sides, _ = sign_flip(differences)
    # The distribution of sign flips is symmetric, so one side has half of both.
    p = both_sides / 2 if gain > 0 else 1.0
    moved = f"Dice rises in {in_cases(higher)} and falls in {lower}"
    chosen = False
    if len(table) < FEWEST_CASES:
        reason = f"{in_cases(len(table))} are too few to choose by, {FEWEST_CASES} are needed"
        p = math.nan
    elif not higher + lower:
        reason = "no case changes"
    elif gain <= 0:
        reason = f"the mean Dice does not rise ({gain:+.4f}; {moved})"
    elif p > LEVEL:
        reason = f"the gain of {gain:+.4f} may be chance (p = {p:.3f}; {moved})"
    else:
        reason = f"the mean Dice rises by {gain:.4f} (p = {p:.4f}; {moved})"
        chosen = True
    return Trial(operation, len(table), before, after, higher, lower, p, chosen, reason)


def postprocess(
    cases: OutOfFold, parts: Sequence[Fold], labels: LabelConfig, tolerance_mm: float
) -> PostprocessResult:
    """Choose on all held-out cases, and score a choice that is made again without each fold.

    Args:
        cases: predictions and truths.
        parts: the folds; only their held-out cases are used.
        labels: values and names of the classes.
        tolerance_mm: of surface Dice.

    Raises:
        DataError: a prediction or a truth is missing, damaged, or on another grid.
    """
    everyone = [case for part in parts for case in part.val]
    choice = choose(cases, everyone)
    folds, scores = [], {}
    for part in parts:
        others = [case for case in everyone if case not in set(part.val)]
        operations = choose(cases, others).operations
        folds.append(operations)
        for case_id in part.val:
            label, truth = cases.load(case_id)
            cleaned = cases.clean(label, operations)
            scores[case_id] = score_case(
                cleaned, truth.array, labels.values, truth.spacing, tolerance_mm
            )
    raw = {
        case: {value: before for value, (before, _) in classes.items()}
        for case, classes in cases.changes(everyone, OPERATIONS[0]).items()
    }
    fell = tuple(
        value
        for value in choice.operations
        if mean_of_defined(scores[case][value].dice - raw[case][value] for case in everyone) < 0
    )
    return PostprocessResult(
        replace(choice, withdrawn=fell), tuple(folds), scores, raw, labels, split_hash(parts)
    )
