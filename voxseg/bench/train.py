"""Training steps against pure compute: does the device wait for data?

Pure compute is the real step (loss, gradient, optimiser) on one batch that lies on the device
already; training is a real run, with its sampler, workers and transfer. Their ratio is the share of
its time in which the device computes. Beside them stand the parts of making a batch, and other ways
to compute: memory layout, precision, ``torch.compile`` and, on a GPU, a CUDA graph.
"""

import dataclasses
import importlib.util
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from voxseg.bench.device import device_info
from voxseg.bench.heads import NUM_CLASSES, Shape, prepared_head
from voxseg.bench.report import BenchResult, Row
from voxseg.data.patches import Batch
from voxseg.data.prepare import Prepared
from voxseg.engine.config import Config, build, merge, read_recipe
from voxseg.engine.device import Compute, choose_compute
from voxseg.engine.loop import TrainingRun
from voxseg.engine.network import build_network, network_channels
from voxseg.engine.sampling import build_sampler, patch_size
from voxseg.engine.steps import Losses, TrainingStep
from voxseg.engine.stop import StopRequest
from voxseg.engine.workers import patch_worker_count
from voxseg.errors import UsageError

RECIPES = ("ibsr-reduced8-v3", "ibsr-full-v3")
"""Measured by default."""
UNVARIED: dict[str, Any] = {
    "flip_axes": [], "affine_probability": 0.0, "intensity_probability": 0.0,
}  # fmt: skip
"""Settings without augmentation."""

_DIMS = 3
_FEWEST = 3
"""Steps that are measured at least."""
_WARM_UPS = 2
_BATCHES = 20
_LONG_S = 1.0
"""Steps that take longer are measured in one round."""


@dataclass(frozen=True, kw_only=True)
class TrainBench:
    """What is measured."""

    recipes: tuple[str, ...] = RECIPES
    workers: tuple[int, ...] = ()
    """Numbers of workers; none for 0, 1 and what training takes by default."""
    shape: Shape = (150, 122, 146)
    """Of the simulated heads, cut to their foreground; about IBSR's."""
    cases: int = 4
    steps: int = 30
    """Measured in each round."""
    seconds: float = 8.0
    """A round takes not much longer, in steps of at least three."""
    rounds: int = 3
    variants: bool = True
    """Measure other layouts and precisions too, and a CUDA graph on a GPU."""
    compile: bool = False
    """Measure ``torch.compile`` too; it takes minutes."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Nested tables over the recipe's."""
    seed: int = 0


def tiny(bench: TrainBench) -> TrainBench:
    """The same on sizes that only show that it runs."""
    settings = {"train": {"patch_voxels": [16, 16, 16]}, "supervoxels": {"size_mm": 4.0}}
    return dataclasses.replace(
        bench,
        recipes=bench.recipes if bench.recipes != RECIPES else RECIPES[:1],
        workers=bench.workers or (0,),
        shape=(24, 20, 22),
        cases=2,
        steps=_FEWEST,
        rounds=1,
        settings=merge(settings, bench.settings),
    )


def run_train_bench(
    bench: TrainBench, device: torch.device, notify: Callable[[str], None]
) -> BenchResult:
    """Measure the steps of each recipe.

    Args:
        bench: what.
        device: where the network is trained.
        notify: told what is measured, and what cannot be.

    Returns:
        A row a measurement: ms a step on the clock, ms that cores worked in this process (not in
        workers), and pure compute as a share of the clock's, above 1 for what is faster. Rows that
        are not of steps have no share.

    Raises:
        UsageError: there is no such recipe, or it is not for volumes with a class a voxel.
    """
    rows: list[Row] = []
    for recipe in bench.recipes:
        config = _config(recipe, bench.settings, notify)
        supervoxels = config.supervoxels if config.model.pools else None
        notify(f"{recipe} on {device}")
        cases = [
            prepared_head(bench.shape, bench.seed + number, supervoxels)
            for number in range(bench.cases)
        ]
        rows += _Measured(bench, recipe, config, cases, device, notify).rows()
    shape = " x ".join(map(str, bench.shape))
    title = f"Training steps, {bench.cases} simulated heads of {shape} voxels"
    return BenchResult(title, device_info(device), rows)


