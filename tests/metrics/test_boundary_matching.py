"""The boundary matcher against every possible matching, and where the answer is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxseg.metrics.boundary_matching import (
    Neighbourhood,
    match_boundaries,
    match_places,
    places_of,
)

SHAPE = (5, 6)
REACH = 2.3 / math.hypot(*SHAPE)  # 2.3 pixels, as a share of the diagonal


def lengths(one, other, reach):
    """Distance in hundredths of each pair of pixels that are near enough."""
    pairs = {}
    for i, (y, x) in enumerate(one):
        for j, (v, u) in enumerate(other):
            distance = math.hypot(y - v, x - u)
            if distance <= reach:
                pairs[i, j] = round(100 * distance)
    return pairs


def best_of_all(pairs, rows, taken=frozenset()):
    """Most pairs, then least total distance, by trying everything: (-pairs, distance)."""
    if not rows:
        return (0, 0)
    row, rest = rows[0], rows[1:]
    found = [best_of_all(pairs, rest, taken)]
    for (i, j), length in pairs.items():
        if i == row and j not in taken:
            count, distance = best_of_all(pairs, rest, taken | {j})
            found.append((count - 1, distance + length))
    return min(found)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_match_matches_every_possible_one(data):
    spots = st.lists(st.integers(0, SHAPE[0] * SHAPE[1] - 1), max_size=6, unique=True)
    maps = np.zeros((2, *SHAPE), bool)
    for one in maps:
        one.reshape(-1)[data.draw(spots)] = True
    near = Neighbourhood.of(SHAPE, REACH)
    one, other = (places_of(each) for each in maps)
    partner = match_places(one, other, near)
    pairs = lengths(one, other, 2.3)
    found = [(i, int(j)) for i, j in enumerate(partner) if j >= 0]
    assert len({j for _, j in found}) == len(found)
    score = (-len(found), sum(pairs[pair] for pair in found))
    assert score == best_of_all(pairs, tuple(range(len(one))))


def test_masks_tell_who_is_matched():
    prediction, truth = np.zeros((2, 5, 6), bool)
    prediction[0, :3] = True  # three pixels, of which two can have a partner
    truth[2, 0] = truth[1, 2] = truth[4, 5] = True
    hit, found = match_boundaries(prediction, truth, REACH)
    assert np.argwhere(hit).tolist() == [[0, 0], [0, 2]]
    assert np.argwhere(found).tolist() == [[1, 2], [2, 0]]


def test_one_pixel_serves_one_only():
    prediction, truth = np.zeros((2, 5, 6), bool)
    prediction[1:4, 2] = truth[2, 2] = True
    hit, found = match_boundaries(prediction, truth, REACH)
    assert np.argwhere(hit).tolist() == [[2, 2]]  # the nearest
    assert found.sum() == 1


@pytest.mark.parametrize(("step", "is_near"), [((0, 2), True), ((2, 2), False), ((0, 3), False)])
def test_the_distance_is_euclidean_and_inclusive(step, is_near):
    prediction, truth = np.zeros((2, 30, 40), bool)  # the diagonal is 50
    prediction[10, 10] = truth[10 + step[0], 10 + step[1]] = True
    hit, found = match_boundaries(prediction, truth, 2 / 50)
    assert hit.any() == found.any() == is_near


def test_the_benchmarks_reach_on_bsds():
    near = Neighbourhood.of((321, 481))
    squares = (near.steps**2).sum(axis=1)
    assert squares.max() == 18  # 0.0075 * 578.3 = 4.34 pixels; 18 < 18.8 < 20
    assert len(squares) == 61
    assert near.costs[squares == 18].tolist() == [424] * 4
    assert near.unmatched_cost == math.ceil(10_000 * 0.0075 * math.hypot(321, 481))


def test_a_zigzag_line_of_more_pixels_is_matched_as_far_as_pixels_go(rng):
    """On a long pair of lines every pixel of the shorter map finds a partner."""
    prediction, truth = np.zeros((2, 40, 300), bool)
    truth[20, 5:295] = True
    prediction[21, 5:295] = True
    prediction[19, rng.choice(np.arange(5, 295), 30, replace=False)] = True
    hit, found = match_boundaries(prediction, truth, 4 / math.hypot(40, 300))
    assert found.sum() == hit.sum() == 290
    assert found.sum() == truth.sum()


def test_without_tolerance_only_equal_pixels_match(rng):
    prediction, truth = rng.random((2, 20, 30)) < 0.3
    hit, found = match_boundaries(prediction, truth, 0)
    np.testing.assert_array_equal(hit, prediction & truth)
    np.testing.assert_array_equal(found, prediction & truth)


def test_empty_maps_match_nothing():
    empty, full = np.zeros((4, 5), bool), np.ones((4, 5), bool)
    for pair in ((empty, full), (full, empty), (empty, empty)):
        hit, found = match_boundaries(*pair)
        assert not hit.any()
        assert not found.any()


def test_match_rejects_what_does_not_fit():
    with pytest.raises(ValueError, match=r"\(4, 5\) and \(5, 4\)"):
        match_boundaries(np.zeros((4, 5)), np.zeros((5, 4)))
    with pytest.raises(ValueError, match="share of the diagonal, got -1"):
        match_boundaries(np.zeros((4, 5)), np.zeros((4, 5)), -1)
