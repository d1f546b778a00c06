"""The classes that were found for photographs: a table, and how it is scored."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxseg.data.cases import Dataset
from voxseg.engine.task_scores import TaskEvaluation
from voxseg.errors import DataError
from voxseg.files import write_text
from voxseg.metrics.classification import FEW, ClassCounts, count_classes

TABLE = "predictions.csv"
"""In the folder of predictions; a part of the cases has a table of its own."""
_MOST_WRONG = 50  # that a page can draw


@dataclass(frozen=True)
class Categories:
    """The classes that were named for a photograph."""

    case_id: str
    names: tuple[str, ...]
    """The most probable first."""
    shares: tuple[float, ...]
    """Probability of each."""


def categories_of(case_id: str, shares: np.ndarray, names: Sequence[str]) -> Categories:
    """Name the classes with the largest of the probabilities (N,); ties in the order of classes."""
    order = np.argsort(-shares, kind="stable")[:FEW]
    return Categories(
        case_id, tuple(names[k] for k in order), tuple(float(shares[k]) for k in order)
    )


def write_categories(path: Path, rows: Sequence[Categories]) -> None:
    """Write a row for each photograph: case, class_1, probability_1, class_2, ..."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    most = max((len(row.names) for row in rows), default=0)
    heads = [f"{what}_{place}" for place in range(1, most + 1) for what in ("class", "probability")]
    writer.writerow(["case", *heads])
    for row in rows:
        pairs = zip(row.names, row.shares, strict=True)
        writer.writerow([row.case_id, *(c for name, p in pairs for c in (name, f"{p:.6f}"))])
    write_text(path, text.getvalue())


def category_tables(place: Path) -> list[Path]:
    """Find the tables of classes in a folder, or in its ``predictions``, or the one named."""
    if place.is_file():
        return [place] if place.suffix.lower() == ".csv" else []
    found = sorted(place.glob("predictions*.csv"))
    return found or sorted((place / "predictions").glob("predictions*.csv"))


def read_categories(tables: Sequence[Path]) -> dict[str, tuple[str, ...]]:
    """Read the classes that were named for each photograph.

    Raises:
        DataError: A table is damaged, or a photograph stands in two rows.
    """
    found: dict[str, tuple[str, ...]] = {}
    for path in tables:
        try:
            rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path} cannot be read as a table ({error}); predict again") from None
        for row in rows:
            case = row.get("case")
            names = [row.get(f"class_{place}") for place in range(1, FEW + 1)]
            if not case or not names[0]:
                raise DataError(
                    f'{path} has a row without "case" or "class_1"; voxseg predict writes such '
                    "tables"
                )
            if case in found:
                raise DataError(f"{path} names {case} again; keep one row for each photograph")
            found[case] = tuple(name for name in names if name)
    return found


def evaluate_categories(
    tables: Sequence[Path],
    dataset: Dataset,
    notify: Callable[[str, int, int], None] = lambda *_: None,
) -> TaskEvaluation:
    """Score named classes against those of a data set.

    Args:
        tables: As ``category_tables`` finds them.
        dataset: Whose cases have classes.
        notify: Called with case, number and total before each case.

    Raises:
        DataError: No photograph is in both, or a table is damaged.
    """
    named = read_categories(tables)
    truths = {case.case_id: case.category for case in dataset.cases if case.category}
    both = [case for case in truths if case in named]
    if not both:
        raise DataError(
            f"no photograph of {tables[0]} has the name of a case of the truth (the first is "
            f"{next(iter(named), 'nothing')}); predict the photographs of the same data set"
        )
    _refuse_strangers([named[case] for case in both], [truths[case] for case in both])
    cases: dict[str, Mapping[str, float]] = {}
    for number, case in enumerate(both, 1):
        notify(case, number, len(both))
        is_first = named[case][0] == truths[case]
        cases[case] = {"top1": float(is_first), "top5": float(truths[case] in named[case])}
    classes = sorted({truths[case] for case in both} | {n for case in both for n in named[case]})
    counts = _count([named[case] for case in both], [truths[case] for case in both], classes)
    totals = {"top1": counts.top1, "top5": counts.top5, "class_mean": counts.class_mean}
    shares = {
        name: float(share)
        for name, share in zip(classes, counts.class_accuracy, strict=True)
        if not np.isnan(share)
    }
    confusion = {
        name: {classes[k]: int(row[k]) for k in np.flatnonzero(row)}
        for name, row in zip(classes, counts.confusion, strict=True)
        if row.any()
    }
    begun = [set(part) for part in dataset.parts.values() if set(both) & set(part)]
    wanted = set().union(*begun) if begun else set(truths)
    return TaskEvaluation(
        "classification",
        cases,
        totals,
        {"accuracy": shares, "confusion": confusion, "wrong": _wrong(both, named, truths)},
        without_prediction=tuple(sorted((set(truths) & wanted) - set(named))),
        without_truth=tuple(sorted(set(named) - set(truths))),
    )


def _refuse_strangers(named: Sequence[Sequence[str]], truths: Sequence[str]) -> None:
    """Refuse names of which none is a class of the truth: they would all be wrong."""
    said, known = {name for names in named for name in names}, set(truths)
    if not said & known:
        raise DataError(
            f"none of the classes that were named ({', '.join(sorted(said)[:3])}) is one of the "
            f"truth ({', '.join(sorted(known)[:3])}); score against the data set as it was trained "
            "on, with its classes.json"
        )


def _count(
    named: Sequence[Sequence[str]], truths: Sequence[str], classes: Sequence[str]
) -> ClassCounts:
    """Count names by their place; photographs may have different numbers of them."""
    place = {name: index for index, name in enumerate(classes)}
    number = len(classes)
    total = ClassCounts(np.zeros((number, number), np.int64), np.zeros(number, np.int64))
    for width in {len(names) for names in named}:
        some = [index for index, names in enumerate(named) if len(names) == width]
        found = np.array([[place[name] for name in named[index]] for index in some])
        truth = np.array([place[truths[index]] for index in some])
        total = total + count_classes(found, truth, number)
    return total


def _wrong(
    cases: Sequence[str], named: Mapping[str, Sequence[str]], truths: Mapping[str, str]
) -> dict[str, list[str]]:
    """Give the class, and the classes that were named, of the first that are wrong.

    Those whose class was not named at all come first.
    """
    missed = [case for case in cases if named[case][0] != truths[case]]
    missed.sort(key=lambda case: truths[case] in named[case])
    return {case: [truths[case], *named[case]] for case in missed[:_MOST_WRONG]}
