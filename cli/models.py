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
    in_channels: Annotated[
        int | None,
        typer.Option("--in-channels", min=1, help="Image channels. Without: as in the papers."),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(
            "--classes", min=1, help="Classes, background included. Without: as in the papers."
        ),
    ] = None,
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
    """List every variant of every network: parameters, operations, field, paper.

    GFLOPs: billions of operations of convolutions and matrix products at the paper's image size
    (see --json), two for a multiplication and an addition; of pooled designs with one superpixel,
    and --json says what each further one adds. Stride: pixels or voxels from one class
    score to the next, along an axis, where they are finest and not resized yet. A terminal shows
    the columns that fit; --json has all of them.
    """
    import torch

    from voxseg.models import MODELS, count_parameters
    from voxseg.models.cost import count_flops, flops_a_superpixel

    is_wide = as_json or not terminal.out.is_terminal or terminal.out.width >= _WIDE
    rows = []
    for name, entry in MODELS.items():
        dims = spatial_dims or entry.spatial_dims[0]
        if dims not in entry.spatial_dims:
            continue
        channels, outputs = in_channels or entry.in_channels, classes or entry.num_classes
        size = (*entry.size, entry.size[-1])[:dims]  # of volumes where the paper has images
        # On the meta device: shapes without numbers.
        with torch.device("meta"):
            network = entry.build(channels, outputs, spatial_dims=dims)
        count = count_parameters(network)
        row: dict[str, object] = {
            "name": name,
            "spatial_dims": dims,
            "in_channels": channels,
            "classes": outputs,
            "parameters": count.inference,
            "auxiliary_parameters": count.auxiliary,
            "output_stride": network.output_stride,
            "receptive_field": list(cast("tuple[int, ...]", network.receptive_field)),
            "paper": entry.paper,
            "description": entry.description,
        }
        if is_wide:
            flops = count_flops(network, (1, channels, *size))
            row |= {"size": list(size), "gflops": flops / 1e9}
            row["gflops_a_superpixel"] = flops_a_superpixel(network, channels, dims) / 1e9
        rows.append(row)
    if as_json:
        content = {
            "in_channels": in_channels,
            "classes": classes,
            "spatial_dims": spatial_dims,
            "models": rows,
        }
        terminal.print_json(document(schemas.MODELS, content))
        return
    _show(rows, _title(in_channels, classes, spatial_dims))


def _title(in_channels: int | None, classes: int | None, spatial_dims: int | None) -> str:
    given = [
        f"{in_channels} in" if in_channels else "",
        f"{classes} classes" if classes else "",
        f"{spatial_dims}D" if spatial_dims else "",
    ]
    return ", ".join(filter(None, given)) or "as in their papers"


def _show(rows: list[dict[str, object]], title: str) -> None:
    cells = {
        "model": [str(row["name"]) for row in rows],
        "parameters": [f"{row['parameters']:,}" for row in rows],
        "+ in training": [f"{row['auxiliary_parameters']:,}" for row in rows],
        "GFLOPs": [f"{row['gflops']:,.2f}" for row in rows if "gflops" in row],
        "stride": [str(row["output_stride"]) for row in rows],
        "receptive field": [
            " x ".join(map(str, cast("list[int]", row["receptive_field"]))) for row in rows
        ],
        "paper": [str(row["paper"]) for row in rows],
        "what it is": [str(row["description"]) for row in rows],
    }
    if not cells["GFLOPs"]:
        for column in ("+ in training", "GFLOPs", "stride", "paper"):
            del cells[column]
    table = terminal.table(title, tuple(cells), zip(*cells.values(), strict=True))
    for shown in table.columns:
        if shown.header in ("paper", "what it is"):
            shown.justify = "left"
        else:
            shown.no_wrap = True  # what is cut off cannot be used
    terminal.whole_width(table).print(table)
    terminal.out.print(
        "'+ in training' are auxiliary heads that only deep supervision uses. The designs: "
        "v0 none, v1 pooled scores, v2 supervoxels classified, v3 both branches added, v4 the same "
        "with supervoxels that know of each other. A receptive "
        "field of two numbers is that of a network for images. voxseg models --help explains the "
        "other columns; a narrow terminal hides some."
    )
