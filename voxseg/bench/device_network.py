"""VoxResNet on one device: what its pooling branch costs, and whole brains from array to labels."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from voxseg.bench.report import Row
from voxseg.bench.slic import simulated_volume
from voxseg.bench.timing import milliseconds, wall_milliseconds
from voxseg.models import Design, VoxResNet
from voxseg.ops import slic, superpixel_plan

TO_LABELS = "V3, array to labels"
TO_LABELS_WITH_SLIC = "V3, array to labels with SLIC"

_CLASSES = 4
_DESIGNS: tuple[Design, ...] = ("V0", "V3")
Shape = tuple[int, int, int]
Forward = Callable[..., Tensor]
Arguments = Sequence[Tensor | int]


class Networks:
    """VoxResNet on a device, untrained: its time does not depend on its weights.

    Args:
        device: Where.
        dtype: Of the forward pass, under autocast.
        divisor: Divides the widths.
        compactness: Of SLIC.
        repeats: Of a call, at most.
        seed: Of weights and volumes.
    """

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        *,
        divisor: int,
        compactness: float,
        repeats: int,
        seed: int,
    ) -> None:
        self._device, self._dtype, self._divisor = device, dtype, divisor
        self._compactness, self._repeats, self._seed = compactness, repeats, seed

    def share_rows(self, shape: Shape, count: int) -> Iterator[Row]:
        """Measure a forward pass over a volume: V0, which pools nothing, and V3."""
        image = torch.from_numpy(simulated_volume(shape, self._seed))
        labels = slic(image, n_segments=count, compactness=self._compactness)[None]
        plan = superpixel_plan(labels.to(self._device), int(labels.max()) + 1)
        given = image[None, None].to(self._device)
        alone = math.nan
        for design in _DESIGNS:
            forward = self._forward(design)
            arguments = () if design == "V0" else (plan.superpixels, plan.count)

            def call(forward: Forward = forward, arguments: Arguments = arguments) -> Tensor:
                return forward(given, *arguments)

            ms = milliseconds(call, self._device, self._repeats)
            alone = ms if design == "V0" else alone
            share = math.nan if design == "V0" else 1 - alone / ms
            yield self._row(design, shape, ms, share)

    def label_rows(self, shape: Shape, size_mm: float) -> Iterator[Row]:
        """Measure V3 from an image in the host's memory to labels there, on the clock.

        Supervoxels have this size, in voxels of 1 mm. They are given, in the host's memory too, or
        SLIC makes them on the device.
        """
        image = torch.from_numpy(simulated_volume(shape, self._seed))
        labels = slic(image, size_mm=size_mm, compactness=self._compactness)
        forward = self._forward("V3")

        def given() -> Tensor:
            return self._labels(forward, image.to(self._device), labels.to(self._device))

        def made() -> Tensor:
            there = image.to(self._device)
            regions = slic(there, size_mm=size_mm, compactness=self._compactness)
            return self._labels(forward, there, regions)

        for name, call in ((TO_LABELS, given), (TO_LABELS_WITH_SLIC, made)):
            for _ in range(2):  # what a device chooses and compiles at its first uses
                found = call()
            assert found.shape == shape
            yield self._row(name, shape, wall_milliseconds(call, self._device, self._repeats))

    def _labels(self, forward: Forward, image: Tensor, regions: Tensor) -> Tensor:
        logits = forward(image[None, None], regions[None], int(regions.max()) + 1)
        return logits[0].argmax(0).to(torch.uint8).cpu()

    def _forward(self, design: Design) -> Forward:
        torch.manual_seed(self._seed)
        network: torch.nn.Module
        network = VoxResNet(1, _CLASSES, design=design, width_divisor=self._divisor)
        network = network.to(self._device).eval()
        network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's stub lacks memory_format alone

        @torch.inference_mode()
        def forward(x: Tensor, *arguments: Tensor | int) -> Tensor:
            enabled = self._dtype != torch.float32
            with torch.autocast(self._device.type, self._dtype, enabled=enabled):
                logits: Tensor = network(x, *arguments)
            return logits

        return forward

    def _row(self, name: str, shape: Sequence[int], ms: float, share: float = math.nan) -> Row:
        return {
            "what": name,
            "voxels": " x ".join(map(str, shape)),
            "dtype": str(self._dtype).removeprefix("torch."),
            "ms": round(ms, 3),
            "share of pooling": round(share, 4),
        }
