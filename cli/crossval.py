"""``voxseg crossval``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import console as terminal
from . import options
from .evaluate import show
from .progress import training_bar

if TYPE_CHECKING:
    from voxseg.engine.seeds import SeedSpread


def crossval(
    data: Annotated[
        Path, typer.Argument(help="Folder of volumes with labels, or a CSV/JSON list.")
    ],
    output: options.Output,
    folds: options.Folds = 3,
    leave_one_out: options.LeaveOneOut = False,
    groups: options.Groups = None,
    strata: options.Strata = "",
    labels: options.Labels = None,
    recipe: options.Recipe = None,
    config: options.ConfigFile = None,
    settings: options.Settings = None,
    plane: options.Plane = None,
    split: options.Split = None,
    epochs: options.Epochs = None,
    max_minutes: Annotated[
        float | None, typer.Option("--max-minutes", min=0, help="Wall-clock budget of each fold.")
    ] = None,
    seed: options.Seed = None,
    deterministic: options.Deterministic = False,
    workers: options.Workers = None,
    init_from: Annotated[
        Path | None,
        typer.Option("--init-from", help="A cross-validation with the same split, fold by fold."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", min=1, help="Repeat with so many seeds and report their spread."),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs", "-j", min=0, help="Folds at a time, each in its own process; 0: in this one."
        ),
    ] = 1,
    retries: Annotated[
        int, typer.Option("--retries", min=0, help="Further attempts at a fold that failed.")
    ] = 1,
    postprocess: Annotated[
        bool,
        typer.Option(
            "--postprocess",
            help="After the folds, choose for each class whether to keep its largest component "
            "and fill its holes; voxseg predict then does so. metrics.csv stays that of the "
            "networks alone.",
        ),
    ] = False,
    device: options.Device = "auto",
    report: options.Report = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Cross-validate on DATA: train each fold, predict its held-out cases, score all of them.

    Stopped at any moment, it goes on with --resume; a finished fold is never repeated. A fold that
    fails is tried again from its last checkpoint while the others go on; exit code 4 when some
    failed for good and the others are finished.
    """
    from voxseg.api import crossval as run

    screen = terminal.console(as_json)
    with training_bar(screen) as bar:
        result = run(
            data,
            output,
            folds=folds,
            leave_one_out=leave_one_out,
            groups=groups,
            strata=strata,
            labels=labels,
            recipe=recipe,
            config=config,
            settings=settings,
            plane=plane,
            split=split,
            epochs=epochs,
            max_minutes=max_minutes,
            seed=seed,
            deterministic=deterministic,
            workers=workers,
            init_from=init_from,
            seeds=seeds,
            jobs=jobs,
            retries=retries,
            postprocess=postprocess,
            device=device,
            report=report,
            resume=resume,
            overwrite=overwrite,
            notify=bar,
            say=lambda text: screen.print(text, markup=False),
        )
    if as_json:
        terminal.print_json(result.to_json())
        return
    show(result.evaluation, output)
    if result.spread is not None:
        _show_spread(result.spread, output)


def _show_spread(spread: "SeedSpread", output: Path) -> None:
    """Print mean and standard deviation over the seeds of the headline score, and each seed's."""
    from voxseg.engine.seeds import POOLED_IOU

    found = {row.metric for row in spread.rows}
    metric, name = ("dice", "Dice")
    if POOLED_IOU in found:
        metric, name = POOLED_IOU, "IoU over all pixels"
    has_dice = "dice" in found
    rows = [
        (row.name, row.mean, row.deviation, *row.by_seed)
        for row in spread.rows
        if row.metric == metric or not has_dice
    ]
    name = name if has_dice else "Scores"
    columns = ("class", "mean", "sd", *(f"seed {seed}" for seed in spread.seeds))
    title = f"{name} over {len(spread.seeds)} seeds; the tables above are of each case's mean"
    terminal.out.print(terminal.table(title, columns, rows))
    terminal.out.print(f"wrote seeds.csv and seeds.json to {output}")
