"""``voxseg evaluate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from voxseg.errors import ExitCode

from . import console as terminal
from . import options
from .task_tables import task_tables

if TYPE_CHECKING:
    from voxseg.engine.evaluate import Evaluation
    from voxseg.engine.task_scores import TaskEvaluation
    from voxseg.metrics import Summary

_MOST_NAMED = 5
_MOST_CLASSES = 4  # columns of a table; metrics.csv has them all


def evaluate(
    prediction: Annotated[
        Path, typer.Argument(help="Predicted mask, a folder of them, or predictions.csv.")
    ],
    truth: Annotated[Path, typer.Argument(help="True mask, a folder of them, or a data set.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for CSV and JSON tables.")
    ] = None,
    tolerance_mm: Annotated[
        float, typer.Option("--tolerance-mm", min=0, help="Of surface Dice.")
    ] = 1.0,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels", help="Classes to score, as 1,2,3; all by default.", metavar="LIST"
        ),
    ] = None,
    ignore: Annotated[
        str | None,
        typer.Option(
            "--ignore",
            help="True values that do not count, as 255,11, or none; by default the data set's, "
            "or 255 in masks of photographs.",
            metavar="LIST",
        ),
    ] = None,
    report: options.Report = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="With --report: images to draw, if TRUTH is masks alone."),
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Score the masks of PREDICTION against TRUTH: Dice, IoU, HD95, ASSD, surface Dice, volumes.

    Of photographs (CASE.png): IoU and accuracy over all pixels, as benchmarks give them, and IoU
    and Dice of each case. Where TRUTH is a data set of boundaries: ODS, OIS and AP; of surface
    normals: angles; of classes of whole photographs: top-1 and top-5. Cases are paired by name.

    Exit code 4 when some cases failed and the others were scored.
    """
    from voxseg.api import evaluate as run

    screen = terminal.console(as_json)
    with screen.status("scoring") as status:
        evaluation = run(
            prediction,
            truth,
            output,
            tolerance_mm=tolerance_mm,
            labels=None if labels is None else _classes("--labels", labels),
            ignore=None if ignore is None else _classes("--ignore", ignore),
            report=report,
            images=images,
            overwrite=overwrite,
            notify=lambda case, number, total: status.update(f"{case} ({number}/{total})"),
            say=lambda text: screen.print(text, markup=False),
        )
    if as_json:
        terminal.print_json(evaluation.to_json())
    else:
        show(evaluation, output)
    _report_rest(evaluation)
    if evaluation.failures:
        raise typer.Exit(ExitCode.SOME_FAILED)


def summary_tables(summary: "Summary", tolerance_mm: float, title: str) -> tuple[Table, Table]:
    """Build the tables of classes, mean and standard deviation over cases: overlap, and distances.

    They are two so that each fits into 80 columns.
    """
    overlap = (
        ("dice", "Dice", 3),
        ("iou", "IoU", 3),
        ("surface_dice", f"surface Dice {tolerance_mm:g} mm", 3),
    )
    distances = (
        ("hd95_mm", "HD95 mm", 2),
        ("assd_mm", "ASSD mm", 2),
        ("volume_difference_ml", "volume error ml", 1),
    )
    return (
        _summary_table(summary, overlap, title, "dice"),
        _summary_table(summary, distances, "Distances and volumes", "hd95_mm"),
    )


def _summary_table(
    summary: "Summary", columns: tuple[tuple[str, str, int], ...], title: str, counted: str
) -> Table:
    """Build one table; its last column counts the cases in which ``counted`` is undefined."""
    rows = []
    for row in summary.rows:
        if counted not in row.statistics:
            continue
        cells = [terminal.mean_sd(row.statistics.get(name), digits) for name, _, digits in columns]
        rows.append([row.name, *cells, row.statistics[counted].undefined])
    heads = [head for _, head, _ in columns]
    return terminal.table(title, ("class", *heads, "undefined"), rows)


def case_table(evaluation: "Evaluation") -> Table:
    """Build the table of cases: Dice of each class, and the scores of the foreground."""
    from voxseg.metrics.summary import class_name, foreground_means

    scores = evaluation.scores
    labels = [label for label in next(iter(scores.values()), {}) if label != 0]
    if len(labels) > _MOST_CLASSES:
        labels = []
    means = {
        metric: foreground_means(scores, metric)
        for metric in ("dice", "hd95_mm", "assd_mm", "surface_dice")
    }
    rows = [
        [case, *(classes[label].dice for label in labels), *(m[case] for m in means.values())]
        for case, classes in scores.items()
    ]
    names = [class_name(label, evaluation.class_names) for label in labels]
    columns = ("case", *names, "Dice", "HD95 mm", "ASSD mm", "surface Dice")
    return terminal.table("Each case: Dice by class, and means over its foreground", columns, rows)


def show(evaluation: "Evaluation | TaskEvaluation", output: Path | None) -> None:
    """Print the tables of cases and of classes, and how empty masks were treated."""
    from voxseg.engine.task_scores import TaskEvaluation

    if isinstance(evaluation, TaskEvaluation):
        for table in task_tables(evaluation):
            terminal.out.print(table)
        for text in evaluation.notes:
            terminal.out.print(text, markup=False)
    else:
        _show_classes(evaluation)
    if output is not None:
        terminal.out.print(f"wrote metrics.csv, summary.csv and metrics.json to {output}")


def _show_classes(evaluation: "Evaluation") -> None:
    from voxseg.metrics.summary import in_cases

    from . import pooled

    summary = evaluation.summary
    title = f"Mean ± standard deviation over {in_cases(summary.num_cases)}"
    if evaluation.is_images:
        made = pooled.image_tables(evaluation, title)
    else:
        made = [case_table(evaluation), *summary_tables(summary, evaluation.tolerance_mm, title)]
    for table in made:
        terminal.out.print(table)
    if evaluation.pooled is not None:
        terminal.out.print(pooled.headline(evaluation.pooled), markup=False)
    for text in (*evaluation.notes, evaluation.policy):
        terminal.out.print(text, markup=False)


def _report_rest(evaluation: "Evaluation | TaskEvaluation") -> None:
    """Say on stderr what was not scored."""
    from voxseg.engine.evaluate import Evaluation
    from voxseg.metrics.summary import in_cases

    scored = evaluation.scores if isinstance(evaluation, Evaluation) else evaluation.cases

    for case, error in evaluation.failures.items():
        terminal.err.print(f"{case}: {error}", markup=False)
    if evaluation.failures:
        total = len(evaluation.failures) + len(scored)
        terminal.err.print(f"{len(evaluation.failures)} of {in_cases(total)} failed", markup=False)
    for names, what in (
        (evaluation.without_prediction, "without a prediction, not scored"),
        (evaluation.without_truth, "without a truth, not scored"),
    ):
        if names:
            more = ", ..." if len(names) > _MOST_NAMED else ""
            listed = ", ".join(names[:_MOST_NAMED]) + more
            terminal.err.print(f"{in_cases(len(names))} {what}: {listed}", markup=False)


def _classes(option: str, text: str) -> list[int]:
    from voxseg.errors import UsageError

    if option == "--ignore" and text == "none":
        return []
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise UsageError(f"{option} takes whole numbers as 1,2,3, got {text!r}") from None
