"""What one device does: pooling, SLIC, and a network with its pooling branch.

Pooling is held against the speed of the device's memory and against its peers, SLIC against the
CPU, the branch against the rest of the network. Meant for GPUs; everything runs on a CPU too, where
it is slow and tested.
"""

import dataclasses
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from voxseg.bench.report import BenchResult, Row, machine_info
from voxseg.bench.slic import ITERATIONS, simulated_volume
from voxseg.bench.timing import milliseconds, wall_milliseconds
from voxseg.models import Design, VoxResNet
from voxseg.ops import nvrtc, slic, superpixel_plan, superpixel_pool
from voxseg.ops.superpixel_plan import make_tiles

COMPACTNESS = 0.1
_DESIGNS: tuple[Design, ...] = ("V0", "V3")
_PAPER = "superpixel_pool_paper"
_PAPER_THREADS = 1024


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
    network_divisor: int = 1
    """Widths of the network are divided by it."""
    repeats: int = 20
    seed: int = 0


@dataclass(frozen=True)
class _Case:
    features: Tensor
    superpixels: Tensor
    count: int
    grad: Tensor
    index: Tensor
    """(N,) int64, what torch's own ops want."""
    sizes: Tensor


def pool_rows(bench: DeviceBench, device: torch.device, dtype: torch.dtype) -> list[Row]:
    """Measure pooling on SLIC labels, with a plan and without, and its peers.

    Returns:
        A row a method: milliseconds forward, and forward and backward; the share of the copy's
        bandwidth that the forward pass reaches; and forward and backward as multiples of voxseg's
        own op for the same.
    """
    case = _make_case(bench, device, dtype)
    size = case.features.numel() * case.features.element_size()
    copy = torch.empty_like(case.features)
    copy_ms = milliseconds(lambda: copy.copy_(case.features), device, bench.repeats)
    bandwidth = 2 * size / copy_ms
    rows = [_row("copy of the features", dtype, copy_ms, math.nan, 1.0, math.nan)]
    build_ms = wall_milliseconds(lambda: make_tiles(case.superpixels, case.count), device)
    rows.append(_row("plan of the labels", dtype, build_ms, math.nan, math.nan, math.nan))
    read = (size + case.superpixels.numel() * 4) / bandwidth
    own: dict[str, float] = {}
    for name, reduce, call in _methods(case):
        forward_ms = milliseconds(call, device, bench.repeats)
        both_ms = _both_ms(case, call, device, bench.repeats)
        own.setdefault(reduce, forward_ms if math.isnan(both_ms) else both_ms)
        ratio = both_ms / own[reduce]
        rows.append(_row(name, dtype, forward_ms, both_ms, read / forward_ms, ratio))
    return rows


def slic_rows(bench: DeviceBench, device: torch.device) -> list[Row]:
    """Measure SLIC with connectivity on a device and on the CPU, and how far they agree."""
    image = torch.from_numpy(simulated_volume(bench.shape, bench.seed))
    rows: list[Row] = []
    found: list[Tensor] = []
    for place in dict.fromkeys([device, torch.device("cpu")]):
        here = image.to(place)

        def call(here: Tensor = here) -> Tensor:
            return slic(
                here, n_segments=bench.segments, compactness=COMPACTNESS, iterations=ITERATIONS
            )

        ms = wall_milliseconds(call, place)
        found.append(call().cpu())
        count = int(found[-1].max()) + 1
        rows.append({"device": str(place), "ms": round(ms, 3), "supervoxels": count})
    for row, labels in zip(rows, found, strict=True):
        row["same label as the CPU"] = float((labels == found[-1]).float().mean())
        row["times the first"] = round(float(row["ms"]) / float(rows[0]["ms"]), 1)
    return rows


