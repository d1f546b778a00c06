"""What a comparison leaves behind: a table, everything as JSON, and a forest plot."""

import math
from pathlib import Path

from voxseg.documents import json_text
from voxseg.engine.compare import Comparison
from voxseg.engine.evaluate_files import csv_text
from voxseg.engine.task_scores import KNOWN_SCORES
from voxseg.errors import UsageError
from voxseg.export.forest import ForestGroup, ForestRow, Shown, draw_forest
from voxseg.files import replacing, write_text

OUTPUTS = ("compare.csv", "compare.json", "compare.png")
_SHARES = ("dice", "iou", "surface_dice")
_SHOWN: dict[str, Shown] = {
    "better": "better",
    "worse": "worse",
    "higher": "different",
    "lower": "different",
}


def write_comparison(comparison: Comparison, folder: Path, *, overwrite: bool = False) -> None:
    """Write compare.csv, compare.json and the forest plot compare.png into ``folder``.

    Raises:
        UsageError: ``folder`` is a file, or holds one of the three and ``overwrite`` is not set.
        VoxsegError: It cannot be written.
    """
    check_output(folder, overwrite=overwrite)
    write_text(folder / "compare.csv", csv_text([row.to_row() for row in comparison.rows]))
    write_text(folder / "compare.json", json_text(comparison.to_json()) + "\n")
    settings = comparison.settings
    better = f"{comparison.better} is better" if comparison.better else "neither side is better"
    with replacing(folder / "compare.png") as temporary:
        draw_forest(
            [_forest_group(comparison, pair) for pair in comparison.pairs],
            temporary,
            axis=f"difference in {comparison.metric_name}; {better}",
            caption=f"filled: Holm p of at most {settings.alpha:g} (blue better, orange worse); "
            "hollow: inconclusive",
        )


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Refuse an output folder whose comparison would be lost, before any work is done."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; -o names a folder for the comparison")
    existing = [name for name in OUTPUTS if (folder / name).exists()]
    if existing and not overwrite:
        raise UsageError(f"{folder / existing[0]} exists; use --overwrite, or choose another -o")


def p_text(p: float) -> str:
    """Write a p value with four decimals; a dash where there is none."""
    if math.isnan(p):
        return "-"
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"


def difference_text(metric: str, value: float) -> str:
    """Write a difference with its sign: four decimals for shares, two for mm, ml and degrees."""
    shares = {*_SHARES, *(name for name, one in KNOWN_SCORES.items() if one.digits > 2)}
    digits = ".4f" if metric in shares else ".4g"
    if metric.endswith(("_mm", "_ml", "_degrees")):
        digits = ".2f"
    return "-" if math.isnan(value) else format(value, f"+{digits}")


def interval_text(metric: str, low: float, high: float) -> str:
    """Write an interval with the digits of its differences."""
    if math.isnan(low):
        return "-"
    return f"[{difference_text(metric, low)}, {difference_text(metric, high)}]"


def _forest_group(comparison: Comparison, pair: tuple[str, str]) -> ForestGroup:
    baseline, other = pair
    metric = comparison.settings.metric
    rows = []
    for row in comparison.rows:
        if (row.baseline, row.other) != pair:
            continue
        test = row.test
        shown = _SHOWN.get(row.verdict, "inconclusive")
        text = _forest_text(
            difference_text(metric, test.difference),
            interval_text(metric, test.low, test.high),
            p_text(row.p_holm),
        )
        is_mean = row.label is None
        rows.append(ForestRow(row.name, test.difference, test.low, test.high, shown, is_mean, text))
    level = f"{100 * (1 - comparison.settings.alpha):g}% interval"
    title = f"{other} \N{MINUS SIGN} {baseline}"
    return ForestGroup(title, tuple(rows), _forest_text("mean", level, "Holm p"))


def _forest_text(mean: str, interval: str, p: str) -> str:
    """Put three words into columns of a font with letters of one width."""
    return f"{mean:>8}  {interval:<18}  {p:>7}"
