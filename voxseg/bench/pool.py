"""Superpixel pooling against what torch users write instead, on labels of real SLIC.

Everything is measured in the process as it is, which ``voxseg bench pool --memory`` chooses: fresh
memory can cost more than an op, and it costs every method.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from voxseg.bench.device import device_info
from voxseg.bench.report import BenchResult, Row, Sweep, machine_info
from voxseg.bench.slic import simulated_volume
from voxseg.bench.timing import milliseconds
from voxseg.ops import slic, superpixel_plan, superpixel_pool
from voxseg.ops.reference import superpixel_pool as reference
from voxseg.ops.superpixel_pool import Reduce

COMPACTNESS = 0.1
"""Of SLIC: about the noise of the simulated volume."""
_REFERENCE = "SciPy max"
_OWN: dict[str, Reduce] = {"voxseg max": "max", "voxseg mean": "mean"}
_LONGEST_MS = 3000.0
"""The reference is left out of a curve behind a point that took longer."""
_SLOW_MS = 1000.0
_SLOW_REPEATS = 2
_ENOUGH_MS, _ENOUGH_CALLS = 100.0, 20


@dataclass(frozen=True, kw_only=True)
class PoolBench:
    """What is measured."""

    side: int = 128
    """Edge of the simulated cube, in voxels."""
    channels: int = 64
    count: int = 5000
    """Superpixels that SLIC is asked for; K is what it gives."""
    repeats: int = 5
    """Counted rounds over all methods; one slower than a second gets at most two."""
    sweep: bool = True
    """Also measure time against voxels and against superpixels."""
    sweep_channels: int = 16
    sweep_sides: tuple[int, ...] = (32, 48, 64, 96, 128)
    """Cubes of the curves against voxels, with 100 superpixels each."""
    sweep_counts: tuple[int, ...] = (20, 100, 500, 2000, 5000, 10000)
    """Superpixels of the curves against them, on the last but one of the cubes."""
    seed: int = 0


@dataclass(frozen=True)
class _Case:
    """One problem, in the forms that the methods want."""

    features: Tensor
    """(1, C, *S) float32."""
    superpixels: Tensor
    """(1, *S) int32."""
    grad: Tensor
    """(1, C, K) float32."""
    index: Tensor
    """(N,) int64: what torch's own ops want."""
    sizes: Tensor
    """(K,) float32."""

    @property
    def count(self) -> int:
        """K."""
        return self.grad.shape[2]

    @property
    def zeros(self) -> Tensor:
        """(C, K), what torch's own ops reduce into."""
        return self.grad.new_zeros(self.grad.shape[1:])


@dataclass(frozen=True)
class _Method:
    """A way to pool."""

    name: str
    computes: str
    """"max" or "mean"; methods that compute the same are compared."""
    pool: Callable[[Tensor, _Case], Tensor]
    """Features (1, C, *S) -> (1, C, K) or (C, K)."""
    channels_last: bool = False
    swept: bool = False


def _voxseg_max(features: Tensor, case: _Case) -> Tensor:
    return superpixel_pool(features, case.superpixels, case.count)


def _voxseg_mean(features: Tensor, case: _Case) -> Tensor:
    return superpixel_pool(features, case.superpixels, case.count, "mean")


def _scatter_reduce(reduce: str) -> Callable[[Tensor, _Case], Tensor]:
    def pool(features: Tensor, case: _Case) -> Tensor:
        flat = features[0].flatten(1)
        index = case.index.expand_as(flat)
        return case.zeros.scatter_reduce(1, index, flat, reduce, include_self=False)

    return pool


def _index_reduce(features: Tensor, case: _Case) -> Tensor:
    flat = features[0].flatten(1)
    return case.zeros.index_reduce(1, case.index, flat, "amax", include_self=False)


def _index_add(features: Tensor, case: _Case) -> Tensor:
    return case.zeros.index_add(1, case.index, features[0].flatten(1)) / case.sizes


METHODS = (
    _Method("voxseg max", "max", _voxseg_max, swept=True),
    _Method("torch scatter_reduce amax", "max", _scatter_reduce("amax"), swept=True),
    _Method("torch index_reduce amax", "max", _index_reduce),
    _Method("voxseg mean", "mean", _voxseg_mean, swept=True),
    _Method("torch index_add mean", "mean", _index_add, swept=True),
    _Method("torch scatter_reduce mean", "mean", _scatter_reduce("mean")),
    _Method("voxseg max, channels last", "max", _voxseg_max, channels_last=True),
    _Method("voxseg mean, channels last", "mean", _voxseg_mean, channels_last=True),
)


