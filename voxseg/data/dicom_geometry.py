"""Where the slices of a DICOM series lie, and the affine that they make together.

Source: DICOM PS3.3, C.7.6.2.1.1: a pixel's place is ImagePositionPatient plus its column times the
row's direction and its row times the column's direction, each in mm, in LPS.
Slices are sorted along row x column, so that the voxels are (columns, rows, slices) without a flip.
What is no regular grid of one volume is refused; nothing is resampled in silence.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from voxseg.errors import DataError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM's axes run to the left and to the back, NIfTI's to the right and to the front."""

_PARALLEL = 1e-3  # of a direction cosine; scanners write five to seven digits
_SAME_PLACE = 1e-3  # mm
_SAME_SIZE = 1e-4  # of the pixel spacing, relative
_TILT = 2e-3  # lateral shift by distance: a tenth of a degree
_UNEVEN = 0.1  # of the slice spacing; positions are often rounded to 0.1 mm
_MISSING = 1.5  # slice spacings between two neighbours


@dataclass(frozen=True)
class Slice:
    """Where one image plane lies and how its stored values become grey values."""

    frame: int
    """Its number in its file, from 0."""
    rows: int
    columns: int
    position: tuple[float, ...] | None
    """ImagePositionPatient, mm in LPS; None where the file has none."""
    orientation: tuple[float, ...] | None
    """ImageOrientationPatient: directions of a row and of a column."""
    spacing: tuple[float, ...] | None
    """PixelSpacing in mm: between rows, between columns."""
    slope: float = 1.0
    intercept: float = 0.0


@dataclass(frozen=True, eq=False)
class Stack:
    """A regular grid of slices."""

    order: tuple[int, ...]
    """Indices of the slices, sorted along the normal."""
    affine: np.ndarray[Any, Any]
    """(4, 4) float64: voxel (column, row, slice) to mm in RAS."""
    shape: tuple[int, int, int]
    """(columns, rows, slices)."""


def stack(slices: Sequence[Slice], where: str) -> Stack:
    """Sort slices and check that they are one volume.

    Args:
        slices: Of one series, in any order.
        where: What the series is called in errors.

    Raises:
        DataError: They lack a place, are too few, differ in size, spacing or direction, lie at the
            same place, leave a gap, or lie along no normal (gantry tilt).
    """
    if not slices:
        raise DataError(f"{where} holds no image; choose another series")
    first, row, column = _common_plane(slices, where)
    if len(slices) < 2:
        raise DataError(f"{where} has one slice, which makes no volume; choose another series")
    normal = np.cross(row, column)
    places = np.array([one.position for one in slices], dtype=np.float64)
    heights = places @ normal
    order = np.argsort(heights, kind="stable")
    places, heights = places[order], heights[order]
    _check_places(heights, where)
    # Of all slices, so that what was rounded in one position weighs little.
    step = (places[-1] - places[0]) / (len(places) - 1)
    _check_tilt(places, heights, normal, where)
    _check_gaps(heights, where)
    row_mm, column_mm = first.spacing or (1.0, 1.0)
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1], lps[:3, 2] = row * column_mm, column * row_mm, step
    lps[:3, 3] = places[0]
    shape = (first.columns, first.rows, len(slices))
    return Stack(tuple(int(index) for index in order), LPS_TO_RAS @ lps, shape)


def is_parallel(slices: Sequence[Slice]) -> bool:
    """Tell whether all slices that have a direction have the same one, as localizers have not."""
    known = [one.orientation for one in slices if one.orientation is not None]
    return not known or bool(np.ptp(np.array(known), axis=0).max() <= _PARALLEL)


