"""Train one network on one split of a folder of volumes, into a run folder that explains itself."""

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxseg.data.check import CheckReport, check_dataset, check_headers
from voxseg.data.layouts import Case, Dataset, find_cases
from voxseg.data.splits import Fold, check_split, holdout, read_split, split_hash, write_split
from voxseg.documents import write_document
from voxseg.engine.cases import forget_prepared, prepare_cases
from voxseg.engine.config import Config, build, dump, merge, read_toml
from voxseg.engine.device import choose_compute, choose_device, deterministic
from voxseg.engine.loop import Progress, TrainingRun, TrainResult
from voxseg.engine.manifest import data_hashes, describe_device, write_manifest
from voxseg.engine.planning import complete
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
    val_fraction: float = 0.2
    """Share of the cases held out; 0 trains on all."""
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
    """Train as ``request`` says.

    Args:
        request: data, run folder, settings.
        notify: called after each step.
        say: called with one sentence for what is worth a line.

    Raises:
        VoxsegError: bad data, settings or output; nothing of an earlier run is lost.
    """
    dataset, report = examine(request.data, request.labels)
    report.raise_for_errors()
    with open_run(request.run, resume=request.resume, overwrite=request.overwrite):
        stored = request.run / "config.toml"
        resumed = request.resume and stored.is_file()
        if resumed:
            config = resumed_config(stored, request.settings)
            fold = read_split(request.run / "split.json")[0]
        else:
            config = complete(request.settings, dataset, report, planned=request.planned, say=say)
            fold = _fold(request, dataset, config.train.seed)
        return train_fold(dataset, fold, config, request, notify, say)


def examine(data: Path, labels: Path | None) -> tuple[Dataset, CheckReport]:
    """Find the cases of a data set and check each of them.

    Raises:
        DataError: Headers alone show that training cannot work; no voxel was read until then.
    """
    dataset = find_cases(data, labels)
    check_headers(dataset).raise_for_errors()
    return dataset, check_dataset(dataset)


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
) -> TrainResult:
    """Train on ``fold`` in ``request.run``, resuming what lies there if asked."""
    run = request.run
    by_id = {case.case_id: case for case in dataset.cases}
    training, validation = pick(by_id, fold.train), pick(by_id, fold.val)
    device = choose_device(request.device)
    write_split(run / "split.json", (fold,))
    write_text(run / "config.toml", dump(config))
    for note in dataset.notes:
        say(f"note: {note}")
    say(f"{len(training)} cases to train on, {len(validation)} to validate on; {device}")
    workers = worker_count(config.train.workers, device)
    prepared = prepare_cases([*training, *validation], config, run / "prepared", say, workers)
    dims = prepared[0].image.ndim - 1
    compute = choose_compute(device, config.train.precision, config.train.memory_format, dims)
    facts = {
        "kind": "train",
        "device": describe_device(device),
        "precision": str(compute.precision).removeprefix("torch."),
        "data_folder": str(request.data.resolve()),
        "label_folder": str(request.labels.resolve()) if request.labels else None,
        "split_hash": split_hash((fold,)),
        "data": data_hashes([*training, *validation]),
        "init_from": str(request.init_from.resolve()) if request.init_from else None,
    }
    write_manifest(run / "manifest.json", {**facts, "finished": False})
    training_run = TrainingRun(
        config,
        prepared[: len(training)],
        prepared[len(training) :],
        run,
        compute,
        init_from=None if training_run_exists(run) and request.resume else request.init_from,
        notify=notify,
        say=say,
    )
    if request.resume and training_run.resume():
        say("resumed from checkpoints/last.pt")
    with stop_on_signals() as stop, deterministic(config.train.deterministic, say):
        result = training_run.fit(stop)
    _write_metrics(run, config, result, training_run.history)
    write_manifest(
        run / "manifest.json",
        {**facts, "finished": True, "seconds": round(result.seconds, 1), "steps": result.steps},
    )
    forget_prepared(run / "prepared")
    return result


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
    if not request.val_fraction:
        return Fold(names, ())
    return holdout(names, request.val_fraction, seed)


def _write_metrics(
    run: Path, config: Config, result: TrainResult, history: list[dict[str, Any]]
) -> None:
    names = config.labels.names
    by_class = {
        name: None if math.isnan(d) else round(d, 5)
        for name, d in zip(names, result.class_dice, strict=False)
    }
    best = None if math.isnan(result.best_dice) else round(result.best_dice, 5)
    summary = {
        "validation_dice": best,
        "validation_dice_per_class": by_class,
        "steps": result.steps,
    }
    write_document(run / "metrics.json", TRAIN_METRICS, summary)
    columns = ["epoch", "step", "loss", "learning_rate", "dice", "seconds"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(history)
    write_text(run / "metrics.csv", text.getvalue())
