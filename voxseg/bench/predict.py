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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from voxseg.bench.device import device_info
from voxseg.bench.report import BenchResult, Row
from voxseg.errors import VoxsegError
from voxseg.export.nifti import plain_geometry, write_mask

NETWORKS = ("reduced8-v0", "reduced8-v3", "full-v0", "full-v3")
"""Measured by default; each with ``ibsr-`` before it is a recipe."""

_STAGES = ("read", "prepare", "supervoxels", "network", "write")
_SPACING_MM = (0.9375, 1.5, 0.9375)
_HEAD = (0.29, 0.46, 0.28)
"""Half axes of the brain, as shares of the volume; IBSR's fill a seventh of theirs."""


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
        VoxsegError: A prediction failed.
    """
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


def write_head(path: Path, shape: Sequence[int], seed: int) -> Path:
    """Write a simulated brain of three tissues, with nothing around it, as IBSR's are stored.

    Args:
        path: The file.
        shape: (X, Y, Z) in voxels of IBSR's size.
        seed: Of the noise.
    """
    rng = np.random.default_rng(seed)
    axes = (np.linspace(-0.5, 0.5, n, dtype=np.float32) for n in shape)
    x, y, z = (a / half for a, half in zip(np.ix_(*axes), _HEAD, strict=True))
    radius = np.sqrt(x**2 + y**2 + z**2)
    # Folds move the borders of the tissues in and out.
    depth = radius + 0.04 * np.sin(23 * x) * np.sin(19 * y) * np.sin(21 * z)
    tissue = np.digitize(depth, (0.18, 0.75, 0.95))
    means = np.array([70, 160, 110, 60], np.float32)
    values = means[tissue] + rng.normal(0, 8, tissue.shape).astype(np.float32)
    values[radius > 1] = 0
    affine = np.diag([*_SPACING_MM, 1.0])
    return write_mask(path, values.clip(0).astype(np.int16), plain_geometry(affine, tuple(shape)))


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
