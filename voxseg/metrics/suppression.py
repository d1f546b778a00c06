"""Suppression of what is no maximum across a boundary: thick responses become thin lines.

Source: Canny, *A computational approach to edge detection*, TPAMI 8(6), 1986, in the form of
Dollar and Zitnick's structured edges, *Fast edge detection using structured forests*, TPAMI 37(8),
2015, arXiv:1406.5549, which PixelNet (arXiv:1609.06694, section 4.3) and HED apply before they are
scored:

1. The map is smoothed with a triangle filter, and the direction across a boundary taken from its
   second derivatives: the arc tangent of the ratio of those along y and along x, turned by the sign
   of the mixed one. That is exact along the axes and diagonals, and up to 13 degrees off between.
2. A pixel goes if 1.01 times its strength is less than the strength of a point (between pixels,
   interpolated) at most ``radius`` pixels off on either side.
3. Strengths fall off linearly in the last five pixels at the borders, where networks imagine edges.

Ties stay, so plateaus remain thick; thinning in the benchmark deals with them.

Departure: a mixed derivative of exactly 0 counts as negative. With the sign of 0, a perfectly
horizontal line would be taken for a vertical one.
"""

from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

_SMOOTHING = 4  # radius of the triangle
_MARGIN = 1.01  # by how much a neighbour must be stronger
_BORDER = 5  # pixels
_TINY = 1e-5  # keeps the ratio of derivatives finite

Floats = NDArray[np.float64]


def suppress_non_maxima(
    strength: NDArray[np.floating[Any]], radius: int = 1
) -> NDArray[np.float32]:
    """Keep the ridges of a boundary map.

    Args:
        strength: (H, W) not negative.
        radius: How many pixels away neighbours count, on either side: 1 as structured edges, 2 as
            HED.

    Returns:
        (H, W): the strength where it is a maximum across the boundary, else 0.

    Raises:
        ValueError: ``strength`` is not (H, W), or ``radius`` is less than 1.
    """
    if strength.ndim != 2:
        raise ValueError(f"strength must be (H, W), got {strength.shape}")
    if radius < 1:
        raise ValueError(f"radius must be at least 1, got {radius}")
    given = strength.astype(np.float64)
    if not given.size:
        return given.astype(np.float32)
    y, x = np.nonzero(given)
    angle = boundary_normals(given)[y, x]
    step_y, step_x = np.sin(angle), np.cos(angle)
    is_kept = np.ones(len(y), np.bool_)
    for distance in (*range(-radius, 0), *range(1, radius + 1)):
        points = (y + distance * step_y, x + distance * step_x)
        beside = scipy.ndimage.map_coordinates(given, points, order=1, mode="nearest")
        is_kept &= _MARGIN * given[y, x] >= beside
    kept = np.zeros_like(given)
    kept[y[is_kept], x[is_kept]] = given[y[is_kept], x[is_kept]]
    return np.asarray(_faded(kept), np.float32)


def boundary_normals(strength: NDArray[np.floating[Any]]) -> Floats:
    """Return the direction across the boundary at each pixel.

    Args:
        strength: (H, W).

    Returns:
        (H, W) in [0, pi): 0 along x (to the right), pi / 2 along y (down).
    """
    smooth = _triangle(strength.astype(np.float64), _SMOOTHING)
    along_y, along_x = (_gradient(smooth, axis) for axis in (0, 1))
    xx, xy, yy = _gradient(along_x, 1), _gradient(along_y, 1), _gradient(along_y, 0)
    turned = np.where(xy > 0, -yy, yy)
    return np.asarray(np.mod(np.arctan(turned / (xx + _TINY)), np.pi), np.float64)


def _triangle(values: Floats, radius: int) -> Floats:
    """Smooth with a triangle of this radius along both axes, mirrored at the borders."""
    rising = np.arange(1, radius + 1)
    weights = np.concatenate([rising, [radius + 1], rising[::-1]]) / (radius + 1) ** 2
    for axis in (0, 1):
        values = scipy.ndimage.correlate1d(values, weights, axis=axis, mode="reflect")
    return values


def _gradient(values: Floats, axis: int) -> Floats:
    """Central differences, one-sided at the borders; 0 along an axis of one pixel."""
    if values.shape[axis] < 2:
        return np.zeros_like(values)
    return np.asarray(np.gradient(values, axis=axis), np.float64)


def _faded(values: Floats) -> Floats:
    """Let values fall to 0 within the last pixels at each border."""
    for axis, size in enumerate(values.shape):
        reach = min(_BORDER, size // 2)
        place = np.arange(size)
        weight = np.minimum(1, np.minimum(place, size - 1 - place) / max(reach, 1))
        values = values * np.expand_dims(weight, 1 - axis)
    return values
