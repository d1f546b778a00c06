"""Functions about what networks give: ``predict``, ``evaluate``, ``compare``, ``report``."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from voxseg.api.shared import silent, write_and_tell
from voxseg.data.folders import check_exists
from voxseg.engine.checkpoint_files import member_checkpoints
from voxseg.engine.options import Place, as_path, as_paths
from voxseg.engine.page import Page, check_page
from voxseg.loading import loading

if TYPE_CHECKING:
    from voxseg.engine.compare import Comparison
    from voxseg.engine.evaluate import Evaluation
    from voxseg.engine.outcomes import CaseOutcome
    from voxseg.engine.task_scores import TaskEvaluation


def predict(
    checkpoint: Place,
    inputs: Place | Sequence[Place],
    output: Place,
    *,
    save_probabilities: bool = False,
    save_tissues: bool = False,
    save_uncertainty: bool = False,
    save_overlays: bool = False,
    tta: bool = False,
    low_memory: bool = False,
    postprocess: Place | None = None,
    no_postprocess: bool = False,
    label_table: str | None = None,
    series: str | None = None,
    hash_names: bool = False,
    dicom_seg: bool = False,
    anonymise: bool = False,
    slicer: bool = False,
    mrb: bool = False,
    num_parts: int = 1,
    part_id: int = 0,
    device: str = "auto",
    report: Place | None = None,
    overwrite: bool = False,
    skip_existing: bool = False,
    notify: "Callable[[CaseOutcome, int, int], None]" = silent,
    say: Callable[[str], None] = silent,
) -> "list[CaseOutcome]":
    """Segment files and folders; a failed case is in its outcome; see ``voxseg predict --help``."""
    check_page(as_path(report), overwrite=overwrite or skip_existing)
    # What is missing is told before torch and the rest are loaded.
    check_exists(*as_paths(inputs))
    member_checkpoints(Path(checkpoint))
    with loading():
        from voxseg.engine import predict as _predict
        from voxseg.engine.dicom_files import wanted_dicom
        from voxseg.engine.operations import wanted_postprocessing
        from voxseg.engine.report_commands import prediction_source
        from voxseg.engine.report_sources import PREDICT_MANIFEST
        from voxseg.engine.slicer_files import SlicerFiles

    for_slicer = (SlicerFiles(with_scene=mrb, hides_names=hash_names),) if slicer or mrb else ()
    extras = (*for_slicer, *wanted_dicom(dicom_seg, anonymise, say))
    request = _predict.PredictRequest(
        checkpoint=Path(checkpoint),
        inputs=as_paths(inputs),
        output=Path(output),
        device=device,
        save_probabilities=save_probabilities,
        save_tissues=save_tissues,
        save_uncertainty=save_uncertainty,
        save_overlays=save_overlays,
        tta=tta,
        low_memory=low_memory,
        overwrite=overwrite,
        skip_existing=skip_existing,
        postprocess=wanted_postprocessing(as_path(postprocess), no_postprocess),
        part=_predict.Part(part_id, num_parts),
        label_table=label_table,
        series=series or "",
        hash_names=hash_names,
        extras=extras,
        beside=tuple(ending for extra in extras for ending in extra.endings),
    )
    outcomes = _predict.predict(request, notify, say)
    source = prediction_source(
        outcomes,
        checkpoint=request.checkpoint,
        inputs=request.found_by,
        output=request.output,
        device=device,
        options={"tta": tta, "low_memory": low_memory},
        manifest_name=request.part.file(PREDICT_MANIFEST),
    )
    if report is not None:
        write_and_tell(source, report, say)
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
    notify: Callable[[str, int, int], None] = silent,
    say: Callable[[str], None] = silent,
) -> "Evaluation | TaskEvaluation":
    """Score masks against truth; with ``output`` write the tables; see ``voxseg evaluate``."""
    check_exists(prediction, truth)
    from voxseg.engine import evaluate as _evaluate
    from voxseg.engine import report_commands as _reports
    from voxseg.engine.evaluate_files import check_output
    from voxseg.engine.task_scores import TaskEvaluation, write_task_evaluation

    folder = as_path(output)
    _reports.check_images(as_path(images), is_kept=folder is not None or report is not None)
    check_page(as_path(report), overwrite=overwrite)
    if folder is not None:
        check_output(folder, overwrite=overwrite)
    evaluation = _evaluate.evaluate(
        Path(prediction), Path(truth), labels=labels, ignore=ignore, tolerance_mm=tolerance_mm,
        notify=notify,
    )  # fmt: skip
    if folder is not None:
        if isinstance(evaluation, TaskEvaluation):
            write_task_evaluation(evaluation, folder, overwrite=overwrite)
        else:
            _evaluate.write_evaluation(evaluation, folder, overwrite=overwrite)
    if folder is not None or report is not None:
        source = _reports.evaluation_source(
            evaluation, Path(prediction), Path(truth), images=as_path(images), folder=folder
        )
        if report is not None:
            write_and_tell(source, report, say)
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
) -> "Comparison":
    """Compare runs on the same cases, the first with the others; see ``voxseg compare --help``."""
    from voxseg.engine import compare as _compare
    from voxseg.engine.compare_files import check_output, write_comparison

    settings = _compare.CompareSettings(
        metric=metric or "",
        alpha=alpha,
        all_pairs=all_pairs,
        seed=seed,
        resamples=resamples,
        allow_missing=allow_missing,
    )
    if output is not None:
        check_output(Path(output), overwrite=overwrite)
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
    viewers: int = 0,
    overwrite: bool = False,
    say: Callable[[str], None] = silent,
) -> Page:
    """Make one HTML page about a finished run, from its files; see ``voxseg report --help``."""
    place = Path(run) / "report.html" if output is None else Path(output)
    check_page(place, overwrite=overwrite)
    from voxseg.engine.report_sources import read_source

    source = read_source(Path(run), data=as_path(data))
    return write_and_tell(source, place, say, pictures, viewers)