def run_pool_bench(
    bench: PoolBench | None = None, notify: Callable[[str], None] = lambda _: None
) -> BenchResult:
    """Measure pooling and its peers.

    Args:
        bench: sizes.
        notify: told what is being measured.

    Returns:
        A row a method: milliseconds forward alone; these as multiples of the time in which the
        features are copied; milliseconds forward and backward; these as multiples of those of
        voxseg's own op for the same. With ``sweep``, curves of time forward and backward.
    """
    bench = bench or PoolBench()
    notify(f"SLIC on {bench.side}^3 voxels")
    case = _make_case(bench, bench.side, bench.channels, bench.count)
    notify(f"pooling, {bench.channels} channels, {case.count} superpixels")
    copy_ms, forward, both = _measure(case, METHODS, bench.repeats)
    rows: list[Row] = [_row("copy of the features", copy_ms, 1.0, "", "")]
    rows += [
        _row(
            method.name,
            forward[method.name],
            forward[method.name] / copy_ms,
            round(both[method.name], 1),
            round(both[method.name] / both[f"voxseg {method.computes}"], 2),
        )
        for method in METHODS
    ]
    machine = machine_info(torch.get_num_threads()) | {
        "torch": torch.__version__,
        "huge pages": os.environ.get("THP_MEM_ALLOC_ENABLE", "0"),
    }
    size = f"{bench.side}^3 voxels, {bench.channels} channels, {case.count} superpixels"
    *_, sweeps = _sweeps(bench, notify) if bench.sweep else [[]]
    return BenchResult(f"Superpixel pooling, {size}", machine, rows, sweeps)


def pool_figures(bench: PoolBench, notify: Callable[[str], None]) -> Iterator[BenchResult]:
    """Measure the curves alone, the paper's Figure 3, on the CPU and on a GPU if there is one.

    Returns:
        The result with the first curves, then with all of them.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    title = f"Superpixel pooling, {bench.sweep_channels} channels"
    for sweeps in _sweeps(bench, notify):
        yield BenchResult(title, device_info(device), [], sweeps)


def _row(
    name: str, forward_ms: float, copies: float, both_ms: float | str, ratio: float | str
) -> Row:
    return {
        "method": name,
        "forward ms": round(forward_ms, 1),
        "times copy": round(copies, 2),
        "forward + backward ms": both_ms,
        "times voxseg": ratio,
    }


def _make_case(bench: PoolBench, side: int, channels: int, count: int) -> _Case:
    """Make features, SLIC labels of a simulated volume, and a gradient."""
    image = simulated_volume((side, side, side), bench.seed)
    labels = torch.from_numpy(slic(image, n_segments=count, compactness=COMPACTNESS))
    generator = torch.Generator().manual_seed(bench.seed)
    index = labels.flatten().long()
    sizes = index.bincount().float()
    return _Case(
        features=torch.randn((1, channels, side, side, side), generator=generator),
        superpixels=labels[None],
        grad=torch.randn((1, channels, len(sizes)), generator=generator),
        index=index,
        sizes=sizes,
    )


def _measure(
    case: _Case, methods: tuple[_Method, ...], repeats: int
) -> tuple[float, dict[str, float], dict[str, float]]:
    """Time a copy, and all methods forward, and forward and backward; the fastest of repeats, ms.

    Methods take turns, so that a busy moment of the machine meets all of them.
    """
    last = case.features.contiguous(memory_format=torch.channels_last_3d)
    forward, both = ({method.name: float("inf") for method in methods} for _ in range(2))
    copy_ms = float("inf")
    with warnings.catch_warnings():
        # torch says of index_reduce that it is in beta.
        warnings.filterwarnings("ignore", ".*in beta", UserWarning)
        for turn in range(repeats + 1):
            copied = _time_ms(case.features.clone)
            copy_ms = min(copy_ms, copied) if turn else copy_ms
            for method in methods:
                if turn > _SLOW_REPEATS and both[method.name] > _SLOW_MS:
                    continue
                features = last if method.channels_last else case.features
                times = _forward_ms(case, method, features), _both_ms(case, method, features)
                if turn:  # the first round compiles and loads
                    forward[method.name] = min(forward[method.name], times[0])
                    both[method.name] = min(both[method.name], times[1])
    return copy_ms, forward, both


def _forward_ms(case: _Case, method: _Method, features: Tensor) -> float:
    with torch.no_grad():
        return _time_ms(lambda: method.pool(features, case))


def _both_ms(case: _Case, method: _Method, features: Tensor) -> float:
    leaf = features.detach().requires_grad_()

    def call() -> None:
        pooled = method.pool(leaf, case)
        torch.autograd.grad(pooled, leaf, case.grad.view_as(pooled))

    return _time_ms(call)


def _time_ms(call: Callable[[], object]) -> float:
    """Time a call, freeing of its memory included; the fastest of two or more in a row.

    The first finds the memory as the method before left it, the second as it is in a training loop.
    Short calls are repeated for a while: a busy machine stops threads for longer than they take.
    """
    best, spent, calls = float("inf"), 0.0, 0
    while calls < 2 or (spent < _ENOUGH_MS and calls < _ENOUGH_CALLS):
        start = time.perf_counter()
        call()
        took = 1e3 * (time.perf_counter() - start)
        best, spent, calls = min(best, took), spent + took, calls + 1
    return best


def _reference_ms(case: _Case) -> float:
    """Time SciPy's maxima, forward and backward, once."""
    features, labels = case.features.numpy(), case.superpixels.numpy()
    start = time.perf_counter()
    _, argmax = reference.superpixel_max(features, labels, case.count)
    reference.superpixel_max_backward(case.grad.numpy(), argmax, features.shape)
    return 1e3 * (time.perf_counter() - start)


