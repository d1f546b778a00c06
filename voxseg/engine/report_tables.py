"""Sections of a report about scores: tables over classes, folds and cases, and plots of cohorts.

Numbers are those of ``metrics.csv``, with the digits that the command line shows.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter

import numpy as np

from voxseg.engine.evaluate import BACKGROUND, Evaluation
from voxseg.engine.report_sources import FoldFacts
from voxseg.engine.volume_report import error_table
from voxseg.export.check_report import figure
from voxseg.export.labels import Colour
from voxseg.export.plots import Group, Panel, agreement_plots, box_plots, cohort_strip
from voxseg.export.report_parts import ReportFigure, ReportLink, ReportSection, ReportTable
from voxseg.metrics import ClassScores, foreground_means
from voxseg.metrics.summary import FOREGROUND, WITH_BACKGROUND, Statistic, SummaryRow

MOST_CLASSES = 24
"""Classes of a plot; the others are in the tables."""
_MOST_AGREEMENTS = 8
_MOST_COLUMNS = 6  # classes with a column of their own in the table of cases
_FEWEST_FOR_BOXES = 2
_GREY: Colour = (150, 150, 150)

_COLUMNS = (
    ("dice", "Dice", 3),
    ("iou", "IoU", 3),
    ("surface_dice", "surface Dice", 3),
    ("hd95_mm", "HD95 mm", 2),
    ("assd_mm", "ASSD mm", 2),
    ("volume_difference_ml", "volume error ml", 2),
)


def summary_section(evaluation: Evaluation, colours: Mapping[int, Colour]) -> ReportSection:
    """Mean and deviation, median and quartiles of each class and score; how many are missing.

    Args:
        evaluation: All scores.
        colours: Of classes, as on the rest of the page; grey for others, as a background.
    """
    shown = [one for one in _COLUMNS if one[0] in evaluation.metrics]
    rows = [
        [row.name, *(_spread(evaluation, row, key, digits) for key, _, digits in shown)]
        for row in evaluation.summary.rows
    ]
    within = f"\nwithin {evaluation.tolerance_mm:g} mm"
    heads = [head + (within if key == "surface_dice" else "") for key, head, _ in shown]
    note = (
        "First line: mean ± standard deviation over cases (n - 1). Second line: median and "
        "quartiles. A third line counts the cases in which a score is undefined. "
        + " ".join([evaluation.policy, *(f"Also: {text}." for text in evaluation.notes)])
    )
    table = ReportTable("", ("class", *heads), rows, note)
    count = len(evaluation.scores)
    title = f"Scores over {count} case" + ("" if count == 1 else "s")
    return ReportSection(title, figures=_box_figures(evaluation, colours), tables=(table,))


def fold_section(evaluation: Evaluation, folds: Sequence[FoldFacts]) -> ReportSection:
    """Dice of each fold's held-out cases; of photographs IoU."""
    labels = foreground(evaluation)[:_MOST_COLUMNS]
    means, score = evaluation.case_means(), attrgetter(evaluation.headline)
    rows = []
    for number, fold in enumerate(folds):
        cases = [case for case in fold.cases if case in evaluation.scores]
        by_class = [[score(evaluation.scores[case][label]) for case in cases] for label in labels]
        facts = (
            "-" if fold.steps is None else f"{fold.steps:,}",
            "-" if fold.seconds is None else f"{fold.seconds / 60:.1f}",
        )
        cells = [_mean_sd(values, 3) for values in ([means[case] for case in cases], *by_class)]
        rows.append([str(number), str(len(cases)), *cells, *facts])
    columns = ("fold", "cases", evaluation.headline_name, *_named(evaluation, labels), "steps",
               "minutes of training")  # fmt: skip
    note = "Mean ± standard deviation over the cases that the fold held out."
    return ReportSection("Folds", tables=(ReportTable("", columns, rows, note),))


