"""Suppression across boundaries against the definition pixel by pixel, and on known ridges."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from voxseg.metrics.suppression import boundary_normals, suppress_non_maxima

WHOLE = np.mgrid[-20:21, -25:26].astype(float)


def ridge(angle, width=2.0):
    """A straight ridge through the middle; ``angle`` is across it, 0 along x."""
    y, x = WHOLE
    return np.exp(-((x * math.cos(angle) + y * math.sin(angle)) ** 2) / (2 * width**2))


def plain(strength, radius):
    """The definition, pixel by pixel."""
    height, width = strength.shape
    normals = boundary_normals(strength)
    kept = np.zeros_like(strength)

    def at(y, x):
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        top, left = min(int(y), height - 2), min(int(x), width - 2)
        down, right = y - top, x - left
        upper = strength[top, left] * (1 - right) + strength[top, left + 1] * right
        lower = strength[top + 1, left] * (1 - right) + strength[top + 1, left + 1] * right
        return upper * (1 - down) + lower * down

    for y in range(height):
        for x in range(width):
            step = math.sin(normals[y, x]), math.cos(normals[y, x])
            beside = [at(y + d * step[0], x + d * step[1]) for d in range(-radius, radius + 1) if d]
            if 1.01 * strength[y, x] >= max(beside):
                kept[y, x] = strength[y, x]
            inset = min(y, height - 1 - y, 5) / 5 * min(x, width - 1 - x, 5) / 5
            kept[y, x] *= inset
    return kept


@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("sigma", [1, 3])
def test_suppress_matches_the_definition(radius, sigma, rng):
    strength = gaussian_filter(rng.random((27, 34)), sigma)
    strength /= strength.max()
    found = suppress_non_maxima(strength, radius)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, plain(strength, radius), rtol=1e-6, atol=1e-9)
    assert 0 < np.count_nonzero(found) < found.size / 2


@pytest.mark.parametrize("degrees", [0, 45, 90, 135])
def test_normals_cross_the_ridge(degrees):
    found = boundary_normals(ridge(math.radians(degrees)))[20, 25]
    off = abs(found - math.radians(degrees)) % math.pi
    assert min(off, math.pi - off) < 0.01


@pytest.mark.parametrize("degrees", [15, 23, 60, 110])
def test_normals_between_are_off_by_13_degrees_at_most(degrees):
    found = boundary_normals(ridge(math.radians(degrees)))[20, 25]
    off = abs(found - math.radians(degrees)) % math.pi
    assert min(off, math.pi - off) < math.radians(13)


@pytest.mark.parametrize("degrees", [0, 30, 45, 90, 120])
def test_a_ridge_becomes_a_line(degrees):
    kept = suppress_non_maxima(ridge(math.radians(degrees))) > 0
    inside = kept[6:-6, 6:-6]
    y, x = WHOLE[:, 6:-6, 6:-6]
    across = np.abs(x * math.cos(math.radians(degrees)) + y * math.sin(math.radians(degrees)))
    assert across[inside].max() < 1
    length = inside.shape[0] if degrees < 45 or degrees > 135 else inside.shape[1]
    assert length * 0.6 < inside.sum() < length * 2.1


def test_strengths_fade_at_the_border():
    strength = np.ones((20, 30))
    found = suppress_non_maxima(strength)
    inset = np.minimum(np.arange(30), np.arange(30)[::-1])
    np.testing.assert_allclose(found[10], np.minimum(inset / 5, 1), rtol=1e-6)
    assert found[2, 3] == pytest.approx(2 / 5 * 3 / 5)
    assert found[0].max() == 0


def test_small_and_empty_maps():
    assert suppress_non_maxima(np.zeros((7, 9))).max() == 0
    assert suppress_non_maxima(np.zeros((0, 9))).shape == (0, 9)
    assert suppress_non_maxima(np.ones((1, 1))).tolist() == [[0]]
    assert suppress_non_maxima(np.ones((1, 30))).shape == (1, 30)


def test_what_does_not_fit_is_rejected():
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        suppress_non_maxima(np.zeros((1, 4, 5)))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        suppress_non_maxima(np.zeros((4, 5)), 0)
