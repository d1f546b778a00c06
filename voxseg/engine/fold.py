"""One fold of a cross-validation: train it, then predict and score the cases that it held out.

The fold's folder ``fold-K/`` is a run folder. It is finished when its scores are written; until
then it resumes from its last checkpoint. It never sees its held-out cases: the weights of the last
step are kept, not the best on those cases.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from voxseg.data.layouts import Case, Dataset, find_cases
from voxseg.data.reading import read_channels, read_label
from voxseg.data.splits import Fold, read_split
from voxseg.documents import refuse_newer, write_document
from voxseg.engine.calibration import (
    CALIBRATION,
    StoredCalibration,
    calibrate_case,
    write_calibration,
)
from voxseg.engine.case_memory import Output
from voxseg.engine.category_files import write_categories
from voxseg.engine.config import build, read_toml
from voxseg.engine.pooled import CONFUSION, PixelCounts, score_label, write_counts
from voxseg.engine.predict import Predictor
from voxseg.engine.progress import Progress
from voxseg.engine.run_folder import SCORES, open_run
from voxseg.engine.scheme import scheme_of
from voxseg.engine.task_predict import answer_case
from voxseg.engine.train import TrainRequest, pick, train_fold
from voxseg.errors import DataError
from voxseg.export.masks import mask_name, write_mask
from voxseg.metrics.case import ClassScores
from voxseg.metrics.summary import mean_of_defined
from voxseg.schemas import SCORES as FORM

TOLERANCE_MM = 1.0
"""Of the surface Dice of every cross-validation."""


@dataclass(frozen=True, kw_only=True)
class FoldTask:
    """What a fold needs to know; the rest is read from the cross-validation's folder."""

    data: Path
    labels: Path | None
    run: Path
    """The cross-validation's folder, with ``config.toml`` and ``split.json``."""
    number: int
    """Which fold of the split, from 0."""
    name: str
    """What it is called in sentences."""
    init_from: Path | None
    device: str

    @property
    def folder(self) -> Path:
        """The fold's run folder."""
        return self.run / f"fold-{self.number}"

    @property
    def is_finished(self) -> bool:
        """Whether the held-out cases are scored."""
        return (self.folder / SCORES).is_file()

    def to_json(self) -> str:
        """Write the task as one line."""
        plain = {k: str(v) if isinstance(v, Path) else v for k, v in vars(self).items()}
        return json.dumps(plain)

    @classmethod
    def from_json(cls, line: str) -> "FoldTask":
        """Read what ``to_json`` wrote."""
        plain: dict[str, Any] = json.loads(line)
        for name in ("data", "labels", "run", "init_from"):
            plain[name] = None if plain[name] is None else Path(plain[name])
        return cls(**plain)


def run_fold(
    task: FoldTask, notify: Callable[[Progress], None], say: Callable[[str], None]
) -> None:
    """Train, predict and score one fold, going on where an earlier attempt stopped.

    Raises:
        VoxsegError: what makes it impossible; finished parts stay.
    """
    dataset = find_cases(task.data, task.labels)
    config = build(read_toml(task.run / "config.toml"))
    part = read_split(task.run / "split.json")[task.number]
    request = TrainRequest(
        data=task.data,
        run=task.folder,
        labels=task.labels,
        settings={},
        init_from=task.init_from,
        device=task.device,
        resume=True,
    )
    quiet: Dataset = replace(dataset, notes=())  # said once, when the cross-validation began
    with open_run(task.folder, resume=True, overwrite=False):
        train_fold(quiet, Fold(part.train, ()), config, request, notify, say)
        held_out = pick({case.case_id: case for case in dataset.cases}, part.val)
        _predict_fold(task, dataset, held_out, say)


def read_scores(folder: Path) -> dict[str, dict[int, ClassScores]]:
    """Read the scores of a finished fold: case -> class value -> scores."""
    path = folder / SCORES
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        refuse_newer(stored, FORM, path)
        # Earlier versions wrote the cases alone.
        cases = stored["cases"] if isinstance(stored.get("schema"), str) else stored
        return {
            case: {int(value): ClassScores(**_numbers(one)) for value, one in classes.items()}
            for case, classes in cases.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error}); delete it to score the fold again") from None


def _numbers(scores: Mapping[str, float | None]) -> dict[str, float]:
    """Turn null back into NaN."""
    return {name: math.nan if value is None else float(value) for name, value in scores.items()}


def _predict_fold(
    task: FoldTask, dataset: Dataset, cases: Sequence[Case], say: Callable[[str], None]
) -> None:
    predictor = Predictor(task.folder / "checkpoints" / "best.pt", task.device)
    if not predictor.finds_classes:
        _answer_fold(task, predictor, cases, say)
        return
    labels = predictor.config.labels
    names = dict(zip(labels.values, labels.names, strict=True))
    scheme = scheme_of(dataset, values=labels.values, names=names, ignore=labels.ignore)
    pixels: PixelCounts | None = None
    scores: dict[str, Mapping[int, Any]] = {}
    counted: StoredCalibration | None = None
    for case in cases:
        assert case.label is not None
        source, truth = read_channels(case.images), read_label(case.label)
        prepared = predictor.prepare(case)
        probabilities = predictor.probabilities(prepared)
        calibration = calibrate_case(prepared, truth, probabilities, labels)
        counted = calibration if counted is None else counted + calibration
        label = predictor.label(prepared, probabilities)
        name = mask_name(case.case_id, is_image=case.is_image)
        write_mask(task.run / "predictions" / name, label, source, labels.palette)
        found, counts = score_label(
            label, truth, scheme, labels=labels.values, instances=case.instances,
            tolerance_mm=TOLERANCE_MM,
        )  # fmt: skip
        if counts is not None:
            pixels = counts if pixels is None else pixels + counts
        scores[case.case_id] = {value: asdict(one) for value, one in found.items()}
        say(f"{case.case_id}: {_headline(found, labels.values, is_image=case.is_image)}")
    if pixels is not None:
        write_counts(task.folder / CONFUSION, pixels, scheme)
    if counted is not None:
        write_calibration(task.folder / CALIBRATION, counted)
    # Last: where the scores are, the fold is finished.
    write_document(task.folder / SCORES, FORM, {"tolerance_mm": TOLERANCE_MM, "cases": scores})


def _answer_fold(
    task: FoldTask, predictor: Predictor, cases: Sequence[Case], say: Callable[[str], None]
) -> None:
    """Predict the held-out cases of another task; all folds are scored together at the end."""
    folder = task.run / "predictions"
    if predictor.config.task.kind == "classification":
        rows = [predictor.category(predictor.prepare(case)) for case in cases]
        write_categories(folder / f"predictions-fold-{task.number}.csv", rows)
        say(f"{len(rows)} photographs: predicted")
        cases = ()
    output = Output(folder=folder, save_probabilities=True)
    for case in cases:
        target = folder / mask_name(case.case_id, is_image=True)
        answer_case(predictor, case, target, output, predictor.estimate(case, output))
        say(f"{case.case_id}: predicted")
    # Last: where this file is, the fold is finished.
    write_document(task.folder / SCORES, FORM, {"tolerance_mm": TOLERANCE_MM, "cases": {}})


def _headline(found: Mapping[int, ClassScores], values: Sequence[int], *, is_image: bool) -> str:
    """Sum a case up: all classes of a photograph, the foreground of a volume."""
    if is_image:
        return f"mean IoU {mean_of_defined(found[v].iou for v in values):.3f}"
    return f"mean foreground Dice {mean_of_defined(found[v].dice for v in values[1:]):.3f}"