def _config(recipe: str, settings: dict[str, Any], notify: Callable[[str], None]) -> Config:
    """Resolve a recipe for the simulated heads."""
    values = list(range(NUM_CLASSES))
    labels = {"values": values, "names": [f"class {n}" for n in values], "table": ""}
    tables = merge(merge(read_recipe(recipe), settings), {"labels": labels})
    if importlib.util.find_spec("monai") is None:
        notify("MONAI is not installed: patches are not varied here")
        tables = merge(tables, {"augment": UNVARIED})
    config = build(tables)
    of_volumes = config.task.kind == "segmentation" and not config.data.slice_axes
    if not of_volumes or config.train.pixels or config.data.normalise != "zscore":
        raise UsageError(
            f"bench train measures networks of whole volumes, and {recipe} is not for one; choose "
            "another --recipe, as ibsr-cpu"
        )
    return config


@dataclass(frozen=True, order=True)
class _Pace:
    """Seconds of a step: on the clock, and those that this process's cores worked."""

    wall: float
    cpu: float


class _Marks:
    """The moments at which steps ended."""

    def __init__(self) -> None:
        self._moments: list[_Pace] = []

    def __call__(self, *_: object) -> None:
        self._moments.append(_Pace(time.perf_counter(), time.process_time()))

    def pace(self, count: int) -> _Pace:
        """Mean of the last ``count`` steps."""
        first, last = self._moments[-1 - count], self._moments[-1]
        return _Pace((last.wall - first.wall) / count, (last.cpu - first.cpu) / count)


