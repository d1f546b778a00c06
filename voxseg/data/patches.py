"""Training patches: where to cut, and the cut itself.

A patch is drawn from its own seed alone, so that any number of processes, and a run that was
stopped and resumed, see the same patches. Of slices, a patch has the two axes of its slice.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from voxseg.data.places import ClassPlaces, anywhere, draw_in_photograph, keep_inside
from voxseg.data.prepare import Prepared, coordinate_channels
from voxseg.data.superpixels import compact, numbers_of
from voxseg.data.transforms import NOTHING, Augment
from voxseg.data.warp import Warp


@dataclass(frozen=True)
class Batch:
    """Patches of one training step."""

    image: torch.Tensor
    """(B, C, *S) float32; the slices of 2.5D and coordinate channels included."""
    label: torch.Tensor
    """(B, 1, *S) uint8 or int32 class indices, ``IGNORED`` where nothing counts; of surface normals
    (B, 3, *S) float32, 0 where there is none; of whole photographs (B,) int64 class indices."""
    superpixels: torch.Tensor | None
    """(B, *S) int32 in [0, count), -1 for none."""
    count: int
    """Number of superpixels, the largest of the batch."""
    places: torch.Tensor | None = None
    """(B, count, D + 1) float32, where each lies in its whole volume and how large it is there, see
    ``voxseg.ops.superpixel_places``; None where nobody asked."""

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        """Change every tensor."""
        parts: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, part in parts.items():
            if isinstance(part, torch.Tensor):
                parts[name] = change(part)
        return Batch(**parts)


@dataclass(frozen=True, kw_only=True)
class PatchSettings:
    """What a patch is."""

    voxels: tuple[int, ...]
    """Its size; of slices and photographs two numbers."""
    class_share: float
    """Share of patches centred near a voxel of a class that is drawn first, each class equally
    likely, background included; the others fall anywhere in the foreground."""
    coordinates: bool = False
    """Add coordinate channels, one for each axis of the volume."""
    places: bool = False
    """Say of each superpixel where in the volume it lies; only of volumes."""
    slice_axes: tuple[int, ...] = ()
    """Cut slices across one of these axes, drawn anew for each patch; none cuts volumes."""
    neighbours: int = 0
    """Slices on each side that are further channels, the slice before first. Beyond the volume its
    outermost slice comes again."""


class PatchSampler:
    """Cut patches so that every class is met, background included.

    Beyond the border of a volume lie its darkest voxel and background; beyond that of a photograph
    there is ``NOTHING``.

    Args:
        cases: prepared subjects with labels.
        num_classes: classes, background included.
        settings: what a patch is.
        augment: variation, applied to each patch.
        seed: of the whole run.
        share: which samples of a batch are drawn here: ``share[0]`` and each ``share[1]``-th after
            it. The samples do not depend on who draws them.
    """

    def __init__(
        self,
        cases: Sequence[Prepared],
        num_classes: int,
        settings: PatchSettings,
        augment: Augment,
        *,
        seed: int,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self._share = share
        self._cases = cases
        self._num_classes = num_classes
        self._settings = settings
        self._augment = augment
        self._seed = seed
        self._places = None if cases[0].is_image else ClassPlaces(cases, num_classes, seed)
        self._regions = [torch.from_numpy(c.places) for c in cases] if settings.places else None

    def batch(self, step: int, size: int) -> Batch:
        """Draw the batch of global ``step``: the same for the same step, whatever came before.

        Of its ``size`` samples, those of this process's share; there must be one. One thread of
        torch makes them: vectorised functions round differently where threads meet, so that patches
        would depend on the machine.
        """
        with one_thread():
            return self._batch(step, size)

    def names(self, step: int, size: int) -> str:
        """Say which cases the batch of ``step`` is cut from, for messages."""
        drawn = {self._case(np.random.default_rng(key)) for key in self._keys(step, size)}
        return ", ".join(self._cases[index].case_id for index in sorted(drawn))

    def _batch(self, step: int, size: int) -> Batch:
        samples = [self._sample(key) for key in self._keys(step, size)]
        image = torch.stack([s["image"] for s in samples])
        if self._settings.coordinates:
            image = torch.cat([image, torch.stack([s["coordinates"] for s in samples])], dim=1)
        target = "normals" if "normals" in samples[0] else "label"
        label = torch.stack([s[target] for s in samples])
        if "superpixels" not in samples[0]:
            return Batch(image, label, None, 0)
        maps = [compact(s["superpixels"][0].numpy()) for s in samples]
        count = max(1, *(k for _, k in maps))
        regions = torch.stack([torch.from_numpy(m) for m, _ in maps])
        places = None
        if self._regions is not None:
            places = torch.zeros(len(samples), count, image.ndim - 1)
            for sample, (cut, k), out in zip(samples, maps, places, strict=True):
                out[:k] = sample["places"][numbers_of(sample["superpixels"][0].numpy(), cut, k)]
        return Batch(image, label, regions, count, places)

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
        axis: int | None
        if case.is_image:
            axis, warp = 2, self._augment.draw(rng)
            centre = self._centre_in_photograph(case, warp, rng)
        else:
            axis = self._axis(rng)
            warp, centre = self._centre(index, axis, rng)
        plane = tuple(a for a in range(len(case.shape)) if a != axis)
        window = [slice(c, c + 1) for c in centre]
        for a, size in zip(plane, warp.cut, strict=True):
            start = centre[a] - size // 2
            window[a] = slice(start, start + size)
        sample = self._cut(case, tuple(window), axis)
        if self._regions is not None:
            sample["places"] = self._regions[index].clone()
        return self._augment(sample, warp, int(rng.integers(2**31)), plane)

    def _axis(self, rng: np.random.Generator) -> int | None:
        """Draw the axis across a slice; None for volumes."""
        choices = self._settings.slice_axes
        if len(choices) < 2:
            return choices[0] if choices else None
        return choices[int(rng.integers(len(choices)))]

    def _cut(
        self, case: Prepared, window: tuple[slice, ...], axis: int | None
    ) -> dict[str, torch.Tensor]:
        """Cut all arrays of a patch; ``axis`` is the one across its slice."""
        fill = NOTHING if case.is_image else {"label": 0.0, "superpixels": -1.0}
        sample = {
            "image": torch.cat(
                [
                    _cut(case.image, one, fill.get("image"))
                    for one in self._slices(case, window, axis)
                ]
            ),
        }
        if case.label is not None:
            sample["label"] = _cut(case.label[None], window, fill["label"])
        if case.normals is not None:
            sample["normals"] = _cut(case.normals, window, fill["normals"])
        if self._settings.coordinates:
            sample["coordinates"] = torch.from_numpy(coordinate_channels(case.mask_box, window))
        if case.superpixels is not None:
            sample["superpixels"] = _cut(case.superpixels[None], window, fill["superpixels"])
        if axis is None:
            return sample
        return {key: value.squeeze(axis + 1) for key, value in sample.items()}

    def _slices(
        self, case: Prepared, window: tuple[slice, ...], axis: int | None
    ) -> Iterator[tuple[slice, ...]]:
        """Windows of a slice and its neighbours; of a volume, ``window`` alone."""
        if axis is None:
            yield window
            return
        reach, last = self._settings.neighbours, case.shape[axis] - 1
        for step in range(-reach, reach + 1):
            number = min(max(window[axis].start + step, 0), last)
            yield (*window[:axis], slice(number, number + 1), *window[axis + 1 :])

    def _centre(
        self, index: int, axis: int | None, rng: np.random.Generator
    ) -> tuple[Warp, list[int]]:
        """Draw a warp and a centre in a volume; across the slice it is that of a drawn voxel."""
        assert self._places is not None
        shape = self._cases[index].shape
        flat = self._places.draw(index, self._settings.class_share, rng)
        centre = [int(i) for i in np.unravel_index(flat, shape)]
        plane = [a for a in range(len(shape)) if a != axis]
        # Anywhere in the inner half, so that the network cannot count on the middle.
        moves = [int(rng.integers(-(n // 4), n // 4 + 1)) for n in self._settings.voxels]
        warp = self._augment.draw(rng)
        for a, move, seen in zip(plane, moves, warp.seen, strict=True):
            centre[a] = keep_inside(centre[a] + round(move / warp.factor), shape[a], seen)
        return warp, centre

    def _centre_in_photograph(
        self, case: Prepared, warp: Warp, rng: np.random.Generator
    ) -> list[int]:
        shape = case.shape[:2]
        drawn = draw_in_photograph(case, self._num_classes, self._settings.class_share, rng)
        if drawn is None:
            return [*(anywhere(n, p, rng) for n, p in zip(shape, warp.seen, strict=True)), 0]
        near = [
            c + int(rng.integers(-(p // 4), p // 4 + 1))
            for c, p in zip(drawn, warp.seen, strict=True)
        ]
        return [*(keep_inside(c, n, p) for c, n, p in zip(near, shape, warp.seen, strict=True)), 0]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread, so that its results do not depend on the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
