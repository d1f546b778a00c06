"""One part of ``make gpu``, in a process of its own: what breaks here leaves the others alone.

What is measured is written after every row, so that a part that is stopped loses only its last.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from voxseg.documents import json_text
from voxseg.files import replacing, write_text

if TYPE_CHECKING:
    import torch

    from voxseg.bench.report import BenchResult

_TRAIN_SECONDS = 2.0
"""A round of training steps; a network has about six."""


@dataclass(frozen=True)
class Asked:
    """What a part is asked for."""

    device: "torch.device"
    small: bool
    """Every size shrunk: a smoke test, not a result."""
    output: Path
    """Its JSON file; a picture lies beside it."""


def main(words: list[str] | None = None) -> int:
    """Measure one part and write it."""
    parser = argparse.ArgumentParser(prog="python -m voxseg.bench.gpu_part", description=__doc__)
    parser.add_argument("part", nargs="+", choices=PARTS)
    parser.add_argument("--device", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--small", action="store_true")
    chosen = parser.parse_args(words)
    from voxseg.engine.process import prepare

    prepare()  # before torch is loaded
    import torch

    asked = Asked(torch.device(chosen.device), chosen.small, chosen.output)
    for part in chosen.part:
        for result in PARTS[part](asked):
            write_text(asked.output, json_text(result.to_json()))
    return 0


def _machine(asked: Asked) -> "Iterator[BenchResult]":
    """What is installed, whether every kernel compiles and loads, and SLIC's code for the CPU.

    Numba compiles that once, for half a minute, which no other part then has to wait for.
    """
    from voxseg.bench.device import COMPACTNESS, device_info
    from voxseg.bench.report import BenchResult
    from voxseg.bench.slic import simulated_volume
    from voxseg.engine.doctor import examine
    from voxseg.ops import slic

    found = [dataclasses.asdict(finding) for finding in examine()]
    result = BenchResult("What this machine has", device_info(asked.device), found)
    yield result
    start = time.perf_counter()
    slic(simulated_volume((16, 18, 40), 0), n_segments=20, compactness=COMPACTNESS)
    state = f"compiled or loaded in {time.perf_counter() - start:.1f} s"
    found.append({"what": "SLIC of the CPU", "state": state, "cure": ""})
    yield result


def _on_device(what: str) -> "Callable[[Asked], Iterator[BenchResult]]":
    def measure(asked: Asked) -> "Iterator[BenchResult]":
        from voxseg.bench.device import DeviceBench, device_info, device_rows, device_title, tiny
        from voxseg.bench.report import BenchResult

        bench = tiny(DeviceBench()) if asked.small else DeviceBench()
        result = BenchResult(device_title(what, bench), device_info(asked.device), [])
        for row in device_rows(what, bench, asked.device):
            result.rows.append(row)
            yield result

    return measure


def _training(recipe: str) -> "Callable[[Asked], Iterator[BenchResult]]":
    def measure(asked: Asked) -> "Iterator[BenchResult]":
        from voxseg.bench.train import TrainBench, run_train_bench, tiny
        from voxseg.engine.workers import patch_worker_count

        workers = tuple(dict.fromkeys((0, patch_worker_count(-1, asked.device))))
        bench = TrainBench(recipes=(recipe,), workers=workers, seconds=_TRAIN_SECONDS, rounds=1)
        if asked.small:
            bench = dataclasses.replace(tiny(bench), workers=(0,), variants=False)
        yield run_train_bench(bench, asked.device, _say)

    return measure


def _figure(asked: Asked) -> "Iterator[BenchResult]":
    """The paper's Figure 3, drawn."""
    from voxseg.bench.pool import PoolBench, pool_figures

    bench = PoolBench(repeats=1)
    if asked.small:
        bench = PoolBench(repeats=1, sweep_channels=2, sweep_sides=(16, 20), sweep_counts=(5, 20))
    for result in pool_figures(bench, _say):
        yield result
        with replacing(asked.output.with_suffix(".png")) as temporary:
            result.plot(temporary)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


PARTS: "dict[str, Callable[[Asked], Iterator[BenchResult]]]" = {
    "machine": _machine,
    "pool": _on_device("pool"),
    "slic": _on_device("slic"),
    "voxresnet": _on_device("voxresnet"),
    "train-reduced": _training("ibsr-reduced8-v3"),
    "train-full": _training("ibsr-full-v3"),
    "figure": _figure,
}


if __name__ == "__main__":
    sys.exit(main())
