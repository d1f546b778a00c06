"""Look at a whole data set before any time is spent on it: what is wrong, where, and what helps.

Every file is read once. Errors stop training; warnings are worth a look. The ``Fingerprint`` is
what defaults (spacing, patch size, classes) are chosen from.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from voxseg.data.cases import Case, Dataset
from voxseg.data.orientation import orientation_of
from voxseg.data.volume import (
    Volume,
    check_same_grid,
    content_hash,
    form_distance,
    read_channels,
    read_label,
)
from voxseg.errors import DataError

PERCENTILES = (0.5, 50.0, 99.5)
_PIXDIM_TOLERANCE = 1e-3
_CONFLICT_VOXELS = 0.5


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or odd."""

    severity: Literal["error", "warning"]
    case_id: str
    """Empty if it concerns the whole set."""
    path: Path | None
    cause: str
    cure: str

    def __str__(self) -> str:
        return f"{self.cause}; {self.cure}"


@dataclass(frozen=True)
class CaseFacts:
    """What one readable case is like; axes in RAS+ order."""

    case_id: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    """mm."""
    percentiles: tuple[tuple[float, ...], ...]
    """For each channel, the intensities at ``PERCENTILES`` of its nonzero voxels."""
    foreground_share: float
    """Voxels of the first channel that are not zero, in [0, 1]."""
    foreground_shape: tuple[int, ...]
    """Size in voxels of the box around them."""
    label_voxels: dict[int, int]
    """Number of voxels by label value; empty without a label."""


@dataclass(frozen=True)
class Fingerprint:
    """What a data set is like as a whole; axes in RAS+ order."""

    num_cases: int
    num_channels: int
    median_spacing: tuple[float, ...]
    """mm, by axis, as the other spacings."""
    min_spacing: tuple[float, ...]
    max_spacing: tuple[float, ...]
    median_shape: tuple[int, ...]
    min_shape: tuple[int, ...]
    max_shape: tuple[int, ...]
    label_voxels: dict[int, int]
    """Number of voxels by label value over all cases, ascending."""
    label_cases: dict[int, int]
    """Number of cases that have the value."""
    percentiles: tuple[tuple[float, ...], ...]
    """For each channel, medians over cases of the intensities at ``PERCENTILES``."""
    foreground_share: float
    """Median over cases."""
    foreground_shape: tuple[int, ...]
    """Median over cases, in voxels."""

    @property
    def label_values(self) -> tuple[int, ...]:
        """Label values that occur, ascending."""
        return tuple(self.label_voxels)


@dataclass(frozen=True)
class CheckReport:
    """Everything that was found."""

    findings: tuple[Finding, ...]
    cases: tuple[CaseFacts, ...]
    """Of the cases that could be read."""
    fingerprint: Fingerprint | None
    """None if no case could be read."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that training cannot live with."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings worth a look."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    def raise_for_errors(self) -> None:
        """Raise the first error, if any.

        Raises:
            DataError: With the number of the others.
        """
        if self.errors:
            more = len(self.errors) - 1
            others = f" ({more} more: `voxseg check` lists them)" if more else ""
            raise DataError(f"{self.errors[0]}{others}")

    def as_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold; label values become strings there."""
        findings = [asdict(finding) for finding in self.findings]
        for finding in findings:
            finding["path"] = str(finding["path"]) if finding["path"] else None
        return {
            "findings": findings,
            "cases": [asdict(facts) for facts in self.cases],
            "fingerprint": asdict(self.fingerprint) if self.fingerprint else None,
        }


