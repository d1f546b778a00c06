"""Milliseconds and memory of a call, on a CPU or a GPU."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from voxseg.layers.depth_first import LiveBytes

_WARM_UPS = 3
_FEWEST = 3
_ENOUGH_MS = 2000.0
"""No call is repeated for much longer."""
_MOST_AHEAD_MS = 200.0
_CYCLES_PER_MS = 2_000_000
"""About the clock of a GPU; on a slower one it sleeps longer, which does no harm."""
_LONG_MS = 20_000.0
"""A call that takes longer is made once."""


def milliseconds(call: Callable[[], object], device: torch.device, repeats: int = 20) -> float:
    """Give the median time of a call, after a few that are not counted.

    On a GPU each call is timed by events on its own stream, without the host's waiting; the call's
    data should exceed the GPU's cache, or it is timed warm. Calls that take long are repeated less
    often, three times at least on a GPU.
    """
    if device.type != "cuda":
        call()
        times = [_wall_ms(call)]
        while len(times) < repeats and sum(times) < _ENOUGH_MS:
            times.append(_wall_ms(call))
        return statistics.median(times)
    with torch.cuda.device(device):
        return _event_milliseconds(call, device, repeats)


def _event_milliseconds(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    finished = _finished(call, device)
    for _ in range(_WARM_UPS):
        finished()
    queued_ms = _wall_ms(call)
    torch.cuda.synchronize(device)
    repeats = max(_FEWEST, min(repeats, int(_ENOUGH_MS / _wall_ms(finished))))
    # The GPU is kept busy while calls are queued: between two short ones it would wait for Python,
    # and that would be timed.
    ahead_ms = min(_MOST_AHEAD_MS, 2 * repeats * queued_ms)
    torch.cuda._sleep(int(ahead_ms * _CYCLES_PER_MS))  # type: ignore[no-untyped-call]  # as below
    pairs = []
    for _ in range(repeats):
        begin, end = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch has no types here
            for _ in range(2)
        )
        begin.record()
        call()
        end.record()
        pairs.append((begin, end))
    torch.cuda.synchronize(device)
    return statistics.median(float(begin.elapsed_time(end)) for begin, end in pairs)


def wall_milliseconds(call: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Give the median time until a call's work is done, the host's part included."""
    finished = _finished(call, device)
    finished()
    return statistics.median(_wall_ms(finished) for _ in range(repeats))


@dataclass(frozen=True)
class Cost:
    """What one call takes."""

    ms: float
    """Until its work is done, the host's part included."""
    peak_bytes: int
    """Most bytes of tensors that it holds at once, besides those that were there before."""


def costs_in_turns(
    calls: Mapping[str, Callable[[], object]], device: torch.device, rounds: int
) -> dict[str, Cost]:
    """Measure calls that are held against each other.

    They take turns, so that a busy moment of the machine meets all of them; the fastest of the
    rounds counts. A first round measures memory and is not timed, unless it took so long that more
    rounds would take too much of the machine.
    """
    best: dict[str, float] = {}
    peaks: dict[str, int] = {}
    for name, call in calls.items():
        start = time.perf_counter()
        peaks[name] = _peak_bytes(call, device)
        took = 1e3 * (time.perf_counter() - start)
        if took > _LONG_MS:
            best[name] = took
    short = [name for name in calls if name not in best]
    for _ in range(rounds):
        for name in short:
            took = _wall_ms(_finished(calls[name], device))
            best[name] = min(took, best.get(name, took))
    return {name: Cost(best[name], peaks[name]) for name in calls}


def _peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """What a CUDA device's allocator gave out; elsewhere what torch's operations made."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        _finished(call, device)()
        return torch.cuda.max_memory_allocated(device) - before
    with LiveBytes(device.type) as memory:
        call()
    peak: int = memory.peak
    return peak


def _finished(call: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """The call, until its work is done."""

    def finished() -> None:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return finished


def _wall_ms(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)