class _Measured:
    """One recipe on one device."""

    def __init__(
        self,
        bench: TrainBench,
        recipe: str,
        config: Config,
        cases: Sequence[Prepared],
        device: torch.device,
        notify: Callable[[str], None],
    ) -> None:
        self._bench, self._recipe, self._config = bench, recipe, config
        self._cases, self._device, self._notify = cases, device, notify
        settings = config.train
        self._compute = choose_compute(device, settings.precision, settings.memory_format, _DIMS)
        self._patch = patch_size(settings.patch_voxels, _DIMS, cases)

    def rows(self) -> list[Row]:
        batch = self._first_batch()
        step = self._step(self._compute)
        seconds = self._paced(step, batch, _FEWEST).wall
        count = max(_FEWEST, min(self._bench.steps, round(self._bench.seconds / seconds)))
        counts = self._bench.workers or tuple(
            dict.fromkeys((0, 1, patch_worker_count(-1, self._device)))
        )
        pure: list[_Pace] = []
        trained: dict[int, list[_Pace]] = {number: [] for number in counts}
        # In turns, so that a busy moment of the machine meets all of them.
        for _ in range(1 if seconds > _LONG_S else self._bench.rounds):
            pure.append(self._paced(step, batch, count))
            for number in counts:
                trained[number].append(self._training(number, count))
        ways = self._other_ways(batch, count)
        best = min(pure)
        rows = [self._row(f"compute alone, {_words(self._compute)}", best, best)]
        for number, found in trained.items():
            name = f"training, {number} worker{'' if number == 1 else 's'}"
            rows.append(self._row(name, min(found), best))
        rows += self._batch_rows()
        return rows + [self._row(name, found, best) for name, found in ways.items()]

    def _row(self, name: str, found: _Pace, pure: _Pace | None = None) -> Row:
        return {
            "recipe": self._recipe,
            "measured": name,
            "ms": round(1e3 * found.wall, 2),
            "CPU ms": round(1e3 * found.cpu, 2),
            "compute as a share": round(pure.wall / found.wall, 3) if pure else math.nan,
        }

    def _first_batch(self) -> Batch:
        """A real batch, on the device."""
        made: Batch = self._sampler(self._config).batch(0, self._config.train.batch_size)
        return made.each(lambda part: part.to(self._device))

    def _sampler(self, config: Config) -> Any:
        return build_sampler(config, self._cases, self._patch, (0, 1))

    def _step(self, compute: Compute) -> TrainingStep:
        config = self._config
        channels = network_channels(config.data, len(self._cases[0].image), _DIMS)
        torch.manual_seed(self._bench.seed)
        network = build_network(config.model, channels, NUM_CLASSES, _DIMS)
        compute.place(network)
        return TrainingStep(network, config, compute, None)

    def _paced(self, step: TrainingStep, batch: Batch, count: int) -> _Pace:
        """Take steps on a batch that is there."""
        losses = Losses(self._compute.ranks, late=self._device.type == "cuda")
        marks = _Marks()
        for number in range(_WARM_UPS + count):
            losses.add(number, step(batch, number, 0.5))
            marks()
        losses.settle()
        return marks.pace(count)

    def _training(self, workers: int, count: int) -> _Pace:
        """Take the steps of a run."""
        # What lies ready when the first step begins would hide how fast batches come.
        steps = count + _WARM_UPS + min(2 * workers + 2, count)
        changes: dict[str, Any] = {
            "workers": workers, "epochs": 1, "steps_per_epoch": steps, "max_minutes": 0.0,
            "patience": 0,
        }  # fmt: skip
        config = dataclasses.replace(
            self._config, train=dataclasses.replace(self._config.train, **changes)
        )
        marks = _Marks()
        with TemporaryDirectory() as folder:
            run = Path(folder)
            (run / "prepared").mkdir()
            training = TrainingRun(
                config,
                self._cases,
                (),
                run,
                self._compute,
                notify=marks,
                say=self._notify,
            )
            training.fit(StopRequest())
        return marks.pace(count)

    def _batch_rows(self) -> list[Row]:
        size = self._config.train.batch_size
        plain = build(merge(dataclasses.asdict(self._config), {"augment": UNVARIED}))
        rows = []
        for name, config in (
            ("making a batch, one core", self._config),
            ("  without augmentation", plain),
        ):
            sampler = self._sampler(config)
            sampler.batch(0, size)  # compiles what there is to compile
            marks = _Marks()
            marks()
            for number in range(_BATCHES):
                sampler.batch(number, size)
                marks()
            rows.append(self._row(name, marks.pace(_BATCHES)))
        return rows

    def _other_ways(self, batch: Batch, count: int) -> dict[str, _Pace]:
        """Compute steps in other ways."""
        found: dict[str, _Pace] = {}
        if self._bench.variants:
            for compute in self._alternatives():
                name = f"compute alone, {_words(compute)}"
                found[name] = self._paced(self._step(compute), batch, count)
            if self._device.type == "cuda":
                found |= self._graphed(batch, count)
        if self._bench.compile:
            found |= self._compiled(batch, count)
        return found

    def _alternatives(self) -> list[Compute]:
        """The other memory layout, and the other precision where it can be had."""
        own = self._compute
        last = own.memory_format is torch.channels_last_3d
        layout = torch.contiguous_format if last else torch.channels_last_3d
        precision = torch.bfloat16 if own.precision is torch.float32 else torch.float32
        return [
            dataclasses.replace(own, memory_format=layout),
            dataclasses.replace(own, precision=precision),
        ]

    def _compiled(self, batch: Batch, count: int) -> dict[str, _Pace]:
        if self._device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
            self._notify("there is no C++ compiler: torch.compile is not measured")
            return {}
        self._notify("torch.compile, which takes minutes")
        step = self._step(self._compute)
        network: Any = step.network
        network.supervise = torch.compile(network.supervise)
        return {"compute alone, torch.compile": self._paced(step, batch, count)}

    def _graphed(self, batch: Batch, count: int) -> dict[str, _Pace]:
        """Replay one captured step; real batches differ in their number of supervoxels."""
        step = self._step(self._compute)
        for group in step.optimiser.param_groups:
            group["capturable"] = True
        side: Any = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]  # torch has no types here
        side.wait_stream(torch.cuda.current_stream(self._device))
        try:
            with torch.cuda.stream(side):
                for number in range(_WARM_UPS + 1):
                    step(batch, number, 0.5)
            torch.cuda.current_stream(self._device).wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step(batch, 0, 0.5)
        except RuntimeError as error:
            self._notify(f"no CUDA graph of a step: {str(error).splitlines()[0]}")
            return {}
        marks = _Marks()
        for _ in range(1 + count):
            graph.replay()
            torch.cuda.synchronize(self._device)
            marks()
        return {"compute alone, CUDA graph": marks.pace(count)}


def _words(compute: Compute) -> str:
    precision, layout = (
        str(one).removeprefix("torch.") for one in (compute.precision, compute.memory_format)
    )
    return f"{precision}, {layout.removesuffix('_format').removesuffix('_3d').replace('_', ' ')}"