def case_section(
    evaluation: Evaluation,
    ranked: Sequence[str],
    anchors: Mapping[str, str],
    fold_of: Mapping[str, int],
) -> ReportSection:
    """Every case, worst first, with a link to its picture."""
    labels = foreground(evaluation)
    shown = labels if len(labels) <= _MOST_COLUMNS else []
    score = attrgetter(evaluation.headline)
    means = evaluation.case_means()
    more = (
        {}
        if evaluation.is_images
        else {
            "mean surface\nDice": (evaluation.case_means("surface_dice"), 3),
            "mean HD95\nmm": (evaluation.case_means("hd95_mm"), 2),
            "sum of absolute\nvolume errors ml": (_volume_errors(evaluation), 2),
        }
    )
    if evaluation.is_images:
        more["mean Dice"] = (evaluation.case_means("dice"), 3)
    rows = []
    for case in ranked:
        classes = evaluation.scores[case]
        cells: list[str | ReportLink] = [ReportLink(case, anchors.get(case, ""))]
        cells += [str(fold_of.get(case, "-"))] if fold_of else []
        cells += [number(means[case], 3), *(number(score(classes[k]), 3) for k in shown)]
        cells += [number(by_case[case], digits) for by_case, digits in more.values()]
        rows.append(cells)
    columns = ["case", *(["fold"] if fold_of else []), _broken(evaluation.headline_name)]
    word = "IoU" if evaluation.is_images else "Dice"
    columns += [f"{word}\n{name}" for name in _named(evaluation, shown)]
    columns += list(more)
    note = f"Sorted by {evaluation.headline_name}. A name leads to the case's pictures, if any."
    table = ReportTable("", tuple(columns), rows, note)
    return ReportSection("Cases, worst first", tables=(table,))


def volume_section(evaluation: Evaluation) -> ReportSection:
    """Predicted against true volumes over the cohort."""
    labels = foreground(evaluation)
    rows = [
        (
            evaluation.class_names[label],
            {c: (s[label].prediction_ml, s[label].truth_ml) for c, s in evaluation.scores.items()},
        )
        for label in labels[:_MOST_AGREEMENTS]
    ]
    texts = []
    if len(labels) > _MOST_AGREEMENTS:
        texts.append(f"The first {_MOST_AGREEMENTS} of {len(labels)} classes.")
    plot = ReportFigure(
        agreement_plots(rows),
        "Scatter plots of predicted against true volume for each class, and of their difference "
        "against their mean",
        "Left: a dot for each case; on the grey line both are equal. Right: the difference against "
        "the mean, with the bias (solid) and the limits of agreement (dashed: bias ± 1.96 standard "
        "deviations over cases), and the name of the case farthest from the bias.",
    )
    errors = error_table(evaluation)
    return ReportSection(
        "Volumes, predicted and true", texts, (plot,), (errors,) if errors else ()
    )  # fmt: skip


def case_table(classes: Mapping[int, ClassScores], names: Mapping[int, str]) -> ReportTable:
    """Scores of one case, a row for each class."""
    keys = ("dice", "surface_dice", "hd95_mm", "assd_mm")
    rows = [
        [
            names[label],
            *(number(getattr(s, key), 3 if "dice" in key else 2) for key in keys),
            *(figure(ml) for ml in (s.prediction_ml, s.truth_ml)),
            f"{s.volume_difference_ml:+.3g}",
        ]
        for label, s in classes.items()
        if label != BACKGROUND
    ]
    columns = (
        "class", "Dice", "surface Dice", "HD95 mm", "ASSD mm", "predicted ml", "true ml",
        "difference ml",
    )  # fmt: skip
    return ReportTable("", columns, rows)


def cohort_figure(
    volumes: Mapping[str, Mapping[str, float]],
    case: str,
    truths: Mapping[str, float] | None,
    against: str,
) -> ReportFigure | None:
    """Draw where the volumes of one case lie among those of all; None with too few cases.

    Args:
        volumes: Class name -> case -> volume in ml.
        case: The one to mark.
        truths: Class name -> its true volume.
        against: What the cohort is.
    """
    rows = []
    for name, by_case in list(volumes.items())[:MOST_CLASSES]:
        others = [ml for other, ml in by_case.items() if other != case]
        own = by_case.get(case, math.nan)
        usable = [ml for ml in (*others, own) if not math.isnan(ml)]
        if math.isnan(own) or len(others) < _FEWEST_FOR_BOXES or not np.median(usable) > 0:
            continue
        rows.append((name, others, own, truths.get(name) if truths else None))
    if not rows:
        return None
    true = "; the hollow one is its true volume" if truths else ""
    caption = f"Filled diamond: this case; dots and box: the other cases{true}."
    return ReportFigure(
        cohort_strip(rows, against=against), f"Volumes of {case} among all cases", caption
    )


def volume_boxes(
    volumes: Mapping[str, Mapping[str, float]], colours: Mapping[str, Colour]
) -> ReportFigure | None:
    """Draw box plots of volumes over cases, each class in percent of its median.

    Args:
        volumes: Class name -> case -> volume in ml.
        colours: Class name -> colour, as on the rest of the page.
    """
    groups = []
    for name, by_case in volumes.items():
        middle = float(np.median(list(by_case.values()) or [0]))
        if middle > 0 and len(by_case) >= _FEWEST_FOR_BOXES:
            parts = {case: 100 * ml / middle for case, ml in by_case.items()}
            groups.append(Group(name, parts, colours.get(name, _GREY)))
    if not groups:
        return None
    panel = Panel("volume in % of the class's median", groups[:MOST_CLASSES])
    return ReportFigure(
        box_plots([panel]),
        "Box plots of the volumes of each class over cases",
        "A dot for each case; the smallest is named.",
    )


