"""One prepared volume through a network: whole when it fits, else by blended windows.

Supervoxels are pooled once over the whole volume, never per window: features are blended over the
windows first, and only the classifier sees the supervoxel map; a value per window would put seams
into regions.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from torch import Tensor

from voxseg.data.prepare import Prepared, coordinate_channels
from voxseg.engine.config import PredictConfig
from voxseg.engine.device import Compute
from voxseg.metrics.uncertainty import Members
from voxseg.models.voxresnet import VoxResNet

_SAFETY = 1.3  # convolution workspaces and allocator slack, on top of the maps that are counted
_FIXED_GB = 0.1  # what libraries keep whatever the size


@dataclass(frozen=True)
class MemoryPlan:
    """How a volume will be run, and why."""

    needed_gb: float
    budget_gb: float

    @property
    def whole(self) -> bool:
        """Whether one forward pass over the whole volume fits the budget."""
        return self.needed_gb <= self.budget_gb

    def __str__(self) -> str:
        how = "whole volume at once" if self.whole else "sliding windows"
        return f"{how} (needs {self.needed_gb:.2f} GB, budget {self.budget_gb:.2f} GB)"


def plan_memory(
    network: VoxResNet, shape: Sequence[int], compute: Compute, settings: PredictConfig
) -> MemoryPlan:
    """Estimate what one forward pass over ``shape`` needs, against the budget."""
    # Maps of full size that live at once: input, stem and its normalised copies, fused features.
    per_voxel = network.in_channels + 5 * network.feature_channels + 3 * network.num_classes
    filled = [-(-n // s) * s for n, s in zip(shape, network.trunk.strides[-1], strict=True)]
    values = per_voxel * float(np.prod(np.asarray(filled, dtype=np.float64)))
    size = torch.finfo(compute.precision).bits // 8
    needed = _SAFETY * values * size / 1e9 + _FIXED_GB
    free = free_gb(compute.device) / compute.sharing
    return MemoryPlan(needed, settings.memory_gb or 0.5 * free)


def free_gb(device: torch.device) -> float:
    """Memory that is free on ``device``, in GB."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 1e9
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        lines = dict(line.split(":", 1) for line in text.splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024 / 1e9
    except (OSError, KeyError, ValueError):
        return 4.0  # no such file on this system; a laptop has this much


@torch.inference_mode()
def predict_probabilities(
    network: VoxResNet,
    case: Prepared,
    compute: Compute,
    settings: PredictConfig,
    *,
    coordinates: bool,
    flip_axes: Sequence[int] = (),
    members: Members | None = None,
) -> np.ndarray:
    """Class probabilities of one prepared volume.

    Args:
        network: in evaluation mode, on ``compute``'s device.
        case: its image (C, *S), and supervoxels where the network pools them.
        compute: device, precision, memory layout.
        settings: windows and memory budget.
        coordinates: append coordinate channels, as in training.
        flip_axes: spatial axes for test-time flips; the mean over all combinations is returned.
        members: is told of each combination's own answer.

    Returns:
        (num_classes, *S) float32, summing to 1 over classes.
    """
    total: Tensor | None = None
    combinations = _flip_combinations(flip_axes)
    for axes in combinations:
        probabilities = _one_pass(network, case, compute, settings, coordinates, axes)
        if members is not None:
            members.add(probabilities.numpy())
        total = probabilities if total is None else total.add_(probabilities)
    assert total is not None
    return (total / len(combinations)).numpy()


def _one_pass(
    network: VoxResNet,
    case: Prepared,
    compute: Compute,
    settings: PredictConfig,
    coordinates: bool,
    flips: tuple[int, ...],
) -> Tensor:
    image, superpixels = _inputs(case, coordinates, flips, compute)
    plan = plan_memory(network, case.shape, compute, settings)
    count = 0 if superpixels is None else int(superpixels.max()) + 1
    pooled = network.needs_superpixels
    step = network.features if pooled else network.forward
    with compute.autocast():
        if plan.whole:
            output = step(image)
        else:
            with warnings.catch_warnings():
                # MONAI indexes with a list where newer torch wants a tuple; nothing of ours.
                warnings.simplefilter("ignore", UserWarning)
                blended = sliding_window_inference(
                    image,
                    roi_size=_window(settings, image.ndim - 2),
                    sw_batch_size=1,
                    predictor=step,
                    overlap=settings.overlap,
                    mode="gaussian",
                )
            assert isinstance(blended, Tensor)
            output = blended
        logits = network.classify(output, superpixels, max(count, 1)) if pooled else output
    probabilities = logits[0].float().softmax(0)
    return probabilities.flip([a + 1 for a in flips]).cpu()


def _window(settings: PredictConfig, dims: int) -> tuple[int, ...]:
    window = settings.window_voxels
    return window if len(window) == dims else (window[0],) * dims


def _inputs(
    case: Prepared, coordinates: bool, flips: tuple[int, ...], compute: Compute
) -> tuple[Tensor, Tensor | None]:
    image = torch.from_numpy(np.ascontiguousarray(case.image)).flip([a + 1 for a in flips])
    if coordinates:
        window = tuple(slice(0, n) for n in case.shape)
        position = torch.from_numpy(coordinate_channels(case.mask_box, window))
        position = position.flip([a + 1 for a in flips])
        for axis in flips:
            position[axis] *= -1  # a mirrored head lies at mirrored positions
        image = torch.cat([image, position])
    image = image[None].to(compute.device)
    image = image.contiguous(memory_format=compute.memory_format)
    if case.superpixels is None:
        return image, None
    superpixels = torch.from_numpy(np.ascontiguousarray(case.superpixels)).flip(list(flips))
    return image, superpixels[None].to(compute.device)


def _flip_combinations(axes: Sequence[int]) -> list[tuple[int, ...]]:
    combinations: list[tuple[int, ...]] = [()]
    for axis in axes:
        combinations += [(*c, axis) for c in combinations]
    return combinations
