"""Functions that train: ``train``, ``crossval``, ``reproduce``."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from voxseg.api.shared import silent, write_and_tell
from voxseg.engine.options import Place, Settings, as_path, training_request
from voxseg.engine.page import check_page

if TYPE_CHECKING:
    from voxseg.engine.crossval import CrossvalResult
    from voxseg.engine.progress import Progress, TrainResult
    from voxseg.engine.reproduce import Reproduction


def train(
    data: Place,
    output: Place,
    *,
    labels: Place | None = None,
    recipe: str | None = None,
    config: Place | None = None,
    settings: Settings = None,
    plane: str | None = None,
    val_fraction: float | None = None,
    split: Place | None = None,
    fold: int = 0,
    epochs: int | None = None,
    max_minutes: float | None = None,
    seed: int | None = None,
    deterministic: bool = False,
    workers: int | None = None,
    init_from: Place | None = None,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    notify: "Callable[[Progress], None]" = silent,
    say: Callable[[str], None] = silent,
) -> "TrainResult":
    """Train a network on ``data`` into the run folder ``output``; see ``voxseg train --help``."""
    request = training_request(
        data=data,
        output=output,
        labels=labels,
        recipe=recipe,
        config=config,
        settings=settings,
        epochs=epochs,
        max_minutes=max_minutes,
        seed=seed,
        deterministic=deterministic,
        workers=workers,
        plane=plane,
        val_fraction=val_fraction,
        split=split,
        fold=fold,
        init_from=init_from,
        device=device,
        resume=resume,
        overwrite=overwrite,
    )
    from voxseg.engine.train import train as run

    return run(request, notify, say)


def crossval(
    data: Place,
    output: Place,
    *,
    folds: int = 3,
    leave_one_out: bool = False,
    groups: Place | None = None,
    strata: str = "",
    labels: Place | None = None,
    recipe: str | None = None,
    config: Place | None = None,
    settings: Settings = None,
    plane: str | None = None,
    split: Place | None = None,
    epochs: int | None = None,
    max_minutes: float | None = None,
    init_from: Place | None = None,
    seed: int | None = None,
    deterministic: bool = False,
    workers: int | None = None,
    seeds: int | None = None,
    jobs: int = 1,
    retries: int = 1,
    postprocess: bool = False,
    device: str = "auto",
    report: Place | None = None,
    resume: bool = False,
    overwrite: bool = False,
    notify: "Callable[[Progress], None]" = silent,
    say: Callable[[str], None] = silent,
) -> "CrossvalResult":
    """Train each fold of ``data``, predict and score what it held out; see ``voxseg crossval``."""
    check_page(as_path(report), overwrite=overwrite or resume)
    request = training_request(
        data=data,
        output=output,
        labels=labels,
        recipe=recipe,
        config=config,
        settings=settings,
        plane=plane,
        epochs=epochs,
        max_minutes=max_minutes,
        seed=seed,
        deterministic=deterministic,
        workers=workers,
        init_from=init_from,
        device=device,
        resume=resume,
        overwrite=overwrite,
    )
    from voxseg.engine.crossval import crossval as run
    from voxseg.engine.dealing import Dealing
    from voxseg.engine.folds import Effort
    from voxseg.engine.report_sources import read_source

    dealing = Dealing(
        folds=folds,
        leave_one_out=leave_one_out,
        groups=as_path(groups),
        strata=strata,
        split=as_path(split),
    )
    effort = Effort(jobs, retries)
    result = run(request, dealing, notify, say, effort=effort, seeds=seeds, postprocess=postprocess)
    if report is not None:
        write_and_tell(read_source(Path(output)), report, say)
    return result


def reproduce(
    manifest: Place,
    output: Place,
    *,
    data: Place | None = None,
    device: str | None = None,
    notify: "Callable[[Progress], None]" = silent,
    say: Callable[[str], None] = silent,
) -> "Reproduction":
    """Run again what a manifest describes and compare the figures; see ``voxseg reproduce``."""
    from voxseg.engine.reproduce import reproduce as run

    return run(
        Path(manifest), Path(output), data=as_path(data), device=device, notify=notify, say=say
    )
