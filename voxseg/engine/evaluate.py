"""Score predicted label maps against true ones: find the pairs, score each, keep what went wrong.

A broken case among many is reported and the others finish. Cases with a truth but no prediction are
listed and not scored, and so are predictions without a truth.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from voxseg.data.layouts import find_cases
from voxseg.data.names import is_image_file
from voxseg.data.reading import read_label
from voxseg.data.volume import Volume, check_same_grid
from voxseg.documents import document, json_text
from voxseg.engine.category_files import category_tables
from voxseg.engine.evaluate_files import check_output, csv_text
from voxseg.engine.pairs import Pair, Pairs, find_pairs
from voxseg.engine.pooled import PixelCounts, Pooled, pool, score_label
from voxseg.engine.scheme import Scheme, customary_ignore, scheme_of
from voxseg.engine.task_evaluate import evaluate_pairs, evaluate_task
from voxseg.engine.task_scores import TaskEvaluation
from voxseg.errors import DataError, UsageError, VoxsegError
from voxseg.files import write_text
from voxseg.metrics import ABSENT, EMPTY_POLICY, ClassScores, Summary, case_rows
from voxseg.metrics.case import ABSENT_PIXELS, IMAGE_POLICY
from voxseg.metrics.confusion import occurring_values
from voxseg.metrics.summary import (
    IMAGE_METRICS,
    METRICS,
    PIXEL_METRICS,
    class_name,
    foreground_means,
    summarise,
)
from voxseg.schemas import METRICS as FORM

BACKGROUND = 0
_MOST_CLASSES = 256


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
    is_images: bool = False
    """Whether the cases are photographs, which have pixels instead of mm and ml."""
    pooled: Pooled | None = None
    """Scores over all pixels of all photographs, as benchmarks give them."""
    notes: tuple[str, ...] = ()
    """Which pixels do not count, and what else was decided, a sentence each."""

    @property
    def background(self) -> int | None:
        """The class that no foreground mean has; None of photographs whose class 0 has a name."""
        named = class_name(BACKGROUND, self.class_names)
        return None if self.is_images and named.lower() != "background" else BACKGROUND

    @property
    def means_without(self) -> int | None:
        """What the headline mean leaves out: the background of volumes, of photographs nothing.

        Benchmarks of photographs average over all classes, background included.
        """
        return None if self.is_images else BACKGROUND

    @property
    def headline(self) -> str:
        """The score by which cases are ranked."""
        return "iou" if self.is_images else "dice"

    @property
    def headline_name(self) -> str:
        """What its mean over a case's classes is called."""
        return "mean IoU" if self.is_images else "mean foreground Dice"

    def case_means(self, metric: str | None = None) -> dict[str, float]:
        """Mean over the classes of each case of a score, by default the headline."""
        return foreground_means(self.scores, metric or self.headline, background=self.means_without)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Scores that mean something for these cases."""
        return IMAGE_METRICS if self.is_images else METRICS

    @property
    def policy(self) -> str:
        """How classes that a case lacks are treated."""
        return IMAGE_POLICY if self.is_images else EMPTY_POLICY

    @property
    def summary(self) -> Summary:
        """Mean and standard deviation over cases."""
        return summarise(
            self.scores, self.class_names, background=self.background, is_images=self.is_images
        )

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values; an undefined score is None."""
        # The form has the columns of volumes, which are null for photographs.
        metrics = (*METRICS, *PIXEL_METRICS) if self.is_images else METRICS
        content = {
            "tolerance_mm": self.tolerance_mm,
            "policy": self.policy,
            "summary": self.summary.to_rows(metrics),
            "cases": case_rows(self.scores, self.class_names, metrics),
            "failures": dict(self.failures),
            "without_prediction": list(self.without_prediction),
            "without_truth": list(self.without_truth),
            "photographs": self.is_images,
            "notes": list(self.notes),
        }
        if self.pooled is not None:
            content["pooled"] = self.pooled.to_json()
        return document(FORM, content)


