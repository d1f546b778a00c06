"""The page about a finished cross-validation, evaluation or prediction, case by case.

Pictures: all cases where there are few, else the worst, the median one and the best, by mean
foreground Dice (of photographs, mean IoU); of predictions, those with odd volumes first. One case
is in memory at a time.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from voxseg.data.reading import is_dicom, read_first_channel, read_label
from voxseg.data.volume import Volume, check_same_grid, read_image
from voxseg.engine import photo_report as photos
from voxseg.engine import report_facts as facts
from voxseg.engine import report_tables as tables
from voxseg.engine import report_warnings as remarks
from voxseg.engine import volume_report as volume_pages
from voxseg.engine.case_viewer import MOST_VIEWERS, with_viewers
from voxseg.engine.evaluate import BACKGROUND, Evaluation
from voxseg.engine.page import Page
from voxseg.engine.report_choice import MOST_PREDICTED as MOST_PREDICTED
from voxseg.engine.report_choice import WORST as WORST
from voxseg.engine.report_choice import choose as choose
from voxseg.engine.report_choice import file_warnings
from voxseg.engine.report_labels import page_colours
from voxseg.engine.report_sources import CaseFiles, ReportSource
from voxseg.engine.task_report import task_page
from voxseg.errors import UsageError, VoxsegError
from voxseg.export.report import Report, ReportCase, ReportSection, write_report


def write_page(
    source: ReportSource,
    path: Path,
    *,
    pictures: int | None = None,
    viewers: int = 0,
) -> Page:
    """Write the page about ``source``.

    Args:
        source: What is known of the run.
        path: The page; one that is there is replaced.
        pictures: How many of the worst cases (of predictions: of all) are drawn; 0 draws none, so
            that no picture of a subject leaves the place. None chooses.
        viewers: How many of the drawn cases, the first ones, can be opened in a viewer.

    Raises:
        UsageError: Viewers are asked for, and the cases are no volumes.
        VoxsegError: The page cannot be written. A file of a case that is missing or broken is a
            warning on the page.
    """
    if source.task != "segmentation":
        report, drawn = task_page(source, pictures)
    elif source.evaluation is not None:
        report, drawn = _score_report(source, source.evaluation, pictures)
    elif any(one.is_image for one in source.files.values()):
        report, drawn = _photograph_report(source, pictures)
    else:
        report, drawn = _prediction_report(source, pictures)
    if viewers and (report.is_images or source.task != "segmentation"):
        raise UsageError(f"--viewers shows volumes, and {source.place} has none")
    if not 0 <= viewers <= MOST_VIEWERS:
        raise UsageError(f"--viewers is 0 to {MOST_VIEWERS}, for a page to mail, got {viewers}")
    opened = drawn[:viewers]
    write_report(path, with_viewers(report, opened))
    return Page(path, len(source.files), drawn, tuple(report.warnings), opened)


def rank(evaluation: Evaluation) -> list[str]:
    """Cases by mean foreground Dice (of photographs, mean IoU), lowest first; without one last."""
    means = evaluation.case_means()
    return sorted(means, key=lambda case: (math.isnan(means[case]), means[case], case))


def _score_report(
    source: ReportSource,
    evaluation: Evaluation,
    pictures: int | None,
) -> tuple[Report, tuple[str, ...]]:
    ranked = rank(evaluation)
    drawn = choose(ranked, pictures)
    files = {case: source.files.get(case, CaseFiles()) for case in ranked}
    headers = _headers(files, evaluation)
    anchors = {case: f"case-{number}" for number, case in enumerate(drawn, 1)}
    fold_of = {case: n for n, fold in enumerate(source.folds) for case in fold.cases}
    warnings = [
        *remarks.score_warnings(evaluation, headers.voxel_ml),
        *source.notes,
        *file_warnings(files, drawn, with_truth=True),
        *headers.warnings,
    ]
    if evaluation.is_images:
        colours = photos.colours_of(evaluation)
    else:
        colours = page_colours(evaluation.class_names, source.colours)
    sections = [tables.summary_section(evaluation, colours)]
    if evaluation.pooled is not None:
        sections.insert(0, photos.pooled_section(evaluation.pooled))
    if source.folds:
        sections.append(tables.fold_section(evaluation, source.folds))
    sections.append(tables.case_section(evaluation, ranked, anchors, fold_of))
    if tables.foreground(evaluation) and not evaluation.is_images:
        sections.append(tables.volume_section(evaluation))
    how = f"worst first by {evaluation.headline_name}"
    note = f"All {len(ranked)} cases, {how}."
    if len(drawn) < len(ranked):
        note = (
            f"{len(drawn)} of {len(ranked)} cases, {how}: the {len(drawn) - 2} worst, the median "
            "one and the best."
        )
    draw = photos.scored_cases if evaluation.is_images else _scored_cases
    return Report(
        title=f"{facts.TITLES[source.kind]}: {source.place}",
        subtitle=facts.subtitle(source),
        class_names=evaluation.class_names,
        colours=colours,
        is_images=evaluation.is_images,
        facts=facts.run_facts(source),
        warnings=warnings,
        sections=sections,
        cases=draw(evaluation, files, drawn, anchors, ranked),
        cases_note=note,
        closing=(*source.sections, ReportSection("Files", tables=(headers.table,))),
        folded=facts.folded(source),
    ), drawn


def _headers(files: Mapping[str, CaseFiles], evaluation: Evaluation) -> remarks.Headers:
    """Read the headers of volumes; photographs have none."""
    if evaluation.is_images:
        return remarks.Headers(photos.files_table(files), (), {})
    return remarks.read_headers(files)


def _scored_cases(
    evaluation: Evaluation,
    files: Mapping[str, CaseFiles],
    drawn: Sequence[str],
    anchors: Mapping[str, str],
    ranked: Sequence[str],
) -> Iterator[ReportCase]:
    means = evaluation.case_means()
    names = evaluation.class_names
    labels = tables.foreground(evaluation)
    volumes = {
        names[label]: {case: s[label].prediction_ml for case, s in evaluation.scores.items()}
        for label in labels
    }

    def one(case: str) -> ReportCase:
        classes = evaluation.scores[case]
        truths = {names[label]: classes[label].truth_ml for label in labels}
        strip = tables.cohort_figure(volumes, case, truths, "the predicted volumes")
        arrays, caption = _arrays(files[case], labels)
        return ReportCase(
            case,
            **arrays,
            errors=True,
            caption=caption,
            headline=f"mean foreground Dice {tables.number(means[case], 3)}, number "
            f"{ranked.index(case) + 1} of {len(ranked)} from the worst",
            tables=(tables.case_table(classes, names),),
            figures=(strip,) if strip else (),
            anchor=anchors[case],
        )

    return map(one, drawn)  # which holds no case while the next one is read


def _prediction_report(
    source: ReportSource, pictures: int | None
) -> tuple[Report, tuple[str, ...]]:
    outcomes = [facts.measured(one, source) for one in source.outcomes]
    done = [one for one in outcomes if not one.error]
    files = {one.case_id: source.files.get(one.case_id, CaseFiles()) for one in outcomes}
    volumes: dict[str, dict[str, float]] = {}
    for one in done:
        for volume in one.volumes:
            volumes.setdefault(volume.name, {})[one.case_id] = volume.ml
    odd = remarks.volume_outliers(volumes)
    ordered = sorted((one.case_id for one in done), key=lambda case: case not in odd)
    drawn = tuple(ordered[: MOST_PREDICTED if pictures is None else pictures])
    anchors = {case: f"case-{number}" for number, case in enumerate(drawn, 1)}
    by_case = {one.case_id: one for one in done}
    by_case = {case: by_case[case] for case in drawn}
    headers = remarks.read_headers(files)
    warnings = [
        *facts.failures(outcomes),
        *(f"{case} has {text}: look at its picture" for case, text in odd.items()),
        *facts.absent_classes(done),
        *volume_pages.outside_warnings(done),
        *source.notes,
        *file_warnings({case: files[case] for case in ordered}, drawn, with_truth=False),
        *headers.warnings,
    ]
    names = facts.names_of(outcomes, source)
    colours = page_colours(names, source.colours)
    boxes = tables.volume_boxes(volumes, {names[k]: colour for k, colour in colours.items()})
    found = (
        volume_pages.volume_table(outcomes, anchors, odd),
        volume_pages.measure_table(outcomes, anchors, odd),
    )
    section = ReportSection(
        "Volumes",
        volume_pages.paragraphs(done),
        figures=(boxes,) if boxes else (),
        tables=[table for table in found if table is not None],
    )
    note = f"All {len(done)} predicted cases."
    if len(drawn) < len(done):
        note = f"{len(drawn)} of {len(done)} predicted cases, those with odd volumes first."
    return Report(
        title=f"{facts.TITLES[source.kind]}: {source.place}",
        subtitle=facts.subtitle(source),
        class_names=names,
        colours=colours,
        facts=facts.run_facts(source),
        warnings=warnings,
        sections=(section,),
        cases=_predicted_cases(volumes, files, by_case, anchors, odd),
        cases_note=note,
        closing=(*source.sections, ReportSection("Files", tables=(headers.table,))),
        folded=facts.folded(source),
    ), drawn


def _photograph_report(
    source: ReportSource, pictures: int | None
) -> tuple[Report, tuple[str, ...]]:
    """Build the page about predicted photographs, which have no volumes."""
    failed = {str(row["case_id"]) for row in source.outcomes if row.get("error")}
    files = {case: one for case, one in source.files.items() if case not in failed}
    drawn = tuple(files)[: MOST_PREDICTED if pictures is None else pictures]
    anchors = {case: f"case-{number}" for number, case in enumerate(drawn, 1)}
    section, names = photos.share_section(files, source.label_names, anchors)
    colours = photos.label_colours(list(names), source.colours)
    if names.get(BACKGROUND) == "background":
        colours.pop(BACKGROUND)
    warnings = [
        *(
            f"{row['case_id']} failed: {row['error']}"
            for row in source.outcomes
            if row.get("error")
        ),
        *source.notes,
        *file_warnings(files, drawn, with_truth=False),
    ]
    return Report(
        title=f"{facts.TITLES[source.kind]}: {source.place}",
        subtitle=facts.subtitle(source),
        class_names=names,
        colours=colours,
        is_images=True,
        facts=facts.run_facts(source),
        warnings=warnings,
        sections=(section,),
        cases=photos.predicted_cases(files, drawn, anchors, colours),
        cases_note=f"{len(drawn)} of {len(files)} predicted photographs.",
        closing=(*source.sections, ReportSection("Files", tables=(photos.files_table(files),))),
        folded=facts.folded(source),
    ), drawn


def _predicted_cases(
    volumes: Mapping[str, Mapping[str, float]],
    files: Mapping[str, CaseFiles],
    drawn: Mapping[str, facts.Outcome],
    anchors: Mapping[str, str],
    odd: Mapping[str, str],
) -> Iterator[ReportCase]:
    def one(case: str) -> ReportCase:
        arrays, caption = _arrays(files[case], None)
        strip = tables.cohort_figure(volumes, case, None, "this prediction's cases")
        return ReportCase(
            case,
            **arrays,
            caption=caption,
            headline=odd.get(case, ""),
            tables=(volume_pages.case_table(drawn[case]),) if drawn[case].volumes else (),
            figures=(strip,) if strip else (),
            anchor=anchors[case],
        )

    return map(one, drawn)


def _arrays(files: CaseFiles, labels: Sequence[int] | None) -> tuple[dict[str, Any], str]:
    """Read what can be drawn of a case, and say what cannot.

    Args:
        files: Where it lies.
        labels: Classes to keep in the masks; all if None.
    """
    readers: dict[str, tuple[Path | None, Callable[[Path], Volume]]] = {
        "prediction": (files.prediction, read_label),
        "truth": (files.truth, read_label),
        "image": (files.roles["image"], partial(_first_channel, files.images)),
        "uncertainty": (_entropy_of(files.prediction), read_image),
    }
    texts: list[str] = []
    grid: Volume | None = None
    arrays: dict[str, Any] = {}
    for name, (path, read) in readers.items():
        if path is None or not path.is_file():
            continue
        try:
            volume = read(path)
            if grid is not None:
                check_same_grid(grid, volume)
        except VoxsegError as error:
            texts.append(f"the {name} is not drawn: {error}.")
            continue
        grid = grid or volume
        arrays[name] = volume.array if read is not read_label else _kept(volume.array, labels)
    if grid is None:
        return {}, " ".join([*texts, "none of its files could be read."])
    if len(files.images) > 1 and not is_dicom(files.images):
        texts.append(f"Channel 1 of {len(files.images)}.")
    return {**arrays, "affine": grid.affine_mm}, " ".join(texts)


def _first_channel(images: tuple[Path, ...], _: Path) -> Volume:
    """Read an image, of several frames the first; of DICOM the whole series."""
    volume = read_first_channel(images)
    return Volume(volume.array[0], volume.affine, volume.header, volume.path, volume.trailing)


def _entropy_of(prediction: Path | None) -> Path | None:
    """Where ``predict --save-uncertainty`` puts the map of a mask."""
    if prediction is None:
        return None
    stem = prediction.name.removesuffix(".gz").removesuffix(".nii")
    return prediction.with_name(f"{stem}_entropy.nii.gz")


def _kept(label: np.ndarray, labels: Sequence[int] | None) -> np.ndarray:
    """Drop the classes that were not scored, and take no more memory than needed."""
    if labels is not None:
        label = np.where(np.isin(label, labels), label, BACKGROUND)
    return label.astype(np.min_scalar_type(int(label.max()))) if label.min() >= 0 else label
