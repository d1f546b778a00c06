"""k-fold cross-validation: every case is predicted by the network that did not see it.

The folder holds ``split.json`` (written before anything is trained), ``fold-K/`` run folders,
``folds.json`` with what became of each, ``predictions/`` with each case's mask,
``metrics.json/.csv``, ``calibration.json/.png``, and with ``postprocess`` also
``postprocessing.json`` and ``metrics-postprocessed.csv``. A finished fold is never repeated, an
unfinished one resumes from its last checkpoint.

With several seeds, ``seed-N/`` are such folders, all with the same split, and the folder around
them holds each case's mean over the seeds as ``metrics.json/.csv``, and how far the seeds lie
apart as ``seeds.json/.csv``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from voxseg.data.check import CheckReport
from voxseg.data.layouts import Dataset
from voxseg.data.splits import Fold, check_split, read_split, split_hash, write_split
from voxseg.engine.calibration import CALIBRATION, merge_folds, sentence
from voxseg.engine.config import Config, LabelConfig, dump
from voxseg.engine.dealing import Dealing, deal
from voxseg.engine.device import choose_device
from voxseg.engine.evaluate import Evaluation, write_evaluation
from voxseg.engine.fold import TOLERANCE_MM, FoldTask, read_scores
from voxseg.engine.folds import Effort, run_folds
from voxseg.engine.manifest import data_hashes, describe_device, write_manifest
from voxseg.engine.planning import complete
from voxseg.engine.pooled import merge_counts
from voxseg.engine.postprocess_files import drop_stale, postprocess_crossval
from voxseg.engine.progress import Progress
from voxseg.engine.run_folder import open_run
from voxseg.engine.seeds import SeedSpread, average_scores, spread_of, task_spread, write_spread
from voxseg.engine.task_evaluate import evaluate_task
from voxseg.engine.task_scores import TaskEvaluation, mean_evaluation, write_task_evaluation
from voxseg.engine.train import TrainRequest, examine, resumed_config
from voxseg.errors import UsageError
from voxseg.files import write_text
from voxseg.metrics.case import ClassScores


@dataclass(frozen=True)
class CrossvalResult:
    """What came out of a cross-validation."""

    evaluation: Evaluation | TaskEvaluation
    """Scores of every case by the folds that did not see it, background included; with several
    seeds each case's mean over them."""
    spread: SeedSpread | None = None
    """With several seeds: how far they lie apart."""

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values; an undefined score is None."""
        content = self.evaluation.to_json()
        return content if self.spread is None else {**content, "seeds": self.spread.to_json()}


def crossval(
    request: TrainRequest,
    dealing: Dealing,
    notify: Callable[[Progress], None],
    say: Callable[[str], None],
    *,
    effort: Effort | None = None,
    seeds: int | None = None,
    postprocess: bool = False,
) -> CrossvalResult:
    """Cross-validate as ``request`` says; ``request.run`` is the cross-validation's folder.

    Args:
        request: as for ``train``; ``val_fraction`` and ``fold`` are not used, ``split`` replaces
            ``dealing.split``, ``init_from`` may be another cross-validation with the same split.
        dealing: which folds; not used when a run is resumed, which has its own.
        notify: called after each training step; with several jobs, of every fold.
        say: called with one sentence for what is worth a line.
        effort: folds at a time, and further attempts; in this process when None.
        seeds: repeat everything with so many seeds, from ``train.seed`` on; None is one, or as
            many as a resumed run has.
        postprocess: choose operations on the label maps after the folds, see
            ``engine/postprocess.py``; the scores stay those of the networks alone.

    Raises:
        VoxsegError: bad data, settings or output; folds failed; nothing finished is lost.
    """
    if request.split is not None:
        dealing = replace(dealing, split=request.split)
    if seeds is not None and seeds < 1:
        raise UsageError(f"--seeds must be at least 1, got {seeds}")
    dataset, report = examine(request.data, request.labels)
    report.raise_for_errors()
    if postprocess and (dataset.is_images or dataset.task != "segmentation"):
        raise UsageError("--postprocess is about volumes; leave it out for photographs")
    with open_run(request.run, resume=request.resume, overwrite=request.overwrite):
        config, parts = _decide(request, dealing, dataset, report, say)
        count = _number_of_seeds(request, seeds)
        for note in dataset.notes:
            say(f"note: {note}")
        effort = effort or Effort()
        facts = {
            "kind": "crossval",
            "folds": len(parts),
            "seeds": [config.train.seed + n for n in range(count)],
            "jobs": effort.jobs,
            "postprocess": postprocess,
            "device": describe_device(choose_device(request.device)),
            "data_folder": str(request.data.resolve()),
            "label_folder": str(request.labels.resolve()) if request.labels else None,
            "init_from": str(request.init_from.resolve()) if request.init_from else None,
            "split_hash": split_hash(parts),
            "data": data_hashes(dataset.cases),
        }
        write_manifest(request.run / "manifest.json", {**facts, "finished": False})
        result = _run(request, dataset, config, parts, effort, count, notify, say)
        if config.task.kind != "segmentation":
            write_manifest(request.run / "manifest.json", {**facts, "finished": True})
            return result
        truths = {case.case_id: case.label for case in dataset.cases if case.label is not None}
        for name, run in _runs(request.run, config.train.seed, count).items():
            _conclude(run, parts, config.labels, truths if postprocess else None, name, say)
        write_manifest(request.run / "manifest.json", {**facts, "finished": True})
    return result


def _decide(
    request: TrainRequest,
    dealing: Dealing,
    dataset: Dataset,
    report: CheckReport,
    say: Callable[[str], None],
) -> tuple[Config, tuple[Fold, ...]]:
    """Settle configuration and split, or take those of the run that is resumed."""
    run = request.run
    ids = tuple(case.case_id for case in dataset.cases)
    if request.resume and (run / "config.toml").is_file():
        config = resumed_config(run / "config.toml", request.settings)
        parts = read_split(run / "split.json")
    else:
        config = complete(request.settings, dataset, report, planned=request.planned, say=say)
        parts = deal(dealing, ids, report, config.train.seed)
        write_split(run / "split.json", parts)
    # Anew when resumed, too: a few settings may change on the way.
    write_text(run / "config.toml", dump(config))
    check_split(parts, ids, dealing.split or run / "split.json")
    return config, parts


def _number_of_seeds(request: TrainRequest, asked: int | None) -> int:
    """How many seeds to run; a resumed run may get more of them, but not fewer."""
    run = request.run
    earlier = len(list(run.glob("seed-*/split.json"))) if request.resume else 0
    if request.resume and (run / "fold-0").is_dir() and (asked or 1) > 1:
        raise UsageError(f"{run} was begun with one seed; start a new run for --seeds {asked}")
    if asked is not None and asked < earlier:
        raise UsageError(f"{run} was begun with {earlier} seeds; resume it with as many or more")
    return asked or earlier or 1


def _run(
    request: TrainRequest,
    dataset: Dataset,
    config: Config,
    parts: tuple[Fold, ...],
    effort: Effort,
    count: int,
    notify: Callable[[Progress], None],
    say: Callable[[str], None],
) -> CrossvalResult:
    seeds = [config.train.seed + n for n in range(count)]
    runs = list(_runs(request.run, config.train.seed, count).values())
    tasks: list[FoldTask] = []
    for seed, run in zip(seeds, runs, strict=True):
        if count > 1:
            write_split(run / "split.json", parts)
            seeded = replace(config, train=replace(config.train, seed=seed))
            write_text(run / "config.toml", dump(seeded))
        tasks += [_task(request, run, number, parts, seed, count) for number in range(len(parts))]
    for task in tasks:
        if not task.is_finished:
            drop_stale(task.run)
    run_folds(tasks, effort, notify, say)
    if config.task.kind != "segmentation":
        return _collect_task(request, dataset, seeds, runs, say)
    names = dict(zip(config.labels.values, config.labels.names, strict=True))
    evaluations = [_collect(run, len(parts), names) for run in runs]
    for run, evaluation in zip(runs, evaluations, strict=True):
        write_evaluation(evaluation, run, overwrite=True)
    if count == 1:
        return CrossvalResult(evaluations[0])
    # Pixels are pooled within a seed; over the seeds, scores of cases are averaged.
    mean = replace(
        evaluations[0],
        scores=average_scores([evaluation.scores for evaluation in evaluations]),
        pooled=None,
    )
    spread = spread_of(dict(zip(seeds, evaluations, strict=True)))
    write_evaluation(mean, request.run, overwrite=True)
    write_spread(spread, request.run)
    return CrossvalResult(mean, spread)


def _runs(run: Path, first_seed: int, count: int) -> dict[str, Path]:
    """Name each seed's folder in sentences; one seed has the run's own, and needs no name."""
    if count == 1:
        return {"": run}
    return {f"seed {n}: ": run / f"seed-{n}" for n in range(first_seed, first_seed + count)}


def _conclude(
    run: Path,
    parts: tuple[Fold, ...],
    labels: LabelConfig,
    truths: Mapping[str, Path] | None,
    name: str,
    say: Callable[[str], None],
) -> None:
    """Say what all folds together show: calibration, and what post-processing ``truths`` ask for.

    Args:
        run: a folder with finished folds.
        parts: the folds.
        labels: values and names of the classes.
        truths: case -> label file; None chooses no post-processing.
        name: of the run, before each sentence.
        say: gets the sentences.
    """
    calibration = merge_folds(run, len(parts))
    if calibration is None:
        say(f"{name}no {CALIBRATION}: an earlier version of voxseg finished some of the folds")
    else:
        say(f"{name}{sentence(calibration)}")
    if truths is not None:
        postprocess_crossval(
            run, parts, truths, labels, TOLERANCE_MM, lambda text: say(f"{name}{text}")
        )


def _task(
    request: TrainRequest,
    run: Path,
    number: int,
    parts: tuple[Fold, ...],
    seed: int,
    count: int,
) -> FoldTask:
    name = f"fold {number + 1} of {len(parts)}"
    return FoldTask(
        data=request.data,
        labels=request.labels,
        run=run,
        number=number,
        name=name if count == 1 else f"seed {seed}, {name}",
        init_from=_start(request.init_from, number, parts, seed),
        device=request.device,
    )


def _collect(run: Path, folds: int, names: dict[int, str]) -> Evaluation:
    scores: dict[str, dict[int, ClassScores]] = {}
    for number in range(folds):
        scores.update(read_scores(run / f"fold-{number}"))
    pooled = merge_counts(run, folds)
    return Evaluation(scores, {}, names, TOLERANCE_MM, is_images=pooled is not None, pooled=pooled)


def _collect_task(
    request: TrainRequest,
    dataset: Dataset,
    seeds: Sequence[int],
    runs: Sequence[Path],
    say: Callable[[str], None],
) -> CrossvalResult:
    """Score the predictions of all folds together, as the benchmarks of the task do."""
    evaluations: dict[int, TaskEvaluation] = {}
    for seed, run in zip(seeds, runs, strict=True):
        say(f"scoring {run / 'predictions'}")
        found = evaluate_task(run / "predictions", dataset, request.data)
        write_task_evaluation(found, run, overwrite=True)
        evaluations[seed] = found
    if len(runs) == 1:
        return CrossvalResult(evaluations[seeds[0]])
    mean = mean_evaluation(list(evaluations.values()))
    spread = task_spread(evaluations)
    write_task_evaluation(mean, request.run, overwrite=True)
    write_spread(spread, request.run)
    return CrossvalResult(mean, spread)


def _start(init_from: Path | None, number: int, parts: Sequence[Fold], seed: int) -> Path | None:
    """Find what a fold starts from; another cross-validation must have the same split."""
    if init_from is None or not (init_from / "split.json").is_file():
        return init_from
    base = next(
        (one for one in (init_from / f"seed-{seed}", init_from) if (one / "fold-0").is_dir()), None
    )
    if base is None:
        if any(init_from.glob("seed-*/fold-0")):
            raise UsageError(f"{init_from} has no seed {seed} to start from; use other --seeds")
        raise UsageError(
            f"{init_from} is a single training run: its training cases may be held out here; "
            "give a cross-validation with the same --split"
        )
    if split_hash(read_split(base / "split.json")) != split_hash(tuple(parts)):
        raise UsageError(
            f"{init_from} was split differently: its networks saw cases that are held out here; "
            f"use --split {init_from / 'split.json'}"
        )
    return base / f"fold-{number}"