def check_dataset(dataset: Dataset, on_case: Callable[[str], None] | None = None) -> CheckReport:
    """Read every case and report what is wrong with it, one file at a time.

    Args:
        dataset: As found.
        on_case: Called with the id of each case when it is done, for progress.

    Returns:
        Findings in the order of the cases, then those of the whole set. Unreadable files are
        errors in the report, never raised.
    """
    findings: list[Finding] = []
    facts: list[CaseFacts] = []
    seen: dict[str, str] = {}
    for case in dataset.cases:
        try:
            image, label = _read_pair(case)
        except DataError as error:
            findings.append(_from_error(case, error))
        else:
            findings.extend(_case_findings(case, image, label))
            findings.extend(_duplicates(case, image, seen))
            facts.append(_facts(case, image, label))
        if on_case is not None:
            on_case(case.case_id)
    findings.extend(_set_findings(dataset, facts))
    return CheckReport(tuple(findings), tuple(facts), _fingerprint(facts))


def _read_pair(case: Case) -> tuple[Volume, Volume | None]:
    image = read_channels(case.images)
    if case.label is None:
        return image, None
    label = read_label(case.label)
    check_same_grid(image, label)
    return image, label


def _from_error(case: Case, error: DataError) -> Finding:
    """Take cause and cure from the sentence; the file is the one that it names."""
    cause, _, cure = str(error).rpartition("; ")
    files = (*case.images, *((case.label,) if case.label else ()))
    named = [path for path in files if str(path) in str(error)]
    return Finding("error", case.case_id, named[0] if named else None, cause or cure, cure)


def _case_findings(case: Case, image: Volume, label: Volume | None) -> Iterator[Finding]:
    for path, channel in zip(case.images, image.array, strict=False):
        if channel.min() == channel.max():
            yield Finding(
                "error",
                case.case_id,
                path,
                f"{path} is constant: every voxel is {float(channel.flat[0]):g}",
                "replace the file or leave the case out",
            )
    if label is not None and label.array.min() == label.array.max():
        yield Finding(
            "warning",
            case.case_id,
            label.path,
            f"label {label.path} has but one value, {int(label.array.flat[0])}, in every voxel",
            "check that it is the right file; as training data it only shows background",
        )
    for volume in (image, label) if label is not None else (image,):
        yield from _header_findings(case, volume)


def _header_findings(case: Case, volume: Volume) -> Iterator[Finding]:
    header = volume.header
    sizes = np.abs(header["pixdim"][1:4].astype(float))
    lengths = np.linalg.norm(volume.affine[:3, :3], axis=0)
    if np.abs(sizes / lengths - 1).max() > _PIXDIM_TOLERANCE:
        yield Finding(
            "warning",
            case.case_id,
            volume.path,
            f"{volume.path} says voxels of {_mm(sizes)} in pixdim and of {_mm(lengths)} in its "
            "affine, which voxseg uses",
            "make the two agree if other programs read the file",
        )
    if header["qform_code"] <= 0 and header["sform_code"] <= 0:
        yield Finding(
            "warning",
            case.case_id,
            volume.path,
            f"{volume.path} does not say how it lies in the world (qform and sform codes are 0), "
            "so its first axis is taken to run from right to left",
            "set its sform if left and right matter",
        )
    distance = form_distance(volume)
    if distance > _CONFLICT_VOXELS:
        yield Finding(
            "warning",
            case.case_id,
            volume.path,
            f"qform and sform of {volume.path} lie up to {distance:.3g} voxels apart; voxseg uses "
            "the sform, other programs may not",
            "remove the wrong one if they should agree",
        )


def _duplicates(case: Case, image: Volume, seen: dict[str, str]) -> Iterator[Finding]:
    """Find the same voxels under another case id: they would leak from training to validation."""
    digest = content_hash(image.array, image.affine)
    other = seen.setdefault(digest, case.case_id)
    if other != case.case_id:
        yield Finding(
            "error",
            case.case_id,
            case.images[0],
            f"{case.images[0]} has the same voxels as case {other}",
            "remove one, or validation tests on training data",
        )


