"""Canny's detector at its best setting: the baseline of boundaries, and a check of the scores.

Source: Canny, *A computational approach to edge detection*, TPAMI 8(6), 1986, as scikit-image has
it. Published figures on the 200 test images of BSDS500: ODS .600, OIS .640, AP .580 (Bansal and
others, *PixelNet*, arXiv:1609.06694, table 7); people reach F .80 (their figure 4).
"""

import functools
import operator
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2gray
from skimage.feature import canny

from voxseg.data.boundaries import read_boundaries
from voxseg.data.cases import Case
from voxseg.data.images import read_photograph
from voxseg.errors import DataError
from voxseg.metrics.boundaries import (
    BoundaryCounts,
    BoundaryScores,
    evaluate_annotators,
    evaluate_boundaries,
    scores,
)

THRESHOLDS = tuple(np.geomspace(0.002, 1.2, 32).tolist())
"""Upper thresholds of the length that Sobel's filters give (8 times the slope), grey in [0, 1]."""

_LOWER = 0.4  # of the upper threshold, as MATLAB's edge


def canny_strength(
    photograph: NDArray[np.floating], sigma: float, thresholds: Sequence[float] = THRESHOLDS
) -> NDArray[np.float64]:
    """Turn Canny's yes and no at a row of thresholds into strengths.

    Args:
        photograph: (3, H, W) red, green and blue in 0 to 255.
        sigma: Of the Gaussian, in pixels.
        thresholds: K upper thresholds of hysteresis, rising.

    Returns:
        (H, W): k / (K + 1) where the k-th threshold is the last that has an edge there, 0 without
        one.
    """
    grey = rgb2gray(photograph.transpose(1, 2, 0) / 255)
    strength = np.zeros(grey.shape)
    for number, upper in enumerate(thresholds, 1):
        edges = canny(  # type: ignore[no-untyped-call]  # scikit-image has types in part only
            grey, sigma, low_threshold=_LOWER * upper, high_threshold=upper, mode="nearest"
        )
        strength[edges] = number / (len(thresholds) + 1)
    return strength


def score_canny(cases: Iterable[Case], sigma: float) -> BoundaryScores:
    """Score Canny's edges on photographs with boundaries.

    Raises:
        DataError: A file cannot be read, a case has no boundaries, or there is none.
    """
    return _sum(
        evaluate_boundaries(
            canny_strength(read_photograph(case.images[0]).array[..., 0], sigma), _truth(case)
        )
        for case in cases
    )


def score_people(cases: Iterable[Case]) -> BoundaryScores:
    """Score every annotator against the others; cases with one annotator are passed over.

    Raises:
        DataError: As for ``score_canny``.
    """
    truths = map(_truth, cases)
    return _sum(evaluate_annotators(truth) for truth in truths if len(truth) > 1)


def _truth(case: Case) -> NDArray[np.uint8]:
    if case.label is None:
        raise DataError(f"{case.images[0]} has no boundaries; leave it out, or add them")
    return read_boundaries(case.label)


def _sum(counts: Iterable[BoundaryCounts]) -> BoundaryScores:
    found = list(counts)
    if not found:
        raise DataError("there is no case to score; name a folder of photographs with boundaries")
    return scores(functools.reduce(operator.add, found))
