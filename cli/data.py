"""``voxseg data``: work on data sets themselves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from voxseg.documents import document
from voxseg.schemas import CONVERT, SERIES

from . import console as terminal
from . import options

app = typer.Typer(
    no_args_is_help=True, help="Work on data sets: turn them into other forms, list DICOM."
)

Form = Literal["coco"]


@app.callback()
def data() -> None:
    """Work on data sets: turn them into other forms, list DICOM."""


@app.command()
def convert(
    form: Annotated[Form, typer.Argument(help="Of the annotations: coco.")],
    data: Annotated[Path, typer.Argument(help="Folder of the data set, as its archives unpack.")],
    output: options.Output,
    annotations: Annotated[
        Path | None,
        typer.Option(
            "--annotations",
            help="instances_*.json; by default the only one in DATA.",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", help="Folder of the photographs; by default DATA/train2017 or the like."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Name of the part in OUTPUT; by default train, val or test."),
    ] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy the photographs instead of linking to them.")
    ] = False,
    smallest_object: Annotated[
        int,
        typer.Option("--smallest-object", min=0, help="Pixels; smaller objects become background."),
    ] = 0,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Turn COCO's annotations into masks of the 21 classes of PASCAL VOC.

    OUTPUT gets images/SPLIT and masks/SPLIT, which 'voxseg train' reads. Crowd regions become 255,
    which does not count; later objects lie over earlier ones; photographs without any of the
    classes are left out. Stopped, it goes on with the same line.
    """
    from voxseg.api import convert as run

    screen = terminal.console(as_json)
    with _bar(screen) as advance:
        done = run(
            form,
            data,
            output,
            annotations=annotations,
            images=images,
            split=split,
            copy=copy,
            smallest_object=smallest_object,
            overwrite=overwrite,
            notify=advance,
            say=lambda sentence: screen.print(sentence, markup=False),
        )
    if as_json:
        terminal.print_json(document(CONVERT, done.to_json()))
        return
    kept = f" ({done.num_kept} from an earlier run)" if done.num_kept else ""
    small = f", {done.num_dropped} smaller objects left out" if smallest_object else ""
    terminal.out.print(
        f"{done.num_masks} masks{kept} in {output}, part {done.split}: {done.num_objects} objects "
        f"painted{small}; {done.num_left_out} of {done.num_images} photographs left out, which "
        "have none of the classes",
        markup=False,
    )


@app.command()
def series(
    folder: Annotated[Path, typer.Argument(help="Folder of DICOM files, or one file.")],
    as_json: options.Json = False,
) -> None:
    """List the DICOM series of FOLDER: what each is, and whether it can be predicted.

    Nothing of the patient is read or shown. 'voxseg predict --series' takes a number, a UID or a
    part of a description.
    """
    from voxseg.api import series as run
    from voxseg.data.dicom_series import series_document

    content = series_document(run(folder))
    if as_json:
        terminal.print_json(document(SERIES, content))
        return
    columns = ("series", "description", "modality", "what", "slices", "size", "study", "UID")
    keys = ("number", "description", "modality", "kind", "slices", "size", "study", "uid")
    rows = [[row[key] for key in keys] for row in content["series"]]
    made = terminal.table("DICOM series", columns, rows)
    terminal.whole_width(made).print(made)
    for row in content["series"]:
        if row["problem"]:
            terminal.out.print(f"{row['uid']}: {row['problem']}", markup=False)


@contextmanager
def _bar(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Show how many photographs are done, on a terminal only."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as progress:
        task = progress.add_task("converting", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