def _common_plane(
    slices: Sequence[Slice], where: str
) -> tuple[Slice, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return a slice and the directions of row and column that all share."""
    without = [
        one for one in slices if None in (one.position, one.orientation, one.spacing)
    ]  # fmt: skip
    if without:
        raise DataError(
            f"{where} does not say where {len(without)} of its {len(slices)} slices lie (position, "
            "orientation or pixel spacing is missing); export it again as original images"
        )
    sizes = Counter((one.columns, one.rows) for one in slices)
    if len(sizes) > 1:
        found = ", ".join(f"{n} of {c}x{r}" for (c, r), n in sizes.most_common(3))
        raise DataError(f"{where} has slices of different size ({found}); choose one kind of them")
    if not is_parallel(slices):
        raise DataError(
            f"{where} has slices that are not parallel, as a localizer has; choose another series"
        )
    spacing = np.array([one.spacing for one in slices])
    if (spacing <= 0).any() or not np.isfinite(spacing).all():
        raise DataError(f"{where} has a pixel spacing that is not above 0; export it again")
    if (np.ptp(spacing, axis=0) > _SAME_SIZE * spacing[0]).any():
        low, high = spacing.min(), spacing.max()
        raise DataError(
            f"{where} has slices of different pixel spacing ({low:.4g} to {high:.4g} mm); choose "
            "one kind of them"
        )
    first = slices[0]
    directions = np.array(first.orientation, dtype=np.float64).reshape(2, 3)
    lengths = np.linalg.norm(directions, axis=1)
    is_right = abs(directions[0] @ directions[1]) < _PARALLEL and (abs(lengths - 1) < 0.01).all()
    if not is_right:
        raise DataError(f"{where} has rows and columns that are not at right angles; export again")
    directions /= lengths[:, None]
    return first, directions[0], directions[1]


def _check_places(heights: np.ndarray[Any, Any], where: str) -> None:
    """Refuse several slices at one place: time points, echoes, or copies."""
    starts = np.flatnonzero(np.diff(heights, prepend=-np.inf) > _SAME_PLACE)
    counts = np.diff(np.append(starts, len(heights)))
    if (counts == 1).all():
        return
    times = int(counts.max())
    if (counts == times).all():
        raise DataError(
            f"{where} is 4D: {times} images at each of its {len(counts)} positions (time points, "
            "echoes or diffusion directions); separate them into series of one volume each"
        )
    raise DataError(
        f"{where} has {int((counts > 1).sum())} positions with more than one slice; remove the "
        "copies, or separate what was recorded twice"
    )


def _check_tilt(
    places: np.ndarray[Any, Any],
    heights: np.ndarray[Any, Any],
    normal: np.ndarray[Any, Any],
    where: str,
) -> None:
    moved = places - places[0]
    lateral = np.linalg.norm(moved - np.outer(heights - heights[0], normal), axis=1)
    tilt = lateral[-1] / (heights[-1] - heights[0])
    if tilt > _TILT:
        degrees = np.degrees(np.arctan(tilt))
        raise DataError(
            f"{where} was recorded with a tilted gantry ({degrees:.1f} degrees: its slices are "
            "shifted against each other); correct the tilt first (dcm2niix does)"
        )
    # The way from the first slice to the last must be straight, too.
    if lateral.max() > max(_TILT * (heights[-1] - heights[0]), 0.1):
        raise DataError(
            f"{where} has slices shifted sideways by up to {lateral.max():.3g} mm; choose another "
            "series, or resample it first"
        )


def _check_gaps(heights: np.ndarray[Any, Any], where: str) -> None:
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    even = np.linspace(heights[0], heights[-1], len(heights))
    if np.abs(heights - even).max() <= _UNEVEN * usual:
        return
    widest = int(gaps.argmax())
    if gaps[widest] < _MISSING * usual:
        raise DataError(
            f"{where} has slices at uneven distances ({gaps.min():.4g} to {gaps.max():.4g} mm); "
            "resample it first"
        )
    _refuse_missing(heights, gaps, usual, where)


def _refuse_missing(
    heights: np.ndarray[Any, Any], gaps: np.ndarray[Any, Any], usual: float, where: str
) -> NoReturn:
    wide = np.flatnonzero(gaps >= _MISSING * usual)
    missing = int(np.rint(gaps[wide] / usual - 1).sum())
    low, high = heights[wide[0]], heights[wide[0] + 1]
    more = f" and at {len(wide) - 1} other places" if len(wide) > 1 else ""
    raise DataError(
        f"{where} lacks {missing} {'slice' if missing == 1 else 'slices'}: between {low:.2f} and "
        f"{high:.2f} mm along its normal{more}, where slices lie {usual:.4g} mm apart; copy all "
        "files of the series"
    )
