"""What one device does: pooling, SLIC, and a network with its pooling branch.

Pooling is held against the speed of the device's memory and against its peers, SLIC against the
CPU, the branch against the rest of the network. Meant for GPUs; everything runs on a CPU too, where
it is slow and tested.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from voxseg.bench.device_network import Networks
from voxseg.bench.device_pool import Pooling, make_case
from voxseg.bench.report import BenchResult, Row, machine_info
from voxseg.bench.slic import ITERATIONS, simulated_volume
from voxseg.bench.timing import wall_milliseconds
from voxseg.ops import nvrtc, slic

COMPACTNESS = 0.1
SIZE_MM = 3.0
"""Of supervoxels of a brain, as in the recipes of VoxResNet for IBSR."""
WHAT = ("pool", "slic", "voxresnet")
"""What ``run_device_bench`` measures."""


@dataclass(frozen=True, kw_only=True)
class DeviceBench:
    """What is measured."""

    shape: tuple[int, int, int] = (256, 128, 256)
    channels: int = 64
    count: int = 5000
    """Superpixels that SLIC is asked for; K is what it gives."""
    segments: int = 2000
    """Superpixels of the SLIC benchmark."""
    network_shape: tuple[int, int, int] = (160, 192, 160)
    brain_shape: tuple[int, int, int] = (144, 112, 130)
    """A whole brain of 1 mm voxels, cut to its box, which goes from array to labels."""
    network_divisor: int = 1
    """Widths of the network are divided by it."""
    repeats: int = 20
    seed: int = 0


def tiny(bench: DeviceBench) -> DeviceBench:
    """Shrink every size: a smoke test, not a result."""
    return dataclasses.replace(
        bench,
        shape=(16, 18, 40),
        channels=5,
        count=30,
        segments=20,
        network_shape=(16, 16, 16),
        brain_shape=(16, 14, 18),
        network_divisor=8,
        repeats=2,
    )


def run_device_bench(
    what: str, bench: DeviceBench, device: torch.device, notify: Callable[[str], None]
) -> BenchResult:
    """Run one of ``WHAT`` on a device."""
    notify(f"{what} on {device}")
    return BenchResult(
        device_title(what, bench), device_info(device), list(device_rows(what, bench, device))
    )


def device_rows(what: str, bench: DeviceBench, device: torch.device) -> Iterator[Row]:
    """Measure one of ``WHAT``, row by row, most telling ones first."""
    if what == "pool":
        return pool_rows(bench, device)
    return slic_rows(bench, device) if what == "slic" else network_rows(bench, device)


def device_title(what: str, bench: DeviceBench) -> str:
    """Say what is measured, with its sizes."""
    shape = " x ".join(map(str, bench.shape))
    if what == "pool":
        return f"Superpixel pooling, {shape} voxels, {bench.channels} channels"
    if what == "slic":
        return f"SLIC, {shape} voxels, {bench.segments} supervoxels, {ITERATIONS} iterations"
    return "VoxResNet, forward passes over whole volumes"


def pool_rows(bench: DeviceBench, device: torch.device) -> Iterator[Row]:
    """Measure pooling on SLIC labels, float32 and bfloat16: voxseg with a plan, then its peers.

    Returns:
        A row a method: milliseconds forward, and forward and backward; the share of the copy's
        bandwidth that the forward pass reaches; both times as multiples of voxseg's own op for the
        same; and how far its result lies from that op's, at most.
    """
    image = simulated_volume(bench.shape, bench.seed)
    labels = slic(image, n_segments=bench.count, compactness=COMPACTNESS)
    there = torch.from_numpy(labels).to(device)
    cases = []
    for dtype in (torch.float32, torch.bfloat16):
        cases.append(Pooling(make_case(there, bench.channels, dtype, bench.seed), bench.repeats))
        yield from cases[-1].own_rows()
    for case in cases:
        yield from case.peer_rows()


def slic_rows(bench: DeviceBench, device: torch.device) -> Iterator[Row]:
    """Measure SLIC with connectivity on a device and on the CPU, and how far they agree."""
    image = torch.from_numpy(simulated_volume(bench.shape, bench.seed))
    first_ms, first_labels = math.nan, None
    for place in dict.fromkeys([device, torch.device("cpu")]):
        here = image.to(place)

        def call(here: torch.Tensor = here) -> torch.Tensor:
            return slic(
                here, n_segments=bench.segments, compactness=COMPACTNESS, iterations=ITERATIONS
            )

        ms = wall_milliseconds(call, place)
        labels = call().cpu()
        if first_labels is None:
            first_ms, first_labels = ms, labels
        yield {
            "device": str(place),
            "ms": round(ms, 3),
            "supervoxels": int(labels.max()) + 1,
            "same label as the first": float((labels == first_labels).float().mean()),
            "times the first": round(ms / first_ms, 1),
        }


def network_rows(bench: DeviceBench, device: torch.device) -> Iterator[Row]:
    """Measure VoxResNet in bfloat16: the branch's share, and a whole brain from array to labels."""
    networks = Networks(
        device,
        torch.bfloat16,
        divisor=bench.network_divisor,
        compactness=COMPACTNESS,
        repeats=max(3, bench.repeats // 4),
        seed=bench.seed,
    )
    yield from networks.share_rows(bench.network_shape, bench.count)
    yield from networks.label_rows(bench.brain_shape, SIZE_MM)


def device_info(device: torch.device) -> dict[str, float | str]:
    """Describe the device and what was used on it."""
    found = machine_info(torch.get_num_threads()) | {"torch": torch.__version__}
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        found |= {
            "device": torch.cuda.get_device_name(device),
            "compute capability": f"{major}.{minor}",
            "CUDA of torch": str(torch.version.cuda),
            "NVRTC": nvrtc.nvrtc_version(),
        }
    return found
