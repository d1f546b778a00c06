"""Apply trained networks to files and folders: the model is loaded once, each case stands alone.

A mask lies on its source's grid with its source's header. A broken file among many is reported and
the others finish.
"""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from voxseg.data.cases import TaskKind
from voxseg.data.layouts import Case, find_cases
from voxseg.data.names import case_name, is_case_file
from voxseg.data.prepare import Prepared
from voxseg.data.reading import read_channels, read_geometry, read_label
from voxseg.data.volume import Volume
from voxseg.documents import document, json_text
from voxseg.engine.case_memory import CaseEstimate, Output
from voxseg.engine.category_files import TABLE, write_categories
from voxseg.engine.config import Config
from voxseg.engine.gather import Gathered
from voxseg.engine.labels import label_table
from voxseg.engine.operations import Postprocessing, find_postprocessing
from voxseg.engine.predictor import Predictor as Predictor
from voxseg.engine.task_predict import answer_case, told_of_memory
from voxseg.errors import UsageError, VoxsegError
from voxseg.export.images import write_overlay
from voxseg.export.label_table import write_label_table
from voxseg.export.labels import class_colours
from voxseg.export.masks import map_name, mask_name, write_map, write_mask
from voxseg.files import write_text
from voxseg.metrics.uncertainty import Members, entropy
from voxseg.schemas import PREDICT

Item = TypeVar("Item")


@dataclass(frozen=True)
class Part:
    """A share of the cases, for one of several processes or jobs that predict into one folder."""

    number: int = 0
    """From 0."""
    of: int = 1

    def __post_init__(self) -> None:
        if self.of < 1 or not 0 <= self.number < self.of:
            raise UsageError(
                f"--part-id must be 0 to --num-parts - 1, got {self.number} of {self.of} parts"
            )

    def take(self, items: Sequence[Item]) -> list[Item]:
        """Every ``of``-th item, so that parts differ by one at most."""
        return list(items[self.number :: self.of])

    def file(self, name: str) -> str:
        """Name of this part's own copy of a file, as ``predict-0-of-4.json``; the whole's own."""
        stem, dot, suffix = name.partition(".")
        return name if self.of == 1 else f"{stem}-{self.number}-of-{self.of}{dot}{suffix}"


@dataclass(frozen=True, kw_only=True)
class PredictRequest:
    """What to predict with what."""

    checkpoint: Path
    """A run folder, a checkpoint, or a cross-validation's folder (folds and seeds are averaged)."""
    inputs: tuple[Path, ...]
    """Files or folders."""
    output: Path
    """A folder, or for a single file the mask's own name."""
    device: str = "auto"
    save_probabilities: bool = False
    save_overlays: bool = False
    """Also each photograph with its classes in colour."""
    save_uncertainty: bool = False
    """Also entropy, and with several members (folds, flips) their disagreement."""
    tta: bool = False
    """Average over flips along the axes that training flipped."""
    low_memory: bool = False
    """Parts that take 1 GB instead of half of the free memory."""
    overwrite: bool = False
    skip_existing: bool = False
    postprocess: Path | bool = True
    """What is done to the masks: a file, or True for the cross-validation's own, False for nothing.
    Probabilities and uncertainty stay those of the networks."""
    part: Part = Part()
    """Which of the cases; all by default."""


@dataclass(frozen=True)
class CaseOutcome:
    """What happened to one case."""

    case_id: str
    output: str
    seconds: float
    error: str
    """One sentence, or "" when all went well."""
    memory: str = ""
    """How it was run: whole, in slabs, tiles or windows, and what did not fit before that."""
    needed_gb: float | None = None
    """Most memory of the process, as estimated before it started; None where nothing was run."""
    free_gb: float | None = None
    """What was free then."""
    volumes: tuple["Volumes", ...] = ()
    """Of each class but background; empty where the mask was kept as it was."""
    postprocessing: str = ""
    """What was done to the mask; "" for nothing."""
    task: TaskKind = "segmentation"
    """What the network was trained for."""
    category: str = ""
    """The most probable class of a whole photograph; "" of other tasks."""


@dataclass(frozen=True)
class Volumes:
    """How large one class is."""

    label: int
    name: str
    ml: float
    """Of the mask, after post-processing."""
    low_ml: float | None = None
    """The least that one of several members (folds, flips) gives, without post-processing; None
    with one member."""
    high_ml: float | None = None
    """The most."""