def _facts(case: Case, image: Volume, label: Volume | None) -> CaseFacts:
    axes = orientation_of(image.affine).axes
    values: dict[int, int] = {}
    if label is not None:
        found, counts = np.unique(label.array, return_counts=True)
        values = {int(value): int(count) for value, count in zip(found, counts, strict=True)}
    return CaseFacts(
        case_id=case.case_id,
        shape=tuple(image.shape[axis] for axis in axes),
        spacing=tuple(image.spacing[axis] for axis in axes),
        percentiles=tuple(_percentiles(channel) for channel in image.array),
        foreground_share=float(np.count_nonzero(image.array[0]) / math.prod(image.shape)),
        foreground_shape=tuple(_extent(image.array[0])[axis] for axis in axes),
        label_voxels=values,
    )


def _extent(channel: np.ndarray[Any, Any]) -> tuple[int, ...]:
    """Return the size of the box around the nonzero voxels, 0 if there are none."""
    sizes = []
    inside = channel != 0
    for axis in range(channel.ndim):
        used = np.flatnonzero(inside.any(tuple(set(range(channel.ndim)) - {axis})))
        sizes.append(int(used[-1] - used[0]) + 1 if used.size else 0)
    return tuple(sizes)


def _percentiles(channel: np.ndarray[Any, Any]) -> tuple[float, ...]:
    inside = channel[channel != 0]
    if not inside.size:
        return (0.0,) * len(PERCENTILES)
    return tuple(float(value) for value in np.percentile(inside, PERCENTILES))


def _set_findings(dataset: Dataset, facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    counts = Counter(len(one.percentiles) for one in facts)
    usual = counts.most_common(1)[0][0] if counts else 0
    for one in facts:
        if len(one.percentiles) != usual:
            yield Finding(
                "error",
                one.case_id,
                None,
                f"case {one.case_id} has {len(one.percentiles)} channels where most have {usual}",
                "give every case the same channels in the same order",
            )
    labelled = [one for one in facts if one.label_voxels]
    if labelled and all(len(one.label_voxels) == 1 for one in labelled):
        yield Finding(
            "error",
            "",
            None,
            f"none of the {len(labelled)} labels has more than one value: all are background",
            "check that the label files are the right ones",
        )
    unnamed = sorted({value for one in labelled for value in one.label_voxels})
    unnamed = [value for value in unnamed if value not in dataset.class_names]
    if dataset.class_names and unnamed:
        yield Finding(
            "warning",
            "",
            None,
            f"label values {', '.join(map(str, unnamed))} have no name in this {dataset.layout} "
            "data set",
            "check the labels, or add the names to its dataset.json",
        )


def _fingerprint(facts: Sequence[CaseFacts]) -> Fingerprint | None:
    if not facts:
        return None
    num_channels = Counter(len(one.percentiles) for one in facts).most_common(1)[0][0]
    usual = [one for one in facts if len(one.percentiles) == num_channels]
    spacings = np.array([one.spacing for one in usual])
    shapes = np.array([one.shape for one in usual])
    voxels: Counter[int] = Counter()
    cases: Counter[int] = Counter()
    for one in usual:
        voxels.update(one.label_voxels)
        cases.update(one.label_voxels.keys())
    percentiles = np.median([one.percentiles for one in usual], axis=0)
    return Fingerprint(
        num_cases=len(usual),
        num_channels=num_channels,
        median_spacing=_floats(np.median(spacings, axis=0)),
        min_spacing=_floats(spacings.min(0)),
        max_spacing=_floats(spacings.max(0)),
        median_shape=_sizes(np.median(shapes, axis=0)),
        min_shape=_sizes(shapes.min(0)),
        max_shape=_sizes(shapes.max(0)),
        label_voxels=dict(sorted(voxels.items())),
        label_cases=dict(sorted(cases.items())),
        percentiles=tuple(_floats(row) for row in percentiles),
        foreground_share=float(np.median([one.foreground_share for one in usual])),
        foreground_shape=_sizes(np.median([one.foreground_shape for one in usual], axis=0)),
    )


def _floats(values: np.ndarray[Any, Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _sizes(values: np.ndarray[Any, Any]) -> tuple[int, ...]:
    return tuple(round(float(value)) for value in values)


def _mm(sizes: np.ndarray[Any, Any]) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)
