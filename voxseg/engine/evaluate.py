"""Score predicted label maps against true ones: find the pairs, score each, keep what went wrong.

A broken case among many is reported and the others finish. Cases with a truth but no prediction are
listed and not scored, and so are predictions without a truth.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from voxseg.data.layouts import find_cases
from voxseg.data.names import case_name, is_volume_file
from voxseg.data.pairing import is_marked_label, pair, single_sources
from voxseg.data.reading import read_label
from voxseg.data.volume import check_same_grid
from voxseg.documents import document, json_text
from voxseg.errors import DataError, UsageError, VoxsegError
from voxseg.files import write_text
from voxseg.metrics import ABSENT, EMPTY_POLICY, ClassScores, Summary, case_rows, score_case
from voxseg.metrics.summary import summarise
from voxseg.schemas import METRICS

BACKGROUND = 0
_MOST_CLASSES = 256
_PROBABILITY_MAP = re.compile(r"_probability-\d+$")
_OUTPUTS = ("metrics.csv", "metrics.json", "summary.csv")


@dataclass(frozen=True)
class Pair:
    """A prediction and the truth that it is scored against."""

    case_id: str
    prediction: Path
    truth: Path


@dataclass(frozen=True)
class Pairs:
    """What was found in two places."""

    pairs: tuple[Pair, ...]
    without_prediction: tuple[str, ...] = ()
    """Cases that have a truth only."""
    without_truth: tuple[str, ...] = ()
    """Files that have no truth."""
    class_names: Mapping[int, str] = field(default_factory=dict)
    """Names that the truth's data set gives its classes."""


