"""Milliseconds of a call, on a CPU or a GPU."""

import statistics
import time
from collections.abc import Callable

import torch

_WARM_UPS = 3


def milliseconds(call: Callable[[], object], device: torch.device, repeats: int = 20) -> float:
    """Give the median time of a call, after a few that are not counted.

    On a GPU each call is timed by events on its own stream, without the host's waiting; the call's
    data should exceed the GPU's cache, or it is timed warm.
    """
    for _ in range(_WARM_UPS if device.type == "cuda" else 1):
        call()
    if device.type != "cuda":
        return statistics.median(_wall_ms(call) for _ in range(repeats))
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

    def finished() -> None:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    finished()
    return statistics.median(_wall_ms(finished) for _ in range(repeats))


def _wall_ms(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)
