"""One-to-one matching of two boundary maps within a distance, at least cost.

Source: Martin, Fowlkes, Malik, *Learning to detect natural image boundaries using local brightness,
color, and texture cues*, TPAMI 26(5), 2004, appendix B, and the benchmark's ``correspondPixels``: a
pixel is paired with at most one pixel of the other map; a pair costs its distance and may be as far
apart as a share of the image's diagonal; a pixel without a partner costs 100 times that. In effect
as many pixels as possible find a partner, and of all such matchings the shortest is taken.

As in the benchmark, distances count in whole hundredths of a pixel.

Departure: the benchmark joins each pixel to six outliers drawn at random; here the least cost is
exact, and the same maps give the same matching.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 0.0075
"""How far apart a pair may be, as a share of the image's diagonal: the benchmark's on BSDS500."""

_HUNDREDTHS = 100
_UNMATCHED = 100  # cost of a pixel without a partner, in largest distances

Places = NDArray[np.int32]
Masks = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Which pixels of maps of one size may be paired, and what that costs."""

    shape: tuple[int, int]
    steps: Places
    """(N, 2) in y and x, the shortest first."""
    costs: NDArray[np.int64]
    """(N,) of each step, in hundredths of a pixel."""
    unmatched_cost: int

    @classmethod
    def of(cls, shape: tuple[int, int], tolerance: float = TOLERANCE) -> "Neighbourhood":
        """Return that of maps of a size.

        Args:
            shape: Height and width.
            tolerance: As a share of the diagonal.

        Raises:
            ValueError: ``tolerance`` is negative or no number.
        """
        if not 0 <= tolerance < math.inf:
            raise ValueError(f"tolerance must be a share of the diagonal, got {tolerance}")
        distance = tolerance * math.hypot(*shape)
        reach = math.floor(distance)
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
        squares = y**2 + x**2
        order = np.argsort(squares, kind="stable")
        order = order[squares[order] <= distance**2]
        steps = np.stack([y[order], x[order]], axis=1).astype(np.int32)
        costs = np.rint(_HUNDREDTHS * np.sqrt(squares[order])).astype(np.int64)
        return cls(shape, steps, costs, max(1, math.ceil(_UNMATCHED * _HUNDREDTHS * distance)))


def match_boundaries(
    prediction: NDArray[Any], truth: NDArray[Any], tolerance: float = TOLERANCE
) -> tuple[Masks, Masks]:
    """Tell which pixels of two maps find a partner in the other.

    Args:
        prediction: (H, W), nonzero on a boundary.
        truth: (H, W), nonzero on a boundary.
        tolerance: As a share of the image's diagonal.

    Returns:
        Masks (H, W) of the matched pixels of both maps, with as many pixels in one as in the other.

    Raises:
        ValueError: Shapes differ or are not (H, W).
    """
    if prediction.ndim != 2 or prediction.shape != truth.shape:
        raise ValueError(
            f"two maps (H, W) of one shape are needed, got {prediction.shape} and {truth.shape}"
        )
    near = Neighbourhood.of((prediction.shape[0], prediction.shape[1]), tolerance)
    places = places_of(prediction), places_of(truth)
    partner = match_places(*places, near)
    matched = np.zeros((2, *near.shape), np.bool_)
    has_partner = partner >= 0
    matched[0][tuple(places[0][has_partner].T)] = True
    matched[1][tuple(places[1][partner[has_partner]].T)] = True
    return matched[0], matched[1]


def places_of(boundaries: NDArray[Any]) -> Places:
    """List the pixels of a map, (N, 2) y and x, in raster order."""
    return np.argwhere(boundaries).astype(np.int32)


def match_places(one: Places, other: Places, near: Neighbourhood) -> Places:
    """Return the partner (N,) of each pixel of ``one`` in ``other``, -1 for none."""
    if len(one) > len(other):  # fewer rows, fewer searches; the least cost is the same
        partner_of = match_places(other, one, near)
        partner = np.full(len(one), -1, np.int32)
        has_partner = partner_of >= 0
        partner[partner_of[has_partner]] = np.flatnonzero(has_partner)
        return partner
    from voxseg.ops.cpu.assignment import assign, near_pairs  # Numba and torch, two seconds

    index = np.full(near.shape, -1, np.int32)
    index[tuple(other.T)] = np.arange(len(other), dtype=np.int32)
    pairs = near_pairs(one, index, near.steps, near.costs)
    return assign(pairs, len(other), near.unmatched_cost)
