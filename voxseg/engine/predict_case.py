"""One case of a prediction: its mask, the maps beside it, and what other programs get of it."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from voxseg.data.cases import Case
from voxseg.data.names import case_name
from voxseg.data.prepare import Prepared
from voxseg.data.reading import read_channels, read_geometry, read_label
from voxseg.data.volume import Volume
from voxseg.engine.case_memory import CaseEstimate, Output
from voxseg.engine.case_volumes import CaseVolumes, Volumetry, member_volumes
from voxseg.engine.config import Config
from voxseg.engine.gather import Gathered
from voxseg.engine.inputs import without_texts
from voxseg.engine.operations import Postprocessing
from voxseg.engine.outcomes import CaseOutcome, Volumes
from voxseg.engine.predictor import Predictor
from voxseg.engine.task_predict import answer_case, told_of_memory
from voxseg.engine.tissue_maps import write_tissues
from voxseg.errors import VoxsegError
from voxseg.export.images import write_overlay
from voxseg.export.labels import LabelTable, class_colours
from voxseg.export.masks import map_name, write_map, write_mask
from voxseg.metrics.uncertainty import entropy
from voxseg.stages import measured, stage


@dataclass(frozen=True, eq=False)
class CaseAnswer:
    """What networks found in one case."""

    case: Case
    target: Path
    """Where its mask will lie; other files go beside it."""
    source: Volume
    """Geometry of the case; its voxels are all zero."""
    label: np.ndarray
    """(X, Y, Z) on the source's grid, in the values of the training labels, post-processed."""
    table: LabelTable
    """Its classes."""
    volumes: tuple[Volumes, ...]


Extra = Callable[[CaseAnswer], Sequence[Path]]
"""Writes more of a case, before its mask, and says which files. One with ``check`` is asked first
whether it can."""


@runtime_checkable
class Checked(Protocol):
    """An extra that can tell before any work whether it will be able to write."""

    def check(self, cases: Sequence[Case]) -> None:
        """Raise what the user is to be told."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What is wanted of each case beside its mask."""

    save_probabilities: bool = False
    save_tissues: bool = False
    save_uncertainty: bool = False
    save_overlays: bool = False
    tta: bool = False
    skip_existing: bool = False
    operations: Postprocessing | None = None
    """What is done to the masks."""
    table: LabelTable = field(default_factory=lambda: LabelTable(labels=()))
    """Classes of the masks; empty of other tasks."""
    volumetry: Volumetry = field(default_factory=Volumetry)
    """What is measured in the masks of volumes."""
    extras: tuple[Extra, ...] = ()
    hides_names: bool = False
    """Whether what headers of NIfTI say in words is left out of the mask's."""


@dataclass(frozen=True)
class _Told:
    measured: CaseVolumes = field(default_factory=CaseVolumes)
    also: tuple[Path, ...] = ()


_NOTHING = _Told()


def predict_one(
    predictor: Predictor,
    case: Case,
    target: Path,
    wishes: Wishes,
    say: Callable[[str], None],
) -> CaseOutcome:
    """Predict one case and write what is wished; an error of its files is in the outcome."""
    if wishes.skip_existing and target.exists():
        return _kept(predictor, case, target, wishes)
    start = time.perf_counter()
    output = Output(
        folder=target.parent,
        save_probabilities=wishes.save_probabilities or not predictor.finds_classes,
        save_tissues=wishes.save_tissues,
        save_uncertainty=wishes.save_uncertainty,
        tta=wishes.tta,
    )
    try:
        estimate = predictor.estimate(case, output)
        say(f"{case.case_id}: {estimate}")
        with measured() as stages:
            if predictor.finds_classes:
                memory, answer = _segment(predictor, case, target, output, estimate, wishes, say)
            else:
                keeps = wishes.save_probabilities
                memory = answer_case(predictor, case, target, output, estimate, say, keeps)
                answer = _NOTHING
        if wishes.save_overlays:
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
        answer.measured.volumes,
        str(wishes.operations) if wishes.operations is not None else "",
        also=tuple(str(path) for path in answer.also),
        measures=answer.measured.measures,
        volume_note=wishes.table.note if answer.measured.volumes else "",
        stages=stages,
    )


def _kept(predictor: Predictor, case: Case, target: Path, wishes: Wishes) -> CaseOutcome:
    """Say of a mask that was there before what it holds."""
    kept = CaseOutcome(case.case_id, str(target), 0.0, "", "kept as it was")
    if not predictor.finds_classes or case.is_image:
        return kept
    measured = wishes.volumetry.kept(target)
    note = wishes.table.note if measured.volumes else ""
    return replace(
        kept, volumes=measured.volumes, measures=measured.measures, volume_note=note
    )  # fmt: skip


def _segment(
    predictor: Predictor,
    case: Case,
    target: Path,
    output: Output,
    estimate: CaseEstimate,
    wishes: Wishes,
    say: Callable[[str], None],
) -> tuple[str, _Told]:
    """Prepare, predict and write one case; return how it was run and what is told of it."""
    config = predictor.config
    with told_of_memory(case, estimate):
        source, _ = read_geometry(case.images)
        if wishes.hides_names:
            source = without_texts(source)
        with stage("prepare"):
            prepared = predictor.prepare(case)
        with stage("network"):
            gathered, memory = predictor.gather(prepared, estimate, output, say)
        with contextlib.closing(gathered):
            label = predictor.label_of(prepared, gathered)
            soft = _write_maps(wishes.table, config, prepared, gathered, output, source, target)
        if wishes.operations is not None:
            label = wishes.operations.apply(label)
        measured = CaseVolumes()
        if not case.is_image:
            members = member_volumes(gathered.members, config.labels.values, prepared.spacing)
            measured = wishes.volumetry.measure(label, source.spacing, members, soft)
        answer = CaseAnswer(case, target, source, label, wishes.table, measured.volumes)
        also = tuple(path for extra in wishes.extras for path in extra(answer))
        # Last: where it is, --skip-existing finds all done.
        with stage("write"):
            write_mask(target, label, source, config.labels.palette)
        return memory, _Told(measured, also)


def _draw(config: Config, case: Case, target: Path) -> None:
    """Lay the classes of a written mask over its photograph, CASE_overlay.jpg."""
    colours = config.labels.palette or class_colours(config.labels.values)
    path = target.with_name(f"{case_name(target)}_overlay.jpg")
    write_overlay(path, read_channels(case.images).array, read_label(target).array, colours)


def _write_maps(
    table: LabelTable,
    config: Config,
    case: Prepared,
    gathered: Gathered,
    output: Output,
    source: Volume,
    target: Path,
) -> dict[int, float]:
    """Write the maps that were asked for, one after the other: each is as large as the image.

    Probabilities, entropy, and disagreement where there is somebody to disagree; outside the crop
    lies background, which is certain. Tissues come last; their soft volumes are returned.
    """
    shares, grid = gathered.probabilities, case.grid
    if shares is None:
        return {}

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
    if not output.save_tissues:
        return {}
    return write_tissues(target, table, config.labels.values, shares, grid, source)
