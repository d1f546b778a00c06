"""Whether an exported network answers as voxseg does: on a volume, before anything is kept."""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from voxseg.data.layouts import Case, find_cases
from voxseg.data.prepare import Prepared, coordinate_channels
from voxseg.engine.portable_run import PortableRun
from voxseg.engine.predictor import Predictor
from voxseg.errors import UsageError, VoxsegError
from voxseg.export.nifti import plain_geometry, write_map
from voxseg.ops.superpixel_places import superpixel_places

_LOGITS = 1e-3
"""Largest difference of logits, relative to the largest logit where that is above 1."""
_SYNTHETIC_SHAPE = (44, 40, 36)
_NOISE_SPACING = (0.7, 2.3, 1.4)

Run = Callable[[tuple[np.ndarray, ...]], np.ndarray]
"""An exported network: its inputs to its logits."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """How far an exported network's mask lies from voxseg's own."""

    case: str
    """Name of the volume."""
    is_synthetic: bool
    """Whether it was made up: no volume was given."""
    voxels: int
    """Of its mask."""
    classes: int
    """How many classes voxseg's mask of it holds."""
    differing_voxels: int
    differing_share: float
    tolerance: float
    """Largest share that was allowed."""
    logits_difference: float | None = None
    """Largest absolute difference of logits, on the volume and on noise of other sizes; None where
    only masks were compared."""

    def to_json(self, *, is_passed_on: bool = False) -> dict[str, Any]:
        """Everything as plain values; what is passed on with a network does not name its case."""
        content = asdict(self)
        if is_passed_on and not self.is_synthetic:
            content["case"] = ""
        return content

    def __str__(self) -> str:
        kind = "a synthetic volume" if self.is_synthetic else self.case
        return (
            f"{self.differing_voxels} of {self.voxels} voxels differ from voxseg's mask of {kind}, "
            f"which holds {self.classes} {'class' if self.classes == 1 else 'classes'}"
        )


@dataclass(frozen=True, eq=False)
class Reference:
    """What voxseg says about a volume, in float32 on the CPU."""

    case: Case
    is_synthetic: bool
    prepared: Prepared
    label: np.ndarray
    """(X, Y, Z) on the source's grid."""
    _predictor: Predictor

    def label_of(self, logits: np.ndarray) -> np.ndarray:
        """Turn logits (N, *S) of the prepared volume into a label map like voxseg's."""
        shares = torch.from_numpy(logits).softmax(0).numpy()
        return self._predictor.label(self.prepared, shares)

    def compare(
        self, label: np.ndarray, tolerance: float, logits_difference: float | None = None
    ) -> Check:
        """Compare a mask of an exported network with voxseg's own."""
        if label.shape != self.label.shape:
            raise VoxsegError(
                f"the exported network's mask of {self.case.case_id} is {label.shape} and voxseg's "
                f"{self.label.shape}: nothing was kept"
            )
        differing = int(np.count_nonzero(label != self.label))
        return Check(
            case=self.case.case_id,
            is_synthetic=self.is_synthetic,
            voxels=self.label.size,
            classes=len(np.unique(self.label)),
            differing_voxels=differing,
            differing_share=differing / self.label.size,
            tolerance=tolerance,
            logits_difference=logits_difference,
        )


@contextmanager
def reference(run: PortableRun, volume: Path | None) -> Iterator[Reference]:
    """Segment a volume with voxseg.

    Args:
        run: the network.
        volume: a file or folder of one case; None makes one up, whose files go afterwards: an
            ellipsoid of some tissues in noise, with its axes turned and flipped.

    Raises:
        DataError: the volume cannot be read.
        UsageError: it is several cases, a photograph, or has other channels than the network.
    """
    with tempfile.TemporaryDirectory(prefix="voxseg-") as folder:
        case = _synthetic(run, Path(folder)) if volume is None else _single(volume)
        predictor = Predictor(run.path, "cpu")
        # Other runtimes compute in float32, whatever the precision of the training.
        predictor.compute = replace(predictor.compute, precision=torch.float32)
        # And they answer once, whatever the run's own predictions are averaged over.
        once = replace(predictor.config.predict, tta=False)
        predictor.config = replace(predictor.config, predict=once)
        prepared = predictor.prepare(case)
        label = predictor.label(prepared, predictor.probabilities(prepared))
        yield Reference(case, volume is None, prepared, label, predictor)


def check_network(run: PortableRun, exported: Run, known: Reference, tolerance: float) -> Check:
    """Compare an exported network with the original, on a volume and on noise of other sizes.

    Raises:
        VoxsegError: they differ by more than is allowed.
    """
    inputs = network_inputs(run, known.prepared)
    logits, difference = _difference(run, exported, inputs)
    for shape in _other_sizes(run):
        difference = max(difference, _difference(run, exported, _noise(run, shape))[1])
    check = known.compare(known.label_of(logits), tolerance, difference)
    refuse_difference(check)
    return check


