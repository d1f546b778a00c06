"""``voxseg models``."""

from typing import Annotated, cast

import typer

from voxseg import schemas
from voxseg.documents import document

from . import console as terminal
from . import options

_WIDE = 150
"""Columns of a terminal that holds the whole table."""


def models(
    in_channels: Annotated[int, typer.Option("--in-channels", min=1, help="Image channels.")] = 1,
    classes: Annotated[
        int, typer.Option("--classes", min=1, help="Classes, background included.")
    ] = 4,
    spatial_dims: Annotated[
        int | None,
        typer.Option(
            "--spatial-dims",
            min=2,
            max=3,
            help="2 for images, 3 for volumes: only networks that have it. Without: all, as in "
            "their papers.",
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List every variant of every network: parameters, receptive field in voxels, paper."""
    import torch

    from voxseg.models import MODELS, count_parameters

    rows = []
    for name, entry in MODELS.items():
        dims = spatial_dims or entry.spatial_dims[0]
        if dims not in entry.spatial_dims:
            continue
        # On the meta device: shapes without numbers.
        with torch.device("meta"):
            network = entry.build(in_channels, classes, spatial_dims=dims)
        count = count_parameters(network)
        rows.append(
            {
                "name": name,
                "spatial_dims": dims,
                "parameters": count.inference,
                "auxiliary_parameters": count.auxiliary,
                "receptive_field": list(cast("tuple[int, ...]", network.receptive_field)),
                "paper": entry.paper,
                "description": entry.description,
            }
        )
    if as_json:
        content = {
            "in_channels": in_channels,
            "classes": classes,
            "spatial_dims": spatial_dims,
            "models": rows,
        }
        terminal.print_json(document(schemas.MODELS, content))
        return
    axes = f", {spatial_dims}D" if spatial_dims else ""
    _show(rows, f"{in_channels} in, {classes} classes{axes}")


def _show(rows: list[dict[str, object]], title: str) -> None:
    cells = {
        "model": [str(row["name"]) for row in rows],
        "parameters": [f"{row['parameters']:,}" for row in rows],
        "+ in training": [f"{row['auxiliary_parameters']:,}" for row in rows],
        "receptive field": [
            " x ".join(map(str, cast("list[int]", row["receptive_field"]))) for row in rows
        ],
        "paper": [str(row["paper"]) for row in rows],
        "what it is": [str(row["description"]) for row in rows],
    }
    if terminal.out.is_terminal and terminal.out.width < _WIDE:
        del cells["+ in training"], cells["paper"]  # --json has them
    table = terminal.table(title, tuple(cells), zip(*cells.values(), strict=True))
    for column in table.columns:
        if column.header in ("paper", "what it is"):
            column.justify = "left"
        else:
            column.no_wrap = True  # what is cut off cannot be used
    terminal.whole_width(table).print(table)
    terminal.out.print(
        "'+ in training' are auxiliary heads that only deep supervision uses. The designs: "
        "v0 none, v1 pooled scores, v2 supervoxels classified, v3 both branches added. A receptive "
        "field of two numbers is that of a network for images."
    )
