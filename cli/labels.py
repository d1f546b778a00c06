"""``voxseg labels``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from . import console as terminal
from . import options

if TYPE_CHECKING:
    from voxseg.export.labels import Code, Label, LabelTable


def labels(
    table: Annotated[
        str | None,
        typer.Argument(help="A table that ships with voxseg, or a TOML or CSV file to check."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write it as FILE.toml, to be changed, or as labels.csv."
        ),
    ] = None,
    overwrite: options.Overwrite = False,
) -> None:
    """List label tables, or show one: values, colours, names and codes of classes.

    A table of your own names the classes of your masks for 3D Slicer, DICOM and reports: write one
    that ships with -o, change it, check it with this command, and give it as --label-table.
    """
    from voxseg.api import labels as run

    found = run(table, output, overwrite=overwrite)
    if table is None:
        rows = [[name, len(one), ", ".join(one.names.values())] for name, one in found.items()]
        terminal.out.print(terminal.table("Label tables", ("table", "labels", "names"), rows))
        return
    _show(table, found[table])
    if output is not None:
        terminal.out.print(f"wrote {output}", markup=False)


def _show(place: str, table: "LabelTable") -> None:
    title = f"{table.name} ({place})" if table.name not in ("", place) else place
    made = Table(title=Text(title), title_justify="left")
    for column in ("value", "colour", "name", "side", "structure", "tissue", "what it is"):
        made.add_column(column, justify="right" if column == "value" else "left")
    for label in table:
        colour = "#{:02x}{:02x}{:02x}".format(*label.colour)
        made.add_row(
            str(label.value),
            Text.assemble(("██", colour), f" {colour}"),
            Text(label.name),
            label.side,
            Text(label.structure),
            label.tissue.replace("_", " "),
            Text(_codes(label)),
        )
    terminal.whole_width(made).print(made)
    if table.note:
        terminal.out.print(table.note, markup=False)


def _codes(label: "Label") -> str:
    """Write the codes of a class on a line: what, which part, where."""

    def told(code: "Code | None") -> str:
        return "" if code is None else f"{code.meaning} [{code.scheme} {code.value}]"

    codes = label.codes
    what = " ".join(filter(None, (told(codes.type), told(codes.type_modifier))))
    where = " ".join(filter(None, (told(codes.region), told(codes.region_modifier))))
    return ", in ".join(filter(None, (what, where))) or "no codes"
