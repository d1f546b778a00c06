"""The whole way once, in a few minutes: simulate, train, fine-tune, predict, score, report.

The subjects are simulated from the MNI152 template (``data/simulate.py``), and the page says so.
As in the paper, a baseline is trained first, and the network with a supervoxel branch starts from
its weights (arXiv:1806.02705, section 3.2). Stopped and started again, the demo goes on.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxseg.data.cases import Case
from voxseg.data.reading import read_label
from voxseg.data.simulate import CLASS_NAMES, simulate_subject
from voxseg.data.volume import read_image
from voxseg.documents import write_document
from voxseg.engine.checkpoint import load_checkpoint
from voxseg.engine.config import merge
from voxseg.engine.evaluate import Evaluation, evaluate, write_evaluation
from voxseg.engine.network import network_of
from voxseg.engine.predict import Predictor, PredictRequest, predict
from voxseg.engine.progress import Progress, TrainResult
from voxseg.engine.slicer_files import SlicerFiles
from voxseg.engine.train import TrainRequest, train
from voxseg.errors import UsageError, VoxsegError
from voxseg.export.nifti import plain_geometry, write_map, write_mask
from voxseg.export.report import Report, ReportCase, ReportTable, write_report
from voxseg.metrics import EMPTY_POLICY
from voxseg.metrics.summary import SummaryRow
from voxseg.schemas import DEMO_SETTINGS

NUM_TRAINING = 7
"""Subjects in the training folder; one of them chooses the best weights."""
SIMULATED = (
    "All subjects are simulated: random deformations of one real template brain (MNI152, T1 and "
    "tissue maps as nilearn ships them), with bias field, noise and contrast added. The scores say "
    "that the program works, not how well it segments real brains."
)

_MARKER = "demo.json"
_TOLERANCE_MM = 2.0  # one voxel
_PARTS = ("training", "unseen", "truth", "baseline", "supervoxels", "predictions", "scores")
_BASELINE: dict[str, Any] = {
    "model": {"design": "V0", "stages": 1, "width_divisor": 8},
    "labels": {
        "values": list(CLASS_NAMES),
        "names": list(CLASS_NAMES.values()),
        "table": "brain-tissues",
    },
    "train": {
        "epochs": 20,
        "steps_per_epoch": 50,
        "batch_size": 2,
        "patch_voxels": [48, 48, 48],
        "learning_rate": 1e-2,
        "max_minutes": 2.1,
    },
    # Flips only: a few minutes are too short to profit from more.
    "augment": {"affine_probability": 0.0, "intensity_probability": 0.0},
}
_SUPERVOXELS: dict[str, Any] = {
    "model": {"design": "V3"},
    "supervoxels": {"method": "slic", "size_mm": 6.0},
    "train": {"epochs": 10, "learning_rate": 5e-3, "max_minutes": 2.2},
}


@dataclass(frozen=True, kw_only=True)
class DemoRequest:
    """Where the demo writes and what it may change."""

    output: Path
    seed: int = 0
    device: str = "auto"
    overwrite: bool = False
    settings: dict[str, Any] | None = None
    """Nested tables over both trainings' settings; see ``voxseg.engine.config``."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo made."""

    evaluation: Evaluation
    mask: Path
    image: Path
    label_table: Path
    segmentation: Path
    """The mask for 3D Slicer."""
    scene: Path
    """Image and mask for 3D Slicer."""
    report: Path
    run: Path
    """The run folder of the network with supervoxels."""
    seconds: float


