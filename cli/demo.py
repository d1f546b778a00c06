"""``voxseg demo``."""

from pathlib import Path
from typing import Annotated

import typer

from voxseg.documents import document
from voxseg.schemas import DEMO

from . import console as terminal
from . import options
from .evaluate import summary_tables
from .progress import minutes, training_bar


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write into.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of every random number.")] = 0,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Show everything once: simulate brains, train, segment an unseen one, score it, report.

    Takes a few minutes on two cores. Stopped, it goes on when started again. Needs nilearn (the
    extra called brain), which ships the template that the subjects are simulated from.
    """
    from voxseg.engine.demo import DemoRequest, run_demo

    screen = terminal.console(as_json)
    request = DemoRequest(output=output, seed=seed, device=device, overwrite=overwrite)
    with training_bar(screen) as bar:
        result = run_demo(request, bar, lambda text: screen.print(text, markup=False))
    summary = result.evaluation.summary
    files = {
        "mask": result.mask,
        "image": result.image,
        "colour table": result.label_table,
        "segmentation": result.segmentation,
        "scene": result.scene,
        "report": result.report,
    }
    if as_json:
        places = {name.replace(" ", "_"): str(path) for name, path in files.items()}
        scores = result.evaluation.to_json()
        content = {"dice": summary.foreground_dice, **places, "scores": scores}
        terminal.print_json(document(DEMO, content))
        return
    for table in summary_tables(summary, result.evaluation.tolerance_mm, "The unseen subject"):
        screen.print(table)
    screen.print(
        f"foreground Dice {summary.foreground_dice:.3f} on a simulated subject, after "
        f"{minutes(result.seconds)} minutes",
        markup=False,
    )
    for name, path in files.items():
        screen.print(f"  {name:<13} {path}", markup=False)
    screen.print(
        "next:\n"
        f"  open {result.report} in a browser\n"
        f"  drag {result.scene} into 3D Slicer: image and segmentation together\n"
        f"  voxseg predict {result.run} {result.image.parent} -o again\n"
        "  voxseg train YOUR_FOLDER -o RUN    (images X.nii.gz with labels X_seg.nii.gz)",
        markup=False,
    )
