"""Methods against the one that they are made from, or stand in for, as rows of a table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from voxseg.bench.report import Row
from voxseg.bench.timing import costs_in_turns

Size = tuple[int, int]


@dataclass(frozen=True)
class Asked:
    """The most that a method may take, as multiples of what it stands against."""

    ms: float | str = ""
    memory: float | str = ""


def rows_of(
    size: str,
    calls: Mapping[str, Callable[[], object]],
    asked: Mapping[str, Asked],
    rounds: int,
    device: torch.device,
) -> list[Row]:
    """Measure calls, the first of which is the peer of the others."""
    costs = costs_in_turns(calls, device, rounds)
    peer = next(iter(costs))
    ms, peak = costs[peer].ms, costs[peer].peak_bytes
    return [
        {
            "method": name,
            "size": size,
            "ms": round(cost.ms, 2),
            "against": "" if name == peer else peer,
            "times its ms": round(cost.ms / ms, 3),
            "ms asked": asked.get(name, Asked()).ms,
            "peak MB": round(cost.peak_bytes / 1e6, 3),
            "times its MB": round(cost.peak_bytes / peak, 3),
            "MB asked": asked.get(name, Asked()).memory,
            "peak of": "the allocator" if device.type == "cuda" else "live tensors",
        }
        for name, cost in costs.items()
    ]


def photograph(size: Size, seed: int, batch: int = 1) -> Tensor:
    """Make smooth coloured areas with noise, (batch, 3, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((batch, 3, *(max(2, n // 32) for n in size)), generator=generator)
    areas = functional.interpolate(coarse, size, mode="bicubic")
    noise = 0.05 * torch.randn((batch, 3, *size), generator=generator)
    return (areas + noise).clamp(0, 1)


def product(size: Size) -> str:
    """Write a size in words."""
    return f"{size[0]} x {size[1]}"
