"""What a report is made of: a finished run's scores, files and manifest, read back from its folder.

A cross-validation says in its manifest where its data lie. ``evaluate`` and ``predict`` write a
manifest of their own beside their output (``report_commands.py``), under names that overwrite no
other run's.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from voxseg import schemas
from voxseg.data.case_lists import parse_json
from voxseg.data.cases import Case, TaskKind
from voxseg.data.dicom_series import files_of_hash
from voxseg.data.layouts import find_cases
from voxseg.data.names import is_image_file
from voxseg.data.splits import read_split
from voxseg.documents import refuse_newer
from voxseg.engine.calibration import CALIBRATION, read_calibration
from voxseg.engine.calibration import report_section as calibration_section
from voxseg.engine.evaluate import Evaluation
from voxseg.engine.operations import POSTPROCESSING
from voxseg.engine.pooled import Pooled
from voxseg.engine.postprocess_files import report_section as postprocessing_section
from voxseg.engine.report_labels import colours_of_settings, written_table
from voxseg.engine.task_scores import TaskEvaluation, task_evaluation_from_json
from voxseg.errors import DataError, UsageError, VoxsegError
from voxseg.export.labels import Colour
from voxseg.export.masks import mask_name
from voxseg.export.report_parts import ReportSection
from voxseg.metrics import ClassScores
from voxseg.metrics.summary import METRICS, PIXEL_METRICS

EVALUATE_MANIFEST = "evaluate_manifest.json"
PREDICT_MANIFEST = "predict_manifest.json"

Kind = Literal["crossval", "evaluate", "predict"]


@dataclass(frozen=True)
class CaseFiles:
    """Where the volumes of a case lie, as far as is known; they may have gone since."""

    images: tuple[Path, ...] = ()
    prediction: Path | None = None
    truth: Path | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    """Of ``image`` (the first), ``prediction``, ``truth`` -> SHA-256 when the run was made."""
    hides_images: bool = False
    """Whether nobody is to be told what the images are called."""

    @property
    def told(self) -> "CaseFiles":
        """The files whose names may be told."""
        return replace(self, images=()) if self.hides_images else self

    @property
    def roles(self) -> dict[str, Path | None]:
        """What is drawn of a case, and where it lies."""
        image = self.images[0] if self.images else None
        return {"image": image, "prediction": self.prediction, "truth": self.truth}

    @property
    def is_image(self) -> bool:
        """Whether the case is a photograph."""
        return any(path is not None and is_image_file(path) for path in self.roles.values())


@dataclass(frozen=True)
class FoldFacts:
    """One fold of a cross-validation."""

    cases: tuple[str, ...]
    """Held out, and predicted by it."""
    steps: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class ReportSource:
    """A finished run."""

    kind: Kind
    place: str
    """What it is called."""
    manifest: Mapping[str, Any]
    files: Mapping[str, CaseFiles]
    evaluation: Evaluation | None = None
    """None for predictions, and of other tasks than segmentation."""
    answers: TaskEvaluation | None = None
    """Scores of another task."""
    task: TaskKind = "segmentation"
    outcomes: tuple[Mapping[str, Any], ...] = ()
    """Of predictions, as in ``predict.json``."""
    folds: tuple[FoldFacts, ...] = ()
    settings: str = ""
    """``config.toml``."""
    label_names: Mapping[int, str] = field(default_factory=dict)
    """Of predictions: class value -> name."""
    colours: Mapping[int, Colour] = field(default_factory=dict)
    """Class value -> colour, as far as the run has any of its own."""
    notes: tuple[str, ...] = ()
    """What is to be said of the files, a sentence each."""
    sections: tuple[ReportSection, ...] = ()
    """What else the run knows of itself."""


def read_source(run: Path, *, data: Path | None = None) -> ReportSource:
    """Read what a finished run left.

    Args:
        run: Folder of a cross-validation, of ``evaluate -o`` or of ``predict -o``.
        data: Where images (and truths) lie now, if they were moved.

    Raises:
        UsageError: There is nothing that a page could be made of.
        DataError: The run has not finished, or a file of it is damaged.
    """
    if not run.is_dir():
        raise UsageError(f"{run} is no folder; name a cross-validation's, or the -o of a command")
    manifest = read_manifest(run / "manifest.json")
    if manifest.get("kind") == "crossval":
        source = _read_crossval(run, manifest)
    elif (run / EVALUATE_MANIFEST).is_file() or (run / "metrics.json").is_file():
        source = _read_evaluation(run, manifest)
    elif _predictions(run):
        source = _read_predictions(run)
    else:
        raise UsageError(
            f"{run} holds no finished run; name the folder of a cross-validation, or one that "
            "voxseg evaluate -o or voxseg predict -o wrote"
        )
    return source if data is None else _moved(source, data)


def _read_crossval(run: Path, manifest: Mapping[str, Any]) -> ReportSource:
    if not (manifest.get("finished") and (run / "metrics.json").is_file()):
        raise DataError(
            f"{run} is a cross-validation that has not finished; finish it with voxseg crossval "
            "--resume"
        )
    found = _read_scores(run / "metrics.json")
    scored = found.cases if isinstance(found, TaskEvaluation) else found.scores
    is_images = isinstance(found, TaskEvaluation) or found.is_images
    seeds = manifest.get("seeds", [])
    # With several seeds, scores are means over them; masks and folds lie in a folder for each.
    base = run / f"seed-{seeds[0]}" if len(seeds) > 1 else run
    folder = Path(str(manifest.get("data_folder", "")))
    labels = manifest.get("label_folder")
    cases, notes = _found(folder, Path(labels) if labels else None)
    files: dict[str, CaseFiles] = {}
    for case_id in scored:
        case = cases.get(case_id, Case(case_id, (), None))
        name = mask_name(case_id, is_image=is_images)
        mask = base / "predictions" / name
        hashes = _crossval_hashes(manifest, case)
        whole = isinstance(found, TaskEvaluation) and found.task == "classification"
        files[case_id] = CaseFiles(case.images, None if whole else mask, case.label, hashes)
    if base is not run:
        notes = (
            f"scores are means over {len(seeds)} seeds; masks, training times and pictures are of "
            f"seed {seeds[0]}",
            *notes,
        )
    parts = read_split(run / "split.json") if (run / "split.json").is_file() else ()
    folds = []
    for number, part in enumerate(parts):
        trained = read_manifest(base / f"fold-{number}" / "manifest.json")
        folds.append(FoldFacts(tuple(part.val), trained.get("steps"), trained.get("seconds")))
    config = run / "config.toml"
    settings = config.read_text(encoding="utf-8") if config.is_file() else ""
    return ReportSource(
        "crossval", shown_name(run), manifest, files, **_either(found), folds=tuple(folds),
        settings=settings, colours=colours_of_settings(settings), notes=notes,
        sections=tuple(_sections(base)),
    )  # fmt: skip


def _sections(run: Path) -> Iterator[ReportSection]:
    """What a cross-validation says of its probabilities and its post-processing."""
    if (run / CALIBRATION).is_file():
        yield calibration_section(read_calibration(run / CALIBRATION))
    if (run / POSTPROCESSING).is_file():
        yield postprocessing_section(run / POSTPROCESSING)


def _read_evaluation(run: Path, other: Mapping[str, Any]) -> ReportSource:
    if not (run / "metrics.json").is_file():
        raise DataError(f"{run} has no metrics.json; run voxseg evaluate -o again")
    if other.get("kind") == "train":
        raise UsageError(
            f"{run} is a training run, which scores no single cases; predict some, score them with "
            "voxseg evaluate -o, and name that folder"
        )
    found = _read_scores(run / "metrics.json")
    manifest = read_manifest(run / EVALUATE_MANIFEST)
    place = str(manifest.get("prediction", run))
    notes = () if manifest else (f"{run} does not say where its masks lie, so none is drawn",)
    return ReportSource(
        "evaluate", shown_name(Path(place)), manifest, files_from_json(manifest),
        **_either(found), notes=notes,
    )  # fmt: skip


def _read_predictions(run: Path) -> ReportSource:
    rows: list[Mapping[str, Any]] = []
    files: dict[str, CaseFiles] = {}
    manifest: dict[str, Any] = {}
    for path in _predictions(run):
        content = parse_json(path)
        refuse_newer(content, schemas.PREDICT, path)
        # Earlier versions wrote the rows alone.
        found: Any = content.get("cases") if isinstance(content, dict) else content
        is_list = isinstance(found, list)
        if not is_list or not all(isinstance(row, dict) and "case_id" in row for row in found):
            raise DataError(f"{path} lists no predicted cases; predict them again")
        rows += found
        manifest = read_manifest(run / path.name.replace("predict", "predict_manifest"))
        files |= files_from_json(manifest)
    rows.sort(key=lambda row: str(row["case_id"]))
    for row in rows:
        # The folder may have been moved.
        names = (mask_name(str(row["case_id"]), is_image=kind) for kind in (False, True))
        mask = next((run / name for name in names if (run / name).is_file()), None)
        known = files.get(str(row["case_id"]), CaseFiles())
        files[str(row["case_id"])] = replace(known, prediction=mask or known.prediction)
    table = written_table(run)
    notes = () if manifest else (f"{run} does not say where its images lie, so masks are on black",)
    return ReportSource(
        "predict", shown_name(run), manifest, files,
        task=task_of(rows), outcomes=tuple(rows),
        label_names=table.names, colours=table.colours, notes=notes,
    )  # fmt: skip


def task_of(rows: Sequence[Mapping[str, Any]]) -> TaskKind:
    """Tell from ``predict.json`` what its network was trained for."""
    found: TaskKind = rows[0].get("task", "segmentation") if rows else "segmentation"
    return found


def _predictions(run: Path) -> list[Path]:
    """``predict.json``, or those of the parts in which the cases were predicted."""
    whole = run / "predict.json"
    return [whole] if whole.is_file() else sorted(run.glob("predict-*-of-*.json"))


def _either(found: Evaluation | TaskEvaluation) -> dict[str, Any]:
    """Say where scores belong in a ``ReportSource``."""
    if isinstance(found, TaskEvaluation):
        return {"answers": found, "task": found.task}
    return {"evaluation": found}


def _read_scores(file: Path) -> Evaluation | TaskEvaluation:
    """Read ``metrics.json`` back."""
    content = parse_json(file)
    refuse_newer(content, schemas.METRICS, file)
    refuse_newer(content, schemas.TASK_METRICS, file)
    if isinstance(content, dict) and content.get("schema") == schemas.TASK_METRICS:
        return task_evaluation_from_json(content, file)
    scores: dict[str, dict[int, ClassScores]] = {}
    names: dict[int, str] = {}
    try:
        for row in content["cases"]:
            known = (*METRICS, *(key for key in PIXEL_METRICS if key in row))
            values = {key: math.nan if row[key] is None else float(row[key]) for key in known}
            scores.setdefault(str(row["case"]), {})[int(row["label"])] = ClassScores(**values)
            names[int(row["label"])] = str(row["class"])
        return Evaluation(
            scores, content["failures"], names, float(content["tolerance_mm"]),
            tuple(content["without_prediction"]), tuple(content["without_truth"]),
            bool(content.get("photographs")),
            Pooled.from_json(content["pooled"]) if content.get("pooled") else None,
            tuple(content.get("notes", ())),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{file} holds no scores of cases ({type(error).__name__}: {error}); score them again"
        ) from None


def _moved(source: ReportSource, data: Path) -> ReportSource:
    """Take images and truths from another place; predictions stay where they are."""
    cases = {case.case_id: case for case in _cases(data)}
    if not set(cases) & set(source.files):
        raise DataError(f"{data} has no case of the run; name the folder of its images")
    files = dict(source.files)
    for case_id, known in source.files.items():
        case = cases.get(case_id)
        if case is not None:
            is_scored = bool(source.evaluation or source.answers)
            truth = case.label if is_scored and case.label else known.truth
            hashes = known.hashes
            if source.kind == "crossval":
                hashes = _crossval_hashes(source.manifest, case)
            files[case_id] = replace(known, images=case.images, truth=truth, hashes=hashes)
    return replace(source, files=files, notes=())


def _crossval_hashes(manifest: Mapping[str, Any], case: Case) -> dict[str, str]:
    """What a cross-validation's manifest says of the files of a case, by name."""
    own = manifest.get("data", {}).get(case.case_id, {})
    found = {"truth": own.get(case.label.name, "")} if case.label else {}
    # A label of the same name has taken the image's place in the manifest.
    if case.images and not (case.label and case.label.name == case.images[0].name):
        found["image"] = own.get(case.images[0].name, "")
    return found


