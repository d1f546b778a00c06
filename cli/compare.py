"""``voxseg compare``."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from . import console as terminal
from . import options

if TYPE_CHECKING:
    from voxseg.engine.compare import ComparedClass, Comparison


_NAME, _NUMBER = 10, 6
"""Least columns of a class's name and of a number."""


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="Two or more cross-validations or evaluations (folders, or their metrics.csv); "
            "the first is the baseline.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for CSV, JSON and the forest plot."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            "-m",
            help="A column of metrics.csv; dice by default, iou for photographs.",
            metavar="NAME",
        ),
    ] = None,
    alpha: Annotated[
        float, typer.Option("--alpha", help="Level of the tests; intervals cover 1 - alpha.")
    ] = 0.05,
    all_pairs: Annotated[
        bool, typer.Option("--all-pairs", help="Each with each, not the first with the others.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Compare the cases that all runs have.")
    ] = False,
    resamples: Annotated[
        int, typer.Option("--resamples", min=99, help="Of the bootstrap and of random sign flips.")
    ] = 9999,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the resampling.")] = 0,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Compare runs on the same cases: is the difference more than chance, and how large is it?

    Paired by case, for each class and their mean: bootstrap interval, Wilcoxon signed rank
    and sign-flip permutation tests, effect sizes, Holm's correction, and a verdict in words.
    """
    from voxseg.api import compare as run

    comparison = run(
        runs,
        output,
        metric=metric,
        alpha=alpha,
        all_pairs=all_pairs,
        allow_missing=allow_missing,
        resamples=resamples,
        seed=seed,
        overwrite=overwrite,
    )
    if as_json:
        terminal.print_json(comparison.to_json())
    else:
        _show(comparison, output)
    for warning in comparison.warnings:
        terminal.err.print(f"warning: {warning}", markup=False)


def _show(comparison: "Comparison", output: Path | None) -> None:
    """Print two tables for each pair, what their numbers mean, and where the files are."""
    from voxseg.engine.compare_files import OUTPUTS

    for pair in comparison.pairs:
        rows = [row for row in comparison.rows if (row.baseline, row.other) == pair]
        terminal.out.print(_difference_table(comparison, rows))
        terminal.out.print(_test_table(rows))
    for note in comparison.notes:
        terminal.out.print(note, markup=False)
    if output is not None:
        terminal.out.print(f"wrote {', '.join(OUTPUTS)} to {output}", markup=False)


def _difference_table(comparison: "Comparison", rows: list["ComparedClass"]) -> Table:
    """Build the table of means, changes and verdicts on the second run."""
    from voxseg.engine.compare_files import difference_text, interval_text

    metric = comparison.settings.metric
    better = f"{comparison.better} is better" if comparison.better else "neither way is better"
    a, b = rows[0].baseline, rows[0].other
    title = f"{comparison.metric_name} from {a} to {b}; {better}"
    level = f"{100 * (1 - comparison.settings.alpha):g}% interval"
    lines = []
    for row in rows:
        test = row.test
        change = difference_text(metric, test.difference)
        interval = interval_text(metric, test.low, test.high)
        means = (test.mean_a, test.mean_b)
        lines.append([row.name, test.num_cases, *means, change, interval, row.verdict])
    made = _table(title, ("class", "n", a, b, "change", level, "verdict"), lines)
    for column in made.columns[2:4]:  # the runs' names may be long; their numbers are short
        column.no_wrap, column.overflow, column.min_width = False, "fold", _NUMBER
    return made


def _test_table(rows: list["ComparedClass"]) -> Table:
    """Build the table of p values and effect sizes."""
    from voxseg.engine.compare_files import p_text

    lines = []
    for row in rows:
        test = row.test
        p_values = [p_text(p) for p in (test.p_wilcoxon, test.p_permutation, row.p_holm)]
        equal = test.num_cases - test.num_differing
        counts = f"{test.num_higher} / {test.num_lower} / {equal}"
        effects = [_signed(test.cohens_dz), _signed(test.rank_biserial)]
        lines.append([row.name, counts, *p_values, *effects])
    columns = ("class", "+ / - / =", "p\nWilcoxon", "p\nsign flip", "p\nHolm", "d_z", "r")
    return _table("Tests and effect sizes", columns, lines)


def _table(title: str, columns: tuple[str, ...], lines: Sequence[Sequence[object]]) -> Table:
    """Build a table that breaks the names of classes rather than numbers."""
    made = terminal.table(title, columns, lines)
    made.columns[0].min_width = _NAME
    for column in made.columns[1:]:
        column.no_wrap = True
    return made


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.2f}"
