"""Progress of long work: a bar on a terminal, nothing elsewhere."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

if TYPE_CHECKING:
    from voxseg.engine.progress import Progress as TrainProgress


@contextlib.contextmanager
def training_bar(console: Console) -> Iterator[Callable[["TrainProgress"], None]]:
    """Show loss, score, speed and time left while a network trains, a line for each of several."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[facts]}"))
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as progress:
        tasks: dict[str, TaskID] = {}

        def show(state: "TrainProgress") -> None:
            if state.name not in tasks:
                tasks[state.name] = progress.add_task("training", total=1.0, facts="")
            score = "-" if math.isnan(state.score) else f"{state.score:.3f}"
            total = state.seconds_left + 1e-9
            progress.update(
                tasks[state.name],
                description=f"{state.name} epoch {state.epoch}/{state.epochs}".lstrip(),
                visible=state.step < state.steps,
                total=state.steps,
                completed=state.step,
                facts=f"loss {state.loss:.3f}  {state.score_name} {score}  "
                f"{state.voxels_per_second / 1e6:.2f} Mvoxel/s  {minutes(total)} left",
            )

        yield show


def minutes(seconds: float) -> str:
    """Write a duration as minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"
