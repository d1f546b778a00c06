"""Largest components and holes: by hand, against a flood fill, and what must stay as it is."""

from collections import deque
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from voxseg.data.cleaning import clean_label, enclosed_holes, largest_component

masks = array_shapes(min_dims=2, max_dims=3, max_side=6).flatmap(lambda s: arrays(bool, s))
labels = arrays(np.int16, st.tuples(*[st.integers(1, 6)] * 3), elements=st.sampled_from([0, 2, -5]))
BOTH = ("largest_component", "fill_holes")


def flood(mask, start, steps):
    """All voxels of a mask that can be reached from one."""
    reached, waiting = {start}, deque([start])
    while waiting:
        place = waiting.popleft()
        for step in steps:
            other = tuple(p + s for p, s in zip(place, step, strict=True))
            inside = all(0 <= o < n for o, n in zip(other, mask.shape, strict=True))
            if inside and mask[other] and other not in reached:
                reached.add(other)
                waiting.append(other)
    return reached


def pieces(mask):
    """Pieces that touch in corners, in the order of the array."""
    steps = [step for step in product((-1, 0, 1), repeat=mask.ndim) if any(step)]
    found, seen = [], set()
    for place in map(tuple, np.argwhere(mask)):
        if place not in seen:
            found.append(flood(mask, place, steps))
            seen |= found[-1]
    return found


@settings(deadline=None, derandomize=True, max_examples=60)
@given(mask=masks)
def test_largest_component_matches_a_flood_fill(mask):
    expected = np.zeros_like(mask)
    if mask.any():
        expected[tuple(np.array(sorted(max(pieces(mask), key=len))).T)] = True
    np.testing.assert_array_equal(largest_component(mask), expected)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(mask=masks)
def test_enclosed_holes_match_a_flood_from_outside(mask):
    thin = [n == 1 for n in mask.shape]
    faces = np.argwhere(
        np.pad(np.zeros([n if t else n - 2 for n, t in zip(mask.shape, thin, strict=True)], bool),
               [(0, 0) if t else (1, 1) for t in thin], constant_values=True)
    )  # fmt: skip
    unit = np.eye(mask.ndim, dtype=int)
    steps = [tuple(way * unit[axis]) for axis in range(mask.ndim) for way in (1, -1)]
    expected = ~mask
    for place in map(tuple, faces):
        if expected[place]:
            expected[tuple(np.array(sorted(flood(expected, place, steps))).T)] = False
    if all(thin):
        expected[:] = False
    np.testing.assert_array_equal(enclosed_holes(mask), expected)


def test_corners_connect_and_the_first_of_equals_stays():
    mask = np.zeros((6, 6, 6), bool)
    mask[1, 1, 1] = mask[2, 2, 2] = True
    mask[4, 4, 4] = mask[5, 5, 5] = True
    kept = largest_component(mask)
    assert [tuple(p) for p in np.argwhere(kept)] == [(1, 1, 1), (2, 2, 2)]


def test_a_slice_can_have_holes_and_a_volume_needs_a_lid():
    ring = np.ones((5, 5), bool)
    ring[2, 2] = False
    for shape in ((5, 5), (5, 5, 1), (1, 5, 5)):
        assert enclosed_holes(ring.reshape(shape)).sum() == 1
    tube = np.repeat(ring[..., None], 3, axis=2)
    assert not enclosed_holes(tube).any()
    tube[2, 2, 0] = tube[2, 2, 2] = True
    assert enclosed_holes(tube).sum() == 1
    assert not enclosed_holes(np.zeros((1, 1, 1), bool)).any()


def test_a_stray_piece_inside_another_class_becomes_part_of_it():
    label = np.zeros((12, 9, 9), np.int16)
    label[1:8, 1:8, 1:8] = 3
    label[4, 4, 4] = 7  # stray: the larger piece of 7 lies outside
    label[9:11, 1:8, 1:8] = 7
    cleaned = clean_label(label, {3: ["fill_holes"], 7: ["largest_component"]})
    expected = label.copy()
    expected[4, 4, 4] = 3
    np.testing.assert_array_equal(cleaned, expected)


def test_other_classes_are_never_filled_and_a_shared_hole_goes_to_the_first():
    label = np.zeros((9, 9, 9), np.int16)
    label[1:8, 1:8, 1:8] = 3
    label[2:7, 2:7, 2:7] = 5
    label[4, 4, 4] = 0
    for order, winner in (((3, 5), 3), ((5, 3), 5)):
        cleaned = clean_label(label, {value: ["fill_holes"] for value in order})
        assert cleaned[4, 4, 4] == winner
        cleaned[4, 4, 4] = 0
        np.testing.assert_array_equal(cleaned, label)


def test_a_ring_in_one_slice_of_a_volume_encloses_nothing():
    label = np.zeros((5, 5, 4), np.int16)
    label[1:4, 1:4, 2] = 1
    label[2, 2, 2] = 0
    np.testing.assert_array_equal(clean_label(label, {1: ["fill_holes"]}), label)
    assert clean_label(label[..., 2:3], {1: ["fill_holes"]})[2, 2, 0] == 1


def test_background_may_have_another_value():
    label = np.full((5, 5, 5), 9, np.int16)
    label[1:4, 1:4, 1:4] = 2
    label[2, 2, 2] = 9
    assert clean_label(label, {2: ["fill_holes"]}, background=9)[2, 2, 2] == 2
    assert clean_label(label, {2: ["fill_holes"]}, background=0)[2, 2, 2] == 9


@settings(deadline=None, derandomize=True, max_examples=60)
@given(label=labels, first=st.sampled_from([(2, -5), (-5, 2)]))
def test_cleaning_moves_voxels_only_between_a_class_and_background(label, first):
    before = label.copy()
    cleaned = clean_label(label, dict.fromkeys(first, BOTH))
    np.testing.assert_array_equal(label, before)
    assert cleaned.dtype == label.dtype
    taken = (cleaned != label) & (label != 0)
    for value in first:
        assert len(pieces(cleaned == value)) <= 1
        # A voxel taken from a class is background, or was enclosed by the other class.
        other = sum(first) - value
        assert set(cleaned[taken & (label == value)].tolist()) <= {0, other}
    np.testing.assert_array_equal(clean_label(label, {}), label)


def test_clean_label_rejects_what_it_cannot_do():
    label = np.zeros((2, 2, 2), np.int16)
    with pytest.raises(ValueError, match="shrink"):
        clean_label(label, {1: ["shrink"]})
    with pytest.raises(ValueError, match="other than 0"):
        clean_label(label, {0: ["fill_holes"]})
    np.testing.assert_array_equal(clean_label(label, {1: BOTH}), label)
