"""Training patches: where to cut, and the cut itself.

A patch is drawn from its own seed alone, so that any number of processes, and a run that was
stopped and resumed, see the same patches.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from voxseg.data.normalise import OUTSIDE
from voxseg.data.prepare import Prepared, coordinate_channels
from voxseg.data.superpixels import compact
from voxseg.data.transforms import Augment

_POSITIONS_KEPT = (
    20_000  # voxels remembered per class and case; enough to be dense, small in memory
)


@dataclass(frozen=True)
class Batch:
    """Patches of one training step."""

    image: torch.Tensor
    """(B, C, *S) float32, coordinate channels included."""
    label: torch.Tensor
    """(B, 1, *S) uint8 or int32 class indices."""
    superpixels: torch.Tensor | None
    """(B, *S) int32 in [0, count), -1 for none."""
    count: int
    """Number of superpixels, the largest of the batch."""


class PatchSampler:
    """Cut patches so that every class is met, background included.

    Args:
        cases: prepared subjects with labels.
        patch_voxels: size of a patch.
        num_classes: classes, background included.
        class_share: share of patches centred near a voxel of a class that is drawn first, each
            class equally likely, background included; the others fall anywhere in the foreground.
        augment: variation, applied to each patch.
        coordinates: add coordinate channels.
        seed: of the whole run.
        share: which samples of a batch are drawn here: ``share[0]`` and each ``share[1]``-th after
            it. The samples do not depend on who draws them.
    """

    def __init__(
        self,
        cases: Sequence[Prepared],
        patch_voxels: tuple[int, ...],
        num_classes: int,
        *,
        class_share: float,
        augment: Augment,
        coordinates: bool,
        seed: int,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self._share = share
        self._cases = cases
        self._patch = patch_voxels
        self._class_share = class_share
        self._augment = augment
        self._coordinates = coordinates
        self._seed = seed
        rng = np.random.default_rng([seed, 0xC1A55])
        positions = [_class_positions(case, num_classes, rng) for case in cases]
        # One array for all of them: processes can share it.
        self._positions = np.concatenate([part for parts in positions for part in parts])
        lengths = [[len(part) for part in parts] for parts in positions]
        self._ends = np.cumsum(lengths).reshape(len(cases), num_classes + 1)

    def batch(self, step: int, size: int) -> Batch:
        """Draw the batch of global ``step``: the same for the same step, whatever came before.

        Of its ``size`` samples, those of this process's share; there must be one. One thread of
        torch makes them: vectorised functions round differently where threads meet, so that patches
        would depend on the machine.
        """
        with _one_thread():
            return self._batch(step, size)

    def names(self, step: int, size: int) -> str:
        """Say which cases the batch of ``step`` is cut from, for messages."""
        drawn = {self._case(np.random.default_rng(key)) for key in self._keys(step, size)}
        return ", ".join(self._cases[index].case_id for index in sorted(drawn))

    def _batch(self, step: int, size: int) -> Batch:
        samples = [self._sample(key) for key in self._keys(step, size)]
        image = torch.stack([s["image"] for s in samples])
        if self._coordinates:
            image = torch.cat([image, torch.stack([s["coordinates"] for s in samples])], dim=1)
        label = torch.stack([s["label"] for s in samples])
        if "superpixels" not in samples[0]:
            return Batch(image, label, None, 0)
        maps = [compact(s["superpixels"][0].numpy()) for s in samples]
        count = max(1, *(k for _, k in maps))
        return Batch(image, label, torch.stack([torch.from_numpy(m) for m, _ in maps]), count)

    def _keys(self, step: int, size: int) -> list[list[int]]:
        """What each sample of this process's share is drawn from."""
        first, stride = self._share
        return [[self._seed, step, number] for number in range(first, size, stride)]

    def _case(self, rng: np.random.Generator) -> int:
        return int(rng.integers(len(self._cases)))

    def _sample(self, seed: list[int]) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng(seed)
        index = self._case(rng)
        case = self._cases[index]
        centre = self._centre(index, rng)
        size = self._augment.cut_voxels(rng)
        start = [c - n // 2 for c, n in zip(centre, size, strict=True)]
        window = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
        assert case.label is not None
        sample = {
            "image": _cut(case.image, window),
            "label": _cut(case.label[None], window, 0),
        }
        if self._coordinates:
            sample["coordinates"] = torch.from_numpy(coordinate_channels(case.mask_box, window))
        if case.superpixels is not None:
            sample["superpixels"] = _cut(case.superpixels[None], window, -1)
        return self._augment(sample, int(rng.integers(2**31)))

    def _centre(self, index: int, rng: np.random.Generator) -> list[int]:
        case, ends = self._cases[index], self._ends[index]
        first = self._ends[index - 1][-1] if index else 0
        *classes, anywhere = np.split(self._positions[first : ends[-1]], ends[:-1] - first)
        present = [p for p in classes if len(p)] or [anywhere]
        chosen = anywhere
        if rng.random() < self._class_share:
            chosen = present[int(rng.integers(len(present)))]
        flat = int(chosen[int(rng.integers(len(chosen)))])
        centre = [int(i) for i in np.unravel_index(flat, case.shape)]
        # Anywhere in the inner half, so that the network cannot count on the middle.
        reach = [n // 4 for n in self._patch]
        centre = [c + int(rng.integers(-r, r + 1)) for c, r in zip(centre, reach, strict=True)]
        return [
            _keep_inside(c, n, p) for c, n, p in zip(centre, case.shape, self._patch, strict=True)
        ]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _keep_inside(centre: int, size: int, patch: int) -> int:
    """Move a patch's centre so that it covers no padding where the volume is large enough."""
    if size <= patch:
        return size // 2
    low = patch // 2
    return min(max(centre, low), size - patch + low)


def _class_positions(
    case: Prepared, num_classes: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Remember voxels of each class, and last of the whole foreground; none lies outside it."""
    assert case.label is not None
    inside = np.ravel((case.image != OUTSIDE).any(0))
    flat = np.where(inside, np.ravel(case.label), -1)
    positions = []
    for chosen in (*(flat == k for k in range(num_classes)), inside):
        found = np.flatnonzero(chosen)
        if len(found) > _POSITIONS_KEPT:
            found = np.sort(rng.choice(found, _POSITIONS_KEPT, replace=False))
        positions.append(found)
    return positions


def _cut(array: np.ndarray, window: tuple[slice, ...], fill: float | None = None) -> torch.Tensor:
    """Copy ``window`` of (C, *S); beyond the array lies ``fill``, or the channel's minimum."""
    shape = tuple(w.stop - w.start for w in window)
    inside = tuple(
        slice(max(0, w.start), min(n, w.stop)) for w, n in zip(window, array.shape[1:], strict=True)
    )
    part = array[(slice(None), *inside)]
    if part.shape[1:] == shape:
        return torch.from_numpy(np.ascontiguousarray(part))
    out = np.empty((len(array), *shape), array.dtype)
    for c in range(len(array)):
        out[c] = array[c].min() if fill is None else fill
    place = tuple(
        slice(i.start - w.start, i.stop - w.start) for i, w in zip(inside, window, strict=True)
    )
    out[(slice(None), *place)] = part
    return torch.from_numpy(out)
