"""``voxseg train`` and ``voxseg recipes``."""

import tomllib
from pathlib import Path
from typing import Annotated

import typer

from voxseg.documents import document
from voxseg.schemas import DRY_RUN, RECIPES, TRAIN

from . import console as terminal
from . import options
from .progress import minutes, training_bar


def train(
    data: Annotated[
        Path,
        typer.Argument(help="Folder of volumes or photographs with labels, or a CSV/JSON list."),
    ],
    output: options.Output,
    labels: options.Labels = None,
    recipe: options.Recipe = None,
    config: options.ConfigFile = None,
    settings: options.Settings = None,
    plane: options.Plane = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(
            "--val-fraction",
            min=0,
            max=0.9,
            help="Share of cases held out; by default the data set's own validation part, else "
            "0.2.",
        ),
    ] = None,
    split: options.Split = None,
    fold: Annotated[int, typer.Option("--fold", min=0, help="Which fold of --split.")] = 0,
    epochs: options.Epochs = None,
    max_minutes: options.MaxMinutes = None,
    seed: options.Seed = None,
    deterministic: options.Deterministic = False,
    workers: options.Workers = None,
    init_from: options.InitFrom = None,
    device: options.Device = "auto",
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> None:
    """Train a network on DATA into the run folder OUTPUT.

    Without --recipe, a network with SLIC supervoxels is set up from the data's spacing and size,
    and what was chosen is printed: a Reduced (/8) VoxResNet V3, for photographs an ENet V3.
    """
    from voxseg.engine.options import training_request

    # As voxseg.train, which has no dry run.
    request = training_request(
        data=data,
        output=output,
        labels=labels,
        recipe=recipe,
        config=config,
        settings=settings,
        plane=plane,
        val_fraction=val_fraction,
        split=split,
        fold=fold,
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
    from voxseg.engine.train import dry_run_report
    from voxseg.engine.train import train as run

    screen = terminal.console(as_json)
    if dry_run:
        settings_text = dry_run_report(request, screen.print)
        if as_json:
            terminal.print_json(document(DRY_RUN, {"settings": tomllib.loads(settings_text)}))
        else:
            screen.print(settings_text, markup=False)
        return
    with training_bar(screen) as bar:
        result = run(request, bar, lambda text: screen.print(text, markup=False))
    if as_json:
        content = {
            "checkpoint": str(result.checkpoint),
            "score": result.score,
            "score_name": result.score_name,
            "dice": result.best_dice,
            "iou": result.best_iou,
            "class_dice": result.class_dice,
            "steps": result.steps,
            "seconds": result.seconds,
        }
        terminal.print_json(document(TRAIN, content))
        return
    if result.score_name in ("Dice", "IoU"):
        found = (
            f"Dice {terminal.cell(result.best_dice)} (foreground), IoU "
            f"{terminal.cell(result.best_iou)} (all classes)"
        )
    else:
        found = f"{result.score_name} {terminal.cell(result.score)}"
    screen.print(
        f"trained {result.steps} steps in {minutes(result.seconds)}; validation {found}; "
        f"{result.checkpoint}",
        markup=False,
    )
    screen.print(f"next: voxseg predict {output} IMAGES -o PREDICTIONS", markup=False)


def recipes(as_json: options.Json = False) -> None:
    """List the recipes: one experiment each; copy one with --config and change it."""
    from voxseg.engine.config import describe_recipes

    found = describe_recipes()
    if as_json:
        terminal.print_json(document(RECIPES, {"recipes": found}))
        return
    terminal.out.print(terminal.table("Recipes", ("name", "what"), found.items()))