def evaluate(
    prediction: Path,
    truth: Path,
    *,
    labels: Sequence[int] | None = None,
    ignore: Sequence[int] | None = None,
    tolerance_mm: float = 1.0,
    names: Mapping[int, str] | None = None,
    notify: Callable[[str, int, int], None] = lambda *_: None,
) -> Evaluation | TaskEvaluation:
    """Score the predictions of one place against the truth of another.

    What is scored, and how, depends on what the labels of the truth's data set are about.

    Args:
        prediction: A label map, a folder of them, or a run folder with ``predictions/``.
        truth: A label map, a folder of them, or a data set in any layout that training reads.
        labels: Classes to score; by default the data set's, or all that occur in either.
        ignore: Values of the truth whose voxels do not count; by default those of the data set, or
            255 in masks of photographs that hold other classes.
        tolerance_mm: For surface Dice.
        names: Class value -> name; by default those of the truth's data set.
        notify: Called with case, number and total before each case.

    Raises:
        DataError: There is nothing to score, or no case could be scored.
        UsageError: A class is to be scored and ignored.
    """
    # Classes of whole photographs lie in a table, which no case is called like.
    if category_tables(Path(prediction)) and (dataset := find_cases(Path(truth))).task == (
        "classification"
    ):
        _refuse_classes(labels, ignore, truth, "classes of whole photographs")
        return evaluate_task(Path(prediction), dataset, Path(truth), notify)
    found = find_pairs(Path(prediction), Path(truth))
    task = found.dataset.task if found.dataset else "segmentation"
    if task != "segmentation":
        _refuse_classes(labels, ignore, truth, task)
        return evaluate_pairs(task, found, notify)
    both = sorted(set(labels or ()) & set(ignore or ()))
    if both:
        raise UsageError(f"{both[0]} is in --labels and in --ignore; leave one of them out")
    scheme, notes = _scheme(found, ignore, names)
    scored = score_pairs(
        found.pairs, scheme, labels=labels, tolerance_mm=tolerance_mm, notify=notify
    )
    return replace(
        scored,
        without_prediction=found.without_prediction,
        without_truth=found.without_truth,
        notes=(*notes, *scored.notes),
    )


def _refuse_classes(
    labels: Sequence[int] | None, ignore: Sequence[int] | None, truth: Path, held: str
) -> None:
    if labels is not None or ignore is not None:
        raise UsageError(f"--labels and --ignore are about classes, and {truth} holds {held}")


def score_pairs(
    pairs: Sequence[Pair],
    scheme: Scheme | None = None,
    *,
    labels: Sequence[int] | None = None,
    tolerance_mm: float = 1.0,
    notify: Callable[[str, int, int], None] = lambda *_: None,
) -> Evaluation:
    """Score pairs of files; see ``evaluate``.

    Raises:
        DataError: Every pair failed, with the sentence of each.
        UsageError: The tolerance is negative.
    """
    if not tolerance_mm >= 0:
        raise UsageError(f"--tolerance-mm must not be negative, got {tolerance_mm:g}")
    scheme = scheme or Scheme()
    scores: dict[str, dict[int, ClassScores]] = {}
    failures: dict[str, str] = {}
    counts: PixelCounts | None = None
    for number, one in enumerate(pairs, 1):
        notify(one.case_id, number, len(pairs))
        try:
            found, counted = _score_pair(one, scheme, labels, tolerance_mm)
        except VoxsegError as error:
            failures[one.case_id] = str(error)
            continue
        scores[one.case_id] = found
        if counted is not None:
            counts = counted if counts is None else counts + counted
    if pairs and not scores:
        raise DataError("\n".join(failures.values()))
    pooled = None if counts is None else pool(counts, scheme, labels)
    return Evaluation(
        _filled(scores, scheme, labels), failures, dict(scheme.names), tolerance_mm,
        is_images=scheme.is_images, pooled=pooled, notes=_pixel_notes(pooled, scheme),
    )  # fmt: skip


def write_evaluation(evaluation: Evaluation, folder: Path, *, overwrite: bool = False) -> None:
    """Write metrics.csv (each case and class), summary.csv and metrics.json into ``folder``.

    Raises:
        UsageError: ``folder`` is a file, or holds one of the three and ``overwrite`` is not set.
        VoxsegError: It cannot be written.
    """
    check_output(folder, overwrite=overwrite)
    rows = case_rows(evaluation.scores, evaluation.class_names, evaluation.metrics)
    write_text(folder / "metrics.csv", csv_text(rows))
    summary = evaluation.summary.to_rows(evaluation.metrics)
    write_text(folder / "summary.csv", csv_text(summary))
    write_text(folder / "metrics.json", json_text(evaluation.to_json()) + "\n")


