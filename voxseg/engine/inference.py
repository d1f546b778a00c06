"""One prepared volume through the networks: as a whole when it fits, else in parts.

What fits is estimated beforehand (``memory.py``). Should memory run out all the same, the volume is
tried again with half as much, and so on: at the end there are small tiles and probabilities on
disk, and only then the case fails.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from voxseg.data.prepare import Prepared, PrepareSettings
from voxseg.engine.config import PredictConfig
from voxseg.engine.device import Compute
from voxseg.engine.free_memory import free_gb
from voxseg.engine.gather import Gathered, Wanted
from voxseg.engine.memory import MemoryPlan, lower, plan_memory
from voxseg.engine.network import SegmentationNetwork
from voxseg.engine.slices import SliceView, looks, run_slices
from voxseg.engine.streaming import View, run_pass
from voxseg.errors import VoxsegError
from voxseg.tasks.answers import Answer, Shares

_ALLOCATION_FAILED = (
    "can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory",
    "bad allocation", "std::bad_alloc",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Networks whose probabilities are averaged, and how they see a volume."""

    networks: Sequence[SegmentationNetwork]
    """In evaluation mode, on ``compute``'s device."""
    compute: Compute
    data: PrepareSettings
    """As in training: coordinate channels, slices and their neighbours."""
    flip_axes: tuple[int, ...] = ()
    """Spatial axes for test-time flips; each combination of them is a member."""
    scales: tuple[float, ...] = (1.0,)
    """Sizes at which slices are seen; each is a member."""
    shorter_side: int = 0
    """Pixels of a slice's shorter side at a size of 1; 0 for its own."""
    answer: Answer | None = None
    """How the networks' outputs are read; None: as classes."""

    @property
    def read_as(self) -> Answer:
        """How the networks' outputs are read."""
        return self.answer or Shares(self.networks[0].num_classes)

    @property
    def num_classes(self) -> int:
        """N, or the number of values of another task."""
        return self.read_as.channels

    @property
    def looks(self) -> tuple[SliceView, ...]:
        """How slices are seen, one after the other; none by a network of volumes."""
        return tuple(
            looks(
                self.data.slice_axes,
                neighbours=self.data.neighbours,
                coordinates=self.data.coordinates,
                scales=self.scales,
                shorter_side=self.shorter_side,
                flips=_flip_combinations(self.flip_axes),
            )
        )

    @property
    def num_members(self) -> int:
        """Networks times planes, sizes and combinations of flips."""
        views = len(self.looks) or len(_flip_combinations(self.flip_axes))
        return len(self.networks) * views

    def plans(
        self, shape: Sequence[int], settings: PredictConfig, supervoxels: int
    ) -> list[MemoryPlan]:
        """How each network will be run; folds may differ in what they reach and need.

        Of slices, the plan is that of the largest, however they are seen.
        """
        sizes = {look.size(shape) for look in self.looks} or {tuple(shape)}
        return [
            largest(
                [
                    plan_memory(network, size, self.compute, settings, supervoxels=supervoxels)
                    for size in sorted(sizes)
                ]
            )
            for network in self.networks
        ]

    def plan(self, shape: Sequence[int], settings: PredictConfig, supervoxels: int) -> MemoryPlan:
        """How the network that needs most will be run."""
        return largest(self.plans(shape, settings, supervoxels))


def largest(plans: Sequence[MemoryPlan]) -> MemoryPlan:
    """The plan that needs most."""
    return max(plans, key=lambda plan: plan.needed_gb)


def predict_probabilities(
    network: SegmentationNetwork,
    case: Prepared,
    compute: Compute,
    settings: PredictConfig,
    data: PrepareSettings,
    *,
    flip_axes: Sequence[int] = (),
    answer: Answer | None = None,
) -> np.ndarray:
    """Class probabilities of one prepared volume, in memory.

    Args:
        network: in evaluation mode, on ``compute``'s device.
        case: its image (C, *S), and supervoxels where the network pools them.
        compute: device, precision, memory layout.
        settings: windows and memory budget.
        data: coordinate channels and slices, as in training.
        flip_axes: spatial axes for test-time flips; the mean over all combinations is returned.
        answer: how the network's outputs are read; None: as classes.

    Returns:
        (num_classes, *S) float32, summing to 1 over classes; the values of another task.
    """
    ensemble = Ensemble(
        networks=(network,),
        compute=compute,
        data=data,
        flip_axes=tuple(flip_axes),
        answer=answer,
    )
    gathered, _ = gather(ensemble, case, settings, Wanted())
    assert isinstance(gathered.probabilities, np.ndarray)
    return gathered.probabilities


