"""k-fold cross-validation: every case is predicted by the network that did not see it.

The folder holds ``split.json`` (written before anything is trained), ``fold-K/`` run folders,
``predictions/`` with each case's mask, and ``metrics.json/.csv``. A fold is finished when its
scores are written; a finished fold is never repeated, an unfinished one resumes from its last
checkpoint. No fold sees its held-out cases: the weights of the last step are kept, not the best on
those cases.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from voxseg.data.check import CheckReport
from voxseg.data.layouts import Case, Dataset
from voxseg.data.splits import Fold, check_split, read_split, split_hash, write_split
from voxseg.data.volume import read_channels, read_label
from voxseg.engine.config import dump
from voxseg.engine.dealing import Dealing, deal
from voxseg.engine.device import choose_device
from voxseg.engine.evaluate import Evaluation, write_evaluation
from voxseg.engine.loop import Progress
from voxseg.engine.manifest import data_hashes, describe_device, write_manifest
from voxseg.engine.planning import complete
from voxseg.engine.predict import Predictor
from voxseg.engine.run_folder import SCORES, open_run
from voxseg.engine.train import TrainRequest, examine, pick, resumed_config, train_fold
from voxseg.errors import DataError, UsageError
from voxseg.export.nifti import write_mask
from voxseg.files import write_text
from voxseg.metrics.case import ClassScores, score_case

_TOLERANCE_MM = 1.0


def crossval(
    request: TrainRequest,
    dealing: Dealing,
    notify: Callable[[Progress], None],
    say: Callable[[str], None],
) -> Evaluation:
    """Cross-validate as ``request`` says; ``request.run`` is the cross-validation's folder.

    Args:
        request: as for ``train``; ``val_fraction`` and ``fold`` are not used, ``split`` replaces
            ``dealing.split``, ``init_from`` may be another cross-validation with the same split.
        dealing: which folds; not used when a run is resumed, which has its own.
        notify: called after each training step.
        say: called with one sentence for what is worth a line.

    Returns:
        Scores of every case by the fold that did not see it, background included.
    """
    if request.split is not None:
        dealing = replace(dealing, split=request.split)
    dataset, report = examine(request.data, request.labels)
    report.raise_for_errors()
    with open_run(request.run, resume=request.resume, overwrite=request.overwrite):
        return _crossval(request, dealing, dataset, report, notify, say)


def _crossval(
    request: TrainRequest,
    dealing: Dealing,
    dataset: Dataset,
    report: CheckReport,
    notify: Callable[[Progress], None],
    say: Callable[[str], None],
) -> Evaluation:
    run = request.run
    resumed = request.resume and (run / "config.toml").is_file()
    if resumed:
        config = resumed_config(run / "config.toml", request.settings)
        parts = read_split(run / "split.json")
    else:
        config = complete(request.settings, dataset, report, planned=request.planned, say=say)
        ids = tuple(case.case_id for case in dataset.cases)
        parts = deal(dealing, ids, report, config.train.seed)
        write_split(run / "split.json", parts)
        write_text(run / "config.toml", dump(config))
    by_id = {case.case_id: case for case in dataset.cases}
    check_split(parts, tuple(by_id), dealing.split or run / "split.json")
    facts = {
        "kind": "crossval",
        "folds": len(parts),
        "device": describe_device(choose_device(request.device)),
        "data_folder": str(request.data.resolve()),
        "label_folder": str(request.labels.resolve()) if request.labels else None,
        "init_from": str(request.init_from.resolve()) if request.init_from else None,
        "split_hash": split_hash(parts),
        "data": data_hashes(dataset.cases),
    }
    write_manifest(run / "manifest.json", {**facts, "finished": False})
    scores: dict[str, dict[int, ClassScores]] = {}
    for number, part in enumerate(parts):
        folder = run / f"fold-{number}"
        say(f"fold {number + 1} of {len(parts)}")
        if not (folder / SCORES).is_file():
            start = _start(request.init_from, number, parts)
            one = replace(request, run=folder, init_from=start, resume=True)
            train_fold(dataset, Fold(part.train, ()), config, one, notify, say)
            held_out = pick(by_id, part.val)
            _predict_fold(folder, held_out, run / "predictions", request.device, say)
        scores.update(_read_scores(folder))
    names = dict(zip(config.labels.values, config.labels.names, strict=True))
    evaluation = Evaluation(scores, {}, names, _TOLERANCE_MM)
    write_evaluation(evaluation, run, overwrite=True)
    write_manifest(run / "manifest.json", {**facts, "finished": True})
    return evaluation


def _start(init_from: Path | None, number: int, parts: tuple[Fold, ...]) -> Path | None:
    """Find what a fold starts from; another cross-validation must have the same split."""
    if init_from is None or not (init_from / "split.json").is_file():
        return init_from
    other = read_split(init_from / "split.json")
    if not (init_from / "fold-0").is_dir():
        raise UsageError(
            f"{init_from} is a single training run: its training cases may be held out here; "
            "give a cross-validation with the same --split"
        )
    if split_hash(other) != split_hash(parts):
        raise UsageError(
            f"{init_from} was split differently: its networks saw cases that are held out here; "
            f"use --split {init_from / 'split.json'}"
        )
    return init_from / f"fold-{number}"


def _predict_fold(
    folder: Path, cases: list[Case], output: Path, device: str, say: Callable[[str], None]
) -> None:
    predictor = Predictor(folder / "checkpoints" / "best.pt", device)
    scores = {}
    for case in cases:
        assert case.label is not None
        source, truth = read_channels(case.images), read_label(case.label)
        prepared = predictor.prepare(case)
        label = predictor.label(prepared, predictor.probabilities(prepared))
        write_mask(output / f"{case.case_id}.nii.gz", label, source)
        values = predictor.config.labels.values
        found = score_case(
            label.astype(np.int32), truth.array, values, truth.spacing, _TOLERANCE_MM
        )
        scores[case.case_id] = {value: asdict(one) for value, one in found.items()}
        mean = np.nanmean([found[v].dice for v in values[1:]])
        say(f"{case.case_id}: mean foreground Dice {mean:.3f}")
    write_text(folder / SCORES, json.dumps(scores, indent=2) + "\n")


def _read_scores(folder: Path) -> dict[str, dict[int, ClassScores]]:
    path = folder / SCORES
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {
            case: {int(value): ClassScores(**one) for value, one in classes.items()}
            for case, classes in stored.items()
        }
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); delete it to score the fold again") from None
