"""Apply trained networks to files and folders: the model is loaded once, each case stands alone.

A mask lies on its source's grid with its source's header. A broken file among many is reported and
the others finish.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from voxseg.data.layouts import Case, find_cases
from voxseg.data.prepare import Prepared, prepare_case
from voxseg.data.volume import Volume, is_volume_file, read_channels
from voxseg.documents import document, json_text
from voxseg.engine.checkpoint import checkpoint_path, load_checkpoint
from voxseg.engine.config import Config
from voxseg.engine.device import Compute, choose_compute, choose_device
from voxseg.engine.inference import plan_memory, predict_probabilities
from voxseg.engine.network import network_of
from voxseg.engine.operations import Postprocessing, find_postprocessing
from voxseg.errors import UsageError, VoxsegError
from voxseg.export.label_table import write_label_table
from voxseg.export.nifti import write_map, write_mask
from voxseg.files import write_text
from voxseg.metrics.uncertainty import Members, entropy
from voxseg.models import VoxResNet
from voxseg.schemas import PREDICT

_LOW_MEMORY_GB = 1.0
_LOW_MEMORY_WINDOW = 64


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
    save_uncertainty: bool = False
    """Also entropy, and with several members (folds, flips) their disagreement."""
    tta: bool = False
    """Average over flips along the axes that training flipped."""
    low_memory: bool = False
    """Small windows within 1 GB instead of half of the free memory."""
    overwrite: bool = False
    skip_existing: bool = False
    postprocess: Path | bool = True
    """What is done to the masks: a file, or True for the cross-validation's own, False for nothing.
    Probabilities and uncertainty stay those of the networks."""


@dataclass(frozen=True)
class CaseOutcome:
    """What happened to one case."""

    case_id: str
    output: str
    seconds: float
    error: str
    """One sentence, or "" when all went well."""
    memory: str = ""
    """How it was run: whole or in windows, against which budget."""
    volumes: tuple["Volumes", ...] = ()
    """Of each class but background; empty where the mask was kept as it was."""
    postprocessing: str = ""
    """What was done to the mask; "" for nothing."""


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


class Predictor:
    """One network, or the folds of a cross-validation, ready for many cases.

    Args:
        checkpoint: see ``PredictRequest.checkpoint``.
        device: see ``voxseg.engine.device.choose_device``.
        low_memory: small windows.
    """

    def __init__(self, checkpoint: Path, device: str = "auto", low_memory: bool = False) -> None:
        self._networks: list[VoxResNet] = []
        configs: list[Config] = []
        for path in _checkpoints(checkpoint):
            content = load_checkpoint(path)
            network, config = network_of(content, path)
            self._networks.append(network)
            configs.append(config)
            self._dims = content["spatial_dims"]
            self._channels = content["in_channels"]
        self.config = configs[0]
        if any(c.labels != self.config.labels or c.data != self.config.data for c in configs):
            raise UsageError(f"the folds of {checkpoint} disagree on labels or data settings")
        settings = self.config.predict
        if low_memory:
            window = (_LOW_MEMORY_WINDOW,) * self._dims
            settings = replace(settings, memory_gb=_LOW_MEMORY_GB, window_voxels=window)
        self._settings = settings
        self.compute: Compute = choose_compute(
            choose_device(device),
            self.config.train.precision,
            self.config.train.memory_format,
            self._dims,
        )
        for network in self._networks:
            self.compute.place(network)

    def prepare(self, case: Case) -> Prepared:
        """Read and prepare a case as in training; its label is not needed and not read."""
        extra = self._dims if self.config.data.coordinates else 0
        wanted = self._channels - extra
        pooled = any(network.needs_superpixels for network in self._networks)
        supervoxels = self.config.supervoxels if pooled else None
        unlabelled = replace(case, label=None)
        values = self.config.labels.values
        prepared = prepare_case(unlabelled, self.config.data, values, supervoxels)
        if len(prepared.image) != wanted:
            raise UsageError(
                f"{case.case_id} has {len(prepared.image)} image channels, but the network was "
                f"trained on {wanted}; give the same channels in the same order"
            )
        return prepared

    def probabilities(
        self, case: Prepared, *, tta: bool = False, members: Members | None = None
    ) -> np.ndarray:
        """Class probabilities (num_classes, *S) on the prepared grid, averaged over the folds."""
        total: np.ndarray | None = None
        for network in self._networks:
            one = predict_probabilities(
                network,
                case,
                self.compute,
                self._settings,
                coordinates=self.config.data.coordinates,
                flip_axes=self.config.augment.flip_axes if tta else (),
                members=members,
            )
            total = one if total is None else np.add(total, one, out=total)
        assert total is not None
        return total / len(self._networks)

    def label(self, case: Prepared, probabilities: np.ndarray) -> np.ndarray:
        """Label map (X, Y, Z) on the source's grid, in the values of the training labels."""
        classes = case.grid.restore(probabilities)
        values = np.asarray(self.config.labels.values)
        return values[classes] if (values != np.arange(len(values))).any() else classes

    def memory(self, case: Prepared) -> str:
        """How this case will be run."""
        return str(plan_memory(self._networks[0], case.shape, self.compute, self._settings))