def _scheme(
    found: Pairs, ignore: Sequence[int] | None, names: Mapping[int, str] | None
) -> tuple[Scheme, tuple[str, ...]]:
    """Say how the pairs are scored, and what was decided about it."""
    is_images = any(is_image_file(one.truth) for one in found.pairs)
    dataset = found.dataset
    notes = []
    if is_images and ignore is None and (dataset is None or dataset.label_set is None):
        ignore = customary_ignore(one.truth for one in found.pairs)
        if ignore:
            notes = [f"{ignore[0]} beside other values is taken for pixels that do not count; "
                     "--ignore names others, --ignore none counts all"]  # fmt: skip
    scheme = scheme_of(dataset, is_images=is_images, names=names, ignore=ignore)
    if not is_images:  # volumes are scored for the classes that they hold
        scheme = replace(scheme, labels=())
    return scheme, tuple(notes)


def _pixel_notes(pooled: Pooled | None, scheme: Scheme) -> tuple[str, ...]:
    """Say how many pixels do not count, and how many predictions are no class."""
    notes = []
    if pooled is not None and pooled.ignored_pixels:
        share = pooled.ignored_pixels / (pooled.pixels + pooled.ignored_pixels)
        values = ", ".join(map(str, scheme.ignore))
        notes.append(f"pixels of the true value {values} do not count: {100 * share:.2f}% of all")
    if pooled is not None and pooled.unknown_pixels:
        share = pooled.unknown_pixels / pooled.pixels
        notes.append(
            f"{100 * share:.2f}% of the pixels that count are predicted as a value that is no "
            "class; they are wrong for their true class"
        )
    if not scheme.is_images and scheme.ignore:
        values = ", ".join(map(str, scheme.ignore))
        notes.append(f"voxels of the true value {values} do not count")
    return tuple(notes)


def _score_pair(
    pair: Pair, scheme: Scheme, labels: Sequence[int] | None, tolerance_mm: float
) -> tuple[dict[int, ClassScores], PixelCounts | None]:
    """Score the classes that occur in a pair, or ``labels``; of volumes the background, too."""
    prediction, truth = read_label(pair.prediction), read_label(pair.truth)
    if scheme.is_images:
        _check_same_size(prediction, truth)
    else:
        check_same_grid(truth, prediction)
    values = list(scheme.labels)
    if not values:
        occurring = {*occurring_values(prediction.array), *occurring_values(truth.array)}
        values = sorted(occurring - set(scheme.ignore))
    if labels is not None:
        values = [value for value in values if value in labels]
    elif len(values) > _MOST_CLASSES:
        raise DataError(
            f"{pair.prediction} and {pair.truth} hold {len(values)} different values together, so "
            "one may be no label map; name the classes to score with --labels"
        )
    if not scheme.is_images:
        values = [BACKGROUND, *(value for value in values if value != BACKGROUND)]
    return score_label(
        prediction.array,
        truth,
        scheme,
        labels=values,
        instances=pair.instances,
        tolerance_mm=tolerance_mm,
    )


def _check_same_size(prediction: Volume, truth: Volume) -> None:
    if prediction.shape != truth.shape:
        sizes = [f"{one.shape[1]} x {one.shape[0]} pixels" for one in (prediction, truth)]
        raise DataError(
            f"{prediction.path} has {sizes[0]} but {truth.path} has {sizes[1]}; a mask has the "
            "size of its photograph"
        )


def _filled(
    scores: Mapping[str, Mapping[int, ClassScores]], scheme: Scheme, labels: Sequence[int] | None
) -> dict[str, dict[int, ClassScores]]:
    """Give every case all classes; one that occurs in neither of its maps is absent there."""
    wanted = {label for classes in scores.values() for label in classes}
    if labels is not None:
        wanted = set(labels)
    absent = ABSENT_PIXELS if scheme.is_images else ABSENT
    if not scheme.is_images:
        wanted.add(BACKGROUND)
    return {
        case_id: {label: classes.get(label, absent) for label in sorted(wanted)}
        for case_id, classes in scores.items()
    }