def gather(
    ensemble: Ensemble,
    case: Prepared,
    settings: PredictConfig,
    wanted: Wanted,
    *,
    spare: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Gathered, str]:
    """Run all members over a case, with less and less memory until it is enough.

    Args:
        ensemble: the networks.
        case: prepared, with supervoxels where a network pools them.
        settings: budget and windows.
        wanted: what is kept of the probabilities.
        spare: folder for probabilities when memory runs out; None keeps them in memory always.
        say: is told of each step down.

    Returns:
        What was kept, to be closed when it is no longer needed, and in words how it was run.

    Raises:
        VoxsegError: memory runs out in the most frugal way.
    """
    if not wanted.probabilities and ensemble.num_members > 1:
        raise ValueError("several members are averaged: ask for their probabilities")
    supervoxels = 0 if case.superpixels is None else int(case.superpixels.max()) + 1
    story = []
    while True:
        plans = ensemble.plans(case.shape, settings, supervoxels)
        plan = largest(plans)
        story.append(str(plan.cut))
        try:
            return _run(ensemble, case, settings, plans, wanted), _told(story)
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error):
                raise
            failure = " ".join(str(error).split(". ")[0].split())
        # Outside of the handler nothing holds on to the tensors of the failed try.
        gc.collect()
        if ensemble.compute.device.type == "cuda":
            torch.cuda.empty_cache()
        settings = lower(plan, settings)
        following = ensemble.plan(case.shape, settings, supervoxels)
        to_disk = wanted.probabilities and wanted.folder is None and spare is not None
        if following.cut == plan.cut and not to_disk:
            raise VoxsegError(
                f"{case.case_id} ran out of memory even in {plan.cut}: it needed about "
                f"{plan.needed_gb:.1f} GB besides the volume, and "
                f"{free_gb(ensemble.compute.device):.1f} GB is free now; close other programs, "
                f"use a machine with more, or resample to larger voxels ({failure})"
            )
        if to_disk and (len(story) > 1 or following.cut == plan.cut):
            wanted = replace(wanted, folder=spare)
        kept = " with probabilities on disk" if wanted.folder else ""
        say(f"{case.case_id}: out of memory ({plan.cut}); trying {following.cut}{kept}")


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, on whatever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in _ALLOCATION_FAILED)


@torch.inference_mode()
def _run(
    ensemble: Ensemble,
    case: Prepared,
    settings: PredictConfig,
    plans: Sequence[MemoryPlan],
    wanted: Wanted,
) -> Gathered:
    gathered = Gathered(ensemble.num_classes, case.shape, wanted)
    compute = ensemble.compute
    try:
        for network, plan in zip(ensemble.networks, plans, strict=True):
            for look in ensemble.looks:
                gathered.start()
                run_slices(network, case, look, compute, settings, gathered, ensemble.read_as)
            if ensemble.looks:
                continue
            for flips in _flip_combinations(ensemble.flip_axes):
                gathered.start()
                view = View(case, compute, coordinates=ensemble.data.coordinates, flips=flips)
                run_pass(network, view, compute, plan, gathered, ensemble.read_as)
    except BaseException:
        gathered.close()
        raise
    gathered.finish()
    return gathered


def _told(story: Sequence[str]) -> str:
    *failed, last = story
    return f"{last}, after {'; '.join(failed)} did not fit" if failed else last


def _flip_combinations(axes: Sequence[int]) -> list[tuple[int, ...]]:
    combinations: list[tuple[int, ...]] = [()]
    for axis in axes:
        combinations += [(*c, axis) for c in combinations]
    return combinations
