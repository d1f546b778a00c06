"""``voxseg bench predict``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from . import console as terminal
from . import options
from .bench_table import Quick, show


class Network(StrEnum):
    """Networks that are measured."""

    reduced8_v0 = "reduced8-v0"
    reduced8_v3 = "reduced8-v3"
    reduced8_v4 = "reduced8-v4"
    full_v0 = "full-v0"
    full_v3 = "full-v3"


def predict(
    device: options.Device = "cpu",
    network: Annotated[
        list[Network] | None, typer.Option("--network", help="Only this; may be repeated.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option("--image", help="A NIfTI volume instead of a simulated head.")
    ] = None,
    quick: Quick = False,
    as_json: options.Json = False,
) -> None:
    """Predict a whole brain from file to file, by stages: Reduced (/8) and full VoxResNet.

    Each prediction is a process of its own with an empty cache; the fastest of three counts. What
    the network takes of an image after the first one stands under "array to labels".
    """
    from voxseg.bench.predict import NETWORKS, PredictBench, run_predict_bench
    from voxseg.engine.device import choose_device
    from voxseg.engine.untrained import write_untrained

    chosen = choose_device(device)
    names = tuple(one.value for one in network or ()) or NETWORKS
    bench = PredictBench(networks=names, image=image)
    if quick:
        bench = PredictBench(networks=names[:2], image=image, shape=(32, 24, 32), repeats=1)
    screen = terminal.console(as_json)
    result = run_predict_bench(
        bench, chosen, write_untrained, lambda text: screen.print(text, markup=False)
    )
    show(result, None, as_json)
