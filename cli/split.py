"""``voxseg split``."""

from pathlib import Path
from typing import Annotated

import typer

from voxseg.documents import document
from voxseg.schemas import SPLIT_WRITTEN

from . import console as terminal
from . import options


def split(
    data: Annotated[
        Path, typer.Argument(help="Folder of volumes with labels, or a CSV/JSON list.")
    ],
    output: options.Output,
    folds: options.Folds = 3,
    leave_one_out: options.LeaveOneOut = False,
    groups: options.Groups = None,
    strata: options.Strata = "",
    labels: options.Labels = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the shuffle.")] = 0,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Deal the cases of DATA into folds and write them to OUTPUT (JSON), with a hash.

    'voxseg crossval --split' and 'voxseg train --split --fold' use the file, so that networks are
    compared on the same folds.
    """
    from voxseg.api import split as run
    from voxseg.data.splits import split_hash

    parts = run(
        data,
        output,
        folds=folds,
        leave_one_out=leave_one_out,
        groups=groups,
        strata=strata,
        labels=labels,
        seed=seed,
        overwrite=overwrite,
    )
    if as_json:
        content = {"split": str(output), "hash": split_hash(parts), "folds": len(parts)}
        terminal.print_json(document(SPLIT_WRITTEN, content))
        return
    rows = [
        (number, len(part.train), len(part.val), ", ".join(part.val))
        for number, part in enumerate(parts)
    ]
    columns = ("fold", "to train on", "held out", "cases held out")
    terminal.out.print(terminal.table(f"Split {split_hash(parts)[:12]}", columns, rows))
    terminal.out.print(f"wrote {output}", markup=False)