def foreground(evaluation: Evaluation) -> list[int]:
    """Foreground classes, as every case has them; of photographs all."""
    labels = next(iter(evaluation.scores.values()), {})
    return [label for label in labels if label != evaluation.means_without]


def number(value: float, digits: int) -> str:
    """Write a score, or a dash where it is undefined."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _box_figures(evaluation: Evaluation, colours: Mapping[int, Colour]) -> list[ReportFigure]:
    """Dice and surface distance over cases, by class; of photographs IoU."""
    labels = foreground(evaluation)
    if len(evaluation.scores) < _FEWEST_FOR_BOXES or not labels:
        return []
    left_out = len(labels) - MOST_CLASSES
    panels = []
    shown: tuple[tuple[str, str, bool], ...] = (
        ("dice", "Dice", True),
        ("hd95_mm", "HD95, mm", False),
    )
    mean = FOREGROUND
    if evaluation.is_images:
        shown, mean = (("iou", "IoU", True),), WITH_BACKGROUND
    for key, axis, is_low in shown:
        groups = [Group(mean, evaluation.case_means(key))]
        groups += [
            Group(
                evaluation.class_names[label],
                {case: getattr(s[label], key) for case, s in evaluation.scores.items()},
                colours.get(label, _GREY),
            )
            for label in labels[:MOST_CLASSES]
        ]
        if any(group.defined for group in groups):
            top = 1 if is_low else math.inf
            panels.append(Panel(axis, groups, worst_is_low=is_low, limits=(0, top)))
    caption = (
        "A dot for each case; box: quartiles and median; whiskers: the last case within 1.5 times "
        "the quartiles' distance. The worst case of each row is named."
    )
    if left_out > 0:
        caption += f" The first {MOST_CLASSES} of {len(labels)} classes."
    names = "IoU" if evaluation.is_images else "Dice and 95th percentile Hausdorff distance"
    alt = f"Box plots of {names} over cases, by class"
    return [ReportFigure(box_plots(panels), alt, caption)] if panels else []


def _volume_errors(evaluation: Evaluation) -> dict[str, float]:
    """Sum of absolute volume errors over the foreground of each case."""
    labels = foreground(evaluation)
    return {
        case: sum(abs(classes[label].volume_difference_ml) for label in labels)
        for case, classes in evaluation.scores.items()
    }


def _broken(head: str) -> str:
    """Break a head of a column before its last word."""
    return "\n".join(head.rsplit(" ", 1))


def _spread(evaluation: Evaluation, row: SummaryRow, key: str, digits: int) -> str:
    """Write mean, deviation, median, quartiles and the number of missing scores."""
    statistic = row.statistics.get(key)
    if statistic is None:
        return ""
    if not statistic.defined:
        return f"-\n\n{statistic.undefined} undefined"
    values = [value for value in _values(evaluation, row, key) if not math.isnan(value)]
    low, middle, high = (f"{q:.{digits}f}" for q in np.percentile(values, (25, 50, 75)))
    lines = [_statistic(statistic, digits), f"{middle} [{low}, {high}]"]
    return "\n".join([*lines, *_undefined(statistic)])


def _undefined(statistic: Statistic) -> list[str]:
    return [f"{statistic.undefined} undefined"] if statistic.undefined else []


def _values(evaluation: Evaluation, row: SummaryRow, key: str) -> list[float]:
    """A score of a class, or its mean over classes, in every case."""
    scores = evaluation.scores
    if row.label is not None:
        return [getattr(classes[row.label], key) for classes in scores.values()]
    # No class has the value None, so this one leaves nothing out.
    background = BACKGROUND if row.name == FOREGROUND else -(2**40)
    assert row.name in (FOREGROUND, WITH_BACKGROUND)
    return list(foreground_means(scores, key, background=background).values())


def _statistic(statistic: Statistic, digits: int) -> str:
    mean = f"{statistic.mean:.{digits}f}"
    return mean if statistic.defined == 1 else f"{mean} ± {statistic.deviation:.{digits}f}"


def _mean_sd(values: Iterable[float], digits: int) -> str:
    kept = [value for value in values if not math.isnan(value)]
    if not kept:
        return "-"
    mean = f"{np.mean(kept):.{digits}f}"
    return mean if len(kept) == 1 else f"{mean} ± {np.std(kept, ddof=1):.{digits}f}"


def _named(evaluation: Evaluation, labels: Sequence[int]) -> list[str]:
    return [evaluation.class_names[label] for label in labels]
