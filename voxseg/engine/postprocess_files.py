"""What choosing post-processing leaves behind: the choice, the nested scores, and words for both.

Sentences and tables are made from ``postprocessing.json``, so that a report of a finished folder
says what the command said.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from voxseg import documents
from voxseg.data.case_lists import parse_json
from voxseg.data.cleaning import OPERATION_NAMES
from voxseg.data.splits import Fold
from voxseg.engine.evaluate_files import csv_text
from voxseg.engine.label_config import LabelConfig
from voxseg.engine.operations import POSTPROCESSING, describe, read_postprocessing
from voxseg.engine.postprocess import LEVEL, OutOfFold, PostprocessResult, postprocess
from voxseg.errors import DataError
from voxseg.export.masks import mask_path
from voxseg.export.report_parts import ReportSection, ReportTable
from voxseg.files import write_text
from voxseg.metrics import case_rows
from voxseg.metrics.comparison import FEWEST_CASES
from voxseg.metrics.summary import or_none
from voxseg.schemas import POSTPROCESSING as FORM

NESTED_SCORES = "metrics-postprocessed.csv"
"""Beside the metrics.csv of the networks alone, with the same columns."""


def postprocess_crossval(
    run: Path,
    parts: Sequence[Fold],
    truths: Mapping[str, Path],
    labels: LabelConfig,
    tolerance_mm: float,
    say: Callable[[str], None],
) -> PostprocessResult:
    """Choose operations for a finished cross-validation; write the choice and the nested scores.

    Args:
        run: its folder, with ``predictions/``.
        parts: its folds.
        truths: case -> label file.
        labels: values and names of the classes.
        tolerance_mm: of surface Dice.
        say: gets what was chosen, and what the nested run says of it.

    Raises:
        DataError: a prediction or a truth is missing, damaged, or on another grid.
    """
    predictions = {
        case: mask_path(run / "predictions", case) for part in parts for case in part.val
    }
    result = postprocess(OutOfFold(predictions, truths, labels), parts, labels, tolerance_mm)
    names = dict(zip(labels.values, labels.names, strict=True))
    document = to_json(result)
    write_text(run / NESTED_SCORES, csv_text(case_rows(result.scores, names)))
    write_text(run / POSTPROCESSING, documents.json_text(document) + "\n")
    for line in sentences(document):
        say(line)
    return result


def drop_stale(run: Path) -> None:
    """Remove what was chosen on predictions that are about to be replaced."""
    for name in (POSTPROCESSING, NESTED_SCORES):
        (run / name).unlink(missing_ok=True)


def to_json(result: PostprocessResult) -> dict[str, Any]:
    """Give everything as plain values; an undefined number is None."""
    operations = result.choice.operations
    plain, nested = result.nested_means
    content = {
        "split_hash": result.split_hash,
        "num_cases": len(result.scores),
        "level": LEVEL,
        "fewest_cases": FEWEST_CASES,
        "classes": [
            {
                "label": value,
                "name": name,
                "operations": list(operations.get(value, ())),
                "withdrawn": value in result.choice.withdrawn,
                "trials": [
                    {key: or_none(cell) for key, cell in (asdict(one) | {"gain": one.gain}).items()}
                    for one in result.choice.trials.get(value, ())
                ],
            }
            for value, name in zip(result.labels.values, result.labels.names, strict=True)
        ],
        "nested": {
            "dice_networks_alone": or_none(plain),
            "dice": or_none(nested),
            "folds": [
                {"fold": number, "operations": {str(v): list(done) for v, done in fold.items()}}
                for number, fold in enumerate(result.folds)
            ],
        },
    }
    return documents.document(FORM, content)


def sentences(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Say what was chosen, and what such a choice does to cases that it did not see."""
    classes, nested = document["classes"], document["nested"]
    names = {one["label"]: one["name"] for one in classes}
    chosen = {one["label"]: one["operations"] for one in classes if one["operations"]}
    lines = [f"post-processing: {describe(chosen, names)}"]
    if not chosen:
        reasons = {trial["reason"] for one in classes for trial in one["trials"]}
        why = reasons.pop() if len(reasons) == 1 else f"{POSTPROCESSING} says why"
        lines = [f"post-processing: nothing is chosen; {why}"]
    lines += [
        f"post-processing of {one['name']} was withdrawn: chosen without the cases it is scored "
        "on, it lowers their mean Dice"
        for one in classes
        if one["withdrawn"]
    ]
    used = sum(bool(fold["operations"]) for fold in nested["folds"])
    lines.append(
        f"foreground Dice is {_number(nested['dice_networks_alone'])} by the networks alone "
        f"(metrics.csv) and {_number(nested['dice'])} with operations chosen on the other folds "
        f"({NESTED_SCORES}); {used} of {len(nested['folds'])} folds were given any"
    )
    return tuple(lines)


def report_section(path: Path) -> ReportSection:
    """Give what a report says about the post-processing of a cross-validation.

    Args:
        path: its ``postprocessing.json``.

    Raises:
        DataError: the file is missing or damaged.
    """
    read_postprocessing(path)
    document = parse_json(path)
    try:
        rows = [_row(one, trial) for one in document["classes"] for trial in one["trials"]]
        lines = sentences(document)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} says nothing of what was tried ({type(error).__name__}: {error}); write it "
            "again with voxseg crossval --resume --postprocess"
        ) from None
    columns = ("class", "operation", "Dice before", "Dice after", "+ / -", "p", "taken", "why")
    note = (
        "Taken where the mean Dice over out-of-fold cases rises and a one-sided sign-flip test "
        f"gives a p of at most {LEVEL:g}; never with fewer than {FEWEST_CASES} cases."
    )
    table = ReportTable("Operations tried on each class", columns, rows, note)
    return ReportSection("Post-processing", lines, tables=(table,))


def _row(one: Mapping[str, Any], trial: Mapping[str, Any]) -> tuple[str, ...]:
    taken = "no"
    if trial["chosen"]:
        taken = "withdrawn" if one["withdrawn"] else "yes"
    return (
        one["name"],
        OPERATION_NAMES[trial["operation"]],
        _number(trial["dice_before"]),
        _number(trial["dice_after"]),
        f"{trial['num_higher']} / {trial['num_lower']}",
        _number(trial["p"]),
        taken,
        trial["reason"],
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
