"""Pooling on one device against the speed of its memory, and against its peers.

Peers are torch's own ways, those of ``torch_scatter`` where it is installed, and on a GPU the
paper's design: a block a channel, with shared memory and atomics.
"""

import importlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from voxseg.bench.report import Row
from voxseg.bench.timing import milliseconds, wall_milliseconds
from voxseg.ops import nvrtc, superpixel_plan, superpixel_pool
from voxseg.ops.superpixel_plan import make_tiles

COPY = "copy of the features"
PLAN = "plan of the labels"
OWN = {"max": "voxseg max", "mean": "voxseg mean"}

_PAPER = "superpixel_pool_paper"
_PAPER_THREADS = 1024


@dataclass(frozen=True)
class Case:
    """One problem, in the forms that the methods want."""

    features: Tensor
    """(1, C, *S)."""
    superpixels: Tensor
    """(1, *S) int32, in the same place."""
    count: int
    """K."""
    grad: Tensor
    """(1, C, K)."""
    index: Tensor
    """(N,) int64, what torch's own ops want."""
    sizes: Tensor
    """(K,)."""


def make_case(labels: Tensor, channels: int, dtype: torch.dtype, seed: int) -> Case:
    """Make features and a gradient for a label map (*S) on its device."""
    device = labels.device
    index = labels.flatten().long()
    count = int(index.max()) + 1
    generator = torch.Generator(device).manual_seed(seed)
    shape = (1, channels, *labels.shape)
    features = torch.randn(shape, generator=generator, device=device).to(dtype)
    grad = torch.randn((1, channels, count), generator=generator, device=device).to(dtype)
    return Case(features, labels[None], count, grad, index, index.bincount().to(dtype))


@dataclass(frozen=True)
class _Method:
    name: str
    reduce: str
    pool: Callable[..., Tensor]
    """Features -> (1, C, K) or (C, K); without an argument those of the case."""
    comparable: bool = True
    """Whether what it gives is the pooled features, and not what they are made from."""


class Pooling:
    """Methods on one case, each held against voxseg's own for the same.

    Args:
        case: The problem.
        repeats: Of a call.
    """

    def __init__(self, case: Case, repeats: int) -> None:
        self._case, self._repeats = case, repeats
        self._device = case.features.device
        self._bytes = case.features.numel() * case.features.element_size()
        self._own_ms: dict[str, tuple[float, float]] = {}
        self._own_pooled: dict[str, Tensor] = {}
        self._copy_ms = math.nan

    def own_rows(self) -> Iterator[Row]:
        """Measure a copy, the plan, and voxseg with it."""
        self._copy_ms = self._time_copy()
        yield self._row(COPY, self._copy_ms, share=1.0)
        labels, count = self._case.superpixels, self._case.count
        build_ms = wall_milliseconds(lambda: make_tiles(labels, count), self._device)
        yield self._row(PLAN, build_ms)
        for reduce, name in OWN.items():
            yield self._measured(_Method(name, reduce, _planned(self._case, reduce)))

    def peer_rows(self) -> Iterator[Row]:
        """Measure the others, after ``own_rows``; nothing stands beside what cannot run here."""
        for method in _peers(self._case):
            try:
                yield self._measured(method)
            except (NotImplementedError, torch.OutOfMemoryError):
                yield self._row(method.name, math.nan)

    def _time_copy(self) -> float:
        features = self._case.features
        copy = torch.empty_like(features)
        return milliseconds(lambda: copy.copy_(features), self._device, self._repeats)

    def _measured(self, method: _Method) -> Row:
        forward_ms = milliseconds(method.pool, self._device, self._repeats)
        both_ms = self._both_ms(method.pool)
        own_ms = self._own_ms.setdefault(method.reduce, (forward_ms, both_ms))
        row = self._row(method.name, forward_ms, both_ms, self._floor_ms / forward_ms)
        row["forward, times voxseg"] = round(forward_ms / own_ms[0], 2)
        row["times voxseg"] = round(both_ms / own_ms[1], 2)
        if method.comparable:
            with torch.no_grad():
                pooled = method.pool().flatten().float()
            own = self._own_pooled.setdefault(method.reduce, pooled)
            row["largest difference"] = float((pooled - own).abs().max())
        return row

    @property
    def _floor_ms(self) -> float:
        """What reading features and labels once takes at the speed of the copy."""
        bandwidth = 2 * self._bytes / self._copy_ms
        return (self._bytes + self._case.superpixels.numel() * 4) / bandwidth

    def _both_ms(self, pool: Callable[..., Tensor]) -> float:
        """Time forward and backward; NaN for what has no backward."""
        case = self._case
        leaf = case.features.detach().requires_grad_()
        if not pool(leaf).requires_grad:
            return math.nan

        def call() -> None:
            pooled = pool(leaf)
            torch.autograd.grad(pooled, leaf, case.grad.view_as(pooled))

        return milliseconds(call, self._device, max(3, self._repeats // 2))

    def _row(
        self, name: str, forward: float, both: float = math.nan, share: float = math.nan
    ) -> Row:
        return {
            "method": name,
            "dtype": str(self._case.features.dtype).removeprefix("torch."),
            "forward ms": round(forward, 3),
            "forward + backward ms": round(both, 3),
            "share of bandwidth": round(share, 3),
            "forward, times voxseg": math.nan,
            "times voxseg": math.nan,
            "largest difference": math.nan,
        }


def _planned(case: Case, reduce: Any) -> Callable[..., Tensor]:
    plan = superpixel_plan(case.superpixels, case.count)
    return lambda x=case.features: superpixel_pool(x, plan, case.count, reduce)


def _peers(case: Case) -> list[_Method]:
    flat_shape = (case.features.shape[1], -1)

    def unplanned(x: Tensor = case.features) -> Tensor:
        # A copy is a new map: it is met once, so that no plan is made.
        return superpixel_pool(x, case.superpixels.clone(), case.count)

    def scatter(x: Tensor = case.features) -> Tensor:
        flat = x[0].reshape(flat_shape)
        zeros = flat.new_zeros(case.grad.shape[1:])
        return zeros.scatter_reduce(1, case.index.expand_as(flat), flat, "amax", include_self=False)

    def index_add(x: Tensor = case.features) -> Tensor:
        zeros = x.new_zeros(case.grad.shape[1:])
        return zeros.index_add(1, case.index, x[0].reshape(flat_shape)) / case.sizes

    methods = [
        _Method("voxseg max without a plan", "max", unplanned),
        _Method("torch scatter_reduce amax", "max", scatter),
        _Method("torch index_add mean", "mean", index_add),
    ]
    if case.features.device.type == "cuda":
        for reduce in OWN:
            if case.count * (8 if reduce == "max" else 4) <= nvrtc.MOST_SHARED_BYTES:
                name = f"the paper's design, {reduce}"
                methods.append(_Method(name, reduce, _paper(case, reduce), comparable=False))
    return methods + _torch_scatter(case, flat_shape)


def _paper(case: Case, reduce: str) -> Callable[..., Tensor]:
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


def _torch_scatter(case: Case, flat_shape: tuple[int, int]) -> list[_Method]:
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
        _Method("torch_scatter max", "max", call("scatter_max")),
        _Method("torch_scatter mean", "mean", call("scatter_mean")),
    ]
