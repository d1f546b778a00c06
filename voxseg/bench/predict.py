"""What ``voxseg predict`` takes from file to file, in a process of its own, by stage.

Every launch has an empty cache, so that supervoxels are computed. Of several launches the fastest
counts; where Numba has compiled nothing yet, the first one does, which takes half a minute. A last
launch predicts the image twice: what the network takes the second time is the time from array to
labels, without what a device needs at its first use.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from voxseg.bench.device import device_info
from voxseg.bench.heads import write_head
from voxseg.bench.report import BenchResult, Row
from voxseg.data.folders import check_exists
from voxseg.errors import DataError, VoxsegError

NETWORKS = ("reduced8-v0", "reduced8-v3", "reduced8-v4", "full-v0", "full-v3")
"""Measured by default; each with ``ibsr-`` before it is a recipe."""

_STAGES = ("read", "prepare", "supervoxels", "network", "write")


@dataclass(frozen=True, kw_only=True)
class PredictBench:
    """What is measured."""

    networks: tuple[str, ...] = NETWORKS
    shape: tuple[int, int, int] = (256, 128, 256)
    """Of the simulated head; IBSR's."""
    image: Path | None = None
    """A NIfTI volume in its place."""
    repeats: int = 3
    """Launches, the fastest of which counts."""
    seed: int = 0


@dataclass(frozen=True)
class _Launch:
    wall: float
    cpu: float
    """Seconds that all cores worked, in the program and in the system."""
    cases: list[dict[str, Any]]


def run_predict_bench(
    bench: PredictBench,
    device: torch.device,
    make_network: Callable[[str, Path], int],
    notify: Callable[[str], None],
) -> BenchResult:
    """Measure each network of ``bench``.

    Args:
        bench: What.
        device: Where.
        make_network: Writes a checkpoint by a recipe's name and returns its number of parameters.
        notify: Is told what is measured.

    Returns:
        A row a network, in s: the process from its start to its end; what all cores worked in it;
        its start and its end, all that is not of the case; the stages of the case; the rest of the
        case; and the network a second time.

    Raises:
        DataError: The image is no file.
        VoxsegError: A prediction failed.
    """
    check_exists(bench.image)
    if bench.image is not None and bench.image.is_dir():
        raise DataError(f"{bench.image} is a folder; name one NIfTI file in it")
    rows = []
    with TemporaryDirectory() as folder:
        place = Path(folder)
        image = bench.image or write_head(place / "head.nii.gz", bench.shape, bench.seed)
        for name in bench.networks:
            notify(f"{name} on {device}")
            checkpoint = place / name / "best.pt"
            count = make_network(f"ibsr-{name}", checkpoint)
            rows.append(_row(name, count, bench.repeats, _Launcher(checkpoint, image, device)))
    what = f"{bench.image}" if bench.image else "a head of " + " x ".join(map(str, bench.shape))
    return BenchResult(f"voxseg predict from file to file, {what}", device_info(device), rows)


@dataclass(frozen=True)
class _Launcher:
    checkpoint: Path
    image: Path
    device: torch.device

    def __call__(self, times: int = 1) -> _Launch:
        """Predict the image so many times in one process."""
        with TemporaryDirectory(dir=self.checkpoint.parent) as folder:
            place = Path(folder)
            ending = ".nii.gz" if self.image.name.endswith(".gz") else ".nii"
            images = [place / f"case{n}{ending}" for n in range(times)]
            for one in images:
                shutil.copyfile(self.image, one)
            words = ["predict", self.checkpoint, *images, "-o", place / "masks", "--json"]
            environment = {**os.environ, "VOXSEG_CACHE": str(place / "cache")}
            busy, start = _cpu_seconds(), time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "voxseg", *map(str, words), "--device", str(self.device)],
                env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            wall, cpu = time.perf_counter() - start, _cpu_seconds() - busy
        if done.returncode:
            said = " ".join(done.stderr.split()) or "it said nothing"
            raise VoxsegError(f"voxseg predict failed on {self.image}: {said}")
        return _Launch(wall, cpu, json.loads(done.stdout)["cases"])


def _row(name: str, count: int, repeats: int, launch: _Launcher) -> Row:
    best = min((launch() for _ in range(repeats)), key=lambda one: one.wall)
    [case] = best.cases
    stages: dict[str, float] = case["stages"]
    again = launch(2).cases[-1]["stages"]["network"]
    row: dict[str, float | str] = {
        "network": name,
        "parameters": count,
        "total s": best.wall,
        "CPU s": best.cpu,
        "start and end s": best.wall - case["seconds"],
        **{f"{stage} s": stages.get(stage, math.nan) for stage in _STAGES},
        "rest s": case["seconds"] - sum(stages.values()),
        "array to labels s": again,
    }
    return {key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()}


def _cpu_seconds() -> float:
    """What processes that this one started and that ended have worked."""
    times = os.times()
    return times.children_user + times.children_system
