"""What ``evaluate`` and ``predict`` leave for a report: which files belong to which case.

Each file is named with its hash, so that a page that is made later can tell whether the mask that
it draws is the one that was scored.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxseg import schemas
from voxseg.data.dicom import common_place
from voxseg.data.dicom_headers import read_header
from voxseg.data.dicom_series import series_hash
from voxseg.data.folders import check_exists
from voxseg.data.hashes import file_hash
from voxseg.data.layouts import find_cases
from voxseg.data.reading import is_dicom
from voxseg.documents import json_text
from voxseg.engine.checkpoint_files import member_checkpoints
from voxseg.engine.evaluate import Evaluation
from voxseg.engine.inputs import Inputs, find_inputs
from voxseg.engine.manifest import describe_device, manifest_of
from voxseg.engine.pairs import find_pairs
from voxseg.engine.report_labels import written_table
from voxseg.engine.report_sources import (
    EVALUATE_MANIFEST,
    PREDICT_MANIFEST,
    CaseFiles,
    ReportSource,
    files_from_json,
    read_manifest,
    shown_name,
    task_of,
)
from voxseg.engine.task_scores import TaskEvaluation
from voxseg.errors import DataError, UsageError, VoxsegError
from voxseg.files import write_text
from voxseg.metrics.summary import class_name

if TYPE_CHECKING:
    from voxseg.engine.predict import CaseOutcome


def evaluation_source(
    evaluation: Evaluation | TaskEvaluation,
    prediction: Path,
    truth: Path,
    *,
    images: Path | None = None,
    folder: Path | None = None,
) -> ReportSource:
    """Gather what ``evaluate`` scored.

    Args:
        evaluation: What came out.
        prediction: As given to ``evaluate``.
        truth: As given to ``evaluate``.
        images: Where the images lie, if ``truth`` is no data set with images.
        folder: Where to keep the manifest, so that a page can be made later; nowhere if None.
    """
    if isinstance(evaluation, TaskEvaluation) and evaluation.task == "classification":
        photographs = _labelled_images(truth)
        files = {case: CaseFiles(photographs.get(case, ())) for case in evaluation.cases}
        return _task_source(evaluation, files, prediction, truth, folder)
    pairs = {one.case_id: one for one in find_pairs(prediction, truth).pairs}
    sources = _labelled_images(truth) if images is None else _images(images)
    if len(pairs) == len(sources) == 1:  # two files may be called anything
        sources = dict(zip(pairs, sources.values(), strict=True))
    files = {
        case_id: CaseFiles(sources.get(case_id, ()), one.prediction, one.truth)
        for case_id, one in pairs.items()
    }
    if isinstance(evaluation, TaskEvaluation):
        return _task_source(evaluation, files, prediction, truth, folder)
    tolerance = evaluation.tolerance_mm
    manifest = _evaluate_manifest(files, prediction, truth, folder, tolerance)
    names = _all_names(evaluation)
    return ReportSource(
        "evaluate", shown_name(prediction), manifest, files_from_json(manifest),
        replace(evaluation, class_names=names),
    )  # fmt: skip


def _task_source(
    evaluation: TaskEvaluation,
    files: Mapping[str, CaseFiles],
    prediction: Path,
    truth: Path,
    folder: Path | None,
) -> ReportSource:
    """Gather what was scored of another task; there is no surface, so no tolerance."""
    manifest = _evaluate_manifest(files, prediction, truth, folder, 0)
    return ReportSource(
        "evaluate",
        shown_name(prediction),
        manifest,
        files_from_json(manifest),
        answers=evaluation,
        task=evaluation.task,
    )


def _evaluate_manifest(
    files: Mapping[str, CaseFiles],
    prediction: Path,
    truth: Path,
    folder: Path | None,
    tolerance_mm: float,
) -> dict[str, Any]:
    content = {
        "kind": "evaluate",
        "prediction": str(prediction.resolve()),
        "truth": str(truth.resolve()),
        "tolerance_mm": tolerance_mm,
        "files": _files_to_json(files),
    }
    return _written(schemas.EVALUATE_MANIFEST, content, folder and folder / EVALUATE_MANIFEST)


def check_images(images: Path | None, *, is_kept: bool) -> None:
    """Refuse images that nobody would see, or that are not there, before any work is done."""
    if images is not None and not is_kept:
        raise UsageError("--images is drawn on a page: add --report PAGE, or -o to make one later")
    check_exists(images)


def prediction_source(
    outcomes: "Sequence[CaseOutcome]",
    *,
    checkpoint: Path,
    inputs: Inputs,
    output: Path,
    device: str,
    options: Mapping[str, Any],
    manifest_name: str = PREDICT_MANIFEST,
) -> ReportSource:
    """Gather what ``predict`` did; in a folder, keep the manifest so that a page can come later.

    Args:
        outcomes: What came out.
        checkpoint: As given to ``predict``.
        inputs: As given to ``predict``.
        output: As given to ``predict``: a folder, or a mask's name.
        device: As given to ``predict``.
        options: Other options by name, for the manifest.
        manifest_name: Of the manifest; that of a part of the cases has its own.
    """
    from voxseg.engine.device import choose_device  # torch, which scoring can do without

    rows = [asdict(one) for one in outcomes]
    sources = {case.case_id: case.images for case in find_inputs(inputs)}
    files = {}
    for row in rows:
        mask = Path(row["output"]) if row["output"] else None
        images = sources.get(row["case_id"], ())
        files[str(row["case_id"])] = CaseFiles(images, mask, hides_images=inputs.hash_names)
    content = {
        "kind": "predict",
        "checkpoint": str(checkpoint.resolve()),
        "networks": _networks(checkpoint),
        "device": describe_device(choose_device(device)),
        "options": dict(options),
        "files": _files_to_json(files),
    }
    if inputs.hash_names:
        content["command"] = ["voxseg", "predict", "(hidden by --hash-names)"]
    folder = output if output.is_dir() else None
    table = written_table(folder or output.parent)
    manifest = _written(schemas.PREDICT_MANIFEST, content, folder and folder / manifest_name)
    return ReportSource(
        "predict",
        shown_name(output),
        manifest,
        files if inputs.hash_names else files_from_json(manifest),
        task=task_of(rows),
        outcomes=tuple(json.loads(json_text(rows))),
        label_names=table.names,
        colours=table.colours,
    )


def _images(place: Path) -> dict[str, tuple[Path, ...]]:
    """Images by case; labels beside them are none."""
    dataset = find_cases(place, need_labels=False)
    return {case.case_id: case.images for case in (*dataset.cases, *dataset.unlabelled)}


def _labelled_images(place: Path) -> dict[str, tuple[Path, ...]]:
    """Images by case of a data set; none of a folder of label maps, which are no images."""
    try:
        dataset = find_cases(place)
    except VoxsegError:
        return {}
    return {case.case_id: case.images for case in dataset.cases}


def _networks(checkpoint: Path) -> list[dict[str, Any]]:
    """Each network's file, its hash, and what its run's manifest says of its making."""
    found = []
    for path in member_checkpoints(checkpoint):
        own = read_manifest(path.parent.parent / "manifest.json")
        kept = ("written", "versions", "git_commit", "device", "precision", "split_hash", "steps")
        facts = {key: own[key] for key in kept if key in own}
        found.append({"path": str(path.resolve()), "sha256": _hash(path), **facts})
    return found


def _files_to_json(files: Mapping[str, CaseFiles]) -> dict[str, dict[str, Any]]:
    return {
        case_id: {
            "images": _image_entries(one.told.images),
            "prediction": _entry(one.prediction) if one.prediction else None,
            "truth": _entry(one.truth) if one.truth else None,
        }
        for case_id, one in files.items()
    }


def _image_entries(images: tuple[Path, ...]) -> list[dict[str, str]]:
    """Of a DICOM series one entry, without the names of its files: they may tell whose they are."""
    if not images or not is_dicom(images):
        return [_entry(path) for path in images]
    header = read_header(images[0])
    together = hashlib.sha256("".join(_hash(path) for path in images).encode()).hexdigest()
    return [
        {
            "path": str(common_place(images).resolve()),
            "sha256": together,
            "series": series_hash("" if header is None else header.series),
        }
    ]


def _entry(path: Path) -> dict[str, str]:
    return {"path": str(path.resolve()), "sha256": _hash(path)}


def _hash(path: Path) -> str:
    try:
        return file_hash(path)
    except DataError:
        return ""


def _written(schema: str, content: Mapping[str, Any], path: Path | None) -> dict[str, Any]:
    """Complete a manifest, write it if there is a place, and return it as it reads back."""
    text = json_text(manifest_of(schema, content))
    if path is not None:
        write_text(path, text + "\n")
    found: dict[str, Any] = json.loads(text)
    return found


def _all_names(evaluation: Evaluation) -> dict[int, str]:
    labels = {label for classes in evaluation.scores.values() for label in classes}
    return {label: class_name(label, evaluation.class_names) for label in sorted(labels)}
