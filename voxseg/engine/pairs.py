"""Which prediction belongs to which truth, by the names of the cases.

A truth is a label map, a folder of them, or a data set in any layout that training reads.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxseg.data.cases import Case, Dataset
from voxseg.data.folders import check_exists
from voxseg.data.layouts import find_cases
from voxseg.data.names import case_name, is_case_file
from voxseg.data.pairing import is_marked_label, pair, single_sources
from voxseg.errors import DataError, UsageError

# What predict puts beside a mask.
_BESIDE_MASK = re.compile(r"_(probability-\d+|overlay|entropy|disagreement|pve_[012])$")


@dataclass(frozen=True)
class Pair:
    """A prediction and the truth that it is scored against."""

    case_id: str
    prediction: Path
    truth: Path
    instances: Path | None = None
    """Map of the truth's single objects, if there is one."""


@dataclass(frozen=True)
class Pairs:
    """What was found in two places."""

    pairs: tuple[Pair, ...]
    without_prediction: tuple[str, ...] = ()
    """Cases that have a truth only."""
    without_truth: tuple[str, ...] = ()
    """Files that have no truth."""
    dataset: Dataset | None = None
    """The truth's data set; None for label maps alone."""

    @property
    def class_names(self) -> dict[int, str]:
        """Names that the truth's data set gives its classes."""
        return self.dataset.class_names if self.dataset else {}


def find_pairs(prediction: Path, truth: Path) -> Pairs:
    """Find which prediction belongs to which truth, by the names of the cases.

    Raises:
        DataError: A place does not exist or nothing in one fits the other.
        UsageError: A folder is to be scored against one file.
    """
    check_exists(prediction, truth)
    if is_case_file(truth) and truth.is_file():
        if not prediction.is_file():
            raise UsageError(
                f"{prediction} is a folder, but {truth} is one file; give two files or two folders"
            )
        return Pairs((Pair(case_name(prediction), prediction, truth),))
    dataset = _dataset(truth)
    if dataset is not None:
        return pair_with(prediction, dataset, truth)
    root, files = find_predictions(prediction)
    return _pairs(prediction, files, truth, *_by_file(root, files, truth), None)


def pair_with(prediction: Path, dataset: Dataset, truth: Path) -> Pairs:
    """Find the prediction of each case of a data set.

    Args:
        prediction: As for ``find_pairs``.
        dataset: With labels.
        truth: Where it lies, for messages.

    Raises:
        DataError: No prediction has the name of a case, or two have.
    """
    _, files = find_predictions(prediction)
    found = _by_name(files, dataset.cases)
    missing = _without(dataset, {one.case_id for one in found})
    return _pairs(prediction, files, truth, found, missing, dataset)


def _pairs(
    prediction: Path,
    files: Sequence[Path],
    truth: Path,
    found: Sequence[Pair],
    missing: Sequence[str],
    dataset: Dataset | None,
) -> Pairs:
    """Put together what was found, and name the predictions without a truth."""
    if not found:
        suffix = ".png" if dataset and dataset.is_images else ".nii.gz"
        raise DataError(
            f"no prediction in {prediction} has the name of a case in {truth} (the first "
            f"prediction is {files[0].name}); masks are named after their case, CASE{suffix}"
        )
    used = {one.prediction for one in found}
    strangers = tuple(str(path) for path in files if path not in used)
    return Pairs(tuple(found), tuple(missing), strangers, dataset)


def find_predictions(place: Path) -> tuple[Path, list[Path]]:
    """Return the folder and the label maps in it; a run keeps them in ``predictions/``.

    Raises:
        DataError: There are none.
    """
    if place.is_file():
        return place.parent, [place]
    root = place / "predictions" if (place / "predictions").is_dir() else place
    files = [path for path in _case_files(root) if not _BESIDE_MASK.search(case_name(path))]
    if not files:
        raise DataError(
            f"{root} holds no .nii, .nii.gz or .png prediction; run voxseg predict first"
        )
    return root, files


def _dataset(place: Path) -> Dataset | None:
    """The truth's data set; None for a folder of label maps alone."""
    try:
        dataset = find_cases(place, need_labels=True)
    except DataError:
        if place.is_dir() and _case_files(place):
            return None
        raise
    return dataset if any(case.label is not None for case in dataset.cases) else None


def _without(dataset: Dataset, found: set[str]) -> list[str]:
    """Labelled cases that were not predicted, of the data set's parts that have predictions.

    Who predicts a benchmark's validation part leaves nothing out of its training part.
    """
    labelled = {case.case_id for case in dataset.cases if case.label is not None}
    begun = [set(part) for part in dataset.parts.values() if found & set(part)]
    if begun and found <= set().union(*begun):
        labelled &= set().union(*begun)
    return sorted(labelled - found)


def _by_name(files: Iterable[Path], cases: Sequence[Case]) -> list[Pair]:
    """Pair predictions with cases by case id, or by the name of the label file."""
    truths = {case.case_id: case for case in cases if case.label is not None}
    by_label = {case_name(case.label): one for one, case in truths.items() if case.label}
    found: dict[str, Pair] = {}
    for path in files:
        name = case_name(path)
        case_id = name if name in truths else by_label.get(name)
        if case_id is None:
            continue
        if case_id in found:
            raise DataError(
                f"two predictions for one case: {found[case_id].prediction} and {path}; keep one"
            )
        truth = truths[case_id]
        assert truth.label is not None
        found[case_id] = Pair(case_id, path, truth.label, truth.instances)
    return [found[case_id] for case_id in sorted(found)]


def _by_file(root: Path, files: Sequence[Path], truth: Path) -> tuple[list[Pair], list[str]]:
    """Pair predictions with a folder of label maps by file name; name the labels left over."""
    labels = _case_files(truth)
    # Where some files are called labels, the others are images.
    labels = [path for path in labels if is_marked_label(path)] or labels
    sources = single_sources(files, root)
    found, orphans = pair(sources, labels, truth, is_apart=True)
    pairs = [
        Pair(sources[index].name, sources[index].images[0], label)
        for index, label in sorted(found.items())
    ]
    return pairs, sorted(case_name(path) for path in orphans)


def _case_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if is_case_file(path) and path.is_file())