@dataclass(frozen=True)
class Evaluation:
    """The scores of all cases and what could not be scored."""

    scores: Mapping[str, Mapping[int, ClassScores]]
    """Case -> class value -> scores; every case has the same classes, background included."""
    failures: Mapping[str, str]
    """Case -> one sentence."""
    class_names: Mapping[int, str]
    tolerance_mm: float
    without_prediction: tuple[str, ...] = ()
    without_truth: tuple[str, ...] = ()

    @property
    def summary(self) -> Summary:
        """Mean and standard deviation over cases."""
        return summarise(self.scores, self.class_names, background=BACKGROUND)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values; an undefined score is None."""
        content = {
            "tolerance_mm": self.tolerance_mm,
            "policy": EMPTY_POLICY,
            "summary": self.summary.to_rows(),
            "cases": case_rows(self.scores, self.class_names),
            "failures": dict(self.failures),
            "without_prediction": list(self.without_prediction),
            "without_truth": list(self.without_truth),
        }
        return document(METRICS, content)


def evaluate(
    prediction: Path,
    truth: Path,
    *,
    labels: Sequence[int] | None = None,
    tolerance_mm: float = 1.0,
    names: Mapping[int, str] | None = None,
    notify: Callable[[str, int, int], None] = lambda *_: None,
) -> Evaluation:
    """Score the predictions of one place against the truth of another.

    Args:
        prediction: A label map, a folder of them, or a run folder with ``predictions/``.
        truth: A label map, a folder of them, or a data set in any layout that training reads.
        labels: Foreground classes to score; by default all that occur in either.
        tolerance_mm: For surface Dice.
        names: Class value -> name; by default those of the truth's data set.
        notify: Called with case, number and total before each case.

    Raises:
        DataError: There is nothing to score, or no case could be scored.
    """
    found = find_pairs(Path(prediction), Path(truth))
    scored = score_pairs(
        found.pairs, labels=labels, tolerance_mm=tolerance_mm, names=names or found.class_names,
        notify=notify,
    )  # fmt: skip
    return Evaluation(
        scored.scores, scored.failures, scored.class_names, tolerance_mm,
        found.without_prediction, found.without_truth,
    )  # fmt: skip


def score_pairs(
    pairs: Sequence[Pair],
    *,
    labels: Sequence[int] | None = None,
    tolerance_mm: float = 1.0,
    names: Mapping[int, str] | None = None,
    notify: Callable[[str, int, int], None] = lambda *_: None,
) -> Evaluation:
    """Score pairs of files; see ``evaluate``.

    Raises:
        DataError: Every pair failed, with the sentence of each.
        UsageError: The tolerance is negative.
    """
    if not tolerance_mm >= 0:
        raise UsageError(f"--tolerance-mm must not be negative, got {tolerance_mm:g}")
    scores: dict[str, dict[int, ClassScores]] = {}
    failures: dict[str, str] = {}
    for number, one in enumerate(pairs, 1):
        notify(one.case_id, number, len(pairs))
        try:
            scores[one.case_id] = _score_pair(one, labels, tolerance_mm)
        except VoxsegError as error:
            failures[one.case_id] = str(error)
    if pairs and not scores:
        raise DataError("\n".join(failures.values()))
    return Evaluation(_filled(scores, labels), failures, dict(names or {}), tolerance_mm)


def find_pairs(prediction: Path, truth: Path) -> Pairs:
    """Find which prediction belongs to which truth, by the names of the cases.

    Raises:
        DataError: A place does not exist or nothing in one fits the other.
        UsageError: A folder is to be scored against one file.
    """
    for place in (prediction, truth):
        if not place.exists():
            raise DataError(f"there is no file or folder {place}; check the name")
    if is_volume_file(truth) and truth.is_file():
        if not prediction.is_file():
            raise UsageError(
                f"{prediction} is a folder, but {truth} is one file; give two files or two folders"
            )
        return Pairs((Pair(case_name(prediction), prediction, truth),))
    root, files = _predictions(prediction)
    truths, names = _dataset_truths(truth)
    if truths:
        found = _by_name(files, truths)
        missing = sorted(set(truths) - {one.case_id for one in found})
    else:
        found, missing = _by_file(root, files, truth)
    if not found:
        raise DataError(
            f"no prediction in {prediction} has the name of a case in {truth} (the first "
            f"prediction is {files[0].name}); masks are named after their case, CASE.nii.gz"
        )
    used = {one.prediction for one in found}
    strangers = tuple(str(path) for path in files if path not in used)
    return Pairs(tuple(found), tuple(missing), strangers, names)


def write_evaluation(evaluation: Evaluation, folder: Path, *, overwrite: bool = False) -> None:
    """Write metrics.csv (each case and class), summary.csv and metrics.json into ``folder``.

    Raises:
        UsageError: ``folder`` is a file, or holds one of the three and ``overwrite`` is not set.
        VoxsegError: It cannot be written.
    """
    check_output(folder, overwrite=overwrite)
    write_text(
        folder / "metrics.csv", csv_text(case_rows(evaluation.scores, evaluation.class_names))
    )
    write_text(folder / "summary.csv", csv_text(evaluation.summary.to_rows()))
    write_text(folder / "metrics.json", json_text(evaluation.to_json()) + "\n")


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Refuse an output folder whose scores would be lost, before any work is done."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; -o names a folder for the scores")
    existing = [name for name in _OUTPUTS if (folder / name).exists()]
    if existing and not overwrite:
        raise UsageError(f"{folder / existing[0]} exists; use --overwrite, or choose another -o")


def _score_pair(
    pair: Pair, labels: Sequence[int] | None, tolerance_mm: float
) -> dict[int, ClassScores]:
    """Score the classes that occur in a pair, or ``labels``, and the background."""
    prediction, truth = read_label(pair.prediction), read_label(pair.truth)
    check_same_grid(truth, prediction)
    values = sorted({*_values(prediction.array), *_values(truth.array)})
    if labels is not None:
        values = [value for value in values if value in labels]
    elif len(values) > _MOST_CLASSES:
        raise DataError(
            f"{pair.prediction} and {pair.truth} hold {len(values)} different values together, so "
            "one may be no label map; name the classes to score with --labels"
        )
    foreground = [value for value in values if value != BACKGROUND]
    return score_case(
        prediction.array,
        truth.array,
        [BACKGROUND, *foreground],
        truth.spacing,
        tolerance_mm,
        background=BACKGROUND,
    )


def _filled(
    scores: Mapping[str, Mapping[int, ClassScores]], labels: Sequence[int] | None
) -> dict[str, dict[int, ClassScores]]:
    """Give every case all classes; one that occurs in neither of its maps is absent there."""
    found = {label for classes in scores.values() for label in classes}
    wanted = sorted((found if labels is None else set(labels)) | {BACKGROUND})
    return {
        case_id: {label: classes.get(label, ABSENT) for label in wanted}
        for case_id, classes in scores.items()
    }


def _values(label: np.ndarray) -> list[int]:
    """Distinct values of an integer array, sorted."""
    low, high = int(label.min()), int(label.max())
    if high - low < 2**16:
        counts = np.bincount((label - low).ravel(), minlength=1)
        return [int(value) + low for value in np.flatnonzero(counts)]
    return [int(value) for value in np.unique(label)]


def _predictions(place: Path) -> tuple[Path, list[Path]]:
    """Return the folder and the label maps in it; a run keeps them in ``predictions/``."""
    if place.is_file():
        return place.parent, [place]
    root = place / "predictions" if (place / "predictions").is_dir() else place
    files = [path for path in _volumes(root) if not _PROBABILITY_MAP.search(case_name(path))]
    if not files:
        raise DataError(f"{root} holds no .nii or .nii.gz prediction; run voxseg predict first")
    return root, files


def _dataset_truths(place: Path) -> tuple[dict[str, Path], dict[int, str]]:
    """Labels by case and class names of a data set; nothing for a folder of labels alone."""
    try:
        dataset = find_cases(place, need_labels=True)
    except DataError:
        if place.is_dir() and _volumes(place):
            return {}, {}
        raise
    labels = {case.case_id: case.label for case in dataset.cases if case.label is not None}
    return labels, dataset.class_names


def _by_name(files: Iterable[Path], truths: Mapping[str, Path]) -> list[Pair]:
    """Pair predictions with cases by case id, or by the name of the label file."""
    by_label = {case_name(path): case_id for case_id, path in truths.items()}
    found: dict[str, Pair] = {}
    for path in files:
        name = case_name(path)
        case_id = name if name in truths else by_label.get(name)
        if case_id is None:
            continue
        if case_id in found:
            raise DataError(
                f"two predictions for one case: {found[case_id].prediction} and {path}; keep one"
            )
        found[case_id] = Pair(case_id, path, truths[case_id])
    return [found[case_id] for case_id in sorted(found)]


def _by_file(root: Path, files: Sequence[Path], truth: Path) -> tuple[list[Pair], list[str]]:
    """Pair predictions with a folder of label maps by file name; name the labels left over."""
    labels = _volumes(truth)
    # Where some files are called labels, the others are images.
    labels = [path for path in labels if is_marked_label(path)] or labels
    sources = single_sources(files, root)
    found, orphans = pair(sources, labels, truth, is_apart=True)
    pairs = [
        Pair(sources[index].name, sources[index].images[0], label)
        for index, label in sorted(found.items())
    ]
    return pairs, sorted(case_name(path) for path in orphans)


def _volumes(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if is_volume_file(path) and path.is_file())


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """Write rows with the columns of the first; None becomes an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