def _cuda_ms(case: _Case) -> dict[str, float]:
    """Time the methods of the curves on the GPU, voxseg's with a plan that was made before."""
    device = torch.device("cuda")
    there = _Case(**{name: part.to(device) for name, part in vars(case).items()})
    plan = superpixel_plan(there.superpixels, there.count)
    leaf = there.features.requires_grad_()

    def call(method: _Method) -> None:
        if method.name in _OWN:
            pooled = superpixel_pool(leaf, plan, there.count, _OWN[method.name])
        else:
            pooled = method.pool(leaf, there)
        torch.autograd.grad(pooled, leaf, there.grad.view_as(pooled))

    return {
        _on_cuda(method): milliseconds(partial(call, method), device)
        for method in METHODS
        if method.swept
    }


def _on_cuda(method: _Method) -> str:
    return f"{method.name}, CUDA"


def _sweeps(bench: PoolBench, notify: Callable[[str], None]) -> Iterator[list[Sweep]]:
    """Measure time forward and backward against voxels, then against superpixels (Figure 3)."""
    methods = tuple(method for method in METHODS if method.swept)
    names = [*(method.name for method in methods), _REFERENCE]
    if torch.cuda.is_available():
        names += map(_on_cuda, methods)
    else:
        notify("no CUDA device: the curves are the CPU's")
    side = bench.sweep_sides[-2:][0]
    what = f"ms, forward + backward, {bench.sweep_channels} channels"
    wanted = (
        ("against voxels, 100 superpixels", "voxels", [(one, 100) for one in bench.sweep_sides]),
        (
            f"against superpixels, {side}^3 voxels",
            "superpixels",
            [(side, count) for count in bench.sweep_counts],
        ),
    )
    sweeps = []
    for title, along, problems in wanted:
        curves: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        for edge, count in problems:
            notify(f"curves: {edge}^3 voxels, {count} superpixels")
            case = _make_case(bench, edge, bench.sweep_channels, count)
            _, _, both = _measure(case, methods, bench.repeats)
            slowest = max((y for _, y in curves[_REFERENCE]), default=0.0)
            if slowest < _LONGEST_MS:
                both[_REFERENCE] = _reference_ms(case)
            if torch.cuda.is_available():
                both |= _cuda_ms(case)
            for name, took in both.items():
                curves[name].append((edge**3 if along == "voxels" else case.count, took))
        sweeps.append(Sweep(title, along, what, curves))
        yield list(sweeps)
