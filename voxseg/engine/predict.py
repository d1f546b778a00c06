"""Apply trained networks to files and folders: the model is loaded once, each case stands alone.

A mask lies on its source's grid with its source's header. A broken file among many is reported and
the others finish.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from voxseg.data.cases import Case, TaskKind
from voxseg.data.names import case_name, is_case_file
from voxseg.documents import json_text
from voxseg.engine.case_volumes import Volumetry
from voxseg.engine.category_files import TABLE, write_categories
from voxseg.engine.config import LabelConfig
from voxseg.engine.inputs import Inputs, find_inputs, refuse_within, without_names
from voxseg.engine.labels import label_table
from voxseg.engine.operations import find_postprocessing
from voxseg.engine.outcomes import CaseOutcome as CaseOutcome
from voxseg.engine.outcomes import predict_document as predict_document
from voxseg.engine.predict_case import Checked, Extra, Wishes, predict_one
from voxseg.engine.predictor import Predictor as Predictor
from voxseg.engine.tissue_maps import tissue_classes
from voxseg.engine.volume_files import VOLUMES, write_volumes
from voxseg.engine.volume_intervals import held_out_volumes
from voxseg.errors import UsageError, VoxsegError
from voxseg.export.label_table import write_label_table
from voxseg.export.masks import mask_name
from voxseg.files import write_text

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
    series: str = ""
    """Which series of a DICOM folder; see ``voxseg.engine.inputs``."""
    hash_names: bool = False
    """Name cases by a hash instead of their files."""
    output: Path
    """A folder, or for a single file the mask's own name."""
    device: str = "auto"
    save_probabilities: bool = False
    save_tissues: bool = False
    """Also a map of each tissue of the brain, CASE_pve_0 and so on."""
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
    label_table: Path | str | None = None
    """Names, colours and codes to write instead of the run's own; see ``voxseg.engine.labels``."""
    extras: tuple[Extra, ...] = ()
    """What else is written of each volume."""
    beside: tuple[str, ...] = ()
    """Endings of what extras put beside each mask, as ``.seg.nrrd``; refused where they exist."""

    @property
    def found_by(self) -> Inputs:
        """Where the cases are."""
        return Inputs(places=self.inputs, series=self.series, hash_names=self.hash_names)


def predict(
    request: PredictRequest,
    notify: Callable[[CaseOutcome, int, int], None] = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> list[CaseOutcome]:
    """Predict every case of ``request``; ``notify`` gets each outcome, its number and the total.

    Before each case, ``say`` is told what it will need and what there is; later, where memory runs
    out all the same, how it goes on.

    A folder also gets ``predict.json`` (each part of the cases its own one), and ``labels.csv`` and
    ``labels.ctbl``, which name and colour the classes in 3D Slicer. Of volumes there is also
    ``volumes.csv``, with the volume of each structure.

    Raises:
        VoxsegError: nothing can be predicted at all; a single broken case is in its outcome.
    """
    cases = request.part.take(find_inputs(request.found_by, say))
    volume = next((case for case in cases if not case.is_image), None)
    if request.save_overlays and volume is not None:
        raise UsageError(
            f"--save-overlays is for photographs, and {volume.images[0]} is a volume; --report "
            "draws volumes"
        )
    _refuse_extras(request, cases)
    for extra in request.extras:
        if isinstance(extra, Checked):
            extra.check(cases)
    predictor = Predictor(request.checkpoint, request.device, request.low_memory)
    labels, kind = predictor.config.labels, predictor.config.task.kind
    if kind == "classification":
        _refuse_options(request, kind, volume)
        return _classify(predictor, cases, request, notify)
    refuse_within(request.output, request.found_by, cases)
    targets = _targets(request, cases)
    if kind != "segmentation":
        _refuse_options(request, kind, volume)
    wishes = _wishes(request, labels, is_segmentation=kind == "segmentation")
    outcomes = []
    for number, (case, target) in enumerate(zip(cases, targets, strict=True), 1):
        outcome = predict_one(predictor, case, target, wishes, say)
        outcome = replace(outcome, task=kind)
        if request.hash_names:
            error = without_names(outcome.error, case, request.inputs)
            outcome = replace(outcome, error=error)
        outcomes.append(outcome)
        notify(outcome, number, len(cases))
    if not is_case_file(request.output):
        if kind == "segmentation":
            background = dict(zip(labels.values, labels.names, strict=True)).get(0, "background")
            write_label_table(request.output, wishes.table, background)
            write_volumes(request.output / request.part.file(VOLUMES), outcomes, wishes.table)
        path = request.output / request.part.file("predict.json")
        write_text(path, json_text(predict_document(outcomes)) + "\n")
    return outcomes


def _wishes(request: PredictRequest, labels: LabelConfig, *, is_segmentation: bool) -> Wishes:
    wishes = Wishes(
        save_probabilities=request.save_probabilities,
        save_tissues=request.save_tissues,
        save_uncertainty=request.save_uncertainty,
        save_overlays=request.save_overlays,
        tta=request.tta,
        skip_existing=request.skip_existing,
        extras=request.extras,
        hides_names=request.hash_names,
    )
    if not is_segmentation:
        return wishes
    operations = find_postprocessing(request.checkpoint, request.postprocess, labels)
    table = label_table(labels, request.label_table)
    if request.save_tissues:
        tissue_classes(table)  # which refuses a table without any
    held_out = held_out_volumes(
        request.checkpoint, request.postprocess, is_used=operations is not None
    )
    volumetry = Volumetry(table, labels.values, held_out)
    return replace(wishes, operations=operations, table=table, volumetry=volumetry)


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
            told = str(error)
            if request.hash_names:
                told = without_names(told, case, request.inputs)
            outcome = replace(outcome, error=told)
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
        "--save-tissues": request.save_tissues,
        "--save-uncertainty": request.save_uncertainty,
        "--postprocess": isinstance(request.postprocess, Path),
        "--skip-existing": request.skip_existing and kind == "classification",
        "--save-probabilities": request.save_probabilities and kind != "boundaries",
    }
    wrong = next((name for name, is_given in options.items() if is_given), None)
    if wrong is not None:
        raise UsageError(f"{wrong} is about segmentations, and {request.checkpoint} does {kind}")


def _refuse_extras(request: PredictRequest, cases: Sequence[Case]) -> None:
    """Refuse what only volumes get where a photograph is."""
    photograph = next((case.images[0] for case in cases if case.is_image), None)
    if request.save_tissues and photograph is not None:
        raise UsageError(f"--save-tissues is for volumes, and {photograph} is a photograph")
    if request.beside and photograph is not None:
        raise UsageError(
            f"CASE{request.beside[-1]} is written of volumes, and {photograph} is a photograph; "
            "leave the option for it out"
        )


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
    beside = [t.with_name(f"{case_name(t)}{end}") for t in targets for end in request.beside]
    # With --skip-existing, what lies beside no mask comes from a prediction that was stopped.
    existing = [t for t in [*targets, *beside] if t.exists()]
    if existing and not (request.overwrite or request.skip_existing):
        raise UsageError(f"{existing[0]} exists; use --overwrite, --skip-existing, or another -o")
    return targets
