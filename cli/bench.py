"""``voxseg bench``: each subcommand prints one table of ratios measured in one run."""

import os
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from voxseg.engine.process import SWITCH

from . import bench_predict, bench_train, options
from . import console as terminal
from .bench_table import Quick, show

app = typer.Typer(no_args_is_help=True, help="Measure predictions, and ops against their peers.")
app.command()(bench_predict.predict)
app.command()(bench_train.train)

_CHILD = "VOXSEG_BENCH_CHILD"


class Memory(StrEnum):
    """Memory settings of the process that measures; they can only be chosen before it starts."""

    tuned = "tuned"
    default = "default"


class Part(StrEnum):
    """What of the networks for images is measured."""

    superpixels = "superpixels"
    split_merge = "split-merge"
    vortex = "vortex"
    hypercolumns = "hypercolumns"


MemoryOption = Annotated[
    Memory, typer.Option("--memory", help="The program's memory settings, or Python's own.")
]
Plot = Annotated[
    Path | None, typer.Option("--plot", help="PNG of time against voxels and count; takes longer.")
]


Device = Annotated[
    str, typer.Option("--device", help="cpu, or cuda: against the bandwidth of its memory.")
]


@app.command()
def pool(
    device: Device = "cpu",
    memory: MemoryOption = Memory.tuned,
    plot: Plot = None,
    quick: Quick = False,
    as_json: options.Json = False,
) -> None:
    """Pool features over SLIC supervoxels, forward and backward: voxseg, and torch's own ways.

    The plot repeats the paper's Figure 3: time against voxels and superpixels, with SciPy's,
    torch's and voxseg's own ways on the CPU, and voxseg's on a GPU where there is one.
    """
    if device != "cpu":
        _refuse_plot(plot, "belongs to --device cpu, whose curves include the GPU's")
        _measure_device("pool", device, quick, as_json)
        return
    if quick:
        _refuse_plot(plot, "needs curves, which --quick does not measure; leave one out")
    if _started_again(memory):
        return
    from voxseg.bench.pool import PoolBench, run_pool_bench

    bench = PoolBench(side=32, channels=4, count=100, repeats=1, sweep=False)
    screen = terminal.console(as_json)
    chosen = bench if quick else PoolBench(sweep=plot is not None or as_json)
    show(run_pool_bench(chosen, lambda text: screen.print(text, markup=False)), plot, as_json)


@app.command()
def voxresnet(device: Device = "cpu", quick: Quick = False, as_json: options.Json = False) -> None:
    """Predict a whole volume with VoxResNet V0 and V3: the share of time that pooling takes."""
    _measure_device("voxresnet", device, quick, as_json)


@app.command()
def slic(
    device: Device = "cpu",
    image: Annotated[
        Path | None, typer.Option("--image", help="A NIfTI volume instead of a simulated one.")
    ] = None,
    memory: MemoryOption = Memory.tuned,
    plot: Plot = None,
    quick: Quick = False,
    as_json: options.Json = False,
) -> None:
    """Divide a volume of 256x128x256 voxels with connectivity: voxseg, scikit-image, SimpleITK.

    Each tool's compactness is tuned for explained variance on a log grid first. On a GPU voxseg is
    held against itself on the CPU instead.
    """
    if device != "cpu":
        _refuse_plot(plot, "belongs to --device cpu, whose curves include the GPU's")
        _measure_device("slic", device, quick, as_json)
        return
    if quick:
        _refuse_plot(plot, "needs curves, which --quick does not measure; leave one out")
    if _started_again(memory):
        return
    from voxseg.bench.slic import SlicBench, run_slic_bench

    small = SlicBench(shape=(24, 20, 28), n_segments=30, tuning_voxels=4096, sweep=False)
    screen = terminal.console(as_json)
    chosen = small if quick else SlicBench(image=image, sweep=plot is not None or as_json)
    show(run_slic_bench(chosen, lambda text: screen.print(text, markup=False)), plot, as_json)


@app.command()
def images(
    device: Device = "cpu",
    part: Annotated[
        list[Part] | None, typer.Option("--part", help="Only this; may be repeated.")
    ] = None,
    quick: Quick = False,
    as_json: options.Json = False,
) -> None:
    """Networks for images: time and peak memory against what they are made from.

    ENet with and without superpixels; split-merge pooling depth first, and the dilated network that
    it equals (an hour on a CPU; half the size where memory is short); vortex pooling and ASPP;
    training steps on hypercolumns of some pixels and of all (half as many images where memory is
    short).
    """
    from dataclasses import replace

    from voxseg.bench.images import PARTS, QUICK, ImagesBench, run_images_bench
    from voxseg.engine.device import choose_device
    from voxseg.engine.free_memory import free_gb

    chosen = choose_device(device)
    wanted = [one.value for one in part or Part]
    bench = replace(
        QUICK if quick else ImagesBench(),
        parts=tuple(name for name in PARTS if name in wanted),
        most_bytes=1e9 * free_gb(chosen),
    )
    screen = terminal.console(as_json)
    result = run_images_bench(bench, chosen, lambda text: screen.print(text, markup=False))
    show(result, None, as_json)


def _refuse_plot(plot: Path | None, reason: str) -> None:
    from voxseg.errors import UsageError

    if plot is not None:
        raise UsageError(f"--plot {reason}")


def _measure_device(what: str, name: str, quick: bool, as_json: bool) -> None:
    from voxseg.bench.device import DeviceBench, run_device_bench, tiny
    from voxseg.engine.device import choose_device

    screen = terminal.console(as_json)
    bench = tiny(DeviceBench()) if quick else DeviceBench()
    chosen = choose_device(name)
    show(
        run_device_bench(what, bench, chosen, lambda text: screen.print(text, markup=False)),
        None,
        as_json,
    )


def _started_again(memory: Memory) -> bool:
    """Run the command in a process with other memory settings, if this one has not the right ones.

    Settings that were made cannot be taken back; True when the work is done.
    """
    if memory.value == os.environ.get(SWITCH, "tuned") or os.environ.get(_CHILD):
        return False
    environment = {**os.environ, SWITCH: memory.value, _CHILD: "1"}
    for name in ("THP_MEM_ALLOC_ENABLE", "OMP_WAIT_POLICY"):
        environment.pop(name, None)  # what this process set for itself
    done = subprocess.run(
        [sys.executable, "-m", "voxseg", *sys.argv[1:]], env=environment, check=False
    )
    if done.returncode:
        raise typer.Exit(done.returncode)
    return True