def predict(
    request: PredictRequest,
    notify: Callable[[CaseOutcome, int, int], None] = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> list[CaseOutcome]:
    """Predict every case of ``request``; ``notify`` gets each outcome, its number and the total.

    Before each case, ``say`` is told what it will need and what there is; later, where memory runs
    out all the same, how it goes on.

    A folder also gets ``predict.json`` (each part of the cases its own one), and ``labels.csv`` and
    ``labels.ctbl``, which name and colour the classes in 3D Slicer.

    Raises:
        VoxsegError: nothing can be predicted at all; a single broken case is in its outcome.
    """
    cases = request.part.take(_find(request.inputs))
    volume = next((case for case in cases if not case.is_image), None)
    if request.save_overlays and volume is not None:
        raise UsageError(
            f"--save-overlays is for photographs, and {volume.images[0]} is a volume; --report "
            "draws volumes"
        )
    predictor = Predictor(request.checkpoint, request.device, request.low_memory)
    labels, kind = predictor.config.labels, predictor.config.task.kind
    if kind == "classification":
        _refuse_options(request, kind, volume)
        return _classify(predictor, cases, request, notify)
    targets = _targets(request, cases)
    operations = None
    if kind == "segmentation":
        operations = find_postprocessing(request.checkpoint, request.postprocess, labels)
    else:
        _refuse_options(request, kind, volume)
    outcomes = []
    for number, (case, target) in enumerate(zip(cases, targets, strict=True), 1):
        outcome = _predict_one(predictor, case, target, request, operations, say)
        outcome = replace(outcome, task=kind)
        outcomes.append(outcome)
        notify(outcome, number, len(cases))
    if not is_case_file(request.output):
        if kind == "segmentation":
            background = dict(zip(labels.values, labels.names, strict=True)).get(0, "background")
            write_label_table(request.output, label_table(labels), background)
        path = request.output / request.part.file("predict.json")
        write_text(path, json_text(predict_document(outcomes)) + "\n")
    return outcomes


def _classify(
    predictor: Predictor,
    cases: Sequence[Case],
    request: PredictRequest,
    notify: Callable[[CaseOutcome, int, int], None],
) -> list[CaseOutcome]:
    """Name the class of every photograph, and write one table of them."""
    table = request.output / request.part.file(TABLE)
    if request.output.exists() and not request.output.is_dir():
        raise UsageError(f"{request.output} is a file; -o names a folder for {TABLE}")
    if table.exists() and not request.overwrite:
        raise UsageError(f"{table} exists; use --overwrite, or another -o")
    outcomes, rows = [], []
    for number, case in enumerate(cases, 1):
        start = time.perf_counter()
        outcome = CaseOutcome(case.case_id, "", 0.0, "", task="classification")
        try:
            row = predictor.category(predictor.prepare(case), tta=request.tta)
            rows.append(row)
            named = row.names[0]
            outcome = replace(outcome, output=str(table), memory="centre crop", category=named)
        except VoxsegError as error:
            outcome = replace(outcome, error=str(error))
        outcomes.append(replace(outcome, seconds=time.perf_counter() - start))
        notify(outcomes[-1], number, len(cases))
    if rows:
        write_categories(table, rows)
    path = request.output / request.part.file("predict.json")
    write_text(path, json_text(predict_document(outcomes)) + "\n")
    return outcomes


def _refuse_options(request: PredictRequest, kind: TaskKind, volume: Case | None) -> None:
    """Refuse what only a segmentation has."""
    if volume is not None:
        raise UsageError(
            f"{request.checkpoint} is for photographs ({kind}), and {volume.images[0]} is a volume"
        )
    options = {
        "--save-overlays": request.save_overlays,
        "--save-uncertainty": request.save_uncertainty,
        "--postprocess": isinstance(request.postprocess, Path),
        "--skip-existing": request.skip_existing and kind == "classification",
        "--save-probabilities": request.save_probabilities and kind != "boundaries",
    }
    wrong = next((name for name, is_given in options.items() if is_given), None)
    if wrong is not None:
        raise UsageError(f"{wrong} is about segmentations, and {request.checkpoint} does {kind}")


def predict_document(outcomes: Sequence[CaseOutcome]) -> dict[str, Any]:
    """What became of each case as plain values: ``predict.json``, and what ``--json`` prints."""
    return document(PREDICT, {"cases": [asdict(outcome) for outcome in outcomes]})


def _predict_one(
    predictor: Predictor,
    case: Case,
    target: Path,
    request: PredictRequest,
    operations: Postprocessing | None,
    say: Callable[[str], None],
) -> CaseOutcome:
    if request.skip_existing and target.exists():
        return CaseOutcome(case.case_id, str(target), 0.0, "", "kept as it was")
    start = time.perf_counter()
    output = Output(
        folder=target.parent,
        save_probabilities=request.save_probabilities or not predictor.finds_classes,
        save_uncertainty=request.save_uncertainty,
        tta=request.tta,
    )
    try:
        estimate = predictor.estimate(case, output)
        say(f"{case.case_id}: {estimate}")
        if predictor.finds_classes:
            memory, volumes = _segment(predictor, case, target, output, estimate, operations, say)
        else:
            keeps = request.save_probabilities
            memory, volumes = answer_case(predictor, case, target, output, estimate, say, keeps), ()
        if request.save_overlays:
            _draw(predictor.config, case, target)
    except VoxsegError as error:
        return CaseOutcome(case.case_id, "", time.perf_counter() - start, str(error))
    seconds = time.perf_counter() - start
    return CaseOutcome(
        case.case_id,
        str(target),
        seconds,
        "",
        memory,
        estimate.needed_gb,
        estimate.free_gb,
        volumes,
        str(operations) if operations is not None else "",
    )


def _segment(
    predictor: Predictor,
    case: Case,
    target: Path,
    output: Output,
    estimate: CaseEstimate,
    operations: Postprocessing | None,
    say: Callable[[str], None],
) -> tuple[str, tuple[Volumes, ...]]:
    """Prepare, predict and write one case; return how it was run and how large its classes are."""
    with told_of_memory(case, estimate):
        source, _ = read_geometry(case.images)
        prepared = predictor.prepare(case)
        gathered, memory = predictor.gather(prepared, estimate, output, say)
        with contextlib.closing(gathered):
            label = predictor.label_of(prepared, gathered)
            _write_maps(predictor.config, prepared, gathered, output, source, target)
        if operations is not None:
            label = operations.apply(label)
        # Last: where it is, --skip-existing finds all done.
        write_mask(target, label, source, predictor.config.labels.palette)
        volumes: tuple[Volumes, ...] = ()
        if not case.is_image:
            volumes = _volumes(predictor.config, prepared, label, gathered.members, source)
        return memory, volumes


def _draw(config: Config, case: Case, target: Path) -> None:
    """Lay the classes of a written mask over its photograph, CASE_overlay.jpg."""
    colours = config.labels.palette or class_colours(config.labels.values)
    path = target.with_name(f"{case_name(target)}_overlay.jpg")
    write_overlay(path, read_channels(case.images).array, read_label(target).array, colours)


def _volumes(
    config: Config, case: Prepared, label: np.ndarray, members: Members, source: Volume
) -> tuple[Volumes, ...]:
    """Measure the mask on the source's grid, and the members on the prepared one."""
    voxel, prepared_voxel = (math.prod(s) / 1000 for s in (source.spacing, case.spacing))
    ranges = members.voxel_ranges()
    found = []
    for k, (value, name) in enumerate(zip(config.labels.values, config.labels.names, strict=True)):
        ml = float(np.count_nonzero(label == value) * voxel)
        low, high = (n * prepared_voxel for n in ranges[k])
        several = members.count > 1
        found.append(Volumes(value, name, ml, low if several else None, high if several else None))
    return tuple(found[1:])


def _write_maps(
    config: Config,
    case: Prepared,
    gathered: Gathered,
    output: Output,
    source: Volume,
    target: Path,
) -> None:
    """Write the maps that were asked for, one after the other: each is as large as the image.

    Probabilities, entropy, and disagreement where there is somebody to disagree; outside the crop
    lies background, which is certain.
    """
    shares, grid = gathered.probabilities, case.grid
    if shares is None:
        return

    def write(name: str, values: np.ndarray, outside: float) -> None:
        path = target.with_name(map_name(f"{case_name(target)}_{name}", source))
        write_map(path, grid.restore_map(values, outside), source)

    if output.save_probabilities:
        for k, value in enumerate(config.labels.values):
            write(f"probability-{value}", shares[k], 1.0 if k == 0 else 0.0)
    if output.save_uncertainty:
        write("entropy", entropy(shares), 0.0)
        if gathered.members.count > 1:
            write("disagreement", gathered.members.disagreement(shares), 0.0)


def _find(inputs: Sequence[Path]) -> list[Case]:
    cases: list[Case] = []
    for path in inputs:
        found = find_cases(path, need_labels=False)
        cases += [*found.cases, *found.unlabelled]
    seen: dict[str, Case] = {}
    for case in cases:
        other = seen.setdefault(case.case_id, case)
        if other is not case:
            raise UsageError(
                f"{other.images[0]} and {case.images[0]} would both be written as {case.case_id}; "
                "predict them into two folders"
            )
    return cases


def _targets(request: PredictRequest, cases: list[Case]) -> list[Path]:
    output = request.output
    if is_case_file(output):
        if len(cases) != 1:
            raise UsageError(
                f"{output} names one file, but there are {len(cases)} cases; name a folder"
            )
        targets = [output]
    else:
        if output.exists() and not output.is_dir():
            raise UsageError(f"{output} is a file; -o names a folder, or a file for one input")
        targets = [output / mask_name(case.case_id, is_image=case.is_image) for case in cases]
    sources = {path.resolve() for case in cases for path in case.images}
    for target in targets:
        if target.resolve() in sources:
            raise UsageError(f"{target} is an input; it would be overwritten, choose another -o")
    existing = [t for t in targets if t.exists()]
    if existing and not (request.overwrite or request.skip_existing):
        raise UsageError(f"{existing[0]} exists; use --overwrite, --skip-existing, or another -o")
    return targets
