"""Train one network on one split of a folder of volumes, into a run folder that explains itself."""

import csv
import io
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from voxseg.data.check import CheckReport, check_dataset, check_headers
from voxseg.data.check_pictures import HABIT_KINDS
from voxseg.data.layouts import Case, Dataset, find_cases
from voxseg.data.splits import Fold, check_split, holdout, read_split, split_hash, write_split
from voxseg.documents import write_document
from voxseg.engine.cases import forget_prepared, prepare_cases
from voxseg.engine.checkpoint_files import checkpoint_path
from voxseg.engine.config import Config, build, dump, merge, read_toml
from voxseg.engine.device import choose_compute, choose_device, deterministic
from voxseg.engine.loop import TrainingRun
from voxseg.engine.manifest import data_hashes, describe_device, write_manifest
from voxseg.engine.network import network_axes
from voxseg.engine.planning import complete
from voxseg.engine.progress import Progress, TrainResult
from voxseg.engine.ranks import ALONE, Ranks, joined
from voxseg.engine.run_folder import open_run
from voxseg.engine.stop import stop_on_signals
from voxseg.engine.workers import worker_count
from voxseg.errors import UsageError
from voxseg.files import write_text
from voxseg.schemas import TRAIN_METRICS

_MAY_CHANGE_ON_RESUME = {
    ("train", "epochs"),
    ("train", "max_minutes"),
    ("train", "patience"),
    ("train", "workers"),
}
_VAL_FRACTION = 0.2
_PHOTOGRAPHS_READ = 200  # before a training starts; all masks are read, for their classes
_STOP_SECONDS = 20.0
"""What a process of several has to come to its next step when it is asked to stop; torchrun itself
kills after 30 seconds."""


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What to train on what."""

    data: Path
    """Folder or list file of a data set."""
    run: Path
    """The run folder."""
    labels: Path | None = None
    """A second folder, where labels lie apart."""
    settings: dict[str, Any]
    """Nested tables over the defaults; see ``voxseg.engine.config``."""
    planned: bool = False
    """No recipe was named: choose what the data suggests where ``settings`` is silent."""
    val_fraction: float | None = None
    """Share of the cases held out; 0 trains on all. None: the data set's own training and
    validation parts where it has them, else a fifth."""
    split: Path | None = None
    """A split file instead."""
    fold: int = 0
    """Which fold of the split file."""
    init_from: Path | None = None
    device: str = "auto"
    resume: bool = False
    overwrite: bool = False


def _silent(_: object) -> None:
    """Tell nobody."""


def train(
    request: TrainRequest,
    notify: Callable[[Progress], None] = _silent,
    say: Callable[[str], None] = _silent,
) -> TrainResult:
    """Train as ``request`` says, with the processes that ``torchrun`` started if it did.

    Args:
        request: data, run folder, settings.
        notify: called after each step.
        say: called with one sentence for what is worth a line.

    Raises:
        VoxsegError: bad data, settings or output; nothing of an earlier run is lost.
    """
    with joined() as ranks, ExitStack() as opened:
        if not ranks.is_first:
            notify = say = _silent
        dataset, config, fold = ranks.first(lambda: _open(request, opened, ranks, say))
        return train_fold(dataset, fold, config, request, notify, say, ranks)


def _open(
    request: TrainRequest, opened: ExitStack, ranks: Ranks, say: Callable[[str], None]
) -> tuple[Dataset, Config, Fold]:
    """Check the data, open the run folder until ``opened`` is closed, settle what will be done."""
    if request.init_from is not None and not request.resume:
        checkpoint_path(request.init_from)  # before minutes go into supervoxels
    dataset, report = examine(request.data, request.labels)
    report.raise_for_errors()
    opened.enter_context(open_run(request.run, resume=request.resume, overwrite=request.overwrite))
    stored = request.run / "config.toml"
    if request.resume and stored.is_file():
        config = resumed_config(stored, request.settings)
        fold = read_split(request.run / "split.json")[0]
    else:
        config = complete(request.settings, dataset, report, planned=request.planned, say=say)
        fold = _fold(request, dataset, config.train.seed)
    if config.train.batch_size < ranks.size:
        raise UsageError(
            f"train.batch_size is {config.train.batch_size} for all processes together, but there "
            f"are {ranks.size}; raise it, or start fewer"
        )
    return dataset, config, fold


def examine(data: Path, labels: Path | None) -> tuple[Dataset, CheckReport]:
    """Find the cases of a data set and check each of them, its own test part aside.

    Raises:
        DataError: Headers alone show that training cannot work; no voxel was read until then.
    """
    dataset = _without_test(find_cases(data, labels))
    check_headers(dataset).raise_for_errors()
    report = check_dataset(dataset, most_photographs=_PHOTOGRAPHS_READ)
    told = [str(one) for one in report.notes if one.kind in HABIT_KINDS]
    return replace(dataset, notes=(*dataset.notes, *told)), report


def _without_test(dataset: Dataset) -> Dataset:
    """Leave aside the part that the data set itself calls its test."""
    test = set(dataset.parts.get("test", ()))
    kept = tuple(case for case in dataset.cases if case.case_id not in test)
    left = len(dataset.cases) - len(kept)
    if not left or not kept:
        return dataset
    note = f"{left} of the data set's own test cases are left aside"
    return replace(dataset, cases=kept, notes=(*dataset.notes, note))


def dry_run_report(request: TrainRequest, say: Callable[[str], None]) -> str:
    """Check the data and resolve the settings without training; the settings as TOML."""
    dataset, report = examine(request.data, request.labels)
    report.raise_for_errors()
    config = complete(request.settings, dataset, report, planned=request.planned, say=say)
    fold = _fold(request, dataset, config.train.seed)
    say(f"{dataset.layout}: {len(fold.train)} cases to train on, {len(fold.val)} to validate on")
    return dump(config)


def train_fold(
    dataset: Dataset,
    fold: Fold,
    config: Config,
    request: TrainRequest,
    notify: Callable[[Progress], None],
    say: Callable[[str], None],
    ranks: Ranks = ALONE,
) -> TrainResult:
    """Train on ``fold`` in ``request.run``, resuming what lies there if asked.

    Args:
        dataset: all cases.
        fold: which of them to train and to validate on.
        config: resolved.
        request: the run folder, device, first weights; not the settings.
        notify: called after each step.
        say: called with one sentence for what is worth a line.
        ranks: the processes that train together; each calls this with the same arguments.
    """
    run = request.run
    by_id = {case.case_id: case for case in dataset.cases}
    training, validation = pick(by_id, fold.train), pick(by_id, fold.val)
    device = ranks.together(lambda: choose_device(ranks.own_device(request.device)))
    if device.type == "cuda" and ranks.size > 1:
        torch.cuda.set_device(device)
    ranks.first(lambda: _write_settings(run, fold, config))
    for note in dataset.notes:
        say(f"note: {note}")
    where = f"{device}, {ranks.size} processes" if ranks.size > 1 else str(device)
    say(f"{len(training)} cases to train on, {len(validation)} to validate on; {where}")
    cases = [*training, *validation]
    workers = worker_count(config.train.workers, device)
    prepared = prepare_cases(cases, config, run / "prepared", say, workers=workers, ranks=ranks)
    dims = network_axes(config.data, prepared[0].image.ndim - 1)
    settings = config.train
    compute = choose_compute(device, settings.precision, settings.memory_format, dims, ranks)
    facts = {
        "kind": "train",
        "device": describe_device(device),
        "processes": ranks.size,
        "precision": str(compute.precision).removeprefix("torch."),
        "data_folder": str(request.data.resolve()),
        "label_folder": str(request.labels.resolve()) if request.labels else None,
        "split_hash": split_hash((fold,)),
        "data": ranks.first(lambda: data_hashes(cases)),
        "init_from": str(request.init_from.resolve()) if request.init_from else None,
    }
    ranks.first(lambda: write_manifest(run / "manifest.json", {**facts, "finished": False}))
    goes_on = request.resume and ranks.first(lambda: training_run_exists(run))
    training_run = TrainingRun(
        config,
        prepared[: len(training)],
        prepared[len(training) :],
        run,
        compute,
        init_from=None if goes_on else request.init_from,
        notify=notify,
        say=say,
    )
    if goes_on and training_run.resume():
        say("resumed from checkpoints/last.pt")
    limit = _STOP_SECONDS if ranks.size > 1 else None
    with stop_on_signals(limit) as stop, deterministic(settings.deterministic, say):
        result = training_run.fit(stop)
    if not ranks.is_first:
        return result
    _write_metrics(run, config, result, training_run.history)
    write_manifest(
        run / "manifest.json",
        {**facts, "finished": True, "seconds": round(result.seconds, 1), "steps": result.steps},
    )
    forget_prepared(run / "prepared")
    return result


def _write_settings(run: Path, fold: Fold, config: Config) -> None:
    write_split(run / "split.json", (fold,))
    write_text(run / "config.toml", dump(config))


def resumed_config(stored: Path, settings: dict[str, Any]) -> Config:
    """Take the configuration of the run, with the few settings that may change on the way."""
    tables = read_toml(stored)
    for section, table in settings.items():
        for key, value in table.items() if isinstance(table, dict) else ():
            if tables.get(section, {}).get(key) == value or _same(
                tables.get(section, {}).get(key), value
            ):
                continue
            if (section, key) not in _MAY_CHANGE_ON_RESUME:
                raise UsageError(
                    f"{section}.{key} cannot change on --resume (the run has "
                    f"{tables.get(section, {}).get(key)!r}, asked for {value!r}); start a new run"
                )
            tables = merge(tables, {section: {key: value}})
    return build(tables)


def training_run_exists(run: Path) -> bool:
    """Whether there is a checkpoint to resume from."""
    return (run / "checkpoints" / "last.pt").is_file()


def pick(by_id: dict[str, Case], names: tuple[str, ...]) -> list[Case]:
    """Find the cases of a split in the data set."""
    missing = [name for name in names if name not in by_id]
    if missing:
        raise UsageError(
            f"the split names cases that the data set lacks: {', '.join(missing[:5])}; it has "
            f"{', '.join(sorted(by_id)[:5])}, ..."
        )
    return [by_id[name] for name in names]


def _same(stored: object, given: object) -> bool:
    as_list = list(given) if isinstance(given, tuple) else given
    return stored == as_list


def _fold(request: TrainRequest, dataset: Dataset, seed: int) -> Fold:
    if request.split is not None:
        folds = read_split(request.split)
        check_split(folds, [case.case_id for case in dataset.cases], request.split)
        if not 0 <= request.fold < len(folds):
            raise UsageError(
                f"{request.split} has {len(folds)} folds, so --fold must be 0 to {len(folds) - 1}, "
                f"got {request.fold}"
            )
        return folds[request.fold]
    names = tuple(case.case_id for case in dataset.cases)
    parts = dataset.parts
    if request.val_fraction is None and parts.get("train") and parts.get("val"):
        return Fold(parts["train"], parts["val"])
    share = _VAL_FRACTION if request.val_fraction is None else request.val_fraction
    if not share:
        return Fold(names, ())
    return holdout(names, share, seed)


def _write_metrics(
    run: Path, config: Config, result: TrainResult, history: list[dict[str, Any]]
) -> None:
    names = config.labels.names
    by_class = {
        name: None if math.isnan(d) else round(d, 5)
        for name, d in zip(names, result.class_dice, strict=False)
    }
    best, iou, score = (
        None if math.isnan(score) else round(score, 5)
        for score in (result.best_dice, result.best_iou, result.score)
    )
    summary = {
        "validation_score": score,
        "validation_dice": best,
        "validation_iou": iou,
        "selected_by": result.score_name.lower(),
        "validation_dice_per_class": by_class,
        "steps": result.steps,
    }
    write_document(run / "metrics.json", TRAIN_METRICS, summary)
    columns = ["epoch", "step", "loss", "learning_rate", "score", "dice", "iou", "seconds"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(history)
    write_text(run / "metrics.csv", text.getvalue())