def _found(folder: Path, labels: Path | None) -> tuple[dict[str, Case], tuple[str, ...]]:
    """Cases by id, and what to say if they are no longer there."""
    try:
        dataset = find_cases(folder, labels)
    except VoxsegError as error:
        return {}, (f"the images of the run are not drawn: {error}; or name them with --data",)
    return {case.case_id: case for case in dataset.cases}, ()


def _cases(place: Path) -> tuple[Case, ...]:
    dataset = find_cases(place, need_labels=False)
    return (*dataset.cases, *dataset.unlabelled)


def files_from_json(manifest: Mapping[str, Any]) -> dict[str, CaseFiles]:
    """Return the files by case that a manifest lists."""
    files = {}
    for case_id, one in manifest.get("files", {}).items():
        masks = {role: one[role] for role in ("prediction", "truth") if one[role]}
        first = next((entry for entry in one["images"] if "series" not in entry), None)
        roles = masks | ({"image": first} if first else {})
        paths = {role: Path(entry["path"]) for role, entry in masks.items()}
        files[case_id] = CaseFiles(
            images=tuple(path for entry in one["images"] for path in _image_files(entry)),
            prediction=paths.get("prediction"),
            truth=paths.get("truth"),
            hashes={role: entry["sha256"] for role, entry in roles.items()},
        )
    return files


def _image_files(entry: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the file of an entry, or those of a DICOM series; its folder if they have gone."""
    place = Path(entry["path"])
    if "series" not in entry:
        return (place,)
    try:
        return files_of_hash(place, entry["series"]) or (place,)
    except VoxsegError:
        return (place,)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest; empty where there is none."""
    if not path.is_file():
        return {}
    content = parse_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} is no manifest; restore it, or remove it")
    for form in (schemas.MANIFEST, schemas.EVALUATE_MANIFEST, schemas.PREDICT_MANIFEST):
        refuse_newer(content, form, path)
    return content


def shown_name(path: Path) -> str:
    """Return what a page calls a file or folder."""
    return path.resolve().name or str(path)
