"""``voxseg bench train``."""

from typing import Annotated

import typer

from . import console as terminal
from . import options
from .bench_table import Quick, show


def train(
    device: options.Device = "cpu",
    recipe: Annotated[
        list[str] | None, typer.Option("--recipe", help="Only this; may be repeated.")
    ] = None,
    workers: Annotated[
        list[int] | None,
        typer.Option("--workers", min=0, help="Processes that cut patches; may be repeated."),
    ] = None,
    with_compile: Annotated[
        bool, typer.Option("--compile", help="Measure torch.compile too; it takes minutes.")
    ] = False,
    quick: Quick = False,
    as_json: options.Json = False,
) -> None:
    """Training steps against pure compute: the share of its time in which the device computes.

    Beside it: what making a batch takes, and how fast other layouts and precisions are. Networks of
    volumes only; Reduced (/8) and full VoxResNet V3 unless a recipe is named.
    """
    from voxseg.bench.train import RECIPES, TrainBench, run_train_bench, tiny
    from voxseg.engine.device import choose_device

    bench = TrainBench(
        recipes=tuple(recipe or RECIPES), workers=tuple(workers or ()), compile=with_compile
    )
    screen = terminal.console(as_json)
    result = run_train_bench(
        tiny(bench) if quick else bench,
        choose_device(device),
        lambda text: screen.print(text, markup=False),
    )
    show(result, None, as_json)
