"""``voxseg crossval``."""

from pathlib import Path
from typing import Annotated

import typer

from . import console as terminal
from . import options
from .evaluate import show
from .progress import training_bar
from .report import check_page, write_run_page
from .settings import gather, training_flags


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
    split: options.Split = None,
    epochs: options.Epochs = None,
    max_minutes: Annotated[
        float | None, typer.Option("--max-minutes", min=0, help="Wall-clock budget of each fold.")
    ] = None,
    seed: options.Seed = None,
    deterministic: options.Deterministic = False,
    init_from: Annotated[
        Path | None,
        typer.Option("--init-from", help="A cross-validation with the same split, fold by fold."),
    ] = None,
    device: options.Device = "auto",
    report: options.Report = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Cross-validate on DATA: train each fold, predict its held-out cases, score all of them.

    Stopped at any moment, it goes on with --resume; a finished fold is never repeated.
    """
    from voxseg.engine.crossval import crossval as run
    from voxseg.engine.dealing import Dealing
    from voxseg.engine.train import TrainRequest

    check_page(report, overwrite=overwrite or resume)
    flags = training_flags(epochs, max_minutes, seed, deterministic)
    request = TrainRequest(
        data=data,
        run=output,
        labels=labels,
        settings=gather(recipe, config, settings, flags),
        planned=recipe is None and config is None,
        init_from=init_from,
        device=device,
        resume=resume,
        overwrite=overwrite,
    )
    dealing = Dealing(
        folds=folds, leave_one_out=leave_one_out, groups=groups, strata=strata, split=split
    )
    screen = terminal.console(as_json)
    with training_bar(screen) as bar:
        result = run(request, dealing, bar, lambda text: screen.print(text, markup=False))
    if report is not None:
        write_run_page(output, report, screen)
    if as_json:
        terminal.print_json(result.to_json())
        return
    show(result, output)