def run_demo(
    request: DemoRequest,
    notify: Callable[[Progress], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> DemoResult:
    """Run the demo in ``request.output``.

    Args:
        request: Folder, seed, device.
        notify: Called after each training step.
        say: Called with one sentence for what is worth a line.

    Raises:
        UsageError: The folder holds something else.
        VoxsegError: nilearn is missing, or a step failed.
    """
    start = time.perf_counter()
    output = request.output
    _open(request)
    say(SIMULATED)
    _simulate(output, request.seed, say)
    say("1/4 training the baseline, a Reduced (/8) VoxResNet without supervoxels")
    baseline = _train(request, "baseline", _BASELINE, None, notify, say)
    say("2/4 fine-tuning with a supervoxel branch (V3) from the baseline's weights")
    settings = merge(_BASELINE, _SUPERVOXELS)
    tuned = _train(request, "supervoxels", settings, baseline.checkpoint, notify, say)
    say("3/4 predicting the unseen subject and scoring it")
    for_slicer = SlicerFiles(with_scene=True)
    (outcome,) = predict(
        PredictRequest(
            checkpoint=output / "supervoxels",
            inputs=(output / "unseen",),
            output=output / "predictions",
            device=request.device,
            overwrite=True,
            extras=(for_slicer,),
            beside=for_slicer.endings,
        )
    )
    if outcome.error:
        raise VoxsegError(outcome.error)
    evaluation = evaluate(
        output / "predictions", output / "truth", tolerance_mm=_TOLERANCE_MM, names=CLASS_NAMES
    )
    assert isinstance(evaluation, Evaluation)
    write_evaluation(evaluation, output / "scores", overwrite=True)
    say("4/4 drawing the report")
    image = next((output / "unseen").glob("*.nii.gz"))
    segmentation, scene = (Path(path) for path in outcome.also)
    result = DemoResult(
        evaluation,
        Path(outcome.output),
        image,
        output / "predictions" / "labels.csv",
        segmentation,
        scene,
        output / "report.html",
        output / "supervoxels",
        time.perf_counter() - start,
    )
    write_report(result.report, _report(result, baseline, tuned, request))
    return result


def _open(request: DemoRequest) -> None:
    """Make the folder or take up one of an earlier demo; nothing else is touched."""
    output = request.output
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file; -o names a folder for the demo")
    marker = output / _MARKER
    if output.is_dir() and any(output.iterdir()) and not marker.is_file():
        raise UsageError(f"{output} holds files of something else; choose another -o")
    wanted = {"seed": request.seed, "settings": request.settings or {}}
    if marker.is_file():
        stored = json.loads(marker.read_text(encoding="utf-8"))
        if not request.overwrite and {key: stored.get(key) for key in wanted} == wanted:
            return
        if not request.overwrite:
            raise UsageError(
                f"{output} holds a demo with other settings; use --overwrite, or choose another -o"
            )
        for part in _PARTS:
            shutil.rmtree(output / part, ignore_errors=True)
    write_document(marker, DEMO_SETTINGS, wanted)


def _simulate(output: Path, seed: int, say: Callable[[str], None]) -> None:
    """Write the training subjects with labels, and the unseen one with its truth apart."""
    say(f"simulating {NUM_TRAINING} subjects to train on and 1 that is never trained on")
    for number in range(1, NUM_TRAINING + 2):
        name = f"subject_{number:02d}"
        if number <= NUM_TRAINING:
            image = output / "training" / f"{name}.nii.gz"
            label = output / "training" / f"{name}_seg.nii.gz"
        else:
            image = output / "unseen" / f"{name}.nii.gz"
            label = output / "truth" / f"{name}.nii.gz"
        if image.exists() and label.exists():
            continue
        subject = simulate_subject(np.random.default_rng([seed, number]))
        geometry = plain_geometry(subject.affine, subject.image.shape, code="mni")
        write_map(image, subject.image, geometry)
        write_mask(label, subject.label, geometry)


def _train(
    request: DemoRequest,
    name: str,
    settings: dict[str, Any],
    init_from: Path | None,
    notify: Callable[[Progress], None],
    say: Callable[[str], None],
) -> TrainResult:
    settings = merge(settings, {"train": {"seed": request.seed}})
    settings = merge(settings, request.settings or {})
    return train(
        TrainRequest(
            data=request.output / "training",
            run=request.output / name,
            settings=settings,
            val_fraction=1 / NUM_TRAINING,
            init_from=init_from,
            device=request.device,
            resume=True,
        ),
        notify,
        say,
    )


def _report(
    result: DemoResult, baseline: TrainResult, tuned: TrainResult, request: DemoRequest
) -> Report:
    network, config = network_of(load_checkpoint(tuned.checkpoint), tuned.checkpoint)
    parameters = sum(p.numel() for p in network.parameters())
    facts = {
        "Network": f"Reduced (/8) VoxResNet V3, {parameters:,} parameters",
        "Supervoxels": f"SLIC, {config.supervoxels.size_mm:g} mm, max pooling",
        "Subjects": f"{NUM_TRAINING - 1} to train on, 1 to choose the best weights, 1 to score",
        "Training": f"{baseline.steps} steps of the baseline in {baseline.seconds:.0f} s, then "
        f"{tuned.steps} of fine-tuning in {tuned.seconds:.0f} s",
        "Seed": str(request.seed),
        "Mask": str(result.mask),
        "Colours for 3D Slicer": str(result.label_table),
        "Segmentation for 3D Slicer": str(result.segmentation),
        "Scene for 3D Slicer": str(result.scene),
    }
    return Report(
        title="voxseg demo",
        subtitle="Brain tissues by a supervoxel-pooled VoxResNet, trained in a few minutes",
        class_names=CLASS_NAMES,
        facts=facts,
        warnings=(SIMULATED,),
        tables=(_score_table(result.evaluation),),
        cases=_cases(result, request.device),
    )


def _score_table(evaluation: Evaluation) -> ReportTable:
    columns = (
        ("dice", "Dice", 3), ("iou", "IoU", 3),
        ("surface_dice", f"surface Dice {evaluation.tolerance_mm:g} mm", 3),
        ("hd95_mm", "HD95 mm", 2), ("assd_mm", "ASSD mm", 2),
        ("volume_difference_ml", "volume error ml", 1),
    )  # fmt: skip

    def cell(row: SummaryRow, name: str, digits: int) -> str:
        statistic = row.statistics.get(name)
        known = statistic is not None and statistic.defined
        return f"{statistic.mean:.{digits}f}" if statistic and known else "-"

    return ReportTable(
        title="The unseen subject",
        columns=("class", *(head for _, head, _ in columns)),
        rows=[
            [row.name, *(cell(row, name, digits) for name, _, digits in columns)]
            for row in evaluation.summary.rows
        ],
        note=EMPTY_POLICY,
    )


def _cases(result: DemoResult, device: str) -> Iterator[ReportCase]:
    """Read back what was written, with the supervoxels that the network pooled."""
    image, prediction = read_image(result.image), read_label(result.mask)
    (case_id,) = result.evaluation.scores
    truth = read_label(result.run.parent / "truth" / result.mask.name)
    prepared = Predictor(result.run, device).prepare(Case(case_id, (result.image,), None))
    assert prepared.superpixels is not None
    dice = result.evaluation.summary.foreground_dice
    yield ReportCase(
        case_id,
        image.array,
        image.affine,
        prediction.array,
        truth.array,
        # Demo subjects are never resampled, so this moves whole numbers only.
        prepared.grid.restore_map(prepared.superpixels, -1).astype(np.int32),
        errors=True,
        caption=f"Mean foreground Dice {dice:.3f}.",
    )
