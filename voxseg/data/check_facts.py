"""What cases and a whole data set are like in numbers: sizes, intensities, class volumes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxseg.data.hashes import content_hash
from voxseg.data.orientation import orientation_of
from voxseg.data.volume import Volume

PERCENTILES = (0.5, 50.0, 99.5)

_MOST_COUNTED = 2**16  # values up to here are counted without sorting


@dataclass(frozen=True)
class CaseFacts:
    """What one readable case is like; axes in RAS+ order."""

    case_id: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    """mm."""
    voxel_ml: float
    """Volume of a voxel."""
    percentiles: tuple[tuple[float, ...], ...]
    """For each channel, the intensities at ``PERCENTILES`` of its nonzero voxels; empty for a
    photograph that was not read."""
    labelled_percentiles: tuple[tuple[float, ...], ...]
    """For each channel, the same of the voxels whose label is not 0; empty if there are none."""
    foreground_share: float
    """Voxels of the first channel that are not zero, in [0, 1]."""
    foreground_ml: float
    """Their volume."""
    foreground_shape: tuple[int, ...]
    """Size in voxels of the box around them."""
    label_voxels: dict[int, int]
    """Number of voxels by label value; empty without a label."""

    @property
    def label_ml(self) -> dict[int, float]:
        """Volume in ml by label value."""
        return {value: count * self.voxel_ml for value, count in self.label_voxels.items()}


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
    label_ml: dict[int, tuple[float, float, float]]
    """Mean, smallest and largest volume in ml by label value, of the cases that have it."""
    percentiles: tuple[tuple[float, ...], ...]
    """For each channel, medians over cases of the intensities at ``PERCENTILES``."""
    labelled_percentiles: tuple[tuple[float, ...], ...]
    """The same of labelled voxels, over the cases that have some; empty if none has."""
    foreground_share: float
    """Median over cases."""
    foreground_shape: tuple[int, ...]
    """Median over cases, in voxels."""

    @property
    def label_values(self) -> tuple[int, ...]:
        """Label values that occur, ascending."""
        return tuple(self.label_voxels)


@dataclass(frozen=True)
class CaseHashes:
    """Digests of voxels without their header, to find the same content elsewhere."""

    case_id: str
    channels: tuple[str, ...]
    """One for each channel; empty for a constant one, which many cases may share."""
    grid: str
    """Of the affine."""
    label: str
    """Empty without a label, or for one with a single value."""


def case_facts(case_id: str, image: Volume, label: Volume | None) -> CaseFacts:
    """Measure a case: ``image`` (C, X, Y, Z) with its ``label`` on the same grid."""
    axes = orientation_of(image.affine).axes
    values: dict[int, int] = {}
    labelled: tuple[tuple[float, ...], ...] = ()
    if label is not None:
        values = value_counts(label.array)
        inside = label.array != 0
        if inside.any():
            labelled = tuple(_percentiles(channel[inside]) for channel in image.array)
    nonzero = image.array[0] != 0
    lengths = np.linalg.norm(image.affine[:3, :3], axis=0)
    unit = image.spacing[0] / float(lengths[0])
    voxel_ml = abs(float(np.linalg.det(image.affine[:3, :3]))) * unit**3 / 1000
    num_inside, extent = int(np.count_nonzero(nonzero)), _extent(nonzero)
    return CaseFacts(
        case_id=case_id,
        shape=tuple(image.shape[axis] for axis in axes),
        spacing=tuple(image.spacing[axis] for axis in axes),
        voxel_ml=voxel_ml,
        percentiles=tuple(_percentiles(channel[channel != 0]) for channel in image.array),
        labelled_percentiles=labelled,
        foreground_share=num_inside / nonzero.size,
        foreground_ml=num_inside * voxel_ml,
        foreground_shape=tuple(extent[axis] for axis in axes),
        label_voxels=values,
    )


def case_hashes(case_id: str, image: Volume, label: Volume | None) -> CaseHashes:
    """Digest the voxels of a case."""
    return CaseHashes(
        case_id,
        tuple(digest(channel) for channel in image.array),
        content_hash(np.zeros(0), image.affine),
        "" if label is None else digest(label.array),
    )


def fingerprint_of(facts: Sequence[CaseFacts]) -> Fingerprint | None:
    """Sum up the cases with the usual number of channels; None if there are no cases.

    Photographs of which only the mask was read count in all but the intensities.
    """
    if not facts:
        return None
    num_channels = usual_channels(facts)
    usual = [one for one in facts if len(one.percentiles) in (0, num_channels)]
    spacings = np.array([one.spacing for one in usual])
    shapes = np.array([one.shape for one in usual])
    voxels: Counter[int] = Counter()
    cases: Counter[int] = Counter()
    for one in usual:
        voxels.update(one.label_voxels)
        cases.update(one.label_voxels.keys())
    volumes = {
        value: [one.label_ml[value] for one in usual if value in one.label_voxels]
        for value in sorted(voxels)
    }
    labelled = [one.labelled_percentiles for one in usual if one.labelled_percentiles]
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
        label_ml={v: (sum(ml) / len(ml), min(ml), max(ml)) for v, ml in volumes.items()},
        percentiles=_medians([one.percentiles for one in usual if one.percentiles]),
        labelled_percentiles=_medians(labelled),
        foreground_share=float(np.median([one.foreground_share for one in usual])),
        foreground_shape=_sizes(np.median([one.foreground_shape for one in usual], axis=0)),
    )


def usual_channels(facts: Sequence[CaseFacts]) -> int:
    """Return the number of channels that most cases have; 0 if the images of none were read."""
    counts = Counter(len(one.percentiles) for one in facts if one.percentiles)
    return counts.most_common(1)[0][0] if counts else 0


def value_counts(label: np.ndarray[Any, Any]) -> dict[int, int]:
    """Count the voxels of each value, ascending; int32 of any shape."""
    if label.min() >= 0 and label.max() < _MOST_COUNTED:
        counts = np.bincount(label.ravel())
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    found, numbers = np.unique(label, return_counts=True)
    return {int(value): int(count) for value, count in zip(found, numbers, strict=True)}


def digest(array: np.ndarray[Any, Any]) -> str:
    """Hash voxels but no header; empty if all are one value."""
    if array.min() == array.max():
        return ""
    return content_hash(array, np.zeros((4, 4)))


def _extent(inside: np.ndarray[Any, Any]) -> tuple[int, ...]:
    """Return the size of the box around the true voxels, 0 if there are none."""
    sizes = []
    for axis in range(inside.ndim):
        used = np.flatnonzero(inside.any(tuple(set(range(inside.ndim)) - {axis})))
        sizes.append(int(used[-1] - used[0]) + 1 if used.size else 0)
    return tuple(sizes)


def _percentiles(inside: np.ndarray[Any, Any]) -> tuple[float, ...]:
    if not inside.size:
        return (0.0,) * len(PERCENTILES)
    return _floats(np.percentile(inside, PERCENTILES))


def _medians(rows: Sequence[tuple[tuple[float, ...], ...]]) -> tuple[tuple[float, ...], ...]:
    if not rows:
        return ()
    return tuple(_floats(row) for row in np.median(rows, axis=0))


def _floats(values: np.ndarray[Any, Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _sizes(values: np.ndarray[Any, Any]) -> tuple[int, ...]:
    return tuple(round(float(value)) for value in values)