def predict(
    request: PredictRequest, notify: Callable[[CaseOutcome, int, int], None] = lambda *_: None
) -> list[CaseOutcome]:
    """Predict every case of ``request``; ``notify`` gets each outcome, its number and the total.

    A folder also gets ``predict.json``, and ``labels.csv`` and ``labels.ctbl``, which name and
    colour the classes in 3D Slicer.

    Raises:
        VoxsegError: nothing can be predicted at all; a single broken case is in its outcome.
    """
    cases = _find(request.inputs)
    targets = _targets(request, cases)
    predictor = Predictor(request.checkpoint, request.device, request.low_memory)
    labels = predictor.config.labels
    operations = find_postprocessing(request.checkpoint, request.postprocess, labels)
    outcomes = []
    for number, (case, target) in enumerate(zip(cases, targets, strict=True), 1):
        outcome = _predict_one(predictor, case, target, request, operations)
        outcomes.append(outcome)
        notify(outcome, number, len(cases))
    if target.parent == request.output:
        write_label_table(request.output, dict(zip(labels.values, labels.names, strict=True)))
        write_text(request.output / "predict.json", json_text(predict_document(outcomes)) + "\n")
    return outcomes


def predict_document(outcomes: Sequence[CaseOutcome]) -> dict[str, Any]:
    """What became of each case as plain values: ``predict.json``, and what ``--json`` prints."""
    return document(PREDICT, {"cases": [asdict(outcome) for outcome in outcomes]})


def _predict_one(
    predictor: Predictor,
    case: Case,
    target: Path,
    request: PredictRequest,
    operations: Postprocessing | None,
) -> CaseOutcome:
    if request.skip_existing and target.exists():
        return CaseOutcome(case.case_id, str(target), 0.0, "", "kept as it was")
    start = time.perf_counter()
    try:
        source = read_channels(case.images)
        prepared = predictor.prepare(case)
        memory = predictor.memory(prepared)
        members = Members(entropy=request.save_uncertainty)
        probabilities = predictor.probabilities(prepared, tta=request.tta, members=members)
        label = predictor.label(prepared, probabilities)
        if request.save_probabilities:
            _write_probabilities(predictor.config, prepared, probabilities, source, target)
        if request.save_uncertainty:
            _write_uncertainty(prepared, probabilities, members, source, target)
        if operations is not None:
            label = operations.apply(label)
        write_mask(target, label, source)  # last: where it is, --skip-existing finds all done
    except VoxsegError as error:
        return CaseOutcome(case.case_id, "", time.perf_counter() - start, str(error))
    seconds = time.perf_counter() - start
    volumes = _volumes(predictor.config, prepared, label, members, source)
    done = str(operations) if operations is not None else ""
    return CaseOutcome(case.case_id, str(target), seconds, "", memory, volumes, done)


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


def _write_uncertainty(
    case: Prepared, probabilities: np.ndarray, members: Members, source: Volume, target: Path
) -> None:
    """Write entropy, and disagreement where there is somebody to disagree; 0 outside the crop."""
    stem = target.name.removesuffix(".gz").removesuffix(".nii")
    maps = {"entropy": entropy(probabilities)}
    if members.count > 1:
        maps["disagreement"] = members.disagreement(probabilities)
    for name, values in maps.items():
        path = target.with_name(f"{stem}_{name}.nii.gz")
        write_map(path, case.grid.restore_map(values, 0.0), source)


def _write_probabilities(
    config: Config, case: Prepared, probabilities: np.ndarray, source: Volume, target: Path
) -> None:
    """Write one map a class, so that never more than one is held at the source's size."""
    stem = target.name.removesuffix(".gz").removesuffix(".nii")
    for k, value in enumerate(config.labels.values):
        outside = 1.0 if k == 0 else 0.0
        values = case.grid.restore_map(probabilities[k], outside)
        write_map(target.with_name(f"{stem}_probability-{value}.nii.gz"), values, source)


def _checkpoints(path: Path) -> list[Path]:
    folds: list[Path] = []
    if path.is_dir():
        for pattern in ("fold-*", "seed-*/fold-*"):
            folds = folds or sorted(path.glob(f"{pattern}/checkpoints/best.pt"))
    return folds or [checkpoint_path(path)]


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
    if is_volume_file(output):
        if len(cases) != 1:
            raise UsageError(
                f"{output} names one file, but there are {len(cases)} cases; name a folder"
            )
        targets = [output]
    else:
        if output.exists() and not output.is_dir():
            raise UsageError(f"{output} is a file; -o names a folder, or a .nii.gz for one input")
        targets = [output / f"{case.case_id}.nii.gz" for case in cases]
    sources = {path.resolve() for case in cases for path in case.images}
    for target in targets:
        if target.resolve() in sources:
            raise UsageError(f"{target} is an input; it would be overwritten, choose another -o")
    existing = [t for t in targets if t.exists()]
    if existing and not (request.overwrite or request.skip_existing):
        raise UsageError(f"{existing[0]} exists; use --overwrite, --skip-existing, or another -o")
    return targets
