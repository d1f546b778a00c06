"""What ``voxseg evaluate`` and ``crossval`` print about photographs."""

import math
from typing import TYPE_CHECKING

from rich.table import Table

from . import console as terminal

if TYPE_CHECKING:
    from voxseg.engine.evaluate import Evaluation
    from voxseg.engine.pooled import Pooled

_MOST_CLASSES = 4  # columns of a table; metrics.csv has them all


def image_tables(evaluation: "Evaluation", title: str) -> list[Table]:
    """Build the tables of photographs: cases, classes over cases, and all pixels together."""
    found = [_case_table(evaluation), _summary_table(evaluation, title)]
    if evaluation.pooled is not None:
        found.append(_class_table(evaluation.pooled))
        if evaluation.pooled.categories:
            found.append(_category_table(evaluation.pooled))
    return found


def headline(pooled: "Pooled") -> str:
    """Say in one line what a benchmark would."""
    found = {
        "mean IoU": pooled.mean_iou,
        "mean iIoU": pooled.mean_iiou,
        "category IoU": pooled.mean_category_iou,
        "category iIoU": pooled.mean_category_iiou,
        "pixel accuracy": pooled.pixel_accuracy,
        "mean accuracy": pooled.mean_accuracy,
        "frequency-weighted IoU": pooled.frequency_weighted_iou,
    }
    scores = [f"{name} {100 * one:.2f}%" for name, one in found.items() if not math.isnan(one)]
    return f"All pixels: {', '.join(scores)}"


def _case_table(evaluation: "Evaluation") -> Table:
    """Build the table of cases: IoU of each class, and means over all classes."""
    from voxseg.metrics.summary import class_name

    scores = evaluation.scores
    labels = list(next(iter(scores.values()), {}))
    shown = labels if len(labels) <= _MOST_CLASSES else []
    means = [evaluation.case_means(metric) for metric in ("iou", "dice")]
    rows = [
        [case, *(classes[label].iou for label in shown), *(mean[case] for mean in means)]
        for case, classes in scores.items()
    ]
    names = [class_name(label, evaluation.class_names) for label in shown]
    title = "Each photograph: IoU by class, and means over all its classes"
    return terminal.table(title, ("case", *names, "IoU", "Dice"), rows)


def _summary_table(evaluation: "Evaluation", title: str) -> Table:
    """Build the table of classes over cases."""
    rows = [
        [row.name, *(terminal.mean_sd(row.statistics[name], 3) for name in ("iou", "dice")),
         row.statistics["iou"].undefined]
        for row in evaluation.summary.rows
    ]  # fmt: skip
    return terminal.table(title, ("class", "IoU", "Dice", "undefined"), rows)


def _class_table(pooled: "Pooled") -> Table:
    """Build the table of classes over all pixels."""
    has_objects = any(not math.isnan(one.iiou) for one in pooled.classes)
    rows = []
    for one in pooled.classes:
        share = f"{100 * one.true_pixels / pooled.pixels:.2f}" if pooled.pixels else "-"
        iiou = [one.iiou] if has_objects else []
        rows.append([one.name, one.iou, one.accuracy, *iiou, share])
    iiou = [pooled.mean_iiou] if has_objects else []
    rows.append(["all-class mean", pooled.mean_iou, pooled.mean_accuracy, *iiou, "100.00"])
    columns = ("class", "IoU", "accuracy", *(["iIoU"] if has_objects else []), "% of pixels")
    photographs = "1 photograph" if pooled.cases == 1 else f"{pooled.cases} photographs"
    return terminal.table(f"All pixels of {photographs} together", columns, rows)


def _category_table(pooled: "Pooled") -> Table:
    """Build the table of categories over all pixels."""
    rows = [[one.name, one.iou, one.iiou] for one in pooled.categories]
    rows.append(["mean", pooled.mean_category_iou, pooled.mean_category_iiou])
    return terminal.table("Categories", ("category", "IoU", "iIoU"), rows)
