"""The program's commands as functions: ``voxseg.train(...)`` is ``voxseg train``.

Each takes the options of its command under the same names and with the same defaults, and returns
typed what the command prints. Two things differ: ``settings`` may be nested tables as well as
``SECTION.KEY=VALUE`` texts, and instead of printing a function calls ``say`` with each sentence and
``notify`` with each step. Paths may be texts. An error that a user can cure is a
``voxseg.errors.VoxsegError``.

The command line is made of these functions, and a test compares the parameters of both.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from voxseg.data.check import CheckReport, check_dataset, find_pairs
from voxseg.data.prepare import MaskMode
from voxseg.data.splits import Fold
from voxseg.data.superpixels import Method, SupervoxelSettings
from voxseg.engine import compare as _compare
from voxseg.engine import crossval as _crossval
from voxseg.engine import evaluate as _evaluate
from voxseg.engine import predict as _predict
from voxseg.engine import report_commands as _reports
from voxseg.engine import reproduce as _reproduce
from voxseg.engine import supervoxels as _supervoxels
from voxseg.engine import train as _train
from voxseg.engine.case_report import Page, check_page, write_page
from voxseg.engine.compare_files import check_output as check_comparison_output
from voxseg.engine.compare_files import write_comparison
from voxseg.engine.convert import convert
from voxseg.engine.dealing import Dealing, write_dealt
from voxseg.engine.evaluate import write_evaluation
from voxseg.engine.evaluate_files import check_output as check_scores_output
from voxseg.engine.folds import Effort
from voxseg.engine.operations import wanted_postprocessing
from voxseg.engine.options import Place, Settings, as_path, as_paths, training_request
from voxseg.engine.progress import Progress, TrainResult
from voxseg.engine.report_sources import PREDICT_MANIFEST, ReportSource, read_source
from voxseg.engine.task_scores import TaskEvaluation, write_task_evaluation

__all__ = [
    "check",
    "compare",
    "convert",
    "crossval",
    "evaluate",
    "predict",
    "report",
    "reproduce",
    "split",
    "supervoxels",
    "train",
]


def _silent(*_: object) -> None:
    """Tell nobody."""


def train(
    data: Place,
    output: Place,
    *,
    labels: Place | None = None,
    recipe: str | None = None,
    config: Place | None = None,
    settings: Settings = None,
    plane: str | None = None,
    val_fraction: float | None = None,
    split: Place | None = None,
    fold: int = 0,
    epochs: int | None = None,
    max_minutes: float | None = None,
    seed: int | None = None,
    deterministic: bool = False,
    workers: int | None = None,
    init_from: Place | None = None,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    notify: Callable[[Progress], None] = _silent,
    say: Callable[[str], None] = _silent,
) -> TrainResult:
    """Train a network on ``data`` into the run folder ``output``; see ``voxseg train --help``."""
    request = training_request(
        data=data,
        output=output,
        labels=labels,
        recipe=recipe,
        config=config,
        settings=settings,
        epochs=epochs,
        max_minutes=max_minutes,
        seed=seed,
        deterministic=deterministic,
        workers=workers,
        plane=plane,
        val_fraction=val_fraction,
        split=split,
        fold=fold,
        init_from=init_from,
        device=device,
        resume=resume,
        overwrite=overwrite,
    )
    return _train.train(request, notify, say)


def crossval(
    data: Place,
    output: Place,
    *,
    folds: int = 3,
    leave_one_out: bool = False,
    groups: Place | None = None,
    strata: str = "",
    labels: Place | None = None,
    recipe: str | None = None,
    config: Place | None = None,
    settings: Settings = None,
    plane: str | None = None,
    split: Place | None = None,
    epochs: int | None = None,
    max_minutes: float | None = None,
    init_from: Place | None = None,
    seed: int | None = None,
    deterministic: bool = False,
    workers: int | None = None,
    seeds: int | None = None,
    jobs: int = 1,
    retries: int = 1,
    postprocess: bool = False,
    device: str = "auto",
    report: Place | None = None,
    resume: bool = False,
    overwrite: bool = False,
    notify: Callable[[Progress], None] = _silent,
    say: Callable[[str], None] = _silent,
) -> _crossval.CrossvalResult:
    """Train each fold of ``data``, predict and score what it held out; see ``voxseg crossval``."""
    check_page(as_path(report), overwrite=overwrite or resume)
    request = training_request(
        data=data,
        output=output,
        labels=labels,
        recipe=recipe,
        config=config,
        settings=settings,
        plane=plane,
        epochs=epochs,
        max_minutes=max_minutes,
        seed=seed,
        deterministic=deterministic,
        workers=workers,
        init_from=init_from,
        device=device,
        resume=resume,
        overwrite=overwrite,
    )
    dealing = Dealing(
        folds=folds,
        leave_one_out=leave_one_out,
        groups=as_path(groups),
        strata=strata,
        split=as_path(split),
    )
    effort = Effort(jobs, retries)
    result = _crossval.crossval(
        request, dealing, notify, say, effort=effort, seeds=seeds, postprocess=postprocess
    )
    if report is not None:
        _write_page(read_source(Path(output)), report, say)
    return result


def predict(
    checkpoint: Place,
    inputs: Place | Sequence[Place],
    output: Place,
    *,
    save_probabilities: bool = False,
    save_uncertainty: bool = False,
    save_overlays: bool = False,
    tta: bool = False,
    low_memory: bool = False,
    postprocess: Place | None = None,
    no_postprocess: bool = False,
    num_parts: int = 1,
    part_id: int = 0,
    device: str = "auto",
    report: Place | None = None,
    overwrite: bool = False,
    skip_existing: bool = False,
    notify: Callable[[_predict.CaseOutcome, int, int], None] = _silent,
    say: Callable[[str], None] = _silent,
) -> list[_predict.CaseOutcome]:
    """Segment files and folders; a failed case is in its outcome; see ``voxseg predict --help``."""
    check_page(as_path(report), overwrite=overwrite or skip_existing)
    request = _predict.PredictRequest(
        checkpoint=Path(checkpoint),
        inputs=as_paths(inputs),
        output=Path(output),
        device=device,
        save_probabilities=save_probabilities,
        save_uncertainty=save_uncertainty,
        save_overlays=save_overlays,
        tta=tta,
        low_memory=low_memory,
        overwrite=overwrite,
        skip_existing=skip_existing,
        postprocess=wanted_postprocessing(as_path(postprocess), no_postprocess),
        part=_predict.Part(part_id, num_parts),
    )
    outcomes = _predict.predict(request, notify, say)
    source = _reports.prediction_source(
        outcomes,
        checkpoint=request.checkpoint,
        inputs=request.inputs,
        output=request.output,
        device=device,
        options={"tta": tta, "low_memory": low_memory},
        manifest_name=request.part.file(PREDICT_MANIFEST),
    )
    if report is not None:
        _write_page(source, report, say)
    return outcomes


def evaluate(
    prediction: Place,
    truth: Place,
    output: Place | None = None,
    *,
    tolerance_mm: float = 1.0,
    labels: Sequence[int] | None = None,
    ignore: Sequence[int] | None = None,
    report: Place | None = None,
    images: Place | None = None,
    overwrite: bool = False,
    notify: Callable[[str, int, int], None] = _silent,
    say: Callable[[str], None] = _silent,
) -> _evaluate.Evaluation | TaskEvaluation:
    """Score masks against truth; with ``output`` write the tables; see ``voxseg evaluate``."""
    folder = as_path(output)
    _reports.check_images(as_path(images), is_kept=folder is not None or report is not None)
    check_page(as_path(report), overwrite=overwrite)
    if folder is not None:
        check_scores_output(folder, overwrite=overwrite)
    evaluation = _evaluate.evaluate(
        Path(prediction), Path(truth), labels=labels, ignore=ignore, tolerance_mm=tolerance_mm,
        notify=notify,
    )  # fmt: skip
    if folder is not None:
        if isinstance(evaluation, TaskEvaluation):
            write_task_evaluation(evaluation, folder, overwrite=overwrite)
        else:
            write_evaluation(evaluation, folder, overwrite=overwrite)
    if folder is not None or report is not None:
        source = _reports.evaluation_source(
            evaluation, Path(prediction), Path(truth), images=as_path(images), folder=folder
        )
        if report is not None:
            _write_page(source, report, say)
    return evaluation


def compare(
    runs: Sequence[Place],
    output: Place | None = None,
    *,
    metric: str | None = None,
    alpha: float = 0.05,
    all_pairs: bool = False,
    allow_missing: bool = False,
    resamples: int = 9999,
    seed: int = 0,
    overwrite: bool = False,
) -> _compare.Comparison:
    """Compare runs on the same cases, the first with the others; see ``voxseg compare --help``."""
    settings = _compare.CompareSettings(
        metric=metric or "",
        alpha=alpha,
        all_pairs=all_pairs,
        seed=seed,
        resamples=resamples,
        allow_missing=allow_missing,
    )
    if output is not None:
        check_comparison_output(Path(output), overwrite=overwrite)
    comparison = _compare.compare(as_paths(runs), settings)
    if output is not None:
        write_comparison(comparison, Path(output), overwrite=overwrite)
    return comparison


def report(
    run: Place,
    output: Place | None = None,
    *,
    data: Place | None = None,
    pictures: int | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = _silent,
) -> Page:
    """Make one HTML page about a finished run, from its files; see ``voxseg report --help``."""
    place = Path(run) / "report.html" if output is None else Path(output)
    check_page(place, overwrite=overwrite)
    return _write_page(read_source(Path(run), data=as_path(data)), place, say, pictures)


def reproduce(
    manifest: Place,
    output: Place,
    *,
    data: Place | None = None,
    device: str | None = None,
    notify: Callable[[Progress], None] = _silent,
    say: Callable[[str], None] = _silent,
) -> _reproduce.Reproduction:
    """Run again what a manifest describes and compare the figures; see ``voxseg reproduce``."""
    return _reproduce.reproduce(
        Path(manifest), Path(output), data=as_path(data), device=device, notify=notify, say=say
    )


def split(
    data: Place,
    output: Place,
    *,
    folds: int = 3,
    leave_one_out: bool = False,
    groups: Place | None = None,
    strata: str = "",
    labels: Place | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> tuple[Fold, ...]:
    """Deal the cases of ``data`` into folds and write them to ``output``; see ``voxseg split``."""
    dealing = Dealing(
        folds=folds, leave_one_out=leave_one_out, groups=as_path(groups), strata=strata
    )
    return write_dealt(Path(data), as_path(labels), Path(output), dealing, seed, overwrite)


def supervoxels(
    images: Place | Sequence[Place],
    output: Place,
    *,
    labels: Place | None = None,
    method: Method = "slic",
    size_mm: float = 7.0,
    compactness: float = 0.1,
    iterations: int = 10,
    sigma_mm: float = 0.0,
    mask: MaskMode = "auto",
    target_oracle: float | None = None,
    sweep: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = _silent,
) -> _supervoxels.SupervoxelReport:
    """Divide volumes into supervoxels and measure them; see ``voxseg supervoxels --help``."""
    request = _supervoxels.SupervoxelRequest(
        inputs=as_paths(images),
        output=Path(output),
        labels=as_path(labels),
        settings=SupervoxelSettings(
            method=method,
            size_mm=size_mm,
            compactness=compactness,
            iterations=iterations,
            sigma_mm=sigma_mm,
        ),
        mask=mask,
        target_oracle=target_oracle,
        sweep=sweep,
        overwrite=overwrite,
    )
    return _supervoxels.make_supervoxels(request, say)


def check(
    data: Place, *, labels: Place | None = None, notify: Callable[[str], None] = _silent
) -> CheckReport:
    """Check a data set: what is wrong and how to mend it; see ``voxseg check --help``.

    The page, the corrected copies and the JSON document of the command are
    ``voxseg.export.check_report``, ``voxseg.data.fix`` and ``voxseg.data.check_document``.
    """
    dataset, known = find_pairs(Path(data), as_path(labels))
    return check_dataset(dataset, notify, known)


def _write_page(
    source: ReportSource, page: Place, say: Callable[[str], None], pictures: int | None = None
) -> Page:
    written = write_page(source, Path(page), pictures=pictures)
    drawn = f"{len(written.drawn)} of {written.num_cases} cases drawn"
    say(f"page: {written.path} ({drawn}, {len(written.warnings)} warnings)")
    return written
