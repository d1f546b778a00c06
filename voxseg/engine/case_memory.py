"""What a whole case will need, from its header alone: reading, preparing, predicting, writing.

Each stage is the sum of the arrays that live at once in it, in bytes a voxel; the case needs what
its hungriest stage does. The crop to the foreground is not known yet, so a case with much empty
space around it needs less than this.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from voxseg.data.superpixels import SupervoxelSettings, expected_count
from voxseg.engine.config import PredictConfig
from voxseg.engine.free_memory import free_gb, resident_gb
from voxseg.engine.gather import Wanted
from voxseg.engine.inference import Ensemble
from voxseg.engine.memory import MemoryPlan

_LIBRARIES_GB = 0.15  # what is loaded and compiled on the way
_SHARE = 0.5  # of what is free may go to a forward pass, and to arrays that last
_MOST = 0.8  # of what is free may go to both together
_LEAST_GB = 0.1


@dataclass(frozen=True, kw_only=True)
class Output:
    """What is asked for beside the mask."""

    folder: Path
    """Where probabilities may be kept that memory does not hold."""
    save_probabilities: bool = False
    save_tissues: bool = False
    save_uncertainty: bool = False
    tta: bool = False

    @property
    def has_maps(self) -> bool:
        """Whether floating point maps are written, which are made of all probabilities."""
        return self.save_probabilities or self.save_tissues or self.save_uncertainty


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is to be done with one case."""

    reading: int
    """Bytes that reading its files takes."""
    source_shape: tuple[int, ...]
    shape: tuple[int, ...]
    """Of the working grid."""
    spacing: tuple[float, ...]
    """Of the working grid, in mm."""
    channels: int
    is_resampled: bool
    supervoxels: SupervoxelSettings | None
    output: Output


@dataclass(frozen=True)
class CaseEstimate:
    """What a case will need and what there is."""

    needed_gb: float
    """Most memory that the process will hold."""
    free_gb: float
    """What it may take beyond what it holds already."""
    held_gb: float
    """What it holds already."""
    plan: MemoryPlan
    wanted: Wanted
    device: torch.device

    @property
    def is_enough(self) -> bool:
        """Whether there is as much as is needed."""
        return self.needed_gb - self.held_gb <= self.free_gb

    def __str__(self) -> str:
        how = str(self.plan.cut)
        if self.wanted.folder is not None:
            how += ", probabilities on disk"
        have = f"{self.free_gb:.1f} GB free"
        if self.device.type == "cuda":
            have += f"; {self.plan.needed_gb:.1f} of {free_gb(self.device):.1f} GB on the GPU"
        text = f"needs about {self.needed_gb:.1f} GB ({how}), {have}"
        return text if self.is_enough else f"{text}: not enough, it may be stopped"


def estimate_case(work: Work, ensemble: Ensemble, settings: PredictConfig) -> CaseEstimate:
    """Choose how a case is run, and estimate what that takes.

    Without a budget in ``settings``, a forward pass takes at most half of what is free, and less
    where the volume itself leaves less.
    """
    cpu = torch.device("cpu")
    free, held = free_gb(cpu), resident_gb()
    voxels = math.prod(work.shape)
    pools = work.supervoxels is not None
    volume = voxels * (4 * work.channels + 4 * pools)
    several = ensemble.num_members > 1
    is_averaged = several or work.output.has_maps or work.is_resampled
    sums = 4 * ensemble.num_classes * voxels if is_averaged else 0
    to_disk = sums / 1e9 > (settings.memory_gb or _SHARE * free - volume / 1e9)
    wanted = Wanted(
        probabilities=is_averaged,
        entropy=work.output.save_uncertainty and several,
        folder=work.output.folder if to_disk else None,
    )
    kept = _kept(voxels, wanted, sums)
    plan = ensemble.plan(
        work.shape, _with_budget(settings, ensemble, free, volume + kept), _supervoxels(work)
    )
    on_gpu = ensemble.compute.device.type == "cuda"
    forward = 1e9 * plan.needed_gb / 4 if on_gpu else 1e9 * plan.needed_gb
    most = max(
        *_preparation(work),
        volume + kept + forward,
        volume + kept + _writing(work, ensemble.num_classes),
    )
    return CaseEstimate(
        held + _LIBRARIES_GB + most / 1e9, free, held, plan, wanted, ensemble.compute.device
    )


def settings_for(estimate: CaseEstimate, settings: PredictConfig) -> PredictConfig:
    """Settings that hold a prepared case, smaller or not, to what was announced for it.

    A little more, for there may be more supervoxels than were expected.
    """
    return replace(settings, memory_gb=1.03 * estimate.plan.needed_gb)


def _with_budget(
    settings: PredictConfig, ensemble: Ensemble, free: float, lasting: float
) -> PredictConfig:
    if settings.memory_gb or ensemble.compute.device.type == "cuda":
        return settings
    left = min(_SHARE * free, _MOST * free - lasting / 1e9)
    return replace(settings, memory_gb=max(left, _LEAST_GB))


def _kept(voxels: int, wanted: Wanted, sums: int) -> int:
    """What is gathered of the members."""
    gathered = voxels if not wanted.probabilities else 0 if wanted.folder else sums
    return gathered + (4 * voxels if wanted.entropy else 0)


def _supervoxels(work: Work) -> int:
    """About how many there will be."""
    if work.supervoxels is None:
        return 0
    return expected_count(work.shape, work.spacing, work.supervoxels)


def _preparation(work: Work) -> list[int]:
    """Reading, resampling, normalising and dividing."""
    source, voxels = math.prod(work.source_shape), math.prod(work.shape)
    image = 4 * work.channels * voxels
    stages = [work.reading, image + image + 2 * voxels, image + (2 + 16) * voxels]
    if work.is_resampled:
        largest = math.prod(_larger(work.source_shape, work.shape))
        stages.append(4 * work.channels * source + image + 12 * largest)
    if work.supervoxels is not None and work.supervoxels.method == "slic":
        smoothed = (4 * work.channels + 12) * voxels if work.supervoxels.sigma_mm else 0
        # Scaled copy and labels; afterwards labels, their runs, and small pieces of these.
        stages.append(image + 2 * voxels + smoothed + max(4 * work.channels + 4, 11) * voxels)
    return stages


def _larger(one: Sequence[int], other: Sequence[int]) -> list[int]:
    # Axes may be in another order; sorted, their larger sizes bound every step on the way.
    return [max(pair) for pair in zip(sorted(one), sorted(other), strict=True)]


def _writing(work: Work, classes: int) -> int:
    """Labels on both grids and the check of what was written; float maps take more."""
    source, voxels = math.prod(work.source_shape), math.prod(work.shape)
    width = 1 if classes <= 256 else 4
    labels = width * (2 * voxels + 5 * source)
    if not work.output.has_maps:
        return labels
    lasting = 8 * voxels if work.output.save_uncertainty else 0
    return labels + lasting + 12 * voxels + 22 * source