def refuse_difference(check: Check) -> None:
    """Refuse an exported network whose mask differs by more than is allowed.

    Raises:
        VoxsegError: so it is.
    """
    if check.differing_share > check.tolerance:
        raise VoxsegError(
            f"the exported network is not the original: {check}, {check.differing_share:.3%} where "
            f"{check.tolerance:.3%} is allowed (--tolerance); nothing was kept"
        )


def network_inputs(run: PortableRun, case: Prepared) -> tuple[np.ndarray, ...]:
    """What a network is given of a prepared case: its image, and superpixels where it pools them.

    Returns:
        (1, C, *S) float32 and, with pooled designs, (1, *S) int64; with V4 also the size of a voxel
        in mm, (D,) float32.
    """
    image = case.image
    if run.config.data.coordinates:
        whole = tuple(slice(0, n) for n in case.shape)
        image = np.concatenate([image, coordinate_channels(case.mask_box, whole)])
    if case.superpixels is None:
        return (image[None],)
    superpixels = case.superpixels[None].astype(np.int64)
    if not run.needs_places:
        return image[None], superpixels
    return image[None], superpixels, np.array(case.spacing, np.float32)


def _difference(
    run: PortableRun, exported: Run, inputs: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, float]:
    """Run both; return the exported one's logits of the first image, and how far they are off.

    Raises:
        VoxsegError: they are further off than any mask could excuse.
    """
    with torch.inference_mode():
        tensors = [torch.from_numpy(one) for one in inputs]
        expected = _original(run, tensors).numpy()
    try:
        found = exported(inputs)
    except Exception as error:  # of whatever runtime
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise VoxsegError(
            f"the exported network does not run on an image of {inputs[0].shape} ({reason}); "
            "nothing was kept"
        ) from None
    if found.shape != expected.shape:
        raise VoxsegError(
            f"the exported network answers {found.shape} where the original answers "
            f"{expected.shape}: nothing was kept"
        )
    difference = float(np.abs(found - expected).max())
    allowed = _LOGITS * max(1.0, float(np.abs(expected).max()))
    if not difference <= allowed:  # a NaN is no small difference
        raise VoxsegError(
            f"the exported network is not the original: logits differ by {difference:.2g} where "
            f"{allowed:.2g} is allowed; nothing was kept"
        )
    return found[0], difference


def _original(run: PortableRun, tensors: Sequence[Tensor]) -> Tensor:
    image, *others = tensors
    superpixels = count = places = None
    if run.needs_superpixels:
        superpixels = others[0]
        count = max(0, int(superpixels.max())) + 1
        if run.needs_places:
            places = superpixel_places(superpixels, count, others[1].tolist())
    logits: Tensor = run.network(image, superpixels, count, places)
    return logits


def _other_sizes(run: PortableRun) -> list[tuple[int, ...]]:
    """Sizes (B, *S): a multiple of every stride alone, and several of an odd size."""
    first, second, third = run.example_shape
    step = third - 6
    return [(1, step, step, step), (3, second - 1, first, third - 1)]


def _noise(run: PortableRun, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Random inputs; some voxels have no superpixel."""
    generator = np.random.default_rng(0)
    batch, *size = shape
    image = generator.standard_normal((batch, run.channels, *size)).astype(np.float32)
    if not run.needs_superpixels:
        return (image,)
    labels = np.arange(math.prod(size)).reshape(size) // 20 - 1
    superpixels = np.broadcast_to(labels, (batch, *size)).astype(np.int64)
    if not run.needs_places:
        return image, superpixels
    return image, superpixels, np.array(_NOISE_SPACING, np.float32)


def _single(volume: Path) -> Case:
    found = find_cases(volume, need_labels=False)
    cases = [*found.cases, *found.unlabelled]
    if len(cases) != 1:
        raise UsageError(f"--case takes one volume, and {volume} holds {len(cases)}; name a file")
    if cases[0].is_image:
        raise UsageError(f"--case takes a volume, and {volume} is a photograph")
    return cases[0]


def _synthetic(run: PortableRun, folder: Path) -> Case:
    spacing = run.config.data.spacing_mm or (1.0, 1.0, 1.0)
    size = np.array(_SYNTHETIC_SHAPE)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij")
    radius = np.sqrt(sum((a * k) ** 2 for a, k in zip(axes, (1.0, 1.1, 1.2), strict=True)))
    tissue = np.digitize(-radius, (-0.95, -0.7, -0.4))
    affine = np.zeros((4, 4))  # array axes run to posterior, left, superior
    affine[[1, 0, 2], [0, 1, 2]] = np.array((-1.0, -1.0, 1.0)) * np.array(spacing)[[1, 0, 2]]
    affine[:, 3] = 20, 15, -10, 1
    generator = np.random.default_rng(0)
    paths = []
    for channel in range(run.image_channels):
        values = 100.0 * tissue + generator.normal(0, 15, tissue.shape)
        values = np.where(tissue > 0, np.maximum(values, 1), 0).astype(np.float32)
        path = folder / f"synthetic_{channel:04}.nii.gz"
        paths.append(write_map(path, values, plain_geometry(affine, tissue.shape)))
    return Case("synthetic", tuple(paths), None)