def network_rows(bench: DeviceBench, device: torch.device, dtype: torch.dtype) -> list[Row]:
    """Measure a whole-volume forward pass of VoxResNet V3, and of V0, which has no branch."""
    shape = bench.network_shape
    times: dict[str, float] = {}
    image = torch.from_numpy(simulated_volume(shape, bench.seed))
    labels = slic(image, n_segments=bench.count, compactness=COMPACTNESS)[None].to(device)
    plan = superpixel_plan(labels, int(labels.max()) + 1)
    given = image[None, None].to(device)
    for design in _DESIGNS:
        torch.manual_seed(bench.seed)
        network: torch.nn.Module
        network = VoxResNet(1, 4, design=design, width_divisor=bench.network_divisor)
        network = network.to(device).eval()
        network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

        @torch.inference_mode()
        def call(network: torch.nn.Module = network, design: str = design) -> None:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                if design == "V0":
                    network(given)
                else:
                    network(given, plan.superpixels, plan.count)

        times[design] = milliseconds(call, device, max(3, bench.repeats // 4))
    share = 1 - times["V0"] / times["V3"]
    return [
        {"design": name, "dtype": str(dtype), "ms": round(ms, 3), "share of pooling": value}
        for (name, ms), value in zip(times.items(), (math.nan, round(share, 4)), strict=True)
    ]


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


def run_device_bench(
    what: str, bench: DeviceBench, device: torch.device, notify: Callable[[str], None]
) -> BenchResult:
    """Run one of "pool", "slic" and "voxresnet" on a device."""
    shape = " x ".join(map(str, bench.shape))
    notify(f"{what} on {device}")
    if what == "pool":
        half = torch.bfloat16
        rows = pool_rows(bench, device, torch.float32) + pool_rows(bench, device, half)
        title = f"Superpixel pooling, {shape} voxels, {bench.channels} channels"
    elif what == "slic":
        rows = slic_rows(bench, device)
        title = f"SLIC, {shape} voxels, {bench.segments} supervoxels, {ITERATIONS} iterations"
    else:
        rows = network_rows(bench, device, torch.bfloat16)
        shape = " x ".join(map(str, bench.network_shape))
        title = f"VoxResNet, a forward pass over {shape} voxels"
    return BenchResult(title, device_info(device), rows)


def tiny(bench: DeviceBench) -> DeviceBench:
    """Shrink every size: a smoke test, not a result."""
    return dataclasses.replace(
        bench,
        shape=(16, 18, 40),
        channels=5,
        count=30,
        segments=20,
        network_shape=(16, 16, 16),
        network_divisor=8,
        repeats=2,
    )


def _make_case(bench: DeviceBench, device: torch.device, dtype: torch.dtype) -> _Case:
    image = simulated_volume(bench.shape, bench.seed)
    labels = torch.from_numpy(slic(image, n_segments=bench.count, compactness=COMPACTNESS))
    labels = labels[None].to(device)
    index = labels.flatten().long()
    count = int(index.max()) + 1
    generator = torch.Generator(device).manual_seed(bench.seed)
    shape = (1, bench.channels, *bench.shape)
    features = torch.randn(shape, generator=generator, device=device).to(dtype)
    grad = torch.randn((1, bench.channels, count), generator=generator, device=device).to(dtype)
    return _Case(features, labels, count, grad, index, index.bincount().to(dtype))


def _methods(case: _Case) -> list[tuple[str, str, Callable[..., Tensor]]]:
    """Name, what is computed, and a function of the features; voxseg's own ones first."""
    flat_shape = (case.features.shape[1], -1)

    def planned(reduce: Any) -> Callable[..., Tensor]:
        plan = superpixel_plan(case.superpixels, case.count)
        return lambda x=case.features: superpixel_pool(x, plan, case.count, reduce)

    def unplanned(x: Tensor = case.features) -> Tensor:
        # A copy is a new map: it is met once, so that no plan is made.
        return superpixel_pool(x, case.superpixels.clone(), case.count)

    def scatter(reduce: str) -> Callable[..., Tensor]:
        def pool(x: Tensor = case.features) -> Tensor:
            flat = x[0].reshape(flat_shape)
            zeros = flat.new_zeros(case.grad.shape[1:])
            index = case.index.expand_as(flat)
            return zeros.scatter_reduce(1, index, flat, reduce, include_self=False)

        return pool

    def index_add(x: Tensor = case.features) -> Tensor:
        zeros = x.new_zeros(case.grad.shape[1:])
        return zeros.index_add(1, case.index, x[0].reshape(flat_shape)) / case.sizes

    methods = [
        ("voxseg max", "max", planned("max")),
        ("voxseg mean", "mean", planned("mean")),
        ("voxseg max without a plan", "max", unplanned),
        ("torch scatter_reduce amax", "max", scatter("amax")),
        ("torch index_add mean", "mean", index_add),
    ]
    if case.features.device.type == "cuda":
        for reduce in ("max", "mean"):
            if case.count * (8 if reduce == "max" else 4) <= nvrtc.MOST_SHARED_BYTES:
                pool = _paper(case, reduce)
                methods.append((f"the paper's design, {reduce}", reduce, pool))
    return methods + _torch_scatter(case, flat_shape)


def _paper(case: _Case, reduce: str) -> Callable[..., Tensor]:
    """One block a channel with an atomic a voxel; forward only, and without unpacking keys."""
    B, C = case.features.shape[:2]
    voxels = case.superpixels.numel() // B
    run = nvrtc.kernels(_PAPER, case.features.device, case.features.dtype)
    name, kind, size = ("paper_max", torch.int64, 8)
    if reduce == "mean":
        name, kind, size = ("paper_sum", torch.float32, 4)

    def pool(x: Tensor = case.features) -> Tensor:
        out = torch.empty((B, C, case.count), dtype=kind, device=x.device)
        arguments: list[nvrtc.Argument] = [x.detach(), case.superpixels, out, C, case.count, voxels]
        run(name, (B * C,), _PAPER_THREADS, arguments, case.count * size)
        return out

    return pool


def _torch_scatter(
    case: _Case, flat_shape: tuple[int, int]
) -> list[tuple[str, str, Callable[..., Tensor]]]:
    try:
        package: Any = importlib.import_module("torch_scatter")
    except ImportError:
        return []

    def call(name: str) -> Callable[..., Tensor]:
        def pool(x: Tensor = case.features) -> Tensor:
            flat = x[0].reshape(flat_shape)
            found = getattr(package, name)(flat, case.index, 1, dim_size=case.count)
            pooled: Tensor = found[0] if isinstance(found, tuple) else found
            return pooled

        return pool

    return [
        ("torch_scatter max", "max", call("scatter_max")),
        ("torch_scatter mean", "mean", call("scatter_mean")),
    ]


def _both_ms(case: _Case, pool: Callable[..., Tensor], device: torch.device, repeats: int) -> float:
    """Time forward and backward; NaN for what has no backward."""
    leaf = case.features.detach().requires_grad_()
    if not pool(leaf).requires_grad:
        return math.nan

    def call() -> None:
        pooled = pool(leaf)
        torch.autograd.grad(pooled, leaf, case.grad.view_as(pooled))

    return milliseconds(call, device, max(3, repeats // 2))


def _row(
    name: str, dtype: torch.dtype, forward: float, both: float, share: float, ratio: float
) -> Row:
    return {
        "method": name,
        "dtype": str(dtype).removeprefix("torch."),
        "forward ms": round(forward, 3),
        "forward + backward ms": round(both, 3),
        "share of bandwidth": round(share, 3),
        "times voxseg": round(ratio, 2),
    }
