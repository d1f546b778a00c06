"""What a page says of photographs: scores over all pixels, and each case as it looks."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from voxseg.data.reading import read_channels, read_label
from voxseg.engine.evaluate import Evaluation
from voxseg.engine.pooled import Pooled
from voxseg.engine.report_sources import CaseFiles
from voxseg.errors import VoxsegError
from voxseg.export.labels import Colour, class_colours
from voxseg.export.photo_picture import draw_photograph
from voxseg.export.report_parts import ReportCase, ReportLink, ReportSection, ReportTable
from voxseg.metrics import ClassScores
from voxseg.metrics.summary import class_name

_MOST_COLUMNS = 12  # classes with a column of their own


def colours_of(evaluation: Evaluation) -> dict[int, Colour]:
    """Colours of the classes that are scored, as the data set paints them where it says it."""
    labels = list(next(iter(evaluation.scores.values()), {}))
    known = (
        {one.label: one.colour for one in evaluation.pooled.classes if one.colour}
        if (evaluation.pooled)
        else {}
    )
    return _without_background(label_colours(labels, known), evaluation.background)


def label_colours(labels: Sequence[int], known: Mapping[int, Colour]) -> dict[int, Colour]:
    """Colours by class value: known ones, else those of every page; class 0 has one as well."""
    drawn = class_colours(range(1, len(labels) + 1)).values()
    return {k: known.get(k, colour) for k, colour in zip(sorted(labels), drawn, strict=True)}


def pooled_section(pooled: Pooled) -> ReportSection:
    """Scores over all pixels, the way benchmarks rank methods."""
    rows = [
        [
            one.name, one.category or "-", _percent(one.iou), _percent(one.accuracy),
            _percent(one.iiou), _share(one.true_pixels, pooled.pixels),
            _share(one.predicted_pixels, pooled.pixels),
        ]
        for one in pooled.classes
    ]  # fmt: skip
    mean = [_percent(one) for one in (pooled.mean_iou, pooled.mean_accuracy, pooled.mean_iiou)]
    rows.append(["all-class mean", "", *mean, "", ""])
    columns = ("class", "category", "IoU %", "accuracy %", "iIoU %", "true\n% of pixels",
               "predicted\n% of pixels")  # fmt: skip
    note = (
        f"Over all {pooled.pixels:,} pixels that count; {pooled.ignored_pixels:,} do not. IoU: "
        "TP / (TP + FP + FN); accuracy: share of the true pixels that were found; iIoU: the same "
        "as IoU with every object weighing alike (Cityscapes), where objects are told apart."
    )
    if pooled.unknown_pixels:
        note += f" {pooled.unknown_pixels:,} pixels are predicted as no class: misses."
    keep = [0, 1, 2, 3, 4, 5, 6]
    if not pooled.categories:
        keep.remove(1)
    if math.isnan(pooled.mean_iiou):
        keep.remove(4)
    cut = [[row[place] for place in keep] for row in rows]
    kept = tuple(columns[place] for place in keep)
    tables = [ReportTable("", kept, cut, note, num_texts=2 if pooled.categories else 1)]
    if pooled.categories:
        groups = [[one.name, _percent(one.iou), _percent(one.iiou)] for one in pooled.categories]
        means = (pooled.mean_category_iou, pooled.mean_category_iiou)
        groups.append(["mean", *map(_percent, means)])
        tables.append(ReportTable("Categories", ("category", "IoU %", "iIoU %"), groups))
    text = (
        f"Mean IoU {_percent(pooled.mean_iou)}%, pixel accuracy "
        f"{_percent(pooled.pixel_accuracy)}%, mean accuracy {_percent(pooled.mean_accuracy)}%, "
        f"frequency-weighted IoU {_percent(pooled.frequency_weighted_iou)}%."
    )
    return ReportSection("All pixels together", (text,), tables=tables)


def class_warnings(evaluation: Evaluation) -> list[str]:
    """Say which classes no photograph has, and which were never predicted."""
    found = []
    for one in evaluation.pooled.classes if evaluation.pooled else ():
        if not one.true_pixels and one.predicted_pixels:
            found.append(f"{one.name} is predicted, but true in no photograph: its IoU is 0")
        elif not one.true_pixels:
            found.append(f"{one.name} is true in no photograph, so it is in no mean")
        elif not one.predicted_pixels:
            found.append(f"{one.name} is never predicted")
    return found


def files_table(files: Mapping[str, CaseFiles]) -> ReportTable:
    """Name the files of every case."""
    rows = [
        [case, *("-" if path is None else path.name for path in one.told.roles.values())]
        for case, one in files.items()
    ]
    return ReportTable("", ("case", "photograph", "prediction", "truth"), rows, num_texts=4)


def scored_cases(
    evaluation: Evaluation,
    files: Mapping[str, CaseFiles],
    drawn: Sequence[str],
    anchors: Mapping[str, str],
    ranked: Sequence[str],
) -> Iterator[ReportCase]:
    """Draw cases that were scored, one at a time."""
    means = evaluation.case_means()
    names, colours = evaluation.class_names, colours_of(evaluation)

    def one(case: str) -> ReportCase:
        classes = evaluation.scores[case]
        png, caption, has_errors = _picture(files[case], colours, list(classes))
        return ReportCase(
            case,
            picture=png,
            errors=has_errors,
            caption=caption,
            headline=f"{evaluation.headline_name} {means[case]:.3f}, number "
            f"{ranked.index(case) + 1} of {len(ranked)} from the worst",
            tables=(case_table(classes, names),),
            anchor=anchors[case],
        )

    return map(one, drawn)  # which holds no case while the next one is read


def case_table(classes: Mapping[int, ClassScores], names: Mapping[int, str]) -> ReportTable:
    """Scores of one photograph, a row for each class that is in one of its masks."""
    pixels = math.fsum(s.truth_pixels for s in classes.values())
    rows = [
        [
            class_name(label, names), _number(s.iou), _number(s.dice),
            _share(s.truth_pixels, pixels), _share(s.prediction_pixels, pixels),
        ]
        for label, s in classes.items()
        if s.truth_pixels or s.prediction_pixels
    ]  # fmt: skip
    columns = ("class", "IoU", "Dice", "true\n% of pixels", "predicted\n% of pixels")
    return ReportTable("", columns, rows)


def predicted_cases(
    files: Mapping[str, CaseFiles],
    drawn: Sequence[str],
    anchors: Mapping[str, str],
    colours: Mapping[int, Colour],
) -> Iterator[ReportCase]:
    """Draw cases without a truth, one at a time."""

    def one(case: str) -> ReportCase:
        png, caption, _ = _picture(files[case], colours, None)
        return ReportCase(case, picture=png, caption=caption, anchor=anchors[case])

    return map(one, drawn)


def share_section(
    files: Mapping[str, CaseFiles], names: Mapping[int, str], anchors: Mapping[str, str]
) -> tuple[ReportSection, dict[int, str]]:
    """How much of each photograph each class takes.

    Returns:
        The section, and the names of the classes that occur.
    """
    shares: dict[str, dict[int, float]] = {}
    texts: list[str] = []
    for case, one in files.items():
        if one.prediction is None:
            continue
        try:
            mask = read_label(one.prediction).array
        except VoxsegError as error:
            texts.append(f"{case} is not measured: {error}.")
            continue
        values, counts = np.unique(mask, return_counts=True)
        shares[case] = dict(zip(values.tolist(), (counts / mask.size).tolist(), strict=True))
    labels = sorted({*names, *(label for one in shares.values() for label in one)})
    known = {label: class_name(label, names) for label in labels}
    shown = labels[:_MOST_COLUMNS]
    rows: list[list[str | ReportLink]] = [
        [ReportLink(case, anchors.get(case, "")), *(_percent(one.get(k, 0.0)) for k in shown)]
        for case, one in shares.items()
    ]
    columns = ("photograph", *(f"{known[label]}\n%" for label in shown))
    note = f"The first {_MOST_COLUMNS} of {len(labels)} classes." if shown != labels else ""
    return ReportSection(
        "Share of pixels", texts, tables=(ReportTable("", columns, rows, note),)
    ), (known)


def _picture(
    files: CaseFiles, colours: Mapping[int, Colour], labels: Sequence[int] | None
) -> tuple[bytes, str, bool]:
    """Draw what can be read of a case; say what cannot, and whether errors are drawn."""
    texts: list[str] = []
    photograph = None
    masks: dict[str, np.ndarray] = {}
    size: tuple[int, ...] | None = None
    for name, path in files.roles.items():
        if path is None or not path.is_file():
            continue
        try:
            volume = read_channels([path]) if name == "image" else read_label(path)
        except VoxsegError as error:
            texts.append(f"The {name} is not drawn: {error}.")
            continue
        size = size or volume.shape
        if volume.shape != size:
            texts.append(f"The {name} is not drawn: {path} has another size.")
        elif name == "image":
            photograph = volume.array[..., 0].transpose(1, 2, 0).astype(np.uint8)
        else:
            masks[name] = volume.array[..., 0]
    if size is None:
        return b"", " ".join([*texts, "none of its files could be read."]), False
    counted = None if labels is None else np.asarray(labels)
    png = draw_photograph(photograph, masks, colours, counted)
    return png, " ".join(texts), len(masks) > 1


def _without_background(colours: Mapping[int, Colour], background: int | None) -> dict[int, Colour]:
    """Leave the background clear."""
    return {label: colour for label, colour in colours.items() if label != background}


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _share(part: float, whole: float) -> str:
    return _percent(part / whole) if whole else "-"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
