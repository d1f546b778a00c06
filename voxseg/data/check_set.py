"""What shows only when the cases of a set are seen together: leaks, missing classes, outliers."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np

from voxseg.data.cases import Case, Dataset
from voxseg.data.check_facts import CaseFacts, CaseHashes, usual_channels
from voxseg.data.check_findings import Finding

FEWEST_FOR_OUTLIERS = 5
"""With fewer cases nothing is usual."""
OUTLIER_DEVIATIONS = 5.0
"""Distance from the median in robust standard deviations (1.4826 MAD) that makes an outlier."""

_SMALLEST_DEVIATION = 0.05  # of the median: sets that vary less are alike, and nothing sticks out
_RARE_SHARE = 0.5  # a class in fewer cases is rare (a lesion), in more cases it is missed
_MOST_NAMES = 5


def set_findings(dataset: Dataset, facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Compare the cases that could be read with each other, and with the names of the classes."""
    yield from _channels(facts)
    labelled = [one for one in facts if one.label_voxels]
    yield from _background_only(labelled)
    yield from _classes(dataset, labelled)
    yield from _names(dataset, labelled)
    yield from _outliers(dataset, facts)


def _channels(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    usual = usual_channels(facts) if facts else 0
    for one in facts:
        if len(one.percentiles) != usual:
            yield Finding(
                "error", "channels", one.case_id, None,
                f"case {one.case_id} has {len(one.percentiles)} channels where most have {usual}",
                "give every case the same channels in the same order",
            )  # fmt: skip


def _background_only(labelled: Sequence[CaseFacts]) -> Iterator[Finding]:
    if labelled and all(len(one.label_voxels) == 1 for one in labelled):
        yield Finding(
            "error", "background-only", "", None,
            f"none of the {len(labelled)} labels has more than one value: all are background",
            "check that the label files are the right ones",
        )  # fmt: skip


def _classes(dataset: Dataset, labelled: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Report values that a case lacks though most have them, and values that few cases have."""
    uneven = [one for one in labelled if len(one.label_voxels) > 1]
    for value in sorted({value for one in uneven for value in one.label_voxels}):
        having = [one for one in uneven if value in one.label_voxels]
        what = f"label value {_named(value, dataset)}"
        if len(having) < _RARE_SHARE * len(uneven):
            voxels = sum(one.label_voxels[value] for one in having)
            yield Finding(
                "warning", "class-rare", "", None,
                f"{what} occurs in only {len(having)} of {len(uneven)} cases "
                f"({_some([one.case_id for one in having])}), {voxels} voxels in all",
                "check that it is no slip of the pen; if it is real, see that each fold trains "
                "on some",
            )  # fmt: skip
            continue
        for one in uneven:
            if value not in one.label_voxels:
                yield Finding(
                    "warning", "class-missing", one.case_id, _label_of(dataset, one.case_id),
                    f"case {one.case_id} lacks {what}, which {len(having)} of {len(uneven)} cases "
                    "have",
                    "check that it was not forgotten; if it is truly absent, all is well",
                )  # fmt: skip


def _names(dataset: Dataset, labelled: Sequence[CaseFacts]) -> Iterator[Finding]:
    found = {value for one in labelled for value in one.label_voxels}
    unnamed = sorted(found - set(dataset.class_names))
    if dataset.class_names and unnamed:
        yield Finding(
            "warning", "class-unnamed", "", None,
            f"label values {', '.join(map(str, unnamed))} have no name in this {dataset.layout} "
            "data set",
            "check the labels, or add the names to its dataset.json",
        )  # fmt: skip
    absent = sorted(set(dataset.class_names) - found) if labelled else []
    if absent:
        yield Finding(
            "warning", "class-absent", "", None,
            f"no label has the value {', '.join(_named(value, dataset) for value in absent)}, "
            f"which this {dataset.layout} data set names",
            "check the labels, or take the name out: a class without a voxel cannot be learnt",
        )  # fmt: skip


def _outliers(dataset: Dataset, facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Report cases whose intensities or volumes lie far from those of the others."""
    usual = [one for one in facts if len(one.percentiles) == usual_channels(facts)]
    intensities: dict[str, list[str]] = {}
    for c in range(len(usual[0].percentiles) if usual else 0):
        name = f" of channel {c}" if len(usual[0].percentiles) > 1 else ""
        middles = {one.case_id: one.percentiles[c][1] for one in usual}
        spans = {one.case_id: one.percentiles[c][2] - one.percentiles[c][0] for one in usual}
        _collect(intensities, f"a median intensity{name}", "", middles)
        _collect(intensities, f"a contrast{name} (99.5th less 0.5th percentile)", "", spans)
    for case_id, figures in intensities.items():
        yield Finding(
            "warning", "intensity-outlier", case_id, _image_of(dataset, case_id),
            f"case {case_id} has {' and '.join(figures)}",
            "normalisation copes with another scale; look at the image if all are of one scanner",
        )  # fmt: skip
    volumes: dict[str, list[str]] = {}
    inside = {one.case_id: one.foreground_ml for one in usual}
    _collect(volumes, "nonzero voxels in a volume", " ml", inside)
    for value in sorted({value for one in usual for value in one.label_voxels} - {0}):
        of_class = {one.case_id: one.label_ml[value] for one in usual if value in one.label_voxels}
        _collect(volumes, f"label value {_named(value, dataset)} in a volume", " ml", of_class)
    for case_id, figures in volumes.items():
        yield Finding(
            "warning", "volume-outlier", case_id, _image_of(dataset, case_id),
            f"case {case_id} has {' and '.join(figures)}",
            "look at it beside another case: a wrong unit, another crop or a slip in the label "
            "shows at once",
        )  # fmt: skip


def _collect(
    words: dict[str, list[str]], what: str, unit: str, by_case: Mapping[str, float]
) -> None:
    """Add a clause to ``words`` for each case whose value is far from the usual ones."""
    if len(by_case) < FEWEST_FOR_OUTLIERS:
        return
    values = np.array(list(by_case.values()))
    is_usual = usual_values(values)
    low, high = _figure(values[is_usual].min()), _figure(values[is_usual].max())
    span = low if low == high else f"{low} to {high}"
    for case_id, value, fits in zip(by_case, values, is_usual, strict=True):
        if not fits:
            clause = f"{what} of {_figure(value)}{unit} (usual in this set: {span})"
            words.setdefault(case_id, []).append(clause)


def usual_values(values: np.ndarray) -> np.ndarray:
    """Tell which values belong together (boolean): those near the median, and their neighbours.

    A value is usual within ``OUTLIER_DEVIATIONS`` of the median, or within one deviation of
    another usual value, so that a long but unbroken tail holds no outliers.
    """
    distances = robust_distances(values)
    order = np.argsort(distances)
    is_usual: np.ndarray = np.abs(distances) <= OUTLIER_DEVIATIONS
    for way in (order, order[::-1]):
        for before, after in pairwise(way):
            if is_usual[before] and abs(distances[after] - distances[before]) <= 1:
                is_usual[after] = True
    return is_usual


def robust_distances(values: np.ndarray) -> np.ndarray:
    """Return how many robust standard deviations (1.4826 MAD) each value is from the median.

    Positive values are compared by their logarithms, because intensities and volumes spread by
    factors; a set that varies less than a twentieth counts as varying by that much.
    """
    if (values > 0).all():
        values, floor = np.log(values), np.log1p(_SMALLEST_DEVIATION)
    else:
        floor = _SMALLEST_DEVIATION * float(np.abs(values).max())
    from_middle = values - np.median(values)
    deviation = max(1.4826 * float(np.median(np.abs(from_middle))), float(floor))
    distances: np.ndarray = from_middle / deviation if deviation else from_middle
    return distances


def duplicates(dataset: Dataset, hashes: Sequence[CaseHashes]) -> Iterator[Finding]:
    """Find the same voxels under two case ids, whatever their headers: validation would leak."""
    by_id = {case.case_id: case for case in dataset.cases}
    images: dict[str, tuple[CaseHashes, int]] = {}
    labels: dict[str, CaseHashes] = {}
    for one in hashes:
        case = by_id[one.case_id]
        yield from _equal_channels(case, one)
        hits = [images[digest] for digest in one.channels if digest in images]
        if hits:
            yield _leak(case, one, *hits[0], _image_file(by_id[hits[0][0].case_id], hits[0][1]))
        elif one.label and one.label in labels:
            yield Finding(
                "warning", "duplicate-label", one.case_id, case.label,
                f"{case.label} is voxel for voxel the label of case {labels[one.label].case_id}, "
                "though their images differ",
                "check which image it belongs to; if both are scans of one subject, keep them in "
                "one fold",
            )  # fmt: skip
        for number, digest in enumerate(one.channels):
            if digest:
                images.setdefault(digest, (one, number))
        if one.label:
            labels.setdefault(one.label, one)


def _leak(case: Case, one: CaseHashes, other: CaseHashes, number: int, file: Path) -> Finding:
    differs = [
        *(["header"] if one.grid != other.grid else []),
        *(["label"] if one.label != other.label else []),
    ]
    words = f", under another {' and another '.join(differs)}" if differs else ""
    return Finding(
        "warning" if case.is_image else "error", "duplicate", case.case_id,
        _image_file(case, one.channels.index(other.channels[number])),
        f"{_image_file(case, one.channels.index(other.channels[number]))} has the same "
        f"{'pixels' if case.is_image else 'voxels'} as case {other.case_id} ({file}){words}: one "
        f"{'photograph' if case.is_image else 'subject'} counts as two",
        "remove one, or validation tests on training data",
    )  # fmt: skip


def _equal_channels(case: Case, one: CaseHashes) -> Iterator[Finding]:
    for first, second in combinations(range(len(one.channels)), 2):
        if one.channels[first] and one.channels[first] == one.channels[second]:
            yield Finding(
                "warning", "equal-channels", case.case_id, _image_file(case, second),
                f"channels {first} and {second} of case {case.case_id} have the same voxels",
                "check that the right file stands for each channel",
            )  # fmt: skip


def _image_file(case: Case, channel: int) -> Path:
    """Return the file of a channel; frames of one file share it."""
    return case.images[min(channel, len(case.images) - 1)]


def _image_of(dataset: Dataset, case_id: str) -> Path:
    return next(case.images[0] for case in dataset.cases if case.case_id == case_id)


def _label_of(dataset: Dataset, case_id: str) -> Path | None:
    return next(case.label for case in dataset.cases if case.case_id == case_id)


def _named(value: int, dataset: Dataset) -> str:
    name = dataset.class_names.get(value)
    return f"{value} ({name})" if name else str(value)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _figure(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
